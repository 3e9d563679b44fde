//! The simulated requests.

use super::poisson::Poisson;
use super::study::traffic::{CLASSES, Case, ERRORS, MEDIAN_US, SECOND, Step, Traffic, latency_us, normal, share_of};

#[test]
fn the_normal_distribution_is_as_in_tables() {
    for (z, share) in [(0.0, 0.5), (1.0, 0.841_344_746), (-1.959_963_985, 0.025), (2.326_347_874, 0.99)] {
        assert!((normal(z) - share).abs() < 1e-9, "{z}: {}", normal(z));
    }
}

#[test]
fn latencies_are_what_the_method_says() {
    assert!(((0..CLASSES).map(share_of).sum::<f64>() - 1.0).abs() < 1e-9);
    let above = |us: f64| (0..CLASSES).filter(|class| latency_us(*class) > us).map(share_of).sum::<f64>();
    assert!((0.4..0.6).contains(&above(MEDIAN_US)), "{}", above(MEDIAN_US));
    assert!((0.005..0.02).contains(&above(300_000.0)), "{}", above(300_000.0));
    // Healthy it keeps to Flagger's limit of the example, twice as slow it does not.
    assert!(above(500_000.0) < 0.01 && above(250_000.0) > 0.01, "{} {}", above(500_000.0), above(250_000.0));
}

#[test]
fn rates_are_as_asked_for_and_the_same_seed_gives_the_same_requests() {
    let drawn = |seed| {
        let mut traffic = Traffic::new(Case::Errors(0.1), 1_000.0, 600, seed);
        (0..600).map(|second| traffic.step(second * SECOND, SECOND)).collect::<Vec<_>>()
    };
    let steps = drawn(1);
    assert_eq!(steps, drawn(1));
    assert_ne!(steps, drawn(2));
    let sum = |of: fn(&Step) -> u32| f64::from(steps.iter().map(of).sum::<u32>());
    let (candidate, stable) = (sum(|s| s.candidate.requests()), sum(|s| s.stable().requests()));
    assert!((candidate / 30_000.0 - 1.0).abs() < 0.03, "{candidate}");
    assert!((stable / 570_000.0 - 1.0).abs() < 0.01, "{stable}");
    assert!((sum(|s| s.candidate.errors) / candidate - 0.1).abs() < 0.01);
    assert!((sum(|s| s.stable().errors) / stable - ERRORS).abs() < 0.0003);
}

#[test]
fn bursts_are_many_errors_of_few_clients() {
    let mut traffic = Traffic::new(Case::Bursty, 1_000.0, 600, 3);
    let steps: Vec<Step> = (0..600).map(|second| traffic.step(second * SECOND, SECOND)).collect();
    let errors: u32 = steps.iter().map(|step| step.stable().errors).sum();
    let clients: u32 = steps.iter().map(|step| step.stable().clients).sum();
    assert!(errors > 2 * clients && f64::from(errors) / 570_000.0 > 0.003, "{errors} of {clients}");
}

#[test]
fn mean_and_variance_are_alike_for_small_and_large_means() {
    let mut rng = fastrand::Rng::with_seed(7);
    for mean in [0.01, 3.0, 390.0, 4_750.0] {
        let poisson = Poisson::new(mean);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(poisson.draw(&mut rng))).collect();
        let found = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| (draw - found).powi(2)).sum::<f64>() / 20_000.0;
        assert!((found - mean).abs() < 5.0 * (mean / 20_000.0).sqrt(), "{mean}: mean {found}");
        assert!((variance / mean - 1.0).abs() < 0.5 * (1.0 / mean).max(0.2).sqrt(), "{mean}: variance {variance}");
    }
    assert_eq!(Poisson::new(0.0).draw(&mut rng), 0);
}
