//! A byte stream with a buffer, and the pieces of HTTP/1.1 that both sides of a test read from it. Strict: whatever RFC 9112 does not
//! allow a sender to write is a fault, so that a sloppy proxy cannot pass.

use std::io;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Longest head a test reads, in bytes.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a body that are kept beside its length and digest.
const BODY_BYTES_KEPT: usize = 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What went wrong with a message.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The stream ended where more had to come.
    Eof(&'static str),
    /// The peer reset the connection, or another error of the socket.
    Io(io::Error),
    /// The bytes are not HTTP/1.1.
    Malformed(String),
}

/// Anything bytes can be read from and written to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Makes the drop of this stream send a reset, where that exists.
    fn reset_on_drop(&self) -> io::Result<()>;
}

/// A stream with a read buffer.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
}

/// A head: the start line, the fields, and the bytes they came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The first line.
    pub line: String,
    /// Names as they came, values without white space around them.
    pub fields: Vec<(String, String)>,
    /// All bytes, the blank line included.
    pub raw: Vec<u8>,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// All bytes until the connection ends.
    UntilClose,
}

/// What was received of a body.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// The first mebibyte of it.
    pub bytes: Vec<u8>,
    /// All its bytes, counted.
    pub length: u64,
    /// SHA-256 of all its bytes.
    pub digest: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

/// A body while it is received.
pub(crate) struct Collector {
    bytes: Vec<u8>,
    length: u64,
    digest: Context,
}

/// How fast a body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As fast as it comes.
    Eager,
    /// So many bytes at a time, with a pause after each.
    Slow(usize, Duration),
}

// === impl Io ===

impl Io for TcpStream {
    fn reset_on_drop(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

impl Io for UnixStream {
    fn reset_on_drop(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Io for tokio_rustls::client::TlsStream<TcpStream> {
    fn reset_on_drop(&self) -> io::Result<()> {
        self.get_ref().0.reset_on_drop()
    }
}

impl Io for tokio_rustls::server::TlsStream<TcpStream> {
    fn reset_on_drop(&self) -> io::Result<()> {
        self.get_ref().0.reset_on_drop()
    }
}

// === impl Wire ===

impl Wire {
    /// A wire over `io`.
    pub(crate) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), buffer: Vec::new() }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Ends the writing side.
    pub(crate) async fn half_close(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Cuts the connection with a reset.
    pub(crate) fn reset(self) {
        // A socket the peer has closed already cannot be reset, and need not be.
        let _ = self.io.reset_on_drop();
    }

    /// Reads at most `most` bytes once; `false` at the end of the stream.
    async fn fill(&mut self, most: usize) -> Result<bool, Fault> {
        self.buffer.reserve(most);
        match (&mut self.io).take(most as u64).read_buf(&mut self.buffer).await {
            Ok(n) => Ok(n > 0),
            // A peer that closes TLS without a notice has closed nevertheless.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Fault::Io(e)),
        }
    }

    /// The first `n` bytes of the buffer (by moving memory, not byte by byte: bodies of gigabytes pass through here unoptimised).
    fn take(&mut self, n: usize) -> Vec<u8> {
        if n == self.buffer.len() {
            return std::mem::take(&mut self.buffer);
        }
        let rest = self.buffer.split_off(n);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Bytes that were read but belong to nothing yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Everything until the end of the stream; for streams that are not HTTP.
    pub(crate) async fn read_to_end(&mut self) -> Result<Vec<u8>, Fault> {
        while self.fill(READ_BYTES).await? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Exactly `n` bytes.
    pub(crate) async fn read_exact(&mut self, n: usize) -> Result<Vec<u8>, Fault> {
        while self.buffer.len() < n {
            if !self.fill(READ_BYTES).await? {
                return Err(Fault::Eof("within a frame"));
            }
        }
        Ok(self.take(n))
    }

    /// A head, or `None` if the stream ends before its first byte.
    pub(crate) async fn read_head(&mut self) -> Result<Option<Head>, Fault> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let raw = self.take(end + 4);
                return Head::parse(raw).map(Some);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Fault::Malformed("a head without an end".into()));
            }
            if !self.fill(READ_BYTES).await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Fault::Eof("within a head")) };
            }
        }
    }

    /// A line without its line break.
    async fn read_line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = self.take(end + 2);
                return String::from_utf8(line[..end].to_vec()).map_err(|_| malformed("a line that is not text"));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(malformed("a line without an end"));
            }
            if !self.fill(READ_BYTES).await? {
                return Err(Fault::Eof("within a line"));
            }
        }
    }

    /// Part of the next `most` bytes.
    async fn read_some(&mut self, most: u64, pace: Pace) -> Result<Vec<u8>, Fault> {
        let step = match pace {
            Pace::Eager => READ_BYTES,
            Pace::Slow(bytes, pause) => {
                super::wait::pause(pause).await;
                bytes
            }
        };
        if self.buffer.is_empty() && !self.fill(step).await? {
            return Err(Fault::Eof("within a body"));
        }
        let n = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.take(n))
    }

    /// The size of the next chunk; zero is the last one. Extensions are refused: no one here has a reason to send any.
    pub(crate) async fn read_chunk_size(&mut self) -> Result<u64, Fault> {
        let line = self.read_line().await?;
        let canonical = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(&line, 16)
            .ok()
            .filter(|_| canonical)
            .ok_or_else(|| Fault::Malformed(format!("chunk size {line:?}")))
    }

    /// One chunk's bytes; `None` after the last, whose trailers come with it.
    pub(crate) async fn read_chunk(&mut self) -> Result<Result<Vec<u8>, Vec<(String, String)>>, Fault> {
        let size = self.read_chunk_size().await?;
        if size == 0 {
            return Ok(Err(self.read_trailers().await?));
        }
        let bytes = self.read_exact(usize::try_from(size).map_err(|_| malformed("a huge chunk"))?).await?;
        self.read_chunk_end().await?;
        Ok(Ok(bytes))
    }

    async fn read_chunk_end(&mut self) -> Result<(), Fault> {
        let end = self.read_line().await?;
        if end.is_empty() { Ok(()) } else { Err(Fault::Malformed(format!("{end:?} after a chunk"))) }
    }

    async fn read_trailers(&mut self) -> Result<Vec<(String, String)>, Fault> {
        let mut trailers = Vec::new();
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                return Ok(trailers);
            }
            trailers.push(parse_field(&line)?);
        }
    }

    /// A whole body; what came of it is in `into` even when it ends in a fault.
    pub(crate) async fn read_body(
        &mut self,
        framing: Framing,
        pace: Pace,
        into: &mut Collector,
    ) -> Result<Vec<(String, String)>, Fault> {
        match framing {
            Framing::None => {}
            Framing::Length(length) => self.read_counted(length, pace, into).await?,
            Framing::UntilClose => loop {
                match self.read_some(u64::MAX, pace).await {
                    Ok(bytes) => into.add(&bytes),
                    Err(Fault::Eof(_)) => break,
                    Err(fault) => return Err(fault),
                }
            },
            Framing::Chunked => loop {
                let size = self.read_chunk_size().await?;
                if size == 0 {
                    return self.read_trailers().await;
                }
                self.read_counted(size, pace, into).await?;
                self.read_chunk_end().await?;
            },
        }
        Ok(Vec::new())
    }

    async fn read_counted(&mut self, length: u64, pace: Pace, into: &mut Collector) -> Result<(), Fault> {
        let mut left = length;
        while left > 0 {
            let bytes = self.read_some(left, pace).await?;
            left -= bytes.len() as u64;
            into.add(&bytes);
        }
        Ok(())
    }
}

