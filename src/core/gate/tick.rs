//! One tick: counts in, verdict out.

use std::collections::BTreeMap;

use super::blocks::Place;
use super::config::{Measure, Unit};
use super::hang::{Key, is_past, limit, slot_of};
use super::input::{Cell, Events, Exposures, Tick, TickInput};
use super::layout::{Channel, Event};
use super::state::{EndpointTotals, Flag, Step};
use super::step::StepFacts;
use super::verdict::{Outcome, Paused, Reason, Verdict};
use super::watch::{ALONE_GRAINS, TRIAL_GRAINS, TRIAL_TICKS, Trial, Watch, is_failure};
use super::{
    CLEAN_MIN, DOUBT, ENDPOINTS_MAX, FALLBACK_TICKS, FLAG_TICKS, Gate, POOL_MIN, RESTART_TICKS, SESSIONS_MIN,
    WARMUP_INCREASE_TICKS,
};
use crate::core::weight::Weight;

/// Ticks by which a worker's clock may run ahead of the control loop's.
const AHEAD_MAX: Tick = 64;

impl Gate {
    /// Takes one tick and says what follows. Call it for every tick in which anything happened and at least once a second otherwise, in
    /// every phase of the rollout, paused ones included. Entries that name a series or channel the layout has not are ignored.
    pub fn tick(&mut self, input: &TickInput<'_>) -> Verdict {
        // A tick before the first one is not in the far future.
        let since = Some(input.now.wrapping_sub(self.epoch)).filter(|since| *since <= Tick::MAX / 2);
        let now = since.unwrap_or(0).max(self.state.seen());
        self.state.now = Some(now);
        let apart = input.pool >= POOL_MIN;
        self.begin_tick(now, input);
        for &exposures in input.exposures {
            self.expose(now, exposures, input.weight);
        }
        self.take_events(now, input, apart);
        self.close_blocks(now, input.weight, apart);
        self.state.step.facts.succeeded += u64::from(input.succeeded[1]);
        self.state.sample_ratio.add(input.draws, input.weight);
        if input.failed {
            self.state.failed_at = Some(now);
        }
        self.collect_second(now, input);
        self.state.degraded.tick(now, input.hold, -self.config.alpha.ln());
        self.follow_trial(now, input.weight);
        self.verdict(now, input, apart)
    }

    /// What depends on time, weight and step alone.
    fn begin_tick(&mut self, now: Tick, input: &TickInput<'_>) {
        while self.state.next_restart <= now {
            self.state.next_restart += RESTART_TICKS;
            self.state.tests.restart();
            self.state.degraded.restart();
            if let Some(alone) = &mut self.state.alone {
                alone.restart();
            }
        }
        let weight = input.weight.grains();
        if weight != self.state.weight {
            self.change_weight(now, weight, apart_of(input));
        }
        let step = &mut self.state.step;
        if input.step != step.number {
            *step = Step { number: input.step, since: now, facts: StepFacts::default(), unit: self.config.unit };
        }
        step.facts.sessions = input.sessions;
        let few = input.sessions < SESSIONS_MIN && now >= step.since + FALLBACK_TICKS;
        step.unit = if few { Unit::Request } else { self.config.unit };
    }

    /// One block has one weight; and cold caches get some time when the candidate's share doubles.
    fn change_weight(&mut self, now: Tick, weight: u16, apart: bool) {
        if weight >= self.state.weight.saturating_mul(2) {
            self.warm_up(now, now + WARMUP_INCREASE_TICKS);
        }
        for index in 0..self.state.rings.len() {
            if let Some((block, counts)) = self.state.rings[index].seal_before(now) {
                let channel = Channel(u8::try_from(index).unwrap_or(u8::MAX));
                self.state.tests.block(&self.layout, channel, &block, &counts, apart);
            }
        }
        let alone = weight > ALONE_GRAINS;
        if alone && self.state.alone.is_none() {
            let (baseline, estimates) = (&self.state.baseline, &self.state.estimates);
            self.state.alone = Some(Watch::of_candidate(&self.config, &self.layout, baseline, estimates));
        } else if !alone {
            self.state.alone = None;
        }
        self.state.weight = weight;
    }

    /// Until `until` both thresholds are ten times as high.
    fn warm_up(&mut self, now: Tick, until: Tick) {
        if until > self.state.warm_at {
            self.state.warm_at = until;
            self.set_thresholds(now);
        }
    }

