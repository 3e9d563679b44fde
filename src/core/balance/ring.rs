//! A ring of hashes (consistent hashing; Karger et al. 1997): when an endpoint comes or goes, only its own share of the keys moves.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Points of an endpoint with weight 1: the shares of ten endpoints are then within some 10 % of each other.
const POINTS_PER_WEIGHT: u32 = 160;
/// Most points of a ring; with more endpoints than that each has at least one.
const POINTS_MAX: u32 = 1 << 16;

/// A ring over the endpoints of a pool, by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    /// In order of the hash.
    points: Vec<(u64, u32)>,
}

// === impl Ring ===

impl Ring {
    /// A ring over endpoints given as name and weight; the same on every replica for the same names and weights, in any order.
    #[must_use]
    pub fn new(endpoints: &[(String, u32)]) -> Self {
        let total: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let wanted = total * u64::from(POINTS_PER_WEIGHT);
        let per_weight = if wanted > u64::from(POINTS_MAX) {
            u64::from(POINTS_MAX) / total.max(1)
        } else {
            u64::from(POINTS_PER_WEIGHT)
        };
        let mut points = Vec::new();
        for (index, (name, weight)) in (0_u32..).zip(endpoints) {
            let count = (u64::from(*weight) * per_weight).max(1);
            points.extend((0..count).map(|n| (point(name, n), index)));
        }
        points.sort_unstable();
        Self { points }
    }

    /// The endpoints from `hash` on around the ring; one may come up again and again.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let from = self.points.partition_point(|(point, _)| *point < hash);
        self.points[from..].iter().chain(&self.points[..from]).map(|(_, index)| *index as usize)
    }
}

fn point(name: &str, n: u64) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(name.as_bytes());
    hasher.write_u64(n);
    hasher.finish()
}
