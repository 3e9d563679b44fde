//! Threshold rules, sentence by sentence as their users say them.

use tidegate::core::gate::history::Second;
use tidegate::core::gate::rules::{Compared, Rule, RuleKey};
use tidegate::core::gate::sketch::bucket_of;
use tidegate::core::gate::{
    Cell, Channel, Events, Exposures, Gate, GateConfig, History, Latencies, Layout, Measure, Method, Metric, Outcome,
    Reason, Tick, TickInput,
};

use super::world::{errors_only, grains};

/// One second: exposed, events, latency in milliseconds, of stable and of the candidate.
type Traffic = ([u32; 2], [u32; 2], [u64; 2]);

/// Seconds until the rule is broken, within as many as `traffic` makes, with its key.
fn broken(measure: Measure, rule: Rule, seconds: u64, traffic: impl Fn(u64) -> Traffic) -> Option<(u64, RuleKey)> {
    let metric = Metric { name: "rule".into(), measure, method: Method::Threshold(rule) };
    let config = GateConfig { metrics: vec![metric], ..errors_only() };
    let layout = Layout::new(&config);
    let mut history = History::new(&layout);
    // Before: 100 requests per second, 1 % bad, 100 ms.
    for _ in 0..600 {
        let events = vec![1; layout.series().len()];
        let latencies = [(bucket_of(100_000), 100)];
        history.record(&Second {
            exposed: &vec![100; layout.channels()],
            events: &events,
            succeeded: 99,
            latencies: &latencies,
        });
    }
    let mut gate = Gate::new(config, &history, 0).expect("a sound rule");
    let channel = layout.series().first().map_or(Channel::WRITTEN, |series| series.channel);
    (0..seconds).find_map(|second| {
        let now: Tick = second * 20 + 19;
        let (exposed, bad, ms) = traffic(second);
        let cells = [Cell::STABLE, Cell::candidate(0)];
        let exposures = [0, 1].map(|i| Exposures { channel, cell: cells[i], count: exposed[i] });
        let event = |i: usize| Events { series: 0, cell: cells[i], began: now, requests: bad[i], sessions: bad[i] };
        let events = if measure == Measure::Latency { Vec::new() } else { vec![event(0), event(1)] };
        let taken = [0, 1].map(|i| [(bucket_of(ms[i] * 1_000), exposed[i])]);
        let input = TickInput {
            exposures: &exposures,
            events: &events,
            succeeded: [exposed[0] - bad[0], exposed[1] - bad[1]],
            latencies: Latencies { stable: &taken[0], candidate: &taken[1] },
            ..TickInput::quiet(now, grains(5_000))
        };
        match gate.tick(&input).outcome {
            Outcome::Harmful(Reason::Rule { metric: 0, breach }) => Some((second, breach.key)),
            _ => None,
        }
    })
}

fn errors(rule: Rule, traffic: impl Fn(u64) -> Traffic) -> Option<(u64, RuleKey)> {
    broken(Measure::Errors, rule, 600, traffic)
}

fn latency(rule: Rule, ms: impl Fn(u64) -> [u64; 2]) -> Option<(u64, RuleKey)> {
    broken(Measure::Latency, rule, 600, |second| ([100, 100], [0, 0], ms(second)))
}

#[test]
fn error_rate_more_than_half_a_point_above_baseline_for_two_minutes() {
    let rule = Rule { window: 60, hold: 120, max_increase_points: Some(0.005), ..Rule::default() };
    let at = |bad: u32| errors(rule.clone(), move |_| ([1_000, 1_000], [10, bad], [1, 1]));
    assert_eq!((at(15), at(16)), (None, Some((120, RuleKey::MaxIncreasePoints))));
    // A minute of it is not two; half an hour of nothing in between changes neither.
    let minute = errors(rule.clone(), |s| ([1_000, 1_000], [10, if s < 60 { 30 } else { 10 }], [1, 1]));
    assert_eq!(minute, None);
    let frozen = broken(Measure::Errors, rule, 2_400, |s| match s {
        0..60 | 1_860.. => ([1_000, 1_000], [10, 30], [1, 1]),
        _ => ([0, 0], [0, 0], [1, 1]),
    });
    assert!(frozen.is_some_and(|(s, _)| (1_860..1_980).contains(&s)), "{frozen:?}");
}

#[test]
fn p95_more_than_half_above_baseline_and_p95_more_than_a_fifth() {
    let rule = |share| Rule { max_increase: Some(share), quantile: 0.95, ..Rule::default() };
    assert_eq!(latency(rule(0.5), |_| [100, 140]), None);
    assert_eq!(latency(rule(0.5), |_| [100, 160]), Some((0, RuleKey::MaxIncrease)));
    assert_eq!(latency(rule(0.2), |_| [100, 110]), None);
    assert_eq!(latency(rule(0.2), |_| [100, 130]), Some((0, RuleKey::MaxIncrease)));
    // Against the ten minutes before, a stable that is slow as well is no excuse.
    let before = Rule { baseline: Compared::Before, ..rule(0.5) };
    assert_eq!(latency(before, |_| [200, 200]), Some((0, RuleKey::MaxIncrease)));
    assert_eq!(latency(Rule { max_ratio: Some(1.5), ..Rule::default() }, |_| [100, 160]), Some((0, RuleKey::MaxRatio)));
}

