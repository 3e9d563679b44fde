//! Who judges, set to what, and where that is documented.
//!
//! Each of the others stands here twice: as its documentation's example sets it, and as fast as it sensibly goes.

use super::kayenta::Kayenta;
use super::polling::{Polling, Silence};

/// One judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judge {
    /// For tables.
    pub(crate) name: &'static str,
    /// What it is set to, for tables.
    pub(crate) settings: &'static str,
    pub(crate) kind: Kind,
}

/// How it judges.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// This project's gate, with the five tests of a service that names no metrics.
    Gate,
    /// Fixed thresholds on what a query returns, every interval.
    Polling(Polling),
    /// Rank tests of time series, every interval.
    Kayenta(Kayenta),
}

/// "p99 at most 500 ms", as a share of requests that take longer.
const P99: f64 = 0.01;

/// <https://docs.flagger.app/tutorials/istio-progressive-delivery#traffic-mirroring>: `interval: 1m`, `threshold: 5` (the most failed checks
/// before a rollback), `iterations: 10`, `request-success-rate` `min: 99`, `request-duration` (p99) `max: 500` milliseconds, both over `1m`;
/// the thresholds are those of <https://docs.flagger.app/usage/metrics>, too. Failed checks add up, and do not count as iterations. A query
/// without a value is a failed check. The rollback comes with the fifth, "interval * threshold"
/// (<https://docs.flagger.app/usage/how-it-works>); the program waits for the next interval.
const FLAGGER: Polling = Polling {
    interval: 60,
    window: 60,
    success_min: 0.99,
    slow_max: Some(P99),
    failures: 5,
    passes: Some(10),
    silence: Silence::Fails,
};

/// The same with the control loop at 10 s and a rollback at the first failed check, for as long as the rollout is watched. A metric's interval
/// should not be longer than the control loop's (<https://docs.flagger.app/faq#metrics>), so it sees 10 s.
const FLAGGER_FAST: Polling = Polling { interval: 10, window: 10, failures: 1, passes: None, ..FLAGGER };

/// <https://argo-rollouts.readthedocs.io/en/stable/features/analysis/#background-analysis>: `interval: 5m`,
/// `successCondition: result[0] >= 0.95`, `failureLimit: 3`, no end; it fails with the third failed measurement, as the page says (the program
/// waits for the fourth). Its query takes `irate`, which looks at the last two samples: 15 s apart, as the Prometheus that comes with
/// Istio scrapes. Without a request that is NaN, and NaN is no success ("NaN and Infinity" on the same page). Its first measurement comes at
/// the start of the analysis, here when there is nothing to measure, and is left out.
const ARGO: Polling = Polling {
    interval: 300,
    window: 15,
    success_min: 0.95,
    slow_max: None,
    failures: 3,
    passes: None,
    silence: Silence::Fails,
};

/// The same every 10 s over one minute, failing at the first failed measurement (`failureLimit: 0`, the default), with `isNaN(result)` as a
/// success.
const ARGO_FAST: Polling = Polling { interval: 10, window: 60, failures: 1, silence: Silence::Passes, ..ARGO };

/// <https://spinnaker.io/docs/guides/user/canary/best-practices/>: a judgement every 60 minutes over everything since the beginning, for 3
/// hours, thresholds 75 (marginal) and 95 (pass), at least 50 points per metric, against a baseline of the canary's own size. One point a
/// minute. Tolerance 0.25 and confidence 0.98 are constants of its `NetflixACAJudge`.
const KAYENTA: Kayenta = Kayenta { step: 60, interval: 3_600 };

/// A judgement every five minutes with a point every 10 s, so that the first one has 30 points.
const KAYENTA_FAST: Kayenta = Kayenta { step: 10, interval: 300 };

/// All of them; indices into this are indices into results.
pub(crate) const JUDGES: [Judge; 7] = [
    Judge { name: "Tidegate", settings: "default metrics, alpha 0.001", kind: Kind::Gate },
    Judge {
        name: "Flagger",
        settings: "as documented: every 1 min, 10 passed or 5 failed checks end it",
        kind: Kind::Polling(FLAGGER),
    },
    Judge { name: "Flagger, fast", settings: "every 10 s, 1 failed check ends it", kind: Kind::Polling(FLAGGER_FAST) },
    Judge {
        name: "Argo Rollouts",
        settings: "as documented: every 5 min, 3 failed measurements",
        kind: Kind::Polling(ARGO),
    },
    Judge {
        name: "Argo Rollouts, fast",
        settings: "every 10 s over 1 min, 1 failed measurement",
        kind: Kind::Polling(ARGO_FAST),
    },
    Judge { name: "Kayenta", settings: "as documented: every 60 min, a point a minute", kind: Kind::Kayenta(KAYENTA) },
    Judge { name: "Kayenta, fast", settings: "every 5 min, a point every 10 s", kind: Kind::Kayenta(KAYENTA_FAST) },
];
