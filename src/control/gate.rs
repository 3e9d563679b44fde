//! What control asks of the gate: whoever watches the requests of a rollout answers at every tick.

use std::time::Instant;

use serde_json::Value;

use crate::core::gate::GateConfig;
use crate::core::id::Name;
use crate::core::rollout::{Counts, Facts, Verdict};
use crate::state::current::Routing;

/// Watches the candidates of all services that have a rollout. Called by control only, in its order.
pub trait Gates: Send {
    /// A rollout began, or goes on after a restart: it is watched under `config` from now on.
    fn begin(&mut self, service: &Name, rollout: u64, config: &GateConfig);

    /// A step of it began; what is counted per step begins anew.
    fn step(&mut self, service: &Name, step: usize);

    /// Its candidate is stable now: what is seen is only reported.
    fn report(&mut self, service: &Name);

    /// It is watched no longer.
    fn end(&mut self, service: &Name);

    /// What was seen since the last tick, by index of the service in `routing`. Whoever is not among it was not watched, and nothing is
    /// known of it: that is neither harm nor a pass.
    fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<(usize, Seen)>;
}

/// What was seen of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The requests of its candidate since the rollout began.
    pub counts: Counts,
    /// Whether it does harm.
    pub verdict: Verdict,
    /// Its rate is above what stable's was; of meaning above nine tenths only.
    pub alarm: bool,
    /// Stable got worse.
    pub stable_degraded: bool,
    /// The share of requests does not fit the weight.
    pub sample_ratio: bool,
    /// One endpoint is bad, the others are not.
    pub endpoint: bool,
    /// The numbers behind it, for the audit.
    pub evidence: Option<Value>,
}

/// Nobody watches: nothing is harmful, and nothing passes that has to be seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

// === impl Seen ===

impl Seen {
    /// Nothing new: the requests are those that were `counts` before.
    #[must_use]
    pub const fn nothing(counts: Counts) -> Self {
        Self {
            counts,
            verdict: Verdict::Open,
            alarm: false,
            stable_degraded: false,
            sample_ratio: false,
            endpoint: false,
            evidence: None,
        }
    }

    /// With whether the candidate has endpoints to go to.
    #[must_use]
    pub fn facts(self, ready: bool) -> Facts {
        let Self { counts, verdict, alarm, stable_degraded, sample_ratio, endpoint, .. } = self;
        Facts { ready, counts, verdict, alarm, stable_degraded, sample_ratio, endpoint }
    }
}

// === impl Unwatched ===

impl Gates for Unwatched {
    fn begin(&mut self, _: &Name, _: u64, _: &GateConfig) {}
    fn step(&mut self, _: &Name, _: usize) {}
    fn report(&mut self, _: &Name) {}
    fn end(&mut self, _: &Name) {}

    fn tick(&mut self, _: &Routing, _: Instant) -> Vec<(usize, Seen)> {
        Vec::new()
    }
}
