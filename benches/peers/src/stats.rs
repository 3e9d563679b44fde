//! Medians, and how sure they are.

use serde::Serialize;

/// The least confidence an interval is given for.
const CONFIDENCE: f64 = 0.95;

/// A median with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Median {
    /// The median.
    pub median: f64,
    /// Lower end of the interval; `None` when there are too few values for one of 95 %.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Number of values.
    pub n: usize,
}

// === impl Median ===

impl Median {
    /// Of some values; `None` without any.
    ///
    /// The interval is that of the sign test: between the k-th smallest and the k-th largest value lies the true median with a probability
    /// that follows from the binomial distribution alone, whatever the values are distributed like (Conover, Practical Nonparametric
    /// Statistics, section 3.2). Nine values: the second to the eighth, 96.1 %. Below six there is none of 95 %.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let middle = sorted.get(n / 2)?;
        let median = if n % 2 == 1 { *middle } else { f64::midpoint(*middle, sorted[n / 2 - 1]) };
        let rank = rank(n);
        Some(Self { median, low: rank.map(|k| sorted[k]), high: rank.map(|k| sorted[n - 1 - k]), n })
    }
}

/// How many values to leave out at each end.
fn rank(n: usize) -> Option<usize> {
    // P(Binomial(n, 1/2) <= k), summed from below.
    let mut term = 0.5_f64.powi(i32::try_from(n).ok()?);
    let (mut tail, mut best) = (0.0, None);
    for k in 0..n / 2 {
        tail += term;
        if 1.0 - 2.0 * tail < CONFIDENCE {
            break;
        }
        best = Some(k);
        term *= (n - k) as f64 / (k + 1) as f64;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Conover, table A3: smallest n with a 95 % interval is 6; 9 and 12 leave out one and two; 20 leaves out five.
        assert_eq!([5, 6, 8, 9, 11, 12, 20].map(rank), [None, Some(0), Some(0), Some(1), Some(1), Some(2), Some(5)]);
    }

    #[test]
    fn a_median_stands_in_its_interval() {
        let values = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0];
        assert_eq!(Median::of(&values), Some(Median { median: 5.0, low: Some(2.0), high: Some(8.0), n: 9 }));
        assert_eq!(Median::of(&[1.0, 4.0]), Some(Median { median: 2.5, low: None, high: None, n: 2 }));
        assert_eq!(Median::of(&[]), None);
    }
}
