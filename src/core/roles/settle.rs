//! From what the machine of one rollout says to roles, history and effects in their order.

use std::sync::Arc;
use std::time::Duration;

use super::{Current, Effect, Ended, GateWork, HISTORY_MAX, Note, Origin, Quarantine, Roles, Warm, words};
use crate::core::endpoint::Pool;
use crate::core::id::Version;
use crate::core::rollout::wanted::{Mode, Terms};
use crate::core::rollout::{self, AbortReason, End, Event, Facts, PauseReason, Rollout, Stage, Verdict};
use crate::core::snapshot::Running;
use crate::core::weight::Weight;

/// What others see of a state; two that are equal need nothing done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sight {
    pub(super) running: Running,
    pub(super) stable: Arc<Pool>,
    pub(super) candidate: Option<Arc<Pool>>,
    warm: Option<Version>,
    pub(super) phase: &'static str,
    trial: bool,
    pub(super) pause: Option<PauseReason>,
    pub(super) step: usize,
    id: u64,
    active: bool,
}

/// Who changes something, and how it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub(super) actor: &'a str,
    pub(super) source: &'a str,
    pub(super) verb: &'static str,
    pub(super) reason: Option<&'a str>,
}

/// A rollout to begin.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) pool: Arc<Pool>,
    pub(super) origin: Origin,
    pub(super) terms: Arc<Terms>,
    pub(super) own_terms: bool,
    /// Whether there is a history; without one it waits.
    pub(super) known: bool,
    /// Opened by hand at this weight.
    pub(super) by_hand: Option<Weight>,
}

impl Roles {
    /// Takes in what happened to the rollout that runs; `passed` is the time since the tick before, `now` the time since 1970.
    ///
    /// The state changes in place: whoever may fail to record the effects keeps a copy of the one before.
    pub fn on(&mut self, event: Event, passed: Duration, now: Duration) -> Vec<Effect> {
        let before = self.sight();
        if matches!(event, Event::Tick(_)) {
            self.cool(passed);
        }
        let raw = match &mut self.current {
            Some(current) => current.on(event, passed),
            None => Vec::new(),
        };
        self.settle(&before, raw, None, now)
    }

    /// The old stable is kept no longer than that.
    fn cool(&mut self, passed: Duration) {
        let Some(warm) = &mut self.warm else { return };
        warm.left = warm.left.saturating_sub(passed);
        if warm.left.is_zero() {
            self.warm = None;
        }
    }

    pub(super) fn sight(&self) -> Sight {
        let current = self.current.as_ref();
        Sight {
            running: self.running(),
            stable: Arc::clone(&self.stable),
            candidate: self.candidate().cloned(),
            warm: self.warm.as_ref().map(|warm| warm.pool.version.clone()),
            phase: current.map_or("idle", |current| current.rollout.phase()),
            trial: self.active().is_some_and(|current| matches!(current.rollout.stage, Stage::Trial { .. })),
            pause: current.and_then(|current| current.rollout.pause).map(|pause| pause.reason),
            step: current.map_or(0, |current| current.rollout.step),
            id: current.map_or(0, |current| current.id),
            active: self.active().is_some(),
        }
    }

    /// Begins a rollout in place of the one that runs, if one does.
    pub(super) fn begin(&mut self, id: u64, what: Beginning, now: Duration) -> Vec<rollout::Effect> {
        let mut raw = self.supersede(now);
        let (machine, more) = match what.by_hand {
            Some(weight) => Rollout::by_hand(weight),
            None => (Rollout::begin(what.known), Vec::new()),
        };
        raw.extend(more);
        if let Some(digest) = &what.pool.digest {
            self.remember(&what.pool.version).digest.get_or_insert_with(|| digest.clone());
        }
        let retry = self.remember(&what.pool.version).retries;
        self.current = Some(Current {
            id,
            candidate: what.pool,
            origin: what.origin,
            retry,
            terms: what.terms,
            own_terms: what.own_terms,
            pending: None,
            rollout: machine,
            highest: Weight::ZERO,
            began: now,
            ended: None,
            kept: false,
            trail: Arc::default(),
        });
        raw
    }

