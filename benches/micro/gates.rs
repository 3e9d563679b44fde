//! What watching costs: a tick of control with 1,000 services of which 100 are watched, and what one request counts.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::Criterion;
use tidegate::control::gate::Gates as _;
use tidegate::control::gates::LiveGates;
use tidegate::core::id::Variant;
use tidegate::core::snapshot::{ActiveService, Running, Snapshot};
use tidegate::core::weight::Weight;
use tidegate::state::current::Routing;
use tidegate::state::live::Registry;
use tidegate::state::sensors::{Place, Sense, Ticks};
use tidegate::{clock, config};

const SERVICES: usize = 1_000;
/// Every so many services one is watched: 100.
const EVERY: usize = 10;
const WORKERS: usize = 2;
/// Requests to every service within a tick of 50 ms: 200 per second, 10 % to the candidate.
const REQUESTS: u64 = 10;
const TICK: Duration = Duration::from_millis(50);
/// What the slow ones take.
const LONG: Duration = Duration::from_millis(250);

/// All benchmarks of this subject.
pub(crate) fn benches(criterion: &mut Criterion) {
    ticks(criterion);
    request(criterion);
}

/// A proxy with so many services, a tenth of them with a candidate of three endpoints.
fn proxy(began: Instant) -> (Routing, LiveGates) {
    let mut text =
        "[[listeners]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n[[routes]]\nservice = \"s0000\"\n".to_owned();
    for service in 0..SERVICES {
        let stable = "version = \"v1\"\nendpoints = [\"10.0.0.1:80\", \"10.0.0.2:80\"]";
        write!(text, "[services.s{service:04}.stable]\n{stable}\n").expect("a string");
        if service % EVERY == 0 {
            let candidate = "version = \"v2\"\nendpoints = [\"10.0.1.1:80\", \"10.0.1.2:80\", \"10.0.1.3:80\"]";
            write!(text, "[services.s{service:04}.candidate]\n{candidate}\n").expect("a string");
        }
    }
    let settings = config::parse(&text, Path::new("bench.toml"), &|_| None).expect("a sound configuration");
    let weight = Weight::parse("10%").expect("a weight");
    let running = |tried| Running { weight: if tried { weight } else { Weight::ZERO }, ..Running::idle(1) };
    let services = settings.services.iter();
    let services = services.map(|s| ActiveService::new(Arc::clone(s), running(s.candidate.is_some())));
    let snapshot = Snapshot::build(1, &[], services.collect()).expect("no routes");
    let live = Registry::new(WORKERS, began).resolve(&snapshot, &HashMap::new());
    let mut routing = Routing { snapshot, live };
    let mut gates = LiveGates::new(began, WORKERS);
    gates.install(&mut routing);
    for active in routing.snapshot.services.iter().filter(|active| active.service.candidate.is_some()) {
        gates.begin(&active.service.name, 1, &active.service.rollout.terms.gate, began).expect("a sound configuration");
    }
    gates.install(&mut routing);
    (routing, gates)
}

/// Requests that wait for their answer: the service, whom they went to, when they are answered.
type Waiting = VecDeque<(usize, Variant, usize, Sense, Instant)>;

/// A tick of traffic to every service. Most requests take about a millisecond, one of twenty a quarter of a second.
fn traffic(routing: &Routing, waiting: &mut Waiting, random: &mut fastrand::Rng, now: Instant) {
    let ticks = Ticks::default();
    while waiting.front().is_some_and(|(.., at)| *at <= now) {
        let Some((service, variant, index, mut sense, _)) = waiting.pop_front() else { return };
        let watch = routing.live[service].watch.as_ref().expect("counted");
        let shard = watch.counts(variant, index).expect("counted").of(0);
        sense.leave(Place { watch, shard, variant }, LONG, true, now);
        sense.succeed(Place { watch, shard, variant }, now);
    }
    for (service, live) in routing.live.iter().enumerate() {
        let watch = live.watch.as_ref().expect("counted");
        for _ in 0..REQUESTS {
            let candidate = random.u8(..10) == 0 && !live.candidate.is_empty();
            let variant = if candidate { Variant::Candidate } else { Variant::Stable };
            let index = random.usize(..live.pool(variant).len());
            let (Some(counts), answered) = (watch.counts(variant, index), random.u8(..20) > 0) else { continue };
            let place = Place { watch, shard: counts.of(if answered { random.usize(..WORKERS) } else { 0 }), variant };
            let answer = (Duration::from_micros(random.u64(500..2_000)), answered);
            let sense = one(place, &ticks, (random.u64(..), false), answer, now);
            if !answered {
                waiting.push_back((service, variant, index, sense, now + LONG));
            }
        }
    }
}

fn one(
    place: Place<'_>,
    ticks: &Ticks,
    (session, is_first): (u64, bool),
    (took, answered): (Duration, bool),
    now: Instant,
) -> Sense {
    let mut sense = Sense::default();
    sense.identify(session, is_first);
    sense.begin(place, ticks.at(place.watch, now));
    sense.write(place, ticks.at(place.watch, now));
    if answered {
        sense.leave(place, took, true, now);
        sense.succeed(place, now);
    }
    sense
}

fn ticks(criterion: &mut Criterion) {
    let began = clock::now();
    let ((routing, mut gates), mut random, mut now) = (proxy(began), fastrand::Rng::with_seed(11), began);
    let mut waiting = Waiting::new();
    criterion.bench_function("gates_tick_1000_services_100_watched", |bench| {
        bench.iter_custom(|ticks| {
            let mut spent = Duration::ZERO;
            for _ in 0..ticks {
                traffic(&routing, &mut waiting, &mut random, now);
                now += TICK;
                let before = clock::now();
                let seen = gates.tick(&routing, black_box(now));
                spent += clock::now() - before;
                assert_eq!(seen.len(), SERVICES / EVERY);
            }
            spent
        });
    });
}

fn request(criterion: &mut Criterion) {
    let began = clock::now();
    let ((routing, _gates), ticks, now) = (proxy(began), Ticks::default(), began + Duration::from_secs(1));
    let cases = [
        ("gate_request_watched", 0, false),
        ("gate_request_watched_first_of_its_session", 0, true),
        ("gate_request_idle", 1, false),
    ];
    for (name, index, is_first) in cases {
        let watch = routing.live[index].watch.as_ref().expect("counted");
        let shard = watch.counts(Variant::Stable, 0).expect("counted").of(0);
        let (place, mut session) = (Place { watch, shard, variant: Variant::Stable }, 0_u64);
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                session = session.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let answer = (Duration::from_micros(900), true);
                one(black_box(place), &ticks, (session, is_first), answer, black_box(now))
            });
        });
    }
}
