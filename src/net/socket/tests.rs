//! Real sockets on ephemeral ports and in a folder of their own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-socket-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn tcp(address: impl Into<SocketAddr>, exclusive: bool) -> ListenSpec {
    ListenSpec { address: Address::Tcp(address.into()), exclusive, mode: None }
}

fn unix(path: &Path, mode: Option<u32>) -> ListenSpec {
    ListenSpec { address: Address::Unix(path.to_owned()), exclusive: true, mode }
}

fn address(bound: &Bound) -> SocketAddr {
    match bound.address {
        Address::Tcp(address) => address,
        Address::Unix(_) => unreachable!(),
    }
}

/// Accepts on all of `sockets` until `count` connections came; how many each had. What is connected may take a moment to be queued.
fn accept(sockets: &[ListenSocket], count: usize) -> Vec<usize> {
    let mut shares = vec![0; sockets.len()];
    let deadline = crate::clock::now() + Duration::from_secs(10);
    while shares.iter().sum::<usize>() < count {
        assert!(crate::clock::now() < deadline, "{shares:?} of {count}");
        for (socket, share) in sockets.iter().zip(&mut shares) {
            *share += usize::from(accept_one(socket).is_ok());
        }
        std::thread::yield_now();
    }
    shares
}

fn accept_one(socket: &ListenSocket) -> io::Result<()> {
    match socket {
        ListenSocket::Tcp(socket) => socket.accept().map(drop),
        ListenSocket::Unix(socket) => socket.accept().map(drop),
    }
}

#[test]
fn workers_share_one_port_and_every_connection_arrives() {
    let bound = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 4).unwrap();
    assert_eq!(bound.sockets.len(), 4);
    assert_ne!(address(&bound).port(), 0);
    let clients: Vec<_> = (0..200).map(|_| TcpStream::connect(address(&bound)).unwrap()).collect();
    let shares = accept(&bound.sockets, clients.len());
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

#[test]
fn sockets_do_not_block_and_have_a_long_queue() {
    let bound = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 1).unwrap();
    assert_eq!(accept_one(&bound.sockets[0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let clients: Vec<_> = (0..300).map(|_| TcpStream::connect(address(&bound)).unwrap()).collect();
    accept(&bound.sockets, clients.len());
}

#[test]
fn a_second_instance_cannot_share_an_address_by_accident() {
    let first = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 2).unwrap();
    let error = bind_all(&tcp(address(&first), true), 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on {}: another process listens there", address(&first)));
    // The wildcard address includes it.
    assert!(bind_all(&tcp((Ipv4Addr::UNSPECIFIED, address(&first).port()), true), 1).is_err());
    // A successor that means it.
    let second = bind_all(&tcp(address(&first), false), 2).unwrap();
    assert_eq!(address(&second), address(&first));
    drop((first, second));
}

#[test]
fn an_address_that_does_not_want_to_be_shared_is_not() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    for exclusive in [true, false] {
        let error = bind_all(&tcp(other.local_addr().unwrap(), exclusive), 1).unwrap_err();
        assert!(error.to_string().ends_with("another process listens there"), "{error}");
    }
}

#[test]
fn an_address_is_free_again_although_connections_of_the_last_run_linger() {
    let first = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 1).unwrap();
    let address = address(&first);
    let mut client = TcpStream::connect(address).unwrap();
    let ListenSocket::Tcp(socket) = &first.sockets[0] else { unreachable!() };
    let (server, _) = socket.accept().unwrap();
    // The side that closes first is the one in TIME_WAIT.
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop((client, first));
    bind_all(&tcp(address, true), 2).unwrap();
}

#[test]
fn an_ipv6_wildcard_leaves_ipv4_alone() {
    let Ok(six) = bind_all(&tcp((Ipv6Addr::UNSPECIFIED, 0), true), 2) else {
        return assert!(TcpListener::bind("[::1]:0").is_err(), "only where there is no IPv6");
    };
    let port = address(&six).port();
    let four = bind_all(&tcp((Ipv4Addr::UNSPECIFIED, port), true), 2).unwrap();
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    accept(&four.sockets, 1);
    assert!(six.sockets.iter().all(|socket| accept_one(socket).is_err()));
}

#[test]
fn what_cannot_be_bound_is_said() {
    let error = bind_all(&tcp((Ipv4Addr::new(192, 0, 2, 1), 80), false), 1).unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:80: this machine has no such address");
    let folder = Folder::new();
    let error = bind_all(&unix(&folder.0.join("no/such.sock"), None), 1).unwrap_err();
    assert!(error.to_string().ends_with("such.sock: its folder does not exist"), "{error}");
}

