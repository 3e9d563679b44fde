//! Rollouts and gates: what is made of them, and any of them for the round trip.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::{compile, errors};
use crate::core::gate::rules::{Compared, Rule};
use crate::core::gate::{GateConfig, Measure, Method, Metric, Unit};
use crate::core::rollout::wanted::{Mode, OnEmptyStore, Start, Strategy as Shape, Terms, Wanted};
use crate::core::rollout::{OnLowTraffic, Otherwise, Plan, Step};
use crate::core::service::Upstream;
use crate::core::weight::Weight;

fn percent() -> impl Strategy<Value = f64> {
    (1_u32..10_000).prop_map(|grains| f64::from(grains) / 10_000.0)
}

fn ratio() -> impl Strategy<Value = f64> {
    (1_u32..1_000).prop_map(|n| f64::from(n) / 8.0)
}

fn millis(low: u64, high: u64) -> impl Strategy<Value = Duration> {
    (low..=high).prop_map(Duration::from_millis)
}

fn steps(shape: Shape) -> impl Strategy<Value = Vec<Step>> {
    let weights = match shape {
        Shape::Canary => btree_set(1_u16..=10_000, 1..9).boxed(),
        Shape::BlueGreen => btree_set(10_000_u16..=10_000, 1).boxed(),
    };
    (weights, vec((millis(0, 90_000), 0_u64..1_000, any::<bool>()), 9)).prop_map(|(weights, rest)| {
        let step = |(grains, (hold, min_requests, approval))| Step {
            min_requests,
            approval,
            ..Step::new(Weight::from_grains(grains).expect("a share"), hold)
        };
        weights.into_iter().zip(rest).map(step).collect()
    })
}

fn plan(shape: Shape) -> impl Strategy<Value = Plan> {
    let low = select(vec![OnLowTraffic::Advance, OnLowTraffic::AdvanceIfClean, OnLowTraffic::Pause]);
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (steps(shape), millis(900_000, 9_000_000), millis(0, 900_000), low, 0_u64..1_000, switches).prop_map(
        |(steps, progress_deadline, max_extend, on_low_traffic, max_failed_requests, b)| Plan {
            steps,
            progress_deadline,
            on_deadline: if b.0 { Otherwise::Pause } else { Otherwise::Abort },
            max_extend,
            on_low_traffic,
            max_failed_requests,
            pause_on_stable_degraded: b.1,
            pause_on_sample_ratio: b.2,
            resume_after_restart: b.3,
            ..Plan::default()
        },
    )
}

fn rule(latency: bool) -> impl Strategy<Value = Rule> {
    let rates = (percent(), option::of(percent()), option::of(percent()));
    let ratios = (ratio(), option::of(ratio()), option::of(percent()));
    ((1_u32..3_600, 0_u32..3_600, 1_u64..9_999, any::<bool>()), rates, ratios).prop_map(
        move |((window, hold, min_requests, before), rates, ratios)| Rule {
            window,
            hold,
            min_requests,
            quantile: if latency { 0.9 } else { 0.95 },
            max_rate: (!latency).then_some(rates.0),
            max_increase_points: rates.1.filter(|_| !latency),
            max_increase: ratios.2.map(|share| share * 100.0).map(|share| (share * 10_000.0).round() / 10_000.0),
            max_ratio: Some(ratios.0),
            max_us: latency.then_some(250_000),
            min_rate: rates.2.filter(|_| !latency),
            min_throughput_ratio: ratios.1,
            baseline: if before { Compared::Before } else { Compared::Stable },
            ..Rule::default()
        },
    )
}

fn counted() -> impl Strategy<Value = Method> {
    let bad = (ratio(), percent(), option::of(percent()));
    let bad = bad.prop_map(|(max_ratio, ignore_below, max_rate)| Method::Bad { max_ratio, ignore_below, max_rate });
    prop_oneof![bad.boxed(), rule(false).prop_map(Method::Threshold).boxed()]
}

fn timed() -> impl Strategy<Value = Method> {
    let quantiles = subsequence(vec![0.5, 0.75, 0.95, 0.999], 1..=4);
    let tested = (quantiles, percent(), 0_u64..1_000, option::of(1_u64..1_000));
    let tested = tested.prop_map(|(quantiles, max_increase, min, max)| Method::Latency {
        quantiles,
        max_increase,
        min_increase_us: min * 1_000,
        max_us: max.map(|ms| ms * 1_000),
    });
    prop_oneof![tested.boxed(), rule(true).prop_map(Method::Threshold).boxed()]
}

