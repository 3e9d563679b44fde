//! All traffic on the candidate: nobody is left to compare with, so an alarm asks for a trial, and the trial says whose fault it is.

use tidegate::core::gate::{Cell, Verdict};

use super::behaviour::{Slow, usual};
use super::world::{BEGIN, World, bad, errors_only, quantile};

/// Ticks before something goes wrong: 5 s.
const WELL: u64 = 100;
/// Ticks it is watched for from then on: longer than a trial.
const WATCHED: u64 = 900;
const SECOND: f64 = 20.0;

/// What the gate said, in seconds after something went wrong.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    alarm: Option<f64>,
    harmful: Option<f64>,
    /// That both are to blame.
    degraded: Option<f64>,
}

// === impl Said ===

impl Said {
    /// Takes in the verdict `at` so many ticks after something went wrong; the weight for the next one.
    fn hear(&mut self, at: u64, verdict: &Verdict) -> u16 {
        let seconds = (at + 1) as f64 / SECOND;
        let first = |said: &mut Option<f64>, is: bool| {
            if is && said.is_none() {
                *said = Some(seconds);
            }
        };
        first(&mut self.alarm, verdict.trial);
        first(&mut self.harmful, verdict.outcome.is_harmful());
        first(&mut self.degraded, verdict.paused.stable_degraded);
        if verdict.trial { 5_000 } else { 10_000 }
    }
}

/// 1,000 requests per second, of which half fail from some moment on: on the candidate, or on whoever gets them if `shared`.
fn outage(seed: u64, shared: bool) -> Said {
    let mut world = World::new(errors_only(), seed, 1_000.0, 0.001);
    let (mut weight, mut said) = (10_000_u16, Said::default());
    for at in 0..WELL + WATCHED {
        world.now = BEGIN + at;
        let broken = at >= WELL;
        let rate = |side: usize| if broken && (side == 0 || shared) { 0.5 } else { 0.001 };
        let share = [f64::from(weight) / 1e4, 1.0 - f64::from(weight) / 1e4];
        let (mut exposed, mut failed) = ([0; 2], [0; 2]);
        for side in 0..2 {
            // Fifty requests per tick, each with its own draw: rates change on the way.
            exposed[side] = (50.0 * share[side] + world.rng.f64()) as u32;
            failed[side] = (0..exposed[side]).filter(|_| world.rng.f64() < rate(side)).count() as u32;
        }
        let events = [bad(Cell::candidate(0), world.now, failed[0]), bad(Cell::STABLE, world.now, failed[1])];
        let verdict = world.feed(weight, exposed, &events);
        assert!(broken || !verdict.trial, "seed {seed}: an alarm at tick {at}, and nothing is wrong");
        weight = said.hear(at.saturating_sub(WELL), &verdict);
        if said.harmful.is_some() {
            break;
        }
    }
    said
}

/// Latencies alone, `rps` requests per second: three times as long from some moment on, on the candidate, or on both if `shared`.
fn slowness(seed: u64, rps: u32, shared: bool) -> Said {
    // A quarter first: thresholds come from stable. Then everything, through its warm-up.
    let mut slow = Slow::new(seed, rps, 2_500);
    assert_eq!(slow.condemned_after(20, |_, draw| usual(draw)), None, "seed {seed}");
    slow.weight = 10_000;
    for at in 0..250 {
        assert!(!slow.tick(|_, draw| usual(draw)).trial, "seed {seed}: an alarm at tick {at}, and nothing is slow");
    }
    let mut said = Said::default();
    for at in 0..WATCHED {
        let verdict = slow.tick(|candidate, draw| usual(draw) * if candidate || shared { 3 } else { 1 });
        slow.weight = said.hear(at, &verdict);
        if said.harmful.is_some() {
            break;
        }
    }
    said
}

/// Whether a shared outage is blamed on the candidate.
pub(super) fn shared_outage(seed: u64) -> bool {
    let said = outage(seed, true);
    assert!(said.harmful.is_some() || (said.alarm.is_some() && said.degraded.is_some()), "seed {seed}: {said:?}");
    said.harmful.is_some()
}

/// Whether a shared slowness is blamed on the candidate.
pub(super) fn shared_slowness(seed: u64) -> bool {
    let said = slowness(seed, 200, true);
    assert!(said.harmful.is_some() || (said.alarm.is_some() && said.degraded.is_some()), "seed {seed}: {said:?}");
    said.harmful.is_some()
}

/// Median and largest seconds to the alarm, and from there to the abort.
fn times(said: &[Said]) -> [f64; 4] {
    let alarms: Vec<Option<f64>> = said.iter().map(|said| said.alarm).collect();
    let aborts: Vec<Option<f64>> = said.iter().map(|said| Some(said.harmful? - said.alarm?)).collect();
    assert!(said.iter().all(|said| said.degraded.is_none()), "both are blamed: {said:?}");
    [quantile(&alarms, 0.5), quantile(&alarms, 1.0), quantile(&aborts, 0.5), quantile(&aborts, 1.0)]
}

#[test]
fn a_broken_candidate_alone_is_tried_at_once_and_condemned_soon_after() {
    let said: Vec<Said> = (1..=40).map(|seed| outage(seed, false)).collect();
    let [alarm, latest, abort, longest] = times(&said);
    println!("alarm after {alarm:.2} s (at most {latest:.2}), abort {abort:.2} s later (at most {longest:.2})");
    assert!(latest <= 0.1 + 1e-9 && abort <= 0.1 + 1e-9, "{latest} s, {abort} s");
    assert!(longest <= 0.2 + 1e-9, "{longest} s");
}

#[test]
fn a_slow_candidate_alone_is_tried_and_condemned_by_its_latency() {
    let said: Vec<Said> = (1..=4).map(|seed| slowness(seed, 1_000, false)).collect();
    let [alarm, latest, abort, longest] = times(&said);
    println!("alarm after {alarm:.2} s (at most {latest:.2}), abort {abort:.2} s later (at most {longest:.2})");
    assert!(latest <= 0.5 + 1e-9 && longest <= 0.5 + 1e-9, "{latest} s, {longest} s");
}

/// Found by reading: where no metric counts errors there is nothing to hold stable to, and the trial never ended.
#[test]
fn a_trial_of_latencies_alone_ends_by_itself() {
    let mut slow = Slow::new(1, 200, 2_500);
    assert_eq!(slow.condemned_after(20, |_, draw| usual(draw)), None);
    slow.weight = 10_000;
    (0..250).for_each(|_| assert!(!slow.tick(|_, draw| usual(draw)).trial));
    let (mut seen, mut ended) = (Said::default(), None);
    for at in 0..1_800 {
        // Everything is slow for three seconds.
        let verdict = slow.tick(|_, draw| usual(draw) * if at < 60 { 3 } else { 1 });
        assert!(!verdict.outcome.is_harmful());
        slow.weight = seen.hear(at, &verdict);
        if seen.degraded.is_some() && !verdict.trial && ended.is_none() {
            assert!(!verdict.paused.stable_degraded);
            ended = Some(at as f64 / SECOND);
        }
    }
    // A trial, and one hold of as long.
    assert!(ended.is_some_and(|seconds| (60.0..=65.0).contains(&seconds)), "{seen:?}, ended at {ended:?}");
}
