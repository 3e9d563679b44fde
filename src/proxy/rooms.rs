//! Requests of one worker that wait because their pool has as many connections as it may have: first come, first served.
//!
//! What is freed anywhere rings the bell of a worker that waits ([`crate::state::pool`]); the worker hands it to the request at the front of
//! its queue, so that one is woken and not all. A connection given back on this worker goes to the request at the front at once if it leads
//! where that one wants to go.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::core::circuit::{Limit, PoolLimits};
use crate::state::live::EndpointLive;
use crate::state::pool::{Connection, Pending, PoolLive};

use super::idle::Link;

/// The queues of one worker, a queue per pool. As long as their requests together, which the pools limit.
#[derive(Default)]
pub struct Rooms {
    queues: RefCell<Vec<Queue>>,
}

/// Those that wait for one pool.
struct Queue {
    pool: Arc<PoolLive>,
    waiters: VecDeque<Rc<Waiter>>,
}

/// What a request gets at the end of its wait.
pub enum Grant {
    /// It may open a connection.
    Room(Connection),
    /// An open one.
    Link(Link),
}

struct Waiter {
    limits: PoolLimits,
    /// Slot of the endpoint and dial tag; `None` where open connections are shared.
    wants: Option<(u64, u64)>,
    grant: Cell<Option<Grant>>,
    waker: RefCell<Option<Waker>>,
}

/// One request's place in a queue; it leaves when this is dropped, and what it was granted goes on to the next.
pub struct Place<'a> {
    rooms: &'a Rooms,
    waiter: Rc<Waiter>,
    pool: Arc<PoolLive>,
    _pending: Pending,
}

// === impl Rooms ===

impl Rooms {
    /// A connection at once, unless there are as many as there may be or others wait already.
    #[must_use]
    pub fn take(endpoint: &EndpointLive, limits: &PoolLimits) -> Option<Connection> {
        if endpoint.pool.is_waited_for() { None } else { endpoint.pool.connect(limits) }
    }

    /// A place in the queue of `worker` for a connection to `endpoint`, opened as `dial_tag` says if it is to be used alone. `None`: as many
    /// wait as may.
    #[must_use]
    pub fn queue(
        &self,
        worker: usize,
        endpoint: &EndpointLive,
        limits: &PoolLimits,
        dial_tag: Option<u64>,
    ) -> Option<Place<'_>> {
        let pool = &endpoint.pool;
        let Some(pending) = pool.wait(worker, limits) else {
            pool.overflowed(Limit::Pending);
            return None;
        };
        let wants = dial_tag.map(|tag| (endpoint.slot, tag));
        let waiter = Rc::new(Waiter { limits: *limits, wants, grant: Cell::new(None), waker: RefCell::default() });
        let mut queues = self.queues.borrow_mut();
        let at = queues.iter().position(|queue| Arc::ptr_eq(&queue.pool, pool)).unwrap_or_else(|| {
            queues.push(Queue { pool: Arc::clone(pool), waiters: VecDeque::new() });
            queues.len() - 1
        });
        queues[at].waiters.push_back(Rc::clone(&waiter));
        // From here on it is seen to wait, so what was free until now has to be looked for once more.
        queues[at].serve();
        drop(queues);
        Some(Place { rooms: self, waiter, pool: Arc::clone(pool), _pending: pending })
    }

    /// Gives what is free to those that wait, and rings on what is left to a worker other than `worker`.
    pub fn serve(&self, worker: usize) {
        for queue in &mut *self.queues.borrow_mut() {
            queue.serve();
            if queue.waiters.is_empty() && queue.pool.waiting_elsewhere(worker) > 0 {
                queue.pool.ring(Some(worker));
            }
        }
    }

    /// Forgets queues nobody waits in.
    pub fn sweep(&self) {
        self.queues.borrow_mut().retain(|queue| !queue.waiters.is_empty());
    }

    /// Gives `link` to `endpoint` to whoever waits at the front for one like it. Otherwise it comes back.
    #[must_use]
    pub fn offer(&self, endpoint: &EndpointLive, link: Link) -> Option<Link> {
        let mut queues = self.queues.borrow_mut();
        let wants = Some((endpoint.slot, link.dial_tag));
        let queue = queues.iter_mut().find(|queue| Arc::ptr_eq(&queue.pool, &endpoint.pool));
        let Some(queue) = queue.filter(|queue| queue.waiters.front().is_some_and(|front| front.wants == wants)) else {
            return Some(link);
        };
        let Some(waiter) = queue.waiters.pop_front() else { return Some(link) };
        waiter.give(Grant::Link(link));
        None
    }
}

// === impl Queue ===

impl Queue {
    fn serve(&mut self) {
        while let Some(front) = self.waiters.front()
            && let Some(connection) = self.pool.connect(&front.limits)
            && let Some(waiter) = self.waiters.pop_front()
        {
            waiter.give(Grant::Room(connection));
        }
    }
}

// === impl Waiter ===

