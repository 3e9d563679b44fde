//! Thresholds for latencies: stable's quantiles over a window that grows until it holds enough.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::config::{GateConfig, Method};
use super::evidence::bits_of_one;
use super::input::Tick;
use super::layout::{Event, Layout, SERIES_MAX};
use super::numeric::float;
use super::sketch::{Quantile, Sketch, share_above};

/// Latencies that must lie above a quantile for it to be believed.
pub const ABOVE_MIN: u64 = 20;
/// The shortest window, in seconds; older latencies are kept in slices of this length and its doubles.
const SLICE_SECONDS: u32 = 30;
/// The longest window, in seconds.
const WINDOW_SECONDS_MAX: u32 = 3_600;
/// Slices of one length before the two oldest become one of the next.
const SLICES_PER_LENGTH: usize = 2;
/// What warmup multiplies thresholds with.
const WARMUP_FACTOR: u64 = 10;

/// Stable's latencies of the last hour, coarser the older they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    current: Sketch,
    seconds: u32,
    /// Newest first.
    slices: VecDeque<Slice>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Slice {
    seconds: u32,
    sketch: Sketch,
}

/// What a latency is compared with, in microseconds, strictly: bad is what is above it. One pair per series; a request keeps the pair that
/// was in force when it was fully written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    limits: [Limit; SERIES_MAX],
}

/// The thresholds of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// For stable; [`Limit::NONE`]'s while nothing is known.
    pub stable_us: u64,
    /// For the candidate.
    pub candidate_us: u64,
}

/// How a threshold came about.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The quantile in force: lower than the configured one while too little is known.
    #[serde(with = "bits_of_one")]
    pub quantile: f64,
    /// Stable's latency there, in microseconds.
    pub us: u64,
    /// Stable's latencies strictly above it.
    pub above: u64,
    /// Latencies it was taken from.
    pub of: u64,
}

// === impl Window ===

impl Window {
    /// Adds the latencies of one second, or of more if nothing was handed in meanwhile.
    pub fn add(&mut self, latencies: &[(u16, u32)], seconds: u32) {
        for (bucket, count) in latencies {
            self.current.add(*bucket, u64::from(*count));
        }
        self.seconds = self.seconds.saturating_add(seconds);
        if self.seconds >= SLICE_SECONDS {
            let slice = Slice { seconds: self.seconds, sketch: std::mem::take(&mut self.current) };
            self.seconds = 0;
            self.slices.push_front(slice);
            self.shorten();
        }
    }

    /// Merges old slices of one length and drops what is beyond an hour.
    fn shorten(&mut self) {
        let mut at = 0;
        while at + SLICES_PER_LENGTH < self.slices.len() {
            let class = |slice: &Slice| (slice.seconds / SLICE_SECONDS).max(1).ilog2();
            let of = class(&self.slices[at]);
            let same = self.slices.iter().skip(at).take_while(|s| class(s) <= of).count();
            if same > SLICES_PER_LENGTH
                && let Some(oldest) = self.slices.remove(at + same - 1)
            {
                let into = &mut self.slices[at + same - 2];
                into.seconds = into.seconds.saturating_add(oldest.seconds);
                into.sketch.merge(&oldest.sketch);
                at += same - 2;
            } else {
                at += same;
            }
        }
        let mut seconds = 0_u32;
        self.slices.retain(|slice| {
            seconds = seconds.saturating_add(slice.seconds);
            seconds - slice.seconds.min(seconds) < WINDOW_SECONDS_MAX
        });
    }

    /// The `q`-quantile over the shortest window with 20/(1-q) latencies, of 30 s at least; short of them over everything there is, the
    /// highest quantile that 20 latencies exceed.
    #[must_use]
    pub fn estimate(&self, q: f64) -> Option<Estimate> {
        let enough = |sketch: &Sketch| share_above(sketch.total(), q) >= ABOVE_MIN;
        let (mut sketch, mut seconds) = (self.current.clone(), self.seconds);
        for slice in &self.slices {
            if seconds >= SLICE_SECONDS && enough(&sketch) {
                break;
            }
            sketch.merge(&slice.sketch);
            seconds = seconds.saturating_add(slice.seconds);
        }
        let above = share_above(sketch.total(), q).max(ABOVE_MIN);
        let Quantile { us, above: exact, total } = sketch.exceeded_by(above)?;
        let quantile = if enough(&sketch) { q } else { 1.0 - float(above) / float(total) };
        Some(Estimate { quantile, us, above: exact, of: total })
    }