fn metrics() -> impl Strategy<Value = Vec<Metric>> {
    (counted().boxed(), timed().boxed(), counted().boxed(), 1_usize..=3).prop_map(|(errors, latency, client, count)| {
        let metric = |name: &str, measure, method| Metric { name: name.to_owned(), measure, method };
        let mut metrics = vec![
            metric("latency", Measure::Latency, latency),
            metric("error-rate", Measure::Errors, errors),
            metric("client-errors", Measure::ClientErrors, client),
        ];
        metrics.truncate(count);
        metrics
    })
}

/// Any rollout and gate of a service that is reached like `upstream`.
pub(super) fn wanted(upstream: &Upstream) -> BoxedStrategy<Arc<Wanted>> {
    let wait = upstream.connect_timeout + upstream.response_timeout;
    let reach = u32::try_from(wait.as_millis().div_ceil(50)).expect("fits").clamp(1, 72_000);
    let gate = (1_u32..100, any::<bool>(), 0_u32..10_000, metrics());
    let gate = gate.prop_map(move |(alpha, session, warmup, metrics)| GateConfig {
        alpha: f64::from(alpha) / 1_024.0,
        unit: if session { Unit::Session } else { Unit::Request },
        warmup,
        reach,
        metrics,
    });
    let plan = prop_oneof![
        plan(Shape::Canary).prop_map(|plan| (Shape::Canary, plan)).boxed(),
        plan(Shape::BlueGreen).prop_map(|plan| (Shape::BlueGreen, plan)).boxed()
    ];
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    (plan, gate, millis(0, 9_000_000), switches)
        .prop_map(|((strategy, plan), gate, keep_stable, b)| {
            Arc::new(Wanted {
                strategy,
                start: if b.0 { Start::Auto } else { Start::Manual },
                on_empty_store: if b.1 { OnEmptyStore::Pause } else { OnEmptyStore::Start },
                terms: Terms { plan, gate, mode: if b.2 { Mode::Enforce } else { Mode::Observe }, keep_stable },
            })
        })
        .boxed()
}

fn of(text: &str) -> Arc<Wanted> {
    let text = format!("{}\n{text}", super::super::MINIMAL);
    Arc::clone(&compile(&text).unwrap_or_else(|errors| panic!("{errors}")).services[0].rollout)
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(*of(""), Wanted::default());
    assert_eq!(*of("[services.web.rollout]\n[services.web.gate]"), Wanted::default());
}

#[test]
fn a_ramp_becomes_steps_and_blue_green_is_one() {
    let ramp = of("[services.web.rollout]\nramp = { from = \"10%\", to = \"50%\", factor = 3, every = \"10s\" }");
    let shown: Vec<_> = ramp.terms.plan.steps.iter().map(|s| (s.weight.grains(), s.hold.as_secs())).collect();
    assert_eq!(shown, [(1_000, 10), (3_000, 10), (5_000, 10)]);
    let at_once = of("[services.web.rollout]\nstrategy = \"blue_green\"");
    assert_eq!(at_once.terms.plan.steps, [Step::new(Weight::FULL, Duration::from_secs(300))]);
}

/// flagger#1581: a metric that nothing measures must not be a rollout without a judge.
#[test]
fn flagger_1581_a_metric_that_does_not_exist_is_refused() {
    let text = format!("{}\n[[services.web.gate.metrics]]\nname = \"eror-rate\"", super::super::MINIMAL);
    let said = errors(&text).join("\n");
    assert!(said.contains("nothing measures this; did you mean \"error-rate\"?"), "{said}");
}

#[test]
fn the_words_of_the_design_can_be_written() {
    let gate = of(concat!(
        "[[services.web.gate.metrics]]\nname = \"error-rate\"\nmethod = \"threshold\"\n",
        "max_increase_points = \"0.5%\"\nwindow = \"2m\"\nfor = \"2m\"\n",
        "[[services.web.gate.metrics]]\nname = \"latency\"\nmethod = \"threshold\"\n",
        "quantiles = [0.95]\nmax = \"500ms\"\nmax_increase = \"150%\"\nfor = \"3m\"\nmin_throughput_ratio = 0.95\n",
    ));
    let [Method::Threshold(errors), Method::Threshold(latency)] =
        [0, 1].map(|i| gate.terms.gate.metrics[i].method.clone())
    else {
        panic!("thresholds")
    };
    assert_eq!((errors.max_increase_points, errors.window, errors.hold), (Some(0.005), 120, 120));
    assert_eq!((latency.max_us, latency.max_increase, latency.hold), (Some(500_000), Some(1.5), 180));
}
