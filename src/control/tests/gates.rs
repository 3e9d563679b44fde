//! Control with real gates: what comes first when one condemns a candidate, and what a restart knows of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::fake::{Bench, FakeStore, open_live, settings};
use super::super::gates::Evidence;
use super::super::journal::What;
use super::super::writer::Control;
use super::super::writing::answered;
use crate::clock;
use crate::core::gate::{GateConfig, Report};
use crate::core::id::{Name, Variant};
use crate::core::outlier::fault::Fault;
use crate::core::rollout::Step;
use crate::core::rollout::wanted::OnEmptyStore;
use crate::core::service::Service;
use crate::core::weight::Weight;
use crate::state::fixture::{all_ready, service};
use crate::state::sensors::{Place, Sense};

const TICK: Duration = Duration::from_millis(50);
/// Requests to each variant in a tick.
const REQUESTS: u64 = 20;
/// Failures in a row that eject.
const STREAK: usize = 5;

struct World {
    bench: Bench,
    control: Control,
    now: Instant,
    session: u64,
    /// Of the candidate's requests every so many fail.
    every: u64,
}

/// A service whose candidate gets half the traffic at once, for an hour.
fn tried(name: &str, gate: impl FnOnce(&mut GateConfig)) -> Arc<Service> {
    let mut service = Service::clone(&service(name, 3, Some(("v2", 1))));
    let wanted = Arc::make_mut(&mut service.rollout);
    wanted.on_empty_store = OnEmptyStore::Start;
    wanted.terms.plan.steps = vec![Step::new(Weight::HALF, Duration::from_secs(3_600))];
    gate(&mut wanted.terms.gate);
    Arc::new(service)
}

fn api() -> Name {
    Name::new("api").expect("a name")
}

impl World {
    /// Goes on from `store`, or begins; returns at half the traffic.
    async fn new(services: Vec<Arc<Service>>, store: &Arc<FakeStore>) -> Self {
        let (bench, control) = open_live(settings(services), Arc::clone(store)).await.expect("opens");
        all_ready(&bench.current.load().live);
        let mut world = Self { bench, control, now: clock::now() + TICK, session: 0, every: 1 };
        for _ in 0..3 {
            world.now += TICK;
            world.control.tick(world.now);
            if world.control.writing.is_some() {
                let outcome = answered(&mut world.control.writing).await;
                world.control.wrote(outcome, &mut None);
            }
        }
        world
    }

    async fn two() -> Self {
        Self::new(["api", "web"].map(|name| tried(name, |_| {})).to_vec(), &Arc::default()).await
    }

    /// A tick in which requests to candidates fail.
    fn tick(&mut self) {
        let routing = self.bench.current.load();
        for live in routing.live.iter().filter(|live| live.is_candidate_open()) {
            let watch = live.watch.as_ref().expect("watched");
            for variant in Variant::ALL {
                let shard = watch.counts(variant, 0).expect("counted").of(0);
                let place = Place { watch, shard, variant };
                for request in 0..REQUESTS {
                    self.session = self.session.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut sense = Sense::default();
                    sense.identify(self.session, true);
                    sense.begin(place, watch.tick(self.now));
                    match variant {
                        Variant::Candidate if request.is_multiple_of(self.every) => sense.bad(place, self.now),
                        _ => sense.succeed(place, self.now),
                    }
                }
            }
        }
        self.now += TICK;
        self.control.tick(self.now);
    }

    fn told(&self) -> Vec<(What, Option<String>, u64)> {
        let events = self.bench.handle.events(usize::MAX).into_iter();
        let told = events.filter(|event| matches!(event.what, What::Abort | What::EndpointEjected));
        told.map(|event| (event.what, event.service, event.generation)).collect()
    }

    fn evidence(&self) -> Evidence {
        self.control.gates.evidence(&api()).expect("watched")
    }

