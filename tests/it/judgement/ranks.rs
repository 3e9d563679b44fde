//! The rank test, against examples of the literature and of other programs.

use super::study::ranks::Ranks;
use super::study::traffic::normal;

fn ranks(x: &[f64], y: &[f64]) -> Ranks {
    Ranks::new(x.to_vec(), y.to_vec()).expect("two samples")
}

fn two_sided(ranks: &Ranks) -> f64 {
    2.0 * (1.0 - normal(ranks.z(0.0).abs()))
}

fn near(a: f64, b: f64, by: f64) {
    assert!((a - b).abs() <= by, "{a} is not {b}");
}

// The example of scipy.stats.mannwhitneyu: U = 17, p = 0.1113 by method="asymptotic".
const MALES: [f64; 5] = [19.0, 22.0, 16.0, 29.0, 24.0];
const FEMALES: [f64; 4] = [20.0, 11.0, 17.0, 12.0];

#[test]
fn the_example_of_scipy() {
    let ranks = ranks(&MALES, &FEMALES);
    near(ranks.u(0.0).0, 17.0, 0.0);
    near(two_sided(&ranks), 0.111_346_886_5, 1e-8);
}

// Hollander and Wolfe (1973), 69f, the example of R's wilcox.test: W = 35; without correction one-sided p = 0.1103.
#[test]
fn the_example_of_hollander_and_wolfe() {
    let ranks = ranks(&[0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46], &[1.15, 0.88, 0.90, 0.74, 1.21]);
    near(ranks.u(0.0).0, 35.0, 0.0);
    // By hand: the variance is 10 * 5 * 16 / 12, the distance from the mean 10.
    near(ranks.z(0.0), 9.5 / (800.0_f64 / 12.0).sqrt(), 1e-12);
}

// R: W = 51.5, p = 0.5966 with continuity correction.
#[test]
fn ties_count_half_and_narrow_the_variance() {
    let x = [1.0, 5.0, 9.0, 24.0, 56.0, 21.0, 3.0, 7.0, 21.0, 4.0];
    let y = [12.0, 15.0, 5.0, 9.0, 9.0, 14.0, 56.0, 22.0, 3.0, 7.0, 32.0, 5.0];
    let (there, back) = (ranks(&x, &y), ranks(&y, &x));
    near(there.u(0.0).0, 51.5, 0.0);
    near(there.u(0.0).0 + back.u(0.0).0, 120.0, 0.0);
    near(two_sided(&there), 0.5966, 5e-5);
    near(there.z(0.0), -back.z(0.0), 1e-12);
}

// ClickHouse's example for mannWhitneyUTest('greater'): U = 9, p = 0.04042779918503192.
#[test]
fn three_against_three() {
    let ranks = ranks(&[10.0, 11.0, 12.0], &[1.0, 2.0, 3.0]);
    near(ranks.u(0.0).0, 9.0, 0.0);
    near(1.0 - normal(ranks.z(0.0)), 0.040_427_799_185, 1e-9);
}

#[test]
fn samples_of_one_value_and_of_equal_values_say_nothing() {
    near(ranks(&[1.0, 1.0], &[1.0, 1.0, 1.0]).z(0.0), 0.0, 0.0);
    near(ranks(&[2.0], &[1.0]).z(0.0), 0.0, 0.0);
    assert!(Ranks::new(Vec::new(), vec![1.0]).is_none());
    assert!(Ranks::new(vec![1.0], Vec::new()).is_none());
}

#[test]
fn the_shift_is_the_median_of_all_differences() {
    let ranks = ranks(&MALES, &FEMALES);
    let mut differences: Vec<f64> = MALES.iter().flat_map(|x| FEMALES.iter().map(move |y| x - y)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let shift = ranks.shift_at(0.0);
    assert!((differences[8]..=differences[11]).contains(&shift), "{shift} of {differences:?}");
    // R's wilcox.test moves with the samples, too.
    let moved = Ranks::new(MALES.iter().map(|x| x + 100.0).collect(), FEMALES.to_vec()).expect("two samples");
    near(moved.shift_at(0.0), shift + 100.0, 1e-9);
    assert!(ranks.shift_at(1.0) <= shift && shift <= ranks.shift_at(-1.0));
}
