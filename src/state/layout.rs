//! What a choice within a pool needs beside the state of its endpoints; built when the pool is resolved.

use crate::core::balance::ring::Ring;

/// The weights of a pool's endpoints, and the ring over them where requests are hashed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By index of the endpoint.
    weights: Vec<u32>,
    /// The largest of them.
    largest: u32,
    /// Whether all are the same.
    equal: bool,
    ring: Option<Ring>,
}

// === impl Layout ===

impl Layout {
    /// For endpoints given as name and weight; `ringed`: requests are hashed.
    #[must_use]
    pub fn new(endpoints: &[(String, u32)], ringed: bool) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let largest = weights.iter().copied().max().unwrap_or(1);
        let equal = weights.iter().all(|&weight| weight == largest);
        Self { weights, largest, equal, ring: ringed.then(|| Ring::new(endpoints)) }
    }

    /// Whether it is the same for endpoints of these weights, if they are the same endpoints.
    #[must_use]
    pub fn serves(&self, weights: &[u32], ringed: bool) -> bool {
        self.weights == weights && self.ring.is_some() == ringed
    }

    /// The weight of an endpoint, above zero.
    #[must_use]
    pub fn weight(&self, endpoint: usize) -> u32 {
        self.weights.get(endpoint).copied().unwrap_or(1).max(1)
    }

    /// The largest weight, above zero.
    #[must_use]
    pub fn largest(&self) -> u32 {
        self.largest.max(1)
    }

    /// Whether all have the same weight.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.equal
    }

    /// The ring requests fall on.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }
}
