//! A complete request head becomes positions, or is refused.

use memchr::memchr;

use super::fields::{Facts, FieldLimits, parse_fields, span};
use super::host::Authority;
use super::target::{Form, parse_target};
use super::{HeadLimits, Refusal};
use crate::proxy::h1::bytes::is_token;
use crate::proxy::headers::{BodyLength, HttpVersion, Known, RequestHead, Span};

/// Reads the head in `head.bytes[..len]`, where `len` is what [`super::scan_head`] found, and fills in everything else of `head`.
/// What follows in `head.bytes` is left alone. Of an absolute form without a path some bytes are rewritten, so that its origin form is there
/// to point at.
///
/// # Errors
/// The status to refuse the request with: 400, 405, 417, 431 or 505. What `head` then holds is not to be used, but for telling people: method,
/// path and authority are valid or empty, the version where there is a method.
pub fn parse_request(head: &mut RequestHead, len: usize, limits: &HeadLimits) -> Result<(), Refusal> {
    let len = len.min(head.bytes.len());
    head.fields.clear();
    head.forget();
    let (target, after) = parse_line(head, len)?;
    if matches!(head.method.of(&head.bytes), b"CONNECT" | b"TRACE") {
        return Err(Refusal::new(405, "the method is not allowed"));
    }
    let form = parse_target(head, target)?;
    let limits = FieldLimits { fields: limits.max_fields, underscores: limits.underscores };
    parse_fields(&head.bytes[..len], after, limits, &mut head.fields)?;
    let facts = Facts::read(&head.bytes, &head.fields)?;
    head.authority = authority(head, form, facts.host)?;
    head.body = facts.length(&head.bytes, head.version)?.unwrap_or(BodyLength::None);
    let asks_websocket = facts.connection_upgrade && facts.upgrade_websocket;
    // Who asks and takes the answer for a tunnel, whatever it was, must not have the bytes that follow read as requests.
    head.keep_alive = facts.persistent(head.version) && !asks_websocket;
    head.te_trailers = facts.te_trailers;
    head.expect_continue = expects_continue(head, &facts)?;
    facts.mark_nominated(&head.bytes, &mut head.fields);
    head.websocket = asks_websocket && is_handshake(head);
    Ok(())
}

/// Whether the client waits for `100 Continue`.
///
/// # Errors
/// 417 for any other expectation.
pub(super) fn expects_continue(head: &RequestHead, facts: &Facts) -> Result<bool, Refusal> {
    if facts.expect == Some(false) {
        return Err(Refusal::new(417, "an expectation other than `100-continue`"));
    }
    // A server ignores it from an HTTP/1.0 client (RFC 9110 section 10.1.1), and without a body there is nothing to wait for.
    Ok(facts.expect == Some(true) && head.version != HttpVersion::Http10 && head.body != BodyLength::None)
}

/// Reads `method SP target SP version CRLF` and sets method and version; returns the target, and where the fields begin.
fn parse_line(head: &mut RequestHead, len: usize) -> Result<(Span, usize), Refusal> {
    let bytes = &head.bytes[..len];
    // The one empty line tolerated in front.
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let line = &bytes[start..];
    let Some(end) = memchr(b'\r', line) else { return Err(Refusal::bad("a request line without end")) };
    let line = &line[..end];
    let Some(method) = memchr(b' ', line) else { return Err(Refusal::bad("a request line of one word")) };
    let rest = &line[method + 1..];
    let Some(target) = memchr(b' ', rest) else { return Err(Refusal::bad("a request line without version")) };
    head.version = version(&rest[target + 1..])?;
    if !is_token(&line[..method]) {
        return Err(Refusal::bad("an invalid method"));
    }
    head.method = span(start, start + method);
    let target = span(start + method + 1, start + method + 1 + target);
    Ok((target, start + end + 2))
}

/// The version, exactly as it is written (RFC 9112 section 2.3).
fn version(text: &[u8]) -> Result<HttpVersion, Refusal> {
    match text {
        b"HTTP/1.1" => Ok(HttpVersion::Http11),
        b"HTTP/1.0" => Ok(HttpVersion::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal::new(505, "a version other than HTTP/1.1 and HTTP/1.0"))
        }
        _ => Err(Refusal::bad("an invalid version in the request line")),
    }
}

/// Host and port: from `Host`, which must be there in HTTP/1.1 and agree with an absolute form. In HTTP/2 `:authority` is as good.
pub(super) fn authority(head: &RequestHead, form: Form, host: Option<Span>) -> Result<Span, Refusal> {
    let bytes = &head.bytes[..];
    let Some(host) = host else {
        return match (head.version, form) {
            (HttpVersion::Http11, _) | (HttpVersion::Http2, Form::Origin) => Err(Refusal::bad("no Host")),
            (_, Form::Absolute { authority, .. }) => Ok(authority),
            (_, Form::Origin) => Ok(Span::default()),
        };
    };
    let Some(named) = Authority::parse(host.of(bytes)) else { return Err(Refusal::bad("an invalid Host")) };
    if let Form::Absolute { authority, default_port } = form {
        let agrees = Authority::parse(authority.of(bytes)).is_some_and(|target| named.same(&target, default_port));
        if !agrees {
            return Err(Refusal::bad("a Host other than that of the target"));
        }
    }
    Ok(host)
}

/// Whether the rest of a WebSocket handshake is there (RFC 6455 section 4.1).
fn is_handshake(head: &RequestHead) -> bool {
    let only = |known| {
        let mut values = head.all_known(known);
        values.next().filter(|_| values.next().is_none())
    };
    head.version == HttpVersion::Http11
        && head.method.of(&head.bytes) == b"GET"
        && head.body == BodyLength::None
        && only(Known::SecWebSocketKey).is_some_and(is_websocket_key)
        && only(Known::SecWebSocketVersion) == Some(b"13")
}

/// Whether `key` is 16 bytes in base64.
fn is_websocket_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    // Of the last digit only two bits are part of the key.
    digits.len() == 22
        && digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        && matches!(digits.last(), Some(b'A' | b'Q' | b'g' | b'w'))
}
