//! Sessions against real sockets: who shares one, and how a dead one is found out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::clock;
use crate::core::endpoint::{Endpoint, Pool};
use crate::core::id::Version;
use crate::core::service::{Protocol, Service};
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::proxy::fixture;
use crate::proxy::h2::up::session::{Lease, Pace};
use crate::proxy::h2::up::sessions::{Limited, Sessions, Wanted, lease};
use crate::proxy::worker::Worker;
use crate::state::fixture::service;
use crate::state::live::EndpointLive;

const MS: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_secs(3_600);
const PATIENT: Pace = Pace { ping_every: FAR, ping_timeout: FAR, check_after: FAR };

struct World {
    worker: Rc<Worker>,
    service: Arc<Service>,
    endpoint: Arc<EndpointLive>,
    listener: TcpListener,
}

impl World {
    async fn new(pace: Pace) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut web = service("web", 1, None);
        let of_web = Arc::get_mut(&mut web).unwrap();
        of_web.upstream.protocol = Protocol::Http2;
        of_web.upstream.keepalive_idle = FAR;
        let endpoints = vec![Endpoint::new(listener.local_addr().unwrap())];
        of_web.stable = Arc::new(Pool::fixed(Version::new("v1").unwrap(), None, endpoints));
        let active = ActiveService::new(Arc::clone(&web), Running::idle(0));
        let (worker, _) = fixture::worker(Snapshot::build(1, &[], vec![active]).unwrap());
        worker.run_timers();
        *worker.sessions() = Sessions::with_pace(pace);
        let endpoint = Arc::clone(&worker.routing().live[0].stable[0]);
        Self { worker, service: web, endpoint, listener }
    }

    async fn lease(&self) -> (Lease, bool) {
        let limited = Limited::default();
        let wanted = Wanted { service: &self.service, endpoint: &self.endpoint, dial_tag: 2, limited: &limited };
        soon(lease(&self.worker, wanted)).await.unwrap()
    }

    async fn accept(&self) -> h2::server::Connection<TcpStream, Bytes> {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        soon(h2::server::handshake(stream)).await.unwrap()
    }

    /// A lease on a session just opened, and the server's side of it.
    async fn open(&self) -> (Lease, h2::server::Connection<TcpStream, Bytes>) {
        let (first, connection) = tokio::join!(self.lease(), async {
            let mut connection = self.accept().await;
            // Its SETTINGS leave when it is polled.
            let polled = tokio::time::timeout(50 * MS, connection.accept()).await;
            assert!(polled.is_err(), "nothing was asked yet");
            connection
        });
        assert!(!first.1, "opened for it");
        (first.0, connection)
    }

    fn sessions(&self) -> u64 {
        self.worker.shard().sessions.get()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("waited in vain")
}

fn local(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test()));
}

fn begin(lease: &mut Lease) -> h2::client::ResponseFuture {
    lease.send.send_request(http::Request::get("http://a/").body(()).unwrap(), true).unwrap().0
}

#[test]
fn requests_that_come_together_share_one_dial() {
    local(async || {
        let world = World::new(PATIENT).await;
        let ((one, two), _server) = tokio::join!(async { tokio::join!(world.lease(), world.lease()) }, async {
            let mut server = world.accept().await;
            let _ = tokio::time::timeout(50 * MS, server.accept()).await;
            server
        });
        assert_eq!((one.1, two.1, world.sessions()), (false, true, 1));
        assert_eq!(world.worker.shard().streams.get(), 2);
        drop((one, two));
        assert_eq!(world.worker.shard().streams.get(), 0);
    });
}

#[test]
fn a_session_with_streams_that_answers_no_ping_ends() {
    local(async || {
        let world = World::new(Pace { ping_every: 60 * MS, ping_timeout: 60 * MS, check_after: FAR }).await;
        let (mut first, mut server) = world.open().await;
        let response = begin(&mut first);
        let (_request, _respond) = soon(server.accept()).await.unwrap().unwrap();
        // From here on the server is silent.
        let began = clock::now();
        let error = soon(response).await.unwrap_err();
        assert!(error.is_io() && began.elapsed() >= 100 * MS, "{error:?}");
        assert_eq!(world.sessions(), 0);
    });
}

#[test]
fn a_session_that_answers_pings_stays_and_an_idle_one_is_asked_nothing() {
    local(async || {
        let world = World::new(Pace { ping_every: 40 * MS, ping_timeout: 100 * MS, check_after: FAR }).await;
        let (mut first, mut server) = world.open().await;
        let response = begin(&mut first);
        let (_request, mut respond) = soon(server.accept()).await.unwrap().unwrap();
        let _ = tokio::time::timeout(400 * MS, server.accept()).await;
        respond.send_response(http::Response::new(()), true).unwrap();
        let _ = tokio::time::timeout(20 * MS, server.accept()).await;
        assert_eq!(soon(response).await.unwrap().status(), 200);
        drop(first);
        // Idle now, and the server silent.
        tokio::time::sleep(300 * MS).await;
        assert_eq!(world.sessions(), 1);
    });
}

#[test]
fn a_doubtful_session_is_asked_before_it_is_used_again() {
    local(async || {
        let pace = Pace { ping_every: FAR, ping_timeout: FAR, check_after: 50 * MS };
        let world = World::new(pace).await;
        let (first, mut server) = world.open().await;
        drop(first);
        tokio::time::sleep(60 * MS).await;
        let ((again, reused), _) = tokio::join!(world.lease(), tokio::time::timeout(200 * MS, server.accept()));
        assert!(reused && world.sessions() == 1, "it lives, so it is used");
        drop(again);

        tokio::time::sleep(60 * MS).await;
        let (other, _server) = world.open().await;
        assert_eq!(world.sessions(), 1, "silent: another one was opened, the old one closed");
        drop(other);
    });
}

#[test]
fn what_is_worn_or_aged_or_left_closes() {
    local(async || {
        let world = World::new(PATIENT).await;
        let (first, mut server) = world.open().await;
        world.worker.sessions().sweep(clock::now(), |_| true);
        world.worker.sessions().sweep(clock::now(), |_| false);
        let ((_second, reused), _other) = tokio::join!(world.lease(), async {
            let mut other = world.accept().await;
            let _ = tokio::time::timeout(50 * MS, other.accept()).await;
            other
        });
        assert!(!reused && world.sessions() == 2, "no more streams on the first, which stays while it has one");
        drop(first);
        assert!(soon(server.accept()).await.is_none(), "closed in order");
        assert_eq!(world.sessions(), 1);
    });
}
