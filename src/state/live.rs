//! What changes with every request and is shared by all workers: in flight, openness, removal.

mod kept;
mod resolve;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::core::endpoint::{Endpoint, EndpointKey, Pool};
use crate::core::health::{Probe, Readiness};
use crate::core::id::{Name, Variant, Version};
use crate::core::outlier::Cause;
use crate::core::snapshot::{ActiveService, Snapshot};

use super::conduct::Conduct;
use super::counters::{Cell, EndpointCounters};
use super::health::{EndpointHealth, ProbeCounters};
use super::layout::Layout;
use super::pool::{Bells, PoolLive};
use super::sensors::Watch;

mod in_flight;

pub use in_flight::InFlight;

use resolve::{Parts, WARM};

/// Live state of one endpoint, kept by its key through reloads.
#[derive(Debug)]
pub struct EndpointLive {
    /// What it is.
    pub key: EndpointKey,
    /// What `Host` says when it is to be the endpoint's address.
    pub address_text: Box<str>,
    /// Never used again within the process: idle connections are kept by it. The same in both variants.
    pub slot: u64,
    /// Which variant it serves here; labels its metrics.
    pub variant: Variant,
    /// Its counters.
    pub counters: Arc<EndpointCounters>,
    /// What its probes found out; shared with the same endpoint in the other variant, before and after a promotion.
    pub health: Arc<EndpointHealth>,
    /// What its probes counted while it served this variant.
    pub probes: ProbeCounters,
    /// How it fares with its own requests; shared like its health.
    pub conduct: Arc<Conduct>,
    /// Ejections while it served this variant, by index of their cause; written by control only.
    pub ejections: [Cell; Cause::WORDS.len()],
    /// Ejections it was spared while it served this variant, by [`crate::core::outlier::Bound`]; written by control only.
    pub spared: [Cell; 2],
    /// The pool it is in, shared with every endpoint of the same service and version.
    pub pool: Arc<PoolLive>,
    identity: Arc<Identity>,
}

/// What stays with an endpoint through a change of roles: it is the same one as stable and as candidate.
#[derive(Debug)]
struct Identity {
    slot: u64,
    in_flight: AtomicU32,
    /// Milliseconds since the registry began, plus one, at which it left the snapshot; zero while it is in.
    removed_at: AtomicU64,
    /// The variant it was published in last, as an index.
    role: AtomicU8,
}

/// Live state of one service. A copy shares everything with it, the switch of the candidate included.
#[derive(Clone, Debug)]
pub struct ServiceLive {
    /// The rollout `candidate_open` belongs to.
    pub rollout: u64,
    /// Whether the candidate may receive requests. An abort clears it before anything else happens, and it is never set again: a
    /// candidate that is tried once more gets a rollout and a switch of its own. Every snapshot of one rollout shares the switch, so
    /// a request that began before a reload still sees an abort that came after it.
    pub candidate_open: Arc<AtomicBool>,
    /// A small number no other service has at the same time: workers keep what is theirs of a service by it.
    pub number: usize,
    /// Whose turn it is in round robin, per variant; shared like the switch.
    turns: Arc<[AtomicU64; 2]>,
    /// Whether so few endpoints of stable are usable that all that ever passed a probe are used.
    pub panic: Arc<Panic>,
    /// Of stable, of the candidate, of the stable before.
    layouts: [Arc<Layout>; 3],
    /// Per variant: see [`ServiceLive::is_shut`]. Shared by all that has to do with its version.
    shut: [Arc<AtomicU64>; 2],
    /// What is counted for the gate; `None`: nothing.
    pub watch: Option<Arc<Watch>>,
    /// Endpoints of stable, in the order of its pool, then those that left the pool but stay until one of it is ready.
    pub stable: Vec<Arc<EndpointLive>>,
    /// Endpoints of the candidate, likewise.
    pub candidate: Vec<Arc<EndpointLive>>,
    /// Endpoints of the stable before, as long as it is kept to go back to: connected and probed, without new requests.
    pub warm: Vec<Arc<EndpointLive>>,
    /// How many of the last endpoints of each variant left its pool and stay for now.
    kept: [usize; 2],
    /// The version of the candidate, also while nobody knows where it runs.
    candidate_version: Option<Version>,
}

/// Panic of a stable pool, kept for as long as its service is there. Written by control only.
#[derive(Debug, Default)]
pub struct Panic {
    on: AtomicBool,
    /// Times it began.
    pub began: Cell,
}

