//! The HTTP/2 sessions of one worker, per endpoint: who gets a stream on which, and when another one is opened.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::circuit::Limit;
use crate::core::service::Service;
use crate::proxy::forward::within;
use crate::proxy::idle::AGE_MAX;
use crate::proxy::rooms::{Grant, Place, Rooms};
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;
use crate::state::pool::{Connection, Pending, PoolLive};

use super::session::{Lease, PACE, Pace, STREAMS_MAX, Session, Signals, Trust, open};

/// Most sessions per worker and endpoint, those being opened included. Where all are full, requests wait for a stream as long as they
/// would for a connection.
pub const SESSIONS_PER_ENDPOINT_MAX: usize = 64;

/// The sessions of one worker.
pub struct Sessions {
    by_slot: HashMap<u64, Endpoint>,
    pace: Pace,
}

/// Whom a request wants a stream to.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The service: how to dial.
    pub service: &'a Arc<Service>,
    /// The endpoint.
    pub endpoint: &'a Arc<EndpointLive>,
    /// [`crate::core::snapshot::ActiveService::dial_tag`]
    pub dial_tag: u64,
    /// Told of waits for a limit of the pool.
    pub limited: &'a Limited,
}

/// What a request that wants a stream had to do with the limits of its pool.
#[derive(Debug, Default)]
pub struct Limited {
    /// The limit it waits for at this moment, or was refused at.
    pub at: Cell<Option<Limit>>,
    /// How long it has waited for one.
    pub waited: Cell<Duration>,
}

/// The wait of a request at a limit.
struct Waits {
    began: Instant,
    slot: Option<Pending>,
}

/// The sessions of one endpoint.
struct Endpoint {
    sessions: Vec<Rc<Session>>,
    dials: Vec<Rc<Dial>>,
    /// Streams the session opened last had room for: as many requests wait for one dial.
    room: usize,
    signals: Rc<Signals>,
}

/// A session being opened, and how many requests wait for it.
struct Dial {
    tag: u64,
    waiting: Cell<usize>,
    outcome: RefCell<Option<Result<(), Rc<io::Error>>>>,
}

/// What a request that wants a stream does next.
enum Step {
    /// It has one.
    Leased(Lease),
    /// Open a session, which is counted so.
    Dial(Rc<Dial>, Connection),
    /// Wait for one being opened.
    Join(Rc<Dial>),
    /// Wait for a session to show that it lives.
    Check(Rc<Session>),
    /// Wait for a stream to end.
    Full,
    /// Wait for a stream to end, or until there may be another connection.
    NoRoom,
}

/// A stream on a session to `wanted`, and whether the session was not opened for it. The caller bounds the wait; `wanted.limited` says
/// whether it is one for a limit.
///
/// # Errors
/// Why no session could be opened; [`io::ErrorKind::TimedOut`]: not in time; [`io::ErrorKind::QuotaExceeded`]: as many wait as may.
pub async fn lease(worker: &Rc<Worker>, wanted: Wanted<'_>) -> Result<(Lease, bool), Rc<io::Error>> {
    let (mut opened, mut place, mut room) = (false, None, None);
    let came = clock::now();
    let mut waits = Waits { began: came, slot: None };
    loop {
        // Whoever waits is told of every change from here on, and nothing changes between the look and the wait.
        let (step, signals) = worker.sessions().step(worker, wanted, &mut room, (came, clock::now()));
        match step {
            Step::Leased(lease) => {
                waits.over(wanted);
                return Ok((lease, !opened));
            }
            Step::Dial(dial, room) => {
                opened = true;
                waits.over(wanted);
                spawn(worker, wanted, &dial, room);
                dialled(&dial, &signals).await?;
            }
            Step::Join(dial) => {
                waits.over(wanted);
                dialled(&dial, &signals).await?;
            }
            Step::Full => {
                // No connection helps: none is held back from others.
                drop(room.take());
                waits.slot(worker, wanted)?;
                signals.freed.notified().await;
            }
            Step::NoRoom => {
                let queued = match &mut place {
                    Some(place) => place,
                    none => none.insert(waits.room(worker, wanted)?),
                };
                room = freed(queued, signals.freed.notified()).await;
                if room.is_some() {
                    place = None;
                }
            }
            Step::Check(session) => {
                let (answered, alarm) = (signals.news.notified(), worker.alarm());
                session.check();
                let deadline = clock::now() + wanted.service.upstream.connect_timeout / 2;
                if within(&alarm, Some(deadline), answered).await.is_none() {
                    worker.sessions().abandon(wanted.endpoint.slot, &session);
                }
            }
        }
    }
}

