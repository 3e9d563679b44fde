//! How the author of the file wants rollouts to go: the compiled form of `[services.X.rollout]` and `[services.X.gate]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, OnLowTraffic, Otherwise, Plan, Step};
use crate::core::gate::{GateConfig, Unit};
use crate::core::weight::{GRAINS, Weight};

/// Most steps of a plan.
pub const STEPS_MAX: usize = 100;
/// Candidate requests that have to begin in a step, if nothing else is written.
pub const MIN_REQUESTS: u64 = 50;
/// Reach of the gate for the default timeouts (61 s), in ticks of 50 ms.
const REACH: u32 = 1_220;

/// What the file wants for every rollout of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Which shape the plan has.
    pub strategy: Strategy,
    /// What a new candidate in the file does.
    pub start: Start,
    /// What a candidate does when nothing is known of what ran before.
    pub on_empty_store: OnEmptyStore,
    /// What a rollout that begins is pinned to.
    pub terms: Terms,
}

/// What a rollout runs under. Pinned when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Its steps and limits.
    pub plan: Plan,
    /// What the candidate is judged by.
    pub gate: GateConfig,
    /// Whether a verdict is obeyed.
    pub mode: Mode,
    /// How long the old stable is kept warm after a promotion.
    pub keep_stable: Duration,
}

/// Which shape a plan has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Steps.
    Canary,
    /// Verified at 0 %, then everything at once.
    BlueGreen,
}

/// What a new candidate in the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Its rollout begins.
    Auto,
    /// It waits for a start command.
    Manual,
}

/// What a candidate does when nothing is known of what ran before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEmptyStore {
    /// It waits for a start command: it may be one that was aborted.
    Pause,
    /// Its rollout begins.
    Start,
}

/// Whether a verdict is obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Harmful is taken back.
    Enforce,
    /// Harmful is reported only.
    Observe,
}

/// How long a plan takes at some traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Every step in order.
    pub steps: Vec<StepForecast>,
    /// All of them together, waits for approvals and checks left out.
    pub total: Duration,
}

/// How long a step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StepForecast {
    /// Its share.
    pub weight: Weight,
    /// Its time.
    pub takes: Duration,
    /// Too few requests come even when it is extended: `on_low_traffic` decides.
    pub short: bool,
}

// === impl Wanted ===

impl Default for Wanted {
    /// Three steps, begun by the file.
    fn default() -> Self {
        Self {
            strategy: Strategy::Canary,
            start: Start::Auto,
            on_empty_store: OnEmptyStore::Pause,
            terms: Terms::default(),
        }
    }
}

// === impl Terms ===

impl Default for Terms {
    fn default() -> Self {
        let gate = GateConfig {
            alpha: 0.001,
            unit: Unit::Session,
            warmup: 600,
            reach: REACH,
            metrics: GateConfig::default_metrics(),
        };
        Self { plan: Plan::default(), gate, mode: Mode::Enforce, keep_stable: Duration::from_secs(1_800) }
    }
}

// === impl Plan ===

impl Default for Plan {
    fn default() -> Self {
        let step = |percent: u16, hold| Step::new(Weight::of_percent(percent), Duration::from_secs(hold));
        Self {
            steps: vec![step(5, 30), step(25, 60), step(100, 300)],
            progress_deadline: Duration::from_secs(3_600),
            on_deadline: Otherwise::Pause,
            max_extend: Duration::from_secs(300),
            on_low_traffic: OnLowTraffic::AdvanceIfClean,
            max_failed_requests: 0,
            pause_on_stable_degraded: true,
            pause_on_sample_ratio: false,
            resume_after_restart: true,
            checks: Checks::default(),
        }
    }
}

impl Plan {
    /// How long it takes with `rps` requests per second for the service.
    #[must_use]
    pub fn forecast(&self, rps: f64) -> Forecast {
        let steps: Vec<_> = self.steps.iter().map(|step| self.forecast_step(step, rps)).collect();
        let total = steps.iter().fold(Duration::ZERO, |total, step| total.saturating_add(step.takes));
        Forecast { steps, total }
    }

    fn forecast_step(&self, step: &Step, rps: f64) -> StepForecast {
        let longest = step.hold.saturating_add(self.max_extend);
        #[expect(clippy::cast_precision_loss, reason = "a whole number of requests far below 2^53")]
        let wanted = step.min_requests as f64;
        let needed = Duration::try_from_secs_f64(wanted / (rps * step.weight.fraction())).unwrap_or(Duration::MAX);
        let needed = if step.min_requests == 0 { Duration::ZERO } else { needed };
        StepForecast { weight: step.weight, takes: needed.clamp(step.hold, longest), short: needed > longest }
    }
}

// === impl Step ===

impl Step {
    /// A step without anything special.
    #[must_use]
    pub const fn new(weight: Weight, hold: Duration) -> Self {
        Self { weight, hold, min_requests: MIN_REQUESTS, approval: false, synthetic: Vec::new(), mirror: Weight::ZERO }
    }
}

/// The weights of a ramp: from `from` on, each `factor` times the one before, until `to`. `None` for more than [`STEPS_MAX`].
/// Rounded up to a grain, so that each is above the one before.
#[must_use]
pub fn ramp(from: Weight, to: Weight, factor: f64) -> Option<Vec<Weight>> {
    let mut weights = vec![from];
    let mut last = from;
    while last < to {
        if weights.len() >= STEPS_MAX {
            return None;
        }
        let next = (f64::from(last.grains()) * factor).ceil().clamp(0.0, f64::from(GRAINS));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=10,000")]
        let next = Weight::from_grains(next as u16).unwrap_or(Weight::FULL).min(to);
        if next <= last {
            return None;
        }
        weights.push(next);
        last = next;
    }
    Some(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(forecast: &Forecast) -> u64 {
        (forecast.total.as_secs() + 30) / 60
    }

    #[test]
    fn five_requests_per_second_take_about_ten_minutes_through_the_default_plan() {
        let slow = Plan::default().forecast(5.0);
        assert_eq!(slow.steps.iter().map(|s| s.takes.as_secs()).collect::<Vec<_>>(), [200, 60, 300]);
        assert_eq!((minutes(&slow), slow.steps.iter().any(|s| s.short)), (9, false));
        assert_eq!(Plan::default().forecast(1_000.0).total, Duration::from_secs(390));
    }

    #[test]
    fn a_step_without_its_requests_is_said_to_be_short_and_takes_what_it_may() {
        let none = Plan::default().forecast(0.0);
        assert!(none.steps.iter().all(|s| s.short));
        assert_eq!(none.total, Duration::from_secs(390 + 3 * 300));
    }

    #[test]
    fn a_ramp_rises_to_its_end_and_has_an_end() {
        let grains = |w: Vec<Weight>| w.into_iter().map(Weight::grains).collect::<Vec<_>>();
        let ramped = ramp(Weight::from_grains(10).expect("w"), Weight::FULL, 2.0).expect("a ramp");
        assert_eq!(grains(ramped), [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_000]);
        assert_eq!(ramp(Weight::of_percent(1), Weight::FULL, 1.0), None);
        assert_eq!(ramp(Weight::ZERO, Weight::FULL, 2.0), None);
        assert_eq!(ramp(Weight::from_grains(1).expect("w"), Weight::FULL, 1.000_1), None, "too many");
    }
}
