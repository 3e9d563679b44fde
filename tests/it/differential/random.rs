//! Randomness that is the input's own: an input is checked in the same way every time.

use std::hash::{DefaultHasher, Hasher};

use fastrand::Rng;

/// Longest input that is also fed byte by byte, in bytes.
const DRIP_MAX: usize = 1024;

/// Random numbers for checking `input`.
#[must_use]
pub fn random_of(input: &[u8]) -> Rng {
    let mut hasher = DefaultHasher::new();
    hasher.write(input);
    Rng::with_seed(hasher.finish())
}

/// Ways to split `raw`: byte by byte, at every line end, into two, into a few.
#[must_use]
pub fn cuts(raw: &[u8], random: &mut Rng) -> Vec<Vec<usize>> {
    let mut ways = Vec::new();
    if raw.len() <= DRIP_MAX {
        ways.push((1..raw.len()).collect());
    }
    // Where a parser may have looked too early.
    let ends = |byte| (1..raw.len()).filter(|at| raw[at - 1] == byte).collect::<Vec<_>>();
    ways.extend([ends(b'\n'), ends(b'\r')]);
    for pieces in [1, random.usize(2..8)] {
        let mut way: Vec<usize> = (0..pieces).map(|_| random.usize(0..=raw.len())).collect();
        way.sort_unstable();
        ways.push(way);
    }
    ways
}
