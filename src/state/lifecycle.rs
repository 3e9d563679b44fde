//! Where the process is in its life: what `/readyz` answers and what a stop signal changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process is in its life. It only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Listeners are not bound yet.
    Starting,
    /// Serving.
    Ready,
    /// Told to stop: requests in flight finish, no new connections are wanted.
    Draining,
}

/// The phase, shared by all threads.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

// === impl Phase ===

impl Phase {
    /// The word used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

// === impl Lifecycle ===

impl Lifecycle {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// Moves on to `phase`; a phase already passed changes nothing.
    pub fn advance(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_told_to_drain_never_becomes_ready_again() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.advance(Phase::Draining);
        lifecycle.clone().advance(Phase::Ready);
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }
}
