//! What workers count for the gate, and how control reads it: exposures, events, latencies, what is in flight, sessions and draws.
//!
//! A [`Watch`] hangs off the live state of its service and is published with it, so a request counts where it began to. Of a service
//! nobody is tried for, only sums of stable are kept, for its history; everything else exists only while a rollout is watched.
//!
//! [`Sense`] is told by the policy of a request what becomes of it; [`Reader`] turns what was counted into what
//! [`crate::core::gate::input`] asks for. What is good or bad is decided by neither.

mod counts;
mod glance;
mod limits;
mod read;
mod sense;
mod ticks;
mod waiting;
mod what;

use std::sync::Arc;
use std::time::Instant;

use crate::core::endpoint::EndpointKey;
use crate::core::gate::sessions::{KeySet, Sessions};
use crate::core::gate::{self, GateConfig, TICK_US, Thresholds, Tick};
use crate::core::id::Variant;

use super::counters::Cell;
use super::live::EndpointLive;

pub use counts::{Counts, Shard};
pub use glance::{Glance, Opinion};
pub use limits::Limits;
pub use read::{Reader, Taken};
pub use sense::{Place, Sense};
pub use ticks::Ticks;
pub use what::What;

use counts::Depth;
use glance::Board;

/// Endpoints of the candidate that are counted apart; further ones share their counts, as they share an index in the gate.
pub const MEMBERS_MAX: usize = 256;

/// What is counted of one service, and where.
#[derive(Clone, Debug)]
pub struct Watch {
    began: Instant,
    workers: usize,
    what: Arc<What>,
    stable: Arc<Counts>,
    limits: Arc<Limits>,
    rollout: Option<Watched>,
}

/// What exists only while a rollout is watched.
#[derive(Clone, Debug)]
struct Watched {
    /// Counts the steps of the rollout.
    step: u32,
    /// Endpoints of the candidate in the order they joined; their place is their index in the gate.
    members: Vec<Member>,
    /// Places in `members`, by the index of the endpoint in the pool of the candidate.
    pool: Vec<usize>,
    /// Of stable and of the candidate, in this step.
    sessions: Option<Arc<[Sessions; 2]>>,
    keys: Arc<KeySet>,
    board: Arc<Board>,
    drawn: Arc<[Drawn]>,
}

/// An endpoint that was or is in the candidate's pool.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which.
    pub key: EndpointKey,
    counts: Arc<Counts>,
}

/// Keys one worker saw for the first time, by the variant they were drawn to.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Drawn([Cell; 2]);

// === impl Watch ===

impl Watch {
    /// Keeps the history of stable for a gate with this configuration. `began` is the origin of all its ticks.
    #[must_use]
    pub fn idle(config: &GateConfig, workers: usize, began: Instant) -> Self {
        let what = Arc::new(What::new(config));
        Self::new(what, Depth::Sums, workers, began)
    }

    /// Watches a rollout. `members` are endpoints of the candidate that keep their index from before.
    #[must_use]
    pub fn rollout(config: &GateConfig, members: &[EndpointKey], workers: usize, began: Instant) -> Self {
        let mut watch = Self::new(Arc::new(What::new(config)), Depth::Ticks, workers, began);
        let mut watched = Watched {
            step: 0,
            members: Vec::new(),
            pool: Vec::new(),
            sessions: new_sessions(&watch.what),
            keys: Arc::default(),
            board: Arc::default(),
            drawn: (0..workers.max(1)).map(|_| Drawn::default()).collect(),
        };
        for (at, key) in members.iter().enumerate() {
            watched.join(at, key, &watch.what, workers);
        }
        watch.rollout = Some(watched);
        watch
    }

    fn new(what: Arc<What>, depth: Depth, workers: usize, began: Instant) -> Self {
        let stable = Arc::new(Counts::new(&what, workers, depth, true));
        let limits = Arc::new(Limits::new(&what));
        Self { began, workers, what, stable, limits, rollout: None }
    }

    /// The same in another step: sessions begin anew.
    #[must_use]
    pub fn in_step(&self, step: u32) -> Self {
        let mut next = self.clone();
        if let Some(watched) = &mut next.rollout {
            watched.step = step;
            watched.sessions = new_sessions(&next.what);
        }
        next
    }

