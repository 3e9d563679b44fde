//! The HTTP/2 upstream of a test, on the server of the `h2` crate: what a request gets is said by its path.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::super::pattern;
use super::super::tls::Identity;
use super::super::wait::until;

/// How a server differs from the usual one.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Most streams at once; none said when absent.
    pub max_streams: Option<u32>,
    /// TLS, and the protocols offered by ALPN.
    pub tls: Option<TlsAcceptor>,
}

/// A server under the test's control. Dropping it cuts every connection.
pub(crate) struct H2Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// On which connection, counted from 0.
    pub connection: usize,
    /// `GET`
    pub method: String,
    /// Scheme, authority, path and query.
    pub uri: String,
    /// Its fields.
    pub fields: HeaderMap,
    /// Its body; of a body that did not come whole, what came.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
    /// Whether it came whole.
    pub complete: bool,
}

struct Shared {
    options: Options,
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// Requests being served, and most of them at once on one connection.
    most: AtomicUsize,
    arrived: AtomicUsize,
    /// Requests that came and did not end yet.
    in_flight: AtomicUsize,
    /// Streams still to be refused by `/refuse`.
    refuse: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    /// Paths the next requests are taken to ask for, one each; then that of all others.
    next: Mutex<(VecDeque<String>, Option<String>)>,
    /// Lets `/hold` go.
    release: watch::Sender<bool>,
    go_away: Notify,
}

// === impl Options ===

impl Options {
    /// At most so many streams at once.
    pub(crate) fn streams(max: u32) -> Self {
        Self { max_streams: Some(max), tls: None }
    }

    /// TLS that offers these protocols.
    pub(crate) fn tls(identity: &Identity, protocols: &[&str]) -> Self {
        let mut config = (*identity.server_config()).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { max_streams: None, tls: Some(TlsAcceptor::from(Arc::new(config))) }
    }
}

// === impl H2Server ===

impl H2Server {
    /// Starts on a free port of the loopback.
    pub(crate) async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            options,
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            refuse: AtomicUsize::new(0),
            seen: Mutex::default(),
            next: Mutex::default(),
            release: watch::channel(false).0,
            go_away: Notify::new(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connections ever accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Request heads ever read.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.arrived.load(Ordering::SeqCst)
    }

    /// Requests that came and did not end yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// Most requests there were at once on a connection.
    pub(crate) fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// Returns once so many request heads came.
    pub(crate) async fn has(&self, count: usize) {
        until("requests at the upstream", || self.arrived() >= count).await;
    }

    /// Returns once every connection is gone.
    pub(crate) async fn all_closed(&self) {
        until("the upstream's connections to be closed", || self.open() == 0).await;
    }

    /// The requests that ended so far; they are forgotten.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().expect("nobody panics"))
    }

    /// The next request to end.
    pub(crate) async fn request(&self) -> Seen {
        until("a request at the upstream", || !self.shared.seen.lock().expect("nobody panics").is_empty()).await;
        self.shared.seen.lock().expect("nobody panics").remove(0)
    }

    /// Lets everything go that waits in `/hold`, now and later.
    pub(crate) fn release(&self) {
        self.shared.release.send_replace(true);
    }

    /// Says goodbye on every connection: what is in flight is finished.
    pub(crate) fn go_away(&self) {
        self.shared.go_away.notify_waiters();
    }

    /// Takes the next requests for ones that ask for these paths, whatever they do ask for.
    pub(crate) fn next(&self, paths: &[&str]) {
        self.shared.next.lock().expect("nobody panics").0.extend(paths.iter().map(|path| (*path).to_owned()));
    }

    /// Takes all further requests for ones that ask for `path`.
    pub(crate) fn always(&self, path: &str) {
        self.shared.next.lock().expect("nobody panics").1 = Some(path.to_owned());
    }

    /// Refuses the next `count` requests for `/refuse`.
    pub(crate) fn refuse(&self, count: usize) {
        self.shared.refuse.store(count, Ordering::SeqCst);
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request as in flight until it is dropped, however its stream ends.
struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.expect("a listening socket");
                connections.spawn(tls(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn tls(stream: TcpStream, shared: Arc<Shared>) {
    if !super::speaks(&stream).await {
        return;
    }
    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(shared);
    let _ = stream.set_nodelay(true);
    match open.0.options.tls.clone() {
        None => serve(stream, number, &open.0).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, number, &open.0).await;
            }
        }
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send, number: usize, shared: &Arc<Shared>) {
    let mut builder = server::Builder::new();
    if let Some(max) = shared.options.max_streams {
        builder.max_concurrent_streams(max);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    let mut streams = JoinSet::new();
    let closing = Arc::new(Notify::new());
    let mut leaving = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                shared.arrived.fetch_add(1, Ordering::SeqCst);
                streams.spawn(stream(request, respond, number, Arc::clone(shared), Arc::clone(&closing)));
                shared.most.fetch_max(streams.len(), Ordering::SeqCst);
            }
            Some(_) = streams.join_next() => {}
            () = closing.notified() => return,
            () = shared.go_away.notified(), if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
            }
        }
    }
}

async fn stream(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    number: usize,
    shared: Arc<Shared>,
    closing: Arc<Notify>,
) {
    let (parts, mut body) = request.into_parts();
    let mut seen = Seen {
        connection: number,
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        fields: parts.headers,
        ..Seen::default()
    };
    let path = {
        let (next, usual) = &mut *shared.next.lock().expect("nobody panics");
        next.pop_front().or_else(|| usual.clone()).unwrap_or_else(|| parts.uri.path().to_owned())
    };
    if path == "/close" {
        // With every other stream of the connection.
        return closing.notify_one();
    }
    // A failure is the end of the stream, which is what the record says.
    let _ = answer(&path, &mut body, respond, &mut seen, &shared).await;
    shared.seen.lock().expect("nobody panics").push(seen);
}

