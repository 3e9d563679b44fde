//! Serves the admin API: its own connections, limits and deadlines, on a runtime of its own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time;

use super::Bounds;
use super::bind::AdminListener;
use super::seats::Seats;

/// Pause after an accept that failed, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest request head, in bytes; what comes with the last of it may be as much again.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a request head.
const HEAD_FIELDS_MAX: usize = 64;

/// The network part of an IPv6 address, /64.
const NETWORK_MASK: u128 = !0 << 64;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process that reached the address.
    Tcp(SocketAddr),
    /// A process allowed to open the socket.
    Unix,
}

/// Who can reach a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Processes that may open the file.
    Unix,
    /// Processes on this machine.
    Loopback,
    /// Other machines, too.
    Network,
}

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    reach: Reach,
    /// Whether an answer goes on for as long as its reader wants.
    endless: Arc<watch::Sender<bool>>,
    /// Whether the API stops.
    stopping: watch::Receiver<bool>,
}

/// While it lives, its connection does not grow too old.
pub(super) struct Endless(Arc<watch::Sender<bool>>);

/// Serves `router` until `shutdown`, then lets requests in hand finish for at most [`Bounds::stop`].
pub async fn serve(listener: AdminListener, router: Router, bounds: Bounds, shutdown: impl Future<Output = ()> + Send) {
    let (reach, slots) = (listener.reach(), Arc::new(Semaphore::new(bounds.connections)));
    let neighbours = Seats::new(bounds.connections, bounds.connections_per_address);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // A slot before an accept: whoever is too many waits in the accept queue, an operator is not turned away.
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            listener.accept().await.map(|accepted| (slot, accepted))
        };
        let (slot, (stream, peer)) = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "admin: a connection ended unexpectedly");
                }
                continue;
            }
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "admin: accept failed");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        // Closed without a word: it costs nothing to come again.
        let Ok(seat) = peer.neighbour(reach).map(|address| neighbours.take(address)).transpose() else { continue };
        let known =
            Connection { peer, reach, endless: Arc::new(watch::Sender::new(false)), stopping: stopping.clone() };
        let router = router.clone();
        connections.spawn(async move {
            match stream {
                Stream::Tcp(stream) => connection(stream, router, bounds, known).await,
                Stream::Unix(stream) => connection(stream, router, bounds, known).await,
            }
            drop((slot, seat));
        });
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if time::timeout(bounds.stop, all).await.is_err() {
        tracing::warn!("admin: connections cut at the stop deadline");
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn connection<S>(stream: S, router: Router, bounds: Bounds, known: Connection)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut endless, mut stopping) = (known.endless.subscribe(), known.stopping.clone());
    let service = TowerToHyperService::new(router.layer(Extension(known)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let aged = async {
        time::sleep(bounds.age).await;
        // An error: the connection is gone with its router.
        let _ = endless.wait_for(|endless| !endless).await;
    };
    tokio::select! {
        // How a client leaves is its own affair.
        _ = connection.as_mut() => return,
        () = aged => {}
        _ = stopping.wait_for(|&stopping| stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = time::timeout(bounds.age, connection).await;
}

// === impl Connection ===

impl Connection {
    /// Keeps the connection from growing too old.
    pub(super) fn endless(&self) -> Endless {
        self.endless.send_replace(true);
        Endless(Arc::clone(&self.endless))
    }

    /// Who could have opened it.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// Told when the API stops.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    #[cfg(test)]
    pub(super) fn fake(peer: Peer, reach: Reach) -> Self {
        let stopping = watch::Sender::new(false).subscribe();
        Self { peer, reach, endless: Arc::new(watch::Sender::new(false)), stopping }
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

// === impl Peer ===

impl Peer {
    /// How the peer is called in events, if it has no better name.
    #[must_use]
    pub fn actor(self) -> String {
        match self {
            Self::Tcp(address) => format!("admin {address}"),
            Self::Unix => "admin unix".to_owned(),
        }
    }

    /// Where it is, in the audit.
    #[must_use]
    pub fn source(self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix => "unix".to_owned(),
        }
    }

    /// What tells it from others where `reach` lets other machines in: its address, or its network where one machine has many.
    fn neighbour(self, reach: Reach) -> Option<IpAddr> {
        match (reach, self) {
            (Reach::Network, Self::Tcp(address)) => Some(match address.ip().to_canonical() {
                IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK_MASK)),
                ip @ IpAddr::V4(_) => ip,
            }),
            _ => None,
        }
    }
}

// === impl AdminListener ===

impl AdminListener {
    /// Who can reach it. An address that cannot be told is taken for the most open one.
    fn reach(&self) -> Reach {
        match self {
            Self::Unix(..) => Reach::Unix,
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) if address.ip().to_canonical().is_loopback() => Reach::Loopback,
                _ => Reach::Network,
            },
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| (Stream::Unix(stream), Peer::Unix)),
        }
    }
}
