//! Control against a fake data plane.

mod gates;
mod landing;
mod past;
mod rollouts;
mod storing;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::answer::{Outcome, Problem, Refused};
use super::fake::{Bench, lock, open, settings, start, web_and_api};
use super::handle::Abort;
use super::journal::{EVENTS_MAX, ReloadCounts, What};
use super::reload::Source;
use super::status::{EVENTS_SHOWN_MAX, State};
use crate::core::roles::{self, Ask, Verb};
use crate::core::weight::Weight;
use crate::state::fixture::service;

fn percent(text: &str) -> Weight {
    Weight::parse(text).expect("weight")
}

async fn set(bench: &Bench, weight: &str) -> u64 {
    bench.handle.set_weight("web", percent(weight), "test", None).await.expect("applied").generation
}

#[tokio::test]
async fn a_weight_is_published_before_it_is_answered() {
    let bench = start(web_and_api()).await;
    let before = bench.current.load();
    let applied = bench.handle.set_weight("web", percent("5%"), "test", None).await.expect("applied");
    assert_eq!((applied.generation, applied.weight, applied.state), (2, percent("5%"), State::Splitting));
    let routing = bench.current.load();
    let (_, web) = routing.snapshot.service("web").expect("web");
    assert_eq!((routing.snapshot.generation, web.running.weight), (2, percent("5%")));
    assert!(Arc::ptr_eq(&before.snapshot.routes, &routing.snapshot.routes), "routes are not indexed again");
    // The same again is true already.
    assert_eq!(set(&bench, "5%").await, 2);
}

#[tokio::test]
async fn an_abort_closes_first_and_answers_after_every_worker_settled() {
    let bench = start(web_and_api()).await;
    set(&bench, "50%").await;
    let before = bench.current.load();
    bench.plane.settles.send_replace(false);
    bench.plane.take_calls();
    let mut abort = Box::pin(bench.handle.abort("web", "test", Some("errors".to_owned())));
    // The first poll throws the switch, before the writer has run at all: this runtime has one thread.
    assert!(poll_once(abort.as_mut()).is_none());
    assert!(!bench.is_open("web"));
    assert_eq!(bench.current.load().snapshot.generation, 2, "not published yet");
    tokio::select! {
        _ = &mut abort => panic!("answered before the workers settled"),
        () = bench.plane.settling.notified() => {}
    }
    let routing = bench.current.load();
    let running = routing.snapshot.service("web").expect("web").1.running.clone();
    assert_eq!((routing.snapshot.generation, running.weight, running.aborted), (3, Weight::ZERO, true));
    assert!(poll_once(abort.as_mut()).is_none(), "answers only once settled");
    bench.plane.settles.send_replace(true);
    let aborted = abort.await.expect("aborted");
    assert_eq!((aborted.generation, aborted.weight, aborted.settled), (3, Weight::ZERO, true));
    assert_eq!(bench.plane.take_calls(), ["settled"]);
    assert!(before.live.iter().all(|live| !live.is_candidate_open()), "requests that began before see it too");
}

/// Polls once; what is ready comes back.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn an_abort_closes_the_candidate_of_now_even_if_it_was_another_one_when_it_was_asked_for() {
    let bench = start(web_and_api()).await;
    let (reply, answer) = tokio::sync::oneshot::channel();
    // As if a reload had come between the handle, which threw the switch of the candidate of then, and the writer.
    let abort = Abort { service: "web".to_owned(), ask: Ask::of(Verb::Abort, "test"), reply };
    assert!(bench.handle.aborts.send(abort).await.is_ok());
    assert_eq!(answer.await.expect("answered").expect("aborted").0.state, State::Aborted);
    assert!(!bench.is_open("web"));
}

