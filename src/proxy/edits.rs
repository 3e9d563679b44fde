//! What a request to an upstream says other than the client's, whatever protocol writes it down: which fields are kept, added, changed.

use std::time::Duration;

use super::grpc;
use super::h1::bytes::{is_token, list};
use super::headers::{BodyLength, Field, Known, RequestHead, cookie_pairs};

/// Longest request id that is passed on, in bytes.
pub const REQUEST_ID_MAX: usize = 128;

/// What a request to an upstream says other than the client's. The connection it goes to is always meant to be kept.
#[derive(Clone, Copy, Debug)]
pub struct RequestEdits<'a> {
    /// The path with its dot segments resolved, when that changed it; the query stays.
    pub target: Option<&'a [u8]>,
    /// `Host`.
    pub host: &'a [u8],
    /// The client's address as text, an IPv6 address without brackets; empty when there is none (unix sockets).
    pub client_ip: &'a [u8],
    /// `http` or `https`: how the client reached us.
    pub proto: &'static [u8],
    /// Whether the client is a proxy whose forwarding fields are believed.
    pub trusted: bool,
    /// `X-Request-Id` when the client sent none that is valid: visible ASCII of at most [`REQUEST_ID_MAX`] bytes.
    pub request_id: &'a [u8],
    /// A field to leave out: the one that forces a variant.
    pub strip_header: Option<&'a [u8]>,
    /// A cookie to leave out.
    pub strip_cookie: Option<&'a [u8]>,
    /// The framing to announce: [`BodyLength::Chunked`] for a body of unknown length, never [`BodyLength::UntilClose`].
    pub body: BodyLength,
    /// Whether to pass a WebSocket handshake on.
    pub websocket: bool,
    /// What is left of the time of a gRPC call; `None`: what its client says.
    pub call_left: Option<Duration>,
}

/// Which of the fields that are set here were passed on already, or are there to be appended to.
#[derive(Default)]
struct Seen {
    cookie: bool,
    forwarded: bool,
    forwarded_for: bool,
    forwarded_host: bool,
    forwarded_proto: bool,
    request_id: bool,
}

/// Writes fields down in the form of one protocol.
pub trait FieldWriter {
    /// A field of the client's, as it came.
    fn keep(&mut self, field: &Field);
    /// A field of ours, called `name` in lower case, with the value `write` appends.
    fn add(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>));
}

/// Writes every field of a request to an upstream but those of its framing and of its hop: host, length, connection, `TE`, `Expect`.
#[inline]
pub fn write_fields(writer: &mut impl FieldWriter, head: &RequestHead, edits: &RequestEdits<'_>) {
    let seen = copy_fields(writer, head, edits);
    if let Some(left) = edits.call_left {
        writer.add(b"grpc-timeout", |out| grpc::push_timeout(out, left));
    }
    push_forwarding(writer, head, edits, &seen);
    if !seen.request_id && !edits.request_id.is_empty() {
        writer.add(b"x-request-id", |out| out.extend_from_slice(edits.request_id));
    }
}

/// Whether a request without a body has to say so: recipients expect it where there usually is one (RFC 9110 section 8.6).
#[must_use]
pub fn says_no_body(head: &RequestHead) -> bool {
    matches!(head.get(head.method), b"POST" | b"PUT" | b"PATCH")
}

/// Writes the client's fields that go further.
#[inline]
fn copy_fields(writer: &mut impl FieldWriter, head: &RequestHead, edits: &RequestEdits<'_>) -> Seen {
    let mut seen = Seen::default();
    for field in &head.fields {
        if edits.strip_header.is_some_and(|name| head.get(field.name).eq_ignore_ascii_case(name)) {
            continue;
        }
        let keep = match field.known {
            Known::Other
            | Known::Date
            | Known::SetCookie
            | Known::CacheControl
            | Known::ContentType
            | Known::GrpcStatus
            | Known::SecWebSocketAccept => true,
            Known::GrpcTimeout => edits.call_left.is_none(),
            Known::Cookie => {
                let first = !std::mem::replace(&mut seen.cookie, true);
                let rewrite = first && must_rewrite_cookies(head, edits);
                if rewrite {
                    write_cookies(writer, head, edits.strip_cookie);
                }
                first && !rewrite
            }
            Known::Trailer => edits.body == BodyLength::Chunked,
            Known::SecWebSocketKey | Known::SecWebSocketVersion => edits.websocket,
            Known::XRequestId => {
                let valid = !seen.request_id && is_request_id(head.get(field.value));
                seen.request_id |= valid;
                valid
            }
            // These two are appended to, so they are written behind the others.
            Known::Forwarded => {
                seen.forwarded = true;
                false
            }
            Known::XForwardedFor => {
                seen.forwarded_for = true;
                false
            }
            Known::XForwardedHost => edits.trusted && !std::mem::replace(&mut seen.forwarded_host, true),
            Known::XForwardedProto => edits.trusted && !std::mem::replace(&mut seen.forwarded_proto, true),
            Known::XForwardedOther => edits.trusted,
            Known::Host
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::Te
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::Upgrade
            | Known::Expect
            | Known::Http2Settings
            | Known::Tidegate
            | Known::Nominated => false,
        };
        if keep {
            writer.keep(field);
        }
    }
    seen
}

