//! `[services.*.rollout]` and `[services.*.gate]` as text: a ramp is written as its steps.

use super::super::units::show_percent;
use super::super::words;
use super::{Out, list, quote, show_duration};
use crate::core::gate::rules::Rule;
use crate::core::gate::{Measure, Method, Metric, TICK_US};
use crate::core::rollout::Step;
use crate::core::rollout::wanted::Wanted;
use std::time::Duration;

pub(super) fn rollout(out: &mut Out, path: &str, wanted: &Wanted) {
    let plan = &wanted.terms.plan;
    out.header(&format!("[{path}.rollout]"));
    out.text("strategy", words::STRATEGY.word(wanted.strategy));
    out.text("start", words::START.word(wanted.start));
    out.raw("steps", list(plan.steps.iter().map(step)));
    out.duration("progress_deadline", plan.progress_deadline);
    out.text("on_deadline", words::OTHERWISE.word(plan.on_deadline));
    out.duration("keep_stable", wanted.terms.keep_stable);
    out.text("on_restart", words::ON_RESTART.word(plan.resume_after_restart));
    out.text("on_empty_store", words::ON_EMPTY_STORE.word(wanted.on_empty_store));
    out.raw("max_failed_requests", plan.max_failed_requests);
}

fn step(step: &Step) -> String {
    format!(
        "{{ weight = {}, hold = {}, min_requests = {}, approval = {} }}",
        quote(step.weight),
        quote(show_duration(step.hold)),
        step.min_requests,
        step.approval
    )
}

pub(super) fn gate(out: &mut Out, path: &str, wanted: &Wanted) {
    let (plan, gate) = (&wanted.terms.plan, &wanted.terms.gate);
    out.header(&format!("[{path}.gate]"));
    out.text("mode", words::GATE_MODE.word(wanted.terms.mode));
    number(out, "alpha", gate.alpha);
    out.text("unit", words::UNIT.word(gate.unit));
    out.duration("warmup", Duration::from_micros(u64::from(gate.warmup) * TICK_US));
    out.duration("max_extend", plan.max_extend);
    out.text("on_low_traffic", words::ON_LOW_TRAFFIC.word(plan.on_low_traffic));
    out.text("on_stable_degraded", words::ON_STABLE_DEGRADED.word(plan.pause_on_stable_degraded));
    out.text("on_sample_ratio", words::ON_SAMPLE_RATIO.word(plan.pause_on_sample_ratio));
    for each in &gate.metrics {
        out.header(&format!("[[{path}.gate.metrics]]"));
        metric(out, each);
    }
}

fn metric(out: &mut Out, metric: &Metric) {
    out.text("name", &metric.name);
    out.text("method", words::GATE_METHOD.word(matches!(metric.method, Method::Threshold(_))));
    match &metric.method {
        Method::Bad { max_ratio, ignore_below, max_rate } => {
            number(out, "max_ratio", *max_ratio);
            out.text("ignore_below", show_percent(*ignore_below));
            share(out, "max_rate", *max_rate);
        }
        // No metric of the file counts good events in this version.
        Method::Good { min_ratio } => number(out, "min_ratio", *min_ratio),
        Method::Latency { quantiles, max_increase, min_increase_us, max_us } => {
            out.raw("quantiles", list(quantiles.iter().map(|q| format!("{q:?}"))));
            out.text("max_increase", show_percent(*max_increase));
            out.duration("min_increase", Duration::from_micros(*min_increase_us));
            latency(out, *max_us);
        }
        Method::Threshold(each) => rule(out, each, metric.measure == Measure::Latency),
    }
}

fn rule(out: &mut Out, rule: &Rule, timed: bool) {
    out.duration("window", Duration::from_secs(rule.window.into()));
    out.duration("for", Duration::from_secs(rule.hold.into()));
    out.raw("min_requests", rule.min_requests);
    if timed {
        out.raw("quantiles", list(std::iter::once(format!("{:?}", rule.quantile))));
    }
    share(out, "max_rate", rule.max_rate);
    share(out, "max_increase_points", rule.max_increase_points);
    share(out, "max_increase", rule.max_increase);
    for (key, value) in [("max_ratio", rule.max_ratio), ("min_throughput_ratio", rule.min_throughput_ratio)] {
        if let Some(value) = value {
            number(out, key, value);
        }
    }
    latency(out, rule.max_us);
    share(out, "min_rate", rule.min_rate);
    out.text("baseline", words::BASELINE.word(rule.baseline));
}

fn number(out: &mut Out, key: &str, value: f64) {
    out.raw(key, format_args!("{value:?}"));
}

fn share(out: &mut Out, key: &str, value: Option<f64>) {
    if let Some(value) = value {
        out.text(key, show_percent(value));
    }
}

fn latency(out: &mut Out, micros: Option<u64>) {
    if let Some(micros) = micros {
        out.duration("max", Duration::from_micros(micros));
    }
}
