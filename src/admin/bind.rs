//! Where the admin API listens: loopback, or a unix socket only its owner may open.

use std::fs::{self, Permissions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::settings::ListenAddress;

/// Mode of the unix socket: its owner alone.
const SOCKET_MODE: u32 = 0o600;

/// A bound admin socket.
#[derive(Debug)]
pub enum AdminListener {
    /// On loopback.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
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
        ListenAddress::Unix(path) => bind_unix(path).await.map(AdminListener::Unix),
    };
    bound.map_err(|error| Error::new(error.kind(), format!("admin.listen: {address}: {error}")))
}

/// Binds beside `path` and moves the socket there once its mode is right, so that at no time anyone else may open it.
async fn bind_unix(path: &Path) -> Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is something that is not a socket"));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(Error::new(ErrorKind::AddrInUse, "another process answers there"));
        }
        // Left behind by a process that is gone: the move below replaces it.
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let moved =
        fs::set_permissions(&beside, Permissions::from_mode(SOCKET_MODE)).and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        let _ = fs::remove_file(&beside);
    }
    moved.map(|()| listener)
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
            Self::Unix(_) => Ok(None),
        }
    }
}
