//! One HTTP/1.1 connection as both sides see it: bytes in with their framing found in place, bytes out with framing around them.

use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use crate::proxy::body::{Fault, Fill, Sink, Source};
use crate::proxy::headers::{BodyLength, Trailers};
use crate::proxy::io::{BUFFER, Buf, Stream};

use super::framing::{Decoder, Encoder, FramingError};
use super::head::HeadLimits;

/// Payload up to this size is copied beside its framing, so that head, framing and payload leave in one write; larger payload is
/// written from where it was read.
const COPY_MAX: usize = 4 * 1024;
/// Most bytes buffered for writing before the socket has to take some.
const OUT_MAX: usize = 16 * 1024;

/// A connection between two messages or within one.
pub struct Wire {
    /// The stream.
    pub io: Stream,
    /// Bytes read and not yet used.
    pub input: Buf,
    /// Bytes to be written before anything else.
    pub out: Vec<u8>,
    written: usize,
    /// Bytes the socket took since the connection's last message began.
    pub sent: u64,
    decoder: Decoder,
    payload: usize,
    /// Payload of the message so far, and how much is allowed.
    received: u64,
    received_max: u64,
    encoder: Encoder,
    /// Payload whose framing is written already.
    framed: usize,
    /// What completes that payload.
    tail: &'static [u8],
    ended: bool,
    /// The last read filled the buffer.
    full: bool,
}

impl Wire {
    /// A connection that carries nothing yet.
    #[must_use]
    pub fn new(io: Stream, limits: HeadLimits) -> Self {
        Self {
            io,
            input: Buf::default(),
            out: Vec::new(),
            written: 0,
            sent: 0,
            decoder: Decoder::new(BodyLength::None, limits),
            payload: 0,
            received: 0,
            received_max: u64::MAX,
            encoder: Encoder::new(BodyLength::None),
            framed: 0,
            tail: b"",
            ended: false,
            full: false,
        }
    }

    /// A message of this body follows on the way in.
    pub fn expect(&mut self, body: BodyLength, limits: HeadLimits, max: Option<u64>) {
        self.decoder = Decoder::new(body, limits);
        self.payload = 0;
        self.received = 0;
        self.received_max = max.unwrap_or(u64::MAX);
        self.full = false;
        if let BodyLength::Exact(length) = body {
            self.input.grow_for(length);
        }
    }

    /// A message of this body follows on the way out; its head is in `out`.
    pub fn announce(&mut self, body: BodyLength) {
        self.encoder = Encoder::new(body);
        self.framed = 0;
        self.tail = b"";
        self.ended = false;
    }

