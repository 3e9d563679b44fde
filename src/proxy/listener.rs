//! Listeners on a worker: accepting, limits, the TLS handshake, emptying the queue before a socket goes.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::clock;
use crate::config::settings::Listener;
use crate::net::socket::{self, ListenSocket};
use crate::net::tls::ALPN_HTTP2;

use super::facts::ConnFacts;
use super::forward::within;
use super::h1::connection::{self, Preface};
use super::h2::down;
use super::io::{Buf, Stream};
use super::worker::Worker;

/// Most connections taken from an accept queue when its listener closes: what the kernel keeps, and those that come meanwhile.
const QUEUE_MAX: usize = 2 * socket::BACKLOG as usize;
/// Pause after accepting failed, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a connection over the limit is told before it is closed.
const SHED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 24\r\n\
retry-after: 1\r\nconnection: close\r\n\r\ntoo many connections now\n";

/// A listener as all workers see it.
pub struct ListenerLive {
    settings: ArcSwap<Listener>,
    tls: ArcSwapOption<ServerConfig>,
    open: AtomicU32,
    closed: AtomicBool,
}

/// One worker's listening socket.
pub type Sockets = ListenSocket;

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// Counts a connection as open, on its listener and its worker, until dropped.
struct Open {
    worker: Rc<Worker>,
    live: Arc<ListenerLive>,
}

// === impl ListenerLive ===

impl ListenerLive {
    /// A listener with these settings.
    #[must_use]
    pub fn new(settings: Arc<Listener>, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            settings: ArcSwap::new(settings),
            tls: ArcSwapOption::new(tls),
            open: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Takes over other settings, for connections accepted from now on.
    pub fn replace(&self, settings: Arc<Listener>, tls: Option<Arc<ServerConfig>>) {
        self.settings.store(settings);
        self.tls.store(tls);
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Listener> {
        self.settings.load_full()
    }

    /// The TLS configuration in force.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// Tells the accept loops to end.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn admit(&self, max: u32) -> bool {
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1)).is_ok()
    }
}

// === impl Open ===

impl Open {
    fn new(worker: &Rc<Worker>, live: &Arc<ListenerLive>) -> Self {
        worker.count_connection(true);
        Self { worker: Rc::clone(worker), live: Arc::clone(live) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.live.open.fetch_sub(1, Ordering::Relaxed);
        self.worker.count_connection(false);
    }
}

/// Accepts on `socket` until the listener closes or the worker drains.
pub fn listen(worker: &Rc<Worker>, live: Arc<ListenerLive>, socket: ListenSocket) {
    let accepting = match socket {
        ListenSocket::Tcp(socket) => TcpListener::from_std(socket).map(Accepting::Tcp),
        ListenSocket::Unix(socket) => UnixListener::from_std(socket).map(Accepting::Unix),
    };
    match accepting {
        Ok(accepting) => {
            worker.count_accepting(true);
            tokio::task::spawn_local(accept_loop(Rc::clone(worker), live, accepting));
        }
        Err(error) => tracing::error!(listener = %live.settings().listen, %error, "cannot accept"),
    }
}

async fn accept_loop(worker: Rc<Worker>, live: Arc<ListenerLive>, mut socket: Accepting) {
    let changed = worker.changed();
    let alarm = worker.alarm();
    let mut failing = false;
    loop {
        let notified = changed.notified();
        if live.is_closed() || worker.draining().is_some_and(|d| d.accept_until <= clock::now()) {
            break;
        }
        let deadline = worker.draining().map(|d| d.accept_until);
        let accepted = tokio::select! {
            biased;
            accepted = within(&alarm, deadline, poll_fn(|cx| socket.poll_accept(cx))) => accepted,
            () = notified => None,
        };
        match accepted {
            Some(Ok(accepted)) => {
                failing = false;
                welcome(&worker, &live, accepted);
            }
            Some(Err(error)) if is_gone(&error) => {}
            Some(Err(error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(listener = %live.settings().listen, %error, "accepting fails; it is tried again and again");
                }
                within(&alarm, Some(clock::now() + ACCEPT_PAUSE), std::future::pending::<()>()).await;
            }
            None => {}
        }
    }
    empty_queue(&worker, &live, socket);
    worker.count_accepting(false);
}

/// Serves whoever connected before the listener closes. Asks the socket itself: the event loop may not have heard of them yet.
fn empty_queue(worker: &Rc<Worker>, live: &Arc<ListenerLive>, socket: Accepting) {
    let waiting = match socket.into_queue() {
        Ok(waiting) => waiting,
        Err(error) => return tracing::error!(listener = %live.settings().listen, %error, "the accept queue is lost"),
    };
    for _ in 0..QUEUE_MAX {
        match accept_now(&waiting) {
            Ok(accepted) => welcome(worker, live, accepted),
            Err(error) if is_gone(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                return tracing::error!(listener = %live.settings().listen, %error, "the accept queue is lost");
            }
        }
    }
}

/// Whether it is only the client that was gone before it was accepted.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn welcome(worker: &Rc<Worker>, live: &Arc<ListenerLive>, accepted: Accepted) {
    let settings = live.settings();
    if !live.admit(settings.limits.max_connections) {
        worker.shard().shed.add(1);
        accepted.shed(live.tls.load().is_some());
        return;
    }
    worker.shard().accepted.add(1);
    let open = Open::new(worker, live);
    tokio::task::spawn_local(serve(Rc::clone(worker), open, settings, accepted));
}