    /// Ends the rollout that runs, if one does, in favour of another or of none.
    pub(super) fn supersede(&mut self, now: Duration) -> Vec<rollout::Effect> {
        let Some(current) = self.current.as_mut().filter(|current| !current.rollout.is_over()) else {
            return Vec::new();
        };
        let raw = current.on(Event::Superseded, Duration::ZERO);
        self.note_end(now);
        raw
    }

    /// Makes the state fit what the machine said, and says what has to be done. `by` is absent for what time did.
    pub(super) fn settle(
        &mut self,
        before: &Sight,
        raw: Vec<rollout::Effect>,
        by: Option<By<'_>>,
        now: Duration,
    ) -> Vec<Effect> {
        let from = by.is_some() || !raw.is_empty();
        for effect in &raw {
            match effect {
                rollout::Effect::Promote => self.promote(),
                rollout::Effect::Restore => self.restore(now),
                rollout::Effect::Quarantine => self.put_in_quarantine(now),
                _ => {}
            }
        }
        if let Some(current) = &mut self.current {
            current.highest = current.highest.max(current.rollout.weight);
        }
        self.note_end(now);
        let after = self.sight();
        if !from && *before == after {
            return Vec::new();
        }
        self.revision += 1;
        let note = self.note(before, &after, by);
        let over = self.trace(&note, now);
        let mut effects = self.effects(before, &after, raw, note);
        effects.extend(over);
        effects
    }

    fn effects(&self, before: &Sight, after: &Sight, raw: Vec<rollout::Effect>, note: Note) -> Vec<Effect> {
        let closes = raw.contains(&rollout::Effect::Close);
        let restores = raw.contains(&rollout::Effect::Restore);
        let superseded = self.current.as_ref().is_some_and(|c| c.rollout.stage == Stage::Over(End::Superseded));
        let back = after.id == before.id && closes && !superseded;
        // Also under a person's pause.
        let trial = after.trial && !before.trial;
        let mut swap = Vec::new();
        swap.extend(closes.then_some(Effect::Close));
        let seen = |s: &Sight| (s.running.clone(), Arc::clone(&s.stable), s.candidate.clone());
        swap.extend((seen(before) != seen(after)).then_some(Effect::Publish));
        let rolled_back = restores && before.stable.version != after.stable.version;
        swap.extend(rolled_back.then(|| Effect::Shut(before.stable.version.clone())));
        // Taking back waits for no disk.
        let mut effects = if back || restores || trial {
            swap.push(Effect::Record(note));
            swap
        } else {
            let mut recorded = vec![Effect::Record(note)];
            recorded.extend(swap);
            recorded
        };
        effects.extend(self.gate(before, after, &raw).map(Effect::Gate));
        for each in raw {
            match each {
                rollout::Effect::Check(point) => effects.push(Effect::Check { rollout: after.id, point }),
                rollout::Effect::StepBegan(step) => effects.push(Effect::Gate(GateWork::Step(step))),
                _ => {}
            }
        }
        let gone = before.warm.clone().filter(|version| self.pools().all(|pool| pool.version != *version));
        effects.extend(gone.map(Effect::Release));
        effects
    }

    fn gate(&self, before: &Sight, after: &Sight, raw: &[rollout::Effect]) -> Option<GateWork> {
        if after.id != before.id && after.active {
            return Some(GateWork::Begin(after.id));
        }
        if raw.contains(&rollout::Effect::Promote) && self.warm.is_some() {
            return Some(GateWork::Report);
        }
        let watched = |s: &Sight| s.active || s.warm.is_some();
        (watched(before) && !watched(after) || (before.active && !after.active)).then_some(GateWork::End)
    }

    /// The two pools swap their roles; nothing is copied.
    fn promote(&mut self) {
        let Some(current) = &self.current else { return };
        let old = std::mem::replace(&mut self.stable, Arc::clone(&current.candidate));
        let left = current.terms.keep_stable;
        self.warm = (!left.is_zero()).then_some(Warm { pool: old, rollout: current.id, left });
    }

