//! The tick: what workers counted since the last one becomes decisions about endpoints, which workers see at once.
//!
//! What to decide is [`crate::core::outlier`]; here counts are gathered and decisions carried out. No snapshot is published: standing is
//! live state, read before every attempt.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::endpoint::EndpointKey;
use crate::core::id::{Name, Variant, Version};
use crate::core::outlier::patience::Patience;
use crate::core::outlier::{Change, Outlier, OutlierRules, Sample, condemn, panics, tick};
use crate::state::conduct::{Ejection, Sparing, Stands};
use crate::state::counters::DURATION_BOUNDS_US;
use crate::state::current::Routing;
use crate::state::live::{EndpointLive, ServiceLive};

use super::journal::{Note, What};

/// How often counters are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// How often it is looked how long answers take.
const MEASURE: Duration = Duration::from_secs(1);
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
    /// When it was looked last how long answers take.
    measured: Instant,
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
    patience: Patience,
}

// === impl Ticker ===

impl Ticker {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, generation: 0, pools: Vec::new(), resting: HashMap::new(), measured: began }
    }

    /// Decides and carries out; what happened comes back.
    pub(super) fn tick(&mut self, routing: &Routing, now: Instant) -> Vec<Note> {
        self.follow(routing);
        let mut notes = Vec::new();
        let measure = now.saturating_duration_since(self.measured) >= MEASURE;
        if measure {
            self.measured = now;
        }
        for pool in &mut self.pools {
            let (active, live) = routing.service(pool.service);
            let endpoints = live.pool(pool.variant);
            let rules = &active.service.outlier;
            if measure {
                pool.measure(endpoints);
            }
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

    /// Leaves an endpoint of the candidate alone that the gate blames, within the same bounds; what happened comes back.
    pub(super) fn eject(&mut self, routing: &Routing, key: &EndpointKey, now: Instant) -> Option<Note> {
        self.follow(routing);
        let blamed = |pool: &&mut Watched| pool.variant == Variant::Candidate && pool.keys.contains(key);
        let pool = self.pools.iter_mut().find(blamed)?;
        let (active, live) = routing.service(pool.service);
        let (endpoints, rules) = (live.pool(pool.variant), &active.service.outlier);
        let endpoint = pool.keys.iter().position(|known| known == key)?;
        // As sampled by the tick before.
        let at = now.saturating_duration_since(self.began);
        let change = condemn(&mut pool.outliers, &pool.samples, rules, endpoint, at)?;
        let note = carry_out(change, endpoints, now)?;
        Some(Note { actor: "gate".to_owned(), generation: routing.snapshot.generation, ..note })
    }

    /// Takes over the pools of another generation. What is known of an endpoint is kept by its identity, whatever its variant is now.
    fn follow(&mut self, routing: &Routing) {
        if self.generation == routing.snapshot.generation {
            return;
        }
        let mut known: HashMap<EndpointKey, Outlier> = self.resting.drain().collect();
        let mut patience: HashMap<(Name, Version), Patience> = HashMap::new();
        for pool in self.pools.drain(..) {
            if let Some(key) = pool.keys.first() {
                patience.insert((key.service.clone(), key.version.clone()), pool.patience);
            }
            known.extend(pool.keys.into_iter().zip(pool.outliers));
        }
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
                let version = keys.first().map(|key| (key.service.clone(), key.version.clone()));
                let patience = version.and_then(|version| patience.remove(&version)).unwrap_or_default();
                self.pools.push(Watched { service, variant, keys, outliers, samples: Vec::new(), patience });
            }
            let keys = live.warm.iter().map(|endpoint| endpoint.key.clone());
            self.resting.extend(keys.filter_map(|key| Some((key.clone(), known.remove(&key)?))));
        }
        self.generation = routing.snapshot.generation;
    }
}

// === impl Watched ===

impl Watched {
    /// Looks how long answers took lately.
    fn measure(&mut self, endpoints: &[Arc<EndpointLive>]) {
        let Some(first) = endpoints.first() else { return };
        let of_bucket = |bucket: usize| -> u64 {
            endpoints.iter().map(|e| e.counters.sum(|shard| shard.upstream.buckets[bucket].get())).sum()
        };
        let counts: [u64; DURATION_BOUNDS_US.len() + 1] = std::array::from_fn(of_bucket);
        first.pool.set_patience(self.patience.observe(&counts, &DURATION_BOUNDS_US));
    }

    /// Reads what workers counted.
    fn sample(&mut self, endpoints: &[Arc<EndpointLive>]) {
        self.samples.clear();
        self.samples.extend(endpoints.iter().map(|endpoint| {
            let (conduct, (ended, failed)) = (&endpoint.conduct, endpoint.conduct.outcomes());
            let ready = endpoint.is_ready() && !conduct.is_drained();
            Sample { ended, failed, streak: conduct.take_streak(), ready }
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
        Change::Spared { endpoint, cause, bound } => {
            let endpoint = &endpoints[endpoint];
            let (fault, at) = (endpoint.conduct.last_fault(), clock::unix_time());
            let sparing = Sparing { cause, fault, bound, at };
            endpoint.conduct.spare(Some(sparing));
            endpoint.spared[bound as usize].add(1);
            Some(note(endpoint, What::EndpointSpared, &sparing.to_string()))
        }
        Change::Cleared { endpoint } => {
            endpoints[endpoint].conduct.spare(None);
            None
        }
    }
}

fn note(endpoint: &EndpointLive, what: What, detail: &str) -> Note {
    let key = &endpoint.key;
    let detail = Some(format!("{} {}: {detail}", key.version, endpoint.address_text));
    let service = Some(key.service.to_string());
    Note { actor: "outliers".to_owned(), what, service, change: None, detail, generation: 0 }
}

/// Begins or ends the panic of stable. Endpoints that never passed a probe say nothing about it, and drained ones are gone on purpose. One
/// that fails and is only kept because somebody has to be is not usable.
fn panic_of(live: &ServiceLive, rules: &OutlierRules) -> Option<Note> {
    let (mut all, mut usable) = (0, 0);
    for endpoint in live.stable.iter().filter(|endpoint| endpoint.ever_passed()) {
        all += 1;
        let conduct = &endpoint.conduct;
        let works = conduct.standing() == Stands::In && conduct.sparing().is_none();
        usable += usize::from(endpoint.is_ready() && works);
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
