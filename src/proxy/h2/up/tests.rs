//! Sessions against real sockets: who shares one, who hears of what, and how a dead one is found out.

mod peer;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::clock;
use crate::core::circuit::PoolLimits;
use crate::core::endpoint::{Endpoint, Pool};
use crate::core::id::Version;
use crate::core::service::{Protocol, Service};
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::proxy::fixture;
use crate::proxy::h2::up::session::{Lease, PINGS_MAX, Pace};
use crate::proxy::h2::up::sessions::{Limited, Sessions, Wanted, lease};
use crate::proxy::worker::Worker;
use crate::state::fixture::service;
use crate::state::live::EndpointLive;

use self::peer::{Frames, Server};

const MS: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_secs(3_600);
const PATIENT: Pace = Pace { ping_every: FAR, ping_timeout: FAR, check_after: FAR };
/// Whoever has said nothing since a request came is asked first.
const WARY: Pace = Pace { check_after: Duration::ZERO, ..PATIENT };
/// Often enough for a test, and an answer is given a while.
const BRISK: Pace = Pace { ping_every: Duration::from_millis(40), ping_timeout: Duration::from_secs(5), ..PATIENT };
/// So long nothing comes where nothing may come: ten times the pace.
const QUIET: Duration = Duration::from_millis(400);

struct World {
    worker: Rc<Worker>,
    service: Arc<Service>,
    endpoint: Arc<EndpointLive>,
    listener: TcpListener,
}

impl World {
    async fn new(pace: Pace) -> Rc<Self> {
        Self::limited(pace, PoolLimits::default()).await
    }

    async fn limited(pace: Pace, limits: PoolLimits) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut web = service("web", 1, None);
        let of_web = Arc::get_mut(&mut web).unwrap();
        of_web.upstream.protocol = Protocol::Http2;
        of_web.upstream.keepalive_idle = FAR;
        of_web.upstream.limits = limits;
        let endpoints = vec![Endpoint::new(listener.local_addr().unwrap())];
        of_web.stable = Arc::new(Pool::fixed(Version::new("v1").unwrap(), None, endpoints));
        let active = ActiveService::new(Arc::clone(&web), Running::idle(0));
        let (worker, _) = fixture::worker(Snapshot::build(1, &[], vec![active]).unwrap());
        worker.run_timers();
        *worker.sessions() = Sessions::with_pace(pace);
        let endpoint = Arc::clone(&worker.routing().live[0].stable[0]);
        Rc::new(Self { worker, service: web, endpoint, listener })
    }

    async fn lease(&self) -> (Lease, bool) {
        let limited = Limited::default();
        let wanted = Wanted { service: &self.service, endpoint: &self.endpoint, dial_tag: 2, limited: &limited };
        soon(lease(&self.worker, wanted)).await.unwrap()
    }

    async fn accept(&self) -> TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// A lease on a session just opened, and the server's side of it.
    async fn open(&self) -> (Lease, Server) {
        let server = async { Server::start(self.accept().await).await };
        let ((lease, reused), server) = tokio::join!(self.lease(), server);
        assert!(!reused, "opened for it");
        (lease, server)
    }

    /// The same, with a request under way on bare frames: its stream.
    async fn begin(&self) -> (Lease, h2::client::ResponseFuture, Frames, u32) {
        let frames = async { Frames::start(self.accept().await).await };
        let ((mut lease, _), mut frames) = tokio::join!(self.lease(), frames);
        let response = begin(&mut lease);
        let stream = frames.request().await;
        (lease, response, frames, stream)
    }

    fn sessions(&self) -> u64 {
        self.worker.shard().sessions.get()
    }

    /// Returns once the task of every session that is over has noticed.
    async fn sessions_are(&self, count: u64) {
        soon(async {
            while self.sessions() != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("waited in vain")
}

/// Fails if `future` comes to its end within [`QUIET`].
async fn quiet<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    if let Ok(came) = tokio::time::timeout(QUIET, future).await {
        panic!("nothing was to come, but {came:?} did");
    }
}

/// Lets every task that can go on do so.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
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
        let server = async { Server::start(world.accept().await).await };
        let (one, two, _server) = tokio::join!(world.lease(), world.lease(), server);
        assert_eq!((one.1, two.1, world.sessions()), (false, true, 1));
        assert_eq!(world.worker.shard().streams.get(), 2);
        drop((one, two));
        assert_eq!(world.worker.shard().streams.get(), 0);
    });
}

