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
    let facts =
        (any::<[bool; 5]>(), 0_u64..80, 0_u8..24).prop_map(|([ready, alarm, degraded, ratio, endpoint], n, v)| {
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
        });
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
        let mut rollout = Rollout::begin(known);
        let mut published = Weight::ZERO;
        let mut counts = Counts::default();
        for happening in happenings {
            let before = rollout.clone();
            let effects = match &happening {
                Happening::Command(command) => rollout.obey(&plan, *command),
                Happening::Tick(facts, seconds) => {
                    counts.requests += facts.counts.requests;
                    counts.good += facts.counts.good;
                    Ok(rollout.on(&plan, Event::Tick(Facts { counts, ..facts.clone() }), *seconds * SECOND))
                }
                Happening::Answer(kind) => {
                    let Some(point) = rollout.awaited else { continue };
                    let otherwise = if kind % 2 == 0 { Otherwise::Pause } else { Otherwise::Abort };
                    let outcome = if *kind > 1 { Checked::Passed } else { Checked::Failed(otherwise) };
                    Ok(rollout.on(&plan, Event::Checked(point, outcome), Duration::ZERO))
                }
                Happening::Restart(at) => {
                    Ok(rollout.on(&plan, Event::Restarted { at: Duration::from_secs(*at), counts }, Duration::ZERO))
                }
            };
            let Ok(effects) = effects else {
                prop_assert_eq!(&before, &rollout, "a refusal changes nothing");
                continue;
            };
            let raised = effects.iter().any(|e| matches!(e, Effect::Weight(w) if *w > published));
            // 2: what raises the weight is a step that passed, a command, or the end of a pause of its own.
            if raised {
                let allowed = match &happening {
                    Happening::Command(c) => !matches!(c, Command::Abort | Command::Rollback | Command::Pause),
                    Happening::Tick(facts, _) => {
                        let trial_over = before.pause.is_some_and(|p| p.reason == PauseReason::StableDegraded);
                        facts.verdict == Verdict::Open && (!before.by_hand || trial_over)
                    }
                    Happening::Answer(kind) => *kind > 1 && before.pause.is_none(),
                    Happening::Restart(_) => false,
                };
                prop_assert!(allowed, "{before:?} {happening:?} {effects:?}");
            }
            if let Some(Effect::Weight(weight)) = effects.iter().rev().find(|e| matches!(e, Effect::Weight(_))) {
                published = *weight;
            }
            // 1 and 3: harm is never ignored before the end.
            if let Happening::Tick(Facts { verdict: Verdict::Harmful { .. }, .. }, _) = &happening {
                prop_assert!(rollout.is_over());
            }
            // 4: an error passes nothing.
            if let Happening::Tick(Facts { verdict: Verdict::Error, .. }, _) = &happening {
                prop_assert!(!raised && !effects.contains(&Effect::Promote));
            }
            // 5 and 8: whoever takes the traffic back shuts the candidate out first.
            if matches!(rollout.stage, Stage::Over(End::Aborted(_))) && !before.is_over() {
                prop_assert_eq!(&effects[0], &Effect::Close);
                prop_assert_eq!(published, Weight::ZERO);
            }
            // What is over stays over, but for a rollback.
            if before.is_over() && rollout != before {
                prop_assert_eq!(&rollout.stage, &Stage::Over(End::RolledBack));
            }
            if !rollout.is_over() {
                prop_assert_eq!(published, rollout.weight, "{:?}", rollout);
                prop_assert!(rollout.restarts.len() <= RESTARTS_MAX);
                let baking = matches!(rollout.stage, Stage::Baking);
                prop_assert_eq!(baking, rollout.weight == Weight::FULL);
            }
        }
    }
}
