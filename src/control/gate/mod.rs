//! The gates of all services: what workers counted goes into gates ([`crate::core::gate`]) and into the histories of stable, and verdicts come
//! out.
//!
//! Nothing is decided about a rollout here. [`Gates::begin`], [`Gates::step`], [`Gates::rest`] and [`Gates::end`] say what is to be watched;
//! it is counted from the next publication on, for which [`Gates::install`] prepares the live state.

mod evidence;
mod service;
mod stored;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::endpoint::EndpointKey;
use crate::core::gate::input::TICKS_PER_SECOND;
use crate::core::gate::{BadConfig, BadState, GateConfig, REACH_MAX, TICK_US, Tick, Unit, Verdict};
use crate::core::id::Name;
use crate::core::rollout::{self, Counts, Facts};
use crate::core::service::{Service, Upstream};
use crate::state::current::Routing;

pub use evidence::{Evidence, words};
pub use stored::Stored;

use service::Watched;

/// Bound on the probability of a false rollback, where nothing else is written.
const ALPHA: f64 = 0.001;
/// How long a candidate endpoint is given while its caches are cold, in ticks (30 s).
const WARMUP: u32 = 600;
/// How long a step is held, where nobody says.
pub const HOLD: Duration = Duration::from_secs(30);

/// What a service wants of its gate.
pub type Configured = Box<dyn Fn(&Service) -> GateConfig + Send>;

/// All gates, and the histories of services nobody is tried for.
pub struct Gates {
    began: Instant,
    workers: usize,
    configured: Configured,
    /// The last tick that was looked at.
    last: Option<Tick>,
    generation: u64,
    /// In order of name, as in the snapshot of that generation.
    services: Vec<Watched>,
}

/// What the gate of one service saw at a tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The rollout that is watched.
    pub rollout: u64,
    /// What it says.
    pub verdict: Verdict,
    /// The metric that condemned the candidate, if it is condemned.
    pub metric: Option<String>,
    /// The candidate's requests since the rollout began.
    pub counts: Counts,
    /// The candidate has endpoints that can be used.
    pub ready: bool,
    /// An endpoint of the candidate to be ejected; said once.
    pub eject: Option<EndpointKey>,
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

/// The gate of a service that says nothing of it: the default metrics, and the reach its timeouts give.
#[must_use]
pub fn default_config(upstream: &Upstream) -> GateConfig {
    let longest = upstream.connect_timeout.saturating_add(upstream.response_timeout);
    let reach = longest.as_micros().div_ceil(u128::from(TICK_US));
    GateConfig {
        alpha: ALPHA,
        unit: Unit::Session,
        warmup: WARMUP,
        reach: u32::try_from(reach).unwrap_or(REACH_MAX).clamp(1, REACH_MAX),
        metrics: GateConfig::default_metrics(),
    }
}

// === impl Gates ===

impl Gates {
    /// No gates yet. `began` is the origin of all ticks; `configured` says what a service that is idle keeps the history for.
    #[must_use]
    pub fn new(began: Instant, workers: usize, configured: Configured) -> Self {
        Self { began, workers, configured, last: None, generation: 0, services: Vec::new() }
    }

    /// Watches `rollout` of `service` from the next publication on, in place of any other.
    ///
    /// # Errors
    /// Unknown service (see [`Gates::follow`]), or what is out of range in `config`; nothing changed then.
    pub fn begin(&mut self, service: &Name, rollout: u64, config: &GateConfig, now: Instant) -> Result<(), NotWatched> {
        let first = self.tick_at(now);
        self.find(service)?.begin(rollout, config, first).map_err(NotWatched::Config)
    }

    /// A step of the rollout begins, to be held so long: sessions begin anew. Nothing happens where nothing is watched.
    pub fn step(&mut self, service: &Name, number: u32, hold: Duration) {
        if let Ok(service) = self.find(service) {
            service.step(number, ticks(hold));
        }
    }

    /// The rollout has succeeded: its report stays, nothing is compared any more.
    pub fn rest(&mut self, service: &Name) {
        if let Ok(service) = self.find(service) {
            service.rest();
        }
    }

    /// The rollout is over: its report stays until another one's is there.
    pub fn end(&mut self, service: &Name) {
        let at = self.services.binary_search_by(|known| known.name().cmp(service));
        if let Ok(at) = at {
            self.services[at].end(&self.configured);
        }
    }

    /// The rollout of `service` that is watched, or reported on.
    #[must_use]
    pub fn watched(&self, service: &Name) -> Option<u64> {
        self.get(service)?.rollout()
    }

    /// What is known of the rollout of `service`, or of its last one, unabridged.
    #[must_use]
    pub fn report(&self, service: &Name) -> Option<Evidence> {
        self.get(service)?.report()
    }

