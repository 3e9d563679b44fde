//! What holds after any sequence of commands, files, verdicts, crashes with and without the store.

use proptest::prelude::*;

use super::*;
use crate::core::rollout::TRIAL_WEIGHT;

/// Sequences per run.
const SEEDS: u32 = 1_000;

#[derive(Clone, Debug)]
enum Act {
    Verb(u8, u8, bool),
    Start(u8, bool),
    File(u8, u8, bool),
    /// Seconds, what the gate says, an alarm, stable degraded.
    Tick(u16, u8, bool, bool),
    /// The service leaves the file, and comes back with that stable and that candidate.
    Leave(u8, u8),
    Crash,
    StoreLost,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u8..9, 0_u8..=100, any::<bool>()).prop_map(|(v, w, r)| Act::Verb(v, w, r)),
        2 => (1_u8..6, any::<bool>()).prop_map(|(v, s)| Act::Start(v, s)),
        3 => (1_u8..6, 0_u8..6, any::<bool>()).prop_map(|(s, c, m)| Act::File(s, c, m)),
        8 => (1_u16..400, 0_u8..12, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(t, v, a, d)| Act::Tick(t, v, a, d)),
        1 => (1_u8..6, 0_u8..6).prop_map(|(s, c)| Act::Leave(s, c)),
        1 => Just(Act::Crash),
        1 => prop::bool::weighted(0.2).prop_map(|lost| if lost { Act::StoreLost } else { Act::Crash }),
    ]
}

fn verb(kind: u8, weight: u8) -> Verb {
    match kind {
        0 => Verb::Abort,
        1 => Verb::Rollback,
        2 => Verb::Pause,
        3 => Verb::Resume,
        4 => Verb::Approve,
        5 => Verb::Retry(None),
        6 => Verb::Weight(Weight::of_percent(weight.into())),
        7 => Verb::Promote { full: weight > 80, force: weight > 90 },
        _ => Verb::Promote { full: false, force: false },
    }
}

fn of_versions(stable: u8, candidate: u8) -> Service {
    let candidate = if candidate == 0 { String::new() } else { format!("v{candidate}=9{candidate}") };
    file(&format!("v{stable}=9{stable}"), &candidate)
}

/// What the shell would have: the record in the store, what is published, whether a gate watches.
struct World {
    run: Run,
    stored: Roles,
    published: Running,
    watched: bool,
}

impl World {
    fn new() -> Self {
        let run = Run::stable("v1");
        Self { stored: run.roles.clone(), published: run.roles.running(), watched: false, run }
    }

    /// Carries out what was decided, in its order, as the shell would.
    fn carry_out(&mut self, back: bool) -> Result<(), TestCaseError> {
        let effects = std::mem::take(&mut self.run.effects);
        let records = effects.iter().filter(|effect| matches!(effect, Effect::Record(_))).count();
        prop_assert_eq!(records, usize::from(!effects.is_empty()), "one decision, one record: {:?}", effects);
        for effect in effects {
            match effect {
                Effect::Record(_) => self.stored = self.run.roles.clone(),
                Effect::Publish => {
                    self.published = self.run.roles.running();
                    // 10, 6: on the way up nothing above the store is published.
                    prop_assert!(back || self.published == self.stored.running());
                }
                Effect::Gate(GateWork::Begin(_) | GateWork::Report) => self.watched = true,
                Effect::Gate(GateWork::End) => self.watched = false,
                _ => {}
            }
        }
        prop_assert_eq!(&self.published, &self.run.roles.running(), "what is true is published");
        Ok(())
    }

    fn crash(&mut self) -> Result<(), TestCaseError> {
        self.run.roles = self.stored.clone();
        let (before, wanted) = (self.stored.weight(), self.run.file.clone());
        if self.run.boot(wanted).is_ok() {
            // 6
            prop_assert!(self.run.roles.weight() <= before);
        }
        Ok(())
    }

    fn lose_the_store(&mut self) {
        let (next, now) = (self.run.next, self.run.now);
        self.run = Run::first(First::EmptyStore, self.run.file.clone());
        self.run.next = next.max(self.run.next);
        self.run.now = now;
        self.watched = false;
    }

    fn leave(&mut self, stable: u8, candidate: u8) -> Result<(), TestCaseError> {
        let before = self.run.roles.clone();
        let left = before.removed(self.run.now).roles;
        if self.run.leave_for(of_versions(stable, candidate)).is_err() {
            prop_assert_eq!(stable, candidate, "no digest speaks against it");
            return Ok(());
        }
        self.watched = false;
        let roles = &self.run.roles;
        prop_assert_eq!(roles.weight(), Weight::ZERO, "begins at 0 %");
        // 5
        for known in left.versions.iter() {
            let is = roles.known(&known.version);
            let remembered = is.is_some_and(|is| (&is.quarantine, is.retries) == (&known.quarantine, known.retries));
            prop_assert!(remembered, "{known:?} and {is:?}");
        }
        let tried = roles.active().map(|current| &current.candidate.version);
        prop_assert!(tried.is_none_or(|version| roles.quarantine(version).is_none()), "{tried:?}");
        prop_assert_eq!(&roles.history, &left.history);
        Ok(())
    }

