//! From counts to verdicts, with the clock in hand.

use std::collections::HashMap;

use super::*;
use crate::clock;
use crate::core::endpoint::EndpointKey;
use crate::core::id::Variant;
use crate::core::rollout::Verdict;
use crate::core::snapshot::Running;
use crate::core::weight::Weight;
use crate::state::fixture::{all_ready, service, snapshot};
use crate::state::live::Registry;
use crate::state::sensors::{Opinion, Place, Sense};

const TICK: Duration = Duration::from_millis(50);
const WORKERS: usize = 2;

struct World {
    registry: Registry,
    routing: Routing,
    gates: LiveGates,
    now: Instant,
    requests: u64,
}

/// What every n-th request to a variant does.
#[derive(Clone, Copy)]
struct Faults {
    /// Every so many are bad; zero: none.
    every: [u64; 2],
    latency: [Duration; 2],
    /// Candidate requests never have a head.
    hangs: bool,
}

const HEALTHY: Faults = Faults { every: [0, 0], latency: [Duration::from_millis(2); 2], hangs: false };

fn web() -> Name {
    Name::new("web").expect("a name")
}

impl World {
    fn new(candidate: u16) -> Self {
        let began = clock::now();
        let registry = Registry::new(WORKERS, began);
        let (mut gates, weight) = (LiveGates::new(began, WORKERS), Weight::HALF);
        let web = (service("web", 1, Some(("v2", candidate))), Running { weight, ..Running::idle(7) });
        let api = (service("api", 1, None), Running::idle(0));
        let snapshot = snapshot(vec![web, api]);
        let live = registry.resolve(&snapshot, &HashMap::new());
        all_ready(&live);
        let mut routing = Routing { snapshot, live };
        gates.install(&mut routing);
        Self { registry, routing, gates, now: began + TICK, requests: 0 }
    }

    fn web(&self) -> usize {
        self.routing.snapshot.service("web").expect("a service").0
    }

    fn is_tried(&self) -> bool {
        self.routing.snapshot.services[self.web()].running.weight > Weight::ZERO
    }

    fn weigh(&mut self, weight: Weight) {
        let index = self.web();
        let mut services = self.routing.snapshot.services.clone();
        services[index].running.weight = weight;
        self.routing.snapshot = self.routing.snapshot.next(services);
    }

    fn begin(&mut self) {
        let config = wanted(&self.routing.snapshot.services[0].service);
        self.gates.begin(&web(), 7, &config, self.now).expect("a sound configuration");
        assert!(self.gates.is_due(&self.routing));
        self.gates.install(&mut self.routing);
        assert!(!self.gates.is_due(&self.routing));
    }

    /// `count` requests within the tick, half of them to the candidate, then the tick; `web` is what was seen of it.
    fn tick(&mut self, count: u64, faults: Faults) -> Option<Seen> {
        let live = Arc::clone(&self.routing.live[self.web()]);
        let watch = live.watch.as_ref().expect("counted");
        for _ in 0..count {
            self.requests += if self.is_tried() { 1 } else { 2 };
            let variant = if self.requests.is_multiple_of(2) { Variant::Stable } else { Variant::Candidate };
            let index = (self.requests / 2) as usize % live.pool(variant).len();
            let Some(counts) = watch.counts(variant, index) else { continue };
            let shard = counts.of((self.requests / 3) as usize % WORKERS);
            let (place, mut sense) = (Place { watch, shard, variant }, Sense::default());
            sense.identify(self.requests.wrapping_mul(0x9e37_79b9_7f4a_7c15), true);
            sense.begin(place, watch.tick(self.now));
            sense.write(place, watch.tick(self.now));
            if faults.hangs && variant == Variant::Candidate {
                continue;
            }
            sense.leave(place, faults.latency[variant as usize], true, self.now);
            let every = faults.every[variant as usize];
            if every > 0 && (self.requests / 2).is_multiple_of(every) {
                sense.bad(place, self.now);
            } else {
                sense.succeed(place, self.now);
            }
        }
        self.now += TICK;
        let web = self.web();
        self.gates.tick(&self.routing, self.now).into_iter().find(|(index, _)| *index == web).map(|(_, seen)| seen)
    }

    fn run(&mut self, ticks: u64, count: u64, faults: Faults) -> Option<(u64, Seen)> {
        (0..ticks).find_map(|at| {
            let seen = self.tick(count, faults)?;
            metric(&seen).is_some().then_some((at, seen))
        })
    }
}

/// What condemned the candidate.
fn metric(seen: &Seen) -> Option<&str> {
    match &seen.verdict {
        Verdict::Harmful { metric } => Some(metric),
        Verdict::Open | Verdict::Error => None,
    }
}

