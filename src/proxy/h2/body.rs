//! Bodies on HTTP/2 streams, for both sides: windows end to end, with bounded memory.
//!
//! Payload that came in opens the peer's window again only once it was passed on; payload goes out only as far as the peer's windows
//! let it. So a stream holds at most its receive window and [`SEND_BUFFER_MAX`] bytes.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::settings::Underscores;
use crate::proxy::body::{Fault, Fill, Sink, Source};
use crate::proxy::h1::bytes::is_token;
use crate::proxy::h1::head::FIELD_COST;
use crate::proxy::headers::{BodyLength, Field, Known, Span, Trailers};

/// Most payload bytes one stream hands to the connection before the socket took them: what both builders' `max_send_buffer_size` is
/// set to, and the most asked of the peer's windows at once. One full frame: more would only wait, in up to a hundred streams of each
/// connection whose peer does not read.
pub const SEND_BUFFER_MAX: usize = 16 * 1024;

/// Bounds of a body on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most payload, in bytes.
    pub payload: Option<u64>,
    /// Most trailer fields.
    pub fields: usize,
    /// Largest trailers, in bytes, with [`FIELD_COST`] for each field.
    pub size: usize,
    /// What happens to trailer names with `_`.
    pub underscores: Underscores,
}

/// A body on its way in.
#[derive(Debug)]
pub struct Inbound {
    /// `None` once the message is complete, or when there is no body.
    stream: Option<RecvStream>,
    chunk: Bytes,
    /// All payload frames were read; trailers may follow.
    payload_ended: bool,
    received: u64,
    announced: Option<u64>,
    bounds: Bounds,
    trailers: Trailers,
}

/// A body on its way out.
#[derive(Debug)]
pub struct Outbound {
    stream: SendStream<Bytes>,
    sent: u64,
    announced: Option<u64>,
    /// The last announced byte ends the stream: no trailers can follow.
    ends_early: bool,
    /// Trailers are metadata ([`Trailers::metadata`]).
    grpc: bool,
    ended: bool,
}

// === impl Inbound ===

impl Inbound {
    /// The body of a message whose head was read from `stream`, `length` being what the head says.
    #[must_use]
    pub fn new(stream: RecvStream, length: BodyLength, bounds: Bounds) -> Self {
        let announced = match length {
            BodyLength::None => Some(0),
            BodyLength::Exact(bytes) => Some(bytes),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        // A stream that ended with its head has nothing to wait for.
        let stream = (!stream.is_end_stream()).then_some(stream);
        Self {
            stream,
            chunk: Bytes::new(),
            payload_ended: false,
            received: 0,
            announced,
            bounds,
            trailers: Trailers::default(),
        }
    }

    /// Whether the message is complete and passed on.
    #[must_use]
    pub fn is_received(&self) -> bool {
        self.stream.is_none() && self.chunk.is_empty()
    }

    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        while !self.payload_ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.received += data.len() as u64;
                    self.chunk = data;
                    if self.announced.is_some_and(|announced| self.received > announced) {
                        return Poll::Ready(Err(Fault::Malformed("more payload than Content-Length says")));
                    }
                    if self.bounds.payload.is_some_and(|max| self.received > max) {
                        return Poll::Ready(Err(Fault::TooLarge));
                    }
                    return Poll::Ready(Ok(true));
                }
                Some(Err(error)) => return Poll::Ready(Err(fault(error))),
                None => self.payload_ended = true,
            }
        }
        Poll::Ready(Ok(false))
    }
}

impl Source for Inbound {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        if !self.chunk.is_empty() || ready!(self.poll_payload(cx))? {
            return Poll::Ready(Ok(Fill::Data));
        }
        if self.announced.is_some_and(|announced| self.received < announced) {
            return Poll::Ready(Err(Fault::Malformed("less payload than Content-Length says")));
        }
        if let Some(stream) = &mut self.stream {
            if let Some(fields) = ready!(stream.poll_trailers(cx)).map_err(fault)? {
                self.trailers = read_trailers(&fields, self.bounds)?;
            }
            self.stream = None;
        }
        Poll::Ready(Ok(Fill::End))
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, n: usize) {
        self.chunk.advance(n);
        if let Some(stream) = &mut self.stream {
            // Only what was received is released, so it cannot be too much; a stream that was reset has no window any more.
            let _ = stream.flow_control().release_capacity(n);
        }
    }

    fn trailers(&self) -> Option<&Trailers> {
        Some(&self.trailers)
    }
}

// === impl Outbound ===

