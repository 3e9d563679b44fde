//! What T1 cannot see: a stable that is degraded itself, and a candidate with nobody left to compare it with.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::config::{GateConfig, Measure, Method};
use super::evidence::{ALTERNATIVES, Evidence};
use super::family::Ceiling;
use super::history::Baseline;
use super::input::Tick;
use super::latency::Estimate;
use super::layout::{Channel, Event, Layout};
use super::numeric::{beta_inv, float, log_sum};

/// How many times its own plausible rate stable may fail before it counts as degraded.
const DEGRADED_RATIO: f64 = 1.5;
/// Parts of a hold: over as many its rate slides.
const PARTS: u32 = 16;
/// How long a trial lasts before it says that both are to blame, in ticks: 30 s.
pub const TRIAL_TICKS: u64 = 600;
/// Above this weight, in grains, too little traffic is left to compare with.
pub(super) const ALONE_GRAINS: u16 = 9_000;
/// The weight of a trial, in grains.
pub const TRIAL_GRAINS: u16 = 5_000;

/// T2 on one series of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Watched {
    series: usize,
    channel: u8,
    ceiling: Ceiling,
    evidence: Evidence,
}

/// T2 on several series at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    of: Vec<Watched>,
}

/// Whether stable is worse than its own history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Degraded {
    watch: Watch,
    clear: Watch,
    /// Since when it is.
    pub(super) since: Option<Tick>,
    recent: Recent,
}

/// Exposures and events per watched series over the last hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    parts: VecDeque<(Tick, Vec<[u64; 2]>)>,
}

/// The weight goes down to one half to tell whose fault it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// It was asked for.
    pub(super) asked: bool,
    /// When the weight was seen to have come down.
    pub(super) since: Option<Tick>,
    /// It ended without condemning the candidate: stable has to be itself again.
    pub(super) over: bool,
}

// === impl Watch ===

impl Watch {
    fn push(&mut self, layout: &Layout, series: usize, rate: f64) {
        let channel = layout.series()[series].channel.0;
        self.of.extend(Ceiling::new(rate).map(|ceiling| Watched {
            series,
            channel,
            ceiling,
            evidence: Evidence::new(),
        }));
    }

    /// For stable: what fails is to stay near what its history makes plausible.
    fn of_stable(config: &GateConfig, layout: &Layout, baseline: &Baseline) -> Self {
        let mut watch = Self::default();
        for (index, series) in layout.series().iter().enumerate() {
            if let (Event::Bad, Method::Bad { ignore_below, .. }) =
                (series.event, &config.metrics[series.metric].method)
            {
                let upper = baseline.upper(layout, index);
                watch.push(layout, index, (DEGRADED_RATIO * upper).max(*ignore_below));
            }
        }
        watch
    }

    /// For a candidate without anybody beside it: metrics without a ceiling of their own, against stable's past. Latencies against the
    /// rate at which stable can have exceeded its threshold, with a confidence of 1 - alpha/2, whatever the distribution.
    pub(super) fn of_candidate(
        config: &GateConfig,
        layout: &Layout,
        baseline: &Baseline,
        estimates: &[Option<Estimate>],
    ) -> Self {
        let mut watch = Self::default();
        for (index, series) in layout.series().iter().enumerate() {
            match (&config.metrics[series.metric].method, series.event) {
                (Method::Bad { max_ratio, ignore_below, max_rate: None }, Event::Bad) => {
                    watch.push(layout, index, max_ratio * baseline.upper(layout, index) + ignore_below);
                }
                (Method::Latency { max_us: None, .. }, Event::Slower(_)) => {
                    if let Some(Some(estimate)) = estimates.get(index) {
                        watch.push(layout, index, exceeded_at_most(estimate, config.alpha));
                    }
                }
                _ => {}
            }
        }
        watch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn expose(&mut self, channel: Channel, count: u32) {
        for watched in self.of.iter_mut().filter(|w| w.channel == channel.0) {
            let mut step = [0.0; ALTERNATIVES];
            watched.ceiling.score(count, 0, &mut step);
            watched.evidence.add(&step);
        }
    }

    pub(super) fn event(&mut self, series: usize, count: u32) {
        for watched in self.of.iter_mut().filter(|w| w.series == series) {
            let mut step = [0.0; ALTERNATIVES];
            watched.ceiling.score(0, count, &mut step);
            watched.evidence.add(&step);
        }
    }

    pub(super) fn restart(&mut self) {
        self.of.iter_mut().for_each(|w| w.evidence.restart());
    }

    pub(super) fn log_e(&self) -> f64 {
        let all: Vec<f64> = self.of.iter().map(|w| w.evidence.log_e()).collect();
        if all.is_empty() { 0.0 } else { log_sum(&all) - float(all.len() as u64).ln() }
    }

    pub(super) fn alarms(&self, bound: f64) -> bool {
        let may = self.of.iter().any(|w| w.evidence.at_most() >= bound);
        may && self.log_e() >= bound
    }
}

/// An upper bound, with confidence `1 - alpha/2`, of the rate at which stable exceeds an estimated quantile: it is the (m+1)-th largest of n
/// or above it, where m were seen above, and that is exceeded at a rate distributed as Beta(m+1, n-m) whatever latencies look like.
fn exceeded_at_most(estimate: &Estimate, alpha: f64) -> f64 {
    beta_inv(1.0 - alpha / 2.0, float(estimate.above + 1), float(estimate.of - estimate.above))
}

// === impl Degraded ===

impl Degraded {
    pub(super) fn new(config: &GateConfig, layout: &Layout, baseline: &Baseline) -> Self {
        let watch = Watch::of_stable(config, layout, baseline);
        Self { clear: watch.clone(), watch, since: None, recent: Recent::default() }
    }