    /// All latencies of the last `seconds`, in whole slices.
    #[must_use]
    pub fn last(&self, seconds: u32) -> Sketch {
        let (mut sketch, mut sum) = (self.current.clone(), self.seconds);
        for slice in &self.slices {
            if sum >= seconds {
                break;
            }
            sketch.merge(&slice.sketch);
            sum = sum.saturating_add(slice.seconds);
        }
        sketch
    }
}

// === impl Limit ===

impl Limit {
    /// Nothing is above it.
    pub const NONE: Self = Self { stable_us: u64::MAX, candidate_us: u64::MAX };
}

// === impl Thresholds ===

impl Thresholds {
    /// Nothing is known.
    pub const NONE: Self = Self { limits: [Limit::NONE; SERIES_MAX] };

    /// The thresholds of a series.
    #[must_use]
    pub fn of(&self, series: usize) -> Limit {
        self.limits.get(series).copied().unwrap_or(Limit::NONE)
    }

    /// What follows from stable's quantiles, per series of `layout`; ten times as high while `warm` is false.
    pub(super) fn new(config: &GateConfig, layout: &Layout, estimates: &[Option<Estimate>], warm: bool) -> Self {
        let factor = if warm { 1 } else { WARMUP_FACTOR };
        let mut limits = [Limit::NONE; SERIES_MAX];
        for (index, series) in layout.series().iter().enumerate() {
            let Method::Latency { max_increase, min_increase_us, max_us, .. } = &config.metrics[series.metric].method
            else {
                continue;
            };
            let limit = &mut limits[index];
            if let (Event::Slower(_), Some(Some(estimate))) = (series.event, estimates.get(index)) {
                let candidate = increased(estimate.us, *max_increase).max(estimate.us + min_increase_us);
                limit.stable_us = estimate.us.saturating_mul(factor);
                limit.candidate_us = candidate.saturating_mul(factor);
            }
            if let (Event::Above(_), Some(max)) = (series.event, max_us) {
                limit.candidate_us = max.saturating_mul(factor);
            }
        }
        Self { limits }
    }

    /// The higher of the two, pair by pair.
    pub(super) fn higher(&self, other: &Self) -> Self {
        let mut limits = self.limits;
        for (mine, theirs) in limits.iter_mut().zip(other.limits) {
            mine.stable_us = mine.stable_us.max(theirs.stable_us);
            mine.candidate_us = mine.candidate_us.max(theirs.candidate_us);
        }
        Self { limits }
    }
}

/// `us` and `share` of it more, rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of a latency")]
fn increased(us: u64, share: f64) -> u64 {
    (float(us) * (1.0 + share)).ceil() as u64
}

/// The thresholds of the ticks that can still be in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    /// Since when each was in force, oldest first.
    changes: VecDeque<(Tick, Thresholds)>,
}

// === impl Past ===

impl Past {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { changes: VecDeque::from([(0, thresholds)]) }
    }

    /// In force from the end of `now` on.
    pub(super) fn change(&mut self, now: Tick, thresholds: Thresholds, reach: Tick) {
        if self.changes.back().is_none_or(|(_, last)| *last != thresholds) {
            self.changes.push_back((now, thresholds));
        }
        while self.changes.len() > 1 && self.changes[1].0 + reach < now {
            self.changes.pop_front();
        }
    }

    pub(super) fn current(&self) -> Thresholds {
        self.changes.back().map_or(Thresholds::NONE, |(_, last)| *last)
    }

    /// The highest thresholds a request fully written in `first..=last` can have: workers learn of a change a moment later, so two ticks
    /// before count as well. What is above these is above the request's own.
    pub(super) fn highest(&self, first: Tick, last: Tick) -> Thresholds {
        let since = self.changes.partition_point(|(from, _)| from + 2 < first).saturating_sub(1);
        let relevant = self.changes.range(since..).take_while(|(from, _)| *from <= last + 1);
        relevant.map(|(_, t)| *t).reduce(|a, b| a.higher(&b)).unwrap_or(Thresholds::NONE)
    }
}
