//! A configuration with everything resolved and every default filled in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::core::id::Name;
use crate::core::route::Route;
use crate::core::service::{PemFile, Service};
use crate::core::weight::Weight;

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `[admin]`
    pub admin: Admin,
    /// `[state]`
    pub state: State,
    /// `[runtime]`
    pub runtime: Runtime,
    /// `[log]`
    pub log: Log,
    /// `[[listeners]]`, at least one, addresses distinct.
    pub listeners: Vec<Listener>,
    /// `[[routes]]` in file order, at least one; every service they name exists.
    pub routes: Vec<Route<Name>>,
    /// `[services.*]` in order of name.
    pub services: Vec<Arc<Service>>,
}

/// `[admin]`: the two addresses need a restart to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where the API listens; other machines can reach it only if there are tokens.
    pub listen: ListenAddress,
    /// Where `/healthz`, `/readyz` and `/metrics` alone are answered, to anyone; `None`: nowhere.
    pub probe_listen: Option<ListenAddress>,
    /// Who may do what, at most [`TOKENS_MAX`]; none: whoever reaches the API on this machine may do everything.
    pub tokens: Vec<Token>,
    /// Whether commands about a service have to say why; an abort never has to.
    pub require_reason: bool,
}

/// Most tokens of the admin API.
pub const TOKENS_MAX: usize = 64;

/// One of `[admin] tokens`. The secret itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name in events, distinct among tokens.
    pub name: Name,
    /// What it allows.
    pub role: Role,
    /// What tells it from others.
    pub digest: TokenDigest,
    /// Where it comes from.
    pub source: TokenSource,
}

/// What someone may do with the admin API; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Viewer,
    /// Give commands.
    Operator,
    /// Give commands with force.
    Admin,
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

/// Where a token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// An environment variable, as it was when the file was read.
    Env(String),
    /// A file; it is watched.
    File(PathBuf),
}

/// `[state]`: restart to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where the store, the audit log and the upgrade socket live.
    pub dir: PathBuf,
}

/// `[runtime]`: restart to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Number of workers, one thread and one event loop each, 1 to 1024.
    pub workers: usize,
    /// Longest time between a stop signal and the end of the process.
    pub drain_timeout: Duration,
    /// How long connections are still accepted after a stop signal.
    pub accept_grace: Duration,
    /// How long idle client connections are kept after a stop signal.
    pub idle_grace: Duration,
    /// `[runtime.dns]`
    pub dns: Dns,
}

/// `[runtime.dns]`: how names of endpoints are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// DNS servers to ask; empty: what `/etc/resolv.conf` says, its search domains included.
    pub servers: Vec<SocketAddr>,
    /// Longest wait for an answer of one server.
    pub timeout: Duration,
    /// Shortest time an answer is used, whatever its TTL; also the first pause after a failure.
    pub min_ttl: Duration,
    /// Longest time an answer is used, whatever its TTL.
    pub max_ttl: Duration,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Lowest level shown.
    pub level: LogLevel,
    /// How lines look; `None`: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// `[log.access]`
    pub access: AccessLog,
}

/// `[log.access]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Whether it is written.
    pub enabled: bool,
    /// The file; `None` is standard output (`"-"`).
    pub path: Option<PathBuf>,
    /// How lines look.
    pub format: LogFormat,
    /// Share of the requests that is logged.
    pub sample: Weight,
}

/// How verbose the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`
    Info,
    /// `debug`
    Debug,
    /// `trace`
    Trace,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

/// One of `[[listeners]]`, identified by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, distinct among listeners.
    pub name: Name,
    /// Where it listens.
    pub listen: ListenAddress,
    /// TLS towards clients; absent: plain text.
    pub tls: Option<ListenerTls>,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What happens to header names with `_`.
    pub underscores: Underscores,
    /// `[listeners.limits]`
    pub limits: Limits,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificates; chosen by server name, the first is the default.
    pub certificates: Vec<CertificateFiles>,
}

/// A certificate chain and its key, checked to belong together when read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain, leaf first.
    pub cert: PemFile,
    /// Private key.
    pub key: PemFile,
}

/// What happens to header names with `_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// The field is left out.
    Drop,
    /// The field is passed on.
    Keep,
    /// The request is refused with 400.
    Reject,
}

