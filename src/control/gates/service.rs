//! One service: its history, and its gate while a rollout is watched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::endpoint::EndpointKey;
use crate::core::gate::history::{History, Second};
use crate::core::gate::{
    BadConfig, BadState, Cell, Event, Events, Exposures, Gate, GateConfig, Measure, Outcome, Reason, TICK_US,
    Thresholds, Tick, TickInput, Verdict,
};
use crate::core::health::Probe;
use crate::core::id::{Name, Variant, Version};
use crate::core::rollout::{self, Counts};
use crate::core::service::Service;
use crate::core::snapshot::ActiveService;
use crate::core::weight::Weight;
use crate::state::live::ServiceLive;
use crate::state::sensors::{Glance, Opinion, Reader, Taken, Watch};

use super::evidence::{Evidence, words};
use super::stored::Stored;
use super::{NotWatched, Proof, Seen, wanted};

/// What is known of one service.
pub(super) struct Watched {
    settings: Arc<Service>,
    /// What the history is kept for, and the release it is of.
    config: GateConfig,
    of: Version,
    workers: usize,
    began: Instant,
    /// What is to be counted; in force once it is installed.
    watch: Watch,
    reader: Reader,
    history: History,
    /// Of stable, since the history was last told.
    second: Sum,
    running: Option<Running>,
    /// What is known of the last rollout that is over.
    last: Option<(Evidence, Option<Proof>)>,
}

/// A rollout that is watched.
struct Running {
    rollout: u64,
    /// Its first tick: nothing is known of it before that is over.
    first: Tick,
    step: u32,
    /// In ticks.
    hold: u32,
    gate: Gate,
    /// What workers compare latencies with.
    published: Thresholds,
    counts: Counts,
    /// Deep probes that passed and failed, as far as they have been fed: by slot of the endpoint.
    probed: Vec<(u64, (u64, u64))>,
    /// The endpoint that was said to be ejected.
    ejected: Option<u16>,
    /// What the gate said last.
    said: Verdict,
    /// In the last tick the candidate did something that counts against it.
    fresh_bad: bool,
    /// Since when something speaks against the candidate.
    suspect: Option<Tick>,
    /// How long that was until it was condemned, in ticks.
    took: Option<Tick>,
    /// It has succeeded: only its report is left.
    over: bool,
}

/// What stable did in a part of a second.
#[derive(Default)]
struct Sum {
    exposed: [u64; 2],
    events: Vec<u64>,
    succeeded: u64,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(settings: &Arc<Service>, workers: usize, began: Instant) -> Self {
        let config = wanted(settings);
        let watch = Watch::idle(&config, workers, began);
        let history = History::new(watch.what().layout());
        let (settings, of) = (Arc::clone(settings), settings.stable.version.clone());
        let (reader, second) = (Reader::default(), Sum::default());
        Self { settings, config, of, workers, began, watch, reader, history, second, running: None, last: None }
    }

    pub(super) fn name(&self) -> &Name {
        &self.settings.name
    }

    pub(super) fn is_of(&self, settings: &Arc<Service>) -> bool {
        Arc::ptr_eq(&self.settings, settings)
    }

    /// The file or a decision has made it another one.
    pub(super) fn follow(&mut self, settings: &Arc<Service>) {
        if !self.is_of(settings) {
            self.settings = Arc::clone(settings);
            if !self.is_running() {
                self.renew(wanted(settings));
            }
        }
    }

    /// Keeps the history for `config` from now on. A new stable has none yet, and neither have other metrics.
    fn renew(&mut self, config: GateConfig) {
        let same = self.of == self.settings.stable.version && self.config.metrics == config.metrics;
        self.config = config;
        if !same {
            self.forget();
        }
    }

    /// Begins a history anew.
    fn forget(&mut self) {
        self.unwatch();
        self.of = self.settings.stable.version.clone();
        self.history = History::new(self.watch.what().layout());
        self.second = Sum::default();
    }

    /// Counts for the history only.
    fn unwatch(&mut self) {
        self.watch = Watch::idle(&self.config, self.workers, self.began);
        self.reader = Reader::default();
    }

    pub(super) fn begin(&mut self, rollout: u64, config: &GateConfig, first: Tick) -> Result<(), BadConfig> {
        config.check()?;
        self.renew(config.clone());
        let gate = Gate::new(config.clone(), &self.history, first)?;
        self.watch_by(Running::new(rollout, gate, first), config, &[]);
        Ok(())
    }

