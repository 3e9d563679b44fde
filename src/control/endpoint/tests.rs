//! What may be drained, and what it does.

use std::sync::Arc;

use super::*;
use crate::control::fake;
use crate::core::endpoint::{Declared, Place, Pool};
use crate::core::health::Readiness;
use crate::core::id::Version;
use crate::core::roles::{self, Ask};
use crate::core::service::Service;
use crate::state::fixture::{all_ready, service};

const STABLE: [&str; 2] = ["127.0.0.1:8000", "127.0.0.1:8001"];

async fn bench(stable: u16) -> fake::Bench {
    let bench = fake::start(fake::settings(vec![service("web", stable, Some(("v2", 1)))])).await;
    all_ready(&bench.current.load().live);
    bench
}

async fn ask(
    bench: &fake::Bench,
    verb: Verb,
    endpoint: &str,
    force: bool,
    why: Option<&str>,
) -> Result<Drained, Refused> {
    bench.handle.endpoint(verb, ("web", endpoint), force, "test", why.map(str::to_owned)).await
}

fn live(bench: &fake::Bench) -> Arc<ServiceLive> {
    Arc::clone(&bench.current.load().live[0])
}

#[tokio::test]
async fn a_drain_is_carried_out_told_and_taken_back() {
    let bench = bench(2).await;
    let before = bench.handle.events(100).len();
    let drained = ask(&bench, Verb::Drain, STABLE[0], false, Some("new disk")).await.expect("drained");
    assert!(drained.drained && drained.settled && drained.since_ms.is_some(), "{drained:?}");
    assert!(!live(&bench).stable[0].is_usable() && live(&bench).stable[0].is_leaving());
    let again = ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("it is so already");
    assert_eq!(again, drained);
    let events = bench.handle.events(100);
    assert_eq!(events.len(), before + 1, "an event for what changed alone");
    let event = &events[before];
    assert_eq!((event.what, event.detail.as_deref()), (What::EndpointDrained, Some("v1 127.0.0.1:8000: new disk")));
    let back = ask(&bench, Verb::Undrain, STABLE[0], false, None).await.expect("undrained");
    assert!(!back.drained && back.since_ms.is_none() && live(&bench).stable[0].is_usable());
}

#[tokio::test]
async fn a_drain_outlives_reloads() {
    let bench = bench(2).await;
    ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("drained");
    bench.write(fake::settings(vec![service("web", 3, Some(("v2", 1)))]));
    bench.handle.reload("test").await.expect("applied");
    assert!(live(&bench).stable[0].conduct.is_drained() && live(&bench).stable.len() == 3);
}

/// `web` with a candidate that has so many endpoints at the places of stable.
fn with_candidate(version: &str, count: u16) -> Arc<Service> {
    let service = service("web", 2, None);
    let candidate = Pool { version: Version::new(version).expect("a version"), ..Pool::clone(&service.stable) };
    let candidate = Pool::fixed(candidate.version, None, candidate.endpoints[..usize::from(count)].to_vec());
    Arc::new(Service { candidate: Some(Arc::new(candidate)), ..Service::clone(&service) })
}

/// Releases `version` at the places of stable; what was told of the file comes back.
async fn release(bench: &fake::Bench, version: &str, count: u16) -> Vec<String> {
    bench.write(fake::settings(vec![with_candidate(version, count)]));
    let told = bench.handle.reload("test").await.expect("applied").changes;
    all_ready(&bench.current.load().live);
    let promote = roles::Verb::Promote { full: true, force: true };
    let ask = Ask { reason: Some("a test".to_owned()), ..Ask::of(promote, "test") };
    let stable = bench.handle.obey("web", ask).await.expect("promoted").stable;
    assert_eq!(stable.as_str(), version);
    told
}

