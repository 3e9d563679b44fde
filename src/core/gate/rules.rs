//! Threshold rules, for those who want the classic: a comparison per second that has to hold for a while. No promise of alpha.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::history::Baseline;
use super::layout::Layout;
use super::numeric::float;
use super::sketch::Sketch;

/// Longest window and longest `for`, in seconds.
pub const RULE_SECONDS_MAX: u32 = 3_600;

/// The rule of one metric. Every key that is given must hold, else it is a breach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Over how much is judged, in seconds, 1 to 3,600.
    pub window: u32,
    /// How long a breach has to hold, in seconds; 0: not at all.
    pub hold: u32,
    /// Fewer requests of a variant that is looked at within the window are no data.
    pub min_requests: u64,
    /// Fewer bad ones are no breach (of what is counted, not of a latency).
    pub min_bad: u64,
    /// What is counted is good, not bad.
    pub counts_good: bool,
    /// Which quantile of a latency; otherwise ignored.
    pub quantile: f64,
    /// Highest bad rate.
    pub max_rate: Option<f64>,
    /// Most the bad rate may lie above the baseline's, as a difference of rates: 0.005 is half a point.
    pub max_increase_points: Option<f64>,
    /// Most the bad rate or the latency may lie above the baseline's, as a share of it.
    pub max_increase: Option<f64>,
    /// Most the bad rate or the latency may be, as a multiple of the baseline's.
    pub max_ratio: Option<f64>,
    /// Highest latency, in microseconds.
    pub max_us: Option<u64>,
    /// Lowest good rate.
    pub min_rate: Option<f64>,
    /// Lowest number of requests that end well per second and share of the traffic, as a share of the baseline's.
    pub min_throughput_ratio: Option<f64>,
    /// What is compared with.
    pub baseline: Compared,
}

/// What a rule compares the candidate with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compared {
    /// Stable, in the same window.
    Stable,
    /// Stable, in the ten minutes before the rollout.
    Before,
}

/// The key of a rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as the keys of `Rule`")]
pub enum RuleKey {
    MaxRate,
    MaxIncreasePoints,
    MaxIncrease,
    MaxRatio,
    Max,
    MinRate,
    MinThroughputRatio,
}

/// A rule that does not hold, with its numbers: rates, ratios, or microseconds for `Max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// Which key.
    pub key: RuleKey,
    /// What was seen.
    pub observed: f64,
    /// What is allowed.
    pub allowed: f64,
    /// For how many seconds it has held.
    pub seconds: u32,
}

/// One second, stable first, candidate second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) exposed: [u64; 2],
    pub(super) events: [u64; 2],
    pub(super) succeeded: [u64; 2],
    /// Shares of the traffic, in grains.
    pub(super) share: [u64; 2],
    pub(super) latencies: [Sketch; 2],
}

/// A rule and what it has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    samples: VecDeque<Sample>,
    /// The breach that holds, if there is one.
    breach: Option<Breach>,
}

// === impl Rule ===

impl Default for Rule {
    fn default() -> Self {
        Self {
            window: 60,
            hold: 0,
            min_requests: 100,
            min_bad: 3,
            counts_good: false,
            quantile: 0.95,
            max_rate: None,
            max_increase_points: None,
            max_increase: None,
            max_ratio: None,
            max_us: None,
            min_rate: None,
            min_throughput_ratio: None,
            baseline: Compared::Stable,
        }
    }
}

impl Rule {
    /// What has to hold in every window: at most 0.1 % errors. Below 1,000 requests per window one error breaks it.
    #[must_use]
    pub fn strict_errors(window: u32) -> Self {
        Self { window, min_requests: 1, min_bad: 1, max_rate: Some(0.001), ..Self::default() }
    }

    /// What has to hold in every window beside it: p99 at most 20 % above stable's.
    #[must_use]
    pub fn strict_latency(window: u32) -> Self {
        Self { window, min_requests: 1, quantile: 0.99, max_increase: Some(0.2), ..Self::default() }
    }

