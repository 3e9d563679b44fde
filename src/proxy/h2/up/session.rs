//! One HTTP/2 connection to an upstream: the task that keeps it going, its PINGs, and the streams leased on it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::clock;
use crate::proxy::h1::head::RESPONSE_HEAD_MAX;
use crate::proxy::h2::body::SEND_BUFFER_MAX;
use crate::proxy::h2::io::{Gathered, Io, gather};
use crate::proxy::io::{Buf, Stream};
use crate::proxy::timer::Alarm;
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;
use crate::state::pool::Connection as Connected;

/// Most streams at once on one session, whatever more its peer allows.
pub const STREAMS_MAX: usize = 100;
/// Receive window of one stream, in bytes: most that waits for a slow client.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// Receive window of a session, in bytes: so many streams' clients can be slow at once without holding the others up.
pub const SESSION_WINDOW: u32 = 16 * STREAM_WINDOW;
/// Largest frame payload taken, in bytes.
const FRAME_MAX: u32 = 16 * 1024;
/// What the stream limit reads before the peer's first SETTINGS came.
const SETTINGS_PENDING: usize = usize::MAX - 1;
/// Longest wait for the last frames of a session nobody needs any more to be written.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// When a session is asked whether it still lives, and how long it may take to say so.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Silence after which a session with open streams is sent a PING.
    pub ping_every: Duration,
    /// Silence after a PING that ends the session.
    pub ping_timeout: Duration,
    /// Silence after which an idle session is sent a PING, and answers it, before it is used again.
    pub check_after: Duration,
}

/// The pace of all sessions.
pub const PACE: Pace = Pace {
    ping_every: Duration::from_secs(10),
    ping_timeout: Duration::from_secs(5),
    check_after: Duration::from_secs(5),
};

/// A session that takes streams. Its connection closes when neither it nor any [`Lease`] is left.
pub struct Session {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    /// Where it leads.
    pub endpoint: Arc<EndpointLive>,
    /// How it was dialled.
    pub dial_tag: u64,
    /// When it was opened.
    pub opened: Instant,
    /// Whether it is encrypted.
    secure: bool,
}

/// One stream of a session, from before its request until nothing of it is needed.
pub struct Lease {
    session: Rc<Session>,
    worker: Rc<Worker>,
    /// Opens the stream.
    pub send: SendRequest<Bytes>,
}

/// What session and task share.
struct State {
    streams: Cell<usize>,
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    idle_max: Cell<Duration>,
    /// When anything was last read.
    heard: Cell<Instant>,
    /// Bytes written, bound for the socket.
    written: Cell<u64>,
    /// The peer's first SETTINGS came.
    settled: Cell<bool>,
    /// The connection is no more.
    ended: Cell<bool>,
    /// Somebody waits for a PING to be answered.
    check: Cell<bool>,
    keeper: RefCell<Option<Waker>>,
    /// Told when a stream ends, and when any of the above says something new.
    changed: Rc<Notify>,
}

/// The stream below, watched.
struct Watched {
    io: Io,
    state: Rc<State>,
}

/// The task of a session.
struct Keeper {
    connection: Connection<Watched, Bytes>,
    out: Gathered,
    ping: Option<PingPong>,
    /// When the PING in flight was sent.
    asked: Option<Instant>,
    /// When it was first seen that nobody needs the session.
    closing: Option<Instant>,
    pace: Pace,
    alarm: Alarm,
    state: Rc<State>,
    worker: Rc<Worker>,
    /// Counts the connection in its pool until it is closed.
    _room: Connected,
}

