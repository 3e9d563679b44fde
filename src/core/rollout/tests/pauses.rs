//! Bakes nobody tried, pauses that wait for a person, trials under them, and the way past all of it.

use super::*;

/// Every reason there is.
const REASONS: [PauseReason; 11] = [
    PauseReason::Manual,
    PauseReason::Approval,
    PauseReason::NoHistory,
    PauseReason::LowTraffic,
    PauseReason::StableDegraded,
    PauseReason::GateError,
    PauseReason::Endpoint,
    PauseReason::Deadline,
    PauseReason::Hook,
    PauseReason::Restarts,
    PauseReason::SampleRatio,
];

fn paused(mut run: Run, reason: PauseReason) -> Run {
    run.rollout.pause = Some(Pause { reason, clear: Duration::ZERO });
    run
}

fn reasons_that_wait() -> impl Iterator<Item = PauseReason> {
    REASONS.into_iter().filter(|reason| !reason.clears())
}

// --- bakes ---

/// Everything that bakes without a step that says how long, at the beginning of its bake.
fn bakes() -> [(&'static str, Run); 4] {
    let mut ends_lower = Run::new(plan());
    ends_lower.plan.steps.truncate(1);
    ends_lower.tick(1);
    ends_lower.tick(30);
    let mut full = Run::at(0);
    full.command(Command::PromoteFull { force: false });
    let mut by_hand = Run::at(1);
    by_hand.command(Command::Weight(Weight::FULL));
    let mut opened = Run { rollout: Rollout::by_hand(Weight::FULL).0, ..Run::new(plan()) };
    opened.plan.steps.clear();
    [("a plan that ends lower", ends_lower), ("promote full", full), ("by hand", by_hand), ("opened by hand", opened)]
}

#[test]
fn a_bake_nobody_tried_does_not_pass() {
    for policy in [OnLowTraffic::AdvanceIfClean, OnLowTraffic::Pause] {
        for (name, mut run) in bakes() {
            run.is("baking", 100);
            run.plan.on_low_traffic = policy;
            assert_eq!(run.quiet(599), [], "{name}");
            assert_eq!(run.quiet(1), [], "{name}");
            assert_eq!(run.rollout.reason(), Some("low_traffic"), "{name}");
            run.is("paused", 100);
            // Whoever resumes it goes on baking: neither a pass, nor back to a step.
            assert_eq!(run.command(Command::Resume), [], "{name}");
            run.is("baking", 100);
            assert_eq!(run.tick(299), [], "{name}: the bake begins again");
            assert_eq!(run.tick(1), [Effect::Promote], "{name}");
        }
    }
}

#[test]
fn a_bake_with_few_requests_is_extended_and_then_the_policy_decides() {
    let ends = |policy, good: u64, bad: u64| {
        bakes().map(|(name, mut run)| {
            run.plan.on_low_traffic = policy;
            run.facts.counts.requests += good + bad;
            run.facts.counts.good += good;
            run.facts.counts.bad += bad;
            assert_eq!(run.quiet(299), [], "{name}");
            let soon = run.quiet(1);
            assert_eq!(run.quiet(299), [], "{name}");
            (soon.is_empty(), run.quiet(1).is_empty(), run.rollout.phase())
        })
    };
    assert_eq!(ends(OnLowTraffic::Pause, 50, 0), [(false, true, "succeeded"); 4], "enough, in time");
    assert_eq!(ends(OnLowTraffic::Pause, 49, 0), [(true, true, "paused"); 4]);
    assert_eq!(ends(OnLowTraffic::AdvanceIfClean, 49, 0), [(true, false, "succeeded"); 4]);
    assert_eq!(ends(OnLowTraffic::AdvanceIfClean, 48, 1), [(true, true, "paused"); 4]);
    assert_eq!(ends(OnLowTraffic::Advance, 0, 0), [(true, false, "succeeded"); 4], "as the plan has it");
}

// --- trials under a pause ---

/// flagger#1801: a trial takes traffic back, and leaves the question to whom it was put.
#[test]
fn flagger_1801_a_pause_that_waits_for_a_person_outlives_a_trial() {
    for reason in reasons_that_wait() {
        let mut run = paused(Run::at(2), reason);
        run.facts.alarm = true;
        assert_eq!(run.tick(1), [Effect::Weight(TRIAL_WEIGHT)], "{reason:?}");
        run.is("paused", 50);
        run.facts.stable_degraded = true;
        for _ in 0..40 {
            assert_eq!(run.tick(1), [], "{reason:?}");
        }
        (run.facts.alarm, run.facts.stable_degraded) = (false, false);
        for _ in 0..100 {
            assert_eq!(run.tick(60), [], "{reason:?}");
        }
        run.is("paused", 50);
        assert_eq!(run.rollout.pause.map(|pause| pause.reason), Some(reason));
        let answer = if reason == PauseReason::Approval { Command::Approve } else { Command::Resume };
        assert_eq!(run.command(answer), [Effect::Weight(Weight::FULL)], "{reason:?}: the trial is over");
        run.is("baking", 100);
        assert_eq!(run.tick(119), [], "the hold begins again");
        assert_eq!(run.tick(1), [Effect::Promote]);
    }
}

#[test]
fn harm_aborts_in_a_trial_under_a_pause() {
    for reason in reasons_that_wait() {
        let mut run = paused(Run::at(2), reason);
        run.facts.alarm = true;
        run.tick(1);
        run.harmful();
        assert_eq!(run.tick(1), [Effect::Close, Effect::Weight(Weight::ZERO), Effect::Quarantine]);
        run.is("aborted", 0);
    }
}

#[test]
fn a_pause_that_clears_by_itself_ends_where_a_trial_begins() {
    for reason in REASONS.into_iter().filter(|reason| reason.clears()) {
        let mut run = paused(Run::at(2), reason);
        run.facts.alarm = true;
        assert_eq!(run.tick(1), [Effect::Weight(TRIAL_WEIGHT)]);
        run.is("trial", 50);
        run.tick(30);
        assert_eq!(run.rollout.reason(), Some("stable_degraded"));
    }
}

#[test]
fn a_trial_goes_on_under_a_person_s_pause_and_after_it() {
    let mut run = Run::at(2);
    run.facts.alarm = true;
    run.tick(1);
    assert_eq!(run.tick(10), []);
    run.command(Command::Pause);
    // While the gate has no answer nothing is compared.
    run.facts.verdict = Verdict::Error;
    assert_eq!(run.tick(100), []);
    run.facts.verdict = Verdict::Open;
    assert_eq!(run.tick(10), []);
    assert_eq!(run.command(Command::Resume), [], "ten seconds of it are left");
    run.is("trial", 50);
    assert_eq!(run.tick(9), []);
    run.is("trial", 50);
    run.tick(1);
    assert_eq!(run.rollout.reason(), Some("stable_degraded"));
    run.is("paused", 50);
}

#[test]
fn a_person_s_pause_over_a_trial_that_ended_does_not_begin_another_one() {
    let mut run = Run::at(2);
    run.facts.alarm = true;
    run.tick(1);
    run.tick(30);
    assert_eq!(run.rollout.reason(), Some("stable_degraded"));
    run.command(Command::Pause);
    run.facts.alarm = false;
    assert_eq!(run.tick(9_999), []);
    assert_eq!(run.command(Command::Resume), [Effect::Weight(Weight::FULL)]);
}

#[test]
fn what_is_approved_in_a_trial_begins_after_it_and_is_not_asked_again() {
    for late in [false, true] {
        let mut run = Run::new(plan());
        run.plan.steps = vec![step(95, 30), Step { approval: true, ..step(100, 120) }];
        run.tick(1);
        run.tick(30);
        assert_eq!(run.rollout.reason(), Some("approval"));
        run.facts.alarm = true;
        assert_eq!(run.tick(1), [Effect::Weight(TRIAL_WEIGHT)]);
        assert_eq!(run.rollout.reason(), Some("approval"));
        if late {
            run.tick(30);
            run.facts.alarm = false;
            assert_eq!(run.command(Command::Approve), [Effect::Weight(percent(95))]);
        } else {
            assert_eq!(run.command(Command::Approve), []);
            run.is("trial", 50);
            run.tick(30);
            assert_eq!(run.rollout.reason(), Some("stable_degraded"));
            run.facts.alarm = false;
            assert_eq!(run.tick(30), [Effect::Weight(percent(95))], "clear for a hold");
        }
        assert_eq!(run.tick(30), [Effect::Weight(Weight::FULL), Effect::StepBegan(1)], "late: {late}");
    }
}

/// Found by simulated outages: at 0 % no step has the weight in force, so that it was the bake that had to stay clear.
#[test]
fn what_pauses_while_verifying_is_clear_after_the_hold_of_the_first_step() {
    let mut run = Run::new(plan());
    run.facts.stable_degraded = true;
    run.tick(1);
    run.is("paused", 0);
    run.facts.stable_degraded = false;
    assert_eq!(run.tick(29), []);
    run.is("paused", 0);
    run.tick(1);
    run.is("verifying", 0);
}

/// Somebody looked and wants it to go on: it must not wait for the same deadline again.
#[test]
fn whoever_leaves_a_deadline_behind_gives_it_its_time_again() {
    let over = || {
        let mut run = Run::at(1);
        run.plan.steps.insert(2, step(50, 60));
        run.facts.ready = false;
        run.quiet(3_601);
        assert_eq!(run.rollout.reason(), Some("deadline"));
        run.facts.ready = true;
        run
    };
    let ways: [(&str, &[Command]); 6] = [
        ("resume", &[Command::Resume]),
        ("promote", &[Command::PromoteNext]),
        ("a pause over it", &[Command::Pause, Command::Resume]),
        ("a pause and a promote", &[Command::Pause, Command::PromoteNext]),
        ("by hand and back", &[Command::Weight(percent(10)), Command::Resume]),
        ("by hand and on", &[Command::Weight(percent(10)), Command::Pause, Command::PromoteNext]),
    ];
    for (way, commands) in ways {
        let mut run = over();
        for command in commands {
            run.command(*command);
        }
        assert_eq!(run.rollout.phase(), "progressing", "{way}");
        run.facts.ready = false;
        run.quiet(3_600);
        assert_eq!(run.rollout.phase(), "progressing", "{way}: all of its time");
        run.quiet(1);
        assert_eq!(run.rollout.reason(), Some("deadline"), "{way}");
    }
    let mut in_time = Run::at(1);
    in_time.facts.ready = false;
    in_time.quiet(3_600);
    in_time.command(Command::Pause);
    in_time.command(Command::Resume);
    in_time.quiet(1);
    assert_eq!(in_time.rollout.reason(), Some("deadline"), "a pause alone gives no time");
}

#[test]
fn an_approval_that_comes_late_does_not_run_into_the_deadline() {
    let mut run = Run::new(plan());
    run.plan.steps[0].approval = true;
    run.plan.progress_deadline = 60 * SECOND;
    run.facts.ready = false;
    run.quiet(61);
    assert_eq!(run.rollout.reason(), Some("deadline"));
    run.facts.ready = true;
    run.rollout.pause = Some(Pause { reason: PauseReason::Approval, clear: Duration::ZERO });
    run.command(Command::Approve);
    assert_eq!(run.tick(1), [Effect::Weight(percent(5)), Effect::StepBegan(0)]);
}

/// Not what paused it says whether a trial is over, but how long it lasted.
#[test]
fn a_trial_is_over_once_it_has_lasted_whatever_paused_it() {
    for reason in [PauseReason::Manual, PauseReason::StableDegraded, PauseReason::GateError] {
        for (lasted, ended) in [(TRIAL / 2, false), (TRIAL, true)] {
            let mut run = paused(Run::at(2), reason);
            (run.rollout.stage, run.rollout.weight) = (Stage::Trial { from: Weight::FULL, lasted }, TRIAL_WEIGHT);
            let back = run.command(Command::Resume);
            assert_eq!(back == [Effect::Weight(Weight::FULL)], ended, "{reason:?}, {lasted:?}");
            assert_eq!(back.is_empty(), !ended, "{reason:?}, {lasted:?}");
        }
    }
}

// --- past all of it ---

/// A stage, and one that is in it.
type Begun = (&'static str, fn() -> Run);

/// argo#995, argo#1774: when stable itself is broken there has to be a way forward.
#[test]
fn argo_995_force_makes_it_stable_from_every_stage_and_pause() {
    let stages: [Begun; 5] = [
        ("verifying", || Run::new(plan())),
        ("progressing", || Run::at(0)),
        ("by hand", || {
            let mut run = Run::at(1);
            run.command(Command::Weight(percent(10)));
            run
        }),
        ("baking", || Run::at(2)),
        ("trial", || {
            let mut run = Run::at(2);
            run.facts.alarm = true;
            run.tick(1);
            run.is("trial", 50);
            run
        }),
    ];
    for (stage, begin) in stages {
        for reason in REASONS.map(Some).into_iter().chain([None]) {
            let mut run = begin();
            run.rollout.pause = reason.map(|reason| Pause { reason, clear: Duration::ZERO });
            (run.facts.ready, run.facts.verdict, run.facts.stable_degraded) = (false, Verdict::Error, true);
            let forced = run.command(Command::PromoteFull { force: true });
            assert_eq!(forced, [Effect::Promote], "{stage}, {reason:?}");
            run.is("succeeded", 100);
            assert_eq!((run.rollout.pause, run.tick(1)), (None, vec![]));
        }
    }
}

#[test]
fn a_bad_endpoint_pauses_until_somebody_resumes() {
    pauses_until_resumed("endpoint", |run, on| run.facts.endpoint = on);
}

#[test]
fn a_wrong_sample_ratio_pauses_until_somebody_resumes_where_the_plan_says_so() {
    pauses_until_resumed("sample_ratio", |run, on| {
        run.plan.pause_on_sample_ratio = true;
        run.facts.sample_ratio = on;
    });
    let mut event = Run::at(1);
    event.facts.sample_ratio = true;
    event.tick(1);
    event.is("progressing", 25);
}

fn pauses_until_resumed(reason: &str, complain: impl Fn(&mut Run, bool)) {
    let mut run = Run::at(1);
    complain(&mut run, true);
    assert_eq!(run.tick(1), []);
    assert_eq!((run.rollout.phase(), run.rollout.reason()), ("paused", Some(reason)));
    complain(&mut run, false);
    for _ in 0..100 {
        assert_eq!(run.tick(60), [], "it does not clear by itself");
    }
    run.is("paused", 25);
    assert_eq!(run.command(Command::Resume), []);
    run.is("progressing", 25);
    assert_eq!(run.tick(59), [], "the hold begins again");
    assert_eq!(run.tick(1), [Effect::Weight(Weight::FULL), Effect::StepBegan(2)]);
    // What is still true pauses again.
    let mut still = Run::at(1);
    complain(&mut still, true);
    still.tick(1);
    still.command(Command::Resume);
    still.tick(1);
    assert_eq!(still.rollout.reason(), Some(reason));
}
