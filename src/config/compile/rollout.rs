//! `[services.*.rollout]`: the plan a candidate goes through.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::{keys, units, words};
use crate::core::rollout::wanted::{STEPS_MAX, Strategy, Terms, Wanted, ramp};
use crate::core::rollout::{Plan, Step};
use crate::core::weight::Weight;

/// Bounds of a hold, of the deadline, of the time the old stable is kept.
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 24 * 3_600);
const DEADLINE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3_600);
/// Requests of a step, bad requests of a rollout.
const REQUESTS: RangeInclusive<u32> = 0..=1_000_000_000;
/// How much steeper a ramp gets from step to step.
const FACTOR: RangeInclusive<f64> = 1.01..=100.0;

const STEPS_FORM: &str = "a list of steps such as [{ weight = \"5%\", hold = \"30s\" }, { weight = \"100%\" }]";
const WEIGHT_FORM: &str = "a share above 0% such as \"5%\"";

/// How rollouts go; what belongs to the gate comes from its own table.
pub(super) fn rollout(table: Option<&Table<'_>>) -> Wanted {
    let default = Wanted::default();
    let Some(table) = table else { return default };
    let (strategy, terms) = planned(table, &default);
    Wanted {
        strategy,
        start: table.word("start", &words::START).unwrap_or(default.start),
        on_empty_store: table.word("on_empty_store", &words::ON_EMPTY_STORE).unwrap_or(default.on_empty_store),
        terms,
    }
}

/// What a rollout is pinned to; what is not written is as in `base`.
pub(in super::super) fn planned(table: &Table<'_>, base: &Wanted) -> (Strategy, Terms) {
    let (strategy, plan) = (table.word("strategy", &words::STRATEGY).unwrap_or(base.strategy), &base.terms.plan);
    let failed = table.value("max_failed_requests").and_then(|value| value.integer(&REQUESTS, ""));
    let plan = Plan {
        steps: steps(table, strategy, base),
        progress_deadline: table.duration("progress_deadline", DEADLINE, plan.progress_deadline),
        on_deadline: table.word("on_deadline", &words::OTHERWISE).unwrap_or(plan.on_deadline),
        max_failed_requests: failed.map_or(plan.max_failed_requests, u64::from),
        resume_after_restart: table.word("on_restart", &words::ON_RESTART).unwrap_or(plan.resume_after_restart),
        ..plan.clone()
    };
    refuse_deadline(table, &plan);
    let keep_stable = table.duration("keep_stable", HOLD, base.terms.keep_stable);
    (strategy, Terms { plan, keep_stable, ..base.terms.clone() })
}

/// A deadline that healthy rollouts miss is a mistake.
fn refuse_deadline(table: &Table<'_>, plan: &Plan) {
    let below = plan.steps.iter().filter(|step| step.weight < Weight::FULL);
    let holds = below.fold(Duration::ZERO, |sum, step| sum.saturating_add(step.hold));
    if holds >= plan.progress_deadline {
        let shown = units::show_duration(holds);
        let message = format!("the steps below 100% take {shown} together, so every rollout would miss it");
        let usual = units::show_duration(plan.progress_deadline);
        match table.value("progress_deadline") {
            Some(value) => value.refuse(message),
            None => table.wrong(format_args!("progress_deadline is \"{usual}\" unless it is written; {message}")),
        }
    }
}

fn steps(table: &Table<'_>, strategy: Strategy, base: &Wanted) -> Vec<Step> {
    let (written, ramped) = (table.value("steps"), table.value("ramp"));
    if let (Some(_), Some(ramped)) = (written, ramped) {
        ramped.wrong("contradicts steps; write one of them");
    }
    let steps = match (written, ramped) {
        (Some(written), _) => written_steps(table, written),
        (None, Some(ramped)) => ramped.table(&keys::RAMP).map(|table| ramp_steps(&table)).unwrap_or_default(),
        (None, None) if strategy == base.strategy => base.terms.plan.steps.clone(),
        (None, None) if strategy == Strategy::BlueGreen => vec![Step::new(Weight::FULL, Duration::from_secs(300))],
        (None, None) => Plan::default().steps,
    };
    let whole = |steps: &[Step]| matches!(steps, [only] if only.weight == Weight::FULL);
    if strategy == Strategy::BlueGreen && !whole(&steps) && !steps.is_empty() {
        for value in [written, ramped].into_iter().flatten() {
            value.wrong("contradicts strategy = \"blue_green\", which has one step, of 100%");
        }
    }
    steps
}

fn written_steps(table: &Table<'_>, written: Value<'_, '_>) -> Vec<Step> {
    let Some(tables) = table.tables("steps", &keys::STEP) else { return Vec::new() };
    if tables.is_empty() || tables.len() > STEPS_MAX {
        written.wrong(format_args!("{} steps; between 1 and {STEPS_MAX} are allowed: {STEPS_FORM}", tables.len()));
    }
    let mut last = Weight::ZERO;
    let mut steps = Vec::new();
    for table in &tables {
        let weight = table.required("weight", WEIGHT_FORM);
        let Some((value, weight)) = weight.and_then(|value| Some((value, value.read(WEIGHT_FORM, Weight::parse)?)))
        else {
            continue;
        };
        if weight == Weight::ZERO {
            value.refuse("a step has a share above 0%");
        } else if weight <= last {
            value.refuse(format_args!("steps rise; the one before has {last}"));
        }
        last = last.max(weight);
        let usual = Step::new(weight, table.duration("hold", HOLD, Duration::from_secs(60)));
        let min_requests = table.value("min_requests").and_then(|value| value.integer(&REQUESTS, ""));
        steps.push(Step {
            min_requests: min_requests.map_or(usual.min_requests, u64::from),
            approval: table.boolean("approval", usual.approval),
            ..usual
        });
    }
    steps
}

fn ramp_steps(table: &Table<'_>) -> Vec<Step> {
    let share = |key, default| {
        let value = table.value(key)?;
        let weight = value.read(WEIGHT_FORM, Weight::parse).unwrap_or(default);
        if weight == Weight::ZERO {
            value.refuse("a ramp goes through shares above 0%");
            return None;
        }
        Some(weight)
    };
    let low = Weight::from_grains(10).unwrap_or(Weight::FULL);
    let (from, to) = (share("from", low).unwrap_or(low), share("to", Weight::FULL).unwrap_or(Weight::FULL));
    let factor = table.value("factor").and_then(|value| value.number(&FACTOR)).unwrap_or(2.0);
    let every = table.duration("every", HOLD, Duration::from_secs(30));
    if from >= to {
        table.wrong(format_args!("a ramp rises, but from is {from} and to is {to}"));
        return Vec::new();
    }
    let Some(weights) = ramp(from, to, factor) else {
        table.wrong(format_args!("needs more than {STEPS_MAX} steps; take a larger factor or begin higher"));
        return Vec::new();
    };
    weights.into_iter().map(|weight| Step::new(weight, every)).collect()
}