    fn watch_by(&mut self, running: Running, config: &GateConfig, members: &[EndpointKey]) {
        self.watch = Watch::rollout(config, members, self.workers, self.began).in_step(running.step);
        self.watch.publish(&running.published);
        self.reader = Reader::default();
        self.running = Some(running);
    }

    pub(super) fn step(&mut self, number: u32, hold: u32) {
        if let Some(running) = self.running.as_mut().filter(|running| !running.over) {
            (running.step, running.hold) = (number, hold);
            self.watch = self.watch.in_step(number);
        }
    }

    pub(super) fn report(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| !running.over) {
            running.over = true;
            // Whoever was stable is not any more, or soon.
            self.forget();
        }
    }

    pub(super) fn end(&mut self) {
        if self.running.is_some() {
            let proof = self.proof();
            self.last = self.evidence().map(|known| (Evidence { running: false, ..known }, proof));
        }
        if self.running.take().is_some_and(|running| !running.over) {
            self.unwatch();
            self.renew(wanted(&self.settings));
        }
    }

    /// What is known of it cannot be trusted: nothing is watched any more, and the history begins anew.
    pub(super) fn give_up(&mut self) {
        self.running = None;
        self.forget();
    }

    pub(super) fn rollout(&self) -> Option<u64> {
        self.running.as_ref().map(|running| running.rollout)
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.over)
    }

    pub(super) fn is_installed(&self, live: &ServiceLive) -> bool {
        live.watch.as_ref().is_some_and(|watch| watch.is_like(&self.watch))
    }

    /// The live state that counts what is to be counted, if it does not already.
    pub(super) fn install(&mut self, live: &ServiceLive) -> Option<ServiceLive> {
        match &live.watch {
            Some(watch) if watch.is_like(&self.watch) => {
                // Endpoints may have joined meanwhile.
                self.watch = Watch::clone(watch);
                None
            }
            _ => {
                let live = live.watched(&self.watch);
                if let Some(watch) = &live.watch {
                    self.watch = Watch::clone(watch);
                }
                Some(live)
            }
        }
    }

    // --- every tick ---

    /// Feeds the gate with what was counted until the end of `last`. `second`: the tick ends a second.
    pub(super) fn look(
        &mut self,
        active: &ActiveService,
        live: &ServiceLive,
        last: Tick,
        second: bool,
    ) -> Option<Seen> {
        let running = self.running.as_mut().filter(|running| running.first <= last)?;
        let watch = live.watch.as_deref().filter(|watch| watch.is_like(&self.watch))?;
        let taken = self.reader.take(watch, last, second);
        self.second.add(taken);
        let probes = running.probes(live, watch, last);
        let weight = if active.running.aborted { Weight::ZERO } else { active.running.weight };
        let base = TickInput {
            step: running.step,
            hold: running.hold,
            pool: u16::try_from(live.candidate.len()).unwrap_or(u16::MAX),
            ..TickInput::quiet(last, weight)
        };
        let verdict = match probes {
            None => running.gate.tick(&taken.input(base)),
            Some((mut exposures, mut events)) => {
                exposures.extend_from_slice(&taken.exposures);
                events.extend_from_slice(&taken.events);
                running.gate.tick(&TickInput { exposures: &exposures, events: &events, ..taken.input(base) })
            }
        };
        running.count(taken);
        running.suspect(&verdict, second, last);
        running.publish(watch);
        if second {
            self.second.tell(&mut self.history, &taken.latencies[0]);
            if weight == Weight::ZERO {
                running.keep_up(&self.history, last + 1);
            }
        }
        if second || verdict.outcome.is_harmful() {
            watch.show(running.glance(&verdict));
        }
        Some(running.seen(verdict, watch))
    }

    /// Adds what stable did since the last time to its history.
    pub(super) fn remember(&mut self, live: &ServiceLive, last: Tick) {
        if let Some(watch) = live.watch.as_deref().filter(|watch| watch.is_like(&self.watch)) {
            let taken = self.reader.take(watch, last, true);
            self.second.add(taken);
            self.second.tell(&mut self.history, &taken.latencies[0]);
        }
    }

    // --- for others ---

    pub(super) fn evidence(&self) -> Option<Evidence> {
        let Some(running) = &self.running else { return self.last.as_ref().map(|(known, _)| known.clone()) };
        Some(Evidence {
            rollout: running.rollout,
            step: running.step,
            running: !running.over,
            detected_after_ms: running.took.map(|ticks| ticks * TICK_US / 1_000),
            report: running.gate.report(),
            endpoints: self.watch.members().iter().map(|member| member.key.address.to_string()).collect(),
        })
    }

    /// Why the gate says what it says; `None` while it says nothing.
    pub(super) fn proof(&self) -> Option<Proof> {
        let Some(running) = &self.running else { return self.last.as_ref()?.1.clone() };
        let known = self.evidence()?;
        let words = words(&known, &running.said, running.metric(&running.said).as_deref())?;
        let numbers = serde_json::to_value(&known).unwrap_or_default();
        let after = known.detected_after_ms.map(Duration::from_millis);
        Some(Proof { words, numbers, after })
    }

    pub(super) fn stored(&self) -> Option<Stored> {
        let running = self.running.as_ref().filter(|running| !running.over)?;
        let text = |key: &EndpointKey| (key.version.to_string(), key.address.to_string());
        let Counts { requests, bad, good } = running.counts;
        Some(Stored {
            rollout: running.rollout,
            step: running.step,
            hold: running.hold,
            config: running.gate.config().clone(),
            gate: running.gate.state().clone(),
            history: self.history.clone(),
            counts: [requests, bad, good],
            members: self.watch.members().iter().map(|member| text(&member.key)).collect(),
            ejected: running.ejected,
        })
    }

    pub(super) fn restore(&mut self, stored: Stored, next: Tick) -> Result<(), NotWatched> {
        let members = stored.members(self.name())?;
        let Stored { rollout, step, hold, config, gate, history, counts: [requests, bad, good], ejected, .. } = stored;
        let gate = Gate::restore(config.clone(), gate, next).map_err(NotWatched::State)?;
        if !history.fits(gate.layout()) {
            return Err(NotWatched::State(BadState::OtherMetrics));
        }
        let counts = Counts { requests, bad, good };
        let running = Running { step, hold, counts, ejected, ..Running::new(rollout, gate, next) };
        self.config = config.clone();
        self.of = self.settings.stable.version.clone();
        (self.history, self.second) = (history, Sum::default());
        self.watch_by(running, &config, &members);
        Ok(())
    }
}

