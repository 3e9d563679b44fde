//! From outcomes to ejections and events, with the clock in hand.

use super::*;
use crate::core::health::Readiness;
use crate::core::outlier::fault::Fault;
use crate::core::service::Service;
use crate::core::snapshot::{Running, Snapshot};
use crate::core::weight::Weight;
use crate::state::fixture::{all_ready, service, snapshot};
use crate::state::live::Registry;

/// A service with its ticker.
struct World {
    registry: Registry,
    routing: Routing,
    ticker: Ticker,
    now: Instant,
}

impl World {
    fn new(stable: u16, candidate: u16) -> Self {
        let now = clock::now();
        let registry = Registry::new(1, now);
        let snapshot = snapshot(vec![(service("web", stable, Some(("v2", candidate))), Running::idle(1))]);
        let live = registry.resolve(&snapshot, &HashMap::new());
        all_ready(&live);
        let mut world = Self { registry, routing: Routing { snapshot, live }, ticker: Ticker::new(now), now };
        assert_eq!(world.tick(TICK).len(), 0);
        world
    }

    fn tick(&mut self, wait: Duration) -> Vec<Note> {
        self.now += wait;
        self.ticker.tick(&self.routing, self.now)
    }

    fn live(&self) -> &ServiceLive {
        &self.routing.live[0]
    }

    fn fail(&self, variant: Variant, endpoint: usize, n: usize) {
        let conduct = &self.live().pool(variant)[endpoint].conduct;
        let admission = conduct.admit().expect("open");
        (0..n).for_each(|_| conduct.blame(admission, 0, Fault::Status(503)));
    }

    /// The same service in another generation, with so many endpoints.
    fn reload(&mut self, stable: u16, candidate: u16) {
        let names = self.routing.snapshot.services.iter().map(|active| active.service.name.clone());
        let previous = names.zip(self.routing.live.iter().cloned()).collect();
        let next = snapshot(vec![(service("web", stable, Some(("v2", candidate))), Running::idle(1))]);
        let next = Snapshot { generation: self.routing.snapshot.generation + 1, ..next };
        let live = self.registry.resolve(&next, &previous);
        self.routing = Routing { snapshot: next, live };
    }
}

fn whats(notes: &[Note]) -> Vec<&'static str> {
    notes.iter().map(|note| note.what.as_str()).collect()
}

#[test]
fn five_failures_eject_one_trial_restores_and_both_are_told() {
    let mut world = World::new(2, 1);
    world.fail(Variant::Stable, 0, 4);
    assert_eq!(world.tick(TICK).len(), 0);
    world.fail(Variant::Stable, 0, 1);
    let notes = world.tick(TICK);
    assert_eq!(whats(&notes), ["endpoint_ejected"]);
    let detail = notes[0].detail.as_deref();
    assert_eq!(detail, Some("v1 127.0.0.1:8000: ejected for 30s: 5 failures in a row, last: status 503"));
    assert_eq!((notes[0].service.as_deref(), notes[0].generation), (Some("web"), 1));
    let conduct = Arc::clone(&world.live().stable[0].conduct);
    assert!(!conduct.is_open());
    assert_eq!(
        world.live().stable[0].ejections.iter().map(crate::state::counters::Cell::get).collect::<Vec<_>>(),
        [1, 0, 0, 0]
    );
    assert_eq!(world.tick(Duration::from_secs(30)).len(), 0, "a trial is no event");
    let one = conduct.admit().expect("one request");
    assert!(!conduct.is_open());
    conduct.credit(one, 0);
    assert_eq!(whats(&world.tick(TICK)), ["endpoint_restored"]);
    assert!(conduct.is_in() && conduct.age(world.now).is_some_and(|age| age < TICK));
}

#[test]
fn the_gate_ejects_an_endpoint_of_the_candidate_within_the_same_bounds() {
    let mut world = World::new(2, 3);
    let key = |world: &World, endpoint: usize| world.live().candidate[endpoint].key.clone();
    let (first, second) = (key(&world, 1), key(&world, 2));
    let note = world.ticker.eject(&world.routing, &first, world.now).expect("ejected");
    assert_eq!((note.actor.as_str(), note.what.as_str()), ("gate", "endpoint_ejected"));
    let detail = note.detail.as_deref().expect("words");
    assert_eq!(detail, "v2 127.0.0.1:9001: ejected for 30s: the gate blames it alone");
    assert!(!world.live().candidate[1].is_usable());
    assert!(world.ticker.eject(&world.routing, &first, world.now).is_none(), "it is ejected");
    assert!(world.ticker.eject(&world.routing, &second, world.now).is_none(), "half of three is one");
    // It comes back as any other does.
    assert_eq!(world.tick(Duration::from_secs(30)).len(), 0);
    let conduct = Arc::clone(&world.live().candidate[1].conduct);
    conduct.credit(conduct.admit().expect("one request"), 0);
    assert_eq!(whats(&world.tick(TICK)), ["endpoint_restored"]);
}

