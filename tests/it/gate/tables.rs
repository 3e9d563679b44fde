//! Times to abort, as documented: one metric, alpha 0.001, stable 0.1 % errors, 1.5 times and 0.05 points allowed.

use tidegate::core::gate::{Cell, GateConfig};

use super::poisson::Poisson;
use super::world::{BEGIN, Ended, Phase, Shape, World, bad, errors_only, five_tests, quantile, run, run_with, runs};

/// Requests per second, candidate error rate, median and p95 in seconds, failed candidate requests.
type Row = (f64, f64, f64, f64, u32);

/// Relative noise of a median and of a p95 over some 80 runs.
const NOISE: f64 = 0.3;
const NOISE_P95: f64 = 0.45;

fn shape(rps: f64, rate: f64, healthy: f64, seconds: f64) -> Shape {
    let phases = vec![
        Phase { from: 0.0, candidate: if healthy > 0.0 { 0.001 } else { rate }, stable: 0.001 },
        Phase { from: healthy, candidate: rate, stable: 0.001 },
    ];
    let stride = match () {
        () if healthy > 0.0 => 2,
        () if rate < 0.05 || rps < 1_000.0 => 4,
        () => 1,
    };
    Shape { rps, weight: 500, phases, seconds: healthy + seconds, stride, fault: healthy }
}

fn check(row: Row, ended: &[Ended], step: f64) {
    let (rps, rate, median, p95, failed) = row;
    let times: Vec<Option<f64>> = ended.iter().map(|e| e.aborted).collect();
    let mut lost: Vec<u32> = ended.iter().map(|e| e.failed).collect();
    lost.sort_unstable();
    let (got, got95, got_failed) = (quantile(&times, 0.5), quantile(&times, 0.95), lost[lost.len() / 2]);
    println!(
        "{rps}/s, {rate}: median {got:.2} s (documented {median}), p95 {got95:.2} s ({p95}), failed {got_failed} ({failed})"
    );
    let near = |a: f64, b: f64, noise: f64| (a - b).abs() <= noise * b + step + 1e-9;
    assert!(near(got, median, NOISE), "{rps}/s at {rate}: median {got} s, documented {median} s");
    assert!(p95 == 0.0 || near(got95, p95, NOISE_P95), "{rps}/s at {rate}: p95 {got95} s, documented {p95} s");
    assert!(
        got_failed.abs_diff(failed) <= 1 + failed / 5,
        "{rps}/s at {rate}: {got_failed} failed, documented {failed}"
    );
}

fn table(rows: &[Row], count: u64) {
    for row in rows {
        let shape = shape(row.0, row.1, 0.0, row.3 * 4.0);
        let ended: Vec<Ended> = (1..=runs(count)).map(|seed| run(&shape, seed)).collect();
        check(*row, &ended, shape.stride as f64 / 20.0);
    }
}

#[test]
fn large_faults_are_seen_at_once() {
    table(
        &[
            (1_000.0, 1.0, 0.10, 0.15, 5),
            (1_000.0, 0.5, 0.15, 0.35, 4),
            (1_000.0, 0.1, 0.90, 1.95, 5),
            (1_000.0, 0.05, 2.2, 5.0, 6),
        ],
        120,
    );
}

#[test]
fn small_faults_are_seen_in_time() {
    table(&[(1_000.0, 0.02, 7.4, 16.8, 8), (1_000.0, 0.01, 22.7, 51.7, 13)], 80);
}

#[test]
fn a_fault_of_five_times_the_baseline_is_seen_in_minutes() {
    table(&[(1_000.0, 0.005, 119.0, 248.0, 32)], 60);
}

#[test]
fn little_traffic_takes_longer_in_proportion() {
    table(
        &[
            (50.0, 1.0, 1.6, 2.8, 4),
            (50.0, 0.5, 3.2, 6.0, 4),
            (50.0, 0.05, 38.6, 92.0, 5),
            (5.0, 1.0, 16.7, 28.0, 4),
            (5.0, 0.5, 31.5, 64.0, 4),
        ],
        100,
    );
}

#[test]
fn late_faults_are_seen_almost_as_fast() {
    for (rate, median, failed) in [(1.0, 0.20, 9), (0.05, 3.8, 10)] {
        let shape = shape(1_000.0, rate, 600.0, 20.0);
        let ended: Vec<Ended> = (1..=runs(24)).map(|seed| run(&shape, seed)).collect();
        check((1_000.0, rate, median, 0.0, failed), &ended, 0.1);
    }
}

/// The five tests of a service that names no metrics share alpha: ln 5 more to prove, and a little longer.
#[test]
fn five_default_tests_take_a_little_longer() {
    for (rate, seconds) in [(1.0, 2.0), (0.5, 2.0), (0.05, 20.0)] {
        let shape = shape(1_000.0, rate, 0.0, seconds);
        let times = |config: fn() -> _| -> Vec<Option<f64>> {
            (1..=runs(150)).map(|seed| run_with(config(), &shape, seed).aborted).collect()
        };
        let (one, five) = (times(errors_only), times(five_tests));
        let mean =
            |times: &[Option<f64>]| times.iter().map(|time| time.expect("condemned")).sum::<f64>() / times.len() as f64;
        // The same requests: more to prove never takes less time.
        assert!(one.iter().zip(&five).all(|(one, five)| one <= five));
        let factor = mean(&five) / mean(&one);
        let (median, median_of_five) = (quantile(&one, 0.5), quantile(&five, 0.5));
        println!("{rate}: {factor:.2} times as long; median {median:.2} s, {median_of_five:.2} s with five tests");
        assert!((1.1..=1.4).contains(&factor), "{rate}: {factor} times as long");
    }
}

/// Whether fifty candidate requests at 5 % of 50 per second, of which `rate` fail, are enough to condemn it.
fn is_caught_by_fifty(config: GateConfig, rate: f64, seed: u64) -> bool {
    let mut world = World::new(config, seed, 50.0, 0.001);
    let stable = Poisson::new(19.0);
    (0..50).any(|request| {
        world.now = BEGIN + request * 8;
        let exposed = stable.draw(&mut world.rng);
        let failed = u32::from(world.rng.f64() < rate);
        let beside = (0..exposed).filter(|_| world.rng.f64() < 0.001).count() as u32;
        let events = [bad(Cell::candidate(0), world.now, failed), bad(Cell::STABLE, world.now, beside)];
        world.feed(500, [1, exposed], &events).outcome.is_harmful()
    })
}

#[test]
fn the_requests_a_step_waits_for_are_enough_to_see_a_large_fault() {
    let count = runs(400);
    for (name, config) in [("one", errors_only as fn() -> GateConfig), ("five", five_tests)] {
        let caught =
            |rate| (1..=count).filter(|seed| is_caught_by_fifty(config(), rate, *seed)).count() as f64 / count as f64;
        let (half, fifth) = (caught(0.5), caught(0.2));
        println!(
            "{name} test(s): fifty requests catch {half:.4} of those that fail half, {fifth:.3} of those that fail a fifth"
        );
        assert!(half >= 1.0, "{name}: {half}");
        assert!(fifth >= 0.9, "{name}: {fifth}");
    }
}
