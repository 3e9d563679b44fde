//! Where the admin API listens: loopback, or a unix socket only its owner may open.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use tokio::net::{TcpListener, UnixListener};

use crate::config::settings::ListenAddress;
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

/// Binds `address`.
///
/// # Errors
/// An address that is not loopback, one in use, a path that is not a socket, or what the system says; the address is in the message.
pub async fn bind(address: &ListenAddress) -> Result<AdminListener> {
    let bound = match address {
        ListenAddress::Tcp(address) if !address.ip().is_loopback() => {
            Err(Error::new(ErrorKind::InvalidInput, "only a loopback address or unix:/path is allowed here"))
        }
        ListenAddress::Tcp(address) => TcpListener::bind(address).await.map(AdminListener::Tcp),
        ListenAddress::Unix(path) => bind_unix(path),
    };
    bound.map_err(|error| Error::new(error.kind(), format!("admin.listen: {address}: {error}")))
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