#[tokio::test]
async fn a_drain_outlives_a_release_at_the_same_place_unless_nobody_was_left() {
    let bench = fake::start(fake::settings(vec![service("web", 2, None)])).await;
    all_ready(&bench.current.load().live);
    let drained = ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("drained");
    let told = release(&bench, "v2", 2).await;
    assert_eq!(told[1..], ["services.web: 127.0.0.1:8000 stays drained, as version v2"], "{told:?}");
    let pool = live(&bench);
    assert_eq!(pool.stable[0].key.version.as_str(), "v2");
    assert_eq!(
        (pool.stable[0].conduct.drained_since_ms(), pool.stable[1].conduct.is_drained()),
        (drained.since_ms, false)
    );
    // What is taken back is taken back of the version that is kept to go back to, too, and not done again by the next reload.
    ask(&bench, Verb::Undrain, STABLE[0], false, None).await.expect("undrained");
    assert!(!live(&bench).stable[0].conduct.is_drained() && !live(&bench).warm[0].conduct.is_drained());
    release(&bench, "v3", 2).await;
    assert!(live(&bench).stable.iter().all(|endpoint| !endpoint.conduct.is_drained()));
    ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("drained");
    let told = release(&bench, "v4", 1).await;
    assert_eq!(told[1..], ["services.web: 127.0.0.1:8000 stays drained, as version v4"], "{told:?}");
    assert!(!live(&bench).stable[0].conduct.is_drained(), "nobody else is stable");
    let events = bench.handle.events(10);
    let event = events.iter().rfind(|event| event.what == What::EndpointUndrained).expect("it is said");
    let expected = "127.0.0.1:8000 is drained no more, version v4 would have nobody else";
    assert_eq!(event.detail.as_deref(), Some(expected));
}

#[tokio::test]
async fn a_candidate_at_a_drained_place_is_drained_too() {
    let bench = fake::start(fake::settings(vec![service("web", 2, None)])).await;
    all_ready(&bench.current.load().live);
    ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("drained");
    bench.write(fake::settings(vec![with_candidate("v2", 1)]));
    let told = bench.handle.reload("test").await.expect("applied").changes;
    assert_eq!(told[1..], ["services.web: 127.0.0.1:8000 stays drained, as version v2"], "{told:?}");
    assert!(live(&bench).candidate[0].conduct.is_drained());
    let events = bench.handle.events(2);
    assert_eq!(events[1].what, What::RolloutStart);
    assert!(events[0].detail.as_deref().is_some_and(|detail| detail.contains("stays drained")), "{events:?}");
    // One that a command begins, too.
    let with = roles::StartWith {
        version: Version::new("v3").expect("a version"),
        digest: None,
        endpoints: live(&bench)
            .stable
            .iter()
            .map(|e| Declared { place: Place::Fixed(e.key.address.clone()), weight: 1 })
            .collect(),
        terms: None,
        supersede: true,
    };
    bench.handle.obey("web", Ask::of(roles::Verb::Start(with), "test")).await.expect("begun");
    let drained: Vec<_> = live(&bench).candidate.iter().map(|e| e.conduct.is_drained()).collect();
    assert_eq!(drained, [true, false]);
}

#[tokio::test]
async fn the_last_usable_endpoint_of_stable_needs_force_and_force_a_reason() {
    let bench = bench(2).await;
    ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect("one is left");
    let refused = ask(&bench, Verb::Drain, STABLE[1], false, Some("why")).await.expect_err("the last");
    assert!(matches!(refused, Refused::LastEndpoint { .. }));
    assert!(refused.to_string().contains("127.0.0.1:8001 is the last usable endpoint of stable"), "{refused}");
    for why in [None, Some(" ")] {
        let refused = ask(&bench, Verb::Drain, STABLE[1], true, why).await.expect_err("no reason");
        assert_eq!(refused, Refused::ForceWithoutReason);
    }
    assert!(live(&bench).stable[1].is_usable(), "nothing changed");
    ask(&bench, Verb::Drain, STABLE[1], true, Some("why")).await.expect("forced");
    assert!(!live(&bench).stable[1].is_usable());
    ask(&bench, Verb::Drain, "127.0.0.1:9000", false, None).await.expect("a candidate has stable behind it");
}

#[tokio::test]
async fn one_that_is_not_usable_and_serves_at_most_in_panic_is_not_taken_either() {
    let bench = bench(2).await;
    live(&bench).stable[1].health.set_readiness(Readiness::NotReady);
    ask(&bench, Verb::Drain, STABLE[1], false, None).await.expect("it never served");
    live(&bench).stable[0].health.set_readiness(Readiness::Lost);
    ask(&bench, Verb::Drain, STABLE[0], false, None).await.expect_err("the last that ever passed");
}

#[tokio::test]
async fn unknown_names_are_refused_with_those_there_are() {
    let bench = bench(2).await;
    let refused = ask(&bench, Verb::Drain, "127.0.0.1:1", false, None).await.expect_err("unknown").to_string();
    assert!(refused.contains("no endpoint \"127.0.0.1:1\"; there are: 127.0.0.1:8000, 127.0.0.1:8001, 127.0.0.1:9000"));
    let place = ("api", STABLE[0]);
    let refused = bench.handle.endpoint(Verb::Drain, place, false, "test", None).await.expect_err("unknown");
    assert!(matches!(refused, Refused::UnknownService { .. }));
}
