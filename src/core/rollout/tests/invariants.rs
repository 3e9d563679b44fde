//! The invariants, under anything that can happen in any order.

use proptest::prelude::*;

use super::*;

/// Anything that can happen.
fn happening() -> impl Strategy<Value = Happening> {
    let command = prop_oneof![
        Just(Command::Abort),
        Just(Command::Rollback),
        Just(Command::Pause),
        Just(Command::Resume),
        Just(Command::Approve),
        Just(Command::PromoteNext),
        any::<bool>().prop_map(|force| Command::PromoteFull { force }),
        (0_u16..=100).prop_map(|n| Command::Weight(percent(n))),
    ];
    let facts = (any::<[bool; 5]>(), prop_oneof![Just(0), 0_u64..80], 0_u8..24).prop_map(
        |([ready, alarm, degraded, ratio, endpoint], n, v)| {
            let verdict = match v {
                0 => Verdict::Harmful { metric: "latency".to_owned() },
                1 | 2 => Verdict::Error,
                _ => Verdict::Open,
            };
            let counts = Counts { requests: n, good: n, bad: 0 };
            let rare = |on: bool| on && v < 8;
            let (alarm, sample_ratio) = (rare(alarm), rare(ratio));
            let (stable_degraded, endpoint) = (rare(degraded), rare(endpoint));
            Facts { ready, counts, verdict, alarm, stable_degraded, sample_ratio, endpoint }
        },
    );
    prop_oneof![
        1 => command.prop_map(Happening::Command),
        8 => (facts, 0_u32..90).prop_map(|(facts, seconds)| Happening::Tick(facts, seconds)),
        3 => (0_u8..4).prop_map(Happening::Answer),
        1 => (0_u64..2_000).prop_map(Happening::Restart),
    ]
}

#[derive(Clone, Debug)]
enum Happening {
    Command(Command),
    Tick(Facts, u32),
    Answer(u8),
    Restart(u64),
}

/// A rollout, what it published last, and the candidate's requests.
struct World {
    plan: Plan,
    rollout: Rollout,
    published: Weight,
    counts: Counts,
}

impl World {
    /// Lets it happen; `None` when there is nothing for it to happen to.
    fn apply(&mut self, happening: &Happening) -> Option<Result<Vec<Effect>, Refused>> {
        let event = match happening {
            Happening::Command(command) => return Some(self.rollout.obey(&self.plan, *command)),
            Happening::Tick(facts, _) => {
                self.counts.requests += facts.counts.requests;
                self.counts.good += facts.counts.good;
                Event::Tick(Facts { counts: self.counts, ..facts.clone() })
            }
            Happening::Answer(kind) => {
                let otherwise = if kind % 2 == 0 { Otherwise::Pause } else { Otherwise::Abort };
                let outcome = if *kind > 1 { Checked::Passed } else { Checked::Failed(otherwise) };
                Event::Checked(self.rollout.awaited?, outcome)
            }
            Happening::Restart(at) => Event::Restarted { at: Duration::from_secs(*at), counts: self.counts },
        };
        let passed = if let Happening::Tick(_, seconds) = happening { *seconds * SECOND } else { Duration::ZERO };
        Some(Ok(self.rollout.on(&self.plan, event, passed)))
    }

