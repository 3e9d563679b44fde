//! The rank test of Mann and Whitney for two samples, with ties, and what follows from it: the shift between them with its confidence
//! interval.
//!
//! By the normal approximation with its correction for continuity, as Kayenta computes it (and R's `wilcox.test` with `exact = FALSE`):
//! <https://github.com/spinnaker/kayenta/blob/master/kayenta-mannwhitney/src/main/scala/com/netflix/kayenta/mannwhitney/MannWhitney.scala>.
//! Mann and Whitney, Ann. Math. Stat. 18 (1947); the interval: Bauer, JASA 67 (1972).

/// Halvings that leave nothing of an interval of numbers.
const HALVINGS: u32 = 80;

/// Two samples, sorted.
#[derive(Clone, Debug)]
pub(crate) struct Ranks {
    x: Vec<f64>,
    y: Vec<f64>,
}

// === impl Ranks ===

impl Ranks {
    /// Of two samples without NaN; `None` if one is empty.
    pub(crate) fn new(mut x: Vec<f64>, mut y: Vec<f64>) -> Option<Self> {
        x.sort_unstable_by(f64::total_cmp);
        y.sort_unstable_by(f64::total_cmp);
        (!x.is_empty() && !y.is_empty()).then_some(Self { x, y })
    }

    /// U of the first sample moved down by `shift`: pairs in which its value is the larger one, ties half; and the sum of t^3 - t over all
    /// groups of t equal values.
    pub(crate) fn u(&self, shift: f64) -> (f64, f64) {
        let (mut i, mut j, mut u, mut ties) = (0, 0, 0.0, 0.0);
        while i < self.x.len() {
            let value = self.x[i] - shift;
            let own = self.x[i..].iter().take_while(|x| **x - shift <= value).count();
            while j < self.y.len() && self.y[j] < value {
                let same = self.y[j..].iter().take_while(|y| **y <= self.y[j]).count();
                ties += cube(same);
                j += same;
            }
            let same = self.y[j..].iter().take_while(|y| **y <= value).count();
            u += own as f64 * (j as f64 + same as f64 / 2.0);
            ties += cube(own + same);
            (i, j) = (i + own, j + same);
        }
        while j < self.y.len() {
            let same = self.y[j..].iter().take_while(|y| **y <= self.y[j]).count();
            ties += cube(same);
            j += same;
        }
        (u, ties)
    }

    /// How far the first sample, moved down by `shift`, lies above the second, in standard deviations; 0 if all values are equal.
    pub(crate) fn z(&self, shift: f64) -> f64 {
        let (u, ties) = self.u(shift);
        let (m, n) = (self.x.len() as f64, self.y.len() as f64);
        let all = m + n;
        let variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
        let distance = u - m * n / 2.0;
        let corrected = distance - if distance == 0.0 { 0.0 } else { 0.5_f64.copysign(distance) };
        if variance > 0.0 { corrected / variance.sqrt() } else { 0.0 }
    }

    /// The shift by which the first sample lies `z` standard deviations above the second; it falls as `z` grows.
    pub(crate) fn shift_at(&self, z: f64) -> f64 {
        let (mut low, mut high) = (self.x[0] - self.y[self.y.len() - 1], self.x[self.x.len() - 1] - self.y[0]);
        if self.z(low) <= z {
            return low;
        }
        if self.z(high) >= z {
            return high;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if self.z(middle) > z { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    }
}

fn cube(ties: usize) -> f64 {
    let ties = ties as f64;
    ties * ties * ties - ties
}
