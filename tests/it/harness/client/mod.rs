//! The client of a test: writes any bytes, in any pieces, and reads responses strictly.

mod load;
mod session;
mod socket;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

pub(crate) use load::{Load, Plan, Record, Tally};
pub(crate) use session::Session;
pub(crate) use socket::WebSocket;

use super::pattern;
use super::wait::{pause, within};
use super::wire::{Body, Collector, Fault, Framing, Head, Pace, Wire};

/// Interim responses a client reads before the final one; http.md lets eight pass.
const INTERIM_MAX: usize = 16;
/// Pieces a message is split into at most.
const SPLIT_PIECES_MAX: usize = 8;
/// Pause between two pieces, so that they are read apart.
const SPLIT_PAUSE: Duration = Duration::from_micros(300);

/// One connection.
pub(crate) struct Client {
    wire: Wire,
}

/// A final response with all that came before and after its body.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// `200`
    pub status: u16,
    /// Its head.
    pub head: Head,
    /// How its body was framed.
    pub framing: Framing,
    /// Its body and trailers.
    pub body: Body,
    /// The 1xx responses before it.
    pub interim: Vec<Head>,
}

// === impl Client ===

impl Client {
    /// Connects to `IP:PORT` or `unix:PATH`.
    pub(crate) async fn connect(address: &str) -> Self {
        Self::try_connect(address).await.unwrap_or_else(|e| panic!("no connection to {address}: {e}"))
    }

    /// Connects, or says why not.
    pub(crate) async fn try_connect(address: &str) -> std::io::Result<Self> {
        let wire = match address.strip_prefix("unix:") {
            Some(path) => Wire::new(UnixStream::connect(path).await?),
            None => Wire::new(tcp(address, None).await?),
        };
        Ok(Self { wire })
    }

    /// Connects from `127.x.y.z`, so that one test can be several clients.
    pub(crate) async fn connect_from(source: &str, address: &str) -> Self {
        let stream = tcp(address, Some(source))
            .await
            .unwrap_or_else(|e| panic!("no connection from {source} to {address}: {e}"));
        Self { wire: Wire::new(stream) }
    }

    /// Connects with TLS, asking for `name`; the error is the handshake's.
    pub(crate) async fn connect_tls(
        address: &str,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> std::io::Result<(Self, Vec<u8>)> {
        let stream = tcp(address, None).await?;
        let name = name.to_owned().try_into().expect("a server name");
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        Ok((Self { wire: Wire::new(stream) }, shown.unwrap_or_default()))
    }

    /// Writes `bytes` at once.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("an open connection");
    }

