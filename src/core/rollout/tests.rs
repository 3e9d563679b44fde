//! Tests of the state machine: its paths one by one, its invariants under anything that can happen.

mod invariants;
mod pauses;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn percent(n: u16) -> Weight {
    Weight::from_grains(n * 100).expect("a share")
}

fn step(weight: u16, hold: u32) -> Step {
    let weight = percent(weight);
    Step { weight, hold: hold * SECOND, min_requests: 50, approval: false, synthetic: Vec::new(), mirror: Weight::ZERO }
}

fn plan() -> Plan {
    Plan {
        steps: vec![step(5, 30), step(25, 60), step(100, 120)],
        progress_deadline: Duration::from_secs(3_600),
        on_deadline: Otherwise::Pause,
        max_extend: Duration::from_secs(300),
        on_low_traffic: OnLowTraffic::AdvanceIfClean,
        max_failed_requests: 0,
        pause_on_stable_degraded: true,
        pause_on_sample_ratio: false,
        resume_after_restart: true,
        checks: Checks::default(),
    }
}

/// A rollout under its plan, with a candidate that gets traffic and is well.
struct Run {
    plan: Plan,
    rollout: Rollout,
    facts: Facts,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let facts = Facts {
            ready: true,
            counts: Counts::default(),
            verdict: Verdict::Open,
            alarm: false,
            stable_degraded: false,
            sample_ratio: false,
            endpoint: false,
        };
        Self { plan, rollout: Rollout::begin(true), facts }
    }

    /// One that has reached the step at `index` of the default plan.
    fn at(index: usize) -> Self {
        let mut run = Self::new(plan());
        run.tick(0);
        while run.rollout.step < index {
            run.command(Command::PromoteNext);
        }
        run
    }

    /// A tick after `seconds`, with a hundred good requests.
    fn tick(&mut self, seconds: u32) -> Vec<Effect> {
        self.facts.counts.requests += 100;
        self.facts.counts.good += 100;
        self.quiet(seconds)
    }

    /// A tick without requests.
    fn quiet(&mut self, seconds: u32) -> Vec<Effect> {
        self.rollout.on(&self.plan, Event::Tick(self.facts.clone()), seconds * SECOND)
    }

    fn command(&mut self, command: Command) -> Vec<Effect> {
        self.rollout.obey(&self.plan, command).expect("allowed")
    }

    fn is(&self, phase: &str, weight: u16) {
        assert_eq!((self.rollout.phase(), self.rollout.weight), (phase, percent(weight)), "{:?}", self.rollout);
    }

    fn harmful(&mut self) {
        self.facts.verdict = Verdict::Harmful { metric: "error-rate".to_owned() };
    }
}

#[test]
fn a_good_candidate_walks_through_its_steps_and_is_promoted() {
    let mut run = Run::new(plan());
    run.facts.ready = false;
    assert_eq!(run.quiet(1), []);
    run.is("verifying", 0);
    run.facts.ready = true;
    assert_eq!(run.quiet(1), [Effect::Weight(percent(5)), Effect::StepBegan(0)]);
    run.is("progressing", 5);
    assert_eq!(run.tick(29), []);
    assert_eq!(run.tick(1), [Effect::Weight(percent(25)), Effect::StepBegan(1)]);
    assert_eq!(run.tick(60), [Effect::Weight(percent(100)), Effect::StepBegan(2)]);
    run.is("baking", 100);
    assert_eq!(run.tick(119), []);
    assert_eq!(run.tick(1), [Effect::Promote]);
    run.is("succeeded", 100);
}

/// Nothing passes because of requests that went to stable in its place, or while probes are awaited after a restart.
#[test]
fn no_hold_passes_while_the_candidate_has_nowhere_to_go() {
    for index in 0..3 {
        let mut run = Run::at(index);
        run.plan.steps.iter_mut().for_each(|step| step.min_requests = 0);
        run.facts.ready = false;
        let weight = run.rollout.weight;
        assert_eq!((run.quiet(200), run.rollout.weight), (vec![], weight));
        run.facts.ready = true;
        assert_eq!(run.quiet(1), [], "the hold begins now");
        assert!(!run.quiet(200).is_empty());
    }
}

#[test]
fn harm_takes_the_traffic_back_in_every_stage_and_pause() {
    let stages: [fn() -> Run; 6] = [
        || Run::new(plan()),
        || Run::at(0),
        || Run::at(2),
        || {
            let mut run = Run::at(1);
            run.command(Command::Pause);
            run
        },
        || {
            let mut run = Run::at(2);
            run.facts.alarm = true;
            run.tick(1);
            run.is("trial", 50);
            run
        },
        || Run { rollout: Rollout::begin(false), ..Run::new(plan()) },
    ];
    for begin in stages {
        let mut run = begin();
        run.harmful();
        assert_eq!(run.tick(1), [Effect::Close, Effect::Weight(Weight::ZERO), Effect::Quarantine]);
        run.is("aborted", 0);
        assert_eq!(run.rollout.reason(), Some("harmful"));
    }
}