// === impl Running ===

impl Running {
    fn new(rollout: u64, gate: Gate, first: Tick) -> Self {
        let (published, counts) = (gate.thresholds(), Counts::default());
        let probed = Vec::new();
        let said = Verdict::nothing(gate.config().unit);
        Self {
            rollout,
            first,
            step: 0,
            hold: 0,
            gate,
            published,
            counts,
            probed,
            ejected: None,
            said,
            fresh_bad: false,
            suspect: None,
            took: None,
            over: false,
        }
    }

    /// A rollout may wait for long before anybody is sent to its candidate: until then its gate begins with what stable has done lately.
    fn keep_up(&mut self, history: &History, first: Tick) {
        if self.counts.requests == 0
            && let Ok(gate) = Gate::new(self.gate.config().clone(), history, first)
        {
            self.gate = gate;
        }
    }

    /// Keeps in mind since when something speaks against the candidate: from its first bad request on, as long as there is evidence of it
    /// at the end of every second.
    fn suspect(&mut self, verdict: &Verdict, second: bool, now: Tick) {
        if self.fresh_bad {
            self.suspect.get_or_insert(now);
        }
        if verdict.outcome.is_harmful() {
            self.took = self.took.or(self.suspect.map(|since| now + 1 - since));
        } else if second && self.gate.log_e() <= 0.0 {
            self.suspect = None;
        }
    }

    fn publish(&mut self, watch: &Watch) {
        let thresholds = self.gate.thresholds();
        if thresholds != self.published {
            self.published = thresholds;
            watch.publish(&thresholds);
        }
    }

    /// Candidate requests; of several metrics that count the same errors the first one.
    fn count(&mut self, taken: &Taken) {
        let series = self.gate.layout().series();
        let errors = series.iter().position(|s| s.measure == Measure::Errors && s.event == Event::Bad);
        let begun = taken.exposures.iter().filter(|e| e.cell != Cell::STABLE && e.channel.0 == 0);
        self.counts.requests += begun.map(|e| u64::from(e.count)).sum::<u64>();
        let of_candidate = taken.events.iter().filter(|e| e.cell != Cell::STABLE);
        let is_bad = |e: &&Events| series.get(usize::from(e.series)).is_some_and(|series| series.event != Event::Good);
        self.fresh_bad = of_candidate.clone().any(|e| is_bad(&e));
        let bad = of_candidate.filter(|e| Some(usize::from(e.series)) == errors);
        self.counts.bad += bad.map(|e| u64::from(e.requests)).sum::<u64>();
        self.counts.good += u64::from(taken.succeeded[1]);
    }

