//! What is remembered of rollouts: legs while they run, all of it when they end.

use super::*;

/// What ended with what happened last.
fn over(run: &Run) -> Vec<(u64, String, Option<Course>)> {
    let over = run.effects.iter().filter_map(|effect| match effect {
        Effect::Over(over) => Some((over.ended.id, over.ended.by.clone(), over.course.as_deref().cloned())),
        _ => None,
    });
    over.collect()
}

/// `PHASE[:STEP] WEIGHT VERB@SECOND`, a leg each.
fn legs(trail: &Trail) -> Vec<String> {
    let leg = |leg: &Leg| {
        let step = leg.step.map(|step| format!(":{step}")).unwrap_or_default();
        format!("{}{step} {} {}@{}", leg.phase, leg.weight, leg.verb, leg.began.as_secs())
    };
    trail.legs.iter().map(leg).collect()
}

#[test]
fn every_stand_of_a_rollout_is_a_leg_until_it_ends() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    run.tick(10);
    run.ask(&reasoned(Verb::Pause)).expect("paused");
    run.verb(Verb::Resume).expect("resumed");
    run.tick(30);
    run.verb(Verb::Weight(Weight::HALF)).expect("set");
    run.verb(Verb::Weight(Weight::HALF)).expect("set already");
    let trail = Arc::clone(&run.roles.current.as_ref().expect("a rollout").trail);
    let expected = [
        "verifying 0% start@1",
        "progressing:0 5% step@2",
        "paused:0 5% pause@12",
        "progressing:0 5% resume@12",
        "progressing:1 25% step@42",
        "progressing 50% weight@42",
    ];
    assert_eq!(legs(&trail), expected);
    assert_eq!((trail.legs[2].actor.as_str(), trail.legs[2].why.as_deref()), ("ci", Some("the database was down")));
    assert_eq!(over(&run), []);
    run.ask(&reasoned(Verb::Abort)).expect("aborted");
    let ended = over(&run);
    let steps = run.roles.current.as_ref().expect("a rollout").terms.plan.steps.clone();
    assert_eq!(ended, [(2, "ci".to_owned(), Some(Course { steps, trail }))]);
    let history = &run.roles.history[0];
    assert_eq!((history.by.as_str(), history.why.as_deref()), ("ci", Some("the database was down")));
    run.verb(Verb::Abort).expect("true already");
    assert_eq!(over(&run), []);
}

#[test]
fn a_rollout_that_another_one_supersedes_is_told_of_in_full() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    let Verb::Start(with) = start("v3=91") else { unreachable!() };
    run.verb(Verb::Start(StartWith { supersede: true, ..with })).expect("superseded");
    let ended = over(&run);
    let (id, by, course) = &ended[0];
    assert_eq!((ended.len(), *id, by.as_str()), (1, 2, "ci"));
    assert_eq!(legs(&course.as_ref().expect("a course").trail), ["verifying 0% start@1", "progressing:0 5% step@2"]);
    assert_eq!(legs(&run.roles.current.as_ref().expect("v3").trail), ["verifying 0% start@2"]);
}

#[test]
fn who_rolls_back_is_who_ended_it() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.promote();
    assert!(over(&run)[0].2.is_some());
    run.ask(&Ask { actor: "night shift".into(), ..asking(Verb::Rollback) }).expect("kept");
    let ended = over(&run);
    assert_eq!((ended[0].0, ended[0].1.as_str(), ended[0].2.is_some()), (2, "night shift", true));
    assert_eq!((run.roles.history[0].end.clone(), run.roles.history[0].by.as_str()), (End::RolledBack, "night shift"));
}

#[test]
fn an_earlier_rollout_that_is_rolled_back_keeps_what_is_known_of_it() {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.promote();
    run.verb(start("v3=91")).expect("started");
    run.ask(&Ask { rollout: Some(2), ..asking(Verb::Rollback) }).expect("kept");
    let mut ended: Vec<_> = over(&run).into_iter().map(|(id, _, course)| (id, course.is_some())).collect();
    ended.sort_unstable();
    assert_eq!(ended, [(2, false), (3, true)]);
}

#[test]
fn a_restart_is_a_leg_of_its_own_and_a_record_without_legs_is_understood() {
    let mut run = Run::stable("v1");
    run.reload(file("v1", "v2")).expect("accepted");
    run.tick(1);
    run.boot(file("v1", "v2")).expect("goes on");
    let trail = Arc::clone(&run.roles.current.as_ref().expect("a rollout").trail);
    assert_eq!(legs(&trail), ["verifying 0% reload@1", "progressing:0 5% step@2", "progressing:0 5% restart@2"]);
    run.promote();
    let mut record = serde_json::to_value(&run.roles).expect("text");
    record["current"].as_object_mut().expect("a rollout").remove("trail");
    for key in ["by", "why"] {
        record["history"][0].as_object_mut().expect("an end").remove(key);
    }
    let read: Roles = serde_json::from_value(record).expect("a record");
    assert_eq!((read.history[0].by.as_str(), read.current.expect("a rollout").trail.legs.len()), ("unknown", 0));
}

#[test]
fn a_start_with_a_plan_of_its_own_is_pinned_to_it() {
    let mut run = Run::stable("v1");
    let mut terms = run.file.rollout.terms.clone();
    terms.plan.steps.truncate(1);
    let with = |text: &str, terms: &Terms| {
        let Verb::Start(with) = start(text) else { unreachable!() };
        Verb::Start(StartWith { terms: Some(terms.clone()), ..with })
    };
    assert_eq!(run.verb(with("v2=90", &terms)), Ok(true));
    let current = run.roles.current.as_ref().expect("a rollout");
    assert_eq!((current.terms.plan.steps.len(), current.own_terms), (1, true));
    // The same again is true already; another one cannot be.
    assert_eq!((run.verb(with("v2=90", &terms)), run.verb(start("v2=90"))), (Ok(false), Ok(false)));
    terms.plan.steps.clear();
    assert_eq!(run.verb(with("v2=90", &terms)), Err(Refused::OtherPlan(version("v2"))));
    // One that waits for somebody begins under it.
    let mut run = Run::first(First::EmptyStore, file("v1", "v2"));
    assert_eq!(run.roles.current.as_ref().and_then(|current| current.rollout.reason()), Some("no_history"));
    terms.plan.steps = run.file.rollout.terms.plan.steps[1..].to_vec();
    assert_eq!(run.verb(with("v2", &terms)), Ok(false));
    run.tick(1);
    assert_eq!(run.runs(), ("v1", Some("v2"), 25));
}