    fn tick(&mut self, seconds: u16, says: u8, alarm: bool, degraded: bool) {
        let run = &mut self.run;
        run.now += u32::from(seconds) * SECOND;
        run.counts.requests += u64::from(seconds);
        run.counts.good += u64::from(seconds);
        let verdict = match says {
            0 => Verdict::Harmful { metric: "error-rate".into() },
            1 => Verdict::Error,
            _ => Verdict::Open,
        };
        let facts = Facts {
            ready: says != 2,
            counts: run.counts,
            verdict,
            alarm,
            stable_degraded: degraded,
            sample_ratio: says == 3,
            endpoint: says == 4,
        };
        run.effects = run.roles.on(Event::Tick(facts), u32::from(seconds) * SECOND, run.now);
    }

    fn play(&mut self, act: &Act) -> Result<(), TestCaseError> {
        let before = self.run.roles.clone();
        let mut back = false;
        self.run.effects.clear();
        match act {
            Act::Verb(kind, weight, reason) => {
                let asked = verb(*kind, *weight);
                back = matches!(asked, Verb::Abort | Verb::Rollback);
                let ask = if *reason { reasoned(asked.clone()) } else { asking(asked.clone()) };
                let answer = self.run.ask(&ask);
                if asked == Verb::Abort {
                    // 1
                    prop_assert_eq!(&answer, &Ok(STANDS));
                    prop_assert_eq!(self.run.roles.weight(), Weight::ZERO);
                    prop_assert!(self.run.roles.active().is_none());
                }
                if answer.is_err() {
                    prop_assert_eq!(&self.run.roles, &before, "refused, and nothing changed");
                }
            }
            Act::Start(v, supersede) => {
                let Verb::Start(with) = start(&format!("v{v}=9{v}")) else { unreachable!() };
                let _ = self.run.verb(Verb::Start(StartWith { supersede: *supersede, ..with }));
            }
            Act::File(stable, candidate, by_hand) => {
                let wanted = of_versions(*stable, *candidate);
                let _ = self.run.reload(if *by_hand { manual(wanted) } else { wanted });
                self.after_file(&before)?;
            }
            Act::Tick(seconds, says, alarm, degraded) => {
                // A trial does not wait for the disk either: it only lowers the weight.
                back = *says == 0 || *alarm;
                self.tick(*seconds, *says, *alarm, *degraded);
                self.after_tick(&before, *says, *alarm)?;
            }
            Act::Leave(stable, candidate) => self.leave(*stable, *candidate)?,
            Act::Crash => self.crash()?,
            Act::StoreLost => {
                self.lose_the_store();
                prop_assert_eq!(self.run.roles.weight(), Weight::ZERO);
            }
        }
        if matches!(act, Act::Verb(..) | Act::Start(..)) {
            let same = self.run.roles == before;
            prop_assert!(same || self.run.roles.revision > before.revision, "another state, the same entity tag");
        }
        if !matches!(act, Act::StoreLost | Act::Leave(..)) {
            self.after_any(&before, act)?;
        }
        let waits = !matches!(act, Act::Tick(_, 1.., ..));
        if back
            && waits
            && let Some(swap) = self.run.effects.iter().position(|effect| *effect == Effect::Publish)
        {
            // 1
            prop_assert!(swap < position(&self.run.effects, |effect| matches!(effect, Effect::Record(_))));
        }
        self.carry_out(back)?;
        // 3
        let active = self.run.roles.active().is_some();
        prop_assert!(!active || self.watched, "a rollout nobody watches");
        Ok(())
    }

    /// 9: a file only supersedes, or begins.
    fn after_file(&self, before: &Roles) -> Result<(), TestCaseError> {
        if let (Some(was), Some(is)) = (before.active(), self.run.roles.active())
            && was.id == is.id
        {
            prop_assert_eq!((&was.rollout, &was.terms), (&is.rollout, &is.terms));
        }
        prop_assert_eq!(&before.stable.version, &self.run.roles.stable.version, "a file swaps nothing by itself");
        Ok(())
    }

