//! The HTTP/2 sessions of one worker, per endpoint: who gets a stream on which, and when another one is opened.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::clock;
use crate::core::service::Service;
use crate::proxy::forward::within;
use crate::proxy::idle::AGE_MAX;
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;

use super::session::{Lease, PACE, Pace, STREAMS_MAX, Session, open};

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
}

/// The sessions of one endpoint.
struct Endpoint {
    sessions: Vec<Rc<Session>>,
    dials: Vec<Rc<Dial>>,
    /// Streams the session opened last had room for: as many requests wait for one dial.
    room: usize,
    /// Told of whatever a waiting request may go on with.
    changed: Rc<Notify>,
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
    /// Open a session.
    Dial(Rc<Dial>),
    /// Wait for one being opened.
    Join(Rc<Dial>),
    /// Wait for a session to show that it lives.
    Check(Rc<Session>),
    /// Wait for a stream to end.
    Full,
}

/// A stream on a session to `wanted`, and whether the session was not opened for it. The caller bounds the wait.
///
/// # Errors
/// Why no session could be opened; [`io::ErrorKind::TimedOut`]: not in time.
pub async fn lease(worker: &Rc<Worker>, wanted: Wanted<'_>) -> Result<(Lease, bool), Rc<io::Error>> {
    let mut opened = false;
    loop {
        let (step, changed) = worker.sessions().step(worker, wanted, clock::now());
        // From here on it hears of every change, and nothing has changed since the look.
        let notified = changed.notified();
        match step {
            Step::Leased(lease) => return Ok((lease, !opened)),
            Step::Dial(dial) => {
                opened = true;
                spawn(worker, wanted, &dial);
                dialled(&dial, &changed).await?;
            }
            Step::Join(dial) => dialled(&dial, &changed).await?,
            Step::Full => notified.await,
            Step::Check(session) => {
                session.check();
                let deadline = clock::now() + wanted.service.upstream.connect_timeout / 2;
                let alarm = worker.alarm();
                if within(&alarm, Some(deadline), notified).await.is_none() {
                    worker.sessions().abandon(wanted.endpoint.slot, &session);
                }
            }
        }
    }
}

/// Waits for a session being opened.
async fn dialled(dial: &Dial, changed: &Notify) -> Result<(), Rc<io::Error>> {
    loop {
        let notified = changed.notified();
        if let Some(outcome) = &*dial.outcome.borrow() {
            return outcome.clone();
        }
        notified.await;
    }
}

/// Opens a session in a task of its own: whoever asked for it first may leave while others wait.
fn spawn(worker: &Rc<Worker>, wanted: Wanted<'_>, dial: &Rc<Dial>) {
    let (worker, dial) = (Rc::clone(worker), Rc::clone(dial));
    let (service, endpoint) = (Arc::clone(wanted.service), Arc::clone(wanted.endpoint));
    tokio::task::spawn_local(async move {
        let (changed, pace) = worker.sessions().place(endpoint.slot);
        let opening = async {
            let stream = worker.dialer().dial(&service, endpoint.key.address).await?;
            open(&worker, stream, &endpoint, dial.tag, &changed, pace).await
        };
        let deadline = Some(clock::now() + service.upstream.connect_timeout);
        let opened = within(&worker.alarm(), deadline, opening).await;
        let opened = opened.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
        worker.sessions().settle(endpoint.slot, &dial, opened);
        changed.notify_waiters();
    });
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

    fn step(&mut self, worker: &Rc<Worker>, wanted: Wanted<'_>, now: Instant) -> (Step, Rc<Notify>) {
        let pace = self.pace;
        let endpoint = self.endpoint(wanted.endpoint.slot);
        endpoint.sessions.retain(|session| is_usable(session, now));
        let changed = Rc::clone(&endpoint.changed);
        (endpoint.step(worker, wanted, now, pace), changed)
    }

    fn endpoint(&mut self, slot: u64) -> &mut Endpoint {
        self.by_slot.entry(slot).or_insert_with(|| Endpoint {
            sessions: Vec::new(),
            dials: Vec::new(),
            room: STREAMS_MAX,
            changed: Rc::default(),
        })
    }

    fn place(&mut self, slot: u64) -> (Rc<Notify>, Pace) {
        let pace = self.pace;
        (Rc::clone(&self.endpoint(slot).changed), pace)
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
                endpoint.changed.notify_waiters();
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
    fn step(&mut self, worker: &Rc<Worker>, wanted: Wanted<'_>, now: Instant, pace: Pace) -> Step {
        let fitting = |session: &&Rc<Session>| session.dial_tag == wanted.dial_tag;
        if let Some(session) = self.sessions.iter().filter(fitting).find(|session| session.has_room()) {
            if session.is_doubtful(now, pace) {
                return Step::Check(Rc::clone(session));
            }
            return Step::Leased(session.lease(worker, wanted.service.upstream.keepalive_idle));
        }
        self.dial(wanted.dial_tag)
    }

    fn dial(&mut self, tag: u64) -> Step {
        let joinable = |dial: &&Rc<Dial>| dial.tag == tag && dial.waiting.get() < self.room;
        if let Some(dial) = self.dials.iter().find(joinable) {
            dial.waiting.set(dial.waiting.get() + 1);
            return Step::Join(Rc::clone(dial));
        }
        if self.sessions.len() + self.dials.len() >= SESSIONS_PER_ENDPOINT_MAX {
            return Step::Full;
        }
        let dial = Rc::new(Dial { tag, waiting: Cell::new(1), outcome: RefCell::new(None) });
        self.dials.push(Rc::clone(&dial));
        Step::Dial(dial)
    }
}