#[test]
fn p95_above_half_a_second_for_three_minutes() {
    let rule = Rule { window: 10, hold: 180, max_us: Some(500_000), ..Rule::default() };
    assert_eq!(latency(rule.clone(), |_| [100, 480]), None);
    assert_eq!(latency(rule.clone(), |_| [100, 600]), Some((180, RuleKey::Max)));
    assert_eq!(latency(rule, |s| [100, if s % 100 < 50 { 600 } else { 100 }]), None);
}

#[test]
fn success_below_99_percent_for_three_minutes_and_early_success_above_it() {
    let rule = Rule { window: 30, hold: 180, min_rate: Some(0.99), ..Rule::default() };
    assert_eq!(errors(rule.clone(), |_| ([1_000, 1_000], [0, 10], [1, 1])), None);
    assert_eq!(errors(rule.clone(), |_| ([1_000, 1_000], [0, 11], [1, 1])), Some((180, RuleKey::MinRate)));
    let early = Rule { hold: 0, ..rule.clone() };
    assert_eq!(errors(early, |_| ([1_000, 1_000], [0, 11], [1, 1])), Some((0, RuleKey::MinRate)));
    let good = Rule { counts_good: true, ..rule };
    assert_eq!(errors(good, |_| ([1_000, 1_000], [990, 985], [1, 1])), Some((180, RuleKey::MinRate)));
}

#[test]
fn more_than_a_tenth_of_health_checks_failing() {
    let rule = Rule { window: 60, min_requests: 20, max_rate: Some(0.1), ..Rule::default() };
    let probes = |bad: u64| {
        broken(Measure::Probes, rule.clone(), 60, move |s| ([1, 1], [0, u32::from(s % 10 >= 10 - bad)], [1, 1]))
    };
    assert_eq!(probes(1), None);
    assert!(probes(3).is_some_and(|(s, key)| s == 19 && key == RuleKey::MaxRate));
}

#[test]
fn error_delta_over_a_five_minute_window_and_relative_ones() {
    let rule = Rule { window: 300, max_increase_points: Some(0.01), ..Rule::default() };
    // A bad minute is diluted by the good ones before it.
    let minute = errors(rule.clone(), |s| ([1_000, 1_000], [10, if s >= 400 { 50 } else { 10 }], [1, 1]));
    assert!(minute.is_some_and(|(s, _)| (475..478).contains(&s)), "{minute:?}");
    let relative = |rule| errors(rule, |_| ([1_000, 1_000], [10, 21], [1, 1]));
    assert_eq!(relative(Rule { max_increase: Some(1.0), ..Rule::default() }), Some((0, RuleKey::MaxIncrease)));
    assert_eq!(relative(Rule { max_ratio: Some(2.0), ..Rule::default() }), Some((0, RuleKey::MaxRatio)));
    assert_eq!(relative(Rule { max_ratio: Some(2.2), ..Rule::default() }), None);
    let before = Rule { max_ratio: Some(2.0), baseline: Compared::Before, ..Rule::default() };
    assert_eq!(errors(before, |_| ([1_000, 1_000], [30, 30], [1, 1])), Some((0, RuleKey::MaxRatio)));
}

#[test]
fn a_tenth_of_a_percent_and_p99_within_a_fifth_in_every_window() {
    let rule = Rule::strict_errors(60);
    assert_eq!(errors(rule.clone(), |_| ([1_000, 1_000], [0, 1], [1, 1])), None);
    assert_eq!(errors(rule.clone(), |s| ([9, 9], [0, u32::from(s == 90)], [1, 1])), Some((90, RuleKey::MaxRate)));
    assert!(rule.breaks_on_one(999) && !rule.breaks_on_one(1_000));
    assert!(!Rule { max_rate: Some(0.001), ..Rule::default() }.breaks_on_one(999));
    assert_eq!(latency(Rule::strict_latency(60), |_| [100, 130]), Some((0, RuleKey::MaxIncrease)));
}

#[test]
fn throughput_of_at_least_95_percent_of_normal() {
    let rule = |baseline| Rule { min_throughput_ratio: Some(0.95), baseline, ..Rule::default() };
    // Half of the traffic each; before, 99 per second succeeded.
    let at = |baseline, succeeding: u32| errors(rule(baseline), move |_| ([100, 100], [0, 100 - succeeding], [1, 1]));
    assert_eq!(at(Compared::Stable, 96), None);
    assert_eq!(at(Compared::Stable, 94), Some((0, RuleKey::MinThroughputRatio)));
    assert_eq!(at(Compared::Before, 48), None);
    assert_eq!(at(Compared::Before, 46), Some((0, RuleKey::MinThroughputRatio)));
}

#[test]
fn too_few_requests_or_too_few_bad_ones_are_no_breach() {
    let rule = Rule { window: 10, max_rate: Some(0.01), ..Rule::default() };
    assert_eq!(errors(rule.clone(), |_| ([9, 9], [0, 9], [1, 1])), None);
    assert_eq!(errors(rule.clone(), |_| ([11, 11], [0, 11], [1, 1])), Some((9, RuleKey::MaxRate)));
    assert_eq!(errors(rule, |s| ([11, 11], [0, u32::from(s % 10 < 2)], [1, 1])), None);
}
