//! Passive ejection: an endpoint whose own requests fail is left alone for a while, so that one bad machine is not taken for a bad version.
//!
//! Fed with cumulative counts per endpoint at every tick; says who is ejected, tried with a single request, or back. The share of a
//! pool that may be ejected is bounded, and the last endpoint that works never is.

pub mod fault;
pub mod patience;

use std::fmt;
use std::time::Duration;

use super::weight::{GRAINS, Weight};

/// Parts of the window; its edge is this coarse.
const SLICES: u32 = 10;
/// How long an endpoint that was spared is not to be ejected before it counts as working again: bounds how often that changes.
const CALM: Duration = Duration::from_secs(1);

/// When an endpoint counts as an outlier, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierRules {
    /// Failed attempts in a row; zero switches the rule off.
    pub consecutive_failures: u32,
    /// How far back the success rate looks.
    pub window: Duration,
    /// Attempts within the window below which there is no rate.
    pub min_requests: u32,
    /// Least share of attempts that succeed; zero switches the rule off.
    pub min_success: Weight,
    /// The first ejection; the n-th in a row lasts n times as long.
    pub ejection: Duration,
    /// Longest ejection.
    pub max_ejection_time: Duration,
    /// Most endpoints of a pool that are ejected at the same time; at least one of two may be.
    pub max_ejected: Weight,
    /// Share of usable endpoints below which stable uses all that ever passed a probe; zero switches it off.
    pub panic_threshold: Weight,
}

/// What is known of one endpoint at a tick. Counts are cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Attempts that ended and say something about the endpoint.
    pub ended: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Failures since the last success.
    pub streak: u32,
    /// Its probe passes.
    pub ready: bool,
}

/// What is decided about one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It takes requests.
    #[default]
    In,
    /// It takes none until then (on the clock of [`tick`]).
    Ejected {
        /// When it is tried again.
        until: Duration,
    },
    /// It takes a single request, whose end decides.
    Trial,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// So many failures in a row.
    Streak(u32),
    /// Too small a share of successes in the window.
    Rate {
        /// Attempts in the window.
        ended: u64,
        /// Failed ones.
        failed: u64,
    },
    /// The single request failed.
    Trial,
    /// Without it there would be no case against its version.
    Gate,
}

/// What keeps an endpoint in that was to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is the last of its pool that takes requests.
    Last,
    /// As many of its pool are ejected as may be.
    Share,
}

/// A change of standing, by the index of the endpoint in the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Ejected, for so long.
    Ejected {
        /// Which.
        endpoint: usize,
        /// Why.
        cause: Cause,
        /// For how long.
        lasting: Duration,
    },
    /// May take one request now.
    Trial {
        /// Which.
        endpoint: usize,
    },
    /// Takes requests again.
    Restored {
        /// Which.
        endpoint: usize,
    },
    /// Was to be ejected and takes requests all the same: it fails, but others are no better off without it.
    Spared {
        /// Which.
        endpoint: usize,
        /// Why it was to go.
        cause: Cause,
        /// Why it stays.
        bound: Bound,
    },
    /// Was spared, and is not to be ejected any more.
    Cleared {
        /// Which.
        endpoint: usize,
    },
}

/// The outlier state of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct Outlier {
    standing: Standing,
    /// Ejections in a row: grows with each, shrinks by one for every `ejection` it stays in.
    ejections: u32,
    /// When `ejections` or the standing changed last, or another request was let in on trial.
    changed: Duration,
    /// Counts at the beginning of each slice, oldest first.
    slices: Vec<(Duration, u64, u64)>,
    /// Counts when the trial began.
    before_trial: (u64, u64),
    /// The streak that is answered for already.
    judged: u32,
    /// When it was to be ejected last, while it is spared.
    spared: Option<Duration>,
}

// === impl OutlierRules ===

impl Default for OutlierRules {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            window: Duration::from_secs(10),
            min_requests: 20,
            min_success: Weight::FOUR_FIFTHS,
            ejection: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejected: Weight::HALF,
            panic_threshold: Weight::HALF,
        }
    }
}

// === impl Cause ===

impl Cause {
    /// The words of the `cause` label, in index order.
    pub const WORDS: [&str; 4] = ["failures", "success_rate", "trial", "gate"];

    /// Its index in [`Cause::WORDS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Streak(_) => 0,
            Self::Rate { .. } => 1,
            Self::Trial => 2,
            Self::Gate => 3,
        }
    }
}

