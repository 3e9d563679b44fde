//! The live state of one pool, a variant of a service, over all workers: how much of it is busy, and who waits for a connection.
//!
//! No lock: every number is an atomic, and taking one more of something is a single compare-and-swap, so limits hold exactly whatever
//! the workers do at the same time.
//!
//! Requests that wait are queued by their worker, first come first served; which worker is next takes turns. Nobody is forgotten: who
//! waits is counted *before* it looks for a free connection once more, and a connection is given back *before* it is looked who waits (both
//! sequentially consistent), so one of the two sees the other. Whoever gives back rings the bell of one worker that waits; that worker serves
//! its queue and rings on when something is left. Each worker looks at its queues at every sweep as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::core::circuit::{Limit, PoolLimits};
use crate::core::outlier::patience::PATIENCE_UNKNOWN;

/// The bells of all workers, by index. A bell that was rung while nobody listened is heard later.
pub type Bells = Arc<[Notify]>;

/// The live state of one pool.
#[derive(Debug)]
pub struct PoolLive {
    connections: AtomicU32,
    requests: AtomicU32,
    pending: AtomicU32,
    /// Requests that wait for a connection, per worker.
    waiting: Box<[AtomicU32]>,
    /// Whose turn it is to be served.
    turn: AtomicU32,
    overflows: [AtomicU64; Limit::ALL.len()],
    /// Milliseconds a client has to have waited before its leaving speaks against the endpoint; written by control only.
    patience: AtomicU64,
    /// The first generation whose requests may begin here: see `ServiceLive::is_shut`, which holds it too. Apart from the rest, which every
    /// request writes to.
    pub(super) shut: Arc<AtomicU64>,
    bells: Bells,
}

/// One connection to an endpoint of a pool; it counts until it is dropped.
#[derive(Debug)]
pub struct Connection(Arc<PoolLive>);

/// One request that waits for a connection of a pool; it counts until it is dropped.
#[derive(Debug)]
pub struct Pending {
    pool: Arc<PoolLive>,
    worker: usize,
}

// === impl PoolLive ===

impl PoolLive {
    /// Nothing is busy; one bell per worker.
    #[must_use]
    pub fn new(bells: &Bells) -> Self {
        Self {
            connections: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            waiting: bells.iter().map(|_| AtomicU32::new(0)).collect(),
            turn: AtomicU32::new(0),
            overflows: Default::default(),
            patience: AtomicU64::new(millis(PATIENCE_UNKNOWN)),
            shut: Arc::default(),
            bells: Arc::clone(bells),
        }
    }

    /// How much of what is limited is in use.
    #[must_use]
    pub fn used(&self, limit: Limit) -> u32 {
        self.cell(limit).load(Ordering::Relaxed)
    }

    /// Requests that were refused at `limit`.
    #[must_use]
    pub fn overflows(&self, limit: Limit) -> u64 {
        self.overflows[limit as usize].load(Ordering::Relaxed)
    }