#[test]
fn too_few_requests_extend_the_step_and_then_the_policy_decides() {
    let outcomes = |policy, bad: u64| {
        let mut run = Run::at(0);
        run.plan.on_low_traffic = policy;
        run.facts.counts.requests += 49;
        run.facts.counts.good += 49 - bad;
        run.facts.counts.bad += bad;
        assert_eq!(run.quiet(30), []);
        assert_eq!(run.quiet(299), []);
        run.quiet(1);
        (run.rollout.phase(), run.rollout.reason().map(str::to_owned))
    };
    let paused = ("paused", Some("low_traffic".to_owned()));
    assert_eq!(outcomes(OnLowTraffic::AdvanceIfClean, 0), ("progressing", None));
    assert_eq!(outcomes(OnLowTraffic::AdvanceIfClean, 1), paused);
    assert_eq!(outcomes(OnLowTraffic::Pause, 0), paused);
    assert_eq!(outcomes(OnLowTraffic::Advance, 1), ("progressing", None));
    let mut unused = Run::at(0);
    unused.quiet(330);
    assert_eq!(unused.rollout.reason(), Some("low_traffic"), "nothing succeeded, so nothing is known");
}

#[test]
fn requests_of_one_step_do_not_count_in_the_next() {
    let mut run = Run::at(0);
    run.tick(30);
    run.is("progressing", 25);
    assert_eq!(run.quiet(60), []);
    run.is("progressing", 25);
}

#[test]
fn requests_that_are_not_remembered_are_not_waited_for() {
    let mut run = Run::at(0);
    run.facts.counts.requests = 5_000;
    run.command(Command::PromoteNext);
    run.quiet(1);
    run.is("progressing", 25);
    // What was counted before a restart is lost.
    run.facts.counts = Counts { requests: 60, bad: 0, good: 60 };
    run.quiet(60);
    run.is("baking", 100);
}

#[test]
fn an_approval_comes_before_the_step_and_its_checks() {
    let mut run = Run::new(plan());
    run.plan.steps[1].approval = true;
    run.plan.checks.pre_step = true;
    assert_eq!(run.tick(1), [Effect::Check(Point::Step(0))]);
    run.rollout.on(&run.plan, Event::Checked(Point::Step(0), Checked::Passed), Duration::ZERO);
    run.tick(30);
    assert_eq!(run.rollout.reason(), Some("approval"));
    run.tick(1_000);
    assert_eq!(run.rollout.obey(&run.plan, Command::Resume), Err(Refused::NotForApproval));
    assert_eq!(run.command(Command::Approve), [Effect::Check(Point::Step(1))]);
    let begun = run.rollout.on(&run.plan, Event::Checked(Point::Step(1), Checked::Passed), Duration::ZERO);
    assert_eq!(begun, [Effect::Weight(percent(25)), Effect::StepBegan(1)]);
    assert_eq!(run.rollout.obey(&run.plan, Command::Approve), Err(Refused::NotForApproval));
}

#[test]
fn an_approval_of_the_first_step_comes_after_the_checks_of_the_rollout() {
    let mut run = Run::new(plan());
    run.plan.steps[0].approval = true;
    run.plan.checks.pre_rollout = true;
    assert_eq!(run.tick(1), [Effect::Check(Point::Rollout)]);
    run.rollout.on(&run.plan, Event::Checked(Point::Rollout, Checked::Passed), Duration::ZERO);
    assert_eq!(run.rollout.reason(), Some("approval"));
    assert_eq!(run.command(Command::Approve), []);
    assert_eq!(run.tick(1), [Effect::Weight(percent(5)), Effect::StepBegan(0)]);
}

#[test]
fn a_failed_check_pauses_or_aborts_and_never_condemns_the_version() {
    for (otherwise, phase) in [(Otherwise::Pause, "paused"), (Otherwise::Abort, "aborted")] {
        let mut run = Run::new(plan());
        run.plan.checks.pre_rollout = true;
        run.tick(1);
        let effects =
            run.rollout.on(&run.plan, Event::Checked(Point::Rollout, Checked::Failed(otherwise)), Duration::ZERO);
        assert!(!effects.contains(&Effect::Quarantine));
        assert_eq!((run.rollout.phase(), run.rollout.reason()), (phase, Some("hook")));
    }
}

