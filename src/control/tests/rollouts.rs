//! Rollouts against a fake store and a fake gate: what is written when, what time brings, what a restart finds.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::super::fake::{self, Bench, FakeStore, lock, open_with, settings, start};
use super::super::gate::Seen;
use super::super::journal::What;
use super::super::past::Past;
use super::percent;
use crate::control::answer::Refused;
use crate::core::health::Readiness;
use crate::core::id::Variant;
use crate::core::roles::{Ask, Verb};
use crate::core::rollout::wanted::OnEmptyStore;
use crate::core::rollout::{Counts, Step, Verdict};
use crate::core::service::Service;
use crate::core::weight::Weight;
use crate::state::current::Routing;
use crate::state::fixture;
use std::sync::Arc;

/// Longest wait, in ticks.
const TICKS_MAX: usize = 200;

/// `web` with stable v1 and candidate v2, whose rollout begins with the process: 5 %, half, all, without holds.
fn quick() -> Arc<Service> {
    let mut service = Service::clone(&fixture::service("web", 1, Some(("v2", 1))));
    let wanted = Arc::make_mut(&mut service.rollout);
    wanted.on_empty_store = OnEmptyStore::Start;
    let step = |percent, min_requests| Step { min_requests, ..Step::new(Weight::of_percent(percent), Duration::ZERO) };
    wanted.terms.plan.steps = vec![step(5, 0), step(50, 10), step(100, 0)];
    Arc::new(service)
}

fn ready(bench: &Bench) {
    fixture::all_ready(&bench.current.load().live);
}

fn see(bench: &Bench, verdict: Verdict, requests: u64) {
    let counts = Counts { requests, bad: 0, good: requests };
    let seen = Seen { verdict, ..Seen::nothing(counts) };
    lock(&bench.gates.said).seen = vec![(0, seen)];
}

fn phase(bench: &Bench) -> String {
    let progress = bench.handle.service("web").expect("web").1.progress.expect("a rollout");
    match progress.reason {
        Some(reason) => format!("{}({reason})", progress.phase),
        None => progress.phase.to_owned(),
    }
}

/// Looks at every tick, as long as a test may take, until `there` says so.
async fn eventually(bench: &Bench, what: &str, there: impl Fn() -> bool) {
    for _ in 0..TICKS_MAX {
        if there() {
            return;
        }
        bench.gates.tick(1).await;
    }
    panic!("{} and not {what}", phase(bench));
}

async fn until(bench: &Bench, wanted: &str) {
    eventually(bench, wanted, || phase(bench) == wanted).await;
}

async fn at_weight(bench: &Bench, weight: &str) {
    eventually(bench, weight, || bench.handle.service("web").expect("web").1.weight == percent(weight)).await;
}

fn asking(verb: Verb) -> Ask {
    Ask { reason: Some("a test".to_owned()), ..Ask::of(verb, "ci") }
}

#[tokio::test]
async fn time_walks_a_rollout_up_and_the_old_stable_stays_warm() {
    let bench = start(settings(vec![quick()])).await;
    assert_eq!(phase(&bench), "verifying");
    let (v1, v2) = {
        let live = &bench.current.load().live[0];
        (Arc::clone(&live.stable[0]), Arc::clone(&live.candidate[0]))
    };
    ready(&bench);
    at_weight(&bench, "50%").await;
    assert_eq!(bench.gates.take_asked(), ["begin web 1", "step web 0", "step web 0", "step web 1"]);
    bench.gates.tick(4).await;
    assert_eq!(phase(&bench), "progressing", "nobody has seen its requests");
    see(&bench, Verdict::Open, 10);
    until(&bench, "succeeded").await;
    let live = Arc::clone(&bench.current.load().live[0]);
    assert!(
        live.stable[0].slot == v2.slot && Arc::ptr_eq(&live.warm[0], &v1),
        "roles are swapped, nothing is made anew"
    );
    assert!(live.candidate.is_empty() && !v1.is_removed());
    let status = bench.handle.service("web").expect("web").1;
    assert_eq!(status.stable.version.as_str(), "v2");
    assert_eq!(status.warm.expect("warm").version.as_str(), "v1");
    assert_eq!(status.differences, ["file is behind: stable is v2, the file says v1"]);
    assert_eq!(bench.gates.take_asked(), ["step web 2", "report web"]);
    assert_eq!(bench.store.verbs(), ["add", "step", "step", "step", "promote"]);
    // And back.
    let before = bench.current.load();
    let back = bench.handle.take_back("web", asking(Verb::Rollback)).await.expect("kept");
    assert_eq!((back.stable.as_str(), back.persisted), ("v1", true));
    let live = Arc::clone(&bench.current.load().live[0]);
    assert!(Arc::ptr_eq(&live.stable[0], &v1) && Arc::ptr_eq(&live.candidate[0], &v2) && !live.is_candidate_open());
    assert_eq!(phase(&bench), "rolled_back");
    let shut = |routing: &Routing, variant| routing.live[0].is_shut(variant, routing.snapshot.generation);
    assert!(shut(&before, Variant::Stable), "requests that began before begin nothing there any more");
    let now = bench.current.load();
    assert!(!shut(&now, Variant::Stable) && !shut(&now, Variant::Candidate), "those after it go by what it says");
}