    fn seen(&mut self, verdict: Verdict, watch: &Watch) -> Seen {
        let fresh = verdict.eject.filter(|index| self.ejected != Some(*index));
        self.ejected = verdict.eject;
        let harm = match self.metric(&verdict) {
            Some(metric) => rollout::Verdict::Harmful { metric },
            None if verdict.paused.gate_error => rollout::Verdict::Error,
            None => rollout::Verdict::Open,
        };
        let seen = Seen {
            counts: self.counts,
            verdict: harm,
            alarm: verdict.trial,
            stable_degraded: verdict.paused.stable_degraded,
            sample_ratio: verdict.sample_ratio,
            endpoint: verdict.paused.endpoint.is_some(),
            eject: fresh.and_then(|index| Some(watch.members().get(usize::from(index))?.key.clone())),
        };
        self.said = verdict;
        seen
    }

    fn glance(&self, verdict: &Verdict) -> Glance {
        let opinion = match verdict.outcome {
            Outcome::Harmful(_) => Opinion::Harmful,
            Outcome::Clean => Opinion::Clean,
            Outcome::Inconclusive => Opinion::Inconclusive,
        };
        Glance { log_e: self.gate.log_e(), bound: self.gate.bound(), opinion }
    }

    /// The metric that condemns the candidate, if one does.
    fn metric(&self, verdict: &Verdict) -> Option<String> {
        let Outcome::Harmful(reason) = verdict.outcome else { return None };
        let config = self.gate.config();
        let metric = match reason {
            Reason::Test(test) => self.gate.layout().metric_of(test),
            Reason::Rule { metric, .. } => Some(metric),
        };
        Some(metric.and_then(|metric| config.metrics.get(metric)).map(|metric| metric.name.clone()).unwrap_or_default())
    }

    /// Deep probes since the last look, where a metric counts them: they are no requests, so control counts them itself.
    fn probes(&mut self, live: &ServiceLive, watch: &Watch, last: Tick) -> Option<(Vec<Exposures>, Vec<Events>)> {
        let layout = self.gate.layout();
        let series: Vec<_> = layout.series().iter().enumerate().filter(|(_, s)| s.measure == Measure::Probes).collect();
        if series.is_empty() {
            return None;
        }
        let known = |slot: u64| Variant::ALL.iter().any(|variant| live.pool(*variant).iter().any(|e| e.slot == slot));
        self.probed.retain(|(slot, _)| known(*slot));
        let mut found: (Vec<Exposures>, Vec<Events>) = Default::default();
        for variant in Variant::ALL {
            for (index, endpoint) in live.pool(variant).iter().enumerate() {
                let (Some(cell), now) = (watch.cell(variant, index), endpoint.probes.results(Probe::Deep)) else {
                    continue;
                };
                let at = self.probed.iter().position(|(slot, _)| *slot == endpoint.slot);
                // What was probed before it was looked at first is not scored.
                let (passed, failed) = at.map_or(now, |at| std::mem::replace(&mut self.probed[at].1, now));
                if at.is_none() {
                    self.probed.push((endpoint.slot, now));
                }
                let [passed, failed] = [now.0 - passed, now.1 - failed].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
                for (number, series) in &series {
                    let count = if series.event == Event::Good { passed } else { failed };
                    let number = u8::try_from(*number).unwrap_or(u8::MAX);
                    found.0.push(Exposures { channel: series.channel, cell, count: passed.saturating_add(failed) });
                    found.1.push(Events { series: number, cell, began: last, requests: count, sessions: count });
                }
            }
        }
        Some(found)
    }
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, taken: &Taken) {
        self.exposed.iter_mut().zip(taken.exposed).for_each(|(sum, more)| *sum += more);
        self.events.resize(taken.of_stable.len(), 0);
        self.events.iter_mut().zip(&taken.of_stable).for_each(|(sum, more)| *sum += more);
        self.succeeded += u64::from(taken.succeeded[0]);
    }

    /// Adds it to `history` as one second.
    fn tell(&mut self, history: &mut History, latencies: &[(u16, u32)]) {
        let Self { exposed, events, succeeded } = std::mem::take(self);
        history.record(&Second { exposed: &exposed, events: &events, succeeded, latencies });
    }
}
