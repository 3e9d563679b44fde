//! What is known about an endpoint by asking it: written by its probes, read by workers without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::counters::{Cell, Histogram};
use crate::core::health::{Probe, Readiness};

/// What probes found out about one endpoint. Kept by its identity (service, version, address): reloads and promotions change nothing.
#[derive(Debug, Default)]
pub struct EndpointHealth {
    readiness: AtomicU8,
    /// 0: not probed; 1: fails; 2: passes.
    liveness: AtomicU8,
    last: [ArcSwapOption<Probed>; Probe::ALL.len()],
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// What was asked.
    pub probe: Probe,
    /// Why it failed; `None`: it passed.
    pub error: Option<String>,
    /// The status code, where one came.
    pub status: Option<u16>,
    /// From the beginning to the answer or the failure.
    pub latency: Duration,
    /// The beginning of the body, one line without controls.
    pub body: Option<String>,
    /// When it ended, since 1970.
    pub at: Duration,
}

/// What probes of one endpoint counted; one writer.
#[derive(Debug, Default)]
pub struct ProbeCounters {
    /// By index of the probe.
    results: [Results; Probe::ALL.len()],
    /// From the beginning of a probe to its answer or failure.
    pub duration: Histogram,
}

#[derive(Debug, Default)]
struct Results {
    passed: Cell,
    failed: Cell,
}

// === impl EndpointHealth ===

impl EndpointHealth {
    /// What is known. One relaxed load.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        Readiness::from_number(self.readiness.load(Ordering::Relaxed))
    }

    /// Whether it takes traffic. One relaxed load.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness.load(Ordering::Relaxed) == Readiness::Ready as u8
    }

    /// Takes down what is known.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }

    /// Whether its liveness probes pass; `None` where there are none, or none yet.
    #[must_use]
    pub fn alive(&self) -> Option<bool> {
        match self.liveness.load(Ordering::Relaxed) {
            0 => None,
            number => Some(number == 2),
        }
    }

    /// Takes down whether its liveness probes pass.
    pub fn set_alive(&self, alive: Option<bool>) {
        self.liveness.store(alive.map_or(0, |alive| 1 + u8::from(alive)), Ordering::Relaxed);
    }

    /// The last result of `probe`.
    #[must_use]
    pub fn last(&self, probe: Probe) -> Option<Arc<Probed>> {
        self.last[probe as usize].load_full()
    }

    /// The last result of the probes that decide about traffic.
    #[must_use]
    pub fn last_deciding(&self) -> Option<Arc<Probed>> {
        let (startup, readiness) = (self.last(Probe::Startup), self.last(Probe::Readiness));
        startup.into_iter().chain(readiness).max_by_key(|probed| probed.at)
    }

    /// Takes down the result of a probe.
    pub fn record(&self, probed: Probed) {
        self.last[probed.probe as usize].store(Some(Arc::new(probed)));
    }
}

// === impl Probed ===

impl Probed {
    /// Whether it passed.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.error.is_none()
    }
}

/// `readiness failed after 3ms: status 503 instead of 200-299 (body: no database)`
impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probe = self.probe.as_str();
        match (&self.error, self.status) {
            (None, Some(status)) => write!(f, "{probe} passed with {status} after {:.0?}", self.latency)?,
            (None, None) => write!(f, "{probe} passed after {:.0?}", self.latency)?,
            (Some(error), _) => write!(f, "{probe} failed after {:.0?}: {error}", self.latency)?,
        }
        match &self.body {
            Some(body) if !self.passed() => write!(f, " (body: {body})"),
            _ => Ok(()),
        }
    }
}

// === impl ProbeCounters ===

impl ProbeCounters {
    /// Counts a result; only its one writer may call this.
    pub fn count(&self, probed: &Probed) {
        let results = &self.results[probed.probe as usize];
        if probed.passed() { &results.passed } else { &results.failed }.add(1);
        self.duration.record(probed.latency);
    }

    /// How many probes passed and failed.
    #[must_use]
    pub fn results(&self, probe: Probe) -> (u64, u64) {
        let results = &self.results[probe as usize];
        (results.passed.get(), results.failed.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(probe: Probe, error: Option<&str>, at: u64) -> Probed {
        let error = error.map(str::to_owned);
        Probed {
            probe,
            error,
            status: None,
            latency: Duration::from_millis(3),
            body: None,
            at: Duration::from_secs(at),
        }
    }

    #[test]
    fn a_result_says_what_was_asked_and_what_was_wrong() {
        let passed = Probed { status: Some(204), ..probed(Probe::Readiness, None, 1) };
        assert_eq!(passed.to_string(), "readiness passed with 204 after 3ms");
        let failed = Probed { body: Some("no database".into()), ..probed(Probe::Deep, Some("status 503"), 1) };
        assert_eq!(failed.to_string(), "deep failed after 3ms: status 503 (body: no database)");
    }

    #[test]
    fn the_newer_of_the_deciding_probes_is_told() {
        let health = EndpointHealth::default();
        assert!(health.last_deciding().is_none() && health.alive().is_none() && !health.is_ready());
        health.record(probed(Probe::Startup, None, 1));
        health.record(probed(Probe::Readiness, Some("refused"), 2));
        health.record(probed(Probe::Liveness, None, 3));
        assert_eq!(health.last_deciding().map(|p| p.probe), Some(Probe::Readiness));
        health.set_alive(Some(false));
        health.set_readiness(Readiness::Lost);
        assert_eq!((health.alive(), health.readiness()), (Some(false), Readiness::Lost));
    }

    #[test]
    fn results_are_counted_by_probe() {
        let counters = ProbeCounters::default();
        for error in [None, Some("x"), Some("y")] {
            counters.count(&probed(Probe::Deep, error, 1));
        }
        assert_eq!((counters.results(Probe::Deep), counters.results(Probe::Readiness)), ((1, 2), (0, 0)));
        assert_eq!(counters.duration.sum_us.get(), 9_000);
    }
}