#[tokio::test]
async fn harm_is_taken_back_by_itself_with_its_evidence() {
    let bench = start(settings(vec![quick()])).await;
    ready(&bench);
    at_weight(&bench, "50%").await;
    let before = bench.current.load();
    see(&bench, Verdict::Harmful { metric: "error-rate".to_owned() }, 5);
    until(&bench, "aborted(harmful)").await;
    assert!(!before.live[0].is_candidate_open(), "requests that began before see it too");
    let event = bench.handle.events(1).pop().expect("an event");
    assert_eq!((event.what, event.actor.as_str()), (What::Abort, "gate/error-rate"));
    assert_eq!((event.from.as_deref(), event.to.as_deref()), (Some("50%"), Some("0%")));
    let again = bench.handle.abort("web", "test", None).await.expect("true");
    assert!(again.persisted, "the record has landed");
    let audit = lock(&bench.store.audit).pop().expect("an entry");
    assert_eq!((audit.verb.as_str(), audit.evidence), ("abort", Some(json!({ "S": 7 }))));
    let (name, detail) = bench.handle.rollout("web", None).expect("known").expect("a rollout");
    let past = Past::load(&bench.store, &name, detail.status.id).expect("read").expect("kept");
    assert_eq!((past.evidence, detail.ended_by.as_deref()), (Some(json!({ "S": 7 })), Some("gate/error-rate")));
    let refused = bench.handle.set_weight("web", percent("5%"), "test", None).await.expect_err("quarantined");
    assert!(refused.to_string().contains("quarantined"), "{refused}");
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_what_goes_up_and_not_what_goes_back() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    *lock(&bench.store.fails) = Some(io::ErrorKind::StorageFull);
    let before = bench.current.load();
    let refused = bench.handle.set_weight("web", percent("50%"), "test", None).await.expect_err("no room");
    assert!(matches!(&refused, Refused::Store { full: true, .. }) && refused.to_string().contains("make room"));
    bench.write(settings(vec![fixture::service("web", 3, Some(("v2", 1)))]));
    let refused = bench.handle.reload("test").await.expect_err("no room");
    assert!(matches!(&refused, Refused::Store { full: true, .. }), "{refused}");
    assert!(
        Arc::ptr_eq(&before, &bench.current.load())
            && bench.handle.service("web").expect("web").1.weight == percent("5%")
    );
    let aborted = bench.handle.abort("web", "test", None).await.expect("always");
    assert_eq!((aborted.persisted, aborted.weight), (false, Weight::ZERO));
    assert!(!bench.is_open("web"));
    *lock(&bench.store.fails) = None;
    let landed = || bench.store.verbs().iter().any(|verb| verb == "abort");
    eventually(&bench, "in the store", landed).await;
    assert!(bench.handle.abort("web", "test", None).await.expect("true").persisted, "it landed by itself");
}

#[tokio::test]
async fn an_abort_overtakes_a_weight_that_the_disk_holds_up() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    bench.store.gate.shut();
    let handle = bench.handle.clone();
    let weight = tokio::spawn(async move { handle.set_weight("web", percent("50%"), "test", None).await });
    let tries = *bench.store.tries.borrow();
    bench.store.tried(tries).await;
    assert_eq!(bench.handle.service("web").expect("web").1.weight, percent("5%"), "not before it is written");
    let aborted = bench.handle.abort("web", "test", None).await.expect("always");
    assert_eq!((aborted.persisted, aborted.generation), (false, 3));
    bench.store.gate.open();
    let overtaken = weight.await.expect("no panic").expect_err("overtaken");
    assert!(matches!(&overtaken, Refused::Overtaken(_)), "{overtaken}");
    assert!(bench.handle.abort("web", "test", None).await.expect("true").persisted);
    assert_eq!(bench.store.verbs().last().map(String::as_str), Some("abort"), "what the store ends with");
    assert!(!bench.is_open("web"));
    let (again, _) = open_with(fake::web_and_api(), Arc::clone(&bench.store)).await.expect("opens");
    assert_eq!(phase(&again), "aborted(manual)");
}