#[tokio::test]
async fn an_abort_overtakes_waiting_weights() {
    let (bench, control) = open(web_and_api()).await.expect("opens");
    let mut weight = Box::pin(bench.handle.set_weight("web", percent("5%"), "test", None));
    assert!(poll_once(weight.as_mut()).is_none());
    let mut abort = Box::pin(bench.handle.abort("web", "test", None));
    assert!(poll_once(abort.as_mut()).is_none());
    tokio::spawn(control.run());
    assert_eq!(abort.await.expect("aborted").generation, 2);
    let late = weight.await.expect_err("a weight that comes after an abort does not undo it");
    assert!(matches!(&late, Refused::State { why: roles::Refused::Quarantined(_), .. }), "{late}");
    assert!(!bench.is_open("web"));
}

#[tokio::test]
async fn an_abort_does_not_wait_for_a_reload_that_hangs_and_survives_it() {
    let bench = start(web_and_api()).await;
    set(&bench, "50%").await;
    bench.plane.prepare_gate.shut();
    bench.write(settings(vec![service("web", 4, Some(("v2", 3)))]));
    let handle = bench.handle.clone();
    let reload = tokio::spawn(async move { handle.reload("file").await });
    // `open` left one permit behind for its own prepare.
    bench.plane.preparing.notified().await;
    bench.plane.preparing.notified().await;
    let aborted = bench.handle.abort("web", "test", None).await.expect("aborted");
    assert_eq!((aborted.generation, aborted.settled), (3, true));
    assert!(!reload.is_finished());
    let old = bench.current.load();
    bench.plane.prepare_gate.open();
    let reloaded = reload.await.expect("no panic").expect("applied");
    assert_eq!((reloaded.outcome, reloaded.generation), (Outcome::Applied, 4));
    assert!(!bench.is_open("web"));
    assert_eq!(bench.handle.service("web").expect("web").1.state, State::Aborted);
    assert_eq!(bench.current.load().live[0].candidate.len(), 3);
    assert!(!old.live[1].is_candidate_open());
}

#[tokio::test]
async fn an_abort_is_idempotent_and_true_without_a_candidate() {
    let bench = start(web_and_api()).await;
    let first = bench.handle.abort("web", "test", None).await.expect("aborted");
    let second = bench.handle.abort("web", "test", None).await.expect("aborted");
    assert_eq!(first, second);
    assert_eq!(bench.handle.events(EVENTS_MAX).iter().filter(|e| e.what == What::Abort).count(), 1);
    let none = bench.handle.abort("api", "test", None).await.expect("true");
    assert_eq!((none.generation, none.weight, none.state, none.settled), (2, Weight::ZERO, State::Idle, true));
    bench.plane.all_settle.store(false, Ordering::Relaxed);
    assert!(!bench.handle.abort("web", "test", None).await.expect("aborted").settled);
}

#[tokio::test]
async fn only_a_retry_reopens_after_an_abort_as_another_rollout_with_a_switch_of_its_own() {
    let bench = start(web_and_api()).await;
    set(&bench, "50%").await;
    let before = bench.current.load();
    bench.handle.abort("web", "test", None).await.expect("aborted");
    assert_eq!(set(&bench, "0%").await, 3, "zero does not reopen");
    assert!(!bench.is_open("web"));
    let reason = Some("it was the database".to_owned());
    let refused = bench.handle.set_weight("web", percent("5%"), "test", reason.clone()).await.expect_err("refused");
    assert!(refused.to_string().contains("quarantined"), "{refused}");
    let again = bench.handle.obey("web", Ask { reason, ..Ask::of(Verb::Retry(None), "test") }).await.expect("applied");
    assert_eq!(again.generation, 4);
    assert!(bench.is_open("web") && !before.live[1].is_candidate_open());
    let routing = bench.current.load();
    let (old, new) = (&before.snapshot.services[1], &routing.snapshot.services[1]);
    assert_ne!(old.running.rollout, new.running.rollout);
    assert_ne!(old.salt, new.salt, "other users go first");
}

