//! The load of the demo: users on keep-alive connections at a fixed rate. It never retries, and what it reports includes what waited.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{COOKIE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::stats::{Sample, Stats};
use super::upstream::{VERSION_HEADER, VERSIONS};
use crate::clock;
use crate::core::id::Variant;

/// Connections, one for each user: who waits for a candidate that hangs keeps nobody else waiting.
pub(super) const CONNECTIONS: usize = USERS;
/// Requests per second, all connections together.
pub(super) const RATE: u32 = 320;
/// Distinct users.
pub(super) const USERS: usize = 200;
/// Names the user; what the demo's affinity goes by.
pub(super) const USER_COOKIE: &str = "user";
/// Longest time for one request, its connection included.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How late requests may become before they are left out (and counted as such).
const LATE_MAX: Duration = Duration::from_secs(2);

/// Time between two requests of one connection.
const EVERY: Duration = Duration::from_micros(1_000_000 * CONNECTIONS as u64 / RATE as u64);

/// A load that runs until it is stopped or dropped, and at most as long as it was told to.
pub(super) struct Load {
    stats: Arc<Mutex<Stats>>,
    stop: watch::Sender<bool>,
    connections: JoinSet<()>,
}

/// One connection of the load.
struct Driver {
    proxy: SocketAddr,
    stats: Arc<Mutex<Stats>>,
    wire: Option<Wire>,
    schedule: Schedule,
}

/// When the requests of a connection are due: at a fixed rate, whatever the answers take.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    /// When the next request is due.
    due: Instant,
    /// Whether the connection was still busy then.
    was_busy: bool,
    /// When no more is due.
    until: Instant,
}

/// An open connection; closed when dropped.
struct Wire {
    sender: SendRequest<Empty<Bytes>>,
    _connection: JoinSet<()>,
}

// === impl Load ===

impl Load {
    /// Begins to send to `proxy`, at most for `longest`.
    pub(super) fn start(proxy: SocketAddr, stats: Stats, longest: Duration) -> Self {
        let (stats, begin) = (Arc::new(Mutex::new(stats)), clock::now());
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        for at in 0..CONNECTIONS {
            let phase = EVERY.mul_f64(fraction(at, CONNECTIONS));
            let schedule = Schedule { due: begin + phase, was_busy: false, until: begin + longest };
            let driver = Driver { proxy, stats: Arc::clone(&stats), wire: None, schedule };
            connections.spawn(driver.run(at, stopped.clone()));
        }
        Self { stats, stop, connections }
    }

    /// What was seen so far.
    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    /// Ends the load after the requests in flight, and tells what was seen.
    pub(super) async fn stop(mut self) -> Stats {
        self.stop.send_replace(true);
        while self.connections.join_next().await.is_some() {}
        self.stats().clone()
    }
}

fn lock(stats: &Mutex<Stats>) -> MutexGuard<'_, Stats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::cast_precision_loss, reason = "both are at most CONNECTIONS")]
fn fraction(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// The name of a user, the value of its cookie.
pub(super) fn user_name(user: usize) -> String {
    format!("user-{user:03}")
}

// === impl Driver ===

impl Driver {
    async fn run(mut self, at: usize, mut stopped: watch::Receiver<bool>) {
        for user in (at..USERS).step_by(CONNECTIONS).cycle() {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = tokio::time::sleep_until(self.schedule.due.into()) => {}
            }
            let Some(from) = self.schedule.begin(clock::now()) else { return };
            let began = lock(&self.stats).now();
            let exchange = tokio::time::timeout(REQUEST_WITHIN, self.exchange(user)).await;
            let outcome = exchange.unwrap_or_else(|_| Err(format!("no answer within {} s", REQUEST_WITHIN.as_secs())));
            if outcome.is_err() {
                self.wire = None;
            }
            let ended = clock::now();
            lock(&self.stats).record(&Sample { user, began, outcome, latency: ended.duration_since(from) });
            let skipped = self.schedule.end(ended);
            if skipped > 0 {
                lock(&self.stats).skipped += skipped;
            }
        }
    }

    /// Sends one request and reads the whole answer.
    async fn exchange(&mut self, user: usize) -> Result<Variant, String> {
        let mut wire = match Wire::still_open(self.wire.take()).await {
            Some(wire) => wire,
            // The proxy closed it between two requests, as it may; nothing was sent on it.
            None => Wire::open(self.proxy).await?,
        };
        let request = Request::get("/")
            .header(HOST, self.proxy.to_string())
            .header(COOKIE, format!("{USER_COOKIE}={}", user_name(user)))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = wire.sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let version = response.headers().get(VERSION_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| format!("the answer broke off: {error}"))?;
        }
        self.wire = Some(wire);
        verdict(status, version.as_deref())
    }
}