/// Keeps endpoint state by key. Written by control only.
#[derive(Debug)]
pub struct Registry {
    began: Instant,
    workers: usize,
    bells: Bells,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_slot: u64,
    endpoints: HashMap<(EndpointKey, Variant), Arc<EndpointLive>>,
    pools: HashMap<(Name, Version), Arc<PoolLive>>,
    /// The number of every service, and those that are free below the highest.
    numbers: HashMap<Name, usize>,
    free_numbers: Vec<usize>,
}

// === impl EndpointLive ===

impl EndpointLive {
    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.identity.in_flight.load(Ordering::Relaxed)
    }

    /// Whether this is the variant it was published in last. Before and after a promotion it is one endpoint with counters for each role.
    #[must_use]
    pub fn is_in_role(&self) -> bool {
        self.identity.role.load(Ordering::Relaxed) == self.variant as u8
    }

    /// Whether requests may go there: its last probes passed. One relaxed load.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health.is_ready()
    }

    /// Whether a request may be sent there: it is ready, and neither ejected nor drained; one on trial takes a single request.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_ready() && self.conduct.is_open()
    }

    /// Whether it may be used in panic: it passed a probe once and is not drained.
    #[must_use]
    pub fn ever_passed(&self) -> bool {
        matches!(self.health.readiness(), Readiness::Ready | Readiness::Lost) && !self.conduct.is_drained()
    }

    /// Whether it takes no new requests for good: it left the snapshot, or was drained.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.is_removed() || self.conduct.is_drained()
    }

    /// Whether it left the snapshot.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.identity.removed_at.load(Ordering::Acquire) != 0
    }
}

// === impl ServiceLive ===

impl ServiceLive {
    /// Whether the candidate may receive requests.
    #[must_use]
    pub fn is_candidate_open(&self) -> bool {
        self.candidate_open.load(Ordering::Acquire)
    }

    /// The next turn in round robin.
    #[must_use]
    pub fn turn(&self, variant: Variant) -> u64 {
        self.turns[variant as usize].fetch_add(1, Ordering::Relaxed)
    }

    /// Shuts the candidate out for the rest of the rollout; safe from any thread, idempotent.
    pub fn close_candidate(&self) {
        self.candidate_open.store(false, Ordering::Release);
    }

    /// Whether no attempt may begin on `variant` by a snapshot of `generation`: its version was taken out of service by a later one, and not
    /// because of a better one. One acquire load.
    #[must_use]
    pub fn is_shut(&self, variant: Variant, generation: u64) -> bool {
        generation < self.shut[variant as usize].load(Ordering::Acquire)
    }

    /// The endpoint of `variant` at `index`; behind those of stable come those of the stable before.
    #[must_use]
    pub fn endpoint(&self, variant: Variant, index: usize) -> Option<&Arc<EndpointLive>> {
        let pool = self.pool(variant);
        let warm = || self.warm.get(index - pool.len()).filter(|_| variant == Variant::Stable);
        pool.get(index).or_else(warm)
    }

    /// Every endpoint that is connected and probed.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointLive>> {
        self.stable.iter().chain(&self.candidate).chain(&self.warm)
    }

    /// The same, counted by `watch`.
    #[must_use]
    pub fn watched(&self, watch: &Watch) -> Self {
        Self { watch: Some(Arc::new(watch.over(&self.candidate))), ..self.clone() }
    }

    /// The place of an endpoint of `variant` that was ready once and is not any more, or is ejected: only then a pool nobody of which can be
    /// used is anyone's fault. Drained ones are nobody's.
    #[must_use]
    pub fn at_fault(&self, variant: Variant) -> Option<usize> {
        let ejected = |endpoint: &EndpointLive| endpoint.is_ready() && !endpoint.conduct.is_in();
        let failed = |endpoint: &EndpointLive| endpoint.health.readiness() == Readiness::Lost || ejected(endpoint);
        self.pool(variant).iter().position(|endpoint| !endpoint.conduct.is_drained() && failed(endpoint))
    }

    /// How many endpoints of `variant`, the last ones, left its pool and stay until others take requests.
    #[must_use]
    pub fn kept(&self, variant: Variant) -> usize {
        self.kept[variant as usize]
    }

    /// Weights and ring of the stable before.
    #[must_use]
    pub fn warm_layout(&self) -> &Layout {
        &self.layouts[WARM]
    }

    /// Weights and ring of the pool of `variant`.
    #[must_use]
    pub fn layout(&self, variant: Variant) -> &Layout {
        &self.layouts[variant as usize]
    }

    /// What the gate's metric `probe-failures` counts for `variant`: deep probes, and how many of them failed.
    #[must_use]
    pub fn probe_failures(&self, variant: Variant) -> (u64, u64) {
        let results = self.pool(variant).iter().map(|endpoint| endpoint.probes.results(Probe::Deep));
        results.fold((0, 0), |(all, bad), (passed, failed)| (all + passed + failed, bad + failed))
    }

    /// Endpoints of `variant`.
    #[must_use]
    pub fn pool(&self, variant: Variant) -> &[Arc<EndpointLive>] {
        match variant {
            Variant::Stable => &self.stable,
            Variant::Candidate => &self.candidate,
        }
    }
}