#[test]
fn a_failed_trial_ejects_for_longer() {
    let mut world = World::new(2, 1);
    world.fail(Variant::Stable, 0, 5);
    world.tick(TICK);
    world.tick(Duration::from_secs(30));
    world.fail(Variant::Stable, 0, 1);
    let notes = world.tick(TICK);
    let detail = notes[0].detail.as_deref().expect("words");
    assert!(detail.ends_with("ejected for 60s: the request on trial failed, last: status 503"), "{detail}");
}

#[test]
fn the_last_that_works_is_never_ejected_in_either_variant() {
    let mut world = World::new(2, 1);
    world.fail(Variant::Candidate, 0, 50);
    world.fail(Variant::Stable, 0, 50);
    world.fail(Variant::Stable, 1, 50);
    let notes = world.tick(TICK);
    assert_eq!(whats(&notes), ["endpoint_ejected", "endpoint_spared", "panic", "endpoint_spared"]);
    let detail = notes[1].detail.as_deref();
    let kept = "failing, kept as the last of its pool: 50 failures in a row, last: status 503";
    assert!(detail.is_some_and(|detail| detail.ends_with(kept)), "{detail:?}");
    assert!(world.live().candidate[0].is_usable());
    assert_eq!(world.live().stable.iter().filter(|endpoint| endpoint.is_usable()).count(), 1);
    // A drained one does not count among those that work.
    let mut world = World::new(2, 1);
    world.live().stable[1].conduct.drain(world.now, Duration::ZERO);
    world.fail(Variant::Stable, 0, 50);
    assert_eq!(whats(&world.tick(TICK)), ["endpoint_spared", "panic"]);
}

/// Both of two fail: health is no guide any more, so both are used until one of them works again.
#[test]
fn a_pool_of_two_that_fails_is_in_panic_until_one_works() {
    let mut world = World::new(2, 1);
    world.fail(Variant::Stable, 0, 6);
    world.fail(Variant::Stable, 1, 5);
    assert_eq!(whats(&world.tick(TICK)), ["endpoint_ejected", "endpoint_spared", "panic"]);
    let spared = &world.live().stable[1];
    assert_eq!(spared.spared.iter().map(crate::state::counters::Cell::get).collect::<Vec<_>>(), [1, 0]);
    assert!(spared.conduct.sparing().is_some() && world.live().panic.is_on());
    assert_eq!(world.tick(Duration::from_secs(2)).len(), 0);
    world.tick(Duration::from_secs(28));
    let first = Arc::clone(&world.live().stable[0].conduct);
    first.credit(first.admit().expect("its trial"), 0);
    let notes = world.tick(TICK);
    assert_eq!(whats(&notes), ["endpoint_restored", "endpoint_ejected", "panic_over"], "now the other one can go");
    let spared = &world.live().stable[1];
    assert!(spared.conduct.sparing().is_none() && !spared.is_usable() && first.is_in());
    assert!(!world.live().panic.is_on(), "one of two is not below half");
}

#[test]
fn ejections_outlive_reloads_and_what_is_new_begins_anew() {
    let mut world = World::new(2, 1);
    world.fail(Variant::Stable, 0, 5);
    world.tick(TICK);
    world.reload(3, 1);
    assert_eq!(world.tick(TICK).len(), 0);
    assert!(!world.live().stable[0].is_usable());
    world.tick(Duration::from_secs(30));
    let conduct = Arc::clone(&world.live().stable[0].conduct);
    conduct.credit(conduct.admit().expect("its time went on"), 0);
    assert_eq!(whats(&world.tick(TICK)), ["endpoint_restored"]);
    // One that left and is back before its last user let go is new to whoever decides.
    world.live().stable[2].health.set_readiness(Readiness::Ready);
    world.fail(Variant::Stable, 2, 5);
    world.tick(TICK);
    let user = Arc::clone(&world.live().stable[2]);
    assert!(!user.conduct.is_open());
    world.reload(2, 1);
    world.registry.sweep(&world.routing.live, world.now);
    world.tick(TICK);
    world.reload(3, 1);
    world.tick(TICK);
    assert!(Arc::ptr_eq(&user, &world.live().stable[2]) && user.conduct.is_in());
}