    /// Invariants 1 to 5 and 8 of this step.
    fn check(&mut self, before: &Rollout, happening: &Happening, effects: &[Effect]) {
        let (published, rollout) = (self.published, &self.rollout);
        let raised = effects.iter().any(|e| matches!(e, Effect::Weight(w) if *w > published));
        assert!(!raised || may_raise(before, happening), "{before:?} {happening:?} {effects:?}");
        if let Some(Effect::Weight(weight)) = effects.iter().rev().find(|e| matches!(e, Effect::Weight(_))) {
            self.published = *weight;
        }
        match happening {
            Happening::Tick(Facts { verdict: Verdict::Harmful { .. }, .. }, _) => assert!(rollout.is_over()),
            Happening::Tick(Facts { verdict: Verdict::Error, .. }, _) => {
                assert!(!raised && !effects.contains(&Effect::Promote), "an error passes nothing");
            }
            _ => {}
        }
        if matches!(happening, Happening::Tick(..)) && effects.iter().any(is_pass) {
            assert!(self.counts.requests > before.base.requests, "no data is no pass: {before:?} {effects:?}");
        }
        let lowered = effects.iter().any(|e| matches!(e, Effect::Weight(w) if *w < published));
        assert!(!lowered || may_lower(before, rollout, happening), "2: {before:?} {happening:?} {effects:?}");
        if matches!(rollout.stage, Stage::Over(End::Aborted(_))) && !before.is_over() {
            assert_eq!(effects[0], Effect::Close, "whoever takes the traffic back shuts the candidate out first");
            assert_eq!(self.published, Weight::ZERO);
        }
        if before.is_over() && rollout != before {
            assert_eq!(rollout.stage, Stage::Over(End::RolledBack), "what is over stays over, but for a rollback");
        }
        if !rollout.is_over() {
            assert_eq!(self.published, rollout.weight, "{rollout:?}");
            assert!(rollout.restarts.len() <= RESTARTS_MAX);
            assert_eq!(matches!(rollout.stage, Stage::Baking), rollout.weight == Weight::FULL);
        }
    }
}

/// What raises the weight is a step that passed, a command, or the end of a pause or trial of its own.
fn may_raise(before: &Rollout, happening: &Happening) -> bool {
    match happening {
        Happening::Command(c) => !matches!(c, Command::Abort | Command::Rollback | Command::Pause),
        Happening::Tick(facts, _) => {
            let trial_over = before.pause.is_some_and(|p| p.reason == PauseReason::StableDegraded);
            facts.verdict == Verdict::Open && (!before.by_hand || trial_over)
        }
        Happening::Answer(kind) => *kind > 1 && before.pause.is_none(),
        Happening::Restart(_) => false,
    }
}

/// A step after another one, or the promotion.
fn is_pass(effect: &Effect) -> bool {
    matches!(effect, Effect::Promote | Effect::StepBegan(1..))
}

/// What lowers it is an abort, a trial, or a command that says so.
fn may_lower(before: &Rollout, after: &Rollout, happening: &Happening) -> bool {
    let aborted = matches!(after.stage, Stage::Over(End::Aborted(_)));
    match happening {
        Happening::Command(Command::Abort | Command::Rollback) | Happening::Answer(_) => aborted,
        Happening::Command(Command::Weight(weight)) => after.weight == *weight,
        Happening::Command(Command::Resume | Command::PromoteNext) => before.by_hand,
        Happening::Command(_) | Happening::Restart(_) => false,
        Happening::Tick(facts, _) => aborted || (facts.alarm && after.weight == TRIAL_WEIGHT),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn invariants(
        happenings in prop::collection::vec(happening(), 1..60),
        checks in any::<[bool; 3]>(),
        approvals in any::<[bool; 3]>(),
        known: bool,
    ) {
        let [pre_rollout, pre_step, pre_promotion] = checks;
        let mut plan = Plan { checks: Checks { pre_rollout, pre_step, pre_promotion }, pause_on_sample_ratio: true, ..plan() };
        for (step, approval) in plan.steps.iter_mut().zip(approvals) {
            step.approval = approval;
        }
        let mut world = World { plan, rollout: Rollout::begin(known), published: Weight::ZERO, counts: Counts::default() };
        for happening in happenings {
            let before = world.rollout.clone();
            match world.apply(&happening) {
                Some(Ok(effects)) => world.check(&before, &happening, &effects),
                Some(Err(_)) => prop_assert_eq!(&before, &world.rollout, "a refusal changes nothing"),
                None => {}
            }
        }
    }
}