#[test]
fn an_answer_during_a_pause_raises_nothing() {
    let mut run = Run::at(0);
    run.plan.checks.pre_step = true;
    assert_eq!(run.tick(30), [Effect::Check(Point::Step(1))]);
    run.command(Command::Pause);
    assert_eq!(run.rollout.on(&run.plan, Event::Checked(Point::Step(1), Checked::Passed), Duration::ZERO), []);
    run.is("paused", 5);
    run.command(Command::Resume);
    assert_eq!(run.tick(30), [Effect::Check(Point::Step(1))], "asked again");
}

#[test]
fn above_ninety_percent_an_alarm_is_a_trial_first() {
    let mut run = Run::at(1);
    run.facts.alarm = true;
    run.tick(1);
    run.is("progressing", 25);
    let mut run = Run::at(2);
    run.facts.alarm = true;
    assert_eq!(run.tick(1), [Effect::Weight(percent(50))]);
    assert_eq!(run.tick(29), []);
    run.tick(1);
    assert_eq!(run.rollout.reason(), Some("stable_degraded"));
    run.is("paused", 50);
    run.facts.alarm = false;
    assert_eq!(run.command(Command::Resume), [Effect::Weight(percent(100))]);
    run.is("baking", 100);
}

#[test]
fn a_pause_within_a_trial_does_not_end_the_trial() {
    let mut run = Run::at(2);
    run.facts.alarm = true;
    run.tick(1);
    run.facts.verdict = Verdict::Error;
    run.tick(1);
    run.facts.verdict = Verdict::Open;
    assert_eq!(run.tick(120), [], "the error is gone for a whole hold");
    run.is("trial", 50);
}

#[test]
fn a_degraded_stable_pauses_and_resumes_by_itself_after_one_clear_hold() {
    for error in [false, true] {
        let mut run = Run::at(1);
        let complain = |run: &mut Run, on: bool| {
            run.facts.stable_degraded = on && !error;
            run.facts.verdict = if on && error { Verdict::Error } else { Verdict::Open };
        };
        complain(&mut run, true);
        run.tick(1);
        run.is("paused", 25);
        complain(&mut run, false);
        run.tick(59);
        complain(&mut run, true);
        run.tick(1);
        complain(&mut run, false);
        run.tick(59);
        run.is("paused", 25);
        run.tick(1);
        run.is("progressing", 25);
        assert_eq!(run.tick(59), [], "the hold begins again");
    }
}

/// flagger#1801, argo#1411: what a person paused stays paused, and is watched.
#[test]
fn flagger_1801_a_person_s_pause_does_not_end_by_itself() {
    let mut run = Run::at(1);
    run.command(Command::Pause);
    run.facts.stable_degraded = true;
    run.tick(1);
    run.facts.stable_degraded = false;
    for _ in 0..100 {
        run.tick(60);
    }
    assert_eq!(run.rollout.reason(), Some("manual"));
    run.harmful();
    run.tick(1);
    run.is("aborted", 0);
}

#[test]
fn the_deadline_counts_neither_pauses_nor_baking() {
    let mut run = Run::at(0);
    run.plan.steps[0].hold = Duration::from_secs(10_000);
    run.command(Command::Pause);
    run.tick(10_000);
    run.command(Command::Resume);
    run.tick(3_600);
    run.is("progressing", 5);
    run.tick(1);
    assert_eq!(run.rollout.reason(), Some("deadline"));
    run.command(Command::Resume);
    run.tick(3_600);
    run.is("progressing", 5);
    run.plan.on_deadline = Otherwise::Abort;
    let effects = run.tick(1);
    assert_eq!(effects, [Effect::Close, Effect::Weight(Weight::ZERO)], "not condemned");
    let mut baking = Run::at(2);
    baking.plan.steps[2].hold = Duration::from_secs(10_000);
    baking.tick(9_000);
    baking.is("baking", 100);
}

#[test]
fn a_plan_that_ends_lower_bakes_at_full_weight() {
    let mut run = Run::new(plan());
    run.plan.steps.truncate(1);
    run.tick(1);
    assert_eq!(run.tick(30), [Effect::Weight(percent(100)), Effect::StepBegan(1)]);
    assert_eq!(run.tick(299), []);
    assert_eq!(run.tick(1), [Effect::Promote]);
}

