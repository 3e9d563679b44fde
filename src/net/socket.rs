//! Listening sockets, one per worker, bound before anything is published; and the limits of the process that concern sockets.

use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

/// Connections the kernel keeps per listening socket until they are accepted; `net.core.somaxconn` (4096 by default) caps it.
/// Large, because a worker accepts between requests and a client whose connection is not queued waits a second before it tries again.
pub const BACKLOG: i32 = 4096;
/// Longest path of a unix socket, in bytes: `sun_path` is 108 with its final NUL (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Silence after which the kernel probes whether a TCP peer is there.
pub const PROBE_AFTER: Duration = Duration::from_secs(15);
/// Between two probes without an answer.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Most probes without an answer; [`GONE_AFTER`] is over before.
pub const PROBES_MAX: u32 = 6;
/// Longest that a TCP peer may leave unacknowledged what was sent or probed, or take nothing of what waits for it.
pub const GONE_AFTER: Duration = Duration::from_secs(30);

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Port 0 takes a free one. An address means what it says: `[::]` accepts IPv6 only, whatever `net.ipv6.bindv6only` is, so that
    /// it can stand beside `0.0.0.0` and no IPv4 client ever appears as `::ffff:a.b.c.d`, where lists of networks would miss it.
    Tcp(SocketAddr),
    /// The path of a unix socket, at most [`UNIX_PATH_BYTES_MAX`] bytes.
    Unix(PathBuf),
}

/// What is to be bound, and how.
#[derive(Clone, Debug)]
pub struct ListenSpec {
    /// Where.
    pub address: Address,
    /// Refuse a TCP address on which anybody listens already, this process included. Without it a process of the same user shares
    /// the address. A unix socket is never shared.
    pub exclusive: bool,
    /// Permissions of a unix socket's file, exactly; it never has wider ones in between. `None`: 0666 as far as the umask lets.
    pub mode: Option<u32>,
}

/// Bound and listening; nothing is accepted yet, what connects waits in the backlog.
#[derive(Debug)]
pub struct Bound {
    /// Where, with port 0 resolved.
    pub address: Address,
    /// Keeps the file of a unix socket. Drop it first when a listener goes: no new client then finds it, and the queue can be emptied.
    pub file: Option<SocketFile>,
    /// As many as were asked for, all non-blocking. TCP: the kernel spreads connections over them by a hash of the addresses. Unix: all
    /// are one socket with one queue; whoever accepts first has the connection.
    pub sockets: Vec<ListenSocket>,
}

/// A non-blocking listening socket of one worker.
#[derive(Debug)]
pub enum ListenSocket {
    /// TCP
    Tcp(TcpListener),
    /// Unix
    Unix(UnixListener),
}

/// The file of a unix socket: removed on drop if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Inode numbers are reused as soon as a file is gone, so its time belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

/// Binds `count` sockets (at least one) to one address: all of them, or an error and none.
///
/// # Errors
/// The kind of the system's error with a sentence that names the address and the reason.
pub fn bind_all(spec: &ListenSpec, count: usize) -> io::Result<Bound> {
    let bound = match &spec.address {
        Address::Tcp(address) => bind_tcp(*address, spec.exclusive, count.max(1)),
        Address::Unix(path) => bind_unix(path, spec.mode, count.max(1)),
    };
    bound.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {}: {}", spec.address, reason(&e))))
}

/// Raises the limit of open files (`RLIMIT_NOFILE`) as far as the process may. Returns it as it was and as it is now, in files;
/// `u64::MAX`: unlimited.
#[must_use]
pub fn raise_open_files() -> (u64, u64) {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    (before, if raised.is_ok() { limit.maximum.unwrap_or(u64::MAX) } else { before })
}

/// Has the kernel find out that a TCP peer is gone ([`PROBE_AFTER`], [`GONE_AFTER`]: `SO_KEEPALIVE` and `TCP_USER_TIMEOUT`, tcp(7)).
///
/// # Errors
/// The system's, for a connection that is gone.
pub fn keep_alive(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL).with_retries(PROBES_MAX);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(GONE_AFTER))
}

fn bind_tcp(address: SocketAddr, exclusive: bool, count: usize) -> io::Result<Bound> {
    if exclusive {
        // An address to share is shared by every process of this user that asks, a second instance started by accident too. So ask
        // once without sharing: that fails while anybody listens. The port of this probe is not kept: 0 is resolved below.
        listen_tcp(address, false)?;
    }
    let first = listen_tcp(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![ListenSocket::Tcp(first)];
    for _ in 1..count {
        sockets.push(ListenSocket::Tcp(listen_tcp(address, true)?));
    }
    Ok(Bound { address: Address::Tcp(address), file: None, sockets })
}

fn listen_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Or connections of the previous run in TIME_WAIT keep the address for a minute.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // What is accepted inherits it (Linux), which saves a system call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

fn bind_unix(path: &Path, mode: Option<u32>, count: usize) -> io::Result<Bound> {
    let length = path.as_os_str().as_bytes().len();
    if length > UNIX_PATH_BYTES_MAX {
        let reason = format!("its path has {length} bytes, the longest of a unix socket has {UNIX_PATH_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // The file is made with the permissions of the socket (unix(7)): so it is never wider than wanted, not even for a moment.
    let socket = File::from(OwnedFd::from(socket));
    socket.set_permissions(Permissions::from_mode(mode.unwrap_or(0o666)))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    let first = UnixListener::from(OwnedFd::from(socket));
    let mut sockets = Vec::with_capacity(count);
    for _ in 1..count {
        sockets.push(ListenSocket::Unix(first.try_clone()?));
    }
    sockets.push(ListenSocket::Unix(first));
    Ok(Bound { address: Address::Unix(path.to_owned()), file: Some(file), sockets })
}

/// Makes way for a new socket at `path`: removes one on which nobody listens any more, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let before = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Identity::of(&metadata),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    // Non-blocking: with a full queue it would wait for the other process to accept.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(e),
        Ok(()) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
    }
    before.remove(path)
}

/// An error of binding in words.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (a port below 1024 needs CAP_NET_BIND_SERVICE, a unix socket write access to its folder)"
                .to_owned()
        }
        io::ErrorKind::NotFound => "its folder does not exist".to_owned(),
        _ => error.to_string(),
    }
}

// === impl Address ===

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl SocketFile ===

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: Identity::of(&fs::symlink_metadata(path)?) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it fails the next start finds a stale file and replaces it.
        let _ = self.identity.remove(&self.path);
    }
}

// === impl Identity ===

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }

    /// Removes the file at `path` if it is this one; it is no error if it is not.
    fn remove(self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if Self::of(&metadata) == self => fs::remove_file(path),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
