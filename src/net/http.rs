//! A small HTTP/1.1 client: one connection, one request, everything bounded. For the command line, hooks and probes; not the data plane.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// Largest response body, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Where a response head becomes too large, in bytes; the last read may overshoot it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// `Host` of a request over a unix socket, which has no name of its own.
const UNIX_HOST: &str = "localhost";
/// Port of an `http://` address that names none (RFC 9110 section 4.2.1).
const HTTP_PORT: u16 = 80;

/// Where a server is reached: `http://host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name or address (IPv6 without brackets) and a port.
    Tcp {
        /// What is resolved.
        host: String,
        /// `1..=65535`
        port: u16,
        /// What `Host` says: host and port as they were written.
        authority: HeaderValue,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// A request. `Host`, `Content-Length` and `Connection: close` are added when it is sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`
    pub method: Method,
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Fields beside those that are added. A `Host` given here stays.
    pub headers: HeaderMap,
    /// May be empty.
    pub body: Vec<u8>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// `200..=999`
    pub status: u16,
    /// The fields as they came.
    pub headers: HeaderMap,
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// A response whose body comes piece by piece, for as long as the server likes. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    /// `200..=999`
    pub status: u16,
    /// The fields as they came.
    pub headers: HeaderMap,
    body: Incoming,
    /// Moves the bytes.
    _connection: JoinSet<()>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// Nothing listens there: the connection was refused, or the unix socket does not exist.
    Refused,
    /// Not done within the time given.
    Timeout,
    /// The body is larger than [`BODY_BYTES_MAX`].
    TooLarge,
    /// Anything else, in words: no such name, no permission, not HTTP, cut off within the response.
    Broken(String),
}

/// Connects to `target`, sends `request` and reads the whole response, all within `timeout`. Redirects are not followed.
///
/// # Errors
/// See [`HttpError`].
pub async fn request(target: &Target, request: Request, timeout: Duration) -> Result<Response, HttpError> {
    tokio::time::timeout(timeout, connect_and_exchange(target, request)).await.unwrap_or(Err(HttpError::Timeout))
}

/// Connects to `target`, sends `request` and reads the head of the response, all within `timeout`; the body may take longer.
///
/// # Errors
/// See [`HttpError`].
pub async fn open(target: &Target, request: Request, timeout: Duration) -> Result<Stream, HttpError> {
    let opening = async {
        let message = message(host_of(target), request)?;
        match target {
            Target::Tcp { host, port, .. } => open_over(connect(host, *port).await?, message).await,
            Target::Unix(path) => open_over(connect_unix(path).await?, message).await,
        }
    };
    tokio::time::timeout(timeout, opening).await.unwrap_or(Err(HttpError::Timeout))
}

/// Sends `request` to `host` over `stream` and reads the response, but of its body at most `body_max` bytes; the second value says whether
/// there was more. The caller bounds the time.
///
/// # Errors
/// See [`HttpError`]; never that the body is too large.
pub async fn request_over<S>(
    stream: S,
    host: HeaderValue,
    request: Request,
    body_max: usize,
) -> Result<(Response, bool), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    exchange(stream, message(host, request)?, |response| read_some(response, body_max)).await
}

async fn connect_and_exchange(target: &Target, request: Request) -> Result<Response, HttpError> {
    let message = message(host_of(target), request)?;
    match target {
        Target::Tcp { host, port, .. } => exchange(connect(host, *port).await?, message, read).await,
        Target::Unix(path) => exchange(connect_unix(path).await?, message, read).await,
    }
}

fn host_of(target: &Target) -> HeaderValue {
    match target {
        Target::Tcp { authority, .. } => authority.clone(),
        Target::Unix(_) => HeaderValue::from_static(UNIX_HOST),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    let stream = TcpStream::connect((host, port)).await.map_err(|e| HttpError::connecting(&e))?;
    // Nothing lost if it fails: only the delay of a second small write.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn connect_unix(path: &Path) -> Result<UnixStream, HttpError> {
    UnixStream::connect(path).await.map_err(|e| HttpError::connecting(&e))
}

async fn open_over<S>(stream: S, message: hyper::Request<Full<Bytes>>) -> Result<Stream, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(stream).await?;
    let mut task = JoinSet::new();
    task.spawn(async move {
        // Whoever reads the body is told of an error, too.
        let _ = connection.await;
    });
    let (head, body) = sender.send_request(message).await.map_err(|e| HttpError::broken(&e))?.into_parts();
    Ok(Stream { status: head.status.as_u16(), headers: head.headers, body, _connection: task })
}

