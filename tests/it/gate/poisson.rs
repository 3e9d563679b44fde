//! Poisson counts, drawn from a seeded generator. `benches/judgement` draws its traffic from the same.

/// Largest mean of one table: its first term is still far from the smallest number there is.
const MEAN_MAX: f64 = 400.0;

/// Counts with a fixed mean, drawn by inversion from a table; a large mean is the sum of several smaller ones.
#[derive(Clone, Debug)]
pub(crate) struct Poisson {
    /// The distribution function of a part.
    pub(crate) upper: Vec<f64>,
    parts: u32,
}

// === impl Poisson ===

impl Poisson {
    pub(crate) fn new(mean: f64) -> Self {
        let parts = (mean / MEAN_MAX).ceil().max(1.0);
        let mean = mean / parts;
        let (mut term, mut sum, mut upper, mut k) = ((-mean).exp(), 0.0, Vec::new(), 0.0);
        while sum + term < 1.0 - 1e-15 && k < mean + 40.0 + 12.0 * mean.sqrt() {
            sum += term;
            upper.push(sum);
            k += 1.0;
            term *= mean / k;
        }
        Self { upper, parts: parts as u32 }
    }

    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> u32 {
        (0..self.parts).map(|_| self.part(rng)).sum()
    }

    fn part(&self, rng: &mut fastrand::Rng) -> u32 {
        if self.upper.is_empty() {
            return 0;
        }
        let u = rng.f64();
        u32::try_from(self.upper.partition_point(|bound| *bound < u)).expect("small")
    }
}
