//! What control asks of the gate: whoever watches the requests of a rollout answers at every tick.

use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::core::endpoint::EndpointKey;
use crate::core::gate::{BadConfig, BadState, GateConfig};
use crate::core::id::Name;
use crate::core::rollout::{Counts, Facts, Verdict};
use crate::state::current::Routing;

use super::gates::{Evidence, Stored};

/// Watches the candidates of all services that have a rollout. Called by control only, in its order.
///
/// Before a publication comes [`Gates::follow`], then what begins and ends with it, then [`Gates::install`]: a request counts for what was
/// published when it began.
pub trait Gates: Send {
    /// Knows the services of `next` from now on, and no others.
    fn follow(&mut self, next: &Routing);

    /// A rollout began: it is watched under `config` from the next publication on.
    ///
    /// # Errors
    /// What is out of range in `config`; it is not watched then.
    fn begin(&mut self, service: &Name, rollout: u64, config: &GateConfig, now: Instant) -> Result<(), NotWatched>;

    /// As [`Gates::begin`], going on with what was persisted.
    ///
    /// # Errors
    /// It is of another gate: begin anew.
    fn restore(&mut self, service: &Name, stored: Stored, now: Instant) -> Result<(), NotWatched>;

    /// A step of it began, to be held so long; what is counted per step begins anew.
    fn step(&mut self, service: &Name, step: usize, hold: Duration);

    /// Its candidate is stable now: what is seen is only reported.
    fn report(&mut self, service: &Name);

    /// It is watched no longer.
    fn end(&mut self, service: &Name);

    /// Makes the live state of `next`, which is about to be published, count what is to be counted.
    fn install(&mut self, next: &mut Routing);

    /// Whether something is to be counted that `routing` does not count: a publication is due.
    fn is_due(&self, routing: &Routing) -> bool;

    /// What was seen since the last tick, by index of the service in `routing`. Whoever is not among it has nothing new: that is neither
    /// harm nor a pass.
    fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<(usize, Seen)>;

    /// Whether `rollout` of `service` is watched.
    fn is_watched(&self, service: &Name, rollout: u64) -> bool;

    /// Why the gate says what it says of the latest rollout of `service`.
    fn proof(&self, service: &Name) -> Option<Proof>;

    /// Everything that is known of the latest rollout of `service`.
    fn evidence(&self, service: &Name) -> Option<Evidence>;

    /// What has to be persisted of the rollout of `service` that is watched.
    fn state(&self, service: &Name) -> Option<Stored>;
}

/// What was seen of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The requests of its candidate since the rollout began.
    pub counts: Counts,
    /// Whether it does harm.
    pub verdict: Verdict,
    /// Its rate is above what stable's was; of meaning above nine tenths only.
    pub alarm: bool,
    /// Stable got worse.
    pub stable_degraded: bool,
    /// The share of requests does not fit the weight.
    pub sample_ratio: bool,
    /// One endpoint is bad, the others are not.
    pub endpoint: bool,
    /// An endpoint of the candidate to be ejected; said once.
    pub eject: Option<EndpointKey>,
}

/// Why the gate says what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// In a sentence, for people.
    pub words: String,
    /// All numbers, for the audit.
    pub numbers: Value,
    /// From the first sign of harm to the verdict, where the candidate is condemned.
    pub after: Option<Duration>,
}

/// Why a rollout is not watched.
#[derive(Clone, Debug, PartialEq)]
pub enum NotWatched {
    /// There is no such service.
    Unknown(Name),
    /// What is wrong with the configuration of the gate.
    Config(BadConfig),
    /// The evidence that was kept is not of such a gate: it is lost.
    State(BadState),
    /// An endpoint in it has no address that can be read.
    Member(String),
}

// === impl Seen ===

impl Seen {
    /// Nothing new: the requests are those that were `counts` before.
    #[must_use]
    pub const fn nothing(counts: Counts) -> Self {
        Self {
            counts,
            verdict: Verdict::Open,
            alarm: false,
            stable_degraded: false,
            sample_ratio: false,
            endpoint: false,
            eject: None,
        }
    }

    /// With whether the candidate has endpoints to go to.
    #[must_use]
    pub fn facts(self, ready: bool) -> Facts {
        let Self { counts, verdict, alarm, stable_degraded, sample_ratio, endpoint, eject: _ } = self;
        Facts { ready, counts, verdict, alarm, stable_degraded, sample_ratio, endpoint }
    }
}

// === impl NotWatched ===

impl fmt::Display for NotWatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(service) => write!(f, "there is no service \"{service}\""),
            Self::Config(bad) => bad.fmt(f),
            Self::State(bad) => bad.fmt(f),
            Self::Member(text) => write!(f, "\"{text}\" is no address of an endpoint"),
        }
    }
}

impl std::error::Error for NotWatched {}
