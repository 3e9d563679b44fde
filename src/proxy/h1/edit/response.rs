//! The head of a response to a client.

use super::reply::push_status_line;
use super::{ADDED, Copier, push_content_length, push_field, push_framing};
use crate::proxy::headers::{BodyLength, Known, ResponseHead};

/// What a response to a client says other than the upstream's.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a> {
    /// How the body is framed to this client; an HTTP/1.0 client gets no chunks.
    pub body: BodyLength,
    /// Whether the connection is closed after it; it always is after [`BodyLength::UntilClose`].
    pub close: bool,
    /// Whether to tell an HTTP/1.0 client, which asked for it, that the connection is kept.
    pub keep_alive_10: bool,
    /// Whether it answers `HEAD`, or is a 304: then its `Content-Length` is that of a body which is not here (RFC 9110 section 8.6).
    pub no_body_head: bool,
    /// `Date` for a response without one (RFC 9110 section 6.6.1).
    pub date: Option<&'a [u8]>,
    /// A `Set-Cookie` to add.
    pub set_cookie: Option<&'a [u8]>,
    /// Fields to add.
    pub extra: &'a [(&'a [u8], &'a [u8])],
}

// === impl ResponseEdits ===

impl ResponseEdits<'_> {
    /// Whether a field of an upstream's response with this status goes to the client, in whatever protocol.
    pub(in crate::proxy) fn keeps(&self, known: Known, status: u16) -> bool {
        match known {
            Known::ContentLength => self.no_body_head && self.body == BodyLength::None && status != 204,
            Known::Trailer => self.body == BodyLength::Chunked,
            Known::SecWebSocketAccept => status == 101,
            known => is_forwarded(known),
        }
    }

    /// The `Content-Length` to announce, if any. Without that of an empty body an HTTP/1.1 client would wait for the end of the connection.
    pub(in crate::proxy) fn length(&self, status: u16) -> Option<u64> {
        match self.body {
            BodyLength::Exact(length) => Some(length),
            BodyLength::None if !self.no_body_head && !matches!(status, 100..=199 | 204 | 304) => Some(0),
            _ => None,
        }
    }
}

/// Appends the head of a response to a client, a 101 to a WebSocket handshake included.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, edits: &ResponseEdits<'_>) {
    out.reserve(head.bytes.len() + ADDED);
    push_status_line(out, head.status, head.get(head.reason));
    let dated = copy_fields(out, head, edits);
    if let (false, Some(date)) = (dated, edits.date) {
        push_field(out, b"date", date);
    }
    if let Some(cookie) = edits.set_cookie {
        push_field(out, b"set-cookie", cookie);
    }
    for (name, value) in edits.extra {
        push_field(out, name, value);
    }
    let close = edits.close || edits.body == BodyLength::UntilClose;
    if head.status == 101 {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    } else if close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if edits.keep_alive_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    match edits.length(head.status) {
        Some(length) => push_content_length(out, length),
        None => push_framing(out, edits.body),
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of an informational response, which HTTP/1.0 clients never get.
pub fn write_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    out.reserve(head.bytes.len() + ADDED);
    push_status_line(out, head.status, head.get(head.reason));
    let mut copier = Copier::new(&head.bytes);
    for field in head.fields.iter().filter(|field| is_forwarded(field.known)) {
        copier.keep(out, field);
    }
    copier.flush(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the upstream's fields that go further; whether a `Date` was among them.
fn copy_fields(out: &mut Vec<u8>, head: &ResponseHead, edits: &ResponseEdits<'_>) -> bool {
    let mut copier = Copier::new(&head.bytes);
    let mut dated = false;
    for field in &head.fields {
        dated |= field.known == Known::Date;
        if edits.keeps(field.known, head.status) {
            copier.keep(out, field);
        }
    }
    copier.flush(out);
    dated
}

/// Whether a field goes from an upstream to a client, framing aside: all there is to it in an informational response.
pub(in crate::proxy) fn is_forwarded(known: Known) -> bool {
    !matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::Te
            | Known::Trailer
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::Upgrade
            | Known::Http2Settings
            | Known::SecWebSocketAccept
            | Known::Tidegate
            | Known::Nominated
    )
}