    fn expose(&mut self, now: Tick, exposures: Exposures, weight: Weight) {
        let (channel, count) = (exposures.channel, exposures.count);
        let Some(ring) = self.state.rings.get_mut(channel.index()) else { return };
        ring.expose(exposures.cell, count);
        let side = usize::from(exposures.cell == Cell::STABLE);
        let total = &mut self.state.totals.exposed[channel.index()][side];
        *total += u64::from(count);
        self.state.second.exposed[channel.index()][1 - side] += u64::from(count);
        let Some(endpoint) = exposures.cell.endpoint() else {
            self.state.degraded.expose(channel, count);
            return;
        };
        self.state.tests.exposures(&self.layout, exposures);
        if let Some(alone) = &mut self.state.alone {
            alone.expose(channel, count);
        }
        if channel == Channel::BEGUN {
            self.state.step.facts.begun += u64::from(count);
        }
        let known = self.state.endpoints.contains_key(&(endpoint % ENDPOINTS_MAX));
        if let Some(exposed) = self.endpoint(endpoint).exposed.get_mut(channel.index()) {
            *exposed += u64::from(count);
        }
        if !known && weight > Weight::ZERO {
            self.warm_up(now, now + Tick::from(self.config.warmup));
        }
    }

    fn endpoint(&mut self, index: u16) -> &mut EndpointTotals {
        let (channels, series) = (self.layout.channels(), self.layout.series().len());
        self.state.endpoints.entry(index % ENDPOINTS_MAX).or_insert_with(|| EndpointTotals {
            exposed: vec![0; channels],
            events: vec![0; series],
            bad_at: 0,
        })
    }

    /// Events; those of latency series together with what is in flight past its threshold.
    fn take_events(&mut self, now: Tick, input: &TickInput<'_>, apart: bool) {
        let (epoch, phase, unit) = (self.epoch, self.state.phase, self.state.step.unit);
        let count = |requests: u32, sessions: u32| if unit == Unit::Session { sessions } else { requests };
        let own = |tick: Tick| Some(tick.wrapping_sub(epoch)).filter(|tick| *tick <= now + AHEAD_MAX);
        let mut ended: BTreeMap<Key, u32> = BTreeMap::new();
        for events in input.events {
            let Some(series) = self.layout.series().get(usize::from(events.series)).copied() else { continue };
            let Some(began) = own(events.began) else { continue };
            self.note(&series, events);
            let count = count(events.requests, events.sessions);
            if series.measure == Measure::Latency {
                let slot = slot_of(began, phase, now).0;
                *ended.entry(Key { series: events.series, cell: events.cell, slot }).or_default() += count;
            } else if count > 0 {
                self.score(now, usize::from(events.series), events.cell, began, count, apart);
            }
        }
        let mut waiting: BTreeMap<Key, u32> = BTreeMap::new();
        for flight in input.in_flight {
            let Some(began) = own(flight.began) else { continue };
            let (slot, last) = slot_of(began, phase, now);
            let past = is_past(limit(&self.state.past, flight.series, slot, last), flight.cell, last, now);
            let count = count(flight.requests, flight.sessions);
            if past && count > 0 && usize::from(flight.series) < self.layout.series().len() {
                *waiting.entry(Key { series: flight.series, cell: flight.cell, slot }).or_default() += count;
            }
        }
        let oldest = now.saturating_sub(Tick::from(self.config.reach) + super::input::TICKS_PER_SECOND);
        let rekey = |slot| slot_of(slot, phase, now).0;
        for (key, count) in self.state.ahead.settle(ended, waiting, rekey, oldest) {
            self.score(now, usize::from(key.series), key.cell, key.slot, count, apart);
        }
    }

    /// Figures that count every request, whatever the unit.
    fn note(&mut self, series: &super::layout::Series, events: &Events) {
        let candidate = events.cell != Cell::STABLE;
        if candidate && is_failure(series.measure, series.event) {
            self.state.step.facts.bad += u64::from(events.requests);
        }
        self.state.second.events[usize::from(events.series)][usize::from(candidate)] += u64::from(events.requests);
    }

    /// Scores events with the exposures of the block they began in.
    fn score(&mut self, now: Tick, series: usize, cell: Cell, began: Tick, count: u32, apart: bool) {
        let of = self.layout.series()[series];
        let side = usize::from(cell == Cell::STABLE);
        self.state.totals.events[series][side] += u64::from(count);
        let state = &mut self.state;
        match state.rings[of.channel.index()].place(began) {
            Place::Open => state.rings[of.channel.index()].count(series, cell, count),
            Place::Closed { block, settled } => {
                state.tests.late(&self.layout, series, cell, block, count, apart);
                if settled {
                    state.tests.unsettle(&self.layout, series, cell, block, count);
                } else if let Some(tally) = block.tally.get_mut(series) {
                    tally[side] += count;
                }
            }
            Place::Lost => state.unscored += u64::from(count),
        }
        let Some(endpoint) = cell.endpoint() else {
            state.degraded.event(series, count);
            return;
        };
        state.tests.events(&self.layout, series, cell, count, apart);
        if let Some(alone) = &mut state.alone {
            alone.event(series, count);
        }
        let good = of.event == Event::Good;
        let totals = self.endpoint(endpoint);
        totals.events[series] += u64::from(count);
        if !good {
            totals.bad_at = now;
        }
    }

