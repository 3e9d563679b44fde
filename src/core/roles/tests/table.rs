//! The table "File and running state", a test for each row, named after it.

use super::*;

/// A rollout of v2 from the file, in its first step.
fn rolling() -> Run {
    let mut run = Run::stable("v1");
    run.reload(file("v1", "v2=90")).expect("accepted");
    run.tick(1);
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
    run
}

fn aborted() -> Run {
    let mut run = rolling();
    run.harm();
    run
}

fn promoted() -> Run {
    let mut run = rolling();
    run.promote();
    run
}

fn refused(run: &mut Run, wanted: Service) -> String {
    let before = run.roles.clone();
    let reasons = run.reload(wanted).expect_err("refused");
    assert_eq!(run.roles, before);
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn stable_a_candidate_b_added_begins_a_rollout() {
    let mut run = Run::stable("v1");
    let changes = run.reload(file("v1", "v2=90")).expect("accepted");
    assert_eq!(changes, ["rollout of v2 begins at 0%"]);
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v2"), 0), "verifying"));
    assert!(run.effects.contains(&Effect::Gate(GateWork::Begin(2))));
}

#[test]
fn stable_a_candidate_b_added_with_start_manual_waits_for_start() {
    let mut run = Run::stable("v1");
    run.reload(manual(file("v1", "v2=90"))).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", None, 0), "idle"));
    assert_eq!(run.difference(), "v2 waits for `tidegate rollout start web`");
    assert_eq!(run.verb(start("v2")), Ok(BEGINS));
}

#[test]
fn rollout_of_b_other_steps_are_pending_for_the_next() {
    let mut run = rolling();
    let mut wanted = file("v1", "v2=90");
    Arc::make_mut(&mut wanted.rollout).terms.plan.steps.remove(0);
    let changes = run.reload(wanted.clone()).expect("accepted");
    assert_eq!(changes, ["the rollout of v2 keeps its plan and gate; the new ones are for the next rollout"]);
    let current = run.roles.active().expect("runs");
    assert_eq!(current.terms.plan.steps.len(), 3);
    assert_eq!(current.pending.as_deref(), Some(&wanted.rollout.terms));
    assert!(run.difference().contains("for the next rollout"));
    assert!(run.reload(wanted).expect("accepted").is_empty(), "said once");
    run.reload(file("v1", "v2=90")).expect("accepted");
    assert_eq!(run.roles.active().expect("runs").pending, None, "back as it was");
}

#[test]
fn rollout_of_b_from_the_file_candidate_removed_supersedes_b() {
    let mut run = rolling();
    run.reload(file("v1", "")).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", None, 0), "superseded"));
    assert!(run.effects.contains(&Effect::Close));
    assert_eq!(run.roles.quarantine(&version("v2")), None);
}

#[test]
fn rollout_by_api_is_not_touched_by_a_file_that_removes_it() {
    let mut run = Run::first(First::NewService, manual(file("v1", "v2=90")));
    run.verb(start("v2")).expect("started");
    run.tick(1);
    run.reload(manual(file("v1", ""))).expect("accepted");
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
    assert_eq!(run.difference(), "v2 is on trial by a command; the file does not name it");
}

#[test]
fn rollout_of_b_candidate_c_supersedes_b_and_begins_c() {
    let mut run = rolling();
    let changes = run.reload(file("v1", "v3=91")).expect("accepted");
    assert_eq!(changes, ["candidate v2 superseded by v3, whose rollout begins at 0%"]);
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v3"), 0), "verifying"));
    assert_eq!(run.roles.history[0].end, End::Superseded);
}

#[test]
fn b_aborted_removed_and_listed_again_stays_quarantined_until_retry() {
    let mut run = aborted();
    run.reload(file("v1", "")).expect("accepted");
    assert_eq!(run.runs(), ("v1", None, 0));
    run.reload(file("v1", "v2=90")).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", None, 0), "aborted"));
    assert!(
        run.difference().starts_with("v2 is quarantined since rollout 2; `tidegate retry web`"),
        "{}",
        run.difference()
    );
    run.boot(file("v1", "v2=90")).expect("accepted");
    assert_eq!(run.runs(), ("v1", None, 0));
    assert_eq!(run.ask(&reasoned(Verb::Retry(Some(version("v2"))))), Ok(BEGINS));
}

#[test]
fn b_promoted_the_old_file_is_satisfied_and_behind() {
    let mut run = promoted();
    run.reload(file("v1", "v2=90")).expect("accepted");
    assert_eq!((run.runs(), run.effects.len()), (("v2", None, 0), 0));
    assert_eq!(run.difference(), "file is behind: stable is v2, the file says v1");
}

#[test]
fn stable_b_stable_b_nothing_happens() {
    let mut run = promoted();
    assert!(run.reload(file("v2=90", "")).expect("accepted").is_empty());
    assert_eq!((run.runs(), run.difference().as_str()), (("v2", None, 0), ""));
    assert!(!run.effects.contains(&Effect::Publish));
}

#[test]
fn stable_b_stable_b_candidate_c_begins_c() {
    let mut run = promoted();
    run.reload(file("v2=90", "v3=91")).expect("accepted");
    assert_eq!(run.runs(), ("v2", Some("v3"), 0));
    assert!(run.roles.warm.is_some(), "the old stable stays pinned");
}

#[test]
fn stable_b_stable_changed_to_x_goes_through_the_plan() {
    let mut run = Run::stable("v1");
    run.reload(file("v9=99", "")).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v9"), 0), "verifying"));
    assert_eq!(run.roles.active().expect("runs").origin, Origin::File);
    run.tick(1);
    // The author takes it back.
    run.reload(file("v1", "")).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", None, 0), "superseded"));
}

#[test]
fn stable_x_that_is_quarantined_is_refused() {
    let mut run = aborted();
    run.reload(file("v1", "")).expect("accepted");
    assert!(refused(&mut run, file("v2=90", "")).contains("it was taken back"));
}

#[test]
fn rollout_of_b_stable_changed_to_b_is_refused_with_the_hint_to_promote() {
    let mut run = rolling();
    assert!(refused(&mut run, file("v2=90", "")).contains("`tidegate promote`"));
    assert!(refused(&mut run, file("v9=99", "v2=90")).contains("promote or abort that first"));
}

#[test]
fn stable_and_candidate_both_changed_is_refused() {
    let mut run = Run::stable("v1");
    let said = refused(&mut run, file("v8", "v9=99"));
    assert!(said.contains("from stable v1 alone to stable v8 with candidate v9"), "{said}");
}

#[test]
fn candidate_equal_to_stable_is_refused() {
    assert!(refused(&mut Run::stable("v1"), file("v1", "v1")).contains("are both version v1"));
}

#[test]
fn service_removed_during_a_rollout_aborts_it_first() {
    let run = rolling();
    let outcome = run.roles.removed(run.now);
    assert_eq!(outcome.effects[..2], [Effect::Close, Effect::Publish]);
    assert_eq!(outcome.roles.current.expect("it").rollout.phase(), "aborted");
}

#[test]
fn boot_where_store_and_file_disagree_the_store_wins() {
    let mut run = rolling();
    run.boot(file("v7", "v8=98")).expect("accepted");
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v2"), 5), "progressing"));
    assert!(run.difference().contains("file is behind: stable is v1, the file says v7"), "{}", run.difference());
    run.reload(file("v7", "v8=98")).expect("accepted");
    assert_eq!(run.runs(), ("v1", Some("v2"), 5), "an unchanged file moves nothing");
}

#[test]
fn store_empty_b_waits_for_a_start_command() {
    let mut run = Run::first(First::EmptyStore, file("v1", "v2=90"));
    run.tick(3_600);
    assert_eq!((run.runs(), run.phase()), (("v1", Some("v2"), 0), "paused"));
    let pause = run.roles.active().and_then(|c| c.rollout.pause).map(|p| p.reason);
    assert_eq!(pause, Some(PauseReason::NoHistory));
    assert!(run.difference().contains("nothing is known of what ran before"));
    assert_eq!(run.verb(start("v2")), Ok(STANDS));
    run.tick(1);
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
}

#[test]
fn store_empty_with_on_empty_store_start_begins() {
    let mut wanted = file("v1", "v2=90");
    Arc::make_mut(&mut wanted.rollout).on_empty_store = super::super::super::rollout::wanted::OnEmptyStore::Start;
    let mut run = Run::first(First::EmptyStore, wanted);
    run.tick(1);
    assert_eq!(run.runs(), ("v1", Some("v2"), 5));
}

#[test]
fn other_endpoints_for_a_known_version_change_in_place() {
    let mut run = rolling();
    let changes = run.reload(file("v1=80,81", "v2=91")).expect("accepted");
    assert_eq!(changes, ["version v1: added 10.0.0.1:81", "version v2: added 10.0.0.1:91, removed 10.0.0.1:90"]);
    assert_eq!((run.runs(), run.roles.stable.endpoints.len()), (("v1", Some("v2"), 5), 2));
    assert!(run.effects.contains(&Effect::Publish));
    assert!(run.reload(file("v1=81,80", "v2=91")).expect("accepted").is_empty(), "another order is the same");
    run.boot(file("v1=82", "v2=91")).expect("accepted");
    assert_eq!(run.roles.stable.endpoints[0].address.port(), Some(82), "while the process was away, too");
}

#[test]
fn a_known_version_with_another_digest_is_refused() {
    let mut run = Run::stable("v1@a");
    assert!(refused(&mut run, file("v1@b", "")).contains("version v1 has digest a, but the file says b"));
    assert!(run.reload(file("v1", "")).expect("accepted").is_empty(), "a digest left out is still known");
    assert!(run.boot(file("v1@b", "")).is_err());
    run.reload(file("v1", "v2@x=90")).expect("accepted");
    run.verb(Verb::Abort).expect("aborted");
    run.reload(file("v1", "")).expect("accepted");
    assert!(refused(&mut run, file("v1", "v2@y=90")).contains("digest x"), "also when it is gone");
}

#[test]
fn an_unchanged_file_never_moves_traffic() {
    for mut run in [rolling(), aborted(), promoted(), Run::stable("v1")] {
        let (before, wanted) = (run.roles.clone(), run.file.clone());
        run.reload(wanted).expect("accepted");
        assert_eq!((&run.roles, run.effects.len()), (&before, 0));
    }
}