/// `[listeners.limits]`; defaults as in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time from the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// Longest silence between requests.
    pub keepalive_idle: Duration,
    /// Requests served on one HTTP/1.1 connection.
    pub max_requests: u32,
    /// Longest life of a connection that is between requests.
    pub max_age: Duration,
    /// Longest silence within a body, each way.
    pub body_idle: Duration,
    /// Longest TLS handshake.
    pub tls_handshake: Duration,
    /// Open connections, all workers together.
    pub max_connections: u32,
    /// Largest request head, in bytes.
    pub max_head: usize,
    /// Most fields in a request head or in trailers.
    pub max_fields: usize,
    /// Longest request line, in bytes.
    pub max_line: usize,
    /// Largest request body, in bytes; `None`: unlimited.
    pub max_body: Option<u64>,
    /// Longest silence on an upgraded stream, both directions together.
    pub websocket_idle: Duration,
    /// Longest silence of a gRPC call whose response has begun, both directions together.
    pub grpc_idle: Duration,
    /// `[listeners.limits.h2]`
    pub h2: Http2,
}

/// `[listeners.limits.h2]`: what an HTTP/2 client may ask for; defaults as in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Whether it is spoken: by ALPN with TLS, by prior knowledge without.
    pub enabled: bool,
    /// Streams open at once on one connection.
    pub max_streams: u32,
    /// Bytes of a request body a client may send ahead on one stream.
    pub stream_window: u32,
    /// The same for all streams of a connection together. Less than `max_streams` times `stream_window`: uploads that nobody reads can hold
    /// the others of their connection up.
    pub connection_window: u32,
    /// Largest request head or trailers, in bytes, with 32 for each field (RFC 9113 section 10.5.1).
    pub max_header_list: u32,
    /// Most fields in a request head or in trailers.
    pub max_fields: u32,
    /// Requests on one connection before it is ended with GOAWAY.
    pub max_requests: u32,
    /// Streams a client may have reset before they were looked at; one more ends the connection.
    pub max_pending_resets: u32,
    /// Streams that may have been reset for a client's mistakes; one more ends the connection.
    pub max_error_resets: u32,
}

// === impl Admin ===

impl Default for Admin {
    fn default() -> Self {
        let listen = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9_900)));
        Self { listen, probe_listen: None, tokens: Vec::new(), require_reason: false }
    }
}

// === impl Role ===

impl Role {
    /// The word used in the file and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

// === tokens ===

/// Whether `token` can be sent as one: token68 of RFC 9110 section 11.2.
#[must_use]
pub fn is_token68(token: &[u8]) -> bool {
    let body = token.iter().rposition(|byte| *byte != b'=').map_or(&[][..], |last| &token[..=last]);
    !body.is_empty() && body.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}

// === impl TokenDigest ===

impl TokenDigest {
    /// The digest of `token`.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token).as_ref());
        Self(bytes)
    }

    /// Whether both are the same; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            keepalive_idle: Duration::from_secs(60),
            max_requests: 1_000,
            max_age: Duration::from_secs(3_600),
            body_idle: Duration::from_secs(60),
            tls_handshake: Duration::from_secs(5),
            max_connections: 10_000,
            max_head: 32 * 1024,
            max_fields: 100,
            max_line: 8 * 1024,
            max_body: None,
            websocket_idle: Duration::from_secs(600),
            grpc_idle: Duration::from_secs(3_600),
            h2: Http2::default(),
        }
    }
}

// === impl Http2 ===

impl Default for Http2 {
    fn default() -> Self {
        Self {
            enabled: true,
            max_streams: 100,
            stream_window: 64 * 1024,
            connection_window: 100 * 64 * 1024,
            max_header_list: 64 * 1024,
            max_fields: 128,
            max_requests: 1_000_000,
            max_pending_resets: 20,
            max_error_resets: 128,
        }
    }
}

// === impl Dns ===

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(300),
        }
    }
}

// === impl ListenAddress ===

impl ListenAddress {
    /// Whether other machines can reach it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Log levels and formats ===

impl LogLevel {
    /// The word used in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl LogFormat {
    /// The word used in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