    /// Scores blocks that are complete, and settles those that are old.
    fn close_blocks(&mut self, now: Tick, weight: Weight, apart: bool) {
        let reach = Tick::from(self.config.reach) + super::input::TICKS_PER_SECOND;
        for index in 0..self.state.rings.len() {
            let channel = Channel(u8::try_from(index).unwrap_or(u8::MAX));
            let ring = &mut self.state.rings[index];
            if let Some((block, counts)) = ring.close(now, weight) {
                self.state.tests.block(&self.layout, channel, &block, &counts, apart);
            }
            for block in ring.age(now, reach) {
                self.state.tests.settle(&self.layout, channel, &block);
            }
        }
    }

    /// Asks for a trial, notes its beginning, and ends it when stable is itself again.
    fn follow_trial(&mut self, now: Tick, weight: Weight) {
        let bound = self.bound();
        let state = &mut self.state;
        if !state.trial.asked {
            if state.alone.as_ref().is_some_and(|alone| alone.alarms(bound)) {
                state.trial = Trial { asked: true, ..Trial::default() };
                state.tests.restart();
            }
            return;
        }
        match state.trial.since {
            None if weight.grains() <= TRIAL_GRAINS => state.trial.since = Some(now),
            Some(since) if !state.trial.over && now >= since + TRIAL_TICKS => {
                state.trial.over = true;
                state.degraded.begin(now);
            }
            Some(_) if state.trial.over && state.degraded.since.is_none() => state.trial = Trial::default(),
            _ => {}
        }
    }

    fn verdict(&mut self, now: Tick, input: &TickInput<'_>, apart: bool) -> Verdict {
        let mut eject = None;
        let harmful = self.condemned(apart).or_else(|| {
            eject = self.flagged(now, apart);
            self.broken_rule()
        });
        let outcome = match harmful {
            Some(reason) => Outcome::Harmful(reason),
            None if self.state.step.facts.begun >= CLEAN_MIN && !self.is_doubtful() => Outcome::Clean,
            None => Outcome::Inconclusive,
        };
        let hold = Tick::from(input.hold);
        let keeps_failing = |flag: &Flag, totals: &EndpointTotals| totals.bad_at >= flag.since + FLAG_TICKS;
        let endpoint = self.state.flag.filter(|flag| {
            let totals = self.state.endpoints.get(&flag.endpoint);
            eject.is_some() && totals.is_some_and(|totals| keeps_failing(flag, totals))
        });
        let paused = Paused {
            stable_degraded: self.state.degraded.since.is_some(),
            gate_error: self.state.failed_at.is_some_and(|at| now < at + hold.max(1)),
            endpoint: endpoint.map(|flag| flag.endpoint),
        };
        Verdict {
            outcome,
            paused,
            trial: self.state.trial.asked,
            eject,
            sample_ratio: self.state.sample_ratio.is_wrong(),
            unit: self.state.step.unit,
        }
    }

    /// Whether the evidence condemns the candidate, whichever endpoint is left out.
    fn condemned(&self, apart: bool) -> Option<Reason> {
        let (tests, bound) = (&self.state.tests, self.bound());
        if tests.at_most() < bound || tests.log_e(super::sequence::View::Full) < bound {
            return None;
        }
        if apart && tests.worst().is_some_and(|(_, log_e)| log_e < bound) {
            return None;
        }
        tests.largest().map(Reason::Test)
    }

    /// The endpoint without which there is no case, if there is one with it.
    fn flagged(&mut self, now: Tick, apart: bool) -> Option<u16> {
        let (tests, bound) = (&self.state.tests, self.bound());
        if !apart || tests.at_most() < bound || tests.log_e(super::sequence::View::Full) < bound {
            self.state.flag = None;
            return None;
        }
        let (group, _) = tests.worst()?;
        let members = self
            .state
            .endpoints
            .iter()
            .filter(|(index, _)| usize::from(**index) % super::GROUPS_MAX == usize::from(group));
        let bad = |totals: &EndpointTotals| totals.events.iter().sum::<u64>();
        let endpoint = members.max_by_key(|(_, totals)| bad(totals)).map(|(index, _)| *index)?;
        if self.state.flag.is_none_or(|flag| flag.endpoint != endpoint) {
            self.state.flag = Some(Flag { endpoint, since: now });
        }
        Some(endpoint)
    }

    fn broken_rule(&self) -> Option<Reason> {
        let broken = self.state.breaches.iter().enumerate().find_map(|(metric, b)| b.map(|breach| (metric, breach)))?;
        Some(Reason::Rule { metric: broken.0, breach: broken.1 })
    }

    fn is_doubtful(&self) -> bool {
        let tests = &self.state.tests;
        tests.at_most() >= DOUBT && tests.log_e(super::sequence::View::Full) >= DOUBT
    }
}

fn apart_of(input: &TickInput<'_>) -> bool {
    input.pool >= POOL_MIN
}
