//! Kayenta's `NetflixACAJudge`: per metric the values of canary and baseline are compared by ranks; the score is the share of metrics that
//! pass.
//!
//! <https://spinnaker.io/docs/guides/user/canary/judge/> and
//! <https://github.com/spinnaker/kayenta/blob/master/kayenta-judge/src/main/scala/com/netflix/kayenta/judge/NetflixACAJudge.scala>. Points
//! without data are left out (`nanStrategy: remove`), outliers are kept, only an increase fails (`direction: increase`).

use super::ranks::Ranks;

/// A score below fails the canary. With two metrics it is 100, 50 or 0, so that the threshold of 95 for the last judgement asks no more.
const MARGINAL: f64 = 75.0;
/// The shift's lower confidence bound has to exceed this share of the shift itself.
const TOLERANCE: f64 = 0.25;
/// Standard deviations of a two-sided confidence of 0.98.
pub(crate) const Z: f64 = 2.326_347_874_040_841;

/// Settings, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kayenta {
    /// Between two points of a series.
    pub(crate) step: u64,
    /// Between two judgements; each looks at everything since the beginning.
    pub(crate) interval: u64,
}

/// What one metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Pass,
    High,
    NoData,
}

/// Compares the values of one metric; NaN is no data.
pub(crate) fn classify(canary: &[f64], baseline: &[f64]) -> Class {
    let known = |values: &[f64]| values.iter().copied().filter(|value| !value.is_nan()).collect();
    let Some(ranks) = Ranks::new(known(canary), known(baseline)) else { return Class::NoData };
    // A bound that is not above zero is above no tolerance; most of the time that ends it.
    if ranks.z(0.0) <= Z || ranks.shift_at(Z) <= TOLERANCE * ranks.shift_at(0.0).abs() {
        return Class::Pass;
    }
    Class::High
}

/// Whether the metrics together fail the canary.
pub(crate) fn fails(classes: &[Class]) -> bool {
    let of = |class| classes.iter().filter(|c| **c == class).count() as f64;
    let known = of(Class::Pass) + of(Class::High);
    known > 0.0 && of(Class::Pass) / known * 100.0 < MARGINAL
}