async fn serve(worker: Rc<Worker>, open: Open, settings: Arc<Listener>, accepted: Accepted) {
    let peer = accepted.peer();
    let io = match open.live.tls() {
        None => accepted.plain(),
        Some(config) => {
            let deadline = clock::now() + settings.limits.tls_handshake;
            // Boxed: it is large and soon over, and every connection would carry room for it.
            let Some(io) = Box::pin(accepted.handshake(&worker, config, deadline)).await else {
                worker.shard().tls_failures.add(1);
                return;
            };
            io
        }
    };
    let facts = Rc::new(ConnFacts::new(settings, peer, io.is_tls()));
    // A connection of HTTP/2 is one for many clients' requests: boxed, so that the others do not carry room for it.
    if io.alpn() == Some(ALPN_HTTP2) {
        Box::pin(down::serve(&worker, io, Buf::default(), facts)).await;
    } else if let Some(Preface(io, ahead)) = connection::serve(&worker, io, Rc::clone(&facts)).await {
        Box::pin(down::serve(&worker, io, ahead, facts)).await;
    }
    drop(open);
}

// === impl Accepting ===

impl Accepting {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(socket) => socket.poll_accept(cx).map_ok(|(stream, from)| {
                // Inherited on Linux. A connection that is gone already fails at its first read.
                #[cfg(not(target_os = "linux"))]
                let _ = stream.set_nodelay(true);
                Accepted::Tcp(stream, from.ip())
            }),
            Self::Unix(socket) => socket.poll_accept(cx).map_ok(|(stream, _)| Accepted::Unix(stream)),
        }
    }

    fn into_queue(self) -> io::Result<ListenSocket> {
        match self {
            Self::Tcp(socket) => socket.into_std().map(ListenSocket::Tcp),
            Self::Unix(socket) => socket.into_std().map(ListenSocket::Unix),
        }
    }
}

/// Takes one connection from the queue, without waiting for one.
fn accept_now(queue: &ListenSocket) -> io::Result<Accepted> {
    match queue {
        ListenSocket::Tcp(socket) => {
            let (stream, from) = socket.accept()?;
            stream.set_nonblocking(true)?;
            #[cfg(not(target_os = "linux"))]
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(TcpStream::from_std(stream)?, from.ip()))
        }
        ListenSocket::Unix(socket) => {
            let (stream, _) = socket.accept()?;
            stream.set_nonblocking(true)?;
            Ok(Accepted::Unix(UnixStream::from_std(stream)?))
        }
    }
}

// === impl Accepted ===

impl Accepted {
    fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(_, ip) => Some(*ip),
            Self::Unix(_) => None,
        }
    }

    fn plain(self) -> Stream {
        match self {
            Self::Tcp(stream, _) => Stream::Tcp(stream),
            Self::Unix(stream) => Stream::Unix(stream),
        }
    }

    async fn handshake(self, worker: &Worker, config: Arc<ServerConfig>, deadline: Instant) -> Option<Stream> {
        let (alarm, acceptor) = (worker.alarm(), TlsAcceptor::from(config));
        match self {
            Self::Tcp(stream, _) => {
                let tls = within(&alarm, Some(deadline), acceptor.accept(stream)).await?.ok()?;
                Some(Stream::Tls(Box::new(tls)))
            }
            Self::Unix(stream) => {
                let tls = within(&alarm, Some(deadline), acceptor.accept(stream)).await?.ok()?;
                Some(Stream::TlsUnix(Box::new(tls)))
            }
        }
    }

    /// Says why and hangs up, as cheaply as possible: one write that may fail.
    fn shed(self, tls: bool) {
        if tls {
            return;
        }
        let _ = match self {
            Self::Tcp(stream, _) => stream.try_write(SHED),
            Self::Unix(stream) => stream.try_write(SHED),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Limits;
    use crate::proxy::fixture;
    use crate::state::fixture::snapshot;

    /// Most bytes of a connection's task.
    const TASK_MAX: usize = 3_000;

    /// What an idle client connection holds is little more than its task.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        let (worker, _registry) = fixture::worker(snapshot(Vec::new()));
        let settings = fixture::listener(&[], Limits::default());
        let live = Arc::new(ListenerLive::new(Arc::clone(&settings), None));
        let (near, _far) = UnixStream::pair().expect("a pair");
        let task = serve(Rc::clone(&worker), Open::new(&worker, &live), settings, Accepted::Unix(near));
        let size = size_of_val(&task);
        // Never polled, so it never let go of what it holds.
        live.open.fetch_add(1, Ordering::Relaxed);
        assert!(size <= TASK_MAX, "{size} bytes");
    }
}