/// Opens a session on `stream`: ready once the peer has shown by its SETTINGS that it speaks HTTP/2 and how many streams it takes.
/// `changed` is told of every stream that ends. The caller bounds the wait.
///
/// # Errors
/// The connection ended before that.
pub async fn open(
    worker: &Rc<Worker>,
    stream: Stream,
    endpoint: &Arc<EndpointLive>,
    (dial_tag, room): (u64, Connected),
    changed: &Rc<Notify>,
    pace: Pace,
) -> io::Result<Session> {
    let secure = matches!(stream, Stream::Dialled(_));
    let state = Rc::new(State::new(clock::now(), changed));
    let (io, out) = gather(stream, Buf::default());
    let watched = Watched { io, state: Rc::clone(&state) };
    let (send, mut connection) = builder().handshake(watched).await.map_err(io::Error::other)?;
    let ping = connection.ping_pong();
    let session = Session { send, state, endpoint: Arc::clone(endpoint), dial_tag, opened: clock::now(), secure };
    let keeper = Keeper {
        connection,
        out,
        ping,
        asked: None,
        closing: None,
        pace,
        alarm: worker.alarm(),
        state: Rc::clone(&session.state),
        worker: Rc::clone(worker),
        _room: room,
    };
    worker.shard().sessions.add(1);
    tokio::task::spawn_local(keeper);
    loop {
        let notified = changed.notified();
        if session.state.ended.get() {
            return Err(io::Error::other("the upstream closed the connection, or does not speak HTTP/2"));
        }
        if session.state.settled.get() {
            return Ok(session);
        }
        notified.await;
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(SETTINGS_PENDING)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SESSION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_header_list_size(u32::try_from(RESPONSE_HEAD_MAX).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_MAX);
    builder
}

// === impl Session ===

impl Session {
    /// Whether it can take one more stream at this moment.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.state.streams.get() < self.room()
    }

    /// Most streams it takes at once.
    #[must_use]
    pub fn room(&self) -> usize {
        STREAMS_MAX.min(self.send.current_max_send_streams())
    }

    /// Whether it has not carried any stream yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        !self.state.used.get()
    }

    /// Whether it takes no streams any more: closed, or told to go away.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let mut send = self.send.clone();
        let ready = send.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.state.ended.get() || matches!(ready, Poll::Ready(Err(_)))
    }

    /// Whether nothing was heard of it for so long that it is asked first.
    #[must_use]
    pub fn is_doubtful(&self, now: Instant, pace: Pace) -> bool {
        self.is_idle() && now.saturating_duration_since(self.state.heard.get()) >= pace.check_after
    }

    /// Whether no stream is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    /// Whether it has been idle for longer than it is kept.
    #[must_use]
    pub fn is_worn(&self, now: Instant) -> bool {
        self.is_idle() && now.saturating_duration_since(self.state.idle_since.get()) >= self.state.idle_max.get()
    }

    /// Asks the peer whether it is still there; the answer makes the session less doubtful.
    pub fn check(&self) {
        self.state.check.set(true);
        self.state.wake();
    }

    /// Takes a stream; while the session is idle it is kept for at most `idle_max`.
    #[must_use]
    pub fn lease(self: &Rc<Self>, worker: &Rc<Worker>, idle_max: Duration) -> Lease {
        self.state.streams.set(self.state.streams.get() + 1);
        self.state.used.set(true);
        self.state.idle_max.set(idle_max);
        self.state.wake();
        worker.shard().streams.add(1);
        Lease { session: Rc::clone(self), worker: Rc::clone(worker), send: self.send.clone() }
    }
}

// === impl Lease ===

impl Lease {
    /// Whether the session is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.session.secure
    }

    /// Bytes the session has written since it was opened, those of other streams included.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.session.state.written.get()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let state = &self.session.state;
        state.streams.set(state.streams.get() - 1);
        state.idle_since.set(clock::now());
        state.changed.notify_one();
        if self.session.is_idle() && self.session.endpoint.pool.is_waited_for() {
            self.worker.ring();
        }
        self.worker.shard().streams.sub(1);
    }
}

// === impl State ===

impl State {
    fn new(now: Instant, changed: &Rc<Notify>) -> Self {
        Self {
            streams: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(now),
            idle_max: Cell::new(Duration::MAX),
            heard: Cell::new(now),
            written: Cell::new(0),
            settled: Cell::new(false),
            ended: Cell::new(false),
            check: Cell::new(false),
            keeper: RefCell::new(None),
            changed: Rc::clone(changed),
        }
    }

    fn wake(&self) {
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
                this.state.changed.notify_waiters();
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
    fn remember(&self, waker: &Waker) {
        let mut keeper = self.state.keeper.borrow_mut();
        if !keeper.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *keeper = Some(waker.clone());
        }
    }

    /// Takes in the answer to a PING.
    fn hear(&mut self, cx: &mut Context<'_>) {
        if let (Some(ping), Some(_)) = (&mut self.ping, self.asked)
            && ping.poll_pong(cx).is_ready()
        {
            self.asked = None;
            self.state.check.set(false);
            self.state.changed.notify_waiters();
        }
    }

    fn ask(&mut self, now: Instant) {
        if let Some(ping) = &mut self.ping
            && ping.send_ping(Ping::opaque()).is_ok()
        {
            self.asked = Some(now);
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
        if let Some(asked) = self.asked {
            let until = asked.max(heard) + self.pace.ping_timeout;
            return if until <= now { Err(Overdue) } else { Ok(Next::Wait(Some(until))) };
        }
        let silent_until = heard + self.pace.ping_every;
        let busy = self.state.streams.get() > 0;
        if self.ping.is_some() && (self.state.check.get() || (busy && silent_until <= now)) {
            return Ok(Next::Ping);
        }
        Ok(Next::Wait((busy && self.ping.is_some()).then_some(silent_until)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.state.ended.set(true);
        self.state.changed.notify_waiters();
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
