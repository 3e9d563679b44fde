//! The promise: over all shapes of traffic in which nothing is wrong with the candidate, at most alpha of the rollouts are condemned.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::world::{at_most, runs};
use super::{behaviour, shapes, trials};

/// A shape, how many rollouts of it there are every day, and whether one of this seed is condemned.
type Null = (&'static str, u64, fn(u64) -> bool);

const NULLS: [Null; 17] = [
    ("A/A, 1,000/s, 5 %, 0.1 % errors", 300, shapes::twins_at_a_thousand_requests_per_second),
    ("A/A, 200/s, 25 %, 1 %", 300, shapes::twins_at_a_quarter),
    ("A/A, 50/s, 5 %, 2 %", 300, shapes::twins_with_little_traffic),
    ("A/A, 1,000/s, 1 %, 50 %", 300, shapes::twins_that_fail_half_of_the_time),
    ("shared outage of 50 %", 250, shapes::a_shared_outage),
    ("exactly at the bound", 250, shapes::exactly_as_bad_as_allowed),
    ("under the floor, then a shared outage", 100, shapes::under_the_floor_and_then_a_shared_outage),
    ("5/s", 100, shapes::five_requests_per_second),
    ("five default tests", 120, shapes::five_default_tests),
    ("latencies as slow as allowed", 120, shapes::latencies_as_slow_as_allowed),
    ("sessions with bursts of errors", 200, shapes::sessions_with_bursts_of_errors),
    ("slow successes, fast failures", 120, shapes::slow_successes_beside_fast_failures),
    ("one dead endpoint of four", 100, shapes::one_dead_endpoint_of_four),
    ("four healthy endpoints", 60, shapes::four_healthy_endpoints),
    ("thresholds taken from stable", 25, behaviour::twins_with_thresholds_taken_from_stable),
    ("shared outage at 100 %", 200, trials::shared_outage),
    ("shared slowness at 100 %", 25, trials::shared_slowness),
];

#[test]
fn of_all_innocent_rollouts_at_most_alpha_is_condemned() {
    let jobs: Vec<(usize, u64)> = NULLS
        .iter()
        .enumerate()
        .flat_map(|(shape, (_, quick, _))| (1..=runs(*quick)).map(move |seed| (shape, seed)))
        .collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((shape, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            if NULLS[shape].2(seed) {
                wrong.lock().unwrap_or_else(PoisonError::into_inner).push((shape, seed));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seeds_of =
        |shape: usize| wrong.iter().filter(|(of, _)| *of == shape).map(|(_, seed)| *seed).collect::<Vec<_>>();
    for (shape, (name, quick, _)) in NULLS.iter().enumerate() {
        let (condemned, of) = (seeds_of(shape), runs(*quick));
        println!("{name}: {} of {of} condemned", condemned.len());
        assert!(condemned.len() as u64 <= at_most(of), "{name}: seeds {condemned:?} of {of} condemned");
    }
    let (all, allowed) = (jobs.len() as u64, at_most(jobs.len() as u64));
    let blamed: Vec<_> = wrong.iter().filter(|(shape, _)| NULLS[*shape].0.ends_with("at 100 %")).collect();
    assert!(blamed.is_empty(), "a trial is there to blame nobody for what both share: {blamed:?}");
    println!("together: {} of {all} condemned, {allowed} would be possible at alpha", wrong.len());
    assert!(wrong.len() as u64 <= allowed, "{} of {all} condemned, alpha allows {allowed}", wrong.len());
}