/// The request as it is sent.
fn message(host: HeaderValue, request: Request) -> Result<hyper::Request<Full<Bytes>>, HttpError> {
    let uri = match request.path.parse::<Uri>() {
        Ok(uri) if request.path.starts_with('/') => uri,
        _ => return Err(HttpError::Broken(format!("\"{}\" is not a path that begins with \"/\"", request.path))),
    };
    let mut message = hyper::Request::new(Full::new(Bytes::from(request.body)));
    *message.method_mut() = request.method;
    *message.uri_mut() = uri;
    *message.headers_mut() = request.headers;
    message.headers_mut().entry(HOST).or_insert(host);
    message.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(message)
}

async fn exchange<S, T, F>(
    stream: S,
    message: hyper::Request<Full<Bytes>>,
    read: impl FnOnce(hyper::Response<Incoming>) -> F,
) -> Result<T, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<T, HttpError>>,
{
    let (mut sender, connection) = handshake(stream).await?;
    let answer = async {
        let response = sender.send_request(message).await.map_err(|e| HttpError::broken(&e))?;
        read(response).await
    };
    drive(answer, connection).await
}

type Handshake<S> = (http1::SendRequest<Full<Bytes>>, http1::Connection<TokioIo<S>, Full<Bytes>>);

async fn handshake<S>(stream: S) -> Result<Handshake<S>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
    handshake.map_err(|e| HttpError::broken(&e))
}

async fn read(response: hyper::Response<Incoming>) -> Result<Response, HttpError> {
    let (head, body) = response.into_parts();
    Ok(Response { status: head.status.as_u16(), headers: head.headers, body: read_all(body).await? })
}

async fn read_all(body: Incoming) -> Result<Bytes, HttpError> {
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|e| if e.is::<LengthLimitError>() { HttpError::TooLarge } else { HttpError::broken(e.as_ref()) })?;
    Ok(body.to_bytes())
}

async fn read_some(response: hyper::Response<Incoming>, body_max: usize) -> Result<(Response, bool), HttpError> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut is_cut = false;
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| HttpError::broken(&e))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = body_max - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            is_cut = true;
            break;
        }
    }
    Ok((Response { status: head.status.as_u16(), headers: head.headers, body: body.into() }, is_cut))
}

/// Runs `answer` while `connection` moves its bytes. The connection may end first: what it has read is then still to be taken.
pub async fn drive<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        value = &mut answer => value,
        _ = &mut connection => answer.await,
    }
}

// === impl Target ===

impl Target {
    /// Reads `http://host[:port]` (a trailing `/` is allowed) or `unix:/path`.
    ///
    /// # Errors
    /// What is wrong and what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(format!("\"{text}\": a unix socket is written as unix:/absolute/path"))
            };
        }
        let allowed = |why: &str| format!("\"{text}\": {why}; allowed are http://host:port and unix:/path");
        let uri: Uri = text.parse().map_err(|_| allowed("this is not an address"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(allowed("TLS is not spoken here")),
            _ => return Err(allowed("the scheme is missing or unknown")),
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(allowed("an address has no path"));
        }
        let Some(authority) = uri.authority() else { return Err(allowed("the host is missing")) };
        if authority.as_str().contains('@') {
            // Not repeated in the message: what stands before the @ may be a password.
            return Err(
                "an address has no user name or password; allowed are http://host:port and unix:/path".to_owned()
            );
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => HTTP_PORT,
            _ => {
                authority.port_u16().filter(|port| *port != 0).ok_or_else(|| allowed("a port is within 1 to 65535"))?
            }
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|_| allowed("this is not a host"))?;
        if host.is_empty() { Err(allowed("the host is missing")) } else { Ok(Self::Tcp { host, port, authority }) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// The next piece of the body; `None` at its end. Waits for as long as it takes.
    ///
    /// # Errors
    /// The connection broke within the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(|e| HttpError::broken(&e))?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole response, of which nothing was read yet.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn whole(self) -> Result<Response, HttpError> {
        let Self { status, headers, body, _connection } = self;
        Ok(Response { status, headers, body: read_all(body).await? })
    }
}

// === impl Request ===

impl Request {
    /// `GET path`
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: HeaderMap::new(), body: Vec::new() }
    }

    /// `POST path` with a JSON body.
    #[must_use]
    pub fn post_json(path: impl Into<String>, json: impl Into<Vec<u8>>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, path: path.into(), headers, body: json.into() }
    }
}

// === impl HttpError ===

impl HttpError {
    fn connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Broken(format!("cannot connect: {error}")),
        }
    }

    /// All of an error's reasons in one line.
    fn broken(error: &(dyn std::error::Error + 'static)) -> Self {
        let reasons = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
        Self::Broken(reasons.collect::<Vec<_>>().join(": "))
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("nothing listens there"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLarge => write!(f, "the answer is larger than {BODY_BYTES_MAX} bytes"),
            Self::Broken(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for HttpError {}

#[cfg(test)]
mod tests;
