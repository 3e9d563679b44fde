//! The words of the API for ends and pauses.

use super::{AbortReason, End, PauseReason};

// === impl End ===

impl End {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Aborted(_) => "aborted",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
        }
    }
}

// === impl AbortReason ===

impl AbortReason {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Harmful { .. } => "harmful",
            Self::Manual => "manual",
            Self::Deadline => "deadline",
            Self::Check => "hook",
            Self::FailedRequests => "failed_requests",
        }
    }
}

// === impl PauseReason ===

impl PauseReason {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Approval => "approval",
            Self::NoHistory => "no_history",
            Self::LowTraffic => "low_traffic",
            Self::StableDegraded => "stable_degraded",
            Self::GateError => "gate_error",
            Self::Endpoint => "endpoint",
            Self::Deadline => "deadline",
            Self::Hook => "hook",
            Self::Restarts => "restarts",
            Self::SampleRatio => "sample_ratio",
        }
    }

    /// Whether it ends by itself when its cause has been gone for one hold.
    #[must_use]
    pub const fn clears(self) -> bool {
        matches!(self, Self::StableDegraded | Self::GateError)
    }
}
