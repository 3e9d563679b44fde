//! The gates of all services: what workers counted goes into gates ([`crate::core::gate`]) and into the histories of stable, and verdicts come
//! out.
//!
//! Nothing is decided about a rollout here.

mod evidence;
mod service;
mod stored;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::gate::input::TICKS_PER_SECOND;
use crate::core::gate::{GateConfig, TICK_US, Tick};
use crate::core::id::Name;
use crate::core::service::Service;
use crate::state::current::Routing;

use super::gate::{Gates, NotWatched, Proof, Seen};

pub use evidence::Evidence;
pub use stored::{STORED_VERSION, Stored};

use service::Watched;

/// All gates, and the histories of services nobody is tried for.
pub struct LiveGates {
    began: Instant,
    workers: usize,
    /// The last tick that was looked at.
    last: Option<Tick>,
    generation: u64,
    /// In order of name, as in the snapshot of that generation.
    services: Vec<Watched>,
}

/// What a service that is idle keeps the history for.
fn wanted(service: &Service) -> GateConfig {
    service.rollout.terms.gate.clone()
}

// === impl LiveGates ===

impl LiveGates {
    /// No gates yet. `began` is the origin of all ticks.
    #[must_use]
    pub fn new(began: Instant, workers: usize) -> Self {
        Self { began, workers, last: None, generation: 0, services: Vec::new() }
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

impl Gates for LiveGates {
    fn follow(&mut self, next: &Routing) {
        self.generation = next.snapshot.generation;
        let same = self.services.len() == next.live.len();
        let services = &next.snapshot.services;
        if same && self.services.iter().zip(services).all(|(known, active)| known.is_of(&active.service)) {
            return;
        }
        let mut known = std::mem::take(&mut self.services).into_iter().peekable();
        for active in services {
            while known.next_if(|service| *service.name() < active.service.name).is_some() {}
            let service = match known.next_if(|service| *service.name() == active.service.name) {
                Some(mut service) => {
                    service.follow(&active.service);
                    service
                }
                None => Watched::new(&active.service, self.workers, self.began),
            };
            self.services.push(service);
        }
    }

    fn begin(&mut self, service: &Name, rollout: u64, config: &GateConfig, now: Instant) -> Result<(), NotWatched> {
        let first = self.tick_at(now);
        self.find(service)?.begin(rollout, config, first).map_err(NotWatched::Config)
    }

    fn restore(&mut self, service: &Name, stored: Stored, now: Instant) -> Result<(), NotWatched> {
        let next = self.tick_at(now);
        self.find(service)?.restore(stored, next)
    }

    fn step(&mut self, service: &Name, step: usize, hold: Duration) {
        if let Ok(service) = self.find(service) {
            service.step(u32::try_from(step).unwrap_or(u32::MAX), ticks(hold));
        }
    }

    fn report(&mut self, service: &Name) {
        if let Ok(service) = self.find(service) {
            service.report();
        }
    }

    fn end(&mut self, service: &Name) {
        if let Ok(service) = self.find(service) {
            service.end();
        }
    }

    fn install(&mut self, next: &mut Routing) {
        self.follow(next);
        for (service, live) in self.services.iter_mut().zip(&mut next.live) {
            if let Some(watched) = service.install(live) {
                *live = Arc::new(watched);
            }
        }
    }

    fn is_due(&self, routing: &Routing) -> bool {
        self.services.iter().zip(&routing.live).any(|(service, live)| !service.is_installed(live))
    }

    /// Nothing until a tick is complete.
    fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<(usize, Seen)> {
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
            // Not all of them in the same tick.
            let second = has_turn(since, last, index as u64);
            // A defect in one gate is not to be the end of control: its rollout waits then.
            let looked = catch_unwind(AssertUnwindSafe(|| {
                if service.is_running() {
                    return service.look(active, live, last, second);
                }
                if second {
                    service.remember(live, last);
                }
                None
            }));
            if let Ok(said) = looked {
                seen.extend(said.map(|said| (index, said)));
            } else {
                tracing::error!(service = %service.name(), "the gate ended unexpectedly; this is a defect");
                service.give_up();
            }
        }
        seen
    }

    fn is_watched(&self, service: &Name, rollout: u64) -> bool {
        self.get(service).and_then(Watched::rollout) == Some(rollout)
    }

    fn proof(&self, service: &Name) -> Option<Proof> {
        self.get(service)?.proof()
    }

    fn evidence(&self, service: &Name) -> Option<Evidence> {
        self.get(service)?.evidence()
    }

    fn state(&self, service: &Name) -> Option<Stored> {
        self.get(service)?.stored()
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

impl fmt::Debug for LiveGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveGates")
            .field("services", &self.services.len())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