// === impl Panic ===

impl Panic {
    /// Whether it is on. One relaxed load.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Begins or ends it. Whether that is a change.
    #[must_use]
    pub fn set(&self, on: bool) -> bool {
        let changed = self.on.swap(on, Ordering::Relaxed) != on;
        self.began.add(u64::from(changed && on));
        changed
    }
}

// === impl Registry ===

impl Registry {
    /// A registry for `workers` workers that began at `began`.
    #[must_use]
    pub fn new(workers: usize, began: Instant) -> Self {
        let bells = (0..workers.max(1)).map(|_| Notify::new()).collect();
        Self { began, workers, bells, inner: Mutex::new(Inner::default()) }
    }

    /// What wakes each worker for requests that wait for a connection.
    #[must_use]
    pub fn bells(&self) -> &Bells {
        &self.bells
    }

    /// Resolves the live state of every service in `snapshot`, in its order. `previous` are the services before: while rollout and
    /// candidate version stay the same, the switch of the candidate stays the same too, whatever happens to the endpoints.
    pub fn resolve(&self, snapshot: &Snapshot, previous: &HashMap<Name, Arc<ServiceLive>>) -> Vec<Arc<ServiceLive>> {
        let services = snapshot.services.iter();
        services.map(|active| self.resolve_one(active, previous.get(&active.service.name))).collect()
    }

    /// Resolves the live state of one service, as [`Self::resolve`] does.
    pub fn resolve_one(&self, active: &ActiveService, before: Option<&Arc<ServiceLive>>) -> Arc<ServiceLive> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, of_all) = (&active.service.name, (self.workers, self.began));
        let mut endpoints = |pool: Option<&Arc<Pool>>, variant| {
            let pool = pool.into_iter().flat_map(|pool| pool.endpoints.iter().map(move |endpoint| (pool, endpoint)));
            let key = |(pool, endpoint): (&Arc<Pool>, &Endpoint)| EndpointKey {
                service: name.clone(),
                version: pool.version.clone(),
                address: endpoint.address.clone(),
            };
            pool.map(key).map(|key| inner.endpoint(key, variant, of_all, &self.bells)).collect::<Vec<_>>()
        };
        let warm = endpoints(active.warm.as_ref(), Variant::Stable);
        let mut pools = Variant::ALL.map(|variant| endpoints(active.pool(variant), variant));
        let kept = Variant::ALL.map(|variant| {
            let pool = &mut pools[variant as usize];
            let left = kept::that_left(active, variant, pool, before);
            let count = left.len();
            pool.extend(left.into_iter().map(|key| inner.endpoint(key, variant, of_all, &self.bells)));
            count
        });
        let shut = |variant| active.version(variant).map(|version| inner.shut(name, version, &self.bells));
        let shut = Variant::ALL.map(shut).map(Option::unwrap_or_default);
        let number = inner.number(name);
        Parts { number, pools, warm, kept, shut }.live_of(active, before)
    }

    /// No attempt begins on `version` of `service` any more by snapshots before `generation`, in whatever role they have it. Those from it
    /// on are as free as they say. Idempotent, from any thread.
    pub fn shut(&self, service: &Name, version: &Version, generation: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.shut(service, version, &self.bells).fetch_max(generation, Ordering::AcqRel);
    }

    /// Marks endpoints that are in no service of `current` as removed at `now`, and forgets those nobody uses any more.
    pub fn sweep(&self, current: &[Arc<ServiceLive>], now: Instant) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: std::collections::HashSet<u64> =
            current.iter().flat_map(|service| service.endpoints()).map(|endpoint| endpoint.slot).collect();
        let at = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX - 1) + 1;
        for endpoint in inner.endpoints.values().filter(|e| !kept.contains(&e.slot) && !e.is_removed()) {
            endpoint.identity.removed_at.store(at, Ordering::Release);
        }
        inner.endpoints.retain(|_, e| !e.is_removed() || Arc::strong_count(e) > 1);
        // Connections hold their pool, so what comes back while some are left finds them counted.
        inner.pools.retain(|_, pool| Arc::strong_count(pool) > 1 || Arc::strong_count(&pool.shut) > 1);
        inner.forget_numbers();
    }

    /// When `endpoint` left the snapshot, or was drained.
    #[must_use]
    pub fn leaving_at(&self, endpoint: &EndpointLive) -> Option<Instant> {
        let removed = match endpoint.identity.removed_at.load(Ordering::Acquire) {
            0 => None,
            at => Some(self.began + Duration::from_millis(at - 1)),
        };
        [removed, endpoint.conduct.drained_at()].into_iter().flatten().min()
    }

    /// Every endpoint known, removed ones in use included.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<EndpointLive>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.endpoints.values().cloned().collect()
    }
}

