//! What latencies are compared with, as workers read it: control publishes another set now and then, requests remember which one held.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::core::gate::Thresholds;

use super::what::What;

/// Sets that are kept: they change once a second at most (and when a warmup begins), so a request finds its own for longer than any
/// threshold it could be compared with is.
const KEPT: u32 = 128;
/// A client that leaves sooner than this says nothing about the upstream.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Thresholds by the number of their set.
#[derive(Debug)]
pub struct Limits {
    newest: AtomicU32,
    /// Per set and place in [`What::slow`], in microseconds: of stable, of the candidate.
    sets: Box<[[AtomicU64; 2]]>,
    slow: usize,
    patience_us: AtomicU64,
}

// === impl Limits ===

impl Limits {
    pub(super) fn new(what: &What) -> Self {
        let slow = what.slow.len();
        let sets = (0..slow * KEPT as usize).map(|_| [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)]).collect();
        let patience_us = AtomicU64::new(micros(PATIENCE_MIN));
        Self { newest: AtomicU32::new(0), sets, slow, patience_us }
    }

    /// In force from now on. Only control calls this.
    pub(super) fn publish(&self, thresholds: &Thresholds, what: &What) {
        let next = self.newest.load(Ordering::Relaxed).wrapping_add(1);
        for (place, series) in what.slow.iter().enumerate() {
            let limit = thresholds.of(usize::from(*series));
            if let Some([stable, candidate]) = self.sets.get(self.at(next, place)) {
                stable.store(limit.stable_us, Ordering::Relaxed);
                candidate.store(limit.candidate_us, Ordering::Relaxed);
            }
        }
        let highest = what.highest.map(|place| thresholds.of(usize::from(what.slow[place])).stable_us);
        let known = highest.filter(|us| *us != u64::MAX).unwrap_or(0);
        self.patience_us.store(known.max(micros(PATIENCE_MIN)), Ordering::Relaxed);
        self.newest.store(next, Ordering::Release);
    }

    /// The number of the set in force.
    pub(super) fn newest(&self) -> u32 {
        self.newest.load(Ordering::Acquire)
    }

    /// The thresholds in the set of this number, in the order of [`What::slow`]: of stable, of the candidate, in microseconds.
    pub(super) fn of(&self, set: u32) -> &[[AtomicU64; 2]] {
        let at = self.at(set, 0);
        self.sets.get(at..at + self.slow).unwrap_or_default()
    }

    /// Whether a client that leaves after waiting so long for a response head has waited long enough to blame the upstream.
    #[must_use]
    pub fn is_patient(&self, waited: Duration) -> bool {
        micros(waited) > self.patience_us.load(Ordering::Relaxed)
    }

    fn at(&self, set: u32, place: usize) -> usize {
        (set % KEPT) as usize * self.slow + place
    }
}

/// A duration in microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}
