//! A seeded simulation of control's pure parts: commands, files, verdicts, a disk that fails, crashes, a store that is lost. The ten
//! invariants of a rollout are looked at after each event. `TIDEGATE_SIM_SEED=n` plays one seed again.

mod world;

use tidegate::core::roles::{Ask, StartWith, Verb};
use tidegate::core::rollout::{Counts, Facts, Verdict};
use tidegate::core::weight::Weight;

use crate::harness::soak;
use world::{Event, World};

/// Seeds of a run, and of a long one.
const SEEDS: u64 = 1_000;
const SEEDS_SOAK: u64 = 50_000;
/// Events of a seed.
const EVENTS: usize = 80;
/// Versions there are.
const VERSIONS: u8 = 6;

struct Random(fastrand::Rng);

// === impl Random ===

impl Random {
    fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(0..n) == 0
    }

    fn verb(&mut self) -> Verb {
        match self.0.u8(0..13) {
            0 => Verb::Abort,
            1 => Verb::Rollback,
            2 => Verb::Pause,
            3 => Verb::Resume,
            4 => Verb::Approve,
            5 => Verb::Retry(None),
            6 | 7 => Verb::Weight(Weight::of_percent(self.0.u16(0..=100))),
            8 => Verb::Promote { full: self.0.bool(), force: self.one_in(3) },
            9 | 10 => Verb::Promote { full: false, force: false },
            _ => {
                let version = world::version(self.0.u8(1..=VERSIONS));
                let endpoints = world::declared();
                Verb::Start(StartWith { version, digest: None, endpoints, terms: None, supersede: self.0.bool() })
            }
        }
    }

    fn ask(&mut self) -> Ask {
        let reason = (!self.one_in(4)).then(|| "a test".to_owned());
        let verb = self.verb();
        Ask { reason, ..Ask::of(verb, "sim") }
    }

    fn facts(&mut self, seen: Counts) -> Facts {
        let requests = self.0.u64(0..200);
        let bad = u64::from(self.one_in(5));
        let counts = Counts { requests: seen.requests + requests, bad: seen.bad + bad, good: seen.good + requests };
        let verdict = match self.0.u8(0..20) {
            0 => Verdict::Harmful { metric: "error-rate".to_owned() },
            1 => Verdict::Error,
            _ => Verdict::Open,
        };
        let (ready, alarm) = (!self.one_in(8), self.one_in(10));
        let (stable_degraded, sample_ratio, endpoint) = (self.one_in(20), self.one_in(20), self.one_in(30));
        Facts { ready, counts, verdict, alarm, stable_degraded, sample_ratio, endpoint }
    }

    fn event(&mut self) -> Event {
        match self.0.u8(0..24) {
            0..=5 => Event::Ask(self.0.usize(0..2), Box::new(self.ask())),
            6 | 7 => {
                let [api, web] = [0, 1].map(|_| (self.0.u8(1..=VERSIONS), self.0.u8(0..=VERSIONS), self.one_in(4)));
                // What has no route may leave and come back.
                Event::File([if self.one_in(4) { (0, 0, false) } else { api }, web])
            }
            8..=14 => Event::Tick(self.0.u32(1..600)),
            15..=20 => Event::Disk { fails: self.one_in(5), landed: self.one_in(3) },
            21 => Event::Disk { fails: true, landed: false },
            22 => Event::Crash { landed: self.0.bool() },
            _ if self.one_in(6) => Event::StoreLost,
            _ => Event::Disk { fails: false, landed: true },
        }
    }
}

fn play(seed: u64) {
    let mut random = Random(fastrand::Rng::with_seed(seed));
    let mut world = World::new();
    let mut played = Vec::new();
    for _ in 0..EVENTS {
        let event = random.event();
        played.push(format!("{event:?}"));
        let outcome = world.play(&event, |seen| random.facts(seen));
        if let Err(broken) = outcome {
            let last = played.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n  ");
            panic!("TIDEGATE_SIM_SEED={seed}: {broken}\nthe last events:\n  {last}");
        }
    }
    if let Err(broken) = world.settle() {
        panic!("TIDEGATE_SIM_SEED={seed}: at the end: {broken}");
    }
}

#[test]
fn the_ten_invariants_hold_over_a_thousand_histories() {
    if let Some(seed) = std::env::var("TIDEGATE_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return play(seed);
    }
    let seeds = if soak() { SEEDS_SOAK } else { SEEDS };
    for seed in 0..seeds {
        play(seed);
    }
}
