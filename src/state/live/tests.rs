//! The switch of a candidate outlives reloads within its rollout and never opens again.

use super::*;
use crate::core::circuit::PoolLimits;
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
    let again = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(9))]);
    let reopened = registry.resolve_one(&again.services[0], Some(&old_live[0]));
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

fn changed(
    registry: &Registry,
    before_live: &[Arc<ServiceLive>],
    old: &Snapshot,
    new: &Snapshot,
) -> Vec<Arc<ServiceLive>> {
    let live = registry.resolve(new, &before(old, before_live));
    registry.sweep(&live, crate::clock::now());
    live
}

/// What was the candidate is the same endpoint as stable, and what was stable stays as it is, to go back to.
#[test]
fn a_promotion_and_its_rollback_swap_roles_and_nothing_else() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    crate::state::fixture::all_ready(&old_live);
    let (v1, v2) = (&old_live[0].stable[0], &old_live[0].candidate[0]);
    let limits = PoolLimits::default();
    let begun = [v1, v2].map(|endpoint| InFlight::begin(Arc::clone(endpoint), &limits).expect("room"));
    let mut promoted = crate::core::service::Service::clone(&old.services[0].service);
    let before = std::mem::replace(&mut promoted.stable, promoted.candidate.take().expect("one"));
    let promoted = ActiveService::new(Arc::new(promoted), Running::idle(7)).with_warm(Some(before));
    let new = Snapshot::build(2, &[], vec![promoted]).expect("no routes");
    let live = changed(&registry, &old_live, &old, &new);
    let stable = &live[0].stable[0];
    assert_eq!((stable.slot, stable.in_flight(), stable.variant), (v2.slot, 1, Variant::Stable));
    assert!(stable.is_ready() && stable.is_in_role() && !v2.is_in_role() && !v2.is_removed());
    assert!(Arc::ptr_eq(&stable.pool, &v2.pool) && Arc::ptr_eq(&stable.conduct, &v2.conduct));
    assert!(Arc::ptr_eq(&live[0].warm[0], v1) && !v1.is_removed() && v1.is_ready());
    let back = changed(&registry, &live, &new, &old);
    assert!(Arc::ptr_eq(&back[0].stable[0], v1) && Arc::ptr_eq(&back[0].candidate[0], v2));
    drop(begun);
    assert_eq!((v1.in_flight(), v2.in_flight(), stable.in_flight()), (0, 0, 0));
    let gone = snapshot(vec![(service("web", 1, None), Running::idle(7))]);
    let live = changed(&registry, &back, &old, &gone);
    assert!(v2.is_removed() && !live[0].stable[0].is_removed());
}

/// All endpoints of the candidate were replaced, and it is promoted before the new ones are ready: the old ones serve on, as stable.
#[test]
fn endpoints_that_stay_go_along_with_a_promotion() {
    let registry = registry();
    let web = service("web", 1, None);
    let v2 = |port: u16| {
        let endpoint = Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Pool::fixed(Version::new("v2").expect("a version"), None, vec![endpoint]))
    };
    let tried = |port| {
        let service = crate::core::service::Service { candidate: Some(v2(port)), ..Clone::clone(&*web) };
        snapshot(vec![(Arc::new(service), Running::idle(7))])
    };
    let ports = |pool: &[Arc<EndpointLive>]| pool.iter().filter_map(|e| e.key.address.port()).collect::<Vec<_>>();
    let (old, moved) = (tried(9_000), tried(9_100));
    let live = registry.resolve(&old, &HashMap::new());
    crate::state::fixture::all_ready(&live);
    let live = changed(&registry, &live, &old, &moved);
    assert_eq!((ports(&live[0].candidate), live[0].kept(Variant::Candidate)), (vec![9_100, 9_000], 1));
    let promoted = crate::core::service::Service { stable: v2(9_100), ..Clone::clone(&*web) };
    let promoted = ActiveService::new(Arc::new(promoted), Running::idle(7)).with_warm(Some(Arc::clone(&web.stable)));
    let new = Snapshot::build(2, &[], vec![promoted]).expect("no routes");
    let live = changed(&registry, &live, &moved, &new);
    assert_eq!((ports(&live[0].stable), live[0].kept(Variant::Stable)), (vec![9_100, 9_000], 1));
    assert!(live[0].stable[1].is_ready() && live[0].stable[1].variant == Variant::Stable);
    live[0].stable[0].health.set_readiness(Readiness::Ready);
    let live = changed(&registry, &live, &new, &new);
    assert_eq!((ports(&live[0].stable), live[0].kept(Variant::Stable)), (vec![9_100], 0));
}