#[test]
fn unix_sockets_are_one_queue_for_all_workers_and_the_file_goes_with_them() {
    let folder = Folder::new();
    let path = folder.0.join("web.sock");
    let bound = bind_all(&unix(&path, None), 3).unwrap();
    assert_eq!((bound.sockets.len(), &bound.address), (3, &Address::Unix(path.clone())));
    let clients: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(accept(&bound.sockets, 3), [1, 1, 1]);
    assert_eq!(accept_one(&bound.sockets[2]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop((bound, clients));
    assert!(!path.exists());
}

#[test]
fn when_the_file_goes_first_the_queue_can_be_emptied() {
    let folder = Folder::new();
    let path = folder.0.join("web.sock");
    let Bound { file, sockets, .. } = bind_all(&unix(&path, None), 1).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    drop(file);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    accept(&sockets, 1);
    assert!(accept_one(&sockets[0]).is_err());
}

#[test]
fn permissions_are_as_given_or_as_the_umask_lets() {
    let folder = Folder::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for wanted in [0o600, 0o660, 0o666] {
        let path = folder.0.join(format!("{wanted:o}.sock"));
        let _bound = bind_all(&unix(&path, Some(wanted)), 1).unwrap();
        assert_eq!(mode(&path), wanted);
    }
    let plain = folder.0.join("plain");
    File::create(&plain).unwrap();
    let path = folder.0.join("default.sock");
    let _bound = bind_all(&unix(&path, None), 1).unwrap();
    assert_eq!(mode(&path), mode(&plain), "a file is made with 0666 and the umask too");
}

#[test]
fn a_stale_socket_file_is_replaced_a_live_one_is_not() {
    let folder = Folder::new();
    let path = folder.0.join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let bound = bind_all(&unix(&path, None), 1).unwrap();
    let error = bind_all(&unix(&path, None), 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(error.to_string(), format!("cannot listen on unix:{}: another process listens there", path.display()));
    let _client = UnixStream::connect(&path).unwrap();
    accept(&bound.sockets, 1);
}

#[test]
fn a_live_socket_with_a_full_queue_is_live() {
    let folder = Folder::new();
    let path = folder.0.join("web.sock");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    assert_eq!(bind_all(&unix(&path, None), 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert!(path.exists());
}

#[test]
fn only_sockets_are_ever_replaced() {
    let folder = Folder::new();
    let path = folder.0.join("tidegate.toml");
    File::create(&path).unwrap().write_all(b"precious").unwrap();
    let error = bind_all(&unix(&path, None), 1).unwrap_err();
    assert!(error.to_string().ends_with("a file that is not a socket is in the way"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_file_that_another_process_put_there_stays() {
    let folder = Folder::new();
    let path = folder.0.join("web.sock");
    let first = bind_all(&unix(&path, None), 1).unwrap();
    fs::remove_file(&path).unwrap();
    let second = bind_all(&unix(&path, None), 1).unwrap();
    drop(first);
    let _client = UnixStream::connect(&path).unwrap();
    accept(&second.sockets, 1);
}

#[test]
fn a_path_has_at_most_107_bytes() {
    let folder = Folder::new();
    let longest = UNIX_PATH_BYTES_MAX - folder.0.as_os_str().len() - 1;
    let path = folder.0.join("x".repeat(longest));
    let _bound = bind_all(&unix(&path, None), 1).unwrap();
    let error = bind_all(&unix(&folder.0.join("x".repeat(longest + 1)), None), 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().ends_with("its path has 108 bytes, the longest of a unix socket has 107"), "{error}");
}

#[test]
fn open_files_are_raised_to_the_hard_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let (before, after) = raise_open_files();
    assert!(before <= after);
    assert_eq!(after, hard.unwrap_or(u64::MAX));
    assert_eq!(getrlimit(Resource::Nofile).current, hard);
    assert_eq!(raise_open_files(), (after, after));
}

#[test]
fn what_is_accepted_sends_small_writes_at_once() {
    let bound = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 2).unwrap();
    let _client = TcpStream::connect(address(&bound)).unwrap();
    let accept = || {
        bound.sockets.iter().find_map(|socket| match socket {
            ListenSocket::Tcp(socket) => socket.accept().ok(),
            ListenSocket::Unix(_) => None,
        })
    };
    let (server, _) = std::iter::repeat_with(accept).flatten().next().unwrap();
    assert!(server.nodelay().unwrap());
}

#[test]
fn the_kernel_looks_after_peers_that_are_gone() {
    let bound = bind_all(&tcp((Ipv4Addr::LOCALHOST, 0), true), 1).unwrap();
    let stream = TcpStream::connect(address(&bound)).unwrap();
    keep_alive(&stream).unwrap();
    let socket = SockRef::from(&stream);
    assert_eq!((socket.keepalive().unwrap(), socket.tcp_keepalive_time().unwrap()), (true, PROBE_AFTER));
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GONE_AFTER));
    // The kernel gives up by time before it does by count.
    assert!(PROBE_AFTER + PROBE_INTERVAL * PROBES_MAX > GONE_AFTER);
}
