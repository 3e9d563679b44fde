//! Kayenta's judgement.

use super::study::kayenta::{Class, Z, classify, fails};
use super::study::ranks::Ranks;

fn around(middle: f64, spread: f64) -> Vec<f64> {
    (0..30_u32).map(|n| middle + spread * (f64::from(n * 17 % 30) / 29.0 - 0.5)).collect()
}

#[test]
fn a_clear_increase_is_high_and_a_decrease_is_not() {
    assert_eq!(classify(&around(20.0, 8.0), &around(10.0, 8.0)), Class::High);
    assert_eq!(classify(&around(10.0, 8.0), &around(20.0, 8.0)), Class::Pass);
    assert_eq!(classify(&around(10.0, 8.0), &around(10.0, 8.0)), Class::Pass);
}

#[test]
fn what_is_within_the_tolerance_passes() {
    // Significant, but the interval reaches down to less than a quarter of the shift.
    let (canary, baseline) = (around(12.1, 8.0), around(10.0, 8.0));
    let ranks = Ranks::new(canary.clone(), baseline.clone()).expect("two samples");
    assert!(ranks.z(0.0) > Z, "{}", ranks.z(0.0));
    assert_eq!(classify(&canary, &baseline), Class::Pass);
}

#[test]
fn too_few_points_are_never_significant() {
    assert_eq!(classify(&[9.0, 9.5, 10.0], &[1.0, 2.0, 3.0]), Class::Pass);
}

#[test]
fn no_data_is_no_failure() {
    assert_eq!(classify(&[f64::NAN; 9], &around(1.0, 1.0)), Class::NoData);
    assert!(!fails(&[Class::NoData, Class::NoData]));
    assert!(!fails(&[Class::NoData, Class::Pass]));
    assert!(fails(&[Class::NoData, Class::High]));
    assert!(fails(&[Class::Pass, Class::High]));
    assert!(!fails(&[Class::Pass; 2]));
}

/// kayenta#780, spinnaker#6278: seven values of ten that are a hundred times as high pass, an eighth makes them fail. `gate::kayenta` has the
/// same values before this project's gate.
#[test]
fn kayenta_780_ranks_pass_what_requests_condemn() {
    let control = [1.0; 10];
    let experiment =
        |hundreds: usize| -> Vec<f64> { (0..10).map(|at| if at < hundreds { 100.0 } else { 1.0 }).collect() };
    assert_eq!(classify(&experiment(7), &control), Class::Pass);
    let reversed: Vec<f64> = experiment(7).into_iter().rev().collect();
    assert_eq!(classify(&reversed, &control), Class::Pass);
    assert_eq!(classify(&experiment(8), &control), Class::High);
    // kayenta#426
    assert_eq!(classify(&[0.0, 1.0, 2.0, 1.0, 0.0, 0.0], &[0.0; 6]), Class::Pass);
}
