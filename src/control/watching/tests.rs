//! What comes first when the gate condemns a candidate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::control::fake::{Bench, open, settings};
use crate::control::journal::What;
use crate::control::writer::Control;
use crate::core::id::Variant;
use crate::core::outlier::fault::Fault;
use crate::core::snapshot::Running;
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
}

impl World {
    /// Two services with half their traffic on a candidate.
    async fn new() -> Self {
        let services = ["api", "web"].map(|name| service(name, 3, Some(("v2", 1))));
        let (bench, mut control) = open(settings(services.to_vec())).await.expect("opens");
        all_ready(&bench.current.load().live);
        for index in 0..2 {
            let running =
                Running { weight: Weight::HALF, ..bench.current.load().snapshot.services[index].running.clone() };
            control.put(index, Some(running), What::Weight, "test".to_owned(), None);
        }
        let now = clock::now() + TICK;
        Self { bench, control, now, session: 0 }
    }

    /// A tick in which every request to a candidate fails.
    fn tick(&mut self) {
        let routing = self.bench.current.load();
        for live in routing.live.iter().filter(|live| live.is_candidate_open()) {
            let watch = live.watch.as_ref().expect("watched");
            for variant in Variant::ALL {
                let shard = watch.counts(variant, 0).expect("counted").of(0);
                let place = Place { watch, shard, variant };
                for _ in 0..REQUESTS {
                    self.session = self.session.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut sense = Sense::default();
                    sense.identify(self.session, true);
                    sense.begin(place, watch.tick(self.now));
                    match variant {
                        Variant::Stable => sense.succeed(place, self.now),
                        Variant::Candidate => sense.bad(place, self.now),
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

    /// Ticks until something happened.
    fn run(&mut self) -> usize {
        (1..100)
            .find(|_| {
                self.tick();
                !self.told().is_empty()
            })
            .expect("condemned")
    }
}

#[tokio::test]
async fn harm_is_ended_before_anything_else_happens_in_a_tick() {
    let ticks = World::new().await.run();
    assert!(ticks < 8, "after {ticks} ticks");
    let mut world = World::new().await;
    (1..ticks).for_each(|_| world.tick());
    assert_eq!(world.told(), []);
    let before = world.bench.current.load();
    // An endpoint is due to be ejected in the same tick.
    let conduct = &before.live[0].stable[0].conduct;
    let admission = conduct.admit().expect("open");
    (0..STREAK).for_each(|_| conduct.blame(admission, 0, Fault::Status(503)));
    world.tick();
    let of = |name: &str| Some(name.to_owned());
    assert_eq!(
        world.told(),
        [(What::Abort, of("api"), 4), (What::Abort, of("web"), 5), (What::EndpointEjected, of("api"), 5)]
    );
    assert!(before.live.iter().all(|live| !live.is_candidate_open()), "requests that began before see it too");
    let events = world.bench.handle.events(usize::MAX);
    let abort = events.iter().find(|event| event.what == What::Abort).expect("one");
    assert_eq!((abort.actor.as_str(), abort.to.as_deref()), ("gate/error-rate", Some("0%")));
    assert!(Arc::ptr_eq(&before.live[0].candidate_open, &world.bench.current.load().live[0].candidate_open));
}