#[test]
fn promote_moves_one_step_or_to_the_end() {
    let mut run = Run::at(0);
    run.command(Command::Pause);
    assert_eq!(run.command(Command::PromoteNext), [Effect::Weight(percent(25)), Effect::StepBegan(1)]);
    assert_eq!(run.command(Command::PromoteFull { force: false }), [Effect::Weight(percent(100))]);
    run.is("baking", 100);
    assert_eq!(run.tick(299), []);
    assert_eq!(run.tick(1), [Effect::Promote]);
    // argo#995: it works whatever is wrong.
    let mut stuck = Run::at(0);
    stuck.facts.verdict = Verdict::Error;
    stuck.tick(1);
    assert_eq!(stuck.command(Command::PromoteFull { force: true }), [Effect::Promote]);
}

#[test]
fn a_weight_by_hand_is_held_and_left_by_resume() {
    let mut run = Run::at(1);
    assert_eq!(run.command(Command::Weight(percent(10))), [Effect::Weight(percent(10))]);
    assert_eq!(run.tick(9_999), []);
    run.is("progressing", 10);
    assert_eq!(run.command(Command::Resume), [Effect::Weight(percent(25))]);
    let (mut hand, effects) = Rollout::by_hand(percent(3));
    assert_eq!(effects, [Effect::Weight(percent(3))]);
    let mut empty = plan();
    empty.steps.clear();
    let facts = Run::new(plan()).facts;
    assert_eq!(hand.on(&empty, Event::Tick(facts), Duration::from_secs(99_999)), []);
    assert_eq!(hand.obey(&empty, Command::Resume), Err(Refused::NotPaused));
    assert_eq!(hand.obey(&empty, Command::Weight(Weight::FULL)), Ok(vec![Effect::Weight(Weight::FULL)]));
    assert_eq!(hand.phase(), "baking");
}

#[test]
fn a_weight_by_hand_stays_when_a_pause_ends_by_itself() {
    let mut run = Run::at(1);
    run.command(Command::Weight(percent(10)));
    run.facts.verdict = Verdict::Error;
    run.tick(1);
    run.facts.verdict = Verdict::Open;
    assert_eq!(run.tick(300), [], "clear for as long as it is held");
    run.is("progressing", 10);
    assert_eq!(run.command(Command::Resume), [Effect::Weight(percent(25))]);
}

#[test]
fn abort_is_always_allowed_and_safe_to_repeat() {
    let mut run = Run::at(1);
    assert_eq!(run.command(Command::Abort), [Effect::Close, Effect::Weight(Weight::ZERO), Effect::Quarantine]);
    assert_eq!(run.command(Command::Abort), []);
    assert_eq!(run.rollout.obey(&run.plan, Command::Resume), Err(Refused::Over("aborted")));
    let mut done = Run::at(2);
    done.tick(120);
    done.is("succeeded", 100);
    assert_eq!(done.command(Command::Rollback), [Effect::Restore, Effect::Quarantine]);
    done.is("rolled_back", 0);
    assert_eq!(done.command(Command::Rollback), []);
}

#[test]
fn three_restarts_in_ten_minutes_wait_for_a_person() {
    let mut run = Run::at(1);
    run.tick(50);
    let counts = run.facts.counts;
    for (at, phase) in [(0, "progressing"), (700, "progressing"), (800, "progressing"), (1_250, "paused")] {
        let event = Event::Restarted { at: Duration::from_secs(at), counts };
        assert_eq!(run.rollout.on(&run.plan, event, Duration::ZERO), []);
        run.is(phase, 25);
    }
    assert_eq!(run.rollout.reason(), Some("restarts"));
    let mut once = Run::at(1);
    once.tick(50);
    once.rollout.on(&once.plan, Event::Restarted { at: SECOND, counts }, Duration::ZERO);
    assert_eq!(once.tick(59), [], "the hold begins again");
    once.plan.resume_after_restart = false;
    once.rollout.on(&once.plan, Event::Restarted { at: SECOND, counts }, Duration::ZERO);
    assert_eq!(once.rollout.reason(), Some("restarts"));
}

#[test]
fn without_a_history_it_waits_for_a_command() {
    let mut run = Run { rollout: Rollout::begin(false), ..Run::new(plan()) };
    run.tick(9_999);
    assert_eq!((run.rollout.phase(), run.rollout.reason()), ("paused", Some("no_history")));
    run.command(Command::Resume);
    run.tick(1);
    run.is("progressing", 5);
}

#[test]
fn the_budget_of_failed_requests_is_a_bound_of_its_own() {
    let mut run = Run::at(0);
    run.plan.max_failed_requests = 3;
    run.facts.counts.bad = 3;
    assert_eq!(run.tick(1), []);
    run.facts.counts.bad = 4;
    assert_eq!(run.tick(1), [Effect::Close, Effect::Weight(Weight::ZERO)]);
    assert_eq!(run.rollout.reason(), Some("failed_requests"));
}
