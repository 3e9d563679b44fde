//! Fixed thresholds, polled: the shape of Flagger's and of Argo Rollouts' analysis.

/// Settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Polling {
    /// Seconds between two checks, the first of which comes after the first interval.
    pub(crate) interval: u64,
    /// Seconds a query looks back.
    pub(crate) window: u64,
    /// Least share of requests that are not answered 5xx.
    pub(crate) success_min: f64,
    /// Largest share of requests slower than the limit, if latency is looked at: one minus the quantile. The limit is a bound of the
    /// histogram's buckets, so nothing is lost by interpolation.
    pub(crate) slow_max: Option<f64>,
    /// Failed checks, over the whole rollout, that take it back.
    pub(crate) failures: u32,
    /// Checks that have to pass; then the analysis is over and the candidate promoted, whatever it does later. `None`: it looks as long as
    /// the rollout is watched.
    pub(crate) passes: Option<u32>,
    /// What a check without any request is.
    pub(crate) silence: Silence,
}

/// An analysis on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    failed: u32,
    passed: u32,
}

/// What follows from no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Fails,
    Passes,
}

/// What a query found in its window: requests that ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) requests: u64,
    /// Answered 5xx.
    pub(crate) errors: u64,
    /// Slower than the limit.
    pub(crate) slow: u64,
}

// === impl Polling ===

impl Polling {
    /// Whether a check fails.
    pub(crate) fn fails(&self, found: Found) -> bool {
        if found.requests == 0 {
            return self.silence == Silence::Fails;
        }
        let requests = found.requests as f64;
        let success = (found.requests - found.errors) as f64 / requests;
        success < self.success_min || self.slow_max.is_some_and(|max| found.slow as f64 > max * requests)
    }
}

// === impl Checks ===

impl Checks {
    /// Adds a check and says whether the candidate is taken back.
    pub(crate) fn add(&mut self, polling: &Polling, found: Found) -> bool {
        let over = polling.passes.is_some_and(|passes| self.passed >= passes);
        let fails = !over && polling.fails(found);
        self.failed += u32::from(fails);
        self.passed += u32::from(!fails);
        fails && self.failed >= polling.failures
    }
}