    /// What the gate of `service` remembers, to be persisted.
    #[must_use]
    pub fn state(&self, service: &Name) -> Option<Stored> {
        self.get(service)?.stored()
    }

    /// Goes on with what was persisted, from the next publication on.
    ///
    /// # Errors
    /// Unknown service, or evidence of another gate: treat it as lost, begin anew, say so.
    pub fn restore(&mut self, service: &Name, stored: Stored, now: Instant) -> Result<(), NotWatched> {
        let next = self.tick_at(now);
        self.find(service)?.restore(stored, next)
    }

    /// Makes the live state of `next`, which is about to be published, count what is to be counted.
    pub fn install(&mut self, next: &mut Routing) {
        self.follow(next);
        for (service, live) in self.services.iter_mut().zip(&mut next.live) {
            if let Some(watched) = service.install(live) {
                *live = Arc::new(watched);
            }
        }
    }

    /// Whether something is to be counted that `routing` does not count yet: another publication is due.
    #[must_use]
    pub fn is_due(&self, routing: &Routing) -> bool {
        self.services.iter().zip(&routing.live).any(|(service, live)| !service.is_installed(live))
    }

    /// Looks at everything that was counted since the last look; what the gates see comes back, by the index of the service. Nothing until
    /// a tick is complete.
    pub fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<(usize, Seen)> {
        let Some(last) = self.tick_at(now).checked_sub(1).filter(|last| self.last.is_none_or(|seen| seen < *last))
        else {
            return Vec::new();
        };
        if self.generation != routing.snapshot.generation {
            self.follow(routing);
        }
        let since = self.last.replace(last).map_or(last, |seen| seen + 1);
        let mut seen = Vec::new();
        for (index, service) in self.services.iter_mut().enumerate() {
            let (active, live) = routing.service(index);
            if service.is_running() {
                let second = has_turn(since, last, 0);
                seen.extend(service.look(active, live, last, second).map(|said| (index, said)));
            } else if has_turn(since, last, index as u64) {
                service.remember(live, last);
            }
        }
        seen
    }

    /// Knows the services of `routing` from now on, and no others. [`Gates::install`] and [`Gates::tick`] do so by themselves.
    pub fn follow(&mut self, routing: &Routing) {
        self.generation = routing.snapshot.generation;
        let same = self.services.len() == routing.live.len();
        let services = &routing.snapshot.services;
        if same && self.services.iter().zip(services).all(|(known, active)| known.is_of(&active.service)) {
            return;
        }
        let mut known = std::mem::take(&mut self.services).into_iter().peekable();
        for active in services {
            while known.next_if(|service| *service.name() < active.service.name).is_some() {}
            let service = match known.next_if(|service| *service.name() == active.service.name) {
                Some(mut service) => {
                    service.follow(&active.service, &self.configured);
                    service
                }
                None => Watched::new(&active.service, (self.configured)(&active.service), self.workers, self.began),
            };
            self.services.push(service);
        }
    }

    fn find(&mut self, service: &Name) -> Result<&mut Watched, NotWatched> {
        match self.services.binary_search_by(|known| known.name().cmp(service)) {
            Ok(at) => Ok(&mut self.services[at]),
            Err(_) => Err(NotWatched::Unknown(service.clone())),
        }
    }

    fn get(&self, service: &Name) -> Option<&Watched> {
        let at = self.services.binary_search_by(|known| known.name().cmp(service)).ok()?;
        Some(&self.services[at])
    }

    fn tick_at(&self, now: Instant) -> Tick {
        let elapsed = now.saturating_duration_since(self.began).as_micros() / u128::from(TICK_US);
        Tick::try_from(elapsed).unwrap_or(Tick::MAX)
    }
}

/// Whether one of the ticks `since..=last` ends a second for whoever is `offset` ticks late.
fn has_turn(since: Tick, last: Tick, offset: u64) -> bool {
    let seconds = |tick: Tick| (tick + offset) / TICKS_PER_SECOND;
    seconds(last + 1) > seconds(since)
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(u128::from(TICK_US))).unwrap_or(u32::MAX)
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("services", &self.services.len())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

// === impl Seen ===

impl Seen {
    /// What the state machine of a rollout asks at every tick.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let verdict = match &self.metric {
            Some(metric) => rollout::Verdict::Harmful { metric: metric.clone() },
            None if self.verdict.paused.gate_error => rollout::Verdict::Error,
            None => rollout::Verdict::Open,
        };
        Facts {
            ready: self.ready,
            counts: self.counts,
            verdict,
            alarm: self.verdict.trial,
            stable_degraded: self.verdict.paused.stable_degraded,
            sample_ratio: self.verdict.sample_ratio,
            endpoint: self.verdict.paused.endpoint.is_some(),
        }
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

#[cfg(test)]
mod tests;
