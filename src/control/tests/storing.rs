//! What the store is told, and what becomes of decisions while it does not answer.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::answer::{Applied, Refused};
use super::super::endpoint::EndpointCommand;
use super::super::fake::{Bench, FakeStore, lock, open_with, settings, web_and_api};
use super::super::handle::{Abort, Author, Command};
use super::super::journal::What;
use super::super::ledger;
use super::super::writer::{Asked, Control};
use super::super::writing::{WRITE_MAX, answered};
use super::percent;
use crate::clock;
use crate::control::endpoint::Verb as Drain;
use crate::core::id::Name;
use crate::core::roles::{Ask, Verb};
use crate::core::rollout::wanted::OnEmptyStore;
use crate::core::service::Service;
use crate::core::weight::Weight;
use crate::state::fixture::service;
use crate::store::audit::Draft;

/// Control whose writer the test runs itself.
struct World {
    bench: Bench,
    control: Control,
}

type Answer = oneshot::Receiver<Result<Applied, Refused>>;

fn web() -> Name {
    Name::new("web").expect("a name")
}

impl World {
    async fn new() -> Self {
        let (bench, control) = open_with(web_and_api(), Arc::default()).await.expect("opens");
        let world = Self { bench, control };
        world.landed().await;
        world
    }

    /// Everything that is owed is in the store.
    async fn landed(&self) {
        for held in self.control.desk.services() {
            self.control.ledger.landed(&held.wanted.name).await.expect("it lands");
        }
    }

    fn ask(&mut self, verb: Verb) -> Answer {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { reason: Some("a test".into()), source: "10.0.0.7:4711".into(), ..Ask::of(verb, "token ci") };
        self.control.decide(Asked { service: "web".to_owned(), expected: None, ask, landing: None, reply });
        answer
    }

    /// Takes in what the store says.
    async fn wrote(&mut self) {
        let outcome = answered(&mut self.control.writing).await;
        self.control.wrote(outcome, &mut None);
    }

    async fn weight(&mut self, weight: &str) -> Result<Applied, Refused> {
        let answer = self.ask(Verb::Weight(percent(weight)));
        self.wrote().await;
        answer.await.expect("answered")
    }

    fn abort(&mut self) {
        let (reply, mut answer) = oneshot::channel();
        let ask = Ask::of(Verb::Abort, "token ci");
        self.control.abort(Abort { service: "web".to_owned(), ask, reply });
        assert!(answer.try_recv().expect("at once").is_ok());
    }

    fn stored_weight(&self) -> Weight {
        ledger::load(&self.bench.store).expect("understood").roles[&web()].weight()
    }

    fn failures(&self) -> Vec<String> {
        let events = self.bench.handle.events(usize::MAX).into_iter();
        events.filter(|event| event.what == What::StoreFailed).filter_map(|event| event.detail).collect()
    }

    fn audit(&self) -> Vec<Draft> {
        lock(&self.bench.store.audit).clone()
    }
}

#[tokio::test]
async fn a_store_that_hangs_is_told_of_once_and_what_it_may_have_is_put_right() {
    let mut world = World::new().await;
    let tries = *world.bench.store.tries.borrow();
    world.bench.store.gate.shut();
    let mut answer = world.ask(Verb::Weight(percent("5%")));
    world.bench.store.tried(tries).await;
    let now = clock::now();
    world.control.tick(now + WRITE_MAX / 2);
    assert!(answer.try_recv().is_err() && world.failures().is_empty());
    for _ in 0..3 {
        world.control.tick(now + 2 * WRITE_MAX);
    }
    let refused = answer.await.expect("answered").expect_err("given up");
    assert!(matches!(&refused, Refused::Store { full: false, why } if why == "the store does not answer"), "{refused}");
    assert_eq!(world.failures().len(), 1, "{:?}", world.failures());
    // Until it answers nothing waits for it.
    let refused = world.ask(Verb::Weight(percent("7%"))).await.expect("answered at once");
    assert!(matches!(refused, Err(Refused::Store { .. })));
    world.abort();
    // It had taken it all the same.
    world.bench.store.gate.open();
    world.wrote().await;
    world.landed().await;
    assert_eq!(world.bench.current.load().snapshot.services[1].running.weight, Weight::ZERO);
    assert_eq!(world.stored_weight(), Weight::ZERO);
    let audit = world.audit();
    let undo = audit.iter().find(|draft| draft.verb == "undo").expect("said");
    let weight = audit.iter().find(|draft| draft.verb == "weight").expect("it landed");
    assert_eq!((&undo.from, &undo.to, undo.rollout), (&weight.to, &weight.from, weight.rollout));
    assert!(undo.reason.as_deref().is_some_and(|reason| reason.contains("never came true")));
    assert_eq!(world.failures().len(), 1);
    // As after any abort.
    assert!(world.ask(Verb::Retry(None)).try_recv().is_err(), "it waits for the store again");
    world.wrote().await;
    world.weight("7%").await.expect("written");
}

#[tokio::test]
async fn steps_that_hang_are_given_up_and_come_again() {
    let mut world = World::new().await;
    world.weight("5%").await.expect("written");
    let before = world.control.desk.next_rollout();
    world.bench.store.gate.shut();
    let answer = world.ask(Verb::Promote { full: true, force: false });
    world.control.tick(clock::now() + WRITE_MAX);
    answer.await.expect("answered").expect_err("given up");
    *lock(&world.bench.store.fails) = Some(io::ErrorKind::Other);
    world.bench.store.gate.open();
    world.wrote().await;
    *lock(&world.bench.store.fails) = None;
    world.landed().await;
    assert_eq!((world.stored_weight(), world.control.desk.next_rollout()), (percent("5%"), before));
    assert!(world.audit().iter().all(|draft| draft.verb != "undo"), "it never had it");
    let answer = world.ask(Verb::Promote { full: true, force: false });
    world.wrote().await;
    answer.await.expect("answered").expect("written");
    assert_eq!(world.bench.current.load().snapshot.services[1].running.weight, Weight::FULL);
}