/// `5 failures in a row`
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streak(1) => f.write_str("1 failure"),
            Self::Streak(n) => write!(f, "{n} failures in a row"),
            Self::Rate { ended, failed } => write!(f, "{failed} of {ended} requests failed"),
            Self::Trial => f.write_str("the request on trial failed"),
            Self::Gate => f.write_str("the gate blames it alone"),
        }
    }
}

// === impl Bound ===

impl Bound {
    /// The words of the `bound` label, in index order (`self as usize`).
    pub const WORDS: [&str; 2] = ["last", "max_ejected"];
}

/// `kept as the last of its pool`
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "kept as the last of its pool",
            Self::Share => "kept at max_ejected",
        })
    }
}

// === impl Outlier ===

impl Outlier {
    /// What is decided about it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    fn observe(&mut self, now: Duration, sample: &Sample, rules: &OutlierRules) {
        let slice = rules.window / SLICES;
        if self.slices.last().is_none_or(|(began, ..)| now.saturating_sub(*began) >= slice) {
            self.slices.push((now, sample.ended, sample.failed));
        }
        // The newest slice that began a whole window ago is where the window begins.
        let old = self.slices.iter().take_while(|(began, ..)| now.saturating_sub(*began) >= rules.window).count();
        self.slices.drain(..old.saturating_sub(1));
        self.judged = self.judged.min(sample.streak);
    }

    /// Attempts and failures within the window.
    fn window(&self, sample: &Sample) -> (u64, u64) {
        let (_, ended, failed) = self.slices.first().copied().unwrap_or((Duration::ZERO, sample.ended, sample.failed));
        (sample.ended.saturating_sub(ended), sample.failed.saturating_sub(failed))
    }

    fn fault(&self, sample: &Sample, rules: &OutlierRules) -> Option<Cause> {
        let fresh = sample.streak - self.judged;
        if rules.consecutive_failures > 0 && fresh >= rules.consecutive_failures {
            return Some(Cause::Streak(fresh));
        }
        let (ended, failed) = self.window(sample);
        let enough = ended > 0 && ended >= u64::from(rules.min_requests);
        let succeeded = (ended - failed.min(ended)) * u64::from(GRAINS);
        (enough && succeeded < ended * u64::from(rules.min_success.grains())).then_some(Cause::Rate { ended, failed })
    }

    fn eject(&mut self, now: Duration, sample: &Sample, rules: &OutlierRules) -> Duration {
        self.ejections = self.ejections.saturating_add(1);
        self.changed = now;
        let lasting = rules.ejection.saturating_mul(self.ejections).min(rules.max_ejection_time.max(rules.ejection));
        self.standing = Standing::Ejected { until: now + lasting };
        self.spared = None;
        self.forgive(sample);
        lasting
    }

    /// What happened until now is not held against it a second time.
    fn forgive(&mut self, sample: &Sample) {
        self.slices.clear();
        self.judged = sample.streak;
    }

    /// It was to be ejected and is not; `Some` when that is new.
    fn spare(&mut self, endpoint: usize, now: Duration, cause: Cause, bound: Bound) -> Option<Change> {
        self.spared.replace(now).is_none().then_some(Change::Spared { endpoint, cause, bound })
    }

    /// It was not to be ejected for a while; `Some` when it was spared before.
    fn clear(&mut self, endpoint: usize, now: Duration) -> Option<Change> {
        self.spared.take_if(|at| now.saturating_sub(*at) >= CALM).map(|_| Change::Cleared { endpoint })
    }

    /// Moves an ejected endpoint on; `Some` when its standing changed.
    fn recover(&mut self, endpoint: usize, now: Duration, sample: &Sample, rules: &OutlierRules) -> Option<Change> {
        match self.standing {
            Standing::In => {
                if self.ejections > 0 && now.saturating_sub(self.changed) >= rules.ejection {
                    self.ejections -= 1;
                    self.changed = now;
                }
                None
            }
            Standing::Ejected { until } if now >= until => {
                self.standing = Standing::Trial;
                self.changed = now;
                self.before_trial = (sample.ended, sample.failed);
                Some(Change::Trial { endpoint })
            }
            Standing::Trial if sample.failed > self.before_trial.1 => {
                let lasting = self.eject(now, sample, rules);
                Some(Change::Ejected { endpoint, cause: Cause::Trial, lasting })
            }
            Standing::Trial if sample.ended > self.before_trial.0 => {
                self.standing = Standing::In;
                self.changed = now;
                self.forgive(sample);
                Some(Change::Restored { endpoint })
            }
            // The one request may be a stream that goes on for hours: another one is let in.
            Standing::Trial if now.saturating_sub(self.changed) >= rules.ejection => {
                self.changed = now;
                Some(Change::Trial { endpoint })
            }
            // If it ended without saying anything (its client left), it has made room for another one itself.
            Standing::Trial | Standing::Ejected { .. } => None,
        }
    }
}

