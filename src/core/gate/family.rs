//! The likelihood ratios of one block: T1 (relative harm, also mirrored) and T2 (an absolute ceiling).
//!
//! T1 tests `p_c <= r0 * p_s + f` at every instant. With `a = (r/r0)(r0 n_c + n_s)/(r n_c + n_s)` and `b = (r0 n_c + n_s)/(r n_c + n_s)`,
//! `a^S b^B e^(-f n_c (a-1))` has an expectation of at most one under it, for any rates, also changing ones (Lindon & Malek, `NeurIPS`
//! 2022; Howard et al., Ann. Stat. 2021). T2 tests `p <= p0` by a Poisson bound that stays valid when late events make S exceed n.

use serde::{Deserialize, Serialize};

use super::evidence::{ALTERNATIVES, Ratios, bits, bits_of_one};

/// How far alternatives reach from the null hypothesis.
const TOP: f64 = 1e4;
/// The first alternative of T1 and T2, as a factor on the null hypothesis.
pub const FIRST: f64 = 1.2;
/// The first alternative of T3: exceedances rise in small steps.
pub const FIRST_LATENCY: f64 = 1.05;

/// T1 against a family of ratios.
#[derive(Clone, Debug)]
pub struct Family {
    /// `r0`.
    null: f64,
    /// `f`.
    floor: f64,
    ratios: Ratios,
    /// `ln(r/r0)`.
    ln_ratios: Ratios,
}

/// `ln b` of a block for every alternative: what its bad events weigh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    candidate: f64,
    stable: f64,
    ln_b: Ratios,
}

/// T2 against a family of rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    #[serde(with = "bits_of_one")]
    null: f64,
    #[serde(with = "bits")]
    rates: Ratios,
    #[serde(with = "bits")]
    ln_rates: Ratios,
}

// === impl Family ===

impl Family {
    /// Against `p_c <= null * p_s + floor`: alternatives log-spaced from `first * null` to 1e4 times it.
    #[must_use]
    pub fn worse(null: f64, floor: f64, first: f64) -> Self {
        Self::new(null, floor, |share| (first.ln() + share * (TOP.ln() - first.ln())).exp())
    }

    /// Mirrored, against `p_c >= null * p_s + floor`: alternatives log-spaced from `null / 1.2` to `null / 1e4`.
    #[must_use]
    pub fn better(null: f64, floor: f64) -> Self {
        Self::new(null, floor, |share| (-(FIRST.ln() + share * (TOP.ln() - FIRST.ln()))).exp())
    }

    fn new(null: f64, floor: f64, factor: impl Fn(f64) -> f64) -> Self {
        let factors = spaced(factor);
        Self { null, floor, ratios: factors.map(|f| null * f), ln_ratios: factors.map(f64::ln) }
    }

    /// What the bad events of a block with these exposures weigh; `None` where one side is missing: then nothing does.
    pub(super) fn shape(&self, candidate: u32, stable: u32) -> Option<Shape> {
        if candidate == 0 || stable == 0 {
            return None;
        }
        let (candidate, stable) = (f64::from(candidate), f64::from(stable));
        let top = (self.null * candidate + stable).ln();
        let mut ln_b = [0.0; ALTERNATIVES];
        for (j, r) in self.ratios.iter().enumerate() {
            ln_b[j] = top - (r * candidate + stable).ln();
        }
        Some(Shape { candidate, stable, ln_b })
    }

    /// Adds what `candidate` and `stable` events weigh.
    pub(super) fn events(&self, shape: &Shape, candidate: u32, stable: u32, step: &mut Ratios) {
        let (s, all) = (f64::from(candidate), f64::from(candidate) + f64::from(stable));
        for (j, ln_b) in shape.ln_b.iter().enumerate() {
            step[j] += s * self.ln_ratios[j] + all * ln_b;
        }
    }

    /// Adds what the exposures of the block weigh, events or not: nothing without a floor.
    pub(super) fn exposures(&self, candidate: u32, stable: u32, step: &mut Ratios) {
        if self.floor > 0.0 && candidate > 0 && stable > 0 {
            let (candidate, stable) = (f64::from(candidate), f64::from(stable));
            for (j, r) in self.ratios.iter().enumerate() {
                // a - 1, without the cancellation.
                let excess = stable * (r - self.null) / (self.null * (r * candidate + stable));
                step[j] -= self.floor * candidate * excess;
            }
        }
    }

    /// Whether exposures weigh anything.
    pub(super) fn has_floor(&self) -> bool {
        self.floor > 0.0
    }

    /// The smallest ratio `p_c / p_s` this test would have been expected to find: the evidence against the null hypothesis reaches
    /// `bound` nats in expectation when stable fails at `rate` and the candidate that many times as often. `None` if it would not
    /// even see a candidate that always fails.
    #[must_use]
    pub fn detectable(&self, candidate: u64, stable: u64, rate: f64, bound: f64) -> Option<f64> {
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let shape = self.shape(clamp(candidate), clamp(stable))?;
        let mut quiet = [0.0; ALTERNATIVES];
        self.exposures(clamp(candidate), clamp(stable), &mut quiet);
        let expected = |ratio: f64| {
            let (s, b) = (shape.candidate * (rate * ratio).min(1.0), shape.stable * rate);
            let weigh = |j: usize| s * self.ln_ratios[j] + (s + b) * shape.ln_b[j] + quiet[j];
            (0..ALTERNATIVES).map(weigh).fold(f64::NEG_INFINITY, f64::max)
        };
        let (mut low, mut high) = (self.null, 1.0 / rate);
        if rate <= 0.0 || high <= low || expected(high) < bound {
            return None;
        }
        // To a thousandth.
        while high / low > 1.001 {
            let middle = (low * high).sqrt();
            if expected(middle) < bound { low = middle } else { high = middle }
        }
        Some(high)
    }
}

