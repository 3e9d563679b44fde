//! Simulated traffic: Poisson arrivals thinned into good and bad, fed to a real gate tick by tick.

use tidegate::core::gate::history::Second;
use tidegate::core::gate::{
    Cell, Channel, Events, Exposures, Gate, GateConfig, History, Measure, Method, Metric, Tick, TickInput, Unit,
    Verdict,
};
use tidegate::core::weight::Weight;

use crate::harness::soak;

pub(crate) use super::poisson::Poisson;

/// Where every simulation begins: not at tick zero, where mistakes in arithmetic hide.
pub(crate) const BEGIN: Tick = 12_345;

/// Ticks in a second.
const SECOND: f64 = 20.0;

/// What requests do from some moment on. Rates are per request.
#[derive(Clone, Copy)]
pub(crate) struct Phase {
    /// Seconds since the rollout began.
    pub(crate) from: f64,
    /// Of the candidate.
    pub(crate) candidate: f64,
    /// Of stable.
    pub(crate) stable: f64,
}

/// One shape of traffic for a gate with one metric.
#[derive(Clone)]
pub(crate) struct Shape {
    /// Requests per second.
    pub(crate) rps: f64,
    /// The candidate's weight in grains.
    pub(crate) weight: u16,
    /// What happens when.
    pub(crate) phases: Vec<Phase>,
    /// How long it is watched, in seconds.
    pub(crate) seconds: f64,
    /// Ticks fed at once.
    pub(crate) stride: u64,
    /// Seconds of the fault: time to abort counts from here.
    pub(crate) fault: f64,
}

/// What became of one rollout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Seconds from the fault to the abort.
    pub(crate) aborted: Option<f64>,
    /// Failed candidate requests from the fault to the abort.
    pub(crate) failed: u32,
}

/// One rollout of a simple shape.
pub(crate) struct World {
    pub(crate) gate: Gate,
    pub(crate) rng: fastrand::Rng,
    pub(crate) now: Tick,
}

// === impl World ===

impl World {
    /// A gate with `config` and the past of stable: `rate` of bad events on every series, none if it is zero.
    pub(crate) fn new(config: GateConfig, seed: u64, rps: f64, rate: f64) -> Self {
        let layout = tidegate::core::gate::Layout::new(&config);
        let mut history = History::new(&layout);
        let exposed = (rps * 600.0) as u64;
        let bad = (rps * 600.0 * rate) as u64;
        // The ten minutes at once: only their sum counts.
        history.record(&Second {
            exposed: &vec![exposed; layout.channels()],
            events: &vec![bad; layout.series().len()],
            succeeded: exposed - bad,
            latencies: &[],
        });
        let gate = Gate::new(config, &history, BEGIN).expect("a sound configuration");
        Self { gate, rng: fastrand::Rng::with_seed(seed), now: BEGIN }
    }

    /// Feeds one tick with candidate endpoint 0 and stable on `Channel::BEGUN`, and events that are known at once.
    pub(crate) fn feed(&mut self, weight: u16, exposed: [u32; 2], events: &[Events]) -> Verdict {
        let exposures = [
            Exposures { channel: Channel::BEGUN, cell: Cell::candidate(0), count: exposed[0] },
            Exposures { channel: Channel::BEGUN, cell: Cell::STABLE, count: exposed[1] },
        ];
        let input = TickInput {
            hold: 600,
            exposures: &exposures,
            events,
            sessions: 1_000,
            ..TickInput::quiet(self.now, grains(weight))
        };
        self.gate.tick(&input)
    }
}

pub(crate) fn grains(weight: u16) -> Weight {
    Weight::from_grains(weight).expect("a weight")
}

/// Bad events of series 0.
pub(crate) fn bad(cell: Cell, began: Tick, count: u32) -> Events {
    Events { series: 0, cell, began, requests: count, sessions: count }
}