/// Waits for a connection, which comes back, or for a stream.
async fn freed(place: &Place<'_>, stream: impl Future<Output = ()>) -> Option<Connection> {
    let mut stream = std::pin::pin!(stream);
    poll_fn(|cx| match place.poll(cx) {
        Poll::Ready(Grant::Room(room)) => Poll::Ready(Some(room)),
        Poll::Ready(Grant::Link(_)) => Poll::Ready(None),
        Poll::Pending => stream.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Waits for a session being opened.
async fn dialled(dial: &Dial, signals: &Signals) -> Result<(), Rc<io::Error>> {
    loop {
        let notified = signals.news.notified();
        if let Some(outcome) = &*dial.outcome.borrow() {
            return outcome.clone();
        }
        notified.await;
    }
}

/// Opens a session in a task of its own: whoever asked for it first may leave while others wait.
fn spawn(worker: &Rc<Worker>, wanted: Wanted<'_>, dial: &Rc<Dial>, room: Connection) {
    let (worker, dial) = (Rc::clone(worker), Rc::clone(dial));
    let (service, endpoint) = (Arc::clone(wanted.service), Arc::clone(wanted.endpoint));
    tokio::task::spawn_local(async move {
        let (signals, pace) = worker.sessions().place(endpoint.slot);
        let opening = async {
            let stream = worker.dialer().dial(&service, &endpoint.key.address).await?;
            open(&worker, stream, &endpoint, (dial.tag, room), &signals, pace).await
        };
        let deadline = Some(clock::now() + service.upstream.connect_timeout);
        let opened = within(&worker.alarm(), deadline, opening).await;
        let opened = opened.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        worker.sessions().settle(endpoint.slot, &dial, opened);
        signals.tell_all();
    });
}

// === impl Waits ===

impl Waits {
    /// Counts the request as one that waits, for a stream.
    fn slot(&mut self, worker: &Worker, wanted: Wanted<'_>) -> io::Result<()> {
        if self.slot.is_none() {
            let pool = &wanted.endpoint.pool;
            self.slot = pool.wait(worker.index(), &wanted.service.upstream.limits);
            if self.slot.is_none() {
                pool.overflowed(Limit::Pending);
                return Err(refused(wanted));
            }
        }
        self.begin(wanted);
        Ok(())
    }

    /// A place among those that wait for a connection.
    fn room<'w>(&mut self, worker: &'w Worker, wanted: Wanted<'_>) -> io::Result<Place<'w>> {
        let place = worker.rooms().queue(worker.index(), wanted.endpoint, &wanted.service.upstream.limits, None);
        self.begin(wanted);
        place.ok_or_else(|| refused(wanted))
    }

    fn begin(&mut self, wanted: Wanted<'_>) {
        if wanted.limited.at.replace(Some(Limit::Connections)).is_none() {
            self.began = clock::now();
        }
    }

    fn over(&mut self, wanted: Wanted<'_>) {
        self.slot = None;
        if wanted.limited.at.take().is_some() {
            let waited = clock::now().saturating_duration_since(self.began);
            wanted.limited.waited.set(wanted.limited.waited.get() + waited);
        }
    }
}

fn refused(wanted: Wanted<'_>) -> io::Error {
    wanted.limited.at.set(Some(Limit::Pending));
    io::ErrorKind::QuotaExceeded.into()
}

// === impl Sessions ===

impl Default for Sessions {
    fn default() -> Self {
        Self { by_slot: HashMap::new(), pace: PACE }
    }
}

impl Sessions {
    /// Sessions with another pace, for tests.
    #[cfg(test)]
    pub(super) fn with_pace(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    fn step(
        &mut self,
        worker: &Rc<Worker>,
        wanted: Wanted<'_>,
        room: &mut Option<Connection>,
        (came, now): (Instant, Instant),
    ) -> (Step, Rc<Signals>) {
        let pace = self.pace;
        let endpoint = self.endpoint(wanted.endpoint.slot);
        endpoint.sessions.retain(|session| is_usable(session, now));
        let signals = Rc::clone(&endpoint.signals);
        let step = endpoint.step(worker, wanted, room, |session| session.trust(came, now, pace));
        if matches!(step, Step::NoRoom) {
            // What is closed is free once its last frames are written.
            self.close_idle(&wanted.endpoint.pool, 1);
        }
        (step, signals)
    }

    /// Closes idle sessions of pools requests wait for, as many as wait.
    pub fn make_room(&mut self) {
        let mut asked: Vec<Arc<PoolLive>> = Vec::new();
        for pool in self.by_slot.values().filter_map(|e| Some(&e.sessions.first()?.endpoint.pool)) {
            if pool.is_waited_for() && !asked.iter().any(|known| Arc::ptr_eq(known, pool)) {
                asked.push(Arc::clone(pool));
            }
        }
        for pool in &asked {
            self.close_idle(pool, pool.used(Limit::Pending));
        }
    }

    /// Closes at most `most` idle sessions of `pool`.
    fn close_idle(&mut self, pool: &Arc<PoolLive>, most: u32) {
        let mut left = most;
        for endpoint in self.by_slot.values_mut() {
            endpoint.sessions.retain(|session| {
                let close =
                    left > 0 && session.is_idle() && !session.is_fresh() && Arc::ptr_eq(&session.endpoint.pool, pool);
                left -= u32::from(close);
                !close
            });
        }
    }

    fn endpoint(&mut self, slot: u64) -> &mut Endpoint {
        self.by_slot.entry(slot).or_insert_with(|| Endpoint {
            sessions: Vec::new(),
            dials: Vec::new(),
            room: STREAMS_MAX,
            signals: Rc::default(),
        })
    }

    fn place(&mut self, slot: u64) -> (Rc<Signals>, Pace) {
        let pace = self.pace;
        (Rc::clone(&self.endpoint(slot).signals), pace)
    }

    /// Takes in how a dial came out.
    fn settle(&mut self, slot: u64, dial: &Rc<Dial>, opened: io::Result<Session>) {
        let endpoint = self.endpoint(slot);
        endpoint.dials.retain(|other| !Rc::ptr_eq(other, dial));
        let outcome = opened.map_err(Rc::new).map(|session| {
            endpoint.room = session.room().max(1);
            endpoint.sessions.push(Rc::new(session));
        });
        dial.outcome.replace(Some(outcome));
    }

    /// Opens no more streams on `session`.
    fn abandon(&mut self, slot: u64, session: &Rc<Session>) {
        self.endpoint(slot).sessions.retain(|other| !Rc::ptr_eq(other, session));
    }

    /// Opens no more streams on what is too old, was told to go away, or leads to an endpoint that left or is not `wanted`; what is
    /// idle of it closes.
    pub fn sweep(&mut self, now: Instant, wanted: impl Fn(u64) -> bool) {
        self.by_slot.retain(|&slot, endpoint| {
            let before = endpoint.sessions.len();
            endpoint.sessions.retain(|session| wanted(slot) && is_usable(session, now));
            if endpoint.sessions.len() < before {
                endpoint.signals.tell_all();
            }
            !endpoint.sessions.is_empty() || !endpoint.dials.is_empty()
        });
    }

    /// Opens no more streams on any session.
    pub fn clear(&mut self) {
        self.by_slot.clear();
    }
}

/// Whether streams may still be opened on `session`. A request that has nowhere else to go may still open the first one to an endpoint that
/// left.
fn is_usable(session: &Session, now: Instant) -> bool {
    let aged = now.saturating_duration_since(session.opened) >= AGE_MAX;
    let left = session.endpoint.is_leaving() && !session.is_fresh();
    !aged && !left && !session.is_over() && !session.is_worn(now)
}

// === impl Endpoint ===

impl Endpoint {
    fn step(
        &mut self,
        worker: &Rc<Worker>,
        wanted: Wanted<'_>,
        room: &mut Option<Connection>,
        trust: impl Fn(&Session) -> Trust,
    ) -> Step {
        let fits = |session: &Rc<Session>| session.dial_tag == wanted.dial_tag && session.has_room();
        while let Some(at) = self.sessions.iter().position(fits) {
            let session = &self.sessions[at];
            match trust(session) {
                Trust::Sound => return Step::Leased(session.lease(worker, wanted.service.upstream.keepalive_idle)),
                Trust::Doubtful => return Step::Check(Rc::clone(session)),
                Trust::Lost => drop(self.sessions.remove(at)),
            }
        }
        self.dial(wanted, room)
    }

    fn dial(&mut self, wanted: Wanted<'_>, room: &mut Option<Connection>) -> Step {
        let tag = wanted.dial_tag;
        let joinable = |dial: &&Rc<Dial>| dial.tag == tag && dial.waiting.get() < self.room;
        if let Some(dial) = self.dials.iter().find(joinable) {
            dial.waiting.set(dial.waiting.get() + 1);
            return Step::Join(Rc::clone(dial));
        }
        if self.sessions.len() + self.dials.len() >= SESSIONS_PER_ENDPOINT_MAX {
            return Step::Full;
        }
        let limits = &wanted.service.upstream.limits;
        let Some(room) = room.take().or_else(|| Rooms::take(wanted.endpoint, limits)) else { return Step::NoRoom };
        let dial = Rc::new(Dial { tag, waiting: Cell::new(1), outcome: RefCell::new(None) });
        self.dials.push(Rc::clone(&dial));
        Step::Dial(dial, room)
    }
}
