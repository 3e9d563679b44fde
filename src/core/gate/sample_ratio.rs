//! Whether keys fall to the candidate as often as its weight says: a two-sided sequential Bernoulli mixture.

use serde::{Deserialize, Serialize};

use super::evidence::{ALTERNATIVES, Ratios, bits};
use super::input::Draws;
use super::numeric::log_sum;
use crate::core::weight::Weight;

/// Probability of an alarm, ever, while the split is right.
const ALPHA: f64 = 1e-6;
/// The nearest and the farthest alternative, as odds ratios.
const NEAREST: f64 = 1.02;
const FARTHEST: f64 = 1e3;

/// Evidence that the split is not what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRatio {
    #[serde(with = "bits")]
    log: Ratios,
    keys: u64,
    candidate: u64,
}

// === impl SampleRatio ===

impl SampleRatio {
    pub(super) fn new() -> Self {
        Self { log: [0.0; ALTERNATIVES], keys: 0, candidate: 0 }
    }

    /// Adds draws made at `weight`. At 0 % and 100 % nothing is drawn.
    pub(super) fn add(&mut self, draws: Draws, weight: Weight) {
        if draws.keys == 0 || weight == Weight::ZERO || weight == Weight::FULL {
            return;
        }
        self.keys += u64::from(draws.keys);
        self.candidate += u64::from(draws.candidate);
        let (w, m) = (weight.fraction(), f64::from(draws.keys));
        let k = f64::from(draws.candidate.min(draws.keys));
        let mut place = 0.0;
        for pair in self.log.chunks_exact_mut(2) {
            let odds = (NEAREST.ln() + place / 15.0 * (FARTHEST.ln() - NEAREST.ln())).exp();
            place += 1.0;
            for (log, theta) in pair.iter_mut().zip([odds, 1.0 / odds]) {
                // Share q with odds theta times those of the weight: q/w = theta/(1 - w + w theta).
                *log += k * theta.ln() - m * (1.0 - w + w * theta).ln();
            }
        }
    }

    /// The logarithm of the evidence, in nats.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        log_sum(&self.log) - 5.0 * std::f64::consts::LN_2
    }

    /// Whether the split is wrong.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.keys > 0 && self.log_e() >= -ALPHA.ln()
    }

    /// Keys drawn, and those of them that fell to the candidate.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.keys, self.candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(share: f64, ticks: u32, seed: u64) -> Option<u32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut ratio = SampleRatio::new();
        let weights = [500, 2_500, 5_000].map(|g| Weight::from_grains(g).expect("a weight"));
        (0..ticks).find(|tick| {
            let weight = weights[(tick / 40 % 3) as usize];
            let candidate = (0..50).filter(|_| rng.f64() < weight.fraction() * share).count();
            ratio.add(Draws { keys: 50, candidate: u32::try_from(candidate).expect("small") }, weight);
            ratio.is_wrong()
        })
    }

    #[test]
    fn a_right_split_is_never_called_wrong_and_a_wrong_one_soon() {
        for seed in 0..200 {
            assert_eq!(run(1.0, 600, seed), None, "seed {seed}");
            assert!(run(1.3, 2_000, seed).is_some() && run(0.7, 2_000, seed).is_some(), "seed {seed}");
            assert!(run(0.0, 400, seed).is_some(), "seed {seed}");
        }
    }

    #[test]
    fn nothing_is_drawn_at_the_ends() {
        let mut ratio = SampleRatio::new();
        ratio.add(Draws { keys: 100, candidate: 100 }, Weight::FULL);
        ratio.add(Draws { keys: 100, candidate: 0 }, Weight::ZERO);
        assert_eq!((ratio.counts(), ratio.is_wrong()), ((0, 0), false));
    }
}