/// Health survives a promotion: what was the candidate is the same endpoint as stable.
#[test]
fn health_goes_by_service_version_and_address_alone() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    old_live[0].candidate[0].health.set_readiness(Readiness::Ready);
    let mut promoted = crate::core::service::Service::clone(&old.services[0].service);
    (promoted.stable, promoted.candidate) = (promoted.candidate.take().expect("one"), Some(promoted.stable));
    let new = snapshot(vec![(Arc::new(promoted), Running::idle(7))]);
    let live = changed(&registry, &old_live, &old, &new);
    assert!(live[0].stable[0].is_ready() && !Arc::ptr_eq(&live[0].stable[0], &old_live[0].candidate[0]));
    assert!(Arc::ptr_eq(&live[0].stable[0].health, &old_live[0].candidate[0].health));
    assert!(!live[0].candidate[0].is_ready(), "what it replaced was never ready");
}

#[test]
fn an_endpoint_that_comes_back_has_to_be_asked_again() {
    let registry = registry();
    let (two, one) = (
        snapshot(vec![(service("web", 2, None), Running::idle(0))]),
        snapshot(vec![(service("web", 1, None), Running::idle(0))]),
    );
    let first = registry.resolve(&two, &HashMap::new());
    crate::state::fixture::all_ready(&first);
    let without = changed(&registry, &first, &two, &one);
    let again = changed(&registry, &without, &one, &two);
    assert!(Arc::ptr_eq(&again[0].stable[1], &first[0].stable[1]), "still in use, so the same");
    assert!(again[0].stable[0].is_ready() && again[0].stable[1].health.readiness() == Readiness::Unknown);
}

#[test]
fn ready_ones_stay_only_while_nobody_of_the_new_pool_is_ready() {
    let registry = registry();
    let old = snapshot(vec![(crate::state::fixture::service_at("web", 8_000, 2), Running::idle(0))]);
    let new = snapshot(vec![(crate::state::fixture::service_at("web", 8_001, 3), Running::idle(0))]);
    let ports =
        |live: &[Arc<ServiceLive>]| live[0].stable.iter().filter_map(|e| e.key.address.port()).collect::<Vec<_>>();
    let old_live = registry.resolve(&old, &HashMap::new());
    old_live[0].stable[0].health.set_readiness(Readiness::Ready);
    let live = changed(&registry, &old_live, &old, &new);
    assert_eq!(ports(&live), [8_001, 8_002, 8_003, 8_000]);
    live[0].stable[1].health.set_readiness(Readiness::Ready);
    let live = changed(&registry, &live, &new, &new);
    assert_eq!(ports(&live), [8_001, 8_002, 8_003]);
    assert!(old_live[0].stable[0].is_removed());
}