/// One metric: errors, 1.5 times stable's and 0.05 points; requests.
pub(crate) fn errors_only() -> GateConfig {
    let method = Method::Bad { max_ratio: 1.5, ignore_below: 0.0005, max_rate: None };
    let metrics = vec![Metric { name: "error-rate".into(), measure: Measure::Errors, method }];
    GateConfig { alpha: 0.001, unit: Unit::Request, warmup: 600, reach: 1_220, metrics }
}

/// The five tests of a service that names no metrics.
pub(crate) fn five_tests() -> GateConfig {
    GateConfig { metrics: GateConfig::default_metrics(), ..errors_only() }
}

/// Runs one rollout of `shape` with one metric.
pub(crate) fn run(shape: &Shape, seed: u64) -> Ended {
    run_with(errors_only(), shape, seed)
}

/// Runs one rollout of `shape`: errors, and nothing else that is bad.
pub(crate) fn run_with(config: GateConfig, shape: &Shape, seed: u64) -> Ended {
    let mut world = World::new(config, seed, shape.rps, 0.0);
    let per_feed = shape.rps * shape.stride as f64 / SECOND;
    let share = f64::from(shape.weight) / 10_000.0;
    let tables: Vec<[Poisson; 4]> = shape
        .phases
        .iter()
        .map(|p| {
            let (c, s) = (per_feed * share, per_feed * (1.0 - share));
            [c * p.candidate, c * (1.0 - p.candidate), s * p.stable, s * (1.0 - p.stable)].map(Poisson::new)
        })
        .collect();
    let mut failed = 0;
    let mut at = 0_u64;
    while at as f64 / SECOND < shape.seconds {
        let time = at as f64 / SECOND;
        let phase = shape.phases.partition_point(|p| p.from <= time) - 1;
        let [s, c_good, b, s_good] = [0, 1, 2, 3].map(|i| tables[phase][i].draw(&mut world.rng));
        at += shape.stride;
        world.now = BEGIN + at - 1;
        failed += if time >= shape.fault { s } else { 0 };
        let mut events = Vec::with_capacity(2);
        events.extend((s > 0).then(|| bad(Cell::candidate(0), world.now, s)));
        events.extend((b > 0).then(|| bad(Cell::STABLE, world.now, b)));
        if world.feed(shape.weight, [s + c_good, b + s_good], &events).outcome.is_harmful() {
            return Ended { aborted: Some(at as f64 / SECOND - shape.fault), failed };
        }
    }
    Ended { aborted: None, failed }
}

/// Rollouts to run where `quick` are enough for every day.
pub(crate) fn runs(quick: u64) -> u64 {
    if soak() { quick * 5 } else { quick }
}

/// The bound of all gates in these simulations.
const ALPHA: f64 = 0.001;
/// How likely it is to be told of more than [`at_most`] by accident.
const ACCIDENT: f64 = 0.001;

/// How many of so many innocent rollouts may be condemned: if each were with a probability of exactly alpha, more would be an accident of
/// one in a thousand. From the binomial distribution itself.
pub(crate) fn at_most(rollouts: u64) -> u64 {
    let n = rollouts as f64;
    let (mut k, mut term) = (0.0, (n * (-ALPHA).ln_1p()).exp());
    let mut below = term;
    while below < 1.0 - ACCIDENT && k < n {
        term *= (n - k) / (k + 1.0) * ALPHA / (1.0 - ALPHA);
        below += term;
        k += 1.0;
    }
    k as u64
}

#[test]
fn the_bound_is_that_of_the_binomial_distribution() {
    // By hand: 0.999^100 = 0.9048, then 0.0906, 0.0045; of one rollout none is too many but for the accident.
    assert_eq!([0, 1, 100, 1_000, 10_000].map(at_most), [0, 0, 2, 5, 21]);
}

/// The value that `share` of `values` stay within; missing ones are larger than any.
pub(crate) fn quantile(values: &[Option<f64>], share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().map(|v| v.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
