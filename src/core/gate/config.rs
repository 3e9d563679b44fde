//! What the gate is to watch: metrics, resolved. The compiled form of `[services.X.gate]`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rules::Rule;

/// Metrics of one service.
pub const METRICS_MAX: usize = 12;
/// Quantiles of one latency metric.
pub const QUANTILES_MAX: usize = 4;

/// The gate of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateConfig {
    /// Bound on the probability of a false rollback over a whole rollout; between 0 and 1.
    pub alpha: f64,
    /// What one bad event stands for.
    pub unit: Unit,
    /// How long a candidate endpoint is given while caches are cold, in ticks.
    pub warmup: u32,
    /// How long after its beginning a request can still turn out bad, in ticks: connect and response timeouts together. At most
    /// [`REACH_MAX`](super::REACH_MAX); what comes later is counted as unscored.
    pub reach: u32,
    /// What is watched, in the order of the file.
    pub metrics: Vec<Metric>,
}

/// What one bad event stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// A session: its first bad event per step and metric.
    Session,
    /// A request.
    Request,
}

/// One thing that is watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name in configuration, reports and audit.
    pub name: String,
    /// What is counted.
    pub measure: Measure,
    /// How it is judged.
    pub method: Method,
}

/// What is counted. Exposures of `Errors` and `ClientErrors` are attempts begun, those of `Latency` are attempts fully written; the
/// others bring their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// What the upstream did wrong: 5xx, connect failures, resets, timeouts, malformed responses.
    Errors,
    /// 4xx without 429 and 499.
    ClientErrors,
    /// The time queued for a slot, plus from the request fully written to the response head.
    Latency,
    /// Deep health checks.
    Probes,
    /// Matched from traffic, pushed or polled.
    Custom,
}

/// How a metric is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// T1 on bad events, and T2 if a ceiling is given.
    Bad {
        /// The candidate may fail this many times as often as stable; above 0.
        max_ratio: f64,
        /// Plus this; a rate. Differences below it are nobody's reason to roll back.
        ignore_below: f64,
        /// Ceiling on the candidate's rate, between 0 and 1, whatever stable does.
        max_rate: Option<f64>,
    },
    /// T1 mirrored on good events.
    Good {
        /// The candidate may succeed this many times as often as stable; above 0.
        min_ratio: f64,
    },
    /// T3, and T2 if a ceiling is given. For [`Measure::Latency`] only.
    Latency {
        /// Quantiles of stable, ascending, between 0 and 1.
        quantiles: Vec<f64>,
        /// The candidate may take longer by this share.
        max_increase: f64,
        /// Or by this, in microseconds, if that is more.
        min_increase_us: u64,
        /// Ceiling at the highest quantile, in microseconds.
        max_us: Option<u64>,
    },
    /// A threshold rule, without the promise of alpha.
    Threshold(Rule),
}

/// Why a [`GateConfig`] is not one; displays what is allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct BadConfig {
    /// Name of the metric; empty for the gate itself.
    pub metric: String,
    /// What is allowed.
    pub allowed: &'static str,
}

// === impl GateConfig ===

impl GateConfig {
    /// The metrics of a service that names none: `error-rate`, `latency`, `client-errors`.
    #[must_use]
    pub fn default_metrics() -> Vec<Metric> {
        let metric = |name: &str, measure: Measure| Metric { name: name.to_owned(), measure, method: measure.usual() };
        vec![
            metric("error-rate", Measure::Errors),
            metric("latency", Measure::Latency),
            metric("client-errors", Measure::ClientErrors),
        ]
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first thing that is out of range, with what is allowed.
    pub fn check(&self) -> Result<(), BadConfig> {
        let own = |allowed| BadConfig { metric: String::new(), allowed };
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            return Err(own("alpha lies between 0 and 1, both excluded"));
        }
        if self.metrics.is_empty() || self.metrics.len() > METRICS_MAX {
            return Err(own("a gate watches 1 to 12 metrics"));
        }
        if self.reach == 0 || self.reach > super::blocks::REACH_MAX {
            return Err(own("reach is between one tick and an hour"));
        }
        for metric in &self.metrics {
            metric.check().map_err(|allowed| BadConfig { metric: metric.name.clone(), allowed })?;
        }
        if super::layout::Layout::new(self).series().len() > super::layout::SERIES_MAX {
            return Err(own("the metrics need at most 14 counters together; every quantile and every ceiling is one"));
        }
        Ok(())
    }
}

// === impl Measure ===

impl Measure {
    /// How it is judged where nobody says how.
    #[must_use]
    pub fn usual(self) -> Method {
        let bad = |max_ratio, ignore_below| Method::Bad { max_ratio, ignore_below, max_rate: None };
        match self {
            Self::Errors | Self::Probes | Self::Custom => bad(1.5, 0.000_5),
            Self::ClientErrors => bad(2.0, 0.01),
            Self::Latency => Method::Latency {
                quantiles: vec![0.5, 0.95, 0.99],
                max_increase: 0.2,
                min_increase_us: 5_000,
                max_us: None,
            },
        }
    }
}

// === impl Metric ===

impl Metric {
    fn check(&self) -> Result<(), &'static str> {
        let share = |v: f64| v > 0.0 && v < 1.0;
        let latency = self.measure == Measure::Latency;
        match &self.method {
            Method::Bad { .. } | Method::Good { .. } if latency => Err("a latency has quantiles, no ratio"),
            Method::Latency { .. } if !latency => Err("only a latency has quantiles"),
            Method::Bad { max_ratio, ignore_below, max_rate } => {
                let sane = positive(*max_ratio) && (0.0..1.0).contains(ignore_below) && max_rate.is_none_or(share);
                if sane { Ok(()) } else { Err("max_ratio is above 0, ignore_below and max_rate lie between 0 and 1") }
            }
            Method::Good { min_ratio } if positive(*min_ratio) => Ok(()),
            Method::Good { .. } => Err("min_ratio is above 0"),
            Method::Latency { quantiles, max_increase, .. } => {
                let ascending = quantiles.windows(2).all(|w| w[0] < w[1]);
                let some = (1..=QUANTILES_MAX).contains(&quantiles.len());
                if some && ascending && quantiles.iter().all(|q| share(*q)) && *max_increase >= 0.0 {
                    Ok(())
                } else {
                    Err("1 to 4 ascending quantiles between 0 and 1, and an increase of at least 0")
                }
            }
            Method::Threshold(rule) => rule.check(latency),
        }
    }
}

fn positive(v: f64) -> bool {
    v > 0.0 && v.is_finite()
}

// === impl BadConfig ===

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.metric.is_empty() { f.write_str(self.allowed) } else { write!(f, "{}: {}", self.metric, self.allowed) }
    }
}

impl std::error::Error for BadConfig {}
