//! The tick: what workers counted since the last one becomes decisions about endpoints, which workers see at once.
//!
//! What to decide is [`crate::core::outlier`]; here counts are gathered and decisions carried out. No snapshot is published: standing is
//! live state, read before every attempt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::endpoint::EndpointKey;
use crate::core::id::Variant;
use crate::core::outlier::{Change, Outlier, OutlierRules, Sample, panics, tick};
use crate::state::conduct::{Ejection, Stands};
use crate::state::current::Routing;
use crate::state::live::{EndpointLive, ServiceLive};

use super::journal::{Note, What};

/// How often counters are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Events one tick may leave; the last one then says how many more there were.
const EVENTS_PER_TICK_MAX: usize = 32;

/// What is remembered from tick to tick.
pub(super) struct Ticker {
    began: Instant,
    /// The generation the pools were taken from.
    generation: u64,
    pools: Vec<Watched>,
    /// Of endpoints that get no requests, but are kept to go back to.
    resting: HashMap<EndpointKey, Outlier>,
}

/// A pool.
struct Watched {
    /// Index of its service.
    service: usize,
    variant: Variant,
    /// In the order of its endpoints, as everything below.
    keys: Vec<EndpointKey>,
    outliers: Vec<Outlier>,
    samples: Vec<Sample>,
}

// === impl Ticker ===

impl Ticker {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, generation: 0, pools: Vec::new(), resting: HashMap::new() }
    }

    /// Decides and carries out; what happened comes back.
    pub(super) fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<Note> {
        self.follow(routing);
        let mut notes = Vec::new();
        for pool in &mut self.pools {
            let (active, live) = routing.service(pool.service);
            let endpoints = live.pool(pool.variant);
            let rules = &active.service.outlier;
            pool.sample(endpoints);
            let changes = tick(&mut pool.outliers, &pool.samples, rules, now.saturating_duration_since(self.began));
            notes.extend(changes.into_iter().filter_map(|change| carry_out(change, endpoints, now)));
            if pool.variant == Variant::Stable {
                notes.extend(panic_of(live, rules));
            }
        }
        let generation = routing.snapshot.generation;
        let more = notes.len().saturating_sub(EVENTS_PER_TICK_MAX);
        if more > 0 {
            notes.truncate(EVENTS_PER_TICK_MAX);
            notes.extend(notes.last().cloned().map(|last| Note {
                service: None,
                change: None,
                detail: Some(format!("and {more} more changes to endpoints at the same time")),
                ..last
            }));
        }
        for note in &mut notes {
            note.generation = generation;
        }
        notes
    }

    /// Takes over the pools of another generation. What is known of an endpoint is kept by its identity, whatever its variant is now.
    fn follow(&mut self, routing: &Routing) {
        if self.generation == routing.snapshot.generation {
            return;
        }
        let mut known: HashMap<EndpointKey, Outlier> =
            self.pools.drain(..).flat_map(|pool| pool.keys.into_iter().zip(pool.outliers)).collect();
        known.extend(self.resting.drain());
        for (service, live) in routing.live.iter().enumerate() {
            for variant in Variant::ALL {
                let endpoints = live.pool(variant);
                let keys: Vec<EndpointKey> = endpoints.iter().map(|endpoint| endpoint.key.clone()).collect();
                let outlier = |endpoint: &Arc<EndpointLive>| {
                    known.remove(&endpoint.key).unwrap_or_else(|| {
                        endpoint.conduct.reset_standing();
                        Outlier::default()
                    })
                };
                let outliers = endpoints.iter().map(outlier).collect();
                self.pools.push(Watched { service, variant, keys, outliers, samples: Vec::new() });
            }
            let keys = live.warm.iter().map(|endpoint| endpoint.key.clone());
            self.resting.extend(keys.filter_map(|key| Some((key.clone(), known.remove(&key)?))));
        }
        self.generation = routing.snapshot.generation;
    }
}

// === impl Watched ===

impl Watched {
    /// Reads what workers counted.
    fn sample(&mut self, endpoints: &[Arc<EndpointLive>]) {
        self.samples.clear();
        self.samples.extend(endpoints.iter().map(|endpoint| {
            let (conduct, (ended, failed)) = (&endpoint.conduct, endpoint.conduct.outcomes());
            let ready = endpoint.is_ready() && !conduct.is_drained();
            Sample { ended, failed, streak: conduct.take_streak(), in_flight: endpoint.in_flight(), ready }
        }));
    }
}

/// Tells workers of a change; what people are told of it.
fn carry_out(change: Change, endpoints: &[Arc<EndpointLive>], now: Instant) -> Option<Note> {
    match change {
        Change::Ejected { endpoint, cause, lasting } => {
            let endpoint = &endpoints[endpoint];
            let (fault, at) = (endpoint.conduct.last_fault(), clock::unix_time());
            let ejection = Ejection { cause, fault, at, lasting };
            endpoint.conduct.eject(ejection);
            endpoint.ejections[cause.index()].add(1);
            Some(note(endpoint, What::EndpointEjected, &format!("ejected for {lasting:?}: {ejection}")))
        }
        Change::Trial { endpoint } => {
            endpoints[endpoint].conduct.open_trial();
            None
        }
        Change::Restored { endpoint } => {
            let endpoint = &endpoints[endpoint];
            endpoint.conduct.restore(now);
            Some(note(endpoint, What::EndpointRestored, "the request on trial was answered"))
        }
    }
}

fn note(endpoint: &EndpointLive, what: What, detail: &str) -> Note {
    let key = &endpoint.key;
    let detail = Some(format!("{} {}: {detail}", key.version, endpoint.address_text));
    let service = Some(key.service.to_string());
    Note { actor: "outliers".to_owned(), what, service, change: None, detail, generation: 0 }
}

/// Begins or ends the panic of stable. Endpoints that never passed a probe say nothing about it, and drained ones are gone on purpose.
fn panic_of(live: &ServiceLive, rules: &OutlierRules) -> Option<Note> {
    let (mut all, mut usable) = (0, 0);
    for endpoint in live.stable.iter().filter(|endpoint| endpoint.ever_passed()) {
        all += 1;
        usable += usize::from(endpoint.is_ready() && endpoint.conduct.standing() == Stands::In);
    }
    if !live.panic.set(panics(usable, all, rules.panic_threshold)) {
        return None;
    }
    let key = &live.stable.first()?.key;
    let what = if live.panic.is_on() { What::Panic } else { What::PanicOver };
    let then = if live.panic.is_on() { ": all that ever passed a probe are used" } else { "" };
    let threshold = rules.panic_threshold;
    let detail = format!("{}: {usable} of {all} endpoints are usable, panic is below {threshold}{then}", key.version);
    let service = Some(key.service.to_string());
    Some(Note { actor: "outliers".to_owned(), what, service, change: None, detail: Some(detail), generation: 0 })
}

#[cfg(test)]
mod tests;