    /// Whether, at `requests` per window, a single bad one breaks the rule: worth a warning.
    #[must_use]
    pub fn breaks_on_one(&self, requests: u64) -> bool {
        let rate = self.max_rate.or_else(|| self.min_rate.map(|r| 1.0 - r));
        self.min_bad <= 1 && requests > 0 && rate.is_some_and(|rate| 1.0 / float(requests) > rate)
    }

    pub(super) fn check(&self, latency: bool) -> Result<(), &'static str> {
        let counted = [self.max_rate, self.max_increase_points, self.min_rate];
        let factors = [self.max_increase, self.max_ratio, self.min_throughput_ratio];
        let some = counted.iter().chain(&factors).any(Option::is_some) || self.max_us.is_some();
        if !some {
            return Err(
                "a rule needs at least one of max_rate, max_increase_points, max_increase, max_ratio, max, min_rate, min_throughput_ratio",
            );
        }
        if !(1..=RULE_SECONDS_MAX).contains(&self.window) || self.hold > RULE_SECONDS_MAX {
            return Err("window is between 1s and 1h, for at most 1h");
        }
        if latency && counted.iter().any(Option::is_some) {
            return Err("a latency has no rate: use max, max_increase, max_ratio or min_throughput_ratio");
        }
        if !latency && self.max_us.is_some() {
            return Err("max is a latency: use max_rate");
        }
        let rates = counted.iter().flatten().all(|r| (0.0..=1.0).contains(r));
        let positive = factors.iter().flatten().all(|f| f.is_finite() && *f >= 0.0);
        if rates && positive && self.quantile > 0.0 && self.quantile < 1.0 {
            Ok(())
        } else {
            Err("rates lie between 0 and 1, quantiles between them, factors are not negative")
        }
    }
}

// === impl Watched ===

impl Watched {
    /// Takes a second and says whether the rule is broken.
    pub(super) fn second(&mut self, rule: &Rule, sample: Sample, before: &Before<'_>) -> Option<Breach> {
        self.samples.push_back(sample);
        while self.samples.len() > usize::try_from(rule.window).unwrap_or(1) {
            self.samples.pop_front();
        }
        match self.judge(rule, before) {
            Judged::NoData => {}
            Judged::Holds => self.breach = None,
            Judged::Broken(breach) => {
                let seconds = self.breach.map_or(0, |b| b.seconds.saturating_add(1));
                self.breach = Some(Breach { seconds, ..breach });
            }
        }
        self.breach.filter(|b| b.seconds >= rule.hold)
    }

    fn judge(&self, rule: &Rule, before: &Before<'_>) -> Judged {
        let [stable, candidate] = self.sides();
        let compared = match rule.baseline {
            Compared::Stable => stable,
            Compared::Before => before.side(),
        };
        let relative = rule.max_increase.is_some()
            || rule.max_increase_points.is_some()
            || rule.max_ratio.is_some()
            || rule.min_throughput_ratio.is_some();
        if candidate.exposed < rule.min_requests.max(1) || relative && compared.exposed < rule.min_requests.max(1) {
            return Judged::NoData;
        }
        let latency = candidate.latencies.total() > 0 && before.latency;
        let found = if latency { latency_breach(rule, &candidate, &compared) } else { None };
        let found = found.or_else(|| if before.latency { None } else { rate_breach(rule, &candidate, &compared) });
        let found = found.or_else(|| throughput_breach(rule, &candidate, &compared));
        found.map_or(Judged::Holds, Judged::Broken)
    }

    fn sides(&self) -> [Side; 2] {
        [0, 1].map(|i| {
            let mut side = Side::default();
            for sample in &self.samples {
                side.exposed += sample.exposed[i];
                side.events += sample.events[i];
                side.succeeded += sample.succeeded[i];
                side.share += float(sample.share[i]) / 10_000.0;
                side.latencies.merge(&sample.latencies[i]);
            }
            side
        })
    }
}

