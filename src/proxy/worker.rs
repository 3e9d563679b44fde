//! A worker: one thread, one event loop, its own sockets, idle connections, timers and counters. Nothing crosses threads on the
//! request path.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::{self, HttpDate};
use crate::state::counters::{ProcessCounters, WorkerShard};
use crate::state::current::{Current, CurrentCache};
use crate::state::live::{EndpointLive, Registry};
use crate::state::sensors::Ticks;
use crate::telemetry::access::AccessLog;

use super::dial::{Dialer, SharedConnector};
use super::exchange::{Budgets, Exchange, Failure, Held, Next, Observation, Policy, Replay, Verdict};
use super::facts::ConnFacts;
use super::forward::{Complaints, Volume};
use super::h2::down::Stream;
use super::h2::down::runners::Runners;
use super::h2::up::sessions::Sessions;
use super::headers::{RequestHead, ResponseHead};
use super::idle::{Idle, Link};
use super::io::Buffers;
use super::listener::{self, ListenerLive, Sockets};
use super::observe;
use super::rooms::Rooms;
use super::routing::RouteScratch;
use super::timer::{Alarm, Timers};

/// Commands waiting for a worker.
pub const COMMANDS_MAX: usize = 64;
/// How often a worker sweeps its idle connections and flushes its access log.
const SWEEP: Duration = Duration::from_secs(1);

/// What control asks of a worker.
pub enum Command {
    /// Take over the newest snapshot, let go of what left it, and say so.
    Settle(oneshot::Sender<()>),
    /// Accept on this socket.
    Listen(Arc<ListenerLive>, Sockets),
    /// Take what waits in the accept queue of this listener, then close it.
    Close(Arc<ListenerLive>),
    /// Finish what is in flight: accept until `accept_until`, keep idle connections until `idle_until`.
    Drain {
        /// When to stop accepting.
        accept_until: Instant,
        /// When to close idle client connections.
        idle_until: Instant,
    },
}

/// What a worker is made with.
pub struct Parts {
    /// Its index.
    pub index: usize,
    /// The published state.
    pub current: Current,
    /// Live endpoint state.
    pub registry: Arc<Registry>,
    /// Counters beside endpoints.
    pub process: Arc<ProcessCounters>,
    /// Key of session cookies.
    pub session_secret: [u8; 32],
    /// TLS towards upstreams.
    pub connector: SharedConnector,
    /// Where requests are logged.
    pub access: AccessLog,
}

/// The state of one worker, shared by its tasks.
pub struct Worker {
    policy: Rc<Policy>,
    current: RefCell<(CurrentCache, Held)>,
    clock: Cell<Instant>,
    registry: Arc<Registry>,
    timers: Rc<Timers>,
    idle: RefCell<Idle>,
    rooms: Rooms,
    sessions: RefCell<Sessions>,
    runners: Rc<Runners<Stream>>,
    buffers: RefCell<Buffers>,
    dialer: Dialer,
    random: RefCell<fastrand::Rng>,
    scratch: RefCell<RouteScratch>,
    access: RefCell<AccessLog>,
    complaints: Complaints,
    /// The time as HTTP writes it, and when it is another.
    date: RefCell<(Instant, HttpDate)>,
    draining: Cell<Option<Draining>>,
    connections: Cell<usize>,
    accepting: Cell<usize>,
    /// Told when a connection or an accept loop ends, and when a listener has to look at its state.
    changed: Rc<Notify>,
}

/// When a draining worker stops what.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    /// When it stops accepting.
    pub accept_until: Instant,
    /// When it closes idle client connections.
    pub idle_until: Instant,
}

/// Runs a worker until it is told to drain and nothing is left, or `stopped` says so; within a [`tokio::runtime::LocalRuntime`], which
/// its other tasks end with.
pub async fn run(parts: Parts, mut commands: mpsc::Receiver<Command>, mut stopped: watch::Receiver<bool>) {
    let worker = Worker::new(parts);
    tokio::task::spawn_local(Rc::clone(&worker.timers).drive());
    tokio::task::spawn_local(sweeping(Rc::clone(&worker)));
    tokio::task::spawn_local(listening_to_bell(Rc::clone(&worker)));
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            command = commands.recv() => match command {
                Some(command) => worker.obey(command),
                None => break,
            },
            () = worker.changed.notified(), if worker.draining.get().is_some() => {}
        }
        if worker.is_finished() {
            break;
        }
    }
    worker.idle.borrow_mut().clear();
    worker.sessions.borrow_mut().clear();
    worker.access.borrow_mut().flush();
}

async fn sweeping(worker: Rc<Worker>) {
    let mut every = tokio::time::interval(SWEEP);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        worker.sweep(|_| true);
        worker.rung();
        worker.rooms.sweep();
        worker.access.borrow_mut().flush();
    }
}

