//! The weights of a pool's endpoints, added up so that where a number falls among them is found in a few steps.

/// What each endpoint of a pool is configured to get, by index; not all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// The sum of the weights up to and including each endpoint.
    ends: Vec<u64>,
}

// === impl Weights ===

impl Weights {
    /// Of these weights, each at least one; `None` when all are the same.
    #[must_use]
    pub fn new(weights: &[u32]) -> Option<Self> {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return None;
        }
        let ends = weights.iter().scan(0, |end: &mut u64, &weight| {
            *end += u64::from(weight.max(1));
            Some(*end)
        });
        Some(Self { ends: ends.collect() })
    }

    /// The weight of one, above zero; of one that is not there, zero.
    #[must_use]
    pub fn of(&self, endpoint: usize) -> u64 {
        self.ends.get(endpoint).map_or(0, |end| end - self.before(endpoint))
    }

    /// What those before one have together.
    #[must_use]
    pub fn before(&self, endpoint: usize) -> u64 {
        endpoint.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }

    /// What all have together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The endpoint `at` falls on, below the total.
    #[must_use]
    pub fn find(&self, at: u64) -> usize {
        self.ends.partition_point(|&end| end <= at).min(self.ends.len().saturating_sub(1))
    }
}