impl Waiter {
    fn give(&self, grant: Grant) {
        self.grant.set(Some(grant));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Place ===

impl Place<'_> {
    /// Ready with what it was granted.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Grant> {
        if let Some(grant) = self.waiter.grant.take() {
            return Poll::Ready(grant);
        }
        let mut waker = self.waiter.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.rooms.queues.borrow_mut();
        if let Some(queue) = queues.iter_mut().find(|queue| Arc::ptr_eq(&queue.pool, &self.pool)) {
            queue.waiters.retain(|waiter| !Rc::ptr_eq(waiter, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::core::snapshot::Running;
    use crate::proxy::io::Stream;
    use crate::state::fixture::{service, snapshot};
    use crate::state::live::Registry;

    const LIMITS: PoolLimits = PoolLimits { max_connections: 1, max_pending: 3, max_requests: 9 };
    const TAG: Option<u64> = Some(0);

    /// Two endpoints of one pool, for two workers.
    fn endpoints() -> (Registry, Vec<Arc<EndpointLive>>) {
        let registry = Registry::new(2, clock::now());
        let live = registry.resolve(
            &snapshot(vec![(service("web", 2, None), Running::idle(0))]),
            &std::collections::HashMap::default(),
        );
        (registry, live[0].stable.clone())
    }

    fn granted(place: &Place<'_>) -> Option<Grant> {
        match place.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(grant) => Some(grant),
            Poll::Pending => None,
        }
    }

    fn room(place: &Place<'_>) -> Option<Connection> {
        granted(place).map(|grant| match grant {
            Grant::Room(room) => room,
            Grant::Link(_) => panic!("an open connection"),
        })
    }

    #[test]
    fn first_come_first_served_one_at_a_time() {
        let (_registry, endpoints) = endpoints();
        let rooms = Rooms::default();
        let only = Rooms::take(&endpoints[0], &LIMITS).expect("the first");
        assert!(Rooms::take(&endpoints[1], &LIMITS).is_none());
        let places = [0, 1, 1].map(|at| rooms.queue(0, &endpoints[at], &LIMITS, TAG).expect("room to wait"));
        assert!(rooms.queue(0, &endpoints[0], &LIMITS, TAG).is_none(), "as many wait as may");
        assert_eq!(endpoints[0].pool.overflows(Limit::Pending), 1);
        drop(only);
        assert!(Rooms::take(&endpoints[0], &LIMITS).is_none(), "nobody jumps the queue");
        rooms.serve(0);
        let first = room(&places[0]).expect("the front");
        assert!(room(&places[1]).is_none() && room(&places[2]).is_none());
        drop(first);
        rooms.serve(0);
        assert!(places.iter().filter_map(room).count() == 1, "the next, and no other");
    }

    #[test]
    fn what_one_that_left_was_granted_goes_to_the_next() {
        let (_registry, endpoints) = endpoints();
        let rooms = Rooms::default();
        let only = Rooms::take(&endpoints[0], &LIMITS);
        let [leaves, granted, last] =
            [(); 3].map(|()| rooms.queue(0, &endpoints[0], &LIMITS, TAG).expect("room to wait"));
        drop((leaves, only));
        rooms.serve(0);
        drop(granted);
        rooms.serve(0);
        assert!(room(&last).is_some());
        drop(last);
        assert_eq!(Limit::ALL.map(|limit| endpoints[0].pool.used(limit)), [0; 3]);
        rooms.sweep();
        assert!(rooms.queues.borrow().is_empty());
    }

    #[tokio::test]
    async fn an_open_connection_goes_to_the_front_if_it_leads_there() {
        let (_registry, endpoints) = endpoints();
        let rooms = Rooms::default();
        let link = |room| {
            let (near, _far) = tokio::net::UnixStream::pair().expect("a pair");
            Link { io: Stream::Unix(near), opened: clock::now(), room, dial_tag: 0 }
        };
        let held = link(Rooms::take(&endpoints[0], &LIMITS).expect("the first"));
        let elsewhere = rooms.queue(0, &endpoints[1], &LIMITS, TAG).expect("room to wait");
        let there = rooms.queue(0, &endpoints[0], &LIMITS, TAG).expect("room to wait");
        let held = rooms.offer(&endpoints[0], held).expect("it comes back: the front wants to go elsewhere");
        drop(elsewhere);
        assert!(rooms.offer(&endpoints[0], held).is_none());
        assert!(matches!(granted(&there), Some(Grant::Link(_))));
    }

    #[tokio::test]
    async fn a_worker_without_waiters_rings_on() {
        let (registry, endpoints) = endpoints();
        let (here, there) = (Rooms::default(), Rooms::default());
        let only = Rooms::take(&endpoints[0], &LIMITS);
        let gone = here.queue(0, &endpoints[0], &LIMITS, TAG);
        let waits = there.queue(1, &endpoints[0], &LIMITS, TAG).expect("room to wait");
        registry.bells()[0].notified().await;
        registry.bells()[1].notified().await;
        drop((gone, only));
        // Whoever was rung: it is heard where somebody waits.
        here.serve(0);
        registry.bells()[1].notified().await;
        there.serve(1);
        assert!(room(&waits).is_some());
    }
}
