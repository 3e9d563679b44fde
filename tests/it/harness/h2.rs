//! The HTTP/2 client of a test: requests on streams of one connection, with its windows and resets in the test's hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::wait::{pause, within};

/// One connection.
pub(crate) struct H2Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A request under way.
pub(crate) struct Exchange {
    /// The body's way out.
    pub body: SendStream<Bytes>,
    response: ResponseFuture,
    interim: Vec<(u16, HeaderMap)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub(crate) struct H2Response {
    /// The status.
    pub status: u16,
    /// The fields of the head.
    pub fields: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The fields after it.
    pub trailers: HeaderMap,
    /// The 1xx responses before it.
    pub interim: Vec<(u16, HeaderMap)>,
}

// === impl H2Client ===

impl H2Client {
    /// Connects to `IP:PORT`, by prior knowledge.
    pub(crate) async fn connect(address: &str) -> Self {
        Self::connect_with(address, &Builder::new()).await
    }

    /// Connects by prior knowledge; `None` when nobody listens any more.
    pub(crate) async fn try_connect(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (requests, connection) = within("a handshake", h2::client::handshake(stream)).await.ok()?;
        Some(Self { requests, connection: tokio::spawn(connection) })
    }

    /// The same with settings of its own.
    pub(crate) async fn connect_with(address: &str, builder: &Builder) -> Self {
        let stream = TcpStream::connect(address).await.expect("a listener");
        stream.set_nodelay(true).expect("a socket");
        let (requests, connection) = within("a handshake", builder.handshake(stream)).await.expect("HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Connects with TLS and agrees on `h2` by ALPN.
    pub(crate) async fn connect_tls(address: &str, name: &str, config: &ClientConfig) -> Self {
        let mut config = config.clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(address).await.expect("a listener");
        let name = name.to_owned().try_into().expect("a server name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a TLS handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (requests, connection) = within("a handshake", h2::client::handshake(stream)).await.expect("HTTP/2");
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Begins a request; `ended` says that it has no body.
    pub(crate) async fn begin(&self, request: Request<()>, ended: bool) -> Exchange {
        self.try_begin(request, ended).await.expect("a connection that takes requests")
    }

    /// Begins a request, or says why not.
    pub(crate) async fn try_begin(&self, request: Request<()>, ended: bool) -> Result<Exchange, h2::Error> {
        let mut requests = within("room for a stream", self.requests.clone().ready()).await?;
        let (response, body) = requests.send_request(request, ended)?;
        Ok(Exchange { body, response, interim: Vec::new() })
    }

    /// The response to a request with this body, if any.
    pub(crate) async fn ask(&self, request: Request<()>, body: Option<&[u8]>) -> H2Response {
        self.try_ask(request, body).await.unwrap_or_else(|error| panic!("no response: {error}"))
    }

    /// The response to a request with this body, if any, or how the stream ended.
    pub(crate) async fn try_ask(&self, request: Request<()>, body: Option<&[u8]>) -> Result<H2Response, h2::Error> {
        let mut exchange = self.try_begin(request, body.is_none()).await?;
        if let Some(body) = body {
            exchange.body.send_data(Bytes::copy_from_slice(body), true)?;
        }
        exchange.response().await
    }

    /// The response to a GET.
    pub(crate) async fn get(&self, path: &str) -> H2Response {
        self.ask(get(path), None).await
    }

    /// How the connection ended, once it has.
    pub(crate) async fn closed(self) -> Result<(), h2::Error> {
        let Self { requests, connection } = self;
        let ended = within("the end of the connection", connection).await.expect("no panic");
        drop(requests);
        ended
    }
}

// === impl Exchange ===

impl Exchange {
    /// The response head and the way its body comes.
    pub(crate) async fn head(&mut self) -> Result<http::Response<RecvStream>, h2::Error> {
        within(
            "a response head",
            std::future::poll_fn(|cx| {
                while let std::task::Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
                    self.interim.push((interim.status().as_u16(), interim.headers().clone()));
                }
                std::pin::Pin::new(&mut self.response).poll(cx)
            }),
        )
        .await
    }

    /// The whole response.
    pub(crate) async fn response(mut self) -> Result<H2Response, h2::Error> {
        let (head, mut stream) = self.head().await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = within("more of a body", stream.data()).await {
            let piece = piece?;
            stream.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        let trailers = within("trailers", stream.trailers()).await?.unwrap_or_default();
        let interim = std::mem::take(&mut self.interim);
        Ok(H2Response { status: head.status.as_u16(), fields: head.headers, body, trailers, interim })
    }

    /// Resets the stream.
    pub(crate) fn reset(mut self, reason: Reason) {
        self.body.send_reset(reason);
    }
}

// === impl H2Response ===

impl H2Response {
    /// The value of the first field called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("text"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }
}

/// What a server says to frames given byte by byte (the preface and empty SETTINGS go before them), up to any of `ends`, or to its end.
/// With a `seed` all is sent in pieces.
pub(crate) async fn raw(address: &str, frames: &[u8], seed: Option<u64>, ends: &[&[u8]]) -> Vec<u8> {
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames].concat();
    let (mut from, mut to) = TcpStream::connect(address).await.expect("a listener").into_split();
    let mut random = fastrand::Rng::with_seed(seed.unwrap_or_default());
    let mut sent = 0;
    while sent < bytes.len() {
        let n = if seed.is_some() { random.usize(1..=8).min(bytes.len() - sent) } else { bytes.len() };
        // A server that had enough closes before all is written.
        if to.write_all(&bytes[sent..sent + n]).await.is_err() {
            break;
        }
        sent += n;
        if seed.is_some() {
            pause(Duration::from_micros(300)).await;
        }
    }
    let mut seen = Vec::new();
    let ended = |seen: &[u8]| ends.iter().any(|end| seen.windows(end.len()).any(|part| part == *end));
    while !ended(&seen) && within("frames", from.read_buf(&mut seen)).await.is_ok_and(|n| n > 0) {}
    seen
}

/// A request for `path` of `test`.
pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://test{path}"))
}

/// A GET.
pub(crate) fn get(path: &str) -> Request<()> {
    request("GET", path).body(()).expect("a request")
}