impl Outbound {
    /// The body behind a head just sent on `stream`, `length` being what the head says; [`BodyLength::None`] for a head that ended the
    /// stream. `trailers` says that some may come although a length was announced, as they can from HTTP/2.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>, length: BodyLength, trailers: bool) -> Self {
        let announced = match length {
            BodyLength::None => Some(0),
            BodyLength::Exact(bytes) => Some(bytes),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        };
        Self { stream, sent: 0, announced, ends_early: !trailers, grpc: false, ended: length == BodyLength::None }
    }

    /// The same; `grpc` says that all its trailers go on ([`Trailers::metadata`]).
    #[must_use]
    pub fn with_metadata(self, grpc: bool) -> Self {
        Self { grpc, ..self }
    }

    /// Whether the end of the message was handed over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Resets the stream (RFC 9113 section 6.4).
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready when the peer reset the stream, or the connection failed.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}

impl Sink for Outbound {
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        if chunk.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let left = self.announced.map_or(u64::MAX, |announced| announced - self.sent);
        if chunk.len() as u64 > left {
            return Poll::Ready(Err(Fault::Malformed("more payload than announced")));
        }
        let wanted = chunk.len().min(SEND_BUFFER_MAX);
        self.stream.reserve_capacity(wanted);
        let granted = match self.stream.capacity() {
            0 => match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(granted)) => granted,
                Some(Err(error)) => return Poll::Ready(Err(fault(error))),
                None => return Poll::Ready(Err(Fault::Closed)),
            },
            granted => granted,
        };
        let part = &chunk[..granted.min(wanted)];
        let last = self.ends_early && part.len() as u64 == left;
        self.stream.send_data(Bytes::copy_from_slice(part), last).map_err(fault)?;
        self.sent += part.len() as u64;
        self.ended |= last;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // The connection's own task writes; what waits for it is bounded.
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        if self.announced.is_some_and(|announced| self.sent < announced) {
            return Poll::Ready(Err(Fault::Malformed("less payload than announced")));
        }
        let sent = match trailers.map(|trailers| write_trailers(trailers, self.grpc)) {
            Some(fields) if !fields.is_empty() => self.stream.send_trailers(fields),
            _ => self.stream.send_data(Bytes::new(), true),
        };
        sent.map_err(fault)?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

/// What an error of a stream means to whoever reads or writes its body.
pub(super) fn fault(error: h2::Error) -> Fault {
    if error.is_io() {
        return error.into_io().map_or(Fault::Closed, Fault::Io);
    }
    // What the crate resets as malformed on its own is above all a Content-Length that does not fit (RFC 9113 section 8.1.1).
    if error.is_reset() && error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR) {
        return Fault::Malformed("a body that does not fit its head");
    }
    if is_our_limit(&error) {
        return Fault::Limit;
    }
    if error.is_reset() || error.is_go_away() {
        return Fault::Closed;
    }
    Fault::Io(io::Error::other(error))
}

/// Whether the connection was ended by the crate, over a limit of its own: that of empty DATA frames is reached by what is allowed, and no
/// stream on the connection is more to blame than any other.
pub(super) fn is_our_limit(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

/// All trailer fields, in order.
fn read_trailers(map: &HeaderMap, bounds: Bounds) -> Result<Trailers, Fault> {
    if map.len() > bounds.fields {
        return Err(Fault::TrailersTooLarge);
    }
    let (mut trailers, mut size) = (Trailers::default(), 0);
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        size += name.len() + value.len() + FIELD_COST;
        if size > bounds.size {
            return Err(Fault::TrailersTooLarge);
        }
        // The `http` crate takes `"` for part of a token.
        if !is_token(name) {
            return Err(Fault::Malformed("a trailer name with a character that may not be in one"));
        }
        if name.contains(&b'_') {
            match bounds.underscores {
                Underscores::Keep => {}
                Underscores::Drop => continue,
                Underscores::Reject => return Err(Fault::Malformed("a trailer name with `_`")),
            }
        }
        let bytes = &mut trailers.bytes;
        let field = Field {
            known: Known::of(name),
            name: push(bytes, name),
            value: push(bytes, value.as_bytes().trim_ascii()),
        };
        trailers.fields.push(field);
    }
    Ok(trailers)
}

/// Appends `text`; says where it is.
#[expect(clippy::cast_possible_truncation, reason = "heads and trailers are bounded far below 4 GiB")]
pub(super) fn push(bytes: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = bytes.len() as u32;
    bytes.extend_from_slice(text);
    Span { start, end: bytes.len() as u32 }
}

/// The trailers that are forwarded.
fn write_trailers(trailers: &Trailers, grpc: bool) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut append = |(name, value): (&[u8], &[u8])| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    };
    if grpc {
        trailers.metadata().for_each(&mut append);
    } else {
        trailers.forwarded().for_each(&mut append);
    }
    map
}

#[cfg(test)]
mod tests;