// === impl Inner ===

impl Inner {
    /// A number no other service has, as small as there is one.
    fn number(&mut self, service: &Name) -> usize {
        if let Some(number) = self.numbers.get(service) {
            return *number;
        }
        let free = self.free_numbers.pop().unwrap_or(self.numbers.len());
        self.numbers.insert(service.clone(), free);
        free
    }

    /// Takes back the numbers of services without endpoints.
    fn forget_numbers(&mut self) {
        let used: std::collections::HashSet<&Name> = self.endpoints.keys().map(|(key, _)| &key.service).collect();
        let (numbers, free) = (&mut self.numbers, &mut self.free_numbers);
        numbers.retain(|service, number| {
            let keep = used.contains(service);
            free.extend((!keep).then_some(*number));
            keep
        });
    }

    fn pool(&mut self, service: &Name, version: &Version, bells: &Bells) -> Arc<PoolLive> {
        let pool = self.pools.entry((service.clone(), version.clone()));
        Arc::clone(pool.or_insert_with(|| Arc::new(PoolLive::new(bells))))
    }

    fn shut(&mut self, service: &Name, version: &Version, bells: &Bells) -> Arc<AtomicU64> {
        Arc::clone(&self.pool(service, version, bells).shut)
    }

    fn endpoint(
        &mut self,
        key: EndpointKey,
        variant: Variant,
        (workers, began): (usize, Instant),
        bells: &Bells,
    ) -> Arc<EndpointLive> {
        let pool = self.pool(&key.service, &key.version, bells);
        let other = self.endpoints.get(&(key.clone(), variant.other()));
        let health = other.map_or_else(Arc::default, |other| Arc::clone(&other.health));
        let conduct = other.map_or_else(|| Arc::new(Conduct::new(workers, began)), |other| Arc::clone(&other.conduct));
        let identity = other.map(|other| Arc::clone(&other.identity));
        let entry = self.endpoints.entry((key.clone(), variant));
        let endpoint = entry.or_insert_with(|| {
            let identity = identity.unwrap_or_else(|| {
                self.next_slot += 1;
                Arc::new(Identity::new(self.next_slot))
            });
            Arc::new(EndpointLive {
                address_text: key.address.authority().into_boxed_str(),
                key,
                slot: identity.slot,
                variant,
                counters: Arc::new(EndpointCounters::new(workers)),
                health,
                probes: ProbeCounters::default(),
                conduct,
                ejections: Default::default(),
                spared: Default::default(),
                pool,
                identity,
            })
        });
        endpoint.identity.role.store(variant as u8, Ordering::Relaxed);
        // Back before its last user let go: the same endpoint, in service again. Meanwhile nobody has asked it how it is.
        if endpoint.identity.removed_at.swap(0, Ordering::AcqRel) != 0 {
            endpoint.health.set_readiness(Readiness::Unknown);
            endpoint.conduct.forget_drain();
        }
        Arc::clone(endpoint)
    }
}

// === impl Identity ===

impl Identity {
    fn new(slot: u64) -> Self {
        Self { slot, in_flight: AtomicU32::new(0), removed_at: AtomicU64::new(0), role: AtomicU8::new(0) }
    }
}

#[cfg(test)]
mod tests;
