//! Judges of a canary side by side on the same simulated traffic: how often each takes a healthy candidate back, which faults it misses, how
//! long it takes and how many requests fail meanwhile.
//!
//! # Method
//!
//! A rollout gives the candidate 5 % and is watched for an hour. [`traffic`] draws its requests; every judge sees the same ones, so a
//! difference is the judge's. All but Tidegate's read counters of a metrics database that is never late: scrapes every five seconds, no
//! delay for queries, no missing sample. What each is set to, and where that is documented, is said in [`judges`]. Where documentation and
//! program differ, the faster of the two is taken. Seeds are fixed: the same seed gives the same figures on every machine.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "simulated counts and times are small and not negative"
)]

pub(crate) mod judges;
pub(crate) mod kayenta;
mod own;
pub(crate) mod plot;
pub(crate) mod polling;
pub(crate) mod ranks;
pub(crate) mod report;
pub(crate) mod rollout;
pub(crate) mod traffic;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use judges::JUDGES;
pub(crate) use rollout::Ended;
pub(crate) use traffic::Case;

/// Requests per second, from busy to hardly any.
pub(crate) const RATES: [f64; 3] = [1_000.0, 50.0, 5.0];

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Everything follows from it.
    pub(crate) seed: u64,
    /// Rollouts of each shape of healthy traffic at each rate.
    pub(crate) healthy: usize,
    /// Rollouts of each fault at each rate.
    pub(crate) faulty: usize,
    /// How long each is watched, in seconds; whole minutes.
    pub(crate) seconds: u64,
}

/// What became of all rollouts of one case at one rate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) case: Case,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Per rollout what each judge did.
    pub(crate) rollouts: Vec<[Ended; JUDGES.len()]>,
}

/// One judge's figures of one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Share of the rollouts it took back.
    pub(crate) taken_back: f64,
    /// Seconds until then: the median and what 95 % stay within; none where that many were not taken back.
    pub(crate) median: Option<f64>,
    pub(crate) p95: Option<f64>,
    /// Median of the candidate's requests that had failed or hung by then, or by the end.
    pub(crate) failed: u32,
}

// === impl Plan ===

impl Plan {
    /// Simulates everything, on as many processors as there are.
    pub(crate) fn run(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        let mut jobs: Vec<(usize, u64)> = Vec::new();
        for (case, rate) in Case::ALL.into_iter().flat_map(|case| RATES.map(|rate| (case, rate))) {
            let count = if case.is_healthy() { self.healthy } else { self.faulty };
            // A cell's seeds begin where no other cell's end.
            let first = self.seed.wrapping_add(cells.len() as u64 * 1_000_000);
            jobs.extend((0..count as u64).map(|n| (cells.len(), first.wrapping_add(n))));
            cells.push(Cell { case, rate, rollouts: Vec::with_capacity(count) });
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let Some((cell, seed)) = jobs.get(job).copied() else { return done };
                done.push((job, rollout::run(cells[cell].case, cells[cell].rate, self.seconds, seed)));
            }
        };
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let mut done: Vec<_> = thread::scope(|scope| {
            let started: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            started
                .into_iter()
                .flat_map(|worker| worker.join().expect("a simulation without a fault of its own"))
                .collect()
        });
        done.sort_unstable_by_key(|(job, _)| *job);
        for (job, ended) in done {
            cells[jobs[job].0].rollouts.push(ended);
        }
        cells
    }
}

// === impl Cell ===

impl Cell {
    /// What the judge of index `judge` in [`JUDGES`] did.
    pub(crate) fn figures(&self, judge: usize) -> Figures {
        let ended = || self.rollouts.iter().map(move |rollout| rollout[judge]);
        let mut times: Vec<f64> = ended().map(|ended| ended.at.unwrap_or(f64::INFINITY)).collect();
        let mut failed: Vec<u32> = ended().map(|ended| ended.failed).collect();
        times.sort_unstable_by(f64::total_cmp);
        failed.sort_unstable();
        let last = times.len().saturating_sub(1) as f64;
        let at = |share: f64| (last * share).round() as usize;
        let time = |share| times.get(at(share)).copied().filter(|time| time.is_finite());
        let taken_back = times.iter().filter(|time| time.is_finite()).count();
        Figures {
            taken_back: taken_back as f64 / times.len().max(1) as f64,
            median: time(0.5),
            p95: time(0.95),
            failed: failed.get(at(0.5)).copied().unwrap_or(0),
        }
    }
}