#[tokio::test]
async fn refusals_change_nothing_and_say_why() {
    let bench = start(web_and_api()).await;
    let refused = bench.handle.set_weight("api", percent("5%"), "test", None).await.expect_err("no candidate");
    assert!(matches!(refused, Refused::State { why: roles::Refused::NoRollout, .. }));
    let unknown = bench.handle.set_weight("wbe", percent("5%"), "test", None).await.expect_err("unknown");
    assert_eq!(unknown.to_string(), "there is no service \"wbe\"; there are: api, web");
    assert_eq!(bench.handle.abort("wbe", "test", None).await.expect_err("unknown"), unknown);
    assert_eq!(bench.handle.service("wbe").expect_err("unknown"), unknown);
    assert_eq!(bench.current.load().snapshot.generation, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_weights_at_once_each_has_its_generation_and_the_last_wins() {
    let bench = start(web_and_api()).await;
    let tasks: Vec<_> = (1..=1_000_u16)
        .map(|grains| {
            let (handle, weight) = (bench.handle.clone(), Weight::from_grains(grains).expect("weight"));
            tokio::spawn(async move { handle.set_weight("web", weight, "test", None).await.expect("applied") })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("no panic"));
    }
    answers.sort_by_key(|answer| answer.generation);
    let generations: Vec<u64> = answers.iter().map(|answer| answer.generation).collect();
    assert_eq!(generations, (2..=1_001).collect::<Vec<_>>());
    let routing = bench.current.load();
    let last = answers.last().expect("one");
    assert_eq!((routing.snapshot.generation, routing.snapshot.services[1].running.weight), (1_001, last.weight));
    let events = bench.handle.events(usize::MAX);
    assert!(events.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq && pair[0].generation < pair[1].generation));
}

#[tokio::test]
async fn a_reload_binds_publishes_accepts_settles_and_answers() {
    let bench = start(web_and_api()).await;
    set(&bench, "5%").await;
    bench.plane.take_calls();
    let mut wanted = settings(vec![service("new", 1, None), service("web", 1, Some(("v2", 2)))]);
    wanted.runtime.workers = 2;
    bench.write(wanted);
    let reloaded = bench.handle.reload("file").await.expect("applied");
    assert_eq!((reloaded.outcome, reloaded.generation, reloaded.settled), (Outcome::Applied, 3, true));
    assert_eq!(reloaded.needs_restart, ["[runtime]"]);
    assert!(reloaded.changes.contains(&"services.new: added with stable v1".to_owned()), "{:?}", reloaded.changes);
    assert_eq!(bench.plane.take_calls(), ["prepare", "commit", "settled"]);
    assert_eq!(*lock(&bench.told), [2]);
    let status = bench.handle.status();
    assert_eq!(status.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["new", "web"]);
    assert_eq!(status.services[1].weight, percent("5%"), "a reload never changes a rollout in flight");
    assert_eq!(
        (status.listeners[0].bound.as_str(), status.config.needs_restart),
        ("127.0.0.1:40001", vec!["[runtime]"])
    );
    assert_eq!(bench.registry.endpoints().iter().filter(|e| e.key.service.as_str() == "api").count(), 0);
    // The same again.
    let again = bench.handle.reload("file").await.expect("true");
    assert_eq!((again.outcome, again.generation, again.needs_restart), (Outcome::Unchanged, 3, vec!["[runtime]"]));
    assert!(bench.plane.take_calls().is_empty());
}

#[tokio::test]
async fn a_reload_that_leaves_routes_and_names_alone_indexes_nothing() {
    let bench = start(web_and_api()).await;
    let routes = || Arc::clone(&bench.current.load().snapshot.routes);
    let first = routes();
    let apply = async |wanted| {
        bench.write(wanted);
        assert_eq!(bench.handle.reload("file").await.expect("applied").outcome, Outcome::Applied);
    };
    apply(settings(vec![service("api", 2, None), service("web", 3, Some(("v3", 1)))])).await;
    assert!(Arc::ptr_eq(&first, &routes()), "endpoints are no part of it");
    // The same routes, but the indices of their services are others.
    let mut more = web_and_api();
    more.services.insert(1, service("more", 1, None));
    apply(more).await;
    let second = routes();
    assert!(!Arc::ptr_eq(&first, &second));
    let mut other = settings(vec![service("api", 1, None), service("more", 1, None), service("web", 1, None)]);
    other.routes.truncate(1);
    apply(other).await;
    assert!(!Arc::ptr_eq(&second, &routes()));
}

#[tokio::test]
async fn what_a_reload_replaced_is_held_until_the_workers_settled_and_no_longer() {
    let bench = start(web_and_api()).await;
    let replaced = Arc::downgrade(&bench.current.load());
    bench.plane.settles.send_replace(false);
    bench.write(settings(vec![service("web", 1, None)]));
    let handle = bench.handle.clone();
    let reload = tokio::spawn(async move { handle.reload("file").await });
    bench.plane.settling.notified().await;
    assert_eq!(bench.current.load().snapshot.generation, 2);
    assert!(replaced.upgrade().is_some(), "a worker would be the one that frees it");
    bench.plane.settles.send_replace(true);
    assert!(reload.await.expect("no panic").expect("applied").settled);
    assert!(replaced.upgrade().is_none());
}

#[tokio::test]
async fn a_refused_reload_changes_nothing_and_is_remembered() {
    let bench = start(web_and_api()).await;
    let before = bench.current.load();
    let check = async |what: &str, message: &str| {
        let refused = bench.handle.reload("file").await.expect_err(what);
        assert!(refused.to_string().contains(message), "{refused}");
        assert!(Arc::ptr_eq(&before, &bench.current.load()), "{what}: nothing is published");
        let last = bench.handle.last_reload();
        assert_eq!((last.ok, last.outcome, last.errors.is_empty()), (false, Outcome::Refused, false), "{what}");
        assert_eq!(bench.handle.events(1)[0].what, What::ReloadRefused);
        assert!(
            bench.handle.settings().services.len() == 2 && !bench.plane.take_calls().contains(&"commit".to_owned())
        );
    };
    bench.plane.take_calls();
    *lock(&bench.file) = Err(vec![Problem::of("a.b: no such key".to_owned()), Problem::of("c: too long".to_owned())]);
    check("bad file", "no such key\nc: too long").await;
    bench.write(settings(vec![service("web", 1, Some(("v1", 1)))]));
    check("bad plan", "both version v1").await;
    let mut dangling = web_and_api();
    dangling.services.remove(0);
    bench.write(dangling);
    check("dangling route", "there is no service \"api\"").await;
    *lock(&bench.plane.prepare_error) = Some("listeners.public: address in use".to_owned());
    bench.write(settings(vec![service("other", 1, None)]));
    check("listener", "address in use").await;
    *lock(&bench.plane.prepare_error) = None;
    *lock(&bench.refusal) = Some("log.access.path: no such directory".to_owned());
    check("access log", "log.access.path").await;
    assert!(lock(&bench.told).is_empty(), "nobody takes over what is refused");
    *lock(&bench.refusal) = None;
    // Back to what is in force: fine again, nothing to do.
    bench.write(web_and_api());
    assert_eq!(bench.handle.reload("file").await.expect("true").outcome, Outcome::Unchanged);
    assert!(bench.handle.last_reload().ok);
    assert_eq!(bench.handle.reload_counts(), ReloadCounts { applied: 0, unchanged: 1, refused: 5 });
}

#[tokio::test]
async fn a_reload_that_supersedes_a_candidate_shuts_the_old_one_for_requests_under_way() {
    let bench = start(web_and_api()).await;
    set(&bench, "50%").await;
    let before = bench.current.load();
    bench.write(settings(vec![service("web", 2, Some(("v3", 1)))]));
    bench.handle.reload("file").await.expect("applied");
    assert!(!before.live[1].is_candidate_open() && bench.is_open("web"));
    bench.write(settings(vec![service("other", 2, None)]));
    let gone = bench.current.load();
    bench.handle.reload("file").await.expect("applied");
    assert!(!gone.live[0].is_candidate_open());
}

#[tokio::test]
async fn a_limit_of_a_listener_alone_is_a_change_and_moves_no_traffic() {
    let bench = start(web_and_api()).await;
    set(&bench, "5%").await;
    let mut wanted = web_and_api();
    wanted.listeners[0].limits.max_fields += 1;
    bench.write(wanted);
    let reloaded = bench.handle.reload("file").await.expect("applied");
    assert_eq!((reloaded.outcome, reloaded.generation, reloaded.changes.len()), (Outcome::Applied, 3, 0));
    assert_eq!(bench.current.load().snapshot.services[1].running.weight, percent("5%"));
    assert!(bench.is_open("web"));
}

#[tokio::test]
async fn reloads_that_wait_share_a_look_and_too_many_are_refused() {
    let bench = start(web_and_api()).await;
    bench.plane.preparing.notified().await;
    bench.plane.prepare_gate.shut();
    bench.write(settings(vec![service("web", 1, None)]));
    let ask = || {
        let handle = bench.handle.clone();
        tokio::spawn(async move { handle.reload("test").await })
    };
    let first = ask();
    bench.plane.preparing.notified().await;
    let mut waiting: Vec<_> = (0..super::handle::RELOADS_MAX).map(|_| Box::pin(bench.handle.reload("test"))).collect();
    assert!(waiting.iter_mut().all(|reload| poll_once(reload.as_mut()).is_none()));
    assert_eq!(bench.handle.reload("test").await, Err(Refused::Busy("reloads")));
    bench.plane.take_calls();
    bench.plane.prepare_gate.open();
    assert_eq!(first.await.expect("no panic").expect("applied").outcome, Outcome::Applied);
    for reload in waiting {
        assert_eq!(reload.await.expect("true").outcome, Outcome::Unchanged);
    }
}

#[tokio::test]
async fn a_look_that_panics_is_a_refused_reload_and_control_lives() {
    let bench = start(web_and_api()).await;
    bench.write(settings(vec![service("web", 1, Some(("v2", 1)))]));
    *lock(&bench.plane.prepare_error) = Some("panic".to_owned());
    let refused = bench.handle.reload("test").await.expect_err("refused");
    assert!(refused.to_string().contains("ended unexpectedly"), "{refused}");
    assert_eq!(set(&bench, "5%").await, 2);
}

#[tokio::test]
async fn a_check_says_what_would_change_and_changes_nothing() {
    let bench = start(web_and_api()).await;
    bench.write(settings(vec![service("new", 1, None)]));
    let validated = bench.handle.validate(Source::Check).await.expect("valid");
    assert_eq!((validated.generation, validated.services), (1, 1));
    let expected =
        ["services.api: removed", "services.new: added with stable v1", "services.web: removed, candidate v2 aborted"];
    assert_eq!(validated.changes, expected);
    let refused = bench.handle.validate(Source::Text("x".to_owned())).await.expect_err("bad");
    assert_eq!(refused.problems()[0].line, Some(1));
    assert!(bench.handle.last_reload().ok && bench.current.load().snapshot.generation == 1);
    assert_eq!(bench.plane.take_calls(), ["prepare", "commit"], "those of the start");
}

#[tokio::test]
async fn events_are_bounded_and_a_status_shows_the_newest() {
    let bench = start(web_and_api()).await;
    for i in 0..EVENTS_MAX + 10 {
        set(&bench, if i % 2 == 0 { "5%" } else { "6%" }).await;
    }
    let events = bench.handle.events(usize::MAX);
    assert_eq!((events.len(), events.last().map(|e| e.seq)), (EVENTS_MAX, Some(EVENTS_MAX as u64 + 11)));
    let last = bench.handle.status().events;
    assert_eq!((last.len(), last.last()), (EVENTS_SHOWN_MAX, events.last()));
    assert_eq!((events[0].from.as_deref(), events[0].to.as_deref()), (Some("6%"), Some("5%")));
}

#[tokio::test]
async fn control_ends_with_its_last_handle_and_a_handle_outlives_it_with_an_error() {
    let (bench, control) = open(web_and_api()).await.expect("opens");
    let handle = bench.handle.clone();
    drop(control);
    assert_eq!(handle.reload("test").await, Err(Refused::Stopping));
    assert_eq!(handle.abort("web", "test", None).await, Err(Refused::Stopping));
    assert!(!bench.is_open("web"), "the safe direction needs no writer");
    let (Bench { handle, .. }, control) = open(web_and_api()).await.expect("opens");
    drop(handle);
    control.run().await;
}