#[tokio::test]
async fn an_abort_whose_caller_goes_away_is_recorded_all_the_same() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    bench.current.load().live[1].close_candidate();
    until(&bench, "aborted(manual)").await;
}

#[tokio::test]
async fn a_weight_leaves_the_service_the_very_same_value() {
    let bench = start(fake::web_and_api()).await;
    let service = || Arc::clone(&bench.current.load().snapshot.services[1].service);
    let before = service();
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    assert!(Arc::ptr_eq(&before, &service()), "connections to it are prepared by that");
}

#[tokio::test]
async fn an_abort_drops_a_retry_that_is_not_written_yet() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    bench.handle.abort("web", "test", None).await.expect("aborted");
    bench.store.gate.shut();
    let handle = bench.handle.clone();
    let retry = tokio::spawn(async move { handle.obey("web", asking(Verb::Retry(None))).await });
    let tries = *bench.store.tries.borrow();
    bench.store.tried(tries).await;
    bench.handle.abort("web", "test", None).await.expect("always");
    bench.store.gate.open();
    assert!(matches!(retry.await.expect("no panic"), Err(Refused::Overtaken(_))));
    assert!(bench.handle.abort("web", "test", None).await.expect("true").persisted);
    assert!(!bench.is_open("web"));
    let (again, _) = open_with(fake::web_and_api(), Arc::clone(&bench.store)).await.expect("opens");
    assert_eq!(phase(&again), "aborted(manual)", "the store was corrected");
    assert_eq!(bench.store.verbs()[bench.store.verbs().len() - 2..], ["retry", "abort"], "and the audit");
    let event = bench.handle.events(1).pop().expect("an event");
    let detail = event.detail.as_deref().unwrap_or_default();
    assert!(event.what == What::Abort && detail.contains("candidate v2 at 0%, aborted"), "{event:?}");
}

/// Of a disk that failed nobody knows whether it has what it was given: the audit says that it never came true, once until it lands.
#[tokio::test]
async fn what_a_disk_that_fails_may_have_is_undone_in_the_audit() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    *lock(&bench.store.fails) = Some(io::ErrorKind::Other);
    for _ in 0..3 {
        bench.handle.set_weight("web", percent("50%"), "test", None).await.expect_err("it fails");
        assert_eq!(bench.handle.events(1)[0].what, What::Overtaken);
    }
    bench.write(settings(vec![fixture::service("web", 3, Some(("v2", 1)))]));
    bench.handle.reload("test").await.expect_err("it fails");
    *lock(&bench.store.fails) = None;
    let undone = || bench.store.verbs().iter().filter(|verb| *verb == "undo").count();
    eventually(&bench, "in the audit", || undone() >= 4).await;
    let audit = lock(&bench.store.audit).clone();
    let undone: Vec<_> = audit.iter().filter(|draft| draft.verb == "undo").collect();
    let about = |service: Option<&str>| undone.iter().filter(|draft| draft.service.as_deref() == service).count();
    assert_eq!((about(Some("web")), about(Some("api")), about(None)), (2, 1, 1), "{undone:?}");
}

/// Every transition is told as what it is, also when a file brought it.
#[tokio::test]
async fn what_a_file_begins_and_ends_is_told() {
    let bench = start(settings(vec![fixture::service("web", 1, None)])).await;
    let told = |since: usize| {
        let events = bench.handle.events(100).into_iter().skip(since);
        events.filter(|event| event.service.is_some()).map(|event| (event.what, event.actor)).collect::<Vec<_>>()
    };
    let candidate = |version| {
        let mut service = Service::clone(&quick());
        service.candidate.clone_from(&fixture::service("web", 1, Some((version, 1))).candidate);
        settings(vec![Arc::new(service)])
    };
    let files = [
        (candidate("v2"), Some(What::RolloutStart)),
        (candidate("v3"), Some(What::RolloutStart)),
        (settings(vec![fixture::service("web", 1, None)]), Some(What::Supersede)),
        (settings(vec![fixture::service("web", 2, None)]), None),
        (candidate("v4"), Some(What::RolloutStart)),
        (settings(vec![fixture::service("api", 1, None)]), Some(What::Abort)),
    ];
    for (file, expected) in files {
        let since = bench.handle.events(100).len();
        bench.write(file);
        bench.handle.reload("test").await.expect("applied");
        let expected: Vec<_> = expected.map(|what| (what, "file".to_owned())).into_iter().collect();
        assert_eq!(told(since), expected);
    }
}