/// Judges a pool: `outliers` and `samples` in the same order, `now` on a monotonic clock with an origin of the caller's choice.
///
/// Endpoints that are not ready are neither ejected nor counted among those that work. Whoever is to be ejected and may not be is spared:
/// it goes as soon as it may. With a share of zero nobody is to be ejected.
pub fn tick(outliers: &mut [Outlier], samples: &[Sample], rules: &OutlierRules, now: Duration) -> Vec<Change> {
    let mut changes = Vec::new();
    for (endpoint, (outlier, sample)) in outliers.iter_mut().zip(samples).enumerate() {
        changes.extend(outlier.recover(endpoint, now, sample, rules));
        outlier.observe(now, sample, rules);
    }
    let mut faulty: Vec<(usize, Cause)> = Vec::new();
    for (endpoint, (outlier, sample)) in outliers.iter().zip(samples).enumerate() {
        if outlier.standing == Standing::In && sample.ready && rules.max_ejected > Weight::ZERO {
            faulty.extend(outlier.fault(sample, rules).map(|cause| (endpoint, cause)));
        }
    }
    // The worst first, so that the bound spares the better ones.
    faulty.sort_by_key(|(endpoint, _)| std::cmp::Reverse(badness(&outliers[*endpoint], &samples[*endpoint])));
    for (endpoint, cause) in faulty {
        if let Some(bound) = bound(outliers, samples, rules) {
            changes.extend(outliers[endpoint].spare(endpoint, now, cause, bound));
        } else {
            let lasting = outliers[endpoint].eject(now, &samples[endpoint], rules);
            changes.push(Change::Ejected { endpoint, cause, lasting });
        }
    }
    changes.extend(outliers.iter_mut().enumerate().filter_map(|(endpoint, outlier)| outlier.clear(endpoint, now)));
    changes
}

/// Ejects the endpoint at `endpoint` for what the gate says of it, if one more may go: it is ready, takes requests, and is not the last.
pub fn condemn(
    outliers: &mut [Outlier],
    samples: &[Sample],
    rules: &OutlierRules,
    endpoint: usize,
    now: Duration,
) -> Option<Change> {
    let sample = samples.get(endpoint)?;
    let stands = outliers.get(endpoint)?.standing == Standing::In && sample.ready;
    if !stands || rules.max_ejected == Weight::ZERO || bound(outliers, samples, rules).is_some() {
        return None;
    }
    let lasting = outliers[endpoint].eject(now, sample, rules);
    Some(Change::Ejected { endpoint, cause: Cause::Gate, lasting })
}

/// The share of failures in the window in grains, then the streak.
fn badness(outlier: &Outlier, sample: &Sample) -> (u64, u32) {
    let (ended, failed) = outlier.window(sample);
    (failed * u64::from(GRAINS) / ended.max(1), sample.streak)
}

/// What keeps one more endpoint from going: it is the last that takes requests, or the share is used up.
fn bound(outliers: &[Outlier], samples: &[Sample], rules: &OutlierRules) -> Option<Bound> {
    let ejected = outliers.iter().filter(|outlier| outlier.standing != Standing::In).count();
    let working = outliers.iter().zip(samples).filter(|(o, s)| o.standing == Standing::In && s.ready).count();
    let share = outliers.len() * usize::from(rules.max_ejected.grains()) / usize::from(GRAINS);
    if working <= 1 {
        return Some(Bound::Last);
    }
    (ejected >= share.max(1)).then_some(Bound::Share)
}

/// Whether so few of `all` endpoints are `usable` that health is no guide any more: then the load would break the rest, too.
#[must_use]
pub fn panics(usable: usize, all: usize, threshold: Weight) -> bool {
    threshold > Weight::ZERO && usable * usize::from(GRAINS) < all * usize::from(threshold.grains())
}

#[cfg(test)]
mod tests;
