//! The upstream of a test: an HTTP/1.1 server that does exactly what its script says and remembers everything that reached it.

mod behaviour;
pub(crate) mod frames;
pub(crate) mod h2;
mod serve;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tidegate::clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) use behaviour::{Act, Behaviour, answer, read_body};

use super::tls::Identity;
use super::wait::{until, within};
use super::wire::{Body, Head, Wire};

/// Requests remembered one by one; beyond that they are only counted.
const RECORDS_MAX: usize = 10_000;

/// A server under the test's control. Dropping it cuts every connection.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    accepting: Option<JoinHandle<()>>,
}

/// What reached the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// On which connection, counted from 0 in order of acceptance.
    pub connection: usize,
    /// Which request on that connection, counted from 0.
    pub number: usize,
    /// Its head.
    pub head: Head,
    /// What came of its body.
    pub body: Body,
    /// Whether the body came whole.
    pub complete: bool,
}

struct Shared {
    log: Mutex<Log>,
    changed: Notify,
}

struct Log {
    /// What the next requests get, one each.
    next: VecDeque<Behaviour>,
    /// What all others get.
    usual: Behaviour,
    /// Heads read and not yet taken by the test.
    heads: VecDeque<Head>,
    /// Requests read and not yet taken by the test.
    requests: VecDeque<Request>,
    /// Heads ever read.
    arrived: usize,
    /// When the last one of each target was read.
    latest: BTreeMap<String, Instant>,
    /// Connections ever accepted.
    accepted: usize,
    /// Connections open now.
    open: usize,
    /// What no client may send and yet came.
    violations: Vec<String>,
}

// === impl Upstream ===

impl Upstream {
    /// Starts on a free port of the loopback.
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        Self::listen("127.0.0.1:0", behaviour, None).await
    }

    /// The same behind TLS.
    pub(crate) async fn start_tls(behaviour: Behaviour, identity: &Identity) -> Self {
        Self::listen("127.0.0.1:0", behaviour, Some(TlsAcceptor::from(identity.server_config()))).await
    }

    /// Starts at this address.
    pub(crate) async fn start_at(address: &str, behaviour: Behaviour) -> Self {
        Self::listen(address, behaviour, None).await
    }

    async fn listen(address: &str, behaviour: Behaviour, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared { log: Mutex::new(Log::new(behaviour)), changed: Notify::new() });
        let accepting = Some(tokio::spawn(accept(listener, Arc::clone(&shared), tls.clone())));
        Self { address, shared, tls, accepting }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What requests get from now on.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.shared.log().usual = behaviour;
    }

    /// What the next requests get, one each, before the usual again.
    pub(crate) fn next(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.log().next.extend(behaviours);
    }

    /// The next request that was read, its body included, in order.
    pub(crate) async fn request(&self) -> Request {
        within("a request at the upstream", self.shared.take(|log| log.requests.pop_front())).await
    }

    /// Every request that was read so far and not taken yet.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.log().requests.drain(..).collect()
    }

    /// The next request head that was read, in order; its body may still be on the way.
    pub(crate) async fn head(&self) -> Head {
        within("a request head at the upstream", self.shared.take(|log| log.heads.pop_front())).await
    }

    /// How many requests (heads) ever came.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.log().arrived
    }

    /// When the last request for `target` came, if one did.
    pub(crate) fn latest(&self, target: &str) -> Option<Instant> {
        self.shared.log().latest.get(target).copied()
    }

    /// How many connections were ever accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.log().accepted
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.log().open
    }

    /// Returns once every connection is gone.
    pub(crate) async fn all_closed(&self) {
        let none = self.shared.take(|log| (log.open == 0).then_some(()));
        within("the upstream's connections to be closed", none).await;
    }

    /// What came and was not HTTP/1.1; a proxy must never send any.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.log().violations.clone()
    }

    /// Stops listening and cuts every connection.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
        until("the upstream to stop", || self.open() == 0).await;
    }

    /// Listens again, on the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        self.accepting = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared), self.tls.clone())));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no one panics with the log")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let value = change(&mut self.log());
        self.changed.notify_waiters();
        value
    }

    async fn take<T>(&self, mut pick: impl FnMut(&mut Log) -> Option<T>) -> T {
        loop {
            // Created before the look: it hears every change from here on.
            let changed = self.changed.notified();
            if let Some(value) = pick(&mut self.log()) {
                return value;
            }
            changed.await;
        }
    }
}

// === impl Log ===

impl Log {
    fn new(usual: Behaviour) -> Self {
        Self {
            next: VecDeque::new(),
            usual,
            heads: VecDeque::new(),
            requests: VecDeque::new(),
            arrived: 0,
            latest: BTreeMap::new(),
            accepted: 0,
            open: 0,
            violations: Vec::new(),
        }
    }

    fn arrive(&mut self, head: &Head) -> Behaviour {
        self.arrived += 1;
        if let Some(target) = head.line.split(' ').nth(1)
            && (self.latest.len() < RECORDS_MAX || self.latest.contains_key(target))
        {
            self.latest.insert(target.to_owned(), clock::now());
        }
        if self.heads.len() < RECORDS_MAX {
            self.heads.push_back(head.clone());
        }
        self.next.pop_front().unwrap_or_else(|| self.usual.clone())
    }

    fn finish(&mut self, request: Request) {
        if self.requests.len() < RECORDS_MAX {
            self.requests.push_back(request);
        }
    }
}

/// Counts a connection as open until it is dropped, however its task ends.
struct Open {
    shared: Arc<Shared>,
    number: usize,
}

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        let number = shared.change(|log| {
            log.accepted += 1;
            log.open += 1;
            log.accepted - 1
        });
        Self { shared, number }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.change(|log| log.open -= 1);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a listening socket");
                connections.spawn(serve_one(stream, Arc::clone(&shared), tls.clone()));
            }
            Some(ended) = connections.join_next() => ended.expect("a script that does not panic"),
        }
    }
}

/// Whether anything comes on a connection. Probes that only connect send nothing, and are none of the connections tests count.
async fn speaks(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).await, Ok(1))
}

async fn serve_one(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    if !speaks(&stream).await {
        return;
    }
    let open = Open::new(shared);
    // A peer that is gone already will be noticed by the first read.
    let _ = stream.set_nodelay(true);
    let wire = match tls {
        None => Wire::new(stream),
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => Wire::new(stream),
            Err(e) => return open.shared.change(|log| log.violations.push(format!("TLS: {e}"))),
        },
    };
    serve::connection(wire, &open).await;
}