/// One request dials and waits, another one waits for a stream: only the second has a use for one that ends.
#[test]
fn a_stream_that_ends_goes_to_a_request_that_waits_for_one() {
    local(async || {
        let limits = PoolLimits { max_connections: 2, ..PoolLimits::default() };
        let world = World::limited(PATIENT, limits).await;
        let one_stream = async {
            let mut builder = h2::server::Builder::new();
            let handshake = builder.max_concurrent_streams(1).handshake::<_, bytes::Bytes>(world.accept().await);
            let mut connection = soon(handshake).await.unwrap();
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
        };
        let ((first, _), ()) = tokio::join!(world.lease(), one_stream);
        let waiting = |world: &Rc<World>| {
            let world = Rc::clone(world);
            tokio::task::spawn_local(async move { world.lease().await })
        };
        let dialling = waiting(&world);
        // Its connection is never accepted by more than the kernel.
        settle().await;
        let queued = waiting(&world);
        settle().await;
        drop(first);
        assert!(soon(queued).await.unwrap().1, "the stream that ended");
        dialling.abort();
    });
}

#[test]
fn a_session_with_streams_that_answers_no_ping_ends() {
    local(async || {
        let world = World::new(Pace { ping_timeout: 60 * MS, ..BRISK }).await;
        let (mut first, mut server) = world.open().await;
        let response = begin(&mut first);
        let _request = server.request().await;
        server.silence();
        let began = clock::now();
        let error = soon(response).await.unwrap_err();
        assert!(error.is_io() && began.elapsed() >= 60 * MS, "{error:?}");
        world.sessions_are(0).await;
    });
}

/// As servers of gRPC have it, which close the connection at the third PING between two answers.
#[test]
fn a_silent_server_is_asked_twice_and_again_after_it_said_something() {
    local(async || {
        let world = World::new(BRISK).await;
        let (lease, response, mut frames, stream) = world.begin().await;
        for _ in 0..PINGS_MAX {
            frames.pong().await;
        }
        quiet(frames.next()).await;
        let mut other = world.lease().await;
        assert!(other.1, "the session goes on");
        let unanswered = begin(&mut other.0);
        assert_ne!(frames.request().await, stream);
        frames.answer(stream).await;
        assert_eq!(soon(response).await.unwrap().status(), 200);
        lease.answered();
        for _ in 0..PINGS_MAX {
            frames.pong().await;
        }
        quiet(frames.next()).await;
        drop(unanswered);
    });
}

#[test]
fn an_idle_session_is_asked_nothing() {
    local(async || {
        let world = World::new(BRISK).await;
        let (lease, response, mut frames, stream) = world.begin().await;
        frames.pong().await;
        frames.answer(stream).await;
        assert_eq!(soon(response).await.unwrap().status(), 200);
        lease.answered();
        drop(lease);
        quiet(frames.next()).await;
        assert_eq!(world.sessions(), 1);
    });
}

#[test]
fn a_doubtful_session_is_asked_before_it_is_used_again() {
    local(async || {
        let world = World::new(WARY).await;
        let (first, mut server) = world.open().await;
        drop(first);
        let (again, reused) = world.lease().await;
        assert!(reused && world.sessions() == 1, "it lives, so it is used");
        drop(again);

        server.silence();
        let (other, _server) = world.open().await;
        world.sessions_are(1).await;
        drop(other);
    });
}

/// Behind a network that swallows everything, requests under way can only wait; others are not sent after them.
#[test]
fn a_doubtful_session_with_streams_is_asked_too() {
    local(async || {
        let world = World::new(WARY).await;
        let (mut first, mut server) = world.open().await;
        let response = begin(&mut first);
        let (_, mut respond) = server.request().await;
        let (second, reused) = world.lease().await;
        assert!(reused, "it lives, so it is used");
        respond.send_response(http::Response::new(()), true).unwrap();
        assert_eq!(soon(response).await.unwrap().status(), 200);

        server.silence();
        let (other, _server) = world.open().await;
        assert_eq!(world.sessions(), 2, "the silent one stays while it has streams");
        drop((first, second));
        world.sessions_are(1).await;
        drop(other);
    });
}

/// Where no more PINGs may be sent, an idle session is given up; on one with streams the next request has to try.
#[test]
fn a_doubtful_session_that_may_not_be_asked_is_used_only_while_others_use_it() {
    local(async || {
        let world = World::new(WARY).await;
        let (first, server) = world.open().await;
        for _ in 0..PINGS_MAX {
            assert!(world.lease().await.1, "asked, and it lives");
        }
        let ((again, reused), sessions) = (world.lease().await, world.sessions());
        assert_eq!((reused, sessions), (true, 1));
        drop((first, again));
        let (_other, _server) = world.open().await;
        server.closed().await;
        world.sessions_are(1).await;
    });
}

#[test]
fn what_is_worn_or_aged_or_left_closes() {
    local(async || {
        let world = World::new(PATIENT).await;
        let (first, server) = world.open().await;
        world.worker.sessions().sweep(clock::now(), |_| true);
        world.worker.sessions().sweep(clock::now(), |_| false);
        let (_second, _other) = world.open().await;
        assert_eq!(world.sessions(), 2, "no more streams on the first, which stays while it has one");
        drop(first);
        server.closed().await;
        world.sessions_are(1).await;
    });
}