    /// Whether the message on the way in is complete and nothing follows it.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.decoder.is_end() && self.payload == 0 && self.input.is_empty()
    }

    /// Whether the message on the way in is complete.
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.decoder.is_end() && self.payload == 0
    }

    /// Whether the message on the way out is complete and written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.ended && self.out.is_empty()
    }

    /// Reads more; `Ok(0)` is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        self.input.resume();
        if self.full && self.input.is_empty() {
            // It comes faster than it is read, and of how long it will be nothing is known that is worth more than that.
            self.input.grow_for(4 * self.input.room() as u64);
        }
        if self.input.room() == 0 {
            self.input.compact();
            if self.input.room() == 0 {
                self.input.grow(self.input.len() + BUFFER);
            }
        }
        let room = self.input.room();
        let Poll::Ready(read) = self.input.poll_fill(&mut self.io, cx) else {
            self.input.rest();
            return Poll::Pending;
        };
        let read = read.map_err(Fault::Io)?;
        self.full = read == room;
        Poll::Ready(Ok(read))
    }

    // === the way in ===

    /// As [`crate::proxy::body::Source::poll_fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        loop {
            if self.payload > 0 {
                return Poll::Ready(Ok(Fill::Data));
            }
            let step = self.decoder.decode(self.input.bytes()).map_err(fault)?;
            self.input.consume(step.skip);
            self.payload = step.payload;
            self.received += step.payload as u64;
            if self.received > self.received_max {
                return Poll::Ready(Err(Fault::TooLarge));
            }
            if step.payload > 0 {
                continue;
            }
            if step.end {
                return Poll::Ready(Ok(Fill::End));
            }
            if step.skip > 0 && !self.input.is_empty() {
                continue;
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(self.decoder.eof().map(|()| Fill::End).map_err(|_| Fault::Closed));
            }
        }
    }

    /// The payload at hand.
    #[must_use]
    pub fn chunk(&self) -> &[u8] {
        &self.input.bytes()[..self.payload]
    }

    /// Marks payload as passed on.
    pub fn consume(&mut self, n: usize) {
        self.payload -= n;
        self.input.consume(n);
    }

    /// Trailers of the message on the way in.
    #[must_use]
    pub fn trailers(&self) -> Option<&Trailers> {
        Some(self.decoder.trailers())
    }

    // === the way out ===

    /// As [`crate::proxy::body::Sink::poll_send`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        if self.framed == 0 {
            if self.out.len() >= OUT_MAX {
                ready!(self.poll_out(cx))?;
            }
            let prefix =
                self.encoder.frame(chunk.len()).map_err(|_| Fault::Malformed("more payload than announced"))?;
            self.out.extend_from_slice(prefix.as_slice());
            if chunk.len() <= COPY_MAX && self.out.len() < OUT_MAX {
                self.out.extend_from_slice(chunk);
                return Poll::Ready(Ok(chunk.len()));
            }
            self.framed = chunk.len();
            // Some recipients hand a chunk on only once they have seen its end, so it leaves with the payload.
            self.tail = self.encoder.complete();
        }
        loop {
            let payload = &chunk[..self.framed.min(chunk.len())];
            let before = self.out.len() - self.written;
            let slices = [IoSlice::new(&self.out[self.written..]), IoSlice::new(payload), IoSlice::new(self.tail)];
            let whole = payload.len() == self.framed && !self.tail.is_empty();
            let (first, last) = (usize::from(before == 0), 2 + usize::from(whole));
            let n = ready!(self.io.poll_write(cx, &slices[first..last])).map_err(Fault::Io)?;
            if n == 0 {
                return Poll::Ready(Err(Fault::Closed));
            }
            self.sent += n as u64;
            if n < before {
                self.written += n;
                continue;
            }
            self.out.clear();
            self.written = 0;
            if n > before {
                let taken = (n - before).min(payload.len());
                self.framed -= taken;
                if self.framed == 0 {
                    self.out.extend_from_slice(&std::mem::take(&mut self.tail)[n - before - taken..]);
                }
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// As [`crate::proxy::body::Sink::poll_flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.framed == 0 && !self.out.is_empty() {
            // Some recipients hand a chunk on only once they have seen its end.
            self.out.extend_from_slice(self.encoder.complete());
        }
        self.poll_out(cx)
    }

    /// As [`crate::proxy::body::Sink::poll_end`].
    pub fn poll_end(&mut self, cx: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        if !self.ended {
            let finished = self.encoder.finish(&mut self.out, trailers);
            finished.map_err(|_| Fault::Malformed("less payload than announced"))?;
            self.ended = true;
        }
        self.poll_out(cx)
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while self.written < self.out.len() {
            let slice = [IoSlice::new(&self.out[self.written..])];
            let n = ready!(self.io.poll_write(cx, &slice)).map_err(Fault::Io)?;
            if n == 0 {
                return Poll::Ready(Err(Fault::Closed));
            }
            self.written += n;
            self.sent += n as u64;
        }
        self.out.clear();
        self.written = 0;
        self.io.poll_flush(cx).map_err(Fault::Io)
    }
}

/// Both sides of a forwarded message are bodies on a wire.
pub trait Wired {
    /// The connection.
    fn wire(&self) -> &Wire;
    /// The connection.
    fn wire_mut(&mut self) -> &mut Wire;
}

impl<T: Wired> Source for T {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        self.wire_mut().poll_fill(cx)
    }

    fn chunk(&self) -> &[u8] {
        self.wire().chunk()
    }

    fn consume(&mut self, n: usize) {
        self.wire_mut().consume(n);
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.wire().trailers()
    }
}

impl<T: Wired> Sink for T {
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        self.wire_mut().poll_send(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.wire_mut().poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        self.wire_mut().poll_end(cx, trailers)
    }
}

fn fault(error: FramingError) -> Fault {
    match error.status {
        431 => Fault::TrailersTooLarge,
        _ => Fault::Malformed(error.cause),
    }
}

#[cfg(test)]
mod tests;