    /// Notes that a request was refused at `limit`.
    pub fn overflowed(&self, limit: Limit) {
        self.overflows[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How long a client has to have waited for a response head before its leaving speaks against the endpoint. One relaxed load.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }

    /// Sets it; `None`: however long, it says nothing.
    pub fn set_patience(&self, patience: Option<Duration>) {
        self.patience.store(patience.map_or(u64::MAX, millis), Ordering::Relaxed);
    }

    /// One more connection, unless there are as many as there may be.
    #[must_use]
    pub fn connect(self: &Arc<Self>, limits: &PoolLimits) -> Option<Connection> {
        self.take(Limit::Connections, limits).then(|| Connection(Arc::clone(self)))
    }

    /// One more request that waits on `worker`, unless there are as many as there may be; the other workers are asked to close idle
    /// connections.
    #[must_use]
    pub fn wait(self: &Arc<Self>, worker: usize, limits: &PoolLimits) -> Option<Pending> {
        if !self.take(Limit::Pending, limits) {
            return None;
        }
        self.waiting[worker].fetch_add(1, Ordering::SeqCst);
        let others = self.bells.iter().enumerate().filter(|(other, _)| *other != worker);
        others.for_each(|(_, bell)| bell.notify_one());
        Some(Pending { pool: Arc::clone(self), worker })
    }

    /// Whether any worker has requests that wait. One relaxed load.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// How many requests wait on workers other than `worker`.
    #[must_use]
    pub fn waiting_elsewhere(&self, worker: usize) -> u32 {
        let others = self.waiting.iter().enumerate().filter(|(other, _)| *other != worker);
        others.map(|(_, waiting)| waiting.load(Ordering::SeqCst)).sum()
    }

    /// Rings the bell of a worker other than `except` whose requests wait, a different one each time.
    pub fn ring(&self, except: Option<usize>) {
        let workers = self.waiting.len();
        let from = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let mut next = (0..workers).map(|i| (from + i) % workers).filter(|worker| Some(*worker) != except);
        if let Some(worker) = next.find(|worker| self.waiting[*worker].load(Ordering::SeqCst) > 0) {
            self.bells[worker].notify_one();
        }
    }

    /// Begins a request unless there are as many as there may be; [`PoolLive::ended`] ends it.
    #[must_use]
    pub(super) fn begin(&self, limits: &PoolLimits) -> bool {
        self.take(Limit::Requests, limits)
    }

    /// A request is over.
    pub(super) fn ended(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    fn cell(&self, limit: Limit) -> &AtomicU32 {
        match limit {
            Limit::Connections => &self.connections,
            Limit::Pending => &self.pending,
            Limit::Requests => &self.requests,
        }
    }

    fn take(&self, limit: Limit, limits: &PoolLimits) -> bool {
        let max = limits.of(limit);
        let more = |used: u32| (used < max).then(|| used + 1);
        self.cell(limit).fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl Connection ===

impl Connection {
    /// Whether it belongs to `pool`.
    #[must_use]
    pub fn is_of(&self, pool: &Arc<PoolLive>) -> bool {
        Arc::ptr_eq(&self.0, pool)
    }

    /// The pool it belongs to.
    #[must_use]
    pub fn pool(&self) -> &Arc<PoolLive> {
        &self.0
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        if self.0.pending.load(Ordering::SeqCst) > 0 {
            self.0.ring(None);
        }
    }
}

// === impl Pending ===

impl Drop for Pending {
    fn drop(&mut self) {
        self.pool.waiting[self.worker].fetch_sub(1, Ordering::SeqCst);
        self.pool.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: PoolLimits = PoolLimits { max_connections: 3, max_pending: 2, max_requests: 5 };

    fn pool(workers: usize) -> Arc<PoolLive> {
        Arc::new(PoolLive::new(&(0..workers).map(|_| Notify::new()).collect()))
    }

    async fn rang(pool: &PoolLive, worker: usize) -> bool {
        tokio::time::timeout(Duration::from_millis(5), pool.bells[worker].notified()).await.is_ok()
    }

    #[test]
    fn no_more_than_the_limit_is_taken_whatever_threads_do_at_the_same_time() {
        let pool = pool(2);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let (connection, request) = (pool.connect(&LIMITS), pool.begin(&LIMITS));
                        most.fetch_max(pool.used(Limit::Connections), Ordering::Relaxed);
                        assert!(pool.used(Limit::Connections) <= 3 && pool.used(Limit::Requests) <= 5);
                        if request {
                            pool.ended();
                        }
                        drop(connection);
                    }
                });
            }
        });
        assert_eq!(Limit::ALL.map(|limit| pool.used(limit)), [0; 3], "everything was given back");
        assert!(most.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn limits_hold_and_what_is_given_back_can_be_taken_again() {
        let pool = pool(1);
        let mut held: Vec<_> = (0..3).map(|_| pool.connect(&LIMITS).expect("below the limit")).collect();
        assert!(pool.connect(&LIMITS).is_none() && held[0].is_of(&pool));
        held.pop();
        assert!(pool.connect(&LIMITS).is_some());
        let waiting: Vec<_> = (0..2).map(|_| pool.wait(0, &LIMITS).expect("below the limit")).collect();
        assert!(pool.wait(0, &LIMITS).is_none() && pool.is_waited_for());
        drop(waiting);
        assert!(!pool.is_waited_for());
        pool.overflowed(Limit::Pending);
        assert_eq!(Limit::ALL.map(|limit| pool.overflows(limit)), [0, 1, 0]);
    }

    #[tokio::test]
    async fn a_connection_given_back_rings_for_one_worker_that_waits() {
        let pool = pool(3);
        let (one, two) = (pool.connect(&LIMITS), pool.connect(&LIMITS));
        let at_two = pool.wait(2, &LIMITS);
        assert_eq!((rang(&pool, 0).await, rang(&pool, 1).await), (true, true), "asked for idle connections");
        assert_eq!((pool.waiting_elsewhere(0), pool.waiting_elsewhere(2)), (1, 0));
        drop(one);
        assert_eq!((rang(&pool, 0).await, rang(&pool, 1).await, rang(&pool, 2).await), (false, false, true));
        let at_zero = pool.wait(0, &LIMITS);
        assert_eq!((rang(&pool, 1).await, rang(&pool, 2).await), (true, true));
        pool.ring(None);
        pool.ring(None);
        pool.ring(None);
        assert_eq!((rang(&pool, 0).await, rang(&pool, 2).await), (true, true), "they take turns");
        pool.ring(Some(2));
        assert_eq!((rang(&pool, 0).await, rang(&pool, 2).await), (true, false), "passed on");
        drop((at_two, at_zero, two));
        assert!(!rang(&pool, 0).await && !rang(&pool, 2).await, "nobody waits");
    }
}
