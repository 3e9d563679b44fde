//! `[services.*.gate]`: what a candidate is judged by.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::{keys, words};
use crate::core::gate::config::{METRICS_MAX, QUANTILES_MAX};
use crate::core::gate::rules::Rule;
use crate::core::gate::{GateConfig, Measure, Method, Metric, REACH_MAX, TICK_US};
use crate::core::rollout::wanted::Terms;
use crate::core::service::Upstream;

/// Bounds of what is written.
const ALPHA: RangeInclusive<f64> = 1e-9..=0.1;
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3_600);
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3_600);
const INCREASE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const RATIO: RangeInclusive<f64> = 0.01..=1_000.0;
const QUANTILE: RangeInclusive<f64> = 0.01..=0.9999;
const REQUESTS: RangeInclusive<u32> = 1..=1_000_000_000;
/// Largest relative increase, in percent.
const INCREASE_MAX: u32 = 10_000;

/// The metrics there are.
pub(in super::super) const METRICS: [(&str, Measure); 4] = [
    ("error-rate", Measure::Errors),
    ("latency", Measure::Latency),
    ("client-errors", Measure::ClientErrors),
    ("probe-failures", Measure::Probes),
];

/// What each kind of metric reads beside its name and method.
const COUNTED: &[&str] = &["max_ratio", "ignore_below", "max_rate"];
const TIMED: &[&str] = &["quantiles", "max_increase", "min_increase", "max"];
const COUNTED_RULE: &[&str] = &[
    "window",
    "for",
    "min_requests",
    "max_rate",
    "max_increase_points",
    "max_increase",
    "max_ratio",
    "min_rate",
    "min_throughput_ratio",
    "baseline",
];
const TIMED_RULE: &[&str] = &[
    "window",
    "for",
    "min_requests",
    "quantiles",
    "max_increase",
    "max_ratio",
    "max",
    "min_throughput_ratio",
    "baseline",
];

/// Writes what the gate's table says into `terms`. `deep`: deep health checks are configured.
pub(super) fn gate(table: Option<&Table<'_>>, upstream: &Upstream, deep: bool, terms: &mut Terms) {
    // How long a request can still turn out bad; what comes later is counted as unscored.
    let reach = ticks(upstream.connect_timeout.saturating_add(upstream.response_timeout));
    terms.gate.reach = reach.clamp(1, REACH_MAX);
    let Some(table) = table else { return };
    terms.mode = table.word("mode", &words::GATE_MODE).unwrap_or(terms.mode);
    let gate = &mut terms.gate;
    gate.alpha = table.value("alpha").and_then(|value| value.number(&ALPHA)).unwrap_or(gate.alpha);
    gate.unit = table.word("unit", &words::UNIT).unwrap_or(gate.unit);
    gate.warmup = table.value("warmup").and_then(|value| value.duration(WAIT)).map_or(gate.warmup, ticks);
    let plan = &mut terms.plan;
    plan.max_extend = table.duration("max_extend", WAIT, plan.max_extend);
    plan.on_low_traffic = table.word("on_low_traffic", &words::ON_LOW_TRAFFIC).unwrap_or(plan.on_low_traffic);
    plan.pause_on_stable_degraded =
        table.word("on_stable_degraded", &words::ON_STABLE_DEGRADED).unwrap_or(plan.pause_on_stable_degraded);
    plan.pause_on_sample_ratio =
        table.word("on_sample_ratio", &words::ON_SAMPLE_RATIO).unwrap_or(plan.pause_on_sample_ratio);
    let (Some(written), Some(tables)) = (table.value("metrics"), table.tables("metrics", &keys::GATE_METRIC)) else {
        return;
    };
    if tables.is_empty() || tables.len() > METRICS_MAX {
        written.wrong(format_args!("{} metrics; between 1 and {METRICS_MAX} are allowed", tables.len()));
        return;
    }
    let names: Vec<_> = tables.iter().filter_map(|table| Some((table.value("name")?.text("a name")?, table))).collect();
    super::refuse_repeated(names.into_iter(), "name", "another metric has this name");
    let metrics: Vec<_> = tables.iter().filter_map(|table| metric(table, deep)).collect();
    if metrics.len() < tables.len() {
        return;
    }
    gate.metrics = metrics;
    if let Err(bad) = gate.check() {
        table.wrong(bad);
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(u128::from(TICK_US))).unwrap_or(u32::MAX)
}

fn metric(table: &Table<'_>, deep: bool) -> Option<Metric> {
    let value = table.required("name", "which metric, such as \"error-rate\"")?;
    let known = keys::list(METRICS.iter().map(|(name, _)| *name));
    let form = format!("a metric that is measured, one of {known}");
    let (name, measure) = value.read(&form, |text| {
        let found = METRICS.iter().find(|(name, _)| *name == text);
        found.ok_or_else(|| match keys::closest(text, METRICS.iter().map(|(name, _)| *name)) {
            Some(close) => format!("nothing measures this; did you mean \"{close}\"?"),
            None => format!("nothing measures this; {form}"),
        })
    })?;
    if *measure == Measure::Probes && !deep {
        value.refuse("counts deep health checks; write health.deep of this service as well");
    }
    let threshold = table.word("method", &words::GATE_METHOD).unwrap_or(false);
    let latency = *measure == Measure::Latency;
    refuse_idle(table, latency, threshold, name);
    let method = if threshold { rule(table, latency) } else { sequential(table, measure.usual()) };
    let metric = Metric { name: (*name).to_owned(), measure: *measure, method };
    let alone = GateConfig { metrics: vec![metric.clone()], ..Terms::default().gate };
    if let Err(bad) = alone.check() {
        table.wrong(bad.allowed);
        return None;
    }
    Some(metric)
}