#[test]
fn a_broken_candidate_is_condemned_within_some_ticks_and_with_its_numbers() {
    let mut world = World::new(1);
    assert_eq!(world.run(400, 20, HEALTHY), None, "nobody is watched");
    world.begin();
    assert_eq!(world.run(100, 20, HEALTHY), None);
    let (at, seen) = world.run(100, 20, Faults { every: [0, 1], ..HEALTHY }).expect("condemned");
    assert!(at < 8, "after {at} ticks");
    assert_eq!(metric(&seen), Some("error-rate"));
    assert_eq!(seen.counts.requests, 10 * (100 + at + 1));
    assert_eq!(seen.counts.bad, 10 * (at + 1));
    let known = world.gates.evidence(&web()).expect("evidence");
    let proof = world.gates.proof(&web()).expect("a proof");
    assert!(proof.words.starts_with("error-rate: candidate "), "{}", proof.words);
    assert!(proof.words.contains("stable 0 of ") && proof.words.contains(" of 6.9 nats"), "{}", proof.words);
    assert_eq!(proof.numbers["rollout"], 7);
    let glance = world.routing.live[world.web()].watch.as_ref().and_then(|watch| watch.glance()).expect("watched");
    assert!(glance.opinion == Opinion::Harmful && glance.log_e >= glance.bound, "{glance:?}");
    assert_eq!(
        (known.detected_after_ms, proof.after),
        (Some(50 * (at + 1)), Some(TICK * u32::try_from(at + 1).expect("few")))
    );
    assert_eq!((known.endpoints, known.running), (vec!["127.0.0.1:9000".to_owned()], true));
    world.gates.end(&web());
    let last = world.gates.evidence(&web()).expect("it stays");
    assert!(!last.running && !world.gates.is_watched(&web(), 7));
    assert_eq!(world.gates.proof(&web()), Some(proof), "whoever writes it down comes later");
}

/// Ticks of control do not begin where ticks of the gate do.
#[test]
fn a_tick_that_was_over_before_the_rollout_began_says_nothing_of_it() {
    let mut world = World::new(1);
    world.run(3, 20, HEALTHY);
    world.now += TICK + TICK / 5;
    world.begin();
    world.now += TICK / 5;
    assert_eq!(world.gates.tick(&world.routing, world.now), []);
    world.now += TICK;
    let seen = world.gates.tick(&world.routing, world.now);
    assert_eq!(seen.len(), 1);
}

#[test]
fn what_both_share_condemns_nobody() {
    let mut world = World::new(1);
    world.run(1_000, 20, HEALTHY);
    world.begin();
    assert_eq!(world.run(200, 20, HEALTHY), None);
    assert_eq!(world.run(200, 20, Faults { every: [1, 1], ..HEALTHY }), None, "an outage of both");
    let slow = Duration::from_millis(400);
    assert_eq!(world.run(800, 20, Faults { latency: [slow; 2], ..HEALTHY }), None, "both are slow");
}

#[test]
fn a_slow_candidate_is_condemned_after_its_warmup() {
    let mut world = World::new(1);
    world.run(400, 20, HEALTHY);
    world.begin();
    let slow = Faults { latency: [Duration::from_millis(2), Duration::from_millis(15)], ..HEALTHY };
    let (at, seen) = world.run(1_000, 20, slow).expect("condemned");
    assert_eq!(metric(&seen), Some("latency"));
    assert!((600..640).contains(&at), "warmup is 600 ticks, not {at}");
}

/// Nothing has ended yet, and no timeout is over.
#[test]
fn a_hang_is_seen_at_the_threshold() {
    let mut world = World::new(1);
    world.run(400, 20, HEALTHY);
    world.begin();
    let (at, seen) = world.run(100, 20, Faults { hangs: true, ..HEALTHY }).expect("condemned");
    assert_eq!(metric(&seen), Some("latency"));
    assert!(at < 12, "after {at} ticks");
}

#[test]
fn one_bad_endpoint_of_three_is_to_be_ejected_once_and_the_version_is_not_condemned() {
    let mut world = World::new(3);
    world.run(400, 20, HEALTHY);
    world.begin();
    let mut ejected = Vec::new();
    for _ in 0..200 {
        let live = Arc::clone(&world.routing.live[world.web()]);
        let watch = live.watch.as_ref().expect("counted");
        let shard = watch.counts(Variant::Candidate, 1).expect("counted").of(0);
        let (place, mut sense) = (Place { watch, shard, variant: Variant::Candidate }, Sense::default());
        sense.begin(place, watch.tick(world.now));
        sense.bad(place, world.now);
        let seen = world.tick(24, HEALTHY).expect("watched");
        assert_eq!(metric(&seen), None);
        ejected.extend(seen.eject);
    }
    let address = |key: &EndpointKey| key.address.to_string();
    assert_eq!(ejected.iter().map(address).collect::<Vec<_>>(), ["127.0.0.1:9001"]);
}

