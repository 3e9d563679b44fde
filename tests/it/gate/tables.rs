//! Times to abort, as documented: one metric, alpha 0.001, stable 0.1 % errors, 1.5 times and 0.05 points allowed.

use super::world::{Ended, Phase, Shape, quantile, run, runs};

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