    /// The same over this pool of the candidate.
    #[must_use]
    pub fn over(&self, candidate: &[Arc<EndpointLive>]) -> Self {
        let mut next = self.clone();
        if let Some(watched) = &mut next.rollout {
            let places = candidate.iter().enumerate();
            let places = places.map(|(at, endpoint)| watched.join(at, &endpoint.key, &self.what, self.workers));
            watched.pool = places.collect();
        }
        next
    }

    /// Whether both count the same, in the same place and step.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let step = |watch: &Self| watch.rollout.as_ref().map(|watched| watched.step);
        Arc::ptr_eq(&self.stable, &other.stable) && step(self) == step(other)
    }

    // --- for workers ---

    /// Where requests to the endpoint at `index` of the pool of `variant` are counted; `None`: nobody asks.
    #[must_use]
    pub fn counts(&self, variant: Variant, index: usize) -> Option<&Counts> {
        match variant {
            Variant::Stable => Some(&self.stable),
            Variant::Candidate => {
                let watched = self.rollout.as_ref()?;
                Some(&watched.members[*watched.pool.get(index)?].counts)
            }
        }
    }

    /// Who the endpoint at `index` of the pool of `variant` is for the gate.
    #[must_use]
    pub fn cell(&self, variant: Variant, index: usize) -> Option<gate::Cell> {
        match variant {
            Variant::Stable => Some(gate::Cell::STABLE),
            Variant::Candidate => {
                let place = *self.rollout.as_ref()?.pool.get(index)?;
                Some(gate::Cell::candidate(u16::try_from(place).ok()?))
            }
        }
    }

    /// The tick it is at `now`.
    #[must_use]
    pub fn tick(&self, now: Instant) -> Tick {
        limits::micros(now.saturating_duration_since(self.began)) / TICK_US
    }

    /// What latencies are compared with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A key was drawn to `variant`. Only its first draw counts.
    pub fn draw(&self, worker: usize, key: u64, variant: Variant) {
        if let Some(watched) = &self.rollout
            && watched.keys.insert(key)
        {
            watched.drawn[worker].0[variant as usize].add(1);
        }
    }

    /// The sessions of `variant` in this step, where an event stands for its session.
    fn sessions(&self, variant: Variant) -> Option<&Sessions> {
        let sessions = self.rollout.as_ref()?.sessions.as_ref()?;
        Some(&sessions[variant as usize])
    }

    // --- for control ---

    /// What is counted.
    #[must_use]
    pub fn what(&self) -> &What {
        &self.what
    }

    /// Latencies are compared with these from now on.
    pub fn publish(&self, thresholds: &Thresholds) {
        self.limits.publish(thresholds, &self.what);
    }

    /// Whoever asks for a glance is told this from now on.
    pub fn show(&self, glance: Glance) {
        if let Some(watched) = &self.rollout {
            watched.board.show(glance);
        }
    }

    /// What the gate thinks of the rollout that is watched.
    #[must_use]
    pub fn glance(&self) -> Option<Glance> {
        self.rollout.as_ref().map(|watched| watched.board.read())
    }

    /// Endpoints of the candidate, by their index in the gate.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        self.rollout.as_ref().map_or(&[], |watched| &watched.members)
    }

    /// Distinct candidate sessions in this step.
    #[must_use]
    pub fn candidate_sessions(&self) -> u32 {
        self.sessions(Variant::Candidate).map_or(0, Sessions::distinct)
    }

    /// Keys drawn since the rollout began, by variant.
    fn drawn(&self) -> [u64; 2] {
        let shards = self.rollout.as_ref().map_or(&[][..], |watched| &watched.drawn);
        let sum = |at: usize| shards.iter().map(|drawn| drawn.0[at].get()).fold(0, u64::wrapping_add);
        [sum(0), sum(1)]
    }
}

fn new_sessions(what: &What) -> Option<Arc<[Sessions; 2]>> {
    what.by_session.then(Arc::default)
}

// === impl Watched ===

impl Watched {
    /// The place among the members of the endpoint at `at` of the pool; new ones get the next.
    fn join(&mut self, at: usize, key: &EndpointKey, what: &What, workers: usize) -> usize {
        if let Some(place) = self.members.iter().position(|member| member.key == *key) {
            return place;
        }
        if self.members.len() >= MEMBERS_MAX {
            return at % MEMBERS_MAX;
        }
        let counts = Arc::new(Counts::new(what, workers, Depth::Ticks, what.timed_candidate));
        self.members.push(Member { key: key.clone(), counts });
        self.members.len() - 1
    }
}

#[cfg(test)]
mod tests;
