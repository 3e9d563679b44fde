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
                    senses[i].identify(request.session, false);
                    senses[i].begin(place, watch.tick(now));
                }
                Step::Written => senses[i].write(place, watch.tick(now)),
                Step::Over => {
                    senses[i].leave(place, Duration::from_millis(request.head), request.answered, now);
                    for _ in 0..2 {
                        if request.bad {
                            senses[i].bad(place, now);
                        } else if !done[i] {
                            senses[i].succeed(place, now);
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

/// Events of one series of one cell: tick, requests, firsts of their session.
type Told = Vec<(u64, u32, u32)>;
/// What makes an event of a series, and when its exposure was counted.
type Happens = (u16, fn(&Request) -> bool, fn(&Request) -> u64);

/// Everything that was read.
#[derive(Default)]
struct Account {
    begun: [u32; 3],
    written: [u32; 3],
    events: BTreeMap<(u8, gate::Cell), Told>,
    succeeded: [u32; 2],
    timed: u32,
    problems: Vec<String>,
}

impl Account {
    fn add(&mut self, taken: &Taken) {
        for exposures in &taken.exposures {
            let target = exposures.cell.endpoint().map_or(0, |index| usize::from(index) + 1);
            let sum = if exposures.channel == Channel::BEGUN { &mut self.begun } else { &mut self.written };
            sum[target] += exposures.count;
        }
        for e in &taken.events {
            self.events.entry((e.series, e.cell)).or_default().push((e.began, e.requests, e.sessions));
        }
        self.succeeded[0] += taken.succeeded[0];
        self.succeeded[1] += taken.succeeded[1];
        self.timed += taken.latencies[0].iter().map(|(_, n)| *n).sum::<u32>();
    }

    /// What is in flight is exactly what was written and is not over.
    fn check_in_flight(&mut self, tick: u64, taken: &Taken, requests: &[Request], series: u8) {
        let end = (tick + 1) * TICK_MS;
        for target in 0..3 {
            let there = requests.iter().filter(|r| r.target == target && r.begun + r.written < end);
            let there: Vec<u64> = there
                .filter(|r| r.begun + r.written + r.head >= end)
                .map(|r| (r.begun + r.written) / TICK_MS)
                .collect();
            let seen = taken.in_flight.iter().filter(|flight| flight.series == series && flight.cell == cell(target));
            let seen: Vec<u64> = seen.flat_map(|f| std::iter::repeat_n(f.began, f.requests as usize)).collect();
            if !is_told(&there, &seen) {
                self.problems.push(format!("{seen:?} in flight instead of {there:?} on {target} at {tick}"));
            }
        }
    }

    fn of(&self, mask: u16, target: usize) -> &[(u64, u32, u32)] {
        let series = u8::try_from(mask.trailing_zeros()).expect("small");
        self.events.get(&(series, cell(target))).map_or(&[], Vec::as_slice)
    }
}

/// Whether `told` has each of `ticks`, itself or the first of its second.
fn is_told(ticks: &[u64], told: &[u64]) -> bool {
    let mut left = ticks.to_vec();
    let gone =
        |left: &mut Vec<u64>, fits: &dyn Fn(u64) -> bool| left.iter().position(|t| fits(*t)).map(|at| left.remove(at));
    let mut all = told.iter();
    all.all(|tick| gone(&mut left, &|t| t == *tick).or_else(|| gone(&mut left, &|t| t / 20 * 20 == *tick)).is_some())
        && left.is_empty()
}

/// Sessions of `requests` that do something; whoever has none is one of its own.
fn sessions<'a>(requests: impl Iterator<Item = &'a Request>) -> usize {
    let (alone, known): (Vec<&Request>, Vec<&Request>) = requests.partition(|r| r.session == 0);
    let known: std::collections::BTreeSet<u64> = known.iter().map(|r| r.session).collect();
    alone.len() + known.len()
}

fn is_slow(request: &Request) -> bool {
    request.head > if request.target == 0 { 100 } else { 200 }
}

proptest! {
    #[test]
    fn what_is_read_is_what_happened(
        requests in prop::collection::vec(request(), 0..60),
        skipped in prop::collection::vec(0..200_u64, 0..6),
        by_request in any::<bool>(),
    ) {
        let watch = watch(if by_request { Unit::Request } else { Unit::Session });
        limited(&watch);
        let (what, mut account) = (watch.what(), Account::default());
        play(&watch, &requests, &skipped, |tick, taken| {
            account.add(taken);
            account.check_in_flight(tick, taken, &requests, what.slow[0]);
        });
        prop_assert!(account.problems.is_empty(), "{:?}", account.problems);
        let count = |wanted: &dyn Fn(&Request) -> bool| requests.iter().filter(|r| wanted(r)).count();
        let happens: [Happens; 2] =
            [(what.bad, |r| r.bad, |r| r.begun), (what.slow_mask, is_slow, |r| r.begun + r.written)];
        for target in 0..3 {
            let all = count(&|r| r.target == target);
            prop_assert_eq!((account.begun[target] as usize, account.written[target] as usize), (all, all));
            for (mask, happens, began) in happens {
                let wanted = requests.iter().filter(|r| r.target == target && happens(r));
                let wanted: Vec<u64> = wanted.map(|r| began(r) / TICK_MS).collect();
                let told = account.of(mask, target).iter();
                let told: Vec<u64> = told.flat_map(|(tick, n, _)| std::iter::repeat_n(*tick, *n as usize)).collect();
                prop_assert!(is_told(&wanted, &told), "{:?} instead of {:?} on {}", told, wanted, target);
            }
        }
        for (mask, happens, _) in happens {
            for variant in [0..1, 1..3] {
                let told = variant.clone().flat_map(|target| account.of(mask, target)).map(|(.., n)| *n as usize);
                let of = requests.iter().filter(|r| variant.contains(&r.target) && happens(r));
                let wanted = if by_request { of.count() } else { sessions(of) };
                prop_assert_eq!(told.sum::<usize>(), wanted, "sessions of {:?}", variant);
            }
        }
        let good = [count(&|r| !r.bad && r.target == 0), count(&|r| !r.bad && r.target > 0)];
        prop_assert_eq!(account.succeeded.map(|n| n as usize), good);
        prop_assert_eq!(account.timed as usize, count(&|r| r.target == 0 && r.answered));
    }
}

#[test]
fn a_tick_is_the_one_of_whatever_watch_is_asked_for() {
    let (began, ticks) = (clock::now(), Ticks::default());
    let watches = [0, 70].map(|ms| Watch::idle(&config(Unit::Session), 1, began + Duration::from_millis(ms)));
    for us in [0, 1, 49_999, 50_000, 99_999, 70_000, 119_999, 120_000, 3_600_000_000, 5] {
        let now = began + Duration::from_micros(us);
        for watch in watches.iter().chain(&watches) {
            assert_eq!(ticks.at(watch, now), watch.tick(now), "after {us} us");
        }
    }
}
