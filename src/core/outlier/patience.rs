//! How long a client has to have waited for a response head before its leaving speaks against the endpoint.
//!
//! Clients that give up are the only ones who notice an endpoint that accepts and never answers, long before the response timeout. What
//! is long differs: a search takes milliseconds, a long poll half a minute. So the bound follows what the pool took for its answers lately.

use std::time::Duration;

/// Least wait that says anything: people leave pages that are in order, too.
pub const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// The bound while nothing of the pool was answered yet.
pub const PATIENCE_UNKNOWN: Duration = Duration::from_secs(10);
/// So many times as long as all but a few answers take.
const FACTOR: u32 = 3;
/// Answers that may be slower than all but a few, in percent.
const SLOW_PERCENT: u64 = 1;
/// What one answer counts as: what is left of it halves with every six seconds or so of answers, and ends as next to nothing.
const ONE: u64 = 1_024;
/// The part that is forgotten each time.
const FORGET: u64 = 8;

/// The recent answers of one pool by how long they took.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// Counts at the last look, cumulative.
    seen: Vec<u64>,
    /// Recent ones, in parts of [`ONE`].
    recent: Vec<u64>,
}

// === impl Patience ===

impl Patience {
    /// Takes in how many answers of the pool fell below each of `bounds_us` (not cumulative over the bounds, but since the beginning; the
    /// last count is of those above all bounds); called about once a second. What is forgotten goes with what comes: an endpoint that
    /// answers nothing changes nothing. The new bound; `None`: there is none, answers take longer than is measured.
    pub fn observe(&mut self, counts: &[u64], bounds_us: &[u64]) -> Option<Duration> {
        self.seen.resize(counts.len(), 0);
        self.recent.resize(counts.len(), 0);
        // Fewer than before: endpoints have left with theirs.
        let new: Vec<u64> = counts.iter().zip(&self.seen).map(|(now, before)| now.saturating_sub(*before)).collect();
        self.seen.copy_from_slice(counts);
        if new.iter().any(|count| *count > 0) {
            for (recent, new) in self.recent.iter_mut().zip(new) {
                *recent += new.saturating_mul(ONE);
                *recent -= *recent / FORGET;
            }
        }
        self.bound(bounds_us)
    }

    fn bound(&self, bounds_us: &[u64]) -> Option<Duration> {
        let all: u64 = self.recent.iter().sum();
        if all == 0 {
            return Some(PATIENCE_UNKNOWN);
        }
        let mut slower = 0;
        let slow = |count: &u64| {
            slower += count;
            slower * 100 > all * SLOW_PERCENT
        };
        let usual = self.recent.iter().rposition(slow).unwrap_or(0);
        let usual = Duration::from_micros(*bounds_us.get(usual)?);
        Some((usual * FACTOR).max(PATIENCE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 ms, 1 s, 60 s.
    const BOUNDS: [u64; 3] = [1_000, 1_000_000, 60_000_000];
    const MINUTES: Duration = Duration::from_secs(180);

    #[test]
    fn the_bound_follows_all_but_the_slowest_answers() {
        for (counts, bound) in [
            ([0, 0, 0, 0], Some(PATIENCE_UNKNOWN)),
            ([10, 0, 0, 0], Some(PATIENCE_MIN)),
            ([0, 10, 0, 0], Some(Duration::from_secs(3))),
            ([985, 5, 5, 5], Some(Duration::from_secs(3))),
            ([995, 2, 2, 1], Some(PATIENCE_MIN)),
            ([0, 0, 10, 0], Some(MINUTES)),
            ([98, 0, 0, 2], None),
        ] {
            assert_eq!(Patience::default().observe(&counts, &BOUNDS), bound, "{counts:?}");
        }
    }

    #[test]
    fn what_was_slow_is_forgotten_as_new_answers_come_and_silence_changes_nothing() {
        let mut patience = Patience::default();
        let mut counts = [0, 0, 100, 0];
        assert_eq!(patience.observe(&counts, &BOUNDS), Some(MINUTES));
        for _ in 0..1_000 {
            assert_eq!(patience.observe(&counts, &BOUNDS), Some(MINUTES), "nothing came");
        }
        let quick = (1..200).find(|_| {
            counts[0] += 100;
            patience.observe(&counts, &BOUNDS) == Some(PATIENCE_MIN)
        });
        assert!(quick.is_some_and(|seconds| (10..60).contains(&seconds)), "{quick:?}");
        assert_eq!(patience.observe(&[1, 0, 0, 0], &BOUNDS), Some(PATIENCE_MIN), "an endpoint left");
    }
}
