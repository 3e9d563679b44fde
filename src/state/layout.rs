//! What a choice within a pool needs beside the state of its endpoints; built when the pool is resolved.

use crate::core::balance::ring::Ring;
use crate::core::balance::weights::Weights;

/// The weights of a pool's endpoints, and the ring over them where requests are hashed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By index of the endpoint.
    given: Vec<u32>,
    /// The same added up, unless all are the same.
    weights: Option<Weights>,
    ring: Option<Ring>,
}

// === impl Layout ===

impl Layout {
    /// For endpoints given as name and weight; `ringed`: requests are hashed.
    #[must_use]
    pub fn new(endpoints: &[(String, u32)], ringed: bool) -> Self {
        let given: Vec<u32> = endpoints.iter().map(|(_, weight)| *weight).collect();
        let weights = Weights::new(&given);
        Self { given, weights, ring: ringed.then(|| Ring::new(endpoints)) }
    }

    /// Whether it is the same for endpoints of these weights, if they are the same endpoints.
    #[must_use]
    pub fn serves(&self, weights: &[u32], ringed: bool) -> bool {
        self.given == weights && self.ring.is_some() == ringed
    }

    /// The weights; `None` when all are the same.
    #[must_use]
    pub fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }

    /// The ring requests fall on.
    #[must_use]
    pub fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }
}
