//! The task that keeps an HTTP/2 connection to an upstream going, and what it shares with the session on it: its PINGs among others.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock;
use crate::proxy::h2::io::{Gathered, Io};
use crate::proxy::timer::Alarm;
use crate::proxy::worker::Worker;
use crate::state::pool::Connection as Connected;

use super::session::{PINGS_MAX, Pace, SETTINGS_PENDING, Signals};

/// Longest wait for the last frames of a session nobody needs any more to be written.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What session and task share.
pub(super) struct State {
    pub streams: Cell<usize>,
    pub used: Cell<bool>,
    /// Part of an answer came, ever.
    pub proven: Cell<bool>,
    pub idle_since: Cell<Instant>,
    pub idle_max: Cell<Duration>,
    /// When anything was last read.
    pub heard: Cell<Instant>,
    /// Bytes written, bound for the socket.
    pub written: Cell<u64>,
    /// The peer's first SETTINGS came.
    pub settled: Cell<bool>,
    /// The connection is no more.
    pub ended: Cell<bool>,
    /// When the PING in flight was sent.
    pub asked: Cell<Option<Instant>>,
    /// PINGs sent since part of an answer came.
    pub pings: Cell<u8>,
    /// Somebody waits for a PING to be answered.
    pub check: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
    pub signals: Rc<Signals>,
}

/// The stream below, watched.
pub(super) struct Watched {
    io: Io,
    state: Rc<State>,
}

/// The task of a session.
pub(super) struct Keeper {
    connection: Connection<Watched, Bytes>,
    out: Gathered,
    ping: Option<PingPong>,
    /// When it was first seen that nobody needs the session.
    closing: Option<Instant>,
    pace: Pace,
    alarm: Alarm,
    state: Rc<State>,
    worker: Rc<Worker>,
    /// Counts the connection in its pool until it is closed.
    _room: Connected,
}

// === impl State ===

impl State {
    pub(super) fn new(now: Instant, signals: &Rc<Signals>) -> Self {
        Self {
            streams: Cell::new(0),
            used: Cell::new(false),
            proven: Cell::new(false),
            idle_since: Cell::new(now),
            idle_max: Cell::new(Duration::MAX),
            heard: Cell::new(now),
            written: Cell::new(0),
            settled: Cell::new(false),
            ended: Cell::new(false),
            asked: Cell::new(None),
            pings: Cell::new(0),
            check: Cell::new(false),
            keeper: RefCell::new(None),
            signals: Rc::clone(signals),
        }
    }

    /// A stream got part of an answer.
    pub(super) fn answered(&self) {
        self.proven.set(true);
        if self.pings.replace(0) >= PINGS_MAX {
            // It set no alarm.
            self.wake();
        }
    }

    /// Has the keeper look at it again.
    pub(super) fn wake(&self) {
        if let Some(keeper) = &*self.keeper.borrow() {
            keeper.wake_by_ref();
        }
    }
}

// === impl Keeper ===

impl Future for Keeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.remember(cx.waker());
        loop {
            let ended = Pin::new(&mut this.connection).poll(cx);
            if let Poll::Ready(result) = ended {
                tracing::debug!(error = ?result.err(), "an upstream HTTP/2 session ended");
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(error)) = this.out.poll_write_out(cx) {
                tracing::debug!(%error, "an upstream HTTP/2 session broke");
                return Poll::Ready(());
            }
            if !this.state.settled.get() && this.connection.max_concurrent_send_streams() != SETTINGS_PENDING {
                this.state.settled.set(true);
                this.state.signals.news.notify_waiters();
            }
            let now = clock::now();
            this.hear(cx);
            let deadline = match this.deadline(now) {
                Err(Overdue) => {
                    tracing::debug!("an upstream HTTP/2 session does not answer");
                    return Poll::Ready(());
                }
                Ok(Next::Ping) => {
                    this.ask(now);
                    continue;
                }
                Ok(Next::Wait(deadline)) => deadline,
            };
            std::task::ready!(this.alarm.poll_until(cx, deadline, now));
        }
    }
}

/// Nothing was heard for too long.
struct Overdue;

/// What a keeper does once its connection has nothing to do.
enum Next {
    Ping,
    Wait(Option<Instant>),
}

impl Keeper {
    /// The task for a connection whose preface was sent; `room` counts it in its pool.
    pub(super) fn new(
        worker: &Rc<Worker>,
        state: &Rc<State>,
        mut connection: Connection<Watched, Bytes>,
        out: Gathered,
        room: Connected,
        pace: Pace,
    ) -> Self {
        worker.shard().sessions.add(1);
        Self {
            ping: connection.ping_pong(),
            connection,
            out,
            closing: None,
            pace,
            alarm: worker.alarm(),
            state: Rc::clone(state),
            worker: Rc::clone(worker),
            _room: room,
        }
    }

    fn remember(&self, waker: &Waker) {
        let mut keeper = self.state.keeper.borrow_mut();
        if !keeper.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *keeper = Some(waker.clone());
        }
    }

    /// Takes in the answer to a PING.
    fn hear(&mut self, cx: &mut Context<'_>) {
        if let (Some(ping), Some(_)) = (&mut self.ping, self.state.asked.get())
            && ping.poll_pong(cx).is_ready()
        {
            self.state.asked.set(None);
            self.state.check.set(false);
            self.state.signals.news.notify_waiters();
        }
    }

    fn ask(&mut self, now: Instant) {
        if let Some(ping) = &mut self.ping
            && ping.send_ping(Ping::opaque()).is_ok()
        {
            self.state.asked.set(Some(now));
            self.state.pings.set(self.state.pings.get().saturating_add(1));
        } else {
            self.ping = None;
        }
    }

    fn deadline(&mut self, now: Instant) -> Result<Next, Overdue> {
        // Session and leases hold the state, and so does the watched stream.
        if Rc::strong_count(&self.state) <= 2 {
            let until = *self.closing.get_or_insert(now) + CLOSE_MAX;
            return if until <= now { Err(Overdue) } else { Ok(Next::Wait(Some(until))) };
        }
        let heard = self.state.heard.get();
        if let Some(asked) = self.state.asked.get() {
            let until = asked.max(heard) + self.pace.ping_timeout;
            return if until <= now { Err(Overdue) } else { Ok(Next::Wait(Some(until))) };
        }
        if self.ping.is_none() || self.state.pings.get() >= PINGS_MAX {
            return Ok(Next::Wait(None));
        }
        let busy = self.state.streams.get() > 0;
        let silent_until = heard + self.pace.ping_every;
        if self.state.check.get() || (busy && silent_until <= now) {
            return Ok(Next::Ping);
        }
        Ok(Next::Wait(busy.then_some(silent_until)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.state.ended.set(true);
        self.state.signals.tell_all();
        self.worker.shard().sessions.sub(1);
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        if into.filled().len() > before {
            self.state.heard.set(clock::now());
        }
        read
    }
}

impl Watched {
    /// Watches `io` for `state`.
    pub(super) fn new(io: Io, state: &Rc<State>) -> Self {
        Self { io, state: Rc::clone(state) }
    }

    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = written {
            self.state.written.set(self.state.written.get() + *n as u64);
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
