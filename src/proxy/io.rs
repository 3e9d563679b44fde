//! Byte streams of both sides, and the buffers they are read into.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::AsyncWrite;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::unconstrained;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;

use super::headers::Field;

/// Size of a fresh buffer, in bytes.
pub const BUFFER: usize = 16 * 1024;
/// Size of a buffer that large bodies pass through, in bytes.
pub const BUFFER_LARGE: usize = 64 * 1024;
/// Size of a buffer for bodies that fill a large one, in bytes: a quarter of the system calls, and still within a processor's cache.
pub const BUFFER_HUGE: usize = 256 * 1024;
/// Most huge buffers a worker has at a time (16 MiB); whoever finds none goes on with a large one.
const HUGE_MAX: usize = 64;
/// Most huge buffers a worker keeps for reuse (2 MiB).
const HUGE_KEPT_MAX: usize = 8;
/// Most buffers a worker keeps for reuse.
const BUFFERS_KEPT_MAX: usize = 256;
/// Most fields a list of positions has room for that is kept for reuse.
const FIELDS_KEPT_MAX: usize = 128;

/// A connection, downstream or upstream.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS from a client, over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS from a client, over a unix socket.
    TlsUnix(Box<TlsStream<UnixStream>>),
    /// Dialled by pingora-core (TLS towards an upstream).
    Dialled(pingora_core::protocols::Stream),
}

/// Bytes read and not yet used: `data[start..]`. Its capacity is how much is read at once.
#[derive(Debug, Default)]
pub struct Buf {
    data: Vec<u8>,
    start: usize,
    /// Where a buffer of [`BUFFER_HUGE`] comes from and goes back to.
    huge: Option<Rc<Huge>>,
    /// It had a huge one, and lent it to others while there was nothing to read.
    resting: bool,
}

/// The buffers of [`BUFFER_HUGE`] bytes of one worker.
#[derive(Debug)]
struct Huge {
    left: Cell<usize>,
    kept: RefCell<Vec<Vec<u8>>>,
}

/// Buffers of one worker waiting to be used again.
#[derive(Debug, Default)]
pub struct Buffers {
    small: Vec<Vec<u8>>,
    fields: Vec<Vec<Field>>,
    huge: Rc<Huge>,
}

// === impl Stream ===

impl Stream {
    /// Reads into the spare capacity of `into`; zero bytes mean the peer closed its side.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut impl BufMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(s) => poll_read_buf(Pin::new(s), cx, into),
            Self::Unix(s) => poll_read_buf(Pin::new(s), cx, into),
            Self::Tls(s) => poll_read_buf(Pin::new(s), cx, into),
            Self::TlsUnix(s) => poll_read_buf(Pin::new(s), cx, into),
            Self::Dialled(s) => poll_read_buf(Pin::new(s), cx, into),
        }
    }

    /// Writes from `slices`, in one call where the stream can.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [one] = slices {
            return match self {
                Self::Tcp(s) => Pin::new(s).poll_write(cx, one),
                Self::Unix(s) => Pin::new(s).poll_write(cx, one),
                Self::Tls(s) => Pin::new(s).poll_write(cx, one),
                Self::TlsUnix(s) => Pin::new(s).poll_write(cx, one),
                Self::Dialled(s) => Pin::new(s).poll_write(cx, one),
            };
        }
        match self {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Tls(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::TlsUnix(s) => Pin::new(s).poll_write_vectored(cx, slices),
            Self::Dialled(s) => Pin::new(s).poll_write_vectored(cx, slices),
        }
    }

    /// Pushes out what TLS still holds.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
            Self::TlsUnix(s) => Pin::new(s).poll_flush(cx),
            Self::Dialled(s) => Pin::new(s).poll_flush(cx),
        }
    }

    /// Closes the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
            Self::TlsUnix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Dialled(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    /// Whether an idle connection can still be used: nothing arrived on it and its peer did not close. Costs no system call while
    /// nothing happened.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        // Not by polling: a task that used up its budget would take every connection for a quiet one.
        let read = match self {
            Self::Tcp(s) => s.try_read(&mut byte),
            Self::Unix(s) => s.try_read(&mut byte),
            Self::Tls(_) | Self::TlsUnix(_) | Self::Dialled(_) => {
                let read = poll_fn(|cx| Poll::Ready(self.poll_read(cx, &mut &mut byte[..]).is_pending()));
                let mut cx = Context::from_waker(Waker::noop());
                return pin!(unconstrained(read)).poll(&mut cx) == Poll::Ready(true);
            }
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes the coming close an abortive one (a reset), so that the peer cannot take a cut body for a whole one.
    pub fn reset_on_close(&self) {
        // Where it fails the connection is gone already.
        let _ = match self {
            Self::Tcp(s) => socket2::SockRef::from(s).set_linger(Some(Duration::ZERO)),
            Self::Tls(s) => socket2::SockRef::from(s.get_ref().0).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) | Self::TlsUnix(_) | Self::Dialled(_) => Ok(()),
        };
    }

    /// The protocol a client and we agreed on by ALPN (RFC 7301), if any.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(s) => s.get_ref().1.alpn_protocol(),
            Self::TlsUnix(s) => s.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) | Self::Dialled(_) => None,
        }
    }

    /// Whether it is encrypted towards the client.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsUnix(_))
    }
}

