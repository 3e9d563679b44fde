//! Results in a row, and the times between probes.

use proptest::prelude::*;

use super::wanted::Check;
use super::*;
use crate::core::weight::Weight;

const READY: Effect = Effect::Became { from: Readiness::Unknown, to: Readiness::Ready };

fn begin(has_startup: bool, at_boot: bool) -> (Probing, Pace, Instant) {
    let now = crate::clock::now();
    (Probing::new(has_startup, at_boot, now), Pace::default(), now)
}

/// What the readiness results mean, one after the other.
fn effects(probing: &mut Probing, pace: &Pace, now: Instant, results: &[bool]) -> Vec<Option<Effect>> {
    results.iter().map(|passed| probing.result(Probe::Readiness, *passed, pace, None, now)).collect()
}

#[test]
fn at_boot_one_pass_suffices_and_later_it_takes_rise() {
    let (mut probing, pace, now) = begin(false, true);
    assert_eq!(effects(&mut probing, &pace, now, &[false, true]), [None, Some(READY)]);
    let (mut probing, pace, now) = begin(false, false);
    assert_eq!(effects(&mut probing, &pace, now, &[true, false, true, true]), [None, None, None, Some(READY)]);
}

#[test]
fn fall_failures_in_a_row_lose_it_and_rise_passes_bring_it_back() {
    let (mut probing, pace, now) = begin(false, true);
    effects(&mut probing, &pace, now, &[true]);
    let seen = effects(&mut probing, &pace, now, &[false, false, true, false, false, false, false]);
    let lost = Effect::Became { from: Readiness::Ready, to: Readiness::Lost };
    assert_eq!(seen, [None, None, None, None, None, Some(lost), None]);
    // One pass was enough only while nothing was known.
    let back = Effect::Became { from: Readiness::Lost, to: Readiness::Ready };
    assert_eq!(effects(&mut probing, &pace, now, &[true, false, true, true]), [None, None, None, Some(back)]);
}

#[test]
fn one_that_was_never_ready_is_not_lost() {
    let (mut probing, pace, now) = begin(false, true);
    let seen = effects(&mut probing, &pace, now, &[false, false, false]);
    assert_eq!(seen[2], Some(Effect::Became { from: Readiness::Unknown, to: Readiness::NotReady }));
    let risen = effects(&mut probing, &pace, now, &[true, true]);
    assert_eq!(risen, [None, Some(Effect::Became { from: Readiness::NotReady, to: Readiness::Ready })]);
}

#[test]
fn startup_has_to_pass_once_and_may_fail_until_its_timeout() {
    let startup = Startup { check: Check::Http("/startup".into()), timeout: Duration::from_secs(10) };
    let (mut probing, pace, now) = begin(true, true);
    let mut ask = |probe, passed, after| {
        let effect = probing.result(probe, passed, &pace, Some(&startup), now + Duration::from_secs(after));
        (effect, probing.deciding(), probing.is_undecided())
    };
    assert_eq!(ask(Probe::Startup, false, 9), (None, Probe::Startup, true));
    assert_eq!(ask(Probe::Readiness, true, 9), (None, Probe::Startup, true), "not asked yet");
    let over = Effect::Became { from: Readiness::Unknown, to: Readiness::NotReady };
    assert_eq!(ask(Probe::Startup, false, 10), (Some(over), Probe::Startup, false));
    assert_eq!(ask(Probe::Startup, false, 11), (None, Probe::Startup, false));
    assert_eq!(ask(Probe::Startup, true, 12), (None, Probe::Readiness, false));
    assert_eq!(ask(Probe::Readiness, true, 12), (None, Probe::Readiness, true));
    assert_eq!(ask(Probe::Startup, false, 12), (None, Probe::Readiness, true), "passed for good");
    assert!(ask(Probe::Readiness, true, 13).0.is_some());
}

#[test]
fn nothing_else_is_asked_before_it_came_up_and_deep_probes_once_it_was_ready() {
    let asked = |probing: &Probing| Probe::ALL.map(|probe| probing.asks(probe));
    let (mut probing, pace, now) = begin(true, true);
    assert_eq!(asked(&probing), [true, false, false, false]);
    probing.result(Probe::Startup, true, &pace, None, now);
    assert_eq!(asked(&probing), [false, true, true, false]);
    effects(&mut probing, &pace, now, &[false, false, false]);
    assert_eq!(asked(&probing), [false, true, true, false], "not ready, and never was");
    effects(&mut probing, &pace, now, &[true, true]);
    assert_eq!(asked(&probing), [false, true, true, true]);
    effects(&mut probing, &pace, now, &[false, false, false]);
    assert_eq!((probing.readiness(), asked(&probing)), (Readiness::Lost, [false, true, true, true]));
}

#[test]
fn readiness_follows_a_passed_startup_at_once() {
    let (mut probing, pace, now) = begin(true, true);
    assert_eq!(probing.result(Probe::Startup, true, &pace, None, now), None);
    assert_eq!(probing.wait(&pace, u32::MAX), Duration::ZERO);
    assert_eq!(effects(&mut probing, &pace, now, &[true]), [Some(READY)]);
}

