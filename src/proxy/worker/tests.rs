//! What a worker costs per request once it is warm: no memory of the heap.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use tokio::task::LocalSet;

use super::*;
use crate::config::settings::Limits;
use crate::core::endpoint::{Endpoint, Pool};
use crate::core::gate::Channel;
use crate::core::id::Version;
use crate::core::service::OnIncrease;
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::core::weight::Weight;
use crate::net::socket::ListenSocket;
use crate::proxy::fixture::{self, listener};
use crate::proxy::listener::ListenerLive;
use crate::state::fixture::{route, service};
use crate::state::sensors::Reader;

/// Requests before the counting begins, and counted.
const WARM: usize = 300;
const COUNTED: usize = 500;
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What is asked again and again.
struct Case {
    on_increase: OnIncrease,
    /// Fields of the request.
    request: &'static str,
    /// Fields of the response.
    response: &'static str,
    /// Whether the answer gives out a session.
    cookie: bool,
}

/// Answers every request with `fields` and 64 bytes, until nobody asks any more.
fn origin(fields: &str) -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = socket.local_addr().expect("bound");
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 64\r\n\r\n{}", "x".repeat(64));
    thread::spawn(move || {
        for stream in socket.incoming() {
            let (mut stream, answer) = (stream.expect("a connection"), answer.clone());
            thread::spawn(
                move || while read_head(&mut stream).is_some() && stream.write_all(answer.as_bytes()).is_ok() {},
            );
        }
    });
    address
}

/// Reads up to an empty line; what follows it is read with it. `None` when there is none.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut room) = (Vec::new(), [0; 4_096]);
    while !text.windows(4).any(|end| end == b"\r\n\r\n") {
        let n = stream.read(&mut room).ok().filter(|n| *n > 0)?;
        text.extend_from_slice(&room[..n]);
    }
    String::from_utf8(text).ok()
}

/// Asks [`WARM`] times, says so, asks [`COUNTED`] times more, says so, and goes on until nobody answers.
fn client(address: SocketAddr, case: &Case, progress: watch::Sender<usize>) -> thread::JoinHandle<()> {
    let (fields, cookie) = (case.request, case.cookie);
    thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a timeout");
        let request = format!("GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        for done in 0.. {
            progress.send_if_modified(|seen| {
                *seen = done;
                done == WARM || done == WARM + COUNTED
            });
            if stream.write_all(request.as_bytes()).is_err() {
                return;
            }
            let Some(mut answer) = read_head(&mut stream) else { return };
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            while !answer.ends_with(&"x".repeat(64)) {
                let mut room = [0; 64];
                let n = stream.read(&mut room).expect("a body");
                answer.push_str(std::str::from_utf8(&room[..n]).expect("text"));
            }
            assert_eq!(answer.contains("\r\nset-cookie: "), cookie, "{answer}");
        }
    })
}

/// A worker for a service whose two releases are at `origin`, half the traffic each, and the gate watching.
fn worker(origin: SocketAddr, case: &Case) -> Rc<Worker> {
    let mut web = service("web", 1, Some(("v2", 1)));
    let second = Duration::from_secs(5);
    let settings = Arc::get_mut(&mut web).expect("nobody else has it");
    let pool = |version| {
        let version = Version::new(version).expect("a version");
        Arc::new(Pool::fixed(version, None, vec![Endpoint::new(origin)]))
    };
    (settings.stable, settings.candidate) = (pool("v1"), Some(pool("v2")));
    settings.affinity.on_increase = case.on_increase;
    settings.upstream.response_timeout = second;
    settings.upstream.keepalive_idle = second;
    settings.upstream.body_idle = second;
    let weight = Weight::parse("50%").expect("a weight");
    let services = vec![ActiveService::new(web, Running { weight, ..Running::idle(1) })];
    let snapshot = Snapshot::build(1, &[route("/", "web")], services).expect("a known service");
    fixture::worker(snapshot).0
}

/// Attempts the gate is told of.
fn counted_for_the_gate(worker: &Worker) -> usize {
    let routing = worker.routing();
    let watch = routing.live[0].watch.as_ref().expect("watched");
    let taken = Reader::default().take(watch, watch.tick(clock::now()), false).clone();
    taken.exposures.iter().filter(|e| e.channel == Channel::BEGUN).map(|e| e.count as usize).sum()
}

/// Allocations of the worker's thread over [`COUNTED`] requests, the first ones not counted.
fn allocations(case: &Case) -> u64 {
    let worker = worker(origin(case.response), case);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    let (told, mut progress) = watch::channel(0);
    let client = local.block_on(&runtime, async {
        tokio::task::spawn_local(Rc::clone(&worker.timers).drive());
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket.set_nonblocking(true).expect("not blocking");
        let address = socket.local_addr().expect("bound");
        let limits = Limits { max_requests: u32::MAX, ..Limits::default() };
        let live = Arc::new(ListenerLive::new(listener(&[], limits), None));
        listener::listen(&worker, live, ListenSocket::Tcp(socket));
        let client = client(address, case, told);
        progress.wait_for(|done| *done >= WARM).await.expect("a client that goes on");
        client
    });
    let counted = allocation_counter::measure(|| {
        let done = local.block_on(&runtime, async { progress.wait_for(|done| *done >= WARM + COUNTED).await.is_ok() });
        assert!(done, "the client failed");
    });
    let counted_for_the_gate = counted_for_the_gate(&worker);
    assert!(counted_for_the_gate >= COUNTED, "the gate watched {counted_for_the_gate} requests only");
    drop((local, runtime));
    client.join().expect("a client without complaints");
    counted.count_total
}

/// The counter counts: otherwise the tests below would pass by accident.
#[test]
fn an_allocation_is_counted() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn a_request_on_a_kept_connection_allocates_nothing() {
    let id = "Cookie: theme=dark; tidegate_web=0123456789abcdef0123456789abcdef\r\n";
    let dated =
        "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nCache-Control: private\r\nServer: origin\r\nX-A: 1\r\nX-B: 2\r\n";
    for (on_increase, request, response, cookie) in [
        (OnIncrease::Move, "", "", true),
        (OnIncrease::Move, id, dated, false),
        (OnIncrease::NewSessions, "Accept: */*\r\nX-Request-Id: 7\r\n", dated, true),
    ] {
        let case = Case { on_increase, request, response, cookie };
        assert_eq!(allocations(&case), 0, "{on_increase:?}, {request:?}, {response:?}");
    }
}
