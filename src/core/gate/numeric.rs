//! The numbers behind the tests: sums of logarithms, Wilson intervals, the beta distribution. Pure functions over `f64`.

/// The 97.5 % point of the standard normal distribution: two-sided 95 % intervals.
const Z95: f64 = 1.959_963_984_540_054;
/// Terms of the continued fraction; it needs about the square root of the larger parameter.
const FRACTION_TERMS_MAX: u32 = 100_000;
/// Halvings of the interval: more than an `f64` can tell apart.
const HALVINGS_MAX: u32 = 1_100;
/// Lanczos' coefficients for g = 7, nine terms (Godfrey 2001).
const LANCZOS: [f64; 9] = [
    0.999_999_999_999_809_9,
    676.520_368_121_885_1,
    -1_259.139_216_722_402_8,
    771.323_428_777_653_1,
    -176.615_029_162_140_6,
    12.507_343_278_686_905,
    -0.138_571_095_265_720_12,
    9.984_369_578_019_572e-6,
    1.505_632_735_149_311_6e-7,
];

/// `n` as a float; exact below 2^53, which no counter reaches.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn float(n: u64) -> f64 {
    n as f64
}

/// `ln(e^a + e^b)` without overflow.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The logarithm of the sum of `e^x`. What is 45 nats below the largest term cannot be seen in the sum and is left out.
pub(super) fn log_sum(xs: &[f64]) -> f64 {
    let high = largest(xs);
    if high == f64::NEG_INFINITY {
        return high;
    }
    let mut sum = 0.0;
    for &x in xs {
        let below = x - high;
        if below > -45.0 {
            sum += below.exp();
        }
    }
    high + sum.ln()
}

/// The largest of `xs`; minus infinity of none.
pub(super) fn largest(xs: &[f64]) -> f64 {
    let mut high = f64::NEG_INFINITY;
    for &x in xs {
        if x > high {
            high = x;
        }
    }
    high
}

/// The 95 % interval of a rate of which `hits` of `n` were seen (Wilson 1927); everything is possible where nothing was seen.
#[must_use]
pub fn wilson(hits: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (rate, n) = (float(hits.min(n)) / float(n), float(n));
    let shrink = 1.0 + Z95 * Z95 / n;
    let centre = (rate + Z95 * Z95 / (2.0 * n)) / shrink;
    let half = Z95 / shrink * (rate * (1.0 - rate) / n + Z95 * Z95 / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// The logarithm of the gamma function for positive `x`; relative error below 1e-13.
fn ln_gamma(x: f64) -> f64 {
    if x < 0.5 {
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let t = x + 7.5;
    let mut sum = LANCZOS[0];
    let mut at = x;
    for coefficient in &LANCZOS[1..] {
        at += 1.0;
        sum += coefficient / at;
    }
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// The regularised incomplete beta function: the probability that a Beta(a, b) variable is at most `x`.
#[must_use]
pub fn beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    // The fraction converges fast on this side of the mean only.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(x, a, b) / a
    } else {
        1.0 - front * beta_fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut above = 1.0;
    let mut below = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = below;
    for m in 1..FRACTION_TERMS_MAX {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            below = 1.0 / away(1.0 + term * below);
            above = away(1.0 + term / above);
            change = below * above;
            value *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

/// The `p`-quantile of Beta(a, b): where [`beta`] reaches `p`. For positive `a` and `b`.
#[must_use]
pub fn beta_inv(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS_MAX {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if beta(middle, a, b) < p { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64, relative: f64) -> bool {
        (a - b).abs() <= relative * b.abs().max(1e-300)
    }

    #[test]
    fn sums_of_logarithms() {
        assert!(near(log_add(0.0, 0.0), 2_f64.ln(), 1e-15));
        assert!(near(log_add(f64::NEG_INFINITY, -3.0), -3.0, 1e-15));
        assert!(near(log_sum(&[1_000.0, 1_000.0, 900.0]), 1_000.0 + 2_f64.ln(), 1e-15));
        assert!(log_sum(&[f64::NEG_INFINITY; 3]).is_infinite() && log_sum(&[]).is_infinite());
    }

    #[test]
    fn wilson_as_in_the_textbooks() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (hits, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let (l, h) = wilson(hits, n);
            assert!((l - low).abs() < 6e-5 && (h - high).abs() < 6e-5, "{hits}/{n}: {l} {h}");
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert!(wilson(7, 5).1 <= 1.0);
    }

    #[test]
    fn gamma_of_integers_and_a_half() {
        let mut factorial = 0.0_f64;
        for n in 1..60_u32 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() <= 1e-12 * factorial.max(1.0), "{n}");
            factorial += f64::from(n).ln();
        }
        assert!(near(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln(), 1e-13));
    }

    #[test]
    fn quantiles_of_beta_with_a_closed_form() {
        for n in [1.0, 2.0, 20.0, 1e3, 1e6] {
            for p in [1e-6, 0.05, 0.5, 0.9995_f64] {
                // Beta(1, n): 1 - (1-x)^n. Beta(n, 1): x^n.
                let least = -((-p).ln_1p() / n).exp_m1();
                assert!(near(beta_inv(p, 1.0, n), least, 1e-9), "{p} {n}: {} {least}", beta_inv(p, 1.0, n));
                let most = (p.ln() / n).exp();
                assert!(near(beta_inv(p, n, 1.0), most, 1e-9), "{p} {n}");
            }
        }
        // Published: the upper 97.5 % Clopper-Pearson limit of 10 of 100 is 0.1762226.
        assert!((beta_inv(0.975, 11.0, 90.0) - 0.176_222_6).abs() < 1e-7);
        assert!((beta_inv(0.025, 10.0, 91.0) - 0.049_004_69).abs() < 1e-7);
    }

    #[test]
    fn beta_is_the_tail_of_the_binomial() {
        // P(X >= k) of Binomial(n, x) is I_x(k, n-k+1).
        for (n, k, x) in [(10_u32, 3_u32, 0.2_f64), (40, 20, 0.5), (200, 5, 0.01), (200, 190, 0.99)] {
            let mut tail = 0.0;
            for i in k..=n {
                let ways: f64 = (0..i).map(|j| f64::from(n - j).ln() - f64::from(j + 1).ln()).sum();
                tail += (ways + f64::from(i) * x.ln() + f64::from(n - i) * (1.0 - x).ln()).exp();
            }
            let got = beta(x, f64::from(k), f64::from(n - k + 1));
            assert!(near(got, tail, 1e-10), "{n} {k} {x}: {got} {tail}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_where_the_distribution_reaches_it(p in 0.001..0.999_f64, a in 0.5..500.0_f64, b in 0.5..5000.0_f64) {
            prop_assert!((beta(beta_inv(p, a, b), a, b) - p).abs() < 1e-9);
        }

        #[test]
        fn a_wilson_interval_holds_the_rate(hits in 0..1_000_u64, more in 0..1_000_000_u64) {
            let n = hits + more;
            let (low, high) = wilson(hits, n);
            prop_assert!(low <= high);
            if n > 0 {
                let rate = float(hits) / float(n);
                prop_assert!(low <= rate + 1e-12 && rate <= high + 1e-12);
            }
        }
    }
}