// === impl Ceiling ===

impl Ceiling {
    /// Against a rate of at most `null`: alternatives log-spaced from `min(1.2 null, (1 + null)/2)` to 1. `None` unless `null` lies
    /// between 0 and 1, both excluded: no rate is above 1, and any event refutes 0.
    #[must_use]
    pub fn new(null: f64) -> Option<Self> {
        if !(null > 0.0 && null < 1.0) {
            return None;
        }
        let low = (FIRST * null).min(f64::midpoint(1.0, null)).ln();
        let rates = spaced(|share| (low * (1.0 - share)).exp());
        Some(Self { null, rates, ln_rates: rates.map(|q| (q / null).ln()) })
    }

    /// The rate it tests.
    #[must_use]
    pub fn null(&self) -> f64 {
        self.null
    }

    /// Adds what `events` of newly counted `exposed` weigh; either may be zero.
    pub(super) fn score(&self, exposed: u32, events: u32, step: &mut Ratios) {
        let (n, s) = (f64::from(exposed), f64::from(events));
        for (j, q) in self.rates.iter().enumerate() {
            step[j] += s * self.ln_rates[j] - n * (q - self.null);
        }
    }
}

/// A value per alternative, from its place between 0 and 1.
fn spaced(value: impl Fn(f64) -> f64) -> Ratios {
    let mut values = [0.0; ALTERNATIVES];
    let mut place = 0.0;
    for v in &mut values {
        *v = value(place / 31.0);
        place += 1.0;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The expectation of the likelihood ratio of a block under Poisson counts is `exp(m_c (a-1) + m_s (b-1))` times the floor's term.
    fn log_expectation(family: &Family, n: (u32, u32), p: (f64, f64), j: usize) -> f64 {
        let shape = family.shape(n.0, n.1).expect("both sides");
        let (ln_a, ln_b) = (family.ln_ratios[j] + shape.ln_b[j], shape.ln_b[j]);
        let mut quiet = [0.0; ALTERNATIVES];
        family.exposures(n.0, n.1, &mut quiet);
        f64::from(n.0) * p.0 * ln_a.exp_m1() + f64::from(n.1) * p.1 * ln_b.exp_m1() + quiet[j]
    }

    proptest! {
        #[test]
        fn under_the_null_hypothesis_no_block_is_expected_to_gain(
            n in (1..5_000_u32, 1..5_000_u32), p_s in 0.0..1.0_f64, share in 0.0..1.0_f64,
            r0 in 1.0..4.0_f64, floor in 0.0..0.02_f64, j in 0..ALTERNATIVES
        ) {
            let worse = Family::worse(r0, floor, FIRST);
            let p_c = share * (r0 * p_s + floor);
            prop_assert!(log_expectation(&worse, n, (p_c, p_s), j) <= 1e-9);
            let better = Family::better(r0, floor);
            let p_c = (r0 * p_s + floor) * (1.0 + share);
            prop_assert!(log_expectation(&better, n, (p_c, p_s), j) <= 1e-9);
        }

        #[test]
        fn leaving_out_a_part_without_events_never_loses_evidence(
            n_c in 2..1_000_u32, n_s in 1..5_000_u32, less in 1..1_000_u32, s in 0..20_u32, b in 0..20_u32
        ) {
            // What makes it right to begin the evidence without an endpoint as a copy: see `Sequence`.
            let family = Family::worse(1.5, 0.0005, FIRST);
            let score = |n_c: u32| {
                let mut step = [0.0; ALTERNATIVES];
                let shape = family.shape(n_c, n_s).expect("both sides");
                family.events(&shape, s, b, &mut step);
                family.exposures(n_c, n_s, &mut step);
                step
            };
            let (all, part) = (score(n_c), score(n_c.saturating_sub(less).max(1)));
            for j in 0..ALTERNATIVES {
                prop_assert!(part[j] >= all[j] - 1e-9);
            }
        }
    }

    #[test]
    fn a_ceiling_lies_between_nothing_and_everything() {
        assert!(Ceiling::new(0.0).is_none() && Ceiling::new(1.0).is_none() && Ceiling::new(f64::NAN).is_none());
        let high = Ceiling::new(0.95).expect("a rate");
        assert!(high.rates.iter().all(|q| *q > 0.95 && *q <= 1.0));
        let mut step = [0.0; ALTERNATIVES];
        high.score(1, 5, &mut step);
        assert!(step.iter().all(|s| s.is_finite()));
    }

    #[test]
    fn what_could_have_been_found_shrinks_with_traffic() {
        let family = Family::worse(1.5, 0.0005, FIRST);
        let bound = 1_000_f64.ln() + 2_f64.ln() + 32_f64.ln();
        assert_eq!(family.detectable(3, 57, 0.001, bound), None);
        let few = family.detectable(500, 9_500, 0.001, bound).expect("a total failure shows");
        let many = family.detectable(50_000, 950_000, 0.001, bound).expect("shows");
        assert!(few > many && many > 1.5 && many < 4.0 && few > 10.0, "{few} {many}");
    }
}
