//! One probe: connects, asks, judges. Everything is bounded by the probe's timeout.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request as Message, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::{grpc, http2};
use crate::clock;
use crate::core::endpoint::Address;
use crate::core::health::Probe;
use crate::core::health::judge::{self, Answer};
use crate::core::health::wanted::{Check, Health, ProbeTls, ProbeValue};
use crate::core::service::{Protocol, Service, UpstreamTls};
use crate::net::http::{Request, request_over};
use crate::net::tls::ALPN_HTTP1;
use crate::net::tls_client::TlsClient;
use crate::state::health::Probed;

/// What probes call themselves.
const USER_AGENT_VALUE: &str = concat!("tidegate-probe/", env!("CARGO_PKG_VERSION"));
/// Most bytes of a body that are read and judged.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What a connection has to speak for gRPC, and where requests go over HTTP/2 (RFC 7301).
const ALPN_HTTP2: &[u8] = b"h2";

/// How the endpoints of one service are asked, with everything prepared that does not depend on the endpoint.
pub(super) struct Asker {
    /// What the author wants.
    pub(super) health: Arc<Health>,
    upstream_tls: Option<UpstreamTls>,
    protocol: Protocol,
    /// TLS of requests; an error is the result of every probe.
    tls: Option<Result<TlsClient, String>>,
    headers: HeaderMap,
}

/// A connection to an endpoint.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An answer that was judged: its status and body as far as they came, and the verdict.
type Judged = (Option<u16>, Option<String>, Result<(), String>);

// === impl Asker ===

impl Asker {
    pub(super) fn new(service: &Service) -> Self {
        let health = Arc::clone(&service.health);
        let tls = match &health.tls {
            ProbeTls::Off => None,
            ProbeTls::Own(own) => Some(own),
            ProbeTls::Upstream => service.upstream.tls.as_ref(),
        };
        let protocol = service.upstream.protocol;
        let is_http2 = matches!(health.readiness, Check::Grpc(_)) || speaks_http2(&health, protocol);
        let alpn = if is_http2 { ALPN_HTTP2 } else { ALPN_HTTP1 };
        let tls = tls.map(|tls| TlsClient::new(tls, &[alpn]));
        let headers = headers(&health);
        Self { health, upstream_tls: service.upstream.tls.clone(), protocol, tls, headers }
    }

    /// Whether it asks as `service` wants it.
    pub(super) fn is_of(&self, service: &Service) -> bool {
        let upstream = &service.upstream;
        self.health == service.health && self.upstream_tls == upstream.tls && self.protocol == upstream.protocol
    }

    /// How `probe` is asked; `None` if it is not.
    pub(super) fn check(&self, probe: Probe) -> Option<&Check> {
        let health = &self.health;
        match probe {
            Probe::Startup => health.startup.as_ref().map(|startup| &startup.check),
            Probe::Readiness => Some(&health.readiness),
            Probe::Liveness => health.liveness.as_ref(),
            Probe::Deep => health.deep.as_ref().map(|deep| &deep.check),
        }
    }

    /// Asks the endpoint at `address`.
    pub(super) async fn ask(&self, address: &Address, probe: Probe) -> Probed {
        let began = clock::now();
        let deadline = Instant::from_std(began + self.health.timeout);
        let (status, body, verdict) = match self.check(probe) {
            Some(check) => self.connect(address, check, probe, deadline).await,
            None => (None, None, Ok(())),
        };
        let latency = clock::now().saturating_duration_since(began);
        let verdict = verdict.and_then(|()| judge::latency(&self.health.expect, probe, latency));
        Probed { probe, error: verdict.err(), status, latency, body, at: clock::unix_time() }
    }

