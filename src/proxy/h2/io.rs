//! What an HTTP/2 connection reads from and writes to: frames of many streams leave in one write.
//!
//! The `h2` crate flushes after every larger frame. Here small writes gather until the connection's task, which knows when there is
//! nothing more to write, says so with [`Gathered::poll_write_out`].

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::io::{Buf, Stream};

use super::tally::{Seen, Tally};

/// Writes up to this size are gathered, in bytes; larger ones leave at once, behind what was gathered.
const GATHER_MAX: usize = 4 * 1024;
/// Most bytes gathered before the socket has to take some.
const OUT_MAX: usize = 64 * 1024;
/// Largest buffer kept while nothing waits in it, in bytes.
const KEPT_MAX: usize = 16 * 1024;

/// The stream below a connection, and what waits to be written to it.
struct Inner {
    stream: Stream,
    ahead: Buf,
    out: Vec<u8>,
    written: usize,
    /// TLS may hold something back.
    unflushed: bool,
    /// Of the client's side only.
    tally: Option<Box<Tally>>,
}

/// What the connection is given.
pub struct Io(Rc<RefCell<Inner>>);

/// What its task writes out with.
pub struct Gathered(Rc<RefCell<Inner>>);

/// The two handles on `stream`, of which `ahead` was read already; what passes is counted in `tally`.
#[must_use]
pub fn gather(stream: Stream, ahead: Buf, tally: Option<Tally>) -> (Io, Gathered) {
    let tally = tally.map(Box::new);
    let inner = Rc::new(RefCell::new(Inner { stream, ahead, out: Vec::new(), written: 0, unflushed: false, tally }));
    (Io(Rc::clone(&inner)), Gathered(inner))
}

// === impl Gathered ===

impl Gathered {
    /// Writes out everything gathered.
    pub fn poll_write_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_write_out(cx)
    }

    /// What was counted, where anything is.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.0.borrow().tally.as_ref().map(|tally| tally.seen()).unwrap_or_default()
    }
}

// === impl Inner ===

impl Inner {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return self.stream.poll_read(cx, into).map_ok(|_| ());
        }
        let n = self.ahead.len().min(into.remaining());
        into.put_slice(&self.ahead.bytes()[..n]);
        self.ahead.consume(n);
        if self.ahead.is_empty() {
            self.ahead = Buf::default();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let slice = [IoSlice::new(&self.out[self.written..])];
            let n = ready!(self.stream.poll_write(cx, &slice))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
            self.unflushed = true;
        }
        self.emptied();
        if self.unflushed {
            ready!(self.stream.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn emptied(&mut self) {
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > KEPT_MAX {
            self.out = Vec::new();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let taken = ready!(self.poll_take(cx, slices))?;
        if let Some(tally) = &mut self.tally {
            tally.wrote(slices, taken);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let size: usize = slices.iter().map(|slice| slice.len()).sum();
        if size <= GATHER_MAX {
            if self.out.len() + size > OUT_MAX {
                ready!(self.poll_write_out(cx))?;
            }
            for slice in slices {
                self.out.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(size));
        }
        loop {
            let before = self.out.len() - self.written;
            let n = if before == 0 {
                ready!(self.stream.poll_write(cx, slices))?
            } else {
                // The frame in hand is one head and one payload.
                let mut all = [IoSlice::new(&self.out[self.written..]), IoSlice::new(&[]), IoSlice::new(&[])];
                let some = slices.len().min(all.len() - 1);
                all[1..=some].copy_from_slice(&slices[..some]);
                ready!(self.stream.poll_write(cx, &all[..=some]))?
            };
            self.unflushed = true;
            if n == 0 && before > 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if n < before {
                self.written += n;
                continue;
            }
            self.emptied();
            if n > before || before == 0 {
                return Poll::Ready(Ok(n - before));
            }
        }
    }
}

// === impl Io ===

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let before = into.filled().len();
        ready!(inner.poll_read(cx, into))?;
        if let Some(tally) = &mut inner.tally {
            tally.read(&into.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task does, once for all frames.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_write_out(cx))?;
        inner.stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