/// Writes who the client is, behind what a trusted proxy said of those before it.
#[inline]
fn push_forwarding(writer: &mut impl FieldWriter, head: &RequestHead, edits: &RequestEdits<'_>, seen: &Seen) {
    let believed = edits.trusted && seen.forwarded_for;
    if believed || !edits.client_ip.is_empty() {
        writer.add(b"x-forwarded-for", |out| {
            if believed {
                push_list(out, head, Known::XForwardedFor);
            }
            out.extend_from_slice(edits.client_ip);
            // A list a unix socket adds nothing to.
            end_list(out);
        });
    }
    if !seen.forwarded_proto {
        writer.add(b"x-forwarded-proto", |out| out.extend_from_slice(edits.proto));
    }
    if !seen.forwarded_host && !head.authority.is_empty() {
        writer.add(b"x-forwarded-host", |out| out.extend_from_slice(head.get(head.authority)));
    }
    writer.add(b"forwarded", |out| {
        if edits.trusted && seen.forwarded {
            push_list(out, head, Known::Forwarded);
        }
        push_forwarded(out, head, edits);
    });
}

/// Appends all elements of the fields known as `known`, each with a comma behind it.
fn push_list(out: &mut Vec<u8>, head: &RequestHead, known: Known) {
    for element in head.all_known(known).flat_map(list) {
        out.extend_from_slice(element);
        out.extend_from_slice(b", ");
    }
}

fn end_list(out: &mut Vec<u8>) {
    if out.ends_with(b", ") {
        out.truncate(out.len() - 2);
    }
}

/// Appends our element of `Forwarded` (RFC 7239 sections 4 and 6).
fn push_forwarded(out: &mut Vec<u8>, head: &RequestHead, edits: &RequestEdits<'_>) {
    out.extend_from_slice(b"for=");
    match edits.client_ip {
        b"" => out.extend_from_slice(b"unknown"),
        ip if ip.contains(&b':') => {
            out.extend_from_slice(b"\"[");
            out.extend_from_slice(ip);
            out.extend_from_slice(b"]\"");
        }
        ip => out.extend_from_slice(ip),
    }
    let host = head.get(head.authority);
    if is_token(host) {
        out.extend_from_slice(b";host=");
        out.extend_from_slice(host);
    } else if !host.is_empty() {
        // A valid authority holds neither quotes nor backslashes.
        out.extend_from_slice(b";host=\"");
        out.extend_from_slice(host);
        out.push(b'"');
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(edits.proto);
}

/// Whether the cookies cannot go out as they came: one is to be left out, or they came in pieces (RFC 9113 section 8.2.3).
fn must_rewrite_cookies(head: &RequestHead, edits: &RequestEdits<'_>) -> bool {
    edits.strip_cookie.is_some_and(|name| head.cookie(name).is_some()) || head.all_known(Known::Cookie).nth(1).is_some()
}

/// Writes all cookies but `strip` as one field; nothing when none is left.
fn write_cookies(writer: &mut impl FieldWriter, head: &RequestHead, strip: Option<&[u8]>) {
    let pairs = || {
        let pairs = head.all_known(Known::Cookie).flat_map(cookie_pairs);
        pairs.filter(|(name, ..)| Some(*name) != strip).map(|(_, _, pair)| pair)
    };
    if pairs().next().is_none() {
        return;
    }
    writer.add(b"cookie", |out| {
        for (at, pair) in pairs().enumerate() {
            out.extend_from_slice(if at == 0 { b"" } else { b"; " });
            out.extend_from_slice(pair);
        }
    });
}

/// Whether a client's request id is passed on.
fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}