// === impl Buf ===

impl Buf {
    /// What was read and not yet used.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// How many bytes are unused.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether nothing is unused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.data.len()
    }

    /// Marks `n` bytes as used.
    pub fn consume(&mut self, n: usize) {
        self.start += n.min(self.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything unused.
    pub fn clear(&mut self) {
        self.data.clear();
        self.start = 0;
    }

    /// Attaches a buffer if there is none.
    pub fn attach(&mut self, buffers: &mut Buffers) {
        if self.data.capacity() == 0 {
            self.data = buffers.take();
        }
        if self.huge.is_none() {
            self.huge = Some(Rc::clone(&buffers.huge));
        }
    }

    /// Gives the buffer back if nothing in it is unused.
    pub fn detach(&mut self, buffers: &mut Buffers) {
        if self.is_empty() {
            self.clear();
            self.let_go();
            buffers.give(std::mem::take(&mut self.data));
        }
    }

    /// Room left behind the unused bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.data.capacity() - self.data.len()
    }

    /// Makes room for `size` bytes in all, the unused ones included.
    pub fn grow(&mut self, size: usize) {
        self.data.reserve_exact(size.saturating_sub(self.data.len()));
    }

    /// Makes room for more of a body of which `left` bytes are still to come: a large buffer, or a huge one after that while the worker has
    /// any. The unused bytes stay.
    pub fn grow_for(&mut self, left: u64) {
        let capacity = self.data.capacity();
        let huge = left >= BUFFER_HUGE as u64 && capacity < BUFFER_HUGE;
        if huge && let Some(mut data) = self.huge.as_ref().and_then(|huge| huge.take()) {
            data.extend_from_slice(self.bytes());
            self.data = data;
            self.start = 0;
        } else if left > BUFFER as u64 && capacity < BUFFER_LARGE {
            self.compact();
            self.grow(BUFFER_LARGE);
        }
    }

    /// There is nothing to read for now: an empty huge buffer goes to whoever has something, still in the processor's cache.
    pub fn rest(&mut self) {
        if self.is_empty() && self.data.capacity() == BUFFER_HUGE && self.huge.is_some() {
            self.let_go();
            self.start = 0;
            self.resting = true;
        }
    }

    /// Takes one again after [`Buf::rest`], or a large one if there is none.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.resting) && self.data.capacity() == 0 {
            self.grow_for(BUFFER_HUGE as u64);
        }
    }

    /// Gives a huge buffer back, with whatever is in it.
    fn let_go(&mut self) {
        if self.data.capacity() == BUFFER_HUGE
            && let Some(huge) = &self.huge
        {
            huge.give(std::mem::take(&mut self.data));
        }
    }

    /// Moves the unused bytes to the front, to make room.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
    }

    /// Reads once. Zero means the end of the stream; callers make room first.
    pub fn poll_fill(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.room() > 0, "a read into a full buffer looks like the end of the stream");
        io.poll_read(cx, &mut self.data)
    }

    /// Hands the first `len` unused bytes over as `head`, swapping the buffers, and keeps the rest.
    pub fn split_head(&mut self, len: usize, head: &mut Vec<u8>) {
        head.clear();
        if self.data.capacity() == BUFFER_HUGE {
            // It goes back to where it came from.
            head.extend_from_slice(&self.bytes()[..len]);
            return self.consume(len);
        }
        self.compact();
        head.extend_from_slice(&self.data[len..]);
        self.data.truncate(len);
        std::mem::swap(&mut self.data, head);
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.let_go();
    }
}

// === impl Huge ===

impl Default for Huge {
    fn default() -> Self {
        Self { left: Cell::new(HUGE_MAX), kept: RefCell::default() }
    }
}

impl Huge {
    fn take(&self) -> Option<Vec<u8>> {
        if let Some(kept) = self.kept.borrow_mut().pop() {
            return Some(kept);
        }
        self.left.set(self.left.get().checked_sub(1)?);
        Some(Vec::with_capacity(BUFFER_HUGE))
    }

    fn give(&self, mut data: Vec<u8>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < HUGE_KEPT_MAX {
            data.clear();
            kept.push(data);
        } else {
            self.left.set(self.left.get() + 1);
        }
    }
}

// === impl Buffers ===

impl Buffers {
    /// An empty buffer of [`BUFFER`] bytes.
    pub fn take(&mut self) -> Vec<u8> {
        self.small.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER))
    }

    /// Keeps a buffer for later; unusual sizes and whatever is above the bound are freed.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == BUFFER && self.small.len() < BUFFERS_KEPT_MAX {
            buffer.clear();
            self.small.push(buffer);
        }
    }

    /// An empty list for the fields of a head.
    pub fn take_fields(&mut self) -> Vec<Field> {
        self.fields.pop().unwrap_or_default()
    }

    /// Keeps the list of a head for later; what is unusually large or above the bound is freed.
    pub fn give_fields(&mut self, mut fields: Vec<Field>) {
        if (1..=FIELDS_KEPT_MAX).contains(&fields.capacity()) && self.fields.len() < BUFFERS_KEPT_MAX {
            fields.clear();
            self.fields.push(fields);
        }
    }
}

#[cfg(test)]
mod tests;