async fn answer(
    path: &str,
    body: &mut RecvStream,
    mut respond: SendResponse<Bytes>,
    seen: &mut Seen,
    shared: &Shared,
) -> Result<(), h2::Error> {
    shared.in_flight.fetch_add(1, Ordering::SeqCst);
    let _in_flight = InFlight(shared);
    let mut words = path.trim_start_matches('/').split('/');
    let verb = words.next().unwrap_or_default();
    let argument = words.next().unwrap_or_default();
    match verb {
        "reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        "refuse" if take_one(&shared.refuse) => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        "hang" => {
            read(body, seen).await?;
            return std::future::pending().await;
        }
        "stall" => return std::future::pending().await,
        "early" => {
            let mut sending = respond.send_response(head(200, &[]), false)?;
            send(&mut sending, b"early", true).await?;
            until_sent(&mut sending).await;
            respond.send_reset(Reason::NO_ERROR);
            return Ok(());
        }
        "hints" => {
            let hints = [("link", "</a.css>; rel=preload")];
            respond.send_informational(head(103, &hints))?;
        }
        "echo" => return echo(body, respond, seen).await,
        "upload" => {
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            let mut length = 0_u64;
            while let Some(data) = body.data().await {
                let data = data?;
                digest.update(&data);
                length += data.len() as u64;
                body.flow_control().release_capacity(data.len())?;
            }
            seen.complete = true;
            let same = digest.finish().as_ref() == pattern::digest(length);
            let mut sending = respond.send_response(head(200, &[]), false)?;
            return send(&mut sending, format!("{length} {same}").as_bytes(), true).await;
        }
        _ => {}
    }
    if verb == "expect" {
        respond.send_informational(head(100, &[]))?;
    }
    read(body, seen).await?;
    if verb == "hold" {
        let _ = shared.release.subscribe().wait_for(|go| *go).await;
    }
    if seen.method == "HEAD" {
        respond.send_response(head(200, &[("content-length", "5")]), true)?;
        return Ok(());
    }
    reply(verb, argument, respond).await
}

async fn reply(verb: &str, argument: &str, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    match verb {
        "status" => {
            respond.send_response(head(argument.parse().unwrap_or(500), &[]), true)?;
        }
        "length" => {
            // A Content-Length that is not true.
            let mut sending = respond.send_response(head(200, &[("content-length", argument)]), false)?;
            send(&mut sending, b"hello", true).await?;
        }
        "cut" => {
            let mut sending = respond.send_response(head(200, &[]), false)?;
            send(&mut sending, b"half", false).await?;
            until_sent(&mut sending).await;
            sending.send_reset(Reason::INTERNAL_ERROR);
        }
        "big" => {
            let total: u64 = argument.parse().unwrap_or(0);
            let mut sending = respond.send_response(head(200, &[("content-length", argument)]), false)?;
            let block = pattern::block();
            for n in pattern::pieces(total) {
                send(&mut sending, &block[..n], false).await?;
            }
            sending.send_data(Bytes::new(), true)?;
        }
        "grpc" => {
            let mut sending = respond.send_response(head(200, &[("content-type", "application/grpc")]), false)?;
            send(&mut sending, b"\0\0\0\0\0", false).await?;
            sending.send_trailers(map(&[("grpc-status", argument), ("grpc-message", "said")]))?;
        }
        "only" => {
            let fields = [("content-type", "application/grpc"), ("grpc-status", argument)];
            respond.send_response(head(200, &fields), true)?;
        }
        _ => {
            let fields = [("x-version", "h2"), ("content-length", "5")];
            let mut sending = respond.send_response(head(200, &fields), false)?;
            send(&mut sending, b"hello", true).await?;
        }
    }
    Ok(())
}

/// Answers with the body and the trailers that come, as they come.
async fn echo(body: &mut RecvStream, mut respond: SendResponse<Bytes>, seen: &mut Seen) -> Result<(), h2::Error> {
    let mut sending = respond.send_response(head(200, &[]), false)?;
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        send(&mut sending, &data, false).await?;
    }
    seen.trailers = body.trailers().await?;
    seen.complete = true;
    match seen.trailers.clone() {
        Some(trailers) => sending.send_trailers(trailers),
        None => sending.send_data(Bytes::new(), true),
    }
}

async fn read(body: &mut RecvStream, seen: &mut Seen) -> Result<(), h2::Error> {
    while let Some(data) = body.data().await {
        let data = data?;
        seen.body.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    seen.trailers = body.trailers().await?;
    seen.complete = true;
    Ok(())
}

async fn send(sending: &mut SendStream<Bytes>, mut data: &[u8], end: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        sending.reserve_capacity(data.len());
        let granted = match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
            Some(granted) => granted?.min(data.len()),
            None => return Ok(()),
        };
        let (now, later) = data.split_at(granted);
        sending.send_data(Bytes::copy_from_slice(now), end && later.is_empty())?;
        data = later;
    }
    Ok(())
}

/// Returns once what was handed over has probably left: a reset would drop it.
async fn until_sent(_: &mut SendStream<Bytes>) {
    super::super::wait::pause(std::time::Duration::from_millis(20)).await;
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status.try_into().expect("a status");
    *response.headers_mut() = map(fields);
    response
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    };
    fields.iter().map(field).collect()
}