/// The last fsync can fail for want of room, and everything is there.
#[tokio::test]
async fn a_full_disk_may_have_what_it_refused() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let mut world = World::new().await;
        *lock(&world.bench.store.fails_late) = Some(kind);
        let refused = world.weight("5%").await.expect_err("refused");
        assert!(matches!(refused, Refused::Store { full, .. } if full == (kind == io::ErrorKind::StorageFull)));
        assert_eq!(world.bench.current.load().snapshot.services[1].running.weight, Weight::ZERO);
        *lock(&world.bench.store.fails_late) = None;
        world.landed().await;
        assert_eq!(world.stored_weight(), Weight::ZERO, "{kind:?}: a restart goes on from what was true");
    }
}

#[tokio::test]
async fn a_store_that_panics_answers_and_is_asked_again() {
    let mut world = World::new().await;
    world.bench.store.panics.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = world.weight("5%").await.expect_err("refused");
    assert!(refused.to_string().contains("a defect"), "{refused}");
    world.bench.store.panics.store(false, std::sync::atomic::Ordering::Relaxed);
    world.weight("5%").await.expect("written");
}

fn tried(name: &str) -> Arc<Service> {
    let mut service = Service::clone(&service(name, 1, Some(("v2", 1))));
    Arc::make_mut(&mut service.rollout).on_empty_store = OnEmptyStore::Start;
    Arc::new(service)
}

#[tokio::test]
async fn the_number_of_a_rollout_is_never_used_twice() {
    let store = Arc::<FakeStore>::default();
    let both = settings(vec![tried("api"), tried("web")]);
    let (bench, mut control) = open_with(both, Arc::clone(&store)).await.expect("opens");
    assert_eq!(control.desk.next_rollout(), 3);
    control.checkpoint();
    drop((bench, control));
    // The service with the highest number is gone, and nothing was decided but at starts.
    let (bench, mut control) = open_with(settings(vec![tried("api")]), Arc::clone(&store)).await.expect("opens");
    assert_eq!(control.desk.next_rollout(), 3);
    control.checkpoint();
    drop((bench, control));
    let (_bench, control) = open_with(settings(vec![tried("api"), tried("new")]), store).await.expect("opens");
    assert_eq!(control.desk.next_rollout(), 4, "the new one is the third");
}

/// A tick looks between the switch and the word, twice in the life of a service: each abort is its caller's.
#[tokio::test]
async fn an_abort_seen_midway_is_still_the_callers() {
    let mut world = World::new().await;
    let mut now = clock::now();
    for _ in 0..2 {
        world.weight("5%").await.expect("written");
        world.bench.current.load().live[1].close_candidate();
        now += std::time::Duration::from_millis(50);
        world.control.tick(now);
        world.abort();
        let answer = world.ask(Verb::Retry(None));
        world.wrote().await;
        answer.await.expect("answered").expect("retried");
    }
    world.landed().await;
    let aborts = world.audit().into_iter().filter(|draft| draft.verb == "abort").map(|draft| draft.actor);
    assert_eq!(aborts.collect::<Vec<_>>(), ["token ci", "token ci"]);
    // Whoever throws it and goes away is still found out.
    world.bench.current.load().live[1].close_candidate();
    for _ in 0..2 {
        now += std::time::Duration::from_millis(50);
        world.control.tick(now);
    }
    world.landed().await;
    assert_eq!(world.audit().last().map(|draft| draft.actor.clone()).as_deref(), Some("unknown"));
}

#[tokio::test]
async fn the_audit_says_who_from_where_about_which_rollout() {
    let mut world = World::new().await;
    world.weight("5%").await.expect("written");
    let said = world.audit().pop().expect("an entry");
    let rollout = world.bench.handle.service("web").expect("web").1.progress.expect("a rollout").id;
    assert_eq!((said.verb.as_str(), said.actor.as_str()), ("weight", "token ci"));
    assert_eq!((said.source.as_str(), said.rollout), ("10.0.0.7:4711", Some(rollout)));
    let endpoint = world.bench.current.load().live[1].stable[0].address_text.to_string();
    for verb in [Drain::Drain, Drain::Drain, Drain::Undrain] {
        let (reply, answer) = oneshot::channel();
        let by = Author { actor: "token ops".to_owned(), source: "unix".to_owned() };
        let (service, endpoint) = ("web".to_owned(), endpoint.clone());
        let reason = Some("a fan".to_owned());
        let command = EndpointCommand { service, endpoint, verb, force: true, by, reason, reply };
        world.control.command(Command::Endpoint(command));
        answer.await.expect("answered").expect("done");
    }
    // What is owed lands in order: a write comes after it.
    world.weight("6%").await.expect("written");
    let audit = world.audit();
    let drains: Vec<_> = audit.iter().filter(|draft| draft.verb.ends_with("drain")).collect();
    let verbs: Vec<_> = drains.iter().map(|draft| draft.verb.as_str()).collect();
    assert_eq!(verbs, ["drain", "undrain"], "each once");
    let drain = drains[0];
    assert_eq!((drain.actor.as_str(), drain.source.as_str(), drain.rollout), ("token ops", "unix", None));
    assert_eq!((drain.service.as_deref(), drain.reason.as_deref()), (Some("web"), Some("a fan")));
    assert!(drain.from.ends_with("in service") && drain.to == format!("v1 {endpoint} drained"));
}