    async fn connect(&self, address: &Address, check: &Check, probe: Probe, deadline: Instant) -> Judged {
        let address = &self.at(address);
        let failed = |why: String| (None, None, Err(why));
        let late = |what: &str| format!("{what} within {:?}", self.health.timeout);
        let stream = match timeout_at(deadline, open(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return failed(format!("cannot connect to {address}: {error}")),
            Err(_) => return failed(late(&format!("no connection to {address}"))),
        };
        let tls = match (&self.tls, check, &self.health.tls) {
            (None, ..) | (Some(_), Check::Tcp, ProbeTls::Upstream) => {
                return self.over(stream, address, check, probe, deadline).await;
            }
            (Some(Err(why)), ..) => return failed(why.clone()),
            (Some(Ok(tls)), ..) => tls,
        };
        match timeout_at(deadline, tls.connector.connect(tls.name.clone(), stream)).await {
            // The same holds for requests: what was not agreed on is not spoken.
            Ok(Ok(stream)) if self.is_http2(check) && stream.get_ref().1.alpn_protocol() != Some(ALPN_HTTP2) => {
                failed("TLS without HTTP/2: the endpoint did not choose it (ALPN)".to_owned())
            }
            Ok(Ok(stream)) => Box::pin(self.over(stream, address, check, probe, deadline)).await,
            Ok(Err(error)) => failed(format!("the TLS handshake failed: {error}")),
            Err(_) => failed(late("no TLS handshake")),
        }
    }

    /// Whether `check` is a request over HTTP/2.
    fn is_http2(&self, check: &Check) -> bool {
        matches!(check, Check::Http(_)) && speaks_http2(&self.health, self.protocol)
    }

    /// Where an endpoint is asked: perhaps on another port. A unix socket has none.
    fn at(&self, address: &Address) -> Address {
        match (address, self.health.port) {
            (Address::Ip(address), Some(port)) => Address::Ip(SocketAddr::new(address.ip(), port)),
            _ => address.clone(),
        }
    }

    async fn over<S>(&self, stream: S, address: &Address, check: &Check, probe: Probe, deadline: Instant) -> Judged
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Each on the heap: a probe is moved several times before it runs, and only one of them is needed.
        let asked = async {
            match check {
                Check::Tcp => (None, None, Ok(())),
                Check::Http(path) if self.is_http2(check) => Box::pin(self.http2(stream, address, path, probe)).await,
                Check::Http(path) => Box::pin(self.http(stream, address, path, probe)).await,
                Check::Grpc(service) => {
                    let (status, verdict) = match self.uri(address, grpc::PATH) {
                        Ok(uri) => Box::pin(grpc::check(stream, uri, self.headers.clone(), service)).await,
                        Err(why) => (None, Err(why)),
                    };
                    (status, None, verdict)
                }
            }
        };
        let late = || (None, None, Err(format!("no answer within {:?}", self.health.timeout)));
        timeout_at(deadline, asked).await.unwrap_or_else(|_| late())
    }

    async fn http<S>(&self, stream: S, address: &Address, path: &str, probe: Probe) -> Judged
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Ok(host) = HeaderValue::from_str(&self.host(address)) else {
            return (None, None, Err("the host is no field value".to_owned()));
        };
        let request = Request { headers: self.headers.clone(), ..Request::get(path) };
        match request_over(stream, host, request, BODY_BYTES_MAX).await {
            Ok((response, is_cut)) => {
                self.judge(probe, Answer { status: response.status, body: &response.body, is_cut })
            }
            Err(error) => (None, None, Err(error.to_string())),
        }
    }

    async fn http2<S>(&self, stream: S, address: &Address, path: &str, probe: Probe) -> Judged
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = Message::new(());
        *request.uri_mut() = match self.uri(address, path) {
            Ok(uri) => uri,
            Err(why) => return (None, None, Err(why)),
        };
        *request.headers_mut() = self.headers.clone();
        match http2::exchange(stream, request, None, BODY_BYTES_MAX).await {
            (Some(status), Ok(answer)) => {
                self.judge(probe, Answer { status, body: &answer.body, is_cut: answer.is_cut })
            }
            (status, answer) => (status, None, answer.map(|_| ())),
        }
    }

    fn judge(&self, probe: Probe, answer: Answer<'_>) -> Judged {
        let verdict = judge::answer(&self.health.expect, probe, answer);
        (Some(answer.status), judge::head_of(answer.body), verdict)
    }

    fn host(&self, address: &Address) -> String {
        self.health.host.clone().unwrap_or_else(|| address.authority())
    }

    fn uri(&self, address: &Address, path: &str) -> Result<Uri, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(self.host(address));
        uri.path_and_query(path).build().map_err(|error| format!("no such host: {error}"))
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Io>> {
    Ok(match address {
        Address::Ip(address) => {
            let stream = TcpStream::connect(address).await?;
            // Nothing lost if it fails: only the delay of a second small write.
            let _ = stream.set_nodelay(true);
            Box::new(stream)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(&**path).await?),
    })
}

/// Whether HTTP probes speak HTTP/2: as requests do, but what listens on a port of its own for them is another server.
fn speaks_http2(health: &Health, protocol: Protocol) -> bool {
    protocol == Protocol::Http2 && health.port.is_none()
}

/// The fields every probe of a service sends.
fn headers(health: &Health) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for header in &health.headers {
        let value = match &header.value {
            ProbeValue::Written(text) => text.as_bytes(),
            ProbeValue::Env(secret) => &secret.0,
        };
        // Both were checked when the file was read.
        let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        value.set_sensitive(true);
        headers.append(name, value);
    }
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
    headers
}
