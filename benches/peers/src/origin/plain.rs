//! HTTP/1.1, just enough for well-behaved proxies: a response per path, written from memory.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::chunked::Chunked;
use super::{Pool, Served};

/// Read at once: a head, or a piece of an upload.
const READ_BYTES: usize = 64 * 1_024;
const SMALL: usize = 64;
const MIDDLE: usize = 16 * 1_024;
const LARGE: usize = 1_024 * 1_024;

/// Whole responses, ready to be written.
struct Bank {
    small: Vec<u8>,
    middle: Vec<u8>,
    large: Vec<u8>,
    pool: Pool,
}

/// How a request body ends.
enum Body {
    Bytes(u64),
    Chunked,
}

/// One connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been read and not yet used.
    filled: usize,
}

// === impl Bank ===

impl Bank {
    fn new(pool: Pool) -> Self {
        let of = |size| response(pool, &vec![b'x'; size]);
        Self { small: of(SMALL), middle: of(MIDDLE), large: of(LARGE), pool }
    }
}

// === impl Connection ===

impl Connection {
    async fn serve(mut self, bank: &Bank, served: &Served) -> io::Result<()> {
        loop {
            let Some(end) = self.head().await? else { return Ok(()) };
            let head = self.buffer[..end].to_vec();
            self.consume(end);
            if head.starts_with(b"GET /64 ") {
                self.stream.write_all(&bank.small).await?;
            } else if head.starts_with(b"GET /16k ") {
                self.stream.write_all(&bank.middle).await?;
            } else if head.starts_with(b"GET /1m ") {
                self.stream.write_all(&bank.large).await?;
            } else if head.starts_with(b"GET /echo ") {
                self.stream.write_all(&response(bank.pool, &head)).await?;
            } else {
                let length = self.body(framing(&head)).await?;
                self.stream.write_all(&response(bank.pool, length.to_string().as_bytes())).await?;
            }
            served.count(bank.pool);
        }
    }

    /// Reads until the buffer holds a head, and says where it ends; `None` at the end of the stream.
    async fn head(&mut self) -> io::Result<Option<usize>> {
        loop {
            if let Some(at) = memmem::find(&self.buffer[..self.filled], b"\r\n\r\n") {
                return Ok(Some(at + 4));
            }
            if self.filled == self.buffer.len() {
                return Err(io::Error::other("a head without an end"));
            }
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Ok(None);
            }
            self.filled += read;
        }
    }

    /// Reads a body to its end and returns its length.
    async fn body(&mut self, body: Body) -> io::Result<u64> {
        let mut length = 0;
        let mut chunked = Chunked::default();
        loop {
            let used = match body {
                Body::Bytes(all) => usize::try_from(all - length).unwrap_or(usize::MAX).min(self.filled),
                Body::Chunked => chunked.take(&self.buffer[..self.filled])?,
            };
            self.consume(used);
            length = if let Body::Bytes(_) = body { length + used as u64 } else { chunked.length() };
            match body {
                Body::Bytes(all) if length == all => return Ok(length),
                Body::Chunked if chunked.ended() => return Ok(length),
                _ => {}
            }
            let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.buffer.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
    }
}

pub(super) async fn accept(listener: TcpListener, pool: Pool, served: Arc<Served>) -> io::Result<()> {
    let bank = Rc::new(Bank::new(pool));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (bank, served) = (Rc::clone(&bank), Arc::clone(&served));
        tokio::task::spawn_local(async move {
            let connection = Connection { stream, buffer: vec![0; READ_BYTES], filled: 0 };
            // The proxy sees a broken connection and says so.
            let _ = connection.serve(&bank, &served).await;
        });
    }
}

fn response(pool: Pool, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nx-pool: {}\r\nContent-Length: {}\r\n\r\n",
        pool.name(),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What the head says about the body.
fn framing(head: &[u8]) -> Body {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    if field("transfer-encoding:").is_some() {
        return Body::Chunked;
    }
    Body::Bytes(field("content-length:").and_then(|value| value.parse().ok()).unwrap_or(0))
}