/// One that is drained or ejected is no replacement: whoever left stays until somebody takes requests.
#[test]
fn one_that_takes_no_requests_replaces_nobody() {
    use crate::core::outlier::Cause;
    use crate::state::conduct::{Conduct, Ejection};
    let drain: fn(&Conduct) = |conduct| {
        conduct.drain(crate::clock::now(), Duration::ZERO);
    };
    let eject: fn(&Conduct) = |conduct| {
        conduct.eject(Ejection { cause: Cause::Trial, fault: None, at: Duration::ZERO, lasting: Duration::MAX });
    };
    for (stop, again) in [
        (drain, (|conduct| assert!(conduct.undrain(crate::clock::now()))) as fn(&Conduct)),
        (eject, |conduct| conduct.restore(crate::clock::now())),
    ] {
        let registry = registry();
        // 8000 and 8001, then 8000 and 8002.
        let at = |ports: &[u16]| {
            let mut web = crate::core::service::Service::clone(&service("web", 1, None));
            let endpoint =
                |port: &u16| crate::core::endpoint::Endpoint::new(std::net::SocketAddr::from(([127, 0, 0, 1], *port)));
            let endpoints = ports.iter().map(endpoint).collect();
            web.stable = Arc::new(crate::core::endpoint::Pool::fixed(web.stable.version.clone(), None, endpoints));
            snapshot(vec![(Arc::new(web), Running::idle(0))])
        };
        let (old, new) = (at(&[8_000, 8_001]), at(&[8_000, 8_002]));
        let ports =
            |live: &[Arc<ServiceLive>]| live[0].stable.iter().filter_map(|e| e.key.address.port()).collect::<Vec<_>>();
        let old_live = registry.resolve(&old, &HashMap::new());
        crate::state::fixture::all_ready(&old_live);
        stop(&old_live[0].stable[0].conduct);
        let live = changed(&registry, &old_live, &old, &new);
        assert_eq!((ports(&live), live[0].kept(Variant::Stable)), (vec![8_000, 8_002, 8_001], 1));
        again(&live[0].stable[0].conduct);
        let live = changed(&registry, &live, &new, &new);
        assert_eq!((ports(&live), live[0].kept(Variant::Stable)), (vec![8_000, 8_002], 0));
        // One of two that take requests is replaced: it goes at once, whatever is known of the new one.
        let third = at(&[8_000, 8_003]);
        live[0].stable[1].health.set_readiness(Readiness::Ready);
        assert_eq!(ports(&changed(&registry, &live, &new, &third)), [8_000, 8_003]);
    }
}

#[test]
fn a_candidate_keeps_nobody_of_another_release() {
    let registry = registry();
    let old = snapshot(vec![(service("web", 1, Some(("v2", 1))), Running::idle(7))]);
    let old_live = registry.resolve(&old, &HashMap::new());
    crate::state::fixture::all_ready(&old_live);
    let new = snapshot(vec![(service("web", 1, Some(("v3", 1))), Running::idle(8))]);
    let live = changed(&registry, &old_live, &old, &new);
    assert_eq!(live[0].candidate.len(), 1);
    assert!(!live[0].candidate[0].is_ready() && old_live[0].candidate[0].is_removed());
    let none = snapshot(vec![(service("web", 1, None), Running::idle(8))]);
    assert!(changed(&registry, &live, &new, &none)[0].candidate.is_empty());
}

#[test]
fn deep_probes_are_counted_per_variant() {
    let registry = registry();
    let both = snapshot(vec![(service("web", 2, Some(("v2", 1))), Running::idle(7))]);
    let live = registry.resolve(&both, &HashMap::new());
    let probed = |probe, error: Option<&str>| crate::state::health::Probed {
        probe,
        error: error.map(str::to_owned),
        status: None,
        latency: Duration::ZERO,
        body: None,
        at: Duration::ZERO,
    };
    for endpoint in &live[0].stable {
        endpoint.probes.count(&probed(Probe::Deep, None));
        endpoint.probes.count(&probed(Probe::Readiness, Some("down")));
    }
    live[0].candidate[0].probes.count(&probed(Probe::Deep, Some("down")));
    assert_eq!(live[0].probe_failures(Variant::Stable), (2, 0));
    assert_eq!(live[0].probe_failures(Variant::Candidate), (1, 1));
}
