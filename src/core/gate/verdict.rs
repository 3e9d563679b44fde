//! What the gate says after a tick.

use serde::{Deserialize, Serialize};

use super::config::Unit;
use super::rules::Breach;

/// The verdict of one tick. Everything is a level: it holds until a later verdict says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Harmful, or not.
    pub outcome: Outcome,
    /// The rollout is to stand still while any of these holds.
    pub paused: Paused,
    /// The weight is to be 50 %, from above 90 %, until this is false: only side by side can be told whose fault it is.
    pub trial: bool,
    /// A candidate endpoint, by index, without which there would be no case against the candidate: to be ejected, not condemned.
    pub eject: Option<u16>,
    /// Keys do not fall to the candidate as its weight says: an event, or a pause where so configured.
    pub sample_ratio: bool,
    /// What one bad event stands for at the moment.
    pub unit: Unit,
}

/// Three values: missing data never passes by accident.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The candidate is worse than allowed: abort.
    Harmful(Reason),
    /// Enough was seen, and nothing speaks against it.
    Clean,
    /// Too little was seen, or something speaks against it but not enough.
    Inconclusive,
}

/// What condemned the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reason {
    /// Evidence; the largest is in this test of the report.
    Test(usize),
    /// A threshold rule.
    Rule {
        /// Index of the metric.
        metric: usize,
        /// Its numbers.
        breach: Breach,
    },
}

/// Why a rollout is to stand still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Stable fails more than its history explains; clears by itself.
    pub stable_degraded: bool,
    /// A source of a metric fails; clears by itself.
    pub gate_error: bool,
    /// One endpoint keeps failing although it was to be ejected.
    pub endpoint: Option<u16>,
}

// === impl Verdict ===

impl Verdict {
    /// Nothing was seen yet.
    #[must_use]
    pub const fn nothing(unit: Unit) -> Self {
        let paused = Paused { stable_degraded: false, gate_error: false, endpoint: None };
        Self { outcome: Outcome::Inconclusive, paused, trial: false, eject: None, sample_ratio: false, unit }
    }
}

// === impl Paused ===

impl Paused {
    /// Whether any reason holds.
    #[must_use]
    pub fn any(&self) -> bool {
        self.stable_degraded || self.gate_error || self.endpoint.is_some()
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether the candidate is to be aborted.
    #[must_use]
    pub fn is_harmful(&self) -> bool {
        matches!(self, Self::Harmful(_))
    }
}
