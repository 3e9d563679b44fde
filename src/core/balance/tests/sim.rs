//! Peak EWMA over minutes of simulated traffic: what hangs, what is new, what still grows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

/// A pool under way, its clock in milliseconds.
struct Sim {
    now: u32,
    averages: Vec<Ewma>,
    load: Vec<u32>,
    growth: Vec<u32>,
    hits: Vec<u64>,
    /// When which endpoint answers, and when that was asked.
    answers: BinaryHeap<Reverse<(u32, usize, u32)>>,
    bits: Bits,
}

impl Members for Sim {
    fn count(&self) -> usize {
        self.averages.len()
    }
    fn is_eligible(&self, _endpoint: usize) -> bool {
        true
    }
    fn load(&self, endpoint: usize) -> u32 {
        self.load[endpoint]
    }
    fn total_load(&self) -> u64 {
        self.load.iter().map(|&load| u64::from(load)).sum()
    }
    fn weights(&self) -> Option<&Weights> {
        None
    }
    fn growth(&self, endpoint: usize) -> u32 {
        self.growth[endpoint]
    }
    fn latency(&self, endpoint: usize) -> Latency {
        self.averages[endpoint].at(self.now, self.load[endpoint] > 0)
    }
}

impl Sim {
    fn new(count: usize) -> Self {
        let (averages, load, growth) = (vec![Ewma::default(); count], vec![0; count], vec![GROWN; count]);
        let (hits, answers, bits) = (vec![0; count], BinaryHeap::new(), Bits(7));
        Self { now: 0, averages, load, growth, hits, answers, bits }
    }

    /// One request every `every` milliseconds for `lasting`; each endpoint takes as long as `takes` says, `None` for ever. Gives how many
    /// each got.
    fn run(&mut self, lasting: u32, every: u32, takes: impl Fn(usize, u32) -> Option<u32>) -> Vec<u64> {
        let before = self.hits.clone();
        let end = self.now + lasting;
        while self.now < end {
            while let Some(&Reverse((at, endpoint, asked))) = self.answers.peek()
                && at <= self.now
            {
                self.answers.pop();
                self.load[endpoint] -= 1;
                let took = Duration::from_millis(u64::from(at - asked)).as_secs_f32() * 1e6;
                self.averages[endpoint] = self.averages[endpoint].observe(at, Some(took));
            }
            let random = self.bits.next();
            let taken = pick(Balance::PeakEwma, self, &draw(random, 0)).expect("all are eligible");
            self.load[taken] += 1;
            self.hits[taken] += 1;
            if let Some(takes) = takes(taken, self.now) {
                self.answers.push(Reverse((self.now + takes, taken, self.now)));
            }
            self.now += every;
        }
        self.hits.iter().zip(before).map(|(after, before)| after - before).collect()
    }
}

/// Four to eight milliseconds.
fn usual(endpoint: usize, now: u32) -> u32 {
    4 + u32::try_from(hash_of(u64::from(now) << 8 | endpoint as u64) % 5).expect("small")
}

#[test]
fn one_that_hangs_does_not_attract_more_and_more() {
    let mut sim = Sim::new(4);
    let hits = sim.run(5_000, 2, |endpoint, now| Some(usual(endpoint, now)));
    assert!(hits.iter().all(|&hits| hits > 100), "{hits:?}");
    let hits = sim.run(120_000, 2, |endpoint, now| (endpoint != 0).then(|| usual(endpoint, now)));
    assert!(hits[0] <= 8, "in two minutes of 500 requests a second {} are stuck", hits[0]);
}

#[test]
fn one_that_joins_gets_a_single_request_until_its_first_answer() {
    let mut sim = Sim::new(3);
    sim.run(5_000, 2, |endpoint, now| Some(usual(endpoint, now)));
    sim.averages.push(Ewma::default());
    sim.load.push(0);
    sim.growth.push(GROWN);
    sim.hits.push(0);
    let cold = |endpoint, now| Some(if endpoint == 3 { 2_000 } else { usual(endpoint, now) });
    assert_eq!(sim.run(1_900, 2, cold)[3], 1);
    // Its first answer was slow: that is not forgotten at once, and not for ever.
    assert!(sim.run(10_000, 2, |endpoint, now| Some(usual(endpoint, now)))[3] <= 3);
    let hits = sim.run(120_000, 2, |endpoint, now| Some(usual(endpoint, now)));
    assert!(hits[3] > 6_000, "{hits:?}");
}

#[test]
fn one_that_joins_and_is_as_fast_as_the_others_gets_its_share_from_the_beginning() {
    let mut sim = Sim::new(3);
    sim.run(5_000, 2, |_, _| Some(5));
    sim.averages[1] = Ewma::default();
    let hits = sim.run(2_000, 2, |_, _| Some(5));
    assert!((200..500).contains(&hits[1]), "{hits:?}");
}

#[test]
fn one_that_still_grows_gets_its_part_of_two() {
    for every in [1, 2, 10, 50] {
        let mut sim = Sim::new(2);
        sim.run(5_000, every, |_, _| Some(5));
        sim.averages[1] = Ewma::default();
        sim.growth[1] = GROWN_MIN;
        let hits = sim.run(60_000, every, |_, _| Some(5));
        let part = hits[1] * 100 / hits.iter().sum::<u64>();
        assert!((4..=15).contains(&part), "one request every {every} ms: {part} %");
    }
}