#[test]
fn steps_begin_sessions_anew_and_keep_what_was_counted() {
    let mut world = World::new(1);
    world.begin();
    world.run(10, 40, HEALTHY);
    let before = world.gates.evidence(&web()).expect("a report");
    assert!(before.report.step.sessions > 150 && before.step == 0);
    world.gates.step(&web(), 1, Duration::from_secs(30));
    world.gates.install(&mut world.routing);
    world.tick(40, HEALTHY);
    let after = world.gates.evidence(&web()).expect("a report");
    assert_eq!((after.step, after.report.step.begun), (1, 20));
    assert!(after.report.step.sessions <= 20);
    assert_eq!(after.report.tests[0].candidate.exposed, 220);
}

#[test]
fn endpoints_that_join_are_counted_and_keep_their_index() {
    let mut world = World::new(1);
    world.begin();
    world.run(10, 40, HEALTHY);
    let running = world.routing.snapshot.services[world.web()].running.clone();
    let names = world.routing.snapshot.services.iter().map(|active| active.service.name.clone());
    let previous = names.zip(world.routing.live.iter().cloned()).collect();
    let split = (service("web", 1, Some(("v2", 2))), running);
    let mut next = snapshot(vec![split, (service("api", 1, None), Running::idle(0))]);
    next.generation = 2;
    let live = world.registry.resolve(&next, &previous);
    all_ready(&live);
    world.routing = Routing { snapshot: next, live };
    world.gates.install(&mut world.routing);
    world.run(10, 40, HEALTHY);
    let known = world.gates.evidence(&web()).expect("a report");
    assert_eq!(known.endpoints, ["127.0.0.1:9000", "127.0.0.1:9001"]);
    assert_eq!(known.report.endpoints.iter().map(|e| e.begun).collect::<Vec<_>>(), [300, 100]);
}

#[test]
fn evidence_outlives_the_process() {
    let mut world = World::new(2);
    world.run(400, 20, HEALTHY);
    world.begin();
    assert_eq!(world.run(100, 20, Faults { every: [40, 40], ..HEALTHY }), None);
    let stored = world.gates.state(&web()).expect("watched");
    let text = serde_json::to_string(&stored).expect("JSON");
    let before = world.gates.evidence(&web()).expect("a report");
    let mut other = World::new(2);
    other.now += Duration::from_secs(3);
    other.gates.restore(&web(), serde_json::from_str(&text).expect("the same"), other.now).expect("fits");
    other.gates.install(&mut other.routing);
    let after = other.gates.evidence(&web()).expect("a report");
    assert_eq!((after.report.tests, after.endpoints), (before.report.tests, before.endpoints));
    assert!(other.gates.is_watched(&web(), 7));
    let (_, seen) = other.run(100, 20, Faults { every: [0, 1], ..HEALTHY }).expect("condemned");
    assert!(seen.counts.requests > 1_000, "{:?}", seen.counts);
    for (part, counts) in [("gate", "/gate/totals/exposed"), ("history", "/history/current/events")] {
        let mut damaged: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        damaged.pointer_mut(counts).and_then(|counts| counts.as_array_mut()).expect("counts").pop();
        let damaged = serde_json::from_value(damaged).expect("still one");
        let refused = other.gates.restore(&web(), damaged, other.now);
        assert!(matches!(refused, Err(NotWatched::State(_))), "{part}: {refused:?}");
    }
    let wrong = Stored { members: vec![("v2".into(), "nowhere".into())], ..stored };
    assert!(matches!(other.gates.restore(&web(), wrong, other.now), Err(NotWatched::Member(_))));
}

#[test]
fn the_history_of_stable_is_what_the_gate_begins_with() {
    let mut world = World::new(1);
    world.run(1_200, 20, Faults { every: [10, 0], ..HEALTHY });
    world.begin();
    world.tick(20, HEALTHY);
    let report = world.gates.evidence(&web()).expect("a report").report;
    assert!(report.stable_degraded.is_some());
    // Its latencies are known from the first tick on.
    let estimate = report.tests[1].estimate.expect("an estimate");
    assert!(estimate.of > 500 && (2_000..2_100).contains(&estimate.us), "{estimate:?}");
    let unknown = Name::new("nobody").expect("a name");
    assert!(matches!(
        world.gates.begin(&unknown, 1, &wanted(&world.routing.snapshot.services[0].service), world.now),
        Err(NotWatched::Unknown(_))
    ));
}

/// It waits for an approval, or for its endpoints.
#[test]
fn a_rollout_that_waits_at_nothing_knows_what_stable_did_meanwhile() {
    let mut world = World::new(1);
    world.weigh(Weight::ZERO);
    world.begin();
    world.run(1_200, 20, HEALTHY);
    world.weigh(Weight::HALF);
    world.run(40, 20, HEALTHY);
    let report = world.gates.evidence(&web()).expect("a report").report;
    assert!(report.stable_degraded.is_some() && report.tests[1].estimate.expect("an estimate").of > 500);
    let degraded =
        (0..200).any(|_| world.tick(20, Faults { every: [1, 1], ..HEALTHY }).is_some_and(|seen| seen.stable_degraded));
    assert!(degraded);
}