#[test]
fn liveness_is_told_at_its_first_result_and_moves_nothing() {
    let (mut probing, pace, now) = begin(false, true);
    let mut live = |passed| probing.result(Probe::Liveness, passed, &pace, None, now);
    assert_eq!(live(true), Some(Effect::Liveness { alive: true }));
    assert_eq!([live(false), live(false)], [None, None]);
    assert_eq!(live(false), Some(Effect::Liveness { alive: false }));
    assert_eq!([live(true), live(true)], [None, Some(Effect::Liveness { alive: true })]);
    assert_eq!(probing.readiness(), Readiness::Unknown);
    probing.adopt(false, false);
    assert_eq!(probing.alive(), None);
}

#[test]
fn probes_are_fast_while_undecided_and_spread_after_the_first_decision() {
    let (mut probing, mut pace, now) = begin(false, true);
    pace.jitter = Weight::ZERO;
    effects(&mut probing, &pace, now, &[false]);
    assert_eq!(probing.wait(&pace, 7), pace.fast_interval);
    effects(&mut probing, &pace, now, &[true]);
    assert_eq!(probing.wait(&pace, 0), Duration::ZERO, "anywhere in the interval");
    assert_eq!(probing.wait(&pace, 0), pace.interval);
    effects(&mut probing, &pace, now, &[false]);
    assert_eq!(probing.wait(&pace, 0), pace.fast_interval, "on the way down");
    effects(&mut probing, &pace, now, &[false, false]);
    assert_eq!(probing.wait(&pace, 0), pace.interval, "down");
    effects(&mut probing, &pace, now, &[true]);
    assert_eq!(probing.wait(&pace, 0), pace.fast_interval, "on the way up");
}

proptest! {
    #[test]
    fn probes_begin_together_near_the_time_they_are_due(now in 0_u64..10_u64.pow(14), pause in 0_u64..10_u64.pow(10)) {
        let (now, pause) = (Duration::from_nanos(now), Duration::from_nanos(pause));
        let (due, at) = (now + pause, in_step(now, pause));
        if pause < STEP {
            prop_assert_eq!(at, due);
        } else {
            prop_assert_eq!(at.as_nanos() % STEP.as_nanos(), 0);
            prop_assert!(at.abs_diff(due) <= STEP / 2 && at > now);
        }
    }
}

#[test]
fn first_probes_of_one_come_at_once_and_of_many_within_a_second() {
    assert_eq!(first_wait(1, u32::MAX), Duration::ZERO);
    assert_eq!(first_wait(11, u32::MAX), Duration::from_millis(10));
    assert_eq!(first_wait(100_000, u32::MAX), FIRST_SPREAD_MAX);
    assert_eq!(first_wait(100_000, 0), Duration::ZERO);
}

proptest! {
    #[test]
    fn a_change_takes_exactly_as_many_equal_results_as_asked(
        results in prop::collection::vec(any::<bool>(), 0..64), rise in 1_u32..5, fall in 1_u32..5, at_boot: bool
    ) {
        let (mut probing, mut pace, now) = begin(false, at_boot);
        (pace.rise, pace.fall) = (rise, fall);
        let (mut streak, mut last) = (0, None);
        for passed in results {
            let before = probing.readiness();
            streak = if last == Some(passed) { streak + 1 } else { 1 };
            last = Some(passed);
            let effect = probing.result(Probe::Readiness, passed, &pace, None, now);
            let after = probing.readiness();
            prop_assert_eq!(effect.is_some(), before != after);
            match (before, after) {
                (from, Readiness::Ready) if from != Readiness::Ready => {
                    let needed = if at_boot && from == Readiness::Unknown { 1 } else { rise };
                    prop_assert!(passed && streak >= needed);
                }
                (Readiness::Ready, Readiness::Lost) | (Readiness::Unknown, Readiness::NotReady) => {
                    prop_assert!(!passed && streak >= fall);
                }
                (from, to) => prop_assert_eq!(from, to),
            }
            // A streak that is long enough leaves no doubt.
            prop_assert!(streak < rise.max(fall) || (after == Readiness::Ready) == passed);
        }
    }

    #[test]
    fn pauses_stay_within_their_jitter(random: u32, jitter in 0_u16..=10_000, spread: bool, fails in 0_usize..4) {
        let (mut probing, mut pace, now) = begin(false, true);
        pace.jitter = Weight::from_grains(jitter).expect("in range");
        effects(&mut probing, &pace, now, &[true]);
        if !spread {
            probing.wait(&pace, random);
        }
        effects(&mut probing, &pace, now, &vec![false; fails]);
        let undecided = probing.is_undecided();
        prop_assert_eq!(undecided, fails > 0 && fails < 3);
        let wait = probing.wait(&pace, random).as_secs_f64();
        let base = if undecided { pace.fast_interval } else { pace.interval }.as_secs_f64();
        let (low, high) = (base * (1.0 - f64::from(jitter) / 1e4), base * (1.0 + f64::from(jitter) / 1e4));
        let low = if spread && !undecided { 0.0 } else { low };
        prop_assert!(wait >= low - 1e-6 && wait <= high + 1e-6, "{wait} is not within {low} to {high}");
    }
}