async fn listening_to_bell(worker: Rc<Worker>) {
    let bells = Arc::clone(worker.registry.bells());
    let Some(bell) = bells.get(worker.index()) else { return };
    loop {
        bell.notified().await;
        worker.rung();
    }
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(parts: Parts) -> Rc<Self> {
        let now = clock::now();
        let policy = Policy {
            worker: parts.index,
            process: parts.process,
            session_secret: parts.session_secret,
            budgets: Budgets::new(now),
            ticks: Ticks::default(),
            spare: RefCell::default(),
        };
        Rc::new(Self {
            policy: Rc::new(policy),
            current: RefCell::new((parts.current.cached(), Rc::new(parts.current.load()))),
            clock: Cell::new(now),
            registry: parts.registry,
            timers: Timers::new(now),
            idle: RefCell::default(),
            rooms: Rooms::default(),
            sessions: RefCell::default(),
            runners: Rc::default(),
            buffers: RefCell::default(),
            dialer: Dialer::new(parts.connector),
            random: RefCell::new(fastrand::Rng::new()),
            scratch: RefCell::default(),
            access: RefCell::new(parts.access),
            complaints: Complaints::default(),
            date: RefCell::new((now, clock::http_date())),
            draining: Cell::new(None),
            connections: Cell::new(0),
            accepting: Cell::new(0),
            changed: Rc::new(Notify::new()),
        })
    }

    /// What is published now.
    pub fn routing(&self) -> Held {
        let (cache, held) = &mut *self.current.borrow_mut();
        let newest = cache.load();
        if !Arc::ptr_eq(newest, held) {
            *held = Rc::new(Arc::clone(newest));
        }
        Rc::clone(held)
    }

    /// Reads the clock, for everything that is done at this turn of a task.
    pub fn tick(&self) -> Instant {
        let now = clock::now();
        self.clock.set(now);
        now
    }

    /// What the clock said at the last [`Worker::tick`]. For whoever comes from one without having waited in between: what a request takes
    /// of our own time within one turn, some microseconds, is not worth a look at the clock at every step.
    pub fn now(&self) -> Instant {
        self.clock.get()
    }

    /// What it has said in the log of a shortage that every request meets.
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// Takes back the memory of a cookie that has been sent.
    pub fn give_cookie(&self, cookie: Vec<u8>) {
        self.policy.spare.replace(cookie);
    }

    /// A request whose first byte came at `arrived`, right after a [`Worker::tick`].
    #[inline]
    pub fn exchange(&self, head: &RequestHead, facts: &ConnFacts, arrived: Instant) -> Exchange {
        let routing = self.routing();
        Exchange::new(&self.policy, &routing, head, facts, arrived, &mut self.random.borrow_mut())
    }

    /// The tasks that serve streams of HTTP/2 clients.
    pub fn runners(&self) -> &Rc<Runners<Stream>> {
        &self.runners
    }

    /// Begins it.
    pub fn begin(&self, exchange: &mut Exchange, head: &RequestHead, facts: &ConnFacts) -> Next {
        let (mut scratch, mut random) = (self.scratch.borrow_mut(), self.random.borrow_mut());
        exchange.begin(head, facts, &mut scratch, self.now(), &mut random)
    }

    /// Asks the exchange what to do after a failure.
    pub fn failed(&self, exchange: &mut Exchange, failure: Failure, replay: Replay) -> Next {
        exchange.failed(failure, replay, self.tick(), &mut self.random.borrow_mut())
    }

    /// Asks the exchange what to do after a wait.
    pub fn unpark(&self, exchange: &mut Exchange) -> Next {
        exchange.unpark(self.tick(), &mut self.random.borrow_mut())
    }

    /// Asks the exchange what to do with a response head.
    pub fn respond(&self, exchange: &mut Exchange, head: &ResponseHead, replay: Replay, now: Instant) -> Verdict {
        exchange.response(head, replay, now, &mut self.random.borrow_mut())
    }

    /// Asks the exchange whether a response head was waited for long enough.
    pub fn is_overdue(&self, exchange: &mut Exchange, replay: Replay, now: Instant) -> bool {
        exchange.overdue(replay, now, &mut self.random.borrow_mut())
    }

    /// Writes the access log line of a request.
    pub fn observe(
        &self,
        exchange: &Exchange,
        seen: &Observation,
        head: &RequestHead,
        facts: &ConnFacts,
        volume: Volume,
    ) {
        let mut access = self.access.borrow_mut();
        let draw = || self.random.borrow_mut().u64(..);
        let dropped = observe::log(&mut access, draw, exchange, seen, head, facts, volume);
        self.shard().log_dropped.add(dropped);
    }

    /// Counts a request that was refused before there was an exchange, and logs it.
    pub fn observe_refusal(&self, refused: &observe::Refused<'_>) {
        self.shard().terminations[refused.reply.termination as usize].add(1);
        let mut access = self.access.borrow_mut();
        let dropped = observe::log_refusal(&mut access, || self.random.borrow_mut().u64(..), refused);
        self.shard().log_dropped.add(dropped);
    }

    /// The idle upstream connections.
    pub fn idle(&self) -> RefMut<'_, Idle> {
        self.idle.borrow_mut()
    }

    /// Keeps a connection for the next request for at most `idle_max`, hands it to one that waits, or closes it for one that waits elsewhere.
    pub fn give_back(&self, endpoint: &EndpointLive, link: Link, idle_max: Duration) {
        if !endpoint.pool.is_waited_for() {
            self.idle.borrow_mut().keep(endpoint, link, idle_max, self.now());
        } else if !endpoint.is_removed() {
            drop(self.rooms.offer(endpoint, link));
        }
    }

    /// Those that wait for a connection.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Its index.
    pub fn index(&self) -> usize {
        self.policy.worker
    }

    /// Has the worker look at what waits, soon.
    pub fn ring(&self) {
        if let Some(bell) = self.registry.bells().get(self.index()) {
            bell.notify_one();
        }
    }

    /// Makes room for requests that wait on other workers, and serves those that wait here.
    fn rung(&self) {
        self.idle.borrow_mut().yield_to_others(self.index());
        self.sessions.borrow_mut().make_room();
        self.rooms.serve(self.index());
    }

    /// The HTTP/2 sessions with upstreams.
    pub fn sessions(&self) -> RefMut<'_, Sessions> {
        self.sessions.borrow_mut()
    }

    /// Buffers to read into.
    pub fn buffers(&self) -> RefMut<'_, Buffers> {
        self.buffers.borrow_mut()
    }

    /// Dials upstreams.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The time as HTTP writes it, read once a second.
    pub fn http_date(&self) -> HttpDate {
        let now = self.tick();
        let mut date = self.date.borrow_mut();
        if date.0 <= now {
            let left = Duration::from_nanos(u64::from(1_000_000_000 - clock::unix_time().subsec_nanos()));
            *date = (now + left, clock::http_date());
        }
        date.1
    }

    /// A new alarm.
    pub fn alarm(&self) -> Alarm {
        self.timers.alarm()
    }

    /// The counters only this worker writes.
    pub fn shard(&self) -> &WorkerShard {
        self.policy.process.of(self.policy.worker)
    }

    /// Random bits for a WebSocket mask.
    pub fn random_u32(&self) -> u32 {
        self.random.borrow_mut().u32(..)
    }

    /// When `endpoint` left the snapshot or was drained, if it did.
    pub fn leaving_at(&self, endpoint: &EndpointLive) -> Option<Instant> {
        if endpoint.is_leaving() { self.registry.leaving_at(endpoint) } else { None }
    }

    /// Whether the process was told to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// When to stop what, if the process was told to stop.
    pub fn draining(&self) -> Option<Draining> {
        self.draining.get()
    }

    /// Rings alarms and hears its bell from now on, as a running worker does.
    #[cfg(test)]
    pub(super) fn run_timers(self: &Rc<Self>) {
        tokio::task::spawn_local(Rc::clone(&self.timers).drive());
        tokio::task::spawn_local(listening_to_bell(Rc::clone(self)));
    }

    /// Resolves when listeners have to look at their state again.
    pub fn changed(&self) -> Rc<Notify> {
        Rc::clone(&self.changed)
    }

    /// Notes that a client connection began (`true`) or ended.
    pub fn count_connection(&self, began: bool) {
        count(&self.connections, began, &self.changed);
        if began { self.shard().open.add(1) } else { self.shard().open.sub(1) }
    }

    /// Notes that an accept loop began (`true`) or ended.
    pub fn count_accepting(&self, began: bool) {
        count(&self.accepting, began, &self.changed);
    }

    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Settle(done) => {
                self.settle();
                // Nobody waits any more: then nobody needs the answer.
                let _ = done.send(());
            }
            Command::Listen(live, sockets) => listener::listen(self, live, sockets),
            Command::Close(live) => {
                live.close();
                self.changed.notify_waiters();
            }
            Command::Drain { accept_until, idle_until } => {
                self.draining.set(Some(Draining { accept_until, idle_until }));
                self.changed.notify_waiters();
                self.timers.wake_all();
            }
        }
    }

    /// Closes idle connections to endpoints that left or were drained, and wakes whoever still uses one.
    fn settle(&self) {
        let routing = self.routing();
        let endpoints = routing.live.iter().flat_map(|live| live.endpoints());
        let kept = endpoints.filter(|endpoint| !endpoint.is_leaving());
        let kept: HashSet<u64> = kept.map(|endpoint| endpoint.slot).collect();
        self.sweep(|slot| kept.contains(&slot));
        self.dialer.sweep(|service| routing.snapshot.services.iter().any(|s| Arc::ptr_eq(&s.service, service)));
        self.timers.wake_all();
    }

    fn sweep(&self, wanted: impl Fn(u64) -> bool) {
        let (mut idle, now) = (self.idle.borrow_mut(), clock::now());
        self.sessions.borrow_mut().sweep(now, &wanted);
        idle.sweep(now, wanted);
        let (was, is) = (self.shard().idle.get(), idle.len() as u64);
        self.shard().idle.add(is.wrapping_sub(was));
    }

    fn is_finished(&self) -> bool {
        self.draining.get().is_some() && self.connections.get() == 0 && self.accepting.get() == 0
    }
}

fn count(cell: &Cell<usize>, began: bool, changed: &Notify) {
    if began {
        cell.set(cell.get() + 1);
    } else {
        cell.set(cell.get() - 1);
        if cell.get() == 0 {
            changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
