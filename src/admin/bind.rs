//! Where the admin API listens: loopback, a unix socket only its owner may open, or anywhere if there are tokens.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use crate::config::settings::{Admin, ListenAddress};
use crate::net::socket::{Address, ListenSocket, ListenSpec, SocketFile, bind_all};

/// Mode of the unix socket: its owner alone.
const SOCKET_MODE: u32 = 0o600;

/// A bound admin socket.
#[derive(Debug)]
pub enum AdminListener {
    /// On loopback.
    Tcp(TcpListener),
    /// On a unix socket, whose file goes with it.
    Unix(UnixListener, Option<SocketFile>),
}

/// Binds where `admin` wants its API.
///
/// # Errors
/// An address other machines can reach although there is no token, one in use, a path that is not a socket, or what the system says; the
/// address is in the message.
pub async fn bind(admin: &Admin) -> Result<AdminListener> {
    let address = &admin.listen;
    if address.is_remote() && admin.tokens.is_empty() {
        let why = "without [admin] tokens only a loopback address or unix:/path is allowed here";
        return Err(Error::new(ErrorKind::InvalidInput, format!("admin.listen: {address}: {why}")));
    }
    bind_to("admin.listen", address).await
}

/// Binds where the probes are answered: anywhere.
///
/// # Errors
/// As [`bind`], but for the tokens.
pub async fn bind_probes(address: &ListenAddress) -> Result<AdminListener> {
    bind_to("admin.probe_listen", address).await
}

async fn bind_to(key: &str, address: &ListenAddress) -> Result<AdminListener> {
    let bound = match address {
        ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(AdminListener::Tcp),
        ListenAddress::Unix(path) => bind_unix(path),
    };
    bound.map_err(|error| Error::new(error.kind(), format!("{key}: {address}: {error}")))
}

fn bind_unix(path: &Path) -> Result<AdminListener> {
    let address = Address::Unix(path.to_owned());
    let mut bound = bind_all(&ListenSpec { address, exclusive: true, mode: Some(SOCKET_MODE) }, 1)?;
    match bound.sockets.pop() {
        Some(ListenSocket::Unix(socket)) => Ok(AdminListener::Unix(UnixListener::from_std(socket)?, bound.file)),
        _ => Err(Error::new(ErrorKind::InvalidInput, "not a unix socket")),
    }
}

// === impl AdminListener ===

impl AdminListener {
    /// Where it is bound (port 0 resolved); unix sockets know themselves by no path any more.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp_address(&self) -> Result<Option<std::net::SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(..) => Ok(None),
        }
    }
}