#[tokio::test]
async fn a_store_that_fails_lets_no_rollout_go_on_until_it_does_not() {
    let bench = start(settings(vec![quick()])).await;
    *lock(&bench.store.fails) = Some(io::ErrorKind::Other);
    ready(&bench);
    eventually(&bench, "told", || bench.handle.events(1)[0].what == What::StoreFailed).await;
    assert_eq!((bench.handle.events(1)[0].what, phase(&bench).as_str()), (What::StoreFailed, "verifying"));
    *lock(&bench.store.fails) = None;
    at_weight(&bench, "50%").await;
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_and_the_third_waits_for_somebody() {
    let store: Arc<FakeStore> = Arc::default();
    let (bench, control) = open_with(settings(vec![quick()]), Arc::clone(&store)).await.expect("opens");
    let running = tokio::spawn(control.run());
    ready(&bench);
    at_weight(&bench, "50%").await;
    running.abort();
    // Cancelled: the ledger has ended, too, and everything has landed.
    running.await.expect_err("cancelled");
    for phase_after in ["progressing", "progressing", "paused(restarts)"] {
        let (again, control) = open_with(settings(vec![quick()]), Arc::clone(&store)).await.expect("opens");
        assert_eq!(
            (phase(&again).as_str(), again.handle.service("web").expect("web").1.weight),
            (phase_after, percent("50%"))
        );
        assert!(again.current.load().live[0].stable.iter().all(|e| e.health.readiness() == Readiness::Unknown));
        assert_eq!(again.gates.take_asked(), ["begin web 1", "step web 1"]);
        drop(control);
    }
}

/// Neither a file nor a restart makes a version unknown that was taken back.
#[tokio::test]
async fn a_service_that_leaves_and_comes_back_is_remembered() {
    let api = || fixture::service("api", 1, None);
    let with = |digest: &str| {
        let mut web = Service::clone(&quick());
        let candidate = web.candidate.as_mut().expect("v2");
        Arc::make_mut(candidate).digest = Some(digest.to_owned());
        settings(vec![api(), Arc::new(web)])
    };
    let store: Arc<FakeStore> = Arc::default();
    let (bench, control) = open_with(with("sha256:1"), Arc::clone(&store)).await.expect("opens");
    let running = tokio::spawn(control.run());
    bench.handle.abort("web", "test", None).await.expect("aborted");
    assert_eq!(phase(&bench), "aborted(manual)");
    for stays_away in [false, true] {
        bench.write(settings(vec![api()]));
        bench.handle.reload("test").await.expect("web is gone");
        if stays_away {
            break;
        }
        bench.write(with("sha256:2"));
        let other = bench.handle.reload("test").await.expect_err("another build");
        assert!(format!("{other:?}").contains("version v2 has digest sha256:1"), "{other:?}");
        bench.write(with("sha256:1"));
        let back = bench.handle.reload("test").await.expect("back").changes;
        assert!(back.iter().any(|change| change.contains("v2 is quarantined since rollout 1")), "{back:?}");
        let status = bench.handle.service("web").expect("web").1;
        assert!(status.progress.is_none() && status.quarantined.len() == 1, "it waits");
        assert!(Past::load(&bench.store, &quick().name, 1).expect("read").is_some(), "with what became of it");
    }
    running.abort();
    running.await.expect_err("cancelled");
    // It comes back while nobody looks.
    let (again, control) = open_with(with("sha256:1"), Arc::clone(&store)).await.expect("opens");
    let status = again.handle.service("web").expect("web").1;
    assert!(status.progress.is_none() && status.quarantined.len() == 1, "it waits");
    tokio::spawn(control.run());
    let retried = again.handle.obey("web", asking(Verb::Retry(None))).await.expect("with a reason");
    assert_eq!(retried.rollout.expect("one").version.as_str(), "v2");
}

#[tokio::test]
async fn a_store_nobody_understands_stops_the_start() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    bench.store.spoil("web");
    let refused = open_with(fake::web_and_api(), Arc::clone(&bench.store)).await.err().expect("refused").to_string();
    assert!(refused.contains("\"web\"") && refused.contains("move the store away"), "{refused}");
}