/// What was before the rollout, for one metric.
pub(super) struct Before<'a> {
    pub(super) baseline: &'a Baseline,
    pub(super) counts: (u64, u64),
    /// The metric is a latency.
    pub(super) latency: bool,
}

/// One variant in one window. `share` is in seconds of the whole traffic.
#[derive(Debug, Default)]
struct Side {
    exposed: u64,
    events: u64,
    succeeded: u64,
    share: f64,
    latencies: Sketch,
}

enum Judged {
    NoData,
    Holds,
    Broken(Breach),
}

// === impl Before ===

impl<'a> Before<'a> {
    pub(super) fn new(baseline: &'a Baseline, layout: &Layout, series: Option<usize>) -> Self {
        let counts = series.map_or((0, baseline.latencies.total()), |s| baseline.counts(layout, s));
        Self { baseline, counts, latency: series.is_none() }
    }

    fn side(&self) -> Side {
        Side {
            exposed: self.counts.1,
            events: self.counts.0,
            succeeded: self.baseline.succeeded,
            share: f64::from(self.baseline.seconds),
            latencies: if self.latency { self.baseline.latencies.clone() } else { Sketch::default() },
        }
    }
}

// === impl Side ===

impl Side {
    fn bad(&self, good: bool) -> u64 {
        if good { self.exposed.saturating_sub(self.events) } else { self.events.min(self.exposed) }
    }

    fn rate(&self, good: bool) -> f64 {
        float(self.bad(good)) / float(self.exposed.max(1))
    }
}

fn above(key: RuleKey, observed: f64, allowed: Option<f64>) -> Option<Breach> {
    let allowed = allowed.filter(|allowed| observed > *allowed)?;
    Some(Breach { key, observed, allowed, seconds: 0 })
}

fn rate_breach(rule: &Rule, candidate: &Side, compared: &Side) -> Option<Breach> {
    let (rate, base) = (candidate.rate(rule.counts_good), compared.rate(rule.counts_good));
    if candidate.bad(rule.counts_good) < rule.min_bad {
        return None;
    }
    let ratio = if base > 0.0 { rate / base } else { f64::MAX };
    above(RuleKey::MaxRate, rate, rule.max_rate)
        .or_else(|| above(RuleKey::MaxIncreasePoints, rate - base, rule.max_increase_points))
        .or_else(|| above(RuleKey::MaxIncrease, ratio - 1.0, rule.max_increase))
        .or_else(|| above(RuleKey::MaxRatio, ratio, rule.max_ratio))
        .or_else(|| {
            let allowed = rule.min_rate.filter(|allowed| 1.0 - rate < *allowed)?;
            Some(Breach { key: RuleKey::MinRate, observed: 1.0 - rate, allowed, seconds: 0 })
        })
}

fn latency_breach(rule: &Rule, candidate: &Side, compared: &Side) -> Option<Breach> {
    let us = float(candidate.latencies.quantile(rule.quantile)?.us);
    let limit = rule.max_us.map(float);
    above(RuleKey::Max, us, limit).or_else(|| {
        let base = float(compared.latencies.quantile(rule.quantile)?.us.max(1));
        above(RuleKey::MaxIncrease, us / base - 1.0, rule.max_increase)
            .or_else(|| above(RuleKey::MaxRatio, us / base, rule.max_ratio))
    })
}

fn throughput_breach(rule: &Rule, candidate: &Side, compared: &Side) -> Option<Breach> {
    let allowed = rule.min_throughput_ratio?;
    if candidate.share <= 0.0 || compared.share <= 0.0 || compared.succeeded == 0 {
        return None;
    }
    let observed = float(candidate.succeeded) / candidate.share / (float(compared.succeeded) / compared.share);
    (observed < allowed).then_some(Breach { key: RuleKey::MinThroughputRatio, observed, allowed, seconds: 0 })
}
