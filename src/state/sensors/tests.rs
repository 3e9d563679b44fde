//! What workers count, read back, against a model that remembers every request.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::core::endpoint::Address;
use crate::core::gate::{Channel, Unit};
use crate::core::id::{Name, Version};

const WORKERS: usize = 2;
/// Milliseconds of a tick.
const TICK_MS: u64 = 50;

fn config(unit: Unit) -> GateConfig {
    GateConfig { alpha: 0.001, unit, warmup: 0, reach: 1_220, metrics: GateConfig::default_metrics() }
}

fn member(port: u16) -> EndpointKey {
    EndpointKey {
        service: Name::new("web").expect("a name"),
        version: Version::new("v2").expect("a version"),
        address: Address::Ip(([127, 0, 0, 1], port).into()),
    }
}

/// A rollout with two endpoints of the candidate, in the order of the pool.
fn watch(unit: Unit) -> Watch {
    let mut watch = Watch::rollout(&config(unit), &[member(1), member(2)], WORKERS, clock::now());
    if let Some(watched) = &mut watch.rollout {
        watched.pool = vec![0, 1];
    }
    watch
}

/// Thresholds of 100 ms for stable and 200 ms for the candidate, for every latency series.
fn limited(watch: &Watch) {
    let json = |value: &Thresholds| serde_json::to_value(value).expect("JSON");
    let mut value = json(&Thresholds::NONE);
    for limit in value["limits"].as_array_mut().expect("limits") {
        *limit = serde_json::json!({ "stable_us": 100_000, "candidate_us": 200_000 });
    }
    watch.publish(&serde_json::from_value(value).expect("thresholds"));
}

fn place(watch: &Watch, worker: usize, target: usize) -> Place<'_> {
    let (variant, index) = if target == 0 { (Variant::Stable, 0) } else { (Variant::Candidate, target - 1) };
    Place { watch, shard: watch.counts(variant, index).expect("counted").of(worker), variant }
}

fn cell(target: usize) -> gate::Cell {
    if target == 0 { gate::Cell::STABLE } else { gate::Cell::candidate(u16::try_from(target - 1).expect("small")) }
}

/// What becomes of a request, in milliseconds since the watch began.
#[derive(Clone, Debug)]
struct Request {
    worker: usize,
    target: usize,
    session: u64,
    begun: u64,
    /// Afterwards.
    written: u64,
    /// After that, if it has a head.
    head: u64,
    answered: bool,
    bad: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let times = (0..6_000_u64, 0..300_u64, prop_oneof![0..400_u64, 0..9_000_u64]);
    let whom = (0..WORKERS, 0..3_usize, 0..6_u64);
    (whom, times, any::<bool>(), any::<bool>()).prop_map(
        |((worker, target, session), (begun, written, head), answered, bad)| Request {
            worker,
            target,
            session,
            begun,
            written,
            head,
            answered,
            bad,
        },
    )
}

/// One thing that happens to the request of this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begun,
    Written,
    Over,
}

fn timeline(requests: &[Request]) -> Vec<(u64, usize, Step)> {
    let mut all: Vec<_> = requests
        .iter()
        .enumerate()
        .flat_map(|(i, r)| {
            let written = r.begun + r.written;
            [(r.begun, i, Step::Begun), (written, i, Step::Written), (written + r.head, i, Step::Over)]
        })
        .collect();
    all.sort_by_key(|(at, i, step)| (*at, *step, *i));
    all
}

/// Plays `requests`, looking at the end of every tick but those in `skipped`; gives every look with its tick.
fn play(watch: &Watch, requests: &[Request], skipped: &[u64], mut looked: impl FnMut(u64, &Taken)) {
    let mut senses: Vec<Sense> = requests.iter().map(|_| Sense::default()).collect();
    let (mut reader, mut tick, mut done) = (Reader::default(), 0, vec![false; requests.len()]);
    let mut steps = timeline(requests).into_iter().peekable();
    while tick < 500 {
        while let Some((at, i, step)) = steps.next_if(|(at, ..)| *at < (tick + 1) * TICK_MS) {
            let (now, request) = (watch.began + Duration::from_millis(at), &requests[i]);
            let place = place(watch, request.worker, request.target);
            match step {
                Step::Begun => {
                    senses[i].identify(request.session);
                    senses[i].begin(place, now);
                }
                Step::Written => senses[i].write(place, now),
                Step::Over => {
                    senses[i].leave(place, Duration::from_millis(request.head), request.answered, now);
                    for _ in 0..2 {
                        if request.bad {
                            senses[i].bad(place, now)
                        } else if !done[i] {
                            senses[i].succeed(place, now)
                        }
                        done[i] = true;
                    }
                }
            }
        }
        if !skipped.contains(&tick) {
            looked(tick, reader.take(watch, tick, tick % 20 == 19));
        }
        tick += 1;
    }
    assert!(steps.next().is_none(), "all of it was played");
}