    /// 4, and a harmful verdict in whatever state.
    fn after_tick(&self, before: &Roles, says: u8, alarm: bool) -> Result<(), TestCaseError> {
        let Some(was) = before.active() else { return Ok(()) };
        let is = self.run.roles.current.as_ref().expect("it is remembered");
        if says == 0 {
            prop_assert_eq!(is.rollout.phase(), "aborted");
        } else {
            prop_assert_ne!(is.rollout.phase(), "aborted", "nobody spoke of harm");
        }
        if says == 1 {
            prop_assert!(self.run.roles.weight() <= was.rollout.weight, "an error is no pass");
            prop_assert_ne!(is.rollout.phase(), "succeeded");
        }
        let lower = self.run.roles.weight() < was.rollout.weight && is.rollout.phase() != "succeeded";
        let trial = alarm && self.run.roles.weight() == TRIAL_WEIGHT;
        prop_assert!(!lower || says == 0 || trial, "2: it falls for a reason");
        Ok(())
    }

    fn after_any(&self, before: &Roles, act: &Act) -> Result<(), TestCaseError> {
        let after = &self.run.roles;
        // 2
        let may_rise = matches!(act, Act::Tick(_, says, ..) if *says > 1) || matches!(act, Act::Verb(3.., ..));
        prop_assert!(may_rise || after.weight() <= before.weight(), "{act:?}");
        prop_assert!(after.weight() >= before.weight() || may_fall(before, after, act), "2: {act:?}");
        // 5
        if let Some(new) = after.active().filter(|new| before.current.as_ref().is_none_or(|old| old.id != new.id)) {
            let retried = matches!(act, Act::Verb(5, _, true));
            prop_assert!(retried || before.quarantine(&new.candidate.version).is_none(), "{act:?}");
            prop_assert_eq!(after.weight() > Weight::ZERO, matches!(act, Act::Verb(6, ..)), "begins at 0 %");
        }
        // 7
        if let (Some(was), true) = (before.active(), before.stable.version != after.stable.version)
            && was.candidate.version == after.stable.version
            && !matches!(act, Act::Crash)
        {
            prop_assert!(Arc::ptr_eq(&was.candidate, &after.stable));
            prop_assert!(after.warm.as_ref().is_some_and(|warm| Arc::ptr_eq(&warm.pool, &before.stable)));
        }
        // 8
        if after.current.as_ref().is_some_and(Current::is_closed) {
            prop_assert!(after.weight() == Weight::ZERO && (after.running().aborted || after.candidate().is_none()));
        }
        prop_assert!(after.versions.len() <= VERSIONS_MAX && after.history.len() <= HISTORY_MAX);
        prop_assert!(
            after.candidate().is_none_or(|pool| pool.version != after.stable.version),
            "two roles, two versions"
        );
        Ok(())
    }
}

/// 2: what takes the weight down is an abort, a rollback, a trial, a command that says so, a file or start that supersedes, a promotion
/// (of a stable there is no share to speak of).
fn may_fall(before: &Roles, after: &Roles, act: &Act) -> bool {
    let Some(was) = before.active() else { return false };
    let end = after.history.iter().find(|ended| ended.id == was.id).map(|ended| &ended.end);
    match (act, end) {
        (Act::Verb(0 | 1, ..), end) => matches!(end, Some(End::Aborted(AbortReason::Manual))),
        (Act::Verb(6, weight, _), None) => after.weight() == Weight::of_percent((*weight).into()),
        // Back to the step, or to the one after it.
        (Act::Verb(3 | 7 | 8, ..), None) => was.rollout.by_hand,
        (Act::Verb(7 | 8, ..) | Act::Tick(..), Some(End::Succeeded)) => after.stable.version == was.candidate.version,
        (Act::Start(_, true) | Act::File(..), Some(End::Superseded)) => true,
        (Act::Tick(_, says, ..), Some(End::Aborted(AbortReason::Harmful { .. }))) => *says == 0,
        (Act::Tick(_, _, alarm, _), None) => *alarm && after.weight() == TRIAL_WEIGHT,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(SEEDS))]

    #[test]
    fn the_ten_invariants_hold_whatever_happens(acts in prop::collection::vec(act(), 1..50)) {
        let mut world = World::new();
        for act in &acts {
            world.play(act)?;
        }
    }

    #[test]
    fn a_restored_state_goes_on_as_if_nothing_had_been(acts in prop::collection::vec(act(), 1..40)) {
        let (mut world, mut restored) = (World::new(), World::new());
        for act in &acts {
            let stored = serde_json::to_vec(&restored.run.roles).expect("stored");
            restored.run.roles = serde_json::from_slice(&stored).expect("read");
            world.play(act)?;
            restored.play(act)?;
            prop_assert_eq!(&world.run.roles, &restored.run.roles);
        }
    }
}