    /// Writes `bytes`; the peer may have closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.wire.write(bytes.as_ref()).await
    }

    /// Writes `bytes` in pieces cut at places drawn from `seed`. Stops quietly when the peer closes before the last piece.
    pub(crate) async fn send_split(&mut self, bytes: &[u8], seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cuts: Vec<usize> =
            (1..random.usize(2..=SPLIT_PIECES_MAX)).map(|_| random.usize(0..=bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            if self.try_send(&bytes[pair[0]..pair[1]]).await.is_err() {
                return;
            }
            pause(SPLIT_PAUSE).await;
        }
    }

    /// Writes so many bytes of the pattern as they are.
    pub(crate) async fn send_pattern(&mut self, total: u64) -> std::io::Result<()> {
        let block = pattern::block();
        for n in pattern::pieces(total) {
            self.wire.write(&block[..n]).await?;
        }
        Ok(())
    }

    /// Writes one chunk; an empty one is the last, without trailers.
    pub(crate) async fn send_chunk(&mut self, bytes: &[u8]) {
        self.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()).await;
    }

    /// The response to a request that was not HEAD.
    pub(crate) async fn response(&mut self) -> Response {
        within("a response", self.try_response("GET")).await.unwrap_or_else(|fault| panic!("no response: {fault}"))
    }

    /// The response to a request with this method, or what is wrong with it. The caller bounds the wait.
    pub(crate) async fn try_response(&mut self, method: &str) -> Result<Response, Fault> {
        let (head, interim) = self.try_head().await?;
        self.try_body(method, head, interim, Pace::Eager).await
    }

    /// The response, read slowly.
    pub(crate) async fn slow_response(&mut self, bytes: usize, pause: Duration) -> Result<Response, Fault> {
        let (head, interim) = self.try_head().await?;
        self.try_body("GET", head, interim, Pace::Slow(bytes, pause)).await
    }

    /// The next final response head, for tests that follow its body piece by piece.
    pub(crate) async fn head(&mut self) -> Head {
        within("a response head", self.try_head()).await.unwrap_or_else(|fault| panic!("no response: {fault}")).0
    }

    /// The next head, interim or final.
    pub(crate) async fn any_head(&mut self) -> Head {
        let head = within("a response head", self.wire.read_head()).await;
        head.unwrap_or_else(|fault| panic!("no response: {fault}")).expect("a head before the end")
    }

    /// The next chunk; `None` is the last.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        within("a chunk", self.wire.read_chunk()).await.unwrap_or_else(|fault| panic!("no chunk: {fault}")).ok()
    }

    /// Everything until the end of the connection, however it ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        match within("the end of the connection", self.wire.read_to_end()).await {
            Ok(rest) => rest,
            Err(_) => self.wire.pending().to_vec(),
        }
    }

    /// Returns once the connection is closed (or reset); nothing may come before.
    pub(crate) async fn expect_close(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "the end was expected, not {:?}", String::from_utf8_lossy(&rest));
    }

    /// Returns once the connection is closed in order: a reset does not count.
    pub(crate) async fn expect_fin(&mut self) {
        let end = within("the end of the connection", self.wire.read_to_end()).await;
        assert!(end.as_ref().is_ok_and(Vec::is_empty), "an orderly end was expected, not {end:?}");
    }

    /// Ends the writing side.
    pub(crate) async fn half_close(&mut self) {
        self.try_half_close().await.expect("an open connection");
    }

    /// Ends the writing side; the peer may have closed.
    pub(crate) async fn try_half_close(&mut self) -> std::io::Result<()> {
        self.wire.half_close().await
    }

    /// Cuts the connection with a reset.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    async fn try_head(&mut self) -> Result<(Head, Vec<Head>), Fault> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.read_head().await?.ok_or(Fault::Eof("before a response"))?;
            let status = status_of(&head)?;
            if status >= 200 || status == 101 {
                return Ok((head, interim));
            }
            interim.push(head);
            if interim.len() > INTERIM_MAX {
                return Err(Fault::Malformed("1xx without an end".into()));
            }
        }
    }

    async fn try_body(&mut self, method: &str, head: Head, interim: Vec<Head>, pace: Pace) -> Result<Response, Fault> {
        let status = status_of(&head)?;
        let framing = match head.framing()? {
            framing if status < 200 || status == 204 => {
                if framing.is_some() {
                    return Err(Fault::Malformed(format!("framing fields in a {status}")));
                }
                Framing::None
            }
            _ if status == 304 || method == "HEAD" => Framing::None,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        let mut collector = Collector::default();
        let trailers = self.wire.read_body(framing, pace, &mut collector).await?;
        Ok(Response { status, head, framing, body: collector.finish(trailers), interim })
    }
}

// === impl Response ===

impl Response {
    /// The value of the first field called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        self.body.text()
    }

    /// The release that answered, as the sample upstreams say.
    pub(crate) fn version(&self) -> &str {
        self.get("x-version").unwrap_or("none")
    }

    /// Whether the connection may carry another request.
    pub(crate) fn keeps(&self) -> bool {
        self.framing != Framing::UntilClose
            && !self.head.lists("connection", "close")
            && self.head.line.starts_with("HTTP/1.1")
    }

    /// `NAME=VALUE` of the cookie that the response sets, if any.
    pub(crate) fn set_cookie(&self) -> Option<&str> {
        self.get("set-cookie").and_then(|v| v.split(';').next())
    }
}

/// The status of a response head, the status line checked whole.
pub(crate) fn status_of(head: &Head) -> Result<u16, Fault> {
    let bad = || Fault::Malformed(format!("status line {:?}", head.line));
    let rest = head.line.strip_prefix("HTTP/1.1 ").or_else(|| head.line.strip_prefix("HTTP/1.0 ")).ok_or_else(bad)?;
    let (code, _reason) = rest.split_once(' ').ok_or_else(bad)?;
    match code.parse() {
        Ok(status @ 100..=599) if code.len() == 3 => Ok(status),
        _ => Err(bad()),
    }
}

async fn tcp(address: &str, source: Option<&str>) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().expect("an address with a port");
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source.parse().expect("an address"), 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