/// Keys that would do nothing are mistakes.
fn refuse_idle(table: &Table<'_>, latency: bool, threshold: bool, name: &str) {
    let read = match (latency, threshold) {
        (false, false) => COUNTED,
        (true, false) => TIMED,
        (false, true) => COUNTED_RULE,
        (true, true) => TIMED_RULE,
    };
    let method = if threshold { "threshold" } else { "sequential" };
    let own = ["name", "method"];
    for key in keys::GATE_METRIC.keys.iter().filter(|key| !own.contains(key) && !read.contains(key)) {
        if let Some(value) = table.value(key) {
            let allowed = keys::list(read.iter().copied());
            value.wrong(format_args!("means nothing for {name} with method = \"{method}\"; allowed are {allowed}"));
        }
    }
}

/// `usual`, as far as nothing else is written.
fn sequential(table: &Table<'_>, usual: Method) -> Method {
    match usual {
        Method::Bad { max_ratio, ignore_below, max_rate } => Method::Bad {
            max_ratio: number(table, "max_ratio", &RATIO).unwrap_or(max_ratio),
            ignore_below: share(table, "ignore_below", 100).unwrap_or(ignore_below),
            max_rate: share(table, "max_rate", 100).or(max_rate),
        },
        Method::Latency { quantiles: usual, max_increase, min_increase_us, max_us } => Method::Latency {
            quantiles: quantiles(table).unwrap_or(usual),
            max_increase: share(table, "max_increase", INCREASE_MAX).unwrap_or(max_increase),
            min_increase_us: time(table, "min_increase", INCREASE).unwrap_or(min_increase_us),
            max_us: time(table, "max", LATENCY).or(max_us),
        },
        // No metric of the file is one of these unless it says so.
        Method::Good { .. } | Method::Threshold(_) => usual,
    }
}

fn rule(table: &Table<'_>, latency: bool) -> Method {
    let default = Rule::default();
    let quantiles = quantiles(table).filter(|_| latency).unwrap_or_else(|| vec![default.quantile]);
    if let Some(value) = table.value("quantiles").filter(|_| latency && quantiles.len() > 1) {
        value.wrong("a threshold is at one quantile");
    }
    let seconds = |key: &str, range, default: u32| {
        let Some(value) = table.value(key) else { return default };
        let Some(time) = value.duration(range) else { return default };
        if time.subsec_nanos() != 0 {
            value.refuse("whole seconds");
        }
        u32::try_from(time.as_secs()).unwrap_or(default)
    };
    let min_requests = table.value("min_requests").and_then(|value| value.integer(&REQUESTS, ""));
    Method::Threshold(Rule {
        window: seconds("window", WINDOW, default.window),
        hold: seconds("for", HOLD, default.hold),
        min_requests: min_requests.map_or(default.min_requests, u64::from),
        quantile: quantiles.first().copied().unwrap_or(default.quantile),
        max_rate: share(table, "max_rate", 100),
        max_increase_points: share(table, "max_increase_points", 100),
        max_increase: share(table, "max_increase", INCREASE_MAX),
        max_ratio: number(table, "max_ratio", &RATIO),
        max_us: time(table, "max", LATENCY),
        min_rate: share(table, "min_rate", 100),
        min_throughput_ratio: number(table, "min_throughput_ratio", &RATIO),
        baseline: table.word("baseline", &words::BASELINE).unwrap_or(default.baseline),
        ..default
    })
}

fn quantiles(table: &Table<'_>) -> Option<Vec<f64>> {
    let value = table.value("quantiles")?;
    let elements = value.elements("a list of quantiles such as [0.5, 0.99]")?;
    if elements.is_empty() || elements.len() > QUANTILES_MAX {
        value.wrong(format_args!("{} quantiles; between 1 and {QUANTILES_MAX} are allowed", elements.len()));
        return None;
    }
    elements.into_iter().map(|element: Value<'_, '_>| element.number(&QUANTILE)).collect()
}

fn number(table: &Table<'_>, key: &str, range: &RangeInclusive<f64>) -> Option<f64> {
    table.value(key)?.number(range)
}

/// A share of at most `percent` as a fraction.
fn share(table: &Table<'_>, key: &str, percent: u32) -> Option<f64> {
    table.value(key)?.percent(percent)
}

/// A time in microseconds.
fn time(table: &Table<'_>, key: &str, range: RangeInclusive<Duration>) -> Option<u64> {
    table.value(key)?.duration(range).map(micros)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