/// The patience of clients that leave is measured by what the pool took lately, whatever is reloaded meanwhile.
#[test]
fn patience_follows_the_answers_of_the_pool() {
    use crate::core::outlier::patience::{PATIENCE_MIN, PATIENCE_UNKNOWN};
    let mut world = World::new(2, 1);
    let patience = |world: &World| world.live().stable[0].pool.patience();
    world.tick(MEASURE);
    assert_eq!(patience(&world), PATIENCE_UNKNOWN);
    let answer = |world: &World, endpoint: usize, ms: u64, n: u64| {
        let shard = world.live().stable[endpoint].counters.of(0);
        (0..n).for_each(|_| shard.upstream.record(Duration::from_millis(ms)));
    };
    answer(&world, 1, 20, 100);
    world.tick(MEASURE / 2);
    assert_eq!(patience(&world), PATIENCE_UNKNOWN, "once a second is enough");
    world.tick(MEASURE);
    assert_eq!((patience(&world), world.live().candidate[0].pool.patience()), (PATIENCE_MIN, PATIENCE_UNKNOWN));
    answer(&world, 0, 900, 100);
    world.tick(MEASURE);
    assert_eq!(patience(&world), Duration::from_secs(3));
    world.reload(3, 1);
    answer(&world, 0, 900, 1);
    world.tick(MEASURE);
    assert_eq!(patience(&world), Duration::from_secs(3), "kept");
    answer(&world, 0, 70_000, 100);
    world.tick(MEASURE);
    assert!(patience(&world) > Duration::from_secs(1_000_000), "longer than is measured");
}

/// envoy#14968, contour#1846: all unhealthy. Stable only, and said so.
#[test]
fn panic_begins_below_the_threshold_for_stable_only() {
    let mut world = World::new(4, 4);
    let lose = |world: &World, variant, count| {
        for endpoint in &world.live().pool(variant)[..count] {
            endpoint.health.set_readiness(Readiness::Lost);
        }
    };
    lose(&world, Variant::Candidate, 4);
    lose(&world, Variant::Stable, 2);
    assert_eq!(world.tick(TICK).len(), 0, "half of them is not below half");
    lose(&world, Variant::Stable, 3);
    let notes = world.tick(TICK);
    assert_eq!(whats(&notes), ["panic"]);
    let detail = notes[0].detail.as_deref().expect("words");
    assert!(detail.starts_with("v1: 1 of 4 endpoints are usable, panic is below 50%"), "{detail}");
    assert!(world.live().panic.is_on() && world.tick(TICK).is_empty());
    assert_eq!(world.live().panic.began.get(), 1);
    all_ready(&world.routing.live);
    assert_eq!(whats(&world.tick(TICK)), ["panic_over"]);
    assert_eq!((world.live().panic.is_on(), world.live().panic.began.get()), (false, 1));
}

#[test]
fn endpoints_that_never_passed_and_drained_ones_are_no_panic() {
    let mut world = World::new(4, 1);
    world.live().stable[0].health.set_readiness(Readiness::Unknown);
    world.live().stable[1].health.set_readiness(Readiness::NotReady);
    world.live().stable[2].conduct.drain(world.now, Duration::ZERO);
    assert_eq!(world.tick(TICK).len(), 0);
}

#[test]
fn the_events_of_one_tick_are_bounded() {
    let mut web = Service::clone(&service("web", 200, None));
    web.outlier.max_ejected = Weight::FULL;
    let now = clock::now();
    let (registry, snapshot) = (Registry::new(1, now), snapshot(vec![(Arc::new(web), Running::idle(1))]));
    let live = registry.resolve(&snapshot, &HashMap::new());
    all_ready(&live);
    let mut world = World { registry, routing: Routing { snapshot, live }, ticker: Ticker::new(now), now };
    (0..100).for_each(|endpoint| world.fail(Variant::Stable, endpoint, 5));
    let notes = world.tick(TICK);
    assert_eq!(notes.len(), EVENTS_PER_TICK_MAX + 1);
    let last = notes.last().and_then(|note| note.detail.as_deref());
    assert_eq!(last, Some("and 68 more changes to endpoints at the same time"));
}
