//! The published state: one value behind one atomic pointer.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::core::snapshot::{ActiveService, Snapshot};

use super::live::ServiceLive;

/// A snapshot together with the live state of its services: what a request takes once and keeps.
#[derive(Debug)]
pub struct Routing {
    /// What was decided.
    pub snapshot: Snapshot,
    /// Live state, by the index of the service in the snapshot.
    pub live: Vec<Arc<ServiceLive>>,
}

/// Writes the published state. Only control owns one.
#[derive(Debug)]
pub struct Publisher(Arc<ArcSwap<Routing>>);

/// Reads the published state.
#[derive(Clone, Debug)]
pub struct Current(Arc<ArcSwap<Routing>>);

/// Reads the published state from one thread, without touching shared memory while it does not change.
#[derive(Debug)]
pub struct CurrentCache(arc_swap::Cache<Arc<ArcSwap<Routing>>, Arc<Routing>>);

/// A publisher of `first`, and a reader.
#[must_use]
pub fn publish_first(first: Routing) -> (Publisher, Current) {
    let swap = Arc::new(ArcSwap::from_pointee(first));
    (Publisher(Arc::clone(&swap)), Current(swap))
}

// === impl Routing ===

impl Routing {
    /// The service at `index` with its live state.
    #[must_use]
    pub fn service(&self, index: usize) -> (&ActiveService, &ServiceLive) {
        (&self.snapshot.services[index], &self.live[index])
    }
}

// === impl Publisher ===

impl Publisher {
    /// Publishes `next` at once, for every request that begins from now on; what is now in force comes back.
    #[expect(clippy::must_use_candidate, reason = "publishing is the point; what comes back is a convenience")]
    pub fn publish(&self, next: Routing) -> Arc<Routing> {
        let next = Arc::new(next);
        self.0.store(Arc::clone(&next));
        next
    }
}

// === impl Current ===

impl Current {
    /// What is published now.
    #[must_use]
    pub fn load(&self) -> Arc<Routing> {
        self.0.load_full()
    }

    /// A cached reader for one thread.
    #[must_use]
    pub fn cached(&self) -> CurrentCache {
        CurrentCache(arc_swap::Cache::new(Arc::clone(&self.0)))
    }
}

// === impl CurrentCache ===

impl CurrentCache {
    /// What is published now.
    pub fn load(&mut self) -> &Arc<Routing> {
        self.0.load()
    }
}