    /// Ticks until something happened.
    fn run(&mut self) -> usize {
        (1..100)
            .find(|_| {
                self.tick();
                !self.told().is_empty()
            })
            .expect("condemned")
    }

    /// Writes the evidence down, as if its turn had come, and ends.
    async fn end(mut self) -> Report {
        self.control.turn = 0;
        self.control.checkpoint();
        let landed = self.control.ledger.landed(&api());
        landed.await.expect("it landed");
        self.evidence().report
    }

    fn phase(&self) -> String {
        let progress = self.bench.handle.service("api").expect("api").1.progress.expect("a rollout");
        format!("{} {}", progress.phase, progress.reason.unwrap_or_default())
    }
}

#[tokio::test]
async fn harm_is_ended_before_anything_else_happens_in_a_tick() {
    let ticks = World::two().await.run();
    assert!(ticks < 8, "after {ticks} ticks");
    let mut world = World::two().await;
    (1..ticks).for_each(|_| world.tick());
    assert_eq!(world.told(), []);
    let before = world.bench.current.load();
    let generation = before.snapshot.generation;
    // An endpoint is due to be ejected in the same tick.
    let conduct = &before.live[0].stable[0].conduct;
    let admission = conduct.admit().expect("open");
    (0..STREAK).for_each(|_| conduct.blame(admission, 0, Fault::Status(503)));
    world.tick();
    let of = |name: &str| Some(name.to_owned());
    assert_eq!(
        world.told(),
        [
            (What::Abort, of("api"), generation + 1),
            (What::Abort, of("web"), generation + 1),
            (What::EndpointEjected, of("api"), generation + 1)
        ]
    );
    assert!(before.live.iter().all(|live| !live.is_candidate_open()), "requests that began before see it too");
    let events = world.bench.handle.events(usize::MAX);
    let abort = events.iter().find(|event| event.what == What::Abort).expect("one");
    assert_eq!((abort.actor.as_str(), abort.to.as_deref()), ("gate/error-rate", Some("0%")));
    let detail = abort.detail.as_deref().expect("why");
    assert!(detail.contains("candidate ") && detail.contains(" nats"), "{detail}");
}

#[tokio::test]
async fn what_was_seen_before_a_restart_counts_after_it() {
    let (store, one) = (Arc::<FakeStore>::default(), || vec![tried("api", |_| {})]);
    let world = World::new(one(), &Arc::default()).await;
    let ticks = World { every: 10, ..world }.run();
    let world = World::new(one(), &store).await;
    let mut world = World { every: 10, ..world };
    (1..ticks).for_each(|_| world.tick());
    let before = world.end().await;
    assert!(before.log_e > 0.7 * before.bound, "{} of {}", before.log_e, before.bound);
    let mut again = World::new(one(), &store).await;
    assert_eq!(again.evidence().report.tests, before.tests);
    assert_eq!(again.run(), 1, "one more tick is enough");
}

#[tokio::test]
async fn evidence_nobody_understands_is_said_to_be_lost_and_the_rollout_goes_on() {
    let (store, one) = (Arc::<FakeStore>::default(), || vec![tried("api", |_| {})]);
    let world = World::new(one(), &store).await;
    let mut world = World { every: 10, ..world };
    world.tick();
    world.end().await;
    store.spoil_evidence("api");
    let again = World::new(one(), &store).await;
    let lost = again.bench.handle.events(usize::MAX).into_iter().find(|event| event.what == What::EvidenceLost);
    assert!(lost.expect("told").detail.is_some_and(|why| why.contains("begins anew")));
    assert_eq!(again.phase(), "progressing ");
    assert!(again.control.gates.is_watched(&api(), 1) && again.evidence().report.tests[0].candidate.exposed == 0);
}

#[tokio::test]
async fn a_rollout_that_cannot_be_watched_waits() {
    let world = World::new(vec![tried("api", |gate| gate.metrics.clear())], &Arc::default()).await;
    assert_eq!(world.phase(), "paused gate_error");
}
