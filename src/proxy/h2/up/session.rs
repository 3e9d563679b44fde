//! One HTTP/2 connection to an upstream as those see it who want streams on it.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::sync::Notify;

use crate::clock;
use crate::net::socket::keep_alive;
use crate::proxy::h1::head::RESPONSE_HEAD_MAX;
use crate::proxy::h2::body::SEND_BUFFER_MAX;
use crate::proxy::h2::io::gather;
use crate::proxy::h2::limits::{HEADER_LIST_FACTOR, RESET_FACTOR, RESET_REMEMBERED, small_frames_max};
use crate::proxy::io::{Buf, Stream};
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;
use crate::state::pool::Connection as Connected;

use super::keeper::{Keeper, State, Watched};

/// Most streams at once on one session, whatever more its peer allows.
pub const STREAMS_MAX: usize = STREAMS as usize;
const STREAMS: u32 = 100;
/// Receive window of one stream, in bytes: most that waits for a slow client.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// Receive window of a session, in bytes: that of all its streams together, so that however many clients are slow the others go on.
pub const SESSION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// Largest frame payload taken, in bytes.
const FRAME_MAX: u32 = 16 * 1024;
/// What the stream limit reads before the peer's first SETTINGS came.
pub(super) const SETTINGS_PENDING: usize = usize::MAX - 1;

/// Most PINGs on a session between two answers or parts of an answer. Servers of gRPC take more for abuse and close the connection with
/// everything on it: they let two pass that come within five minutes (gRPC proposal A8). The kernel's probes go on after that.
pub const PINGS_MAX: u8 = 2;

/// Age of a PING without an answer at which no request goes to its session any more.
const UNANSWERED_MAX: Duration = Duration::from_secs(1);

/// When a session is asked whether it still lives, and how long it may take to say so.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Silence after which a session with open streams is sent a PING, [`PINGS_MAX`] times.
    pub ping_every: Duration,
    /// Silence after a PING that ends the session.
    pub ping_timeout: Duration,
    /// Silence after which a session is sent a PING, and answers it, before another request goes there.
    pub check_after: Duration,
}

/// The pace of all sessions.
pub const PACE: Pace = Pace {
    ping_every: Duration::from_secs(10),
    ping_timeout: Duration::from_secs(5),
    check_after: Duration::from_secs(5),
};

/// What requests that want a stream to one endpoint are told.
#[derive(Debug, Default)]
pub struct Signals {
    /// A stream ended: one of those hears it that wait for a stream, and nobody else, who could not pass it on.
    pub freed: Notify,
    /// A session was opened or not, showed that it lives, or ended: all hear it that wait for that.
    pub news: Notify,
}

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

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It was heard of lately.
    Sound,
    /// It has to answer a PING first.
    Doubtful,
    /// It does not answer, or must not be asked any more.
    Lost,
}

/// One stream of a session, from before its request until nothing of it is needed.
pub struct Lease {
    session: Rc<Session>,
    worker: Rc<Worker>,
    /// The session had carried a response before.
    proven: bool,
    /// Opens the stream.
    pub send: SendRequest<Bytes>,
}

/// Opens a session on `stream`: ready once the peer has shown by its SETTINGS that it speaks HTTP/2 and how many streams it takes.
/// `signals` is given what waiting requests want to hear. The caller bounds the wait.
///
/// # Errors
/// The connection ended before that.
pub async fn open(
    worker: &Rc<Worker>,
    stream: Stream,
    endpoint: &Arc<EndpointLive>,
    (dial_tag, room): (u64, Connected),
    signals: &Rc<Signals>,
    pace: Pace,
) -> io::Result<Session> {
    let secure = matches!(stream, Stream::Dialled(_));
    // Of those with TLS the connector does it.
    if let Stream::Tcp(tcp) = &stream {
        keep_alive(tcp)?;
    }
    let state = Rc::new(State::new(clock::now(), signals));
    let (io, out) = gather(stream, Buf::default(), None);
    let watched = Watched::new(io, &state);
    let (send, connection) = builder().handshake(watched).await.map_err(io::Error::other)?;
    let session = Session { send, state, endpoint: Arc::clone(endpoint), dial_tag, opened: clock::now(), secure };
    tokio::task::spawn_local(Keeper::new(worker, &session.state, connection, out, room, pace));
    loop {
        let notified = signals.news.notified();
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
        .data_frame_budget(small_frames_max(STREAM_WINDOW, SESSION_WINDOW))
        .max_header_list_size(u32::try_from(RESPONSE_HEAD_MAX).unwrap_or(u32::MAX).saturating_mul(HEADER_LIST_FACTOR))
        .max_concurrent_reset_streams(RESET_FACTOR * STREAMS_MAX)
        .reset_stream_duration(RESET_REMEMBERED)
        .max_local_error_reset_streams(None)
        .max_send_buffer_size(SEND_BUFFER_MAX);
    builder
}

// === impl Signals ===

impl Signals {
    /// Tells everybody, those included that wait for a stream: there may be another way to one.
    pub fn tell_all(&self) {
        self.news.notify_waiters();
        self.freed.notify_waiters();
    }
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

    /// How far a request that came at `came` can rely on it. Requests under way on a session are no reason to trust it: behind a network that
    /// swallows everything they only wait.
    #[must_use]
    pub fn trust(&self, came: Instant, now: Instant, pace: Pace) -> Trust {
        let state = &self.state;
        let heard = state.heard.get();
        if heard >= came || now.saturating_duration_since(heard) < pace.check_after {
            return Trust::Sound;
        }
        match state.asked.get() {
            Some(asked) if now.saturating_duration_since(asked) >= UNANSWERED_MAX => Trust::Lost,
            None if state.pings.get() >= PINGS_MAX => {
                if self.is_idle() {
                    Trust::Lost
                } else {
                    Trust::Sound
                }
            }
            _ => Trust::Doubtful,
        }
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
        let proven = self.state.proven.get();
        Lease { session: Rc::clone(self), worker: Rc::clone(worker), proven, send: self.send.clone() }
    }
}

// === impl Lease ===

impl Lease {
    /// Whether the session is encrypted.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.session.secure
    }

    /// Whether the session had answered any request when the stream was leased. One that has not is no old connection, however many share it.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Part of an answer came: its server does other things than answer PINGs.
    pub fn answered(&self) {
        self.session.state.answered();
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
        state.signals.freed.notify_one();
        if self.session.is_idle() && self.session.endpoint.pool.is_waited_for() {
            self.worker.ring();
        }
        self.worker.shard().streams.sub(1);
    }
}
