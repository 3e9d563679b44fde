//! Where all requests end: two releases over HTTP/1.1 and two over HTTP/2 with prior knowledge, on one thread, as cheap as it gets, since it
//! shares its processor with the load. It counts what it answered; figures per request are divided by that.

mod chunked;
mod grpc;
mod plain;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::net::{TcpListener, TcpSocket};

use crate::process::pin_current_thread;

/// Connections waiting to be accepted.
const BACKLOG: u32 = 4_096;

/// A running origin. Its thread ends with the process.
#[derive(Clone, Debug)]
pub struct Origin {
    /// HTTP/1.1, the release in service.
    pub stable: SocketAddr,
    /// HTTP/1.1, the release on trial.
    pub candidate: SocketAddr,
    /// HTTP/2, the release in service.
    pub grpc_stable: SocketAddr,
    /// HTTP/2, the release on trial.
    pub grpc_candidate: SocketAddr,
    served: Arc<Served>,
}

/// Requests answered.
#[derive(Debug, Default)]
struct Served {
    stable: AtomicU64,
    candidate: AtomicU64,
}

/// Which release answers.
#[derive(Clone, Copy, Debug)]
enum Pool {
    Stable,
    Candidate,
}

// === impl Origin ===

impl Origin {
    /// Starts it on its own thread, on processor `core`, on ports the system chooses.
    ///
    /// # Errors
    /// When a socket or the thread cannot be had.
    pub fn start(core: usize) -> io::Result<Self> {
        let bind = || -> io::Result<std::net::TcpListener> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = [bind()?, bind()?, bind()?, bind()?];
        let origin = Self {
            stable: listeners[0].local_addr()?,
            candidate: listeners[1].local_addr()?,
            grpc_stable: listeners[2].local_addr()?,
            grpc_candidate: listeners[3].local_addr()?,
            served: Arc::default(),
        };
        let served = Arc::clone(&origin.served);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("origin".into()).spawn(move || {
            if let Err(e) = pin_current_thread(core) {
                eprintln!("the origin could not be pinned: {e}");
            }
            let served = runtime.block_on(tokio::task::LocalSet::new().run_until(serve(listeners, served)));
            eprintln!("the origin ended: {served:?}");
        })?;
        Ok(origin)
    }

    /// Requests answered so far by stable and candidate.
    #[must_use]
    pub fn served(&self) -> (u64, u64) {
        (self.served.stable.load(Relaxed), self.served.candidate.load(Relaxed))
    }

    /// Requests answered so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        let (stable, candidate) = self.served();
        stable + candidate
    }
}

// === impl Served ===

impl Served {
    fn count(&self, pool: Pool) {
        let counter = match pool {
            Pool::Stable => &self.stable,
            Pool::Candidate => &self.candidate,
        };
        counter.fetch_add(1, Relaxed);
    }
}

// === impl Pool ===

impl Pool {
    /// The value of the field `x-pool` in every response.
    fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }
}

async fn serve(listeners: [std::net::TcpListener; 4], served: Arc<Served>) -> io::Result<()> {
    let [stable, candidate, grpc_stable, grpc_candidate] = listeners;
    tokio::try_join!(
        plain::accept(deepen(stable)?, Pool::Stable, Arc::clone(&served)),
        plain::accept(deepen(candidate)?, Pool::Candidate, Arc::clone(&served)),
        grpc::accept(deepen(grpc_stable)?, Pool::Stable, Arc::clone(&served)),
        grpc::accept(deepen(grpc_candidate)?, Pool::Candidate, served),
    )?;
    Ok(())
}

/// The same socket with a queue of [`BACKLOG`]: the standard library asks for 128, and listening again changes it.
fn deepen(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    TcpSocket::from_std_stream(std::net::TcpStream::from(std::os::fd::OwnedFd::from(listener))).listen(BACKLOG)
}