    pub(super) fn restore(&mut self, now: Duration) {
        let Some(warm) = self.warm.take() else { return };
        self.stable = warm.pool;
        let mut current = self.current.as_mut().filter(|current| current.id == warm.rollout);
        if let Some(current) = &mut current {
            (current.kept, current.ended) = (true, Some(now));
        }
        let history = Arc::make_mut(&mut self.history);
        let Some(ended) = history.iter_mut().find(|ended| ended.id == warm.rollout) else { return };
        if let Some(current) = current {
            current.trace_promotion(ended);
            ended.course = Some(Box::new(current.course()));
        }
        (ended.end, ended.ended) = (End::RolledBack, now);
        ended.by.clear();
    }

    fn put_in_quarantine(&mut self, now: Duration) {
        let Some(current) = &self.current else { return };
        let (version, rollout) = (current.candidate.version.clone(), current.id);
        self.remember(&version).quarantine = Some(Quarantine { rollout, since: now });
    }

    /// Puts the rollout among those that are over, once.
    fn note_end(&mut self, now: Duration) {
        let Some(current) = self.current.as_mut().filter(|current| current.ended.is_none()) else { return };
        let Stage::Over(end) = &current.rollout.stage else { return };
        current.ended = Some(now);
        current.pending = None;
        current.kept = current.is_closed();
        let history = Arc::make_mut(&mut self.history);
        history.push_back(Ended {
            id: current.id,
            version: current.candidate.version.clone(),
            end: end.clone(),
            origin: current.origin,
            steps: current.terms.plan.steps.len(),
            step: current.rollout.step,
            highest: current.highest,
            began: current.began,
            ended: now,
            by: String::new(),
            why: None,
            course: Some(Box::new(current.course())),
        });
        while history.len() > HISTORY_MAX {
            history.pop_front();
        }
    }

    fn note(&self, before: &Sight, after: &Sight, by: Option<By<'_>>) -> Note {
        let (actor, verb) = match by {
            Some(by) => (by.actor.to_owned(), by.verb),
            None => (self.moved_by(), moved(before, after)),
        };
        let reason = by.and_then(|by| by.reason).map(str::to_owned);
        let source = by.map(|by| by.source.to_owned()).unwrap_or_default();
        Note { actor, source, verb, rollout: after.id, from: words::sight(before), to: words::sight(after), reason }
    }

    /// Who it is that moved when nobody asked.
    fn moved_by(&self) -> String {
        let Some(current) = &self.current else { return "plan".to_owned() };
        match (&current.rollout.stage, current.rollout.pause.map(|pause| pause.reason)) {
            (Stage::Over(End::Aborted(AbortReason::Harmful { metric })), _) => format!("gate/{metric}"),
            (Stage::Over(End::Aborted(AbortReason::Check)), _) | (_, Some(PauseReason::Hook)) => "hook".to_owned(),
            (Stage::Trial { .. }, _)
            | (
                _,
                Some(
                    PauseReason::StableDegraded
                    | PauseReason::GateError
                    | PauseReason::Endpoint
                    | PauseReason::SampleRatio
                    | PauseReason::LowTraffic,
                ),
            ) => "gate".to_owned(),
            _ => "plan".to_owned(),
        }
    }
}

fn moved(before: &Sight, after: &Sight) -> &'static str {
    match (before.phase, after.phase) {
        (from, "aborted") if from != "aborted" => "abort",
        (from, "succeeded") if from != "succeeded" => "promote",
        _ if after.trial && !before.trial => "trial",
        _ if after.pause.is_some() && after.pause != before.pause => "pause",
        _ if before.pause.is_some() && after.pause.is_none() => "resume",
        _ if before.warm.is_some() && after.warm.is_none() => "expire",
        _ => "step",
    }
}

impl<'a> By<'a> {
    /// Something that needs no reason, by the process itself.
    pub(super) const fn of(actor: &'a str, verb: &'static str) -> Self {
        Self { actor, source: "", verb, reason: None }
    }
}

impl Current {
    pub(super) fn on(&mut self, event: Event, passed: Duration) -> Vec<rollout::Effect> {
        let event = match (self.terms.mode, event) {
            // A dry run: what the gate says is reported, and moves nothing.
            (Mode::Observe, Event::Tick(facts)) => Event::Tick(Facts {
                verdict: Verdict::Open,
                alarm: false,
                stable_degraded: false,
                sample_ratio: false,
                endpoint: false,
                ..facts
            }),
            (_, event) => event,
        };
        self.rollout.on(&self.terms.plan, event, passed)
    }
}