// === impl Head ===

impl Head {
    /// Reads a head from the bytes up to and including its blank line.
    pub(crate) fn parse(raw: Vec<u8>) -> Result<Self, Fault> {
        let text = std::str::from_utf8(&raw).map_err(|_| malformed("a head that is not UTF-8"))?;
        if text.bytes().any(|b| b.is_ascii_control() && !matches!(b, b'\r' | b'\n' | b'\t')) {
            return Err(malformed("a control character in a head"));
        }
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        if text.replace("\r\n", "").contains(['\r', '\n']) {
            return Err(malformed("a bare CR or LF in a head"));
        }
        let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
        Ok(Self { line, fields, raw })
    }

    /// The value of the first field called `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// The values of all fields called `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Whether the comma-separated list `name` has `token`.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    /// How the body is framed by the fields alone; `None` without any.
    pub(crate) fn framing(&self) -> Result<Option<Framing>, Fault> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(None),
            ([], ["chunked"]) => Ok(Some(Framing::Chunked)),
            ([n], []) if n.bytes().all(|b| b.is_ascii_digit()) => match n.parse() {
                Ok(n) => Ok(Some(Framing::Length(n))),
                Err(_) => Err(malformed("Content-Length")),
            },
            _ => Err(Fault::Malformed(format!("framing: Content-Length {lengths:?}, Transfer-Encoding {codings:?}"))),
        }
    }
}

// === impl Collector ===

impl Default for Collector {
    fn default() -> Self {
        Self { bytes: Vec::new(), length: 0, digest: Context::new(&SHA256) }
    }
}

impl Collector {
    fn add(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(BODY_BYTES_KEPT - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
    }

    /// What was received.
    pub(crate) fn finish(self, trailers: Vec<(String, String)>) -> Body {
        Body { bytes: self.bytes, length: self.length, digest: self.digest.finish().as_ref().to_vec(), trailers }
    }
}

// === impl Body ===

impl Body {
    /// The kept bytes as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("a body that is text")
    }
}

// === impl Fault ===

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Eof(place) => write!(f, "the stream ended {place}"),
            Self::Io(e) => write!(f, "the socket failed: {e}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

// === lines ===

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

fn parse_field(line: &str) -> Result<(String, String), Fault> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    match line.split_once(':') {
        Some((name, value)) if !name.is_empty() && name.bytes().all(token) => {
            Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        }
        _ => Err(Fault::Malformed(format!("field line {line:?}"))),
    }
}

fn malformed(what: &str) -> Fault {
    Fault::Malformed(what.to_owned())
}
