//! Evidence for people: the API, the audit, notifications. Control adds the worst routes and sample request ids, which the gate never sees.

use serde::Serialize;

use super::Gate;
use super::config::Unit;
use super::input::Tick;
use super::latency::Estimate;
use super::layout::{Channel, Event, Kind};
use super::numeric::{float, wilson};
use super::rules::Breach;
use super::sequence::View;
use super::step::StepFacts;

/// Evidence, in odds, from which harmlessness is called shown: 20 to 1 (alpha 0.05).
const NON_INFERIOR_BOUND: f64 = 2.995_732_273_553_991;

/// Everything the gate has seen and concluded since the rollout began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Ticks since the rollout began.
    pub ticks: Tick,
    /// Evidence of harm, all metrics together, in nats.
    pub log_e: f64,
    /// From where on the candidate is condemned, in nats.
    pub bound: f64,
    /// What one bad event stands for at the moment.
    pub unit: Unit,
    /// The current step.
    pub step: StepFacts,
    /// Per test.
    pub tests: Vec<TestReport>,
    /// Per threshold rule, by index of its metric: the breach that has held long enough.
    pub rules: Vec<(usize, Option<Breach>)>,
    /// Per candidate endpoint.
    pub endpoints: Vec<EndpointReport>,
    /// Evidence that stable is worse than its history, in nats; `None` without a history.
    pub stable_degraded: Option<f64>,
    /// Evidence that the candidate is worse than stable's past, in nats; only above 90 %.
    pub alone: Option<f64>,
    /// Evidence that the split is not what the weight says, in nats, with keys drawn and those for the candidate.
    pub sample_ratio: (f64, u64, u64),
    /// Latencies are still compared with ten times their thresholds.
    pub warming_up: bool,
    /// Events that came too late to be scored.
    pub unscored: u64,
}

/// One variant in one test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Events.
    pub events: u64,
    /// Exposures.
    pub exposed: u64,
    /// Events per exposure; 0 without exposures.
    pub rate: f64,
    /// Its 95 % interval (Wilson).
    pub ci95: (f64, f64),
}

/// One test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestReport {
    /// Name of its metric.
    pub metric: String,
    /// For a latency: the configured quantile.
    pub quantile: Option<f64>,
    /// For a latency: what stable's threshold was taken from; a lower quantile while too little is known.
    pub estimate: Option<Estimate>,
    /// For a latency: the candidate's threshold in force, in microseconds.
    pub threshold_us: Option<u64>,
    /// The absolute rate it tests, if it is a ceiling.
    pub ceiling: Option<f64>,
    /// The candidate.
    pub candidate: Side,
    /// Stable.
    pub stable: Side,
    /// Evidence of harm, in nats.
    pub log_e: f64,
    /// Evidence that the candidate fails less than three times as often, plus half a point, in nats; and whether that is shown.
    pub non_inferior: Option<(f64, bool)>,
    /// The smallest ratio of rates it could have been expected to find with the traffic so far.
    pub detectable_ratio: Option<f64>,
}

/// One candidate endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointReport {
    /// Its index.
    pub index: u16,
    /// Attempts begun.
    pub begun: u64,
    /// Events per series, in the unit in force when they became known.
    pub events: Vec<u64>,
    /// There would be no case without it.
    pub flagged: bool,
}

// === impl Report ===

impl Report {
    pub(super) fn new(gate: &Gate) -> Self {
        let state = &gate.state;
        let now = state.seen();
        let (keys, candidate) = state.sample_ratio.counts();
        let endpoints = state.endpoints.iter().map(|(index, totals)| EndpointReport {
            index: *index,
            begun: totals.exposed[Channel::BEGUN.index()],
            events: totals.events.clone(),
            flagged: state.flag.is_some_and(|flag| flag.endpoint == *index),
        });
        let is_rule = |m: &usize| matches!(gate.config.metrics[*m].method, super::Method::Threshold(_));
        Self {
            ticks: now,
            log_e: state.tests.log_e(View::Full),
            bound: gate.bound(),
            unit: state.step.unit,
            step: state.step.facts,
            tests: (0..gate.layout.tests.len()).map(|test| TestReport::new(gate, test)).collect(),
            rules: (0..gate.config.metrics.len()).filter(is_rule).map(|m| (m, state.breaches[m])).collect(),
            endpoints: endpoints.collect(),
            stable_degraded: state.degraded.is_judged().then(|| state.degraded.log_e()),
            alone: state.alone.as_ref().map(super::watch::Watch::log_e),
            sample_ratio: (state.sample_ratio.log_e(), keys, candidate),
            warming_up: now < state.warm_at,
            unscored: state.unscored,
        }
    }
}

// === impl TestReport ===

impl TestReport {
    fn new(gate: &Gate, index: usize) -> Self {
        let (state, test) = (&gate.state, &gate.layout.tests[index]);
        let series = gate.layout.series()[test.series];
        let [c_events, s_events] = state.totals.events[test.series];
        let [c_exposed, s_exposed] = state.totals.exposed[series.channel.index()];
        let (candidate, stable) = (Side::new(c_events, c_exposed), Side::new(s_events, s_exposed));
        let slow = matches!(series.event, Event::Slower(_) | Event::Above(_));
        let quantile = match series.event {
            Event::Slower(q) | Event::Above(q) => Some(q),
            Event::Bad | Event::Good => None,
        };
        let (ceiling, family) = match &test.kind {
            Kind::Ceiling(ceiling) => (Some(ceiling.null()), None),
            Kind::Compare(family) => (None, Some(&gate.layout.families[*family].1)),
        };
        // Half a bad one more than was seen: stable may fail although it has not yet.
        let rate = (float(s_events) + 0.5) / (float(s_exposed) + 1.0);
        let tests = float(gate.layout.tests.len() as u64);
        let needed = gate.bound() + tests.ln() + 64_f64.ln();
        let worse = family.filter(|_| series.event != Event::Good);
        let harmless = gate.layout.non_inferior.iter().position(|s| *s == test.series && ceiling.is_none());
        Self {
            metric: gate.config.metrics[series.metric].name.clone(),
            quantile,
            estimate: state.estimates.get(test.series).copied().flatten(),
            threshold_us: slow
                .then(|| gate.thresholds().of(test.series).candidate_us)
                .filter(|threshold| *threshold != u64::MAX),
            ceiling,
            candidate,
            stable,
            log_e: state.tests.of(index).full().log_e(),
            non_inferior: harmless.map(|i| {
                let log_e = state.tests.harmless()[i].since();
                (log_e, log_e >= NON_INFERIOR_BOUND)
            }),
            detectable_ratio: worse.and_then(|family| family.detectable(c_exposed, s_exposed, rate, needed)),
        }
    }
}

// === impl Side ===

impl Side {
    fn new(events: u64, exposed: u64) -> Self {
        let rate = if exposed == 0 { 0.0 } else { float(events) / float(exposed) };
        Self { events, exposed, rate, ci95: wilson(events, exposed) }
    }
}