/// Which upstream answered.
fn verdict(status: StatusCode, version: Option<&str>) -> Result<Variant, String> {
    let answered = |variant| VERSIONS[usize::from(variant == Variant::Candidate)];
    match version {
        _ if status != StatusCode::OK => Err(format!("status {}", status.as_u16())),
        Some(version) if version == answered(Variant::Stable) => Ok(Variant::Stable),
        Some(version) if version == answered(Variant::Candidate) => Ok(Variant::Candidate),
        _ => Err("an answer of neither version".to_owned()),
    }
}

// === impl Schedule ===

impl Schedule {
    /// From when the latency of the request that begins `now` counts; `None` when no more is due.
    fn begin(&self, now: Instant) -> Option<Instant> {
        // A timer wakes up to a millisecond late, which is not the proxy's doing. A connection that was still busy when the request
        // was due is: leaving the wait out would hide every stall but its first request (coordinated omission).
        (self.due < self.until).then_some(if self.was_busy { self.due } else { now })
    }

    /// Goes on to the next request. What is too late by then is left out: tells how many.
    fn end(&mut self, ended: Instant) -> u64 {
        let mut skipped = 0;
        self.due += EVERY;
        while ended.min(self.until).saturating_duration_since(self.due) > LATE_MAX {
            self.due += EVERY;
            skipped += 1;
        }
        self.was_busy = ended > self.due;
        skipped
    }
}

// === impl Wire ===

impl Wire {
    /// The wire, once it takes another request; `None` if it was closed.
    async fn still_open(wire: Option<Self>) -> Option<Self> {
        let mut wire = wire?;
        wire.sender.ready().await.is_ok().then_some(wire)
    }

    async fn open(proxy: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(proxy).await.map_err(|error| format!("no connection: {}", error.kind()))?;
        // Only the delay of a second small write is lost if it fails.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // The request on it is told of an error, too.
            let _ = connection.await;
        });
        Ok(Self { sender, _connection: task })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::upstream::Upstreams;

    fn schedule() -> Schedule {
        let due = clock::now();
        Schedule { due, was_busy: false, until: due + Duration::from_secs(60) }
    }

    #[test]
    fn what_waited_for_a_slow_answer_counts_from_when_it_was_due() {
        let start = schedule();
        let (mut next, late) = (start, start.due + Duration::from_millis(1));
        assert_eq!(next.begin(late), Some(late));
        let ended = start.due + EVERY * 3 + EVERY / 2;
        assert_eq!((next.end(ended), next.begin(ended)), (0, Some(start.due + EVERY)));
        assert_eq!((next.end(ended), next.begin(ended)), (0, Some(start.due + EVERY * 2)));
        assert_eq!((next.end(ended), next.begin(ended)), (0, Some(start.due + EVERY * 3)));
        // Caught up.
        let now = start.due + EVERY * 4;
        assert_eq!((next.end(ended), next.begin(now)), (0, Some(now)));
    }

    #[test]
    fn what_is_too_late_is_left_out_and_counted_and_nothing_is_due_after_the_end() {
        let start = schedule();
        let mut next = start;
        assert_eq!(next.end(start.due + EVERY + LATE_MAX + EVERY * 3), 3);
        assert_eq!(next.due, start.due + EVERY * 4);
        next.due = next.until;
        assert_eq!(next.begin(next.until), None);
    }

    #[test]
    fn an_answer_counts_only_whole_and_from_a_known_version() {
        assert_eq!(verdict(StatusCode::OK, Some("v1")), Ok(Variant::Stable));
        assert_eq!(verdict(StatusCode::OK, Some("v2")), Ok(Variant::Candidate));
        assert_eq!(verdict(StatusCode::BAD_GATEWAY, Some("v2")), Err("status 502".to_owned()));
        assert!(verdict(StatusCode::OK, None).is_err() && verdict(StatusCode::OK, Some("v3")).is_err());
    }

    #[tokio::test]
    async fn every_user_is_served_at_the_rate_asked_for_and_no_more() {
        let upstreams = Upstreams::start().expect("starts");
        let mut stats = Stats::new(1, USERS);
        stats.enter(0);
        let longest = Duration::from_secs(1);
        let mut load = Load::start(upstreams.addresses[1], stats, longest);
        // Ends by itself at its longest.
        while load.connections.join_next().await.is_some() {}
        let stats = load.stop().await;
        assert_eq!((stats.errors(), &stats.failures), (0, &std::collections::BTreeMap::new()));
        assert_eq!(stats.requests() + stats.skipped, u64::from(RATE));
        assert_eq!(stats.step(0).users(), (USERS as u64, USERS as u64));
    }

    #[tokio::test]
    async fn without_a_proxy_every_request_fails_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let mut load = Load::start(address, Stats::new(1, USERS), Duration::from_millis(200));
        while load.connections.join_next().await.is_some() {}
        let stats = load.stop().await;
        assert_eq!((stats.requests(), stats.errors()), (64, 64));
        assert_eq!(stats.failures.keys().collect::<Vec<_>>(), ["no connection: connection refused"]);
    }
}
