//! Evidence against one null hypothesis: a mixture over alternatives and over the moments at which harm may have begun.

use serde::{Deserialize, Serialize};

use super::numeric::{largest, log_add, log_sum};

/// Alternatives of every test.
pub const ALTERNATIVES: usize = 32;
/// Logarithms of likelihood ratios, one per alternative.
pub(super) type Ratios = [f64; ALTERNATIVES];

/// Half of the weight on everything since the test began, half on restarts: the k-th with weight 1/(k(k+1)). Under the null
/// hypothesis `e^log_e` is a nonnegative supermartingale that begins at 1, so it ever reaches 1/alpha with probability at most alpha
/// (Ville 1939).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    #[serde(with = "bits")]
    all: Ratios,
    #[serde(with = "bits")]
    restarted: Ratios,
    restarts: u32,
}

// === impl Evidence ===

impl Evidence {
    /// Nothing seen.
    pub(super) fn new() -> Self {
        Self { all: [0.0; ALTERNATIVES], restarted: [f64::NEG_INFINITY; ALTERNATIVES], restarts: 0 }
    }

    /// Harm may have begun now: puts the next share of the unspent weight here.
    pub(super) fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        let k = f64::from(self.restarts);
        let share = -(k * (k + 1.0)).ln();
        for g in &mut self.restarted {
            *g = log_add(*g, share);
        }
    }

    /// Multiplies with the likelihood ratios of one block.
    pub(super) fn add(&mut self, step: &Ratios) {
        for (j, s) in step.iter().enumerate() {
            self.all[j] += s;
            self.restarted[j] += s;
        }
    }

    /// The logarithm of the evidence, in nats.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let half = 2_f64.ln();
        let unspent = -(f64::from(self.restarts) + 1.0).ln();
        let restarted = log_add(log_sum(&self.restarted) - ln_alternatives(), unspent);
        log_add(self.since(), restarted) - half
    }

    /// The same without restarts: everything since the test began.
    #[must_use]
    pub(super) fn since(&self) -> f64 {
        log_sum(&self.all) - ln_alternatives()
    }

    /// Something [`log_e`](Self::log_e) is never above; many times cheaper.
    #[must_use]
    pub(super) fn at_most(&self) -> f64 {
        // Half of a mean plus half of a mean and what is unspent: at most the largest of the three plus ln 1.5.
        largest(&self.all).max(largest(&self.restarted)).max(0.0) + 0.405_465_108_108_164_4
    }
}

fn ln_alternatives() -> f64 {
    std::f64::consts::LN_2 * 5.0
}

/// Floats as their bits: exact in any format, minus infinity included.
pub(super) mod bits {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{ALTERNATIVES, Ratios};

    pub(in crate::core::gate) fn serialize<S: Serializer>(values: &Ratios, to: S) -> Result<S::Ok, S::Error> {
        values.map(f64::to_bits).serialize(to)
    }

    pub(in crate::core::gate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Ratios, D::Error> {
        let values = <[u64; ALTERNATIVES]>::deserialize(from)?.map(f64::from_bits);
        let sane = values.iter().all(|v| !v.is_nan() && *v < f64::INFINITY);
        if sane { Ok(values) } else { Err(D::Error::custom("evidence is a finite number or minus infinity")) }
    }
}

/// One float as its bits.
pub(super) mod bits_of_one {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
    pub(in crate::core::gate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    pub(in crate::core::gate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_begins_at_one_and_restarts_alone_change_nothing() {
        let mut evidence = Evidence::new();
        for _ in 0..1_000 {
            assert!(evidence.log_e().abs() < 1e-9);
            evidence.restart();
        }
    }

    #[test]
    fn the_alternatives_number_what_their_logarithm_says() {
        assert!((ln_alternatives() - f64::from(u32::try_from(ALTERNATIVES).expect("small")).ln()).abs() < 1e-15);
        assert!((1.5_f64.ln() - 0.405_465_108_108_164_4).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_cheap_bound_holds_and_the_order_of_steps_does_not_matter(
            steps in prop::collection::vec((-20.0..20.0_f64, prop::bool::weighted(0.2)), 1..40)
        ) {
            let mut evidence = Evidence::new();
            for (step, restart) in &steps {
                if *restart {
                    evidence.restart();
                }
                let mut ratios = [0.0; ALTERNATIVES];
                for (j, r) in (0_u8..).zip(&mut ratios) {
                    *r = step * (f64::from(j) - 10.0) / 10.0;
                }
                evidence.add(&ratios);
                prop_assert!(evidence.log_e() <= evidence.at_most() + 1e-9);
            }
            let text = serde_json::to_string(&evidence).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Evidence>(&text).expect("what was written"), evidence);
        }
    }
}
