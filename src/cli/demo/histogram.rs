//! Latencies in a fixed amount of memory: buckets that grow with the value, at most 1/64 wide (as `HdrHistogram` does it).

use std::time::Duration;

/// Buckets per power of two.
const SUB: u64 = 64;
/// `SUB` as a power of two.
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Largest value kept apart, in microseconds (67 s); larger ones count as this.
const VALUE_MAX: u64 = (1 << 26) - 1;
const BUCKETS: usize = bucket(VALUE_MAX) + 1;

/// How often each latency was seen.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// The bucket of a value: exact below 128, then `SUB` for each power of two.
#[expect(clippy::cast_possible_truncation, reason = "the largest is the bucket of VALUE_MAX, 1343")]
const fn bucket(micros: u64) -> usize {
    let value = if micros > VALUE_MAX { VALUE_MAX } else { micros };
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (SUB * shift as u64 + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB).saturating_sub(1);
    ((bucket - SUB * shift + 1) << shift) - 1
}

// === impl Histogram ===

impl Histogram {
    /// Nothing seen yet.
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Counts one more.
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(VALUE_MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
    }

    /// The latency that `per_mille` of 1,000 requests stayed within, at most 1/64 too high; `None` if there was no request.
    pub(super) fn quantile(&self, per_mille: u64) -> Option<Duration> {
        let rank = (self.total * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(upper(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        micros.into_iter().for_each(|m| histogram.record(Duration::from_micros(m)));
        histogram
    }

    #[test]
    fn quantiles_of_known_values() {
        let histogram = of(1..=100);
        let micros = |per_mille| histogram.quantile(per_mille).map(|d| d.as_micros());
        assert_eq!((micros(0), micros(500), micros(990), micros(1_000)), (Some(1), Some(50), Some(99), Some(100)));
        assert_eq!(Histogram::new().quantile(500), None);
    }

    #[test]
    fn what_takes_longer_than_the_largest_counts_as_the_largest() {
        assert_eq!(of([u64::MAX]).quantile(500), Some(Duration::from_micros(VALUE_MAX)));
    }

    proptest! {
        #[test]
        fn a_value_is_at_most_a_64th_below_its_bucket(micros in 0..=VALUE_MAX) {
            let shown = upper(bucket(micros));
            prop_assert!(shown >= micros && shown - micros <= micros / SUB, "{} as {}", micros, shown);
        }

        #[test]
        fn buckets_are_in_order(a in 0..=VALUE_MAX, b in 0..=VALUE_MAX) {
            prop_assert_eq!(bucket(a.min(b)) <= bucket(a.max(b)), true);
        }

        #[test]
        fn a_quantile_is_that_of_the_sorted_values(mut values in prop::collection::vec(0..100_000_u64, 1..200), per_mille in 1..=1_000_u64) {
            let shown = of(values.iter().copied()).quantile(per_mille).expect("values");
            values.sort_unstable();
            let rank = usize::try_from((values.len() as u64 * per_mille).div_ceil(1_000)).expect("small");
            prop_assert_eq!(shown, Duration::from_micros(upper(bucket(values[rank - 1]))));
        }
    }
}