type Key = (u8, gate::Cell);

proptest! {
    #[test]
    fn what_is_read_is_what_happened(
        requests in prop::collection::vec(request(), 0..60),
        skipped in prop::collection::vec(0..200_u64, 0..6),
        by_request in any::<bool>(),
    ) {
        let watch = watch(if by_request { Unit::Request } else { Unit::Session });
        limited(&watch);
        let what = watch.what();
        let (mut begun, mut written, mut events) = ([0; 3], [0; 3], BTreeMap::<Key, Vec<(u64, u32, u32)>>::new());
        let (mut succeeded, mut timed) = ([0; 2], 0);
        let mut problems = Vec::new();
        play(&watch, &requests, &skipped, |tick, taken| {
            for exposures in &taken.exposures {
                let target = exposures.cell.endpoint().map_or(0, |index| usize::from(index) + 1);
                let sum = if exposures.channel == Channel::BEGUN { &mut begun } else { &mut written };
                sum[target] += exposures.count;
            }
            for e in &taken.events {
                events.entry((e.series, e.cell)).or_default().push((e.began, e.requests, e.sessions));
            }
            succeeded[0] += taken.succeeded[0];
            succeeded[1] += taken.succeeded[1];
            timed += taken.latencies[0].iter().map(|(_, n)| *n).sum::<u32>();
            // What is in flight is exactly what was written and is not over.
            let mut waiting = BTreeMap::<gate::Cell, u32>::new();
            for flight in taken.in_flight.iter().filter(|flight| flight.series == what.slow[0]) {
                *waiting.entry(flight.cell).or_default() += flight.requests;
                let alone = requests.iter().any(|r| {
                    let at = (r.begun + r.written) / TICK_MS;
                    cell(r.target) == flight.cell && (at == flight.began || at / 20 * 20 == flight.began)
                });
                if !alone {
                    problems.push(format!("{flight:?} at {tick} never began"));
                }
            }
            let end = (tick + 1) * TICK_MS;
            for target in 0..3 {
                let there = requests.iter().filter(|r| r.target == target && r.begun + r.written < end);
                let there = there.filter(|r| r.begun + r.written + r.head >= end).count();
                let seen = waiting.get(&cell(target)).copied().unwrap_or(0) as usize;
                if seen != there {
                    problems.push(format!("{seen} in flight instead of {there} on {target} at {tick}"));
                }
            }
        });
        prop_assert!(problems.is_empty(), "{:?}", problems);
        for target in 0..3 {
            let of: Vec<&Request> = requests.iter().filter(|r| r.target == target).collect();
            prop_assert_eq!((begun[target], written[target]), (of.len() as u32, of.len() as u32));
            let limit = if target == 0 { 100 } else { 200 };
            for (mask, began, wanted) in [
                (what.bad, 0, of.iter().filter(|r| r.bad).map(|r| r.begun).collect::<Vec<_>>()),
                (what.slow_mask, 1, of.iter().filter(|r| r.head > limit).map(|r| r.begun + r.written).collect()),
            ] {
                let series = u8::try_from(mask.trailing_zeros()).expect("small");
                let seen = events.get(&(series, cell(target))).cloned().unwrap_or_default();
                let sum: u32 = seen.iter().map(|(_, n, _)| n).sum();
                prop_assert_eq!(sum as usize, wanted.len(), "series {} of {}", series, target);
                // Each in the tick it began in, or in the second if it came late.
                let mut ticks: Vec<u64> = wanted.iter().map(|ms| ms / TICK_MS).collect();
                for (tick, n, _) in &seen {
                    for _ in 0..*n {
                        let found = ticks.iter().position(|t| t == tick).or_else(|| {
                            ticks.iter().position(|t| t / 20 * 20 == *tick)
                        });
                        prop_assert!(found.is_some(), "{} of {:?} ({})", tick, ticks, began);
                        ticks.remove(found.expect("found"));
                    }
                }
                let sessions: u32 = seen.iter().map(|(_, _, n)| n).sum();
                prop_assert!(sessions <= sum && (!by_request || sessions == sum));
            }
        }
        let good = |side: bool| requests.iter().filter(|r| !r.bad && (r.target > 0) == side).count() as u32;
        prop_assert_eq!(succeeded, [good(false), good(true)]);
        prop_assert_eq!(timed as usize, requests.iter().filter(|r| r.target == 0 && r.answered).count());
    }
}