    pub(super) fn expose(&mut self, channel: Channel, count: u32) {
        if self.since.is_none() {
            self.watch.expose(channel, count);
            return;
        }
        let Some((_, part)) = self.recent.parts.back_mut() else { return };
        for (watched, counts) in self.watch.of.iter().zip(part) {
            counts[0] += if watched.channel == channel.0 { u64::from(count) } else { 0 };
        }
    }

    pub(super) fn event(&mut self, series: usize, count: u32) {
        if self.since.is_none() {
            self.watch.event(series, count);
            return;
        }
        let Some((_, part)) = self.recent.parts.back_mut() else { return };
        for (watched, counts) in self.watch.of.iter().zip(part) {
            counts[1] += if watched.series == series { u64::from(count) } else { 0 };
        }
    }

    pub(super) fn restart(&mut self) {
        self.watch.restart();
    }

    /// Whether something is known to hold stable to.
    pub(super) fn is_judged(&self) -> bool {
        !self.watch.is_empty()
    }

    pub(super) fn log_e(&self) -> f64 {
        self.watch.log_e()
    }

    /// At the end of a tick: whether it has just become degraded or clear. Clear is a rate of at most what is tested over one whole `hold`,
    /// with traffic.
    pub(super) fn tick(&mut self, now: Tick, hold: u32, bound: f64) {
        if self.since.is_none() {
            if self.watch.alarms(bound) {
                self.begin(now);
            }
            return;
        }
        let part = u64::from((hold / PARTS).max(1));
        let begun = self.recent.parts.back().map_or(now, |(begun, _)| *begun);
        if now < begun + part {
            return;
        }
        // What the parts before this one hold reaches back one whole hold, or more.
        let full = self.recent.parts.front().is_some_and(|(first, _)| now >= first + u64::from(hold));
        if full && self.is_clear() {
            self.watch = self.clear.clone();
            self.since = None;
            self.recent = Recent::default();
            return;
        }
        while self.recent.parts.get(1).is_some_and(|(second, _)| now >= second + u64::from(hold)) {
            self.recent.parts.pop_front();
        }
        self.recent.parts.push_back((now, vec![[0; 2]; self.watch.of.len()]));
    }

    /// From now on it is, and nothing but a clear hold changes that.
    pub(super) fn begin(&mut self, now: Tick) {
        if self.since.is_none() {
            self.since = Some(now);
            self.recent = Recent { parts: VecDeque::from([(now, vec![[0; 2]; self.watch.of.len()])]) };
        }
    }

    fn is_clear(&self) -> bool {
        let sum = |i: usize, at: usize| self.recent.parts.iter().map(|(_, part)| part[i][at]).sum::<u64>();
        let judged = self.watch.of.iter().enumerate().map(|(i, w)| (sum(i, 0), sum(i, 1), w.ceiling.null()));
        // Of latencies alone nothing is known to hold stable to; a trial they asked for ends all the same.
        judged.into_iter().all(|(n, bad, p0)| n > 0 && float(bad) <= p0 * float(n))
    }
}

/// Whether any metric but client errors counts an event of this measure as something the candidate did wrong.
pub(super) fn is_failure(measure: Measure, event: Event) -> bool {
    measure != Measure::ClientErrors && event == Event::Bad
}
