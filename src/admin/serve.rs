//! Serves the admin API: its own connections, limits and deadlines, on a runtime of its own.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
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

use super::bind::AdminListener;
use super::{AdminState, Bounds, router};

/// Pause after an accept that failed, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most fields in a request head.
const HEAD_FIELDS_MAX: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, over loopback.
    Tcp(SocketAddr),
    /// A process allowed to open the socket.
    Unix,
}

/// Serves until `shutdown`, then lets requests in hand finish for at most [`Bounds::stop`].
pub async fn serve(listener: AdminListener, state: AdminState, shutdown: impl Future<Output = ()> + Send) {
    let bounds = state.bounds;
    let (router, slots) = (router(state), Arc::new(Semaphore::new(bounds.connections)));
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
        let (router, stopping) = (router.clone().layer(Extension(peer)), stopping.clone());
        connections.spawn(async move {
            match stream {
                Stream::Tcp(stream) => connection(stream, router, bounds, stopping).await,
                Stream::Unix(stream) => connection(stream, router, bounds, stopping).await,
            }
            drop(slot);
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

async fn connection<S>(stream: S, router: Router, bounds: Bounds, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // How a client leaves is its own affair.
        _ = connection.as_mut() => return,
        () = time::sleep(bounds.age) => {}
        _ = stopping.wait_for(|&stopping| stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = time::timeout(bounds.age, connection).await;
}

// === impl Peer ===

impl Peer {
    /// How the peer is called in events.
    #[must_use]
    pub fn actor(self) -> String {
        match self {
            Self::Tcp(address) => format!("admin {address}"),
            Self::Unix => "admin unix".to_owned(),
        }
    }
}

// === impl AdminListener ===

impl AdminListener {
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
