//! Latencies in a fixed amount of memory: buckets that grow with the value, at most 1/32 of it wide.

use serde::{Deserialize, Serialize};

/// Buckets per power of two.
const SUB: u64 = 32;
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Largest latency kept apart, in microseconds (134 s); larger ones count as this.
pub const LATENCY_MAX_US: u64 = (1 << 27) - 1;
/// Buckets of a sketch.
pub const BUCKETS: usize = bucket_of(LATENCY_MAX_US) as usize + 1;

/// How often each latency was seen. A quantile is the upper end of its bucket: never below the true one, at most 1/32 above it. Sketches
/// merge by addition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// Ascending by bucket, no zero counts.
    counts: Vec<(u16, u64)>,
    total: u64,
}

/// A quantile, and what lies above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantile {
    /// In microseconds.
    pub us: u64,
    /// Latencies strictly above it.
    pub above: u64,
    /// All of them.
    pub total: u64,
}

/// The bucket of a latency in microseconds: exact below 64, then 32 for each power of two.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the largest is the bucket of LATENCY_MAX_US, 735")]
pub const fn bucket_of(us: u64) -> u16 {
    let value = if us > LATENCY_MAX_US { LATENCY_MAX_US } else { us };
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    (SUB * shift as u64 + (value >> shift)) as u16
}

/// The largest latency of a bucket, in microseconds.
#[must_use]
pub fn upper(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let shift = (bucket / SUB).saturating_sub(1);
    ((bucket - SUB * shift + 1) << shift) - 1
}

// === impl Sketch ===

impl Sketch {
    /// Counts `count` latencies of `bucket`.
    pub fn add(&mut self, bucket: u16, count: u64) {
        if count == 0 {
            return;
        }
        self.total += count;
        match self.counts.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(at) => self.counts[at].1 += count,
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            self.add(*bucket, *count);
        }
    }

    /// How many latencies it holds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest bound that at most `above` latencies exceed; `None` unless there are more than that.
    #[must_use]
    pub fn exceeded_by(&self, above: u64) -> Option<Quantile> {
        if self.total <= above {
            return None;
        }
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().rev() {
            if seen + count > above {
                return Some(Quantile { us: upper(*bucket), above: seen, total: self.total });
            }
            seen += count;
        }
        None
    }

    /// The `q`-quantile.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        self.exceeded_by(share_above(self.total, q))
    }
}

/// How many of `total` may lie above their `q`-quantile, rounded down.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count is a count")]
pub(super) fn share_above(total: u64, q: f64) -> u64 {
    // A share such as 1 - 0.95 is a little less than it says: a billionth more is nearer to what was meant.
    (super::numeric::float(total) * (1.0 - q) + 1e-9).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(us: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        for us in us {
            sketch.add(bucket_of(*us), 1);
        }
        sketch
    }

    #[test]
    fn quantiles_of_known_values() {
        let sketch = of(&(1..=60).collect::<Vec<_>>());
        let at = |q| sketch.quantile(q).map(|q| (q.us, q.above));
        assert_eq!((at(0.5), at(0.95), at(0.0)), (Some((30, 30)), Some((57, 3)), None));
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(of(&[u64::MAX]).quantile(0.5).map(|q| q.us), Some(LATENCY_MAX_US));
        assert_eq!(BUCKETS, 736);
    }

    proptest! {
        #[test]
        fn a_latency_is_at_most_a_32nd_below_its_bucket(us in 0..=LATENCY_MAX_US, more in 0..1_000_u64) {
            let shown = upper(bucket_of(us));
            prop_assert!(shown >= us && shown - us <= us / SUB);
            prop_assert!(bucket_of(us) <= bucket_of(us + more));
        }

        #[test]
        fn merging_is_addition_in_any_order(a in prop::collection::vec(0..1_000_000_u64, 0..60), b in prop::collection::vec(0..1_000_000_u64, 0..60)) {
            let (mut ab, mut ba) = (of(&a), of(&b));
            ab.merge(&of(&b));
            ba.merge(&of(&a));
            prop_assert_eq!(&ab, &of(&[a, b].concat()));
            prop_assert_eq!(ab, ba);
        }

        #[test]
        fn a_quantile_says_exactly_how_many_are_above_it(mut us in prop::collection::vec(0..100_000_u64, 1..200), q in 0.01..0.999_f64) {
            let quantile = of(&us).quantile(q).expect("some");
            prop_assert_eq!(us.iter().filter(|v| **v > quantile.us).count() as u64, quantile.above);
            us.sort_unstable();
            let rank = us.len() - 1 - usize::try_from(share_above(us.len() as u64, q)).expect("small");
            prop_assert_eq!(quantile.us, upper(bucket_of(us[rank])));
        }
    }
}
