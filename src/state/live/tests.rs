//! The switch of a candidate outlives reloads within its rollout and never opens again.

use super::*;
use crate::core::snapshot::Running;
use crate::state::fixture::{service, snapshot};

fn before(snapshot: &Snapshot, live: &[Arc<ServiceLive>]) -> HashMap<Name, Arc<ServiceLive>> {
    snapshot.services.iter().map(|s| s.service.name.clone()).zip(live.iter().cloned()).collect()
}

fn registry() -> Registry {
    Registry::new(2, crate::clock::now())
}

#[test]
fn a_request_that_began_before_a_reload_sees_an_abort_after_it() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    assert!(old_live[0].is_candidate_open());
    let new = snapshot(vec![(service("web", 3, Some(("v2", 2))), Running::idle(7))]);
    let new_live = registry.resolve(&new, &before(&old, &old_live));
    assert!(!Arc::ptr_eq(&old_live[0], &new_live[0]));
    new_live[0].close_candidate();
    assert!(!old_live[0].is_candidate_open());
    assert!(Arc::ptr_eq(&old_live[0].stable[0], &new_live[0].stable[0]), "endpoint state is kept by key");
}

#[test]
fn resolving_again_never_reopens_a_closed_switch_within_its_rollout() {
    let registry = registry();
    let routing = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let live = registry.resolve(&routing, &HashMap::new());
    live[0].close_candidate();
    let again = registry.resolve(&routing, &before(&routing, &live));
    assert!(Arc::ptr_eq(&live[0], &again[0]) && !again[0].is_candidate_open());
}

#[test]
fn another_candidate_or_rollout_gets_a_switch_of_its_own() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    old_live[0].close_candidate();
    for (version, rollout) in [("v3", 8), ("v2", 8), ("v3", 7)] {
        let new = snapshot(vec![(service("web", 1, Some((version, 1))), Running::idle(rollout))]);
        let new_live = registry.resolve(&new, &before(&old, &old_live));
        assert!(new_live[0].is_candidate_open() && !old_live[0].is_candidate_open(), "{version} {rollout}");
    }
    let reopened = old_live[0].reopened(9);
    assert!(reopened.is_candidate_open() && !old_live[0].is_candidate_open() && reopened.rollout == 9);
}

#[test]
fn an_aborted_or_missing_candidate_is_closed_from_the_start() {
    let aborted = Running { aborted: true, ..Running::idle(1) };
    let both = snapshot(vec![(service("a", 1, Some(("v2", 1))), aborted), (service("b", 1, None), Running::idle(2))]);
    assert!(registry().resolve(&both, &HashMap::new()).iter().all(|live| !live.is_candidate_open()));
}

#[test]
fn an_endpoint_is_forgotten_once_it_left_and_nobody_uses_it() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 2, None), Running::idle(0))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    let new = snapshot(vec![(service("web", 1, None), Running::idle(0))]);
    let new_live = registry.resolve(&new, &before(&old, &old_live));
    registry.sweep(&new_live, crate::clock::now());
    assert!(old_live[0].stable[1].is_removed() && !old_live[0].stable[0].is_removed());
    assert_eq!(registry.endpoints().len(), 2, "still used by the old snapshot");
    drop(old_live);
    registry.sweep(&new_live, crate::clock::now());
    assert_eq!(registry.endpoints().len(), 1);
}
