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
    /// What a check without any request is.
    pub(crate) silence: Silence,
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
