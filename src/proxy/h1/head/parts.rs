//! A request head that came in parts (HTTP/2) becomes the same positions as one that came as text, by the same rules.

use super::fields::{Facts, span};
use super::host::Authority;
use super::request::{authority, expects_continue};
use super::target::{Form, parse_target};
use super::{HeadLimits, Refusal};
use crate::config::settings::Underscores;
use crate::proxy::h1::bytes::is_token;
use crate::proxy::headers::{BodyLength, Field, HttpVersion, Known, RequestHead, Span};

/// What a field costs in a header list beside its name and value, in bytes (RFC 9113 section 6.5.2).
pub const FIELD_COST: usize = 32;

/// What comes beside the fields.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// `:method`, a token.
    pub method: &'a [u8],
    /// `:path`
    pub target: &'a [u8],
    /// `:authority`, if there is one.
    pub authority: Option<&'a [u8]>,
    /// The port of `:scheme`.
    pub default_port: u16,
    /// The stream ends with the head.
    pub ended: bool,
}

/// Fills `head` from `parts` and `fields`: names in lower case and values, both without line ends and controls. Written one after the
/// other as HTTP/1.1 writes them, so that whatever goes on in HTTP/1.1 goes in one piece. `limits.max_head` is that of the header list, with
/// [`FIELD_COST`] for each field and pseudo-header field.
///
/// # Errors
/// The status to refuse the request with: 400, 405, 414, 417 or 431. What `head` then holds is not to be used.
pub fn parse_parts<'a>(
    head: &mut RequestHead,
    parts: &Parts<'a>,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &HeadLimits,
) -> Result<(), Refusal> {
    head.bytes.clear();
    head.fields.clear();
    head.version = HttpVersion::Http2;
    if matches!(parts.method, b"CONNECT" | b"TRACE") {
        return Err(Refusal::new(405, "the method is not allowed"));
    }
    if parts.method.len() + parts.target.len() > limits.max_line {
        return Err(Refusal::new(414, "method and target are too long"));
    }
    if !matches!(parts.target, [b'/', ..] | b"*") {
        return Err(Refusal::bad("a :path that is not a path"));
    }
    head.method = push(&mut head.bytes, parts.method);
    head.bytes.push(b' ');
    let target = push(&mut head.bytes, parts.target);
    head.bytes.extend_from_slice(b"\r\n");
    parse_target(head, target)?;
    let form = push_authority(head, parts)?;
    push_fields(head, fields, parts.cost(), limits)?;
    let facts = Facts::read(&head.bytes, &head.fields)?;
    head.authority = authority(head, form, facts.host)?;
    head.body = match facts.length(&head.bytes, head.version)? {
        Some(BodyLength::Exact(_)) if parts.ended => {
            return Err(Refusal::bad("a Content-Length, but the stream ends with the head"));
        }
        _ if parts.ended => BodyLength::None,
        length => length.unwrap_or(BodyLength::Chunked),
    };
    head.keep_alive = true;
    head.websocket = false;
    head.te_trailers = facts.te_trailers;
    head.expect_continue = expects_continue(head, &facts)?;
    Ok(())
}

impl Parts<'_> {
    /// What the pseudo-header fields take of a header list, in bytes.
    fn cost(&self) -> usize {
        let scheme = if self.default_port == 443 { "https" } else { "http" };
        let authority = self.authority.map_or(0, |text| ":authority".len() + text.len() + FIELD_COST);
        let others = ":method".len() + ":path".len() + ":scheme".len() + 3 * FIELD_COST;
        authority + others + self.method.len() + self.target.len() + scheme.len()
    }
}

/// Checks `:authority`, and writes it as the `Host` it stands for.
fn push_authority(head: &mut RequestHead, parts: &Parts<'_>) -> Result<Form, Refusal> {
    let Some(text) = parts.authority else { return Ok(Form::Origin) };
    if Authority::parse(text).is_none() {
        return Err(Refusal::bad("an invalid :authority"));
    }
    let authority = push_line(head, b"host", text, Known::Host);
    Ok(Form::Absolute { authority, default_port: parts.default_port })
}

fn push_fields<'a>(
    head: &mut RequestHead,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    mut size: usize,
    limits: &HeadLimits,
) -> Result<(), Refusal> {
    let named = head.fields.first().map(|field| field.value);
    let mut host = false;
    for (count, (name, value)) in fields.enumerate() {
        if count == limits.max_fields {
            return Err(Refusal::new(431, "too many fields"));
        }
        size += name.len() + value.len() + FIELD_COST;
        if size > limits.max_head {
            return Err(Refusal::new(431, "the head is too large"));
        }
        // The `http` crate takes `"` for part of a token.
        if !is_token(name) {
            return Err(Refusal::bad("a field name with a character that may not be in one"));
        }
        if matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            return Err(Refusal::bad("white space around a field value"));
        }
        if limits.underscores != Underscores::Keep && memchr::memchr(b'_', name).is_some() {
            if limits.underscores == Underscores::Reject {
                return Err(Refusal::bad("a field name with `_`"));
            }
            continue;
        }
        match Known::of(name) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(Refusal::bad("a field of one connection, which HTTP/2 does not have")),
            Known::Te if value != b"trailers" => return Err(Refusal::bad("a TE other than `trailers`")),
            // It takes the place of `:authority`, with which it has to agree.
            Known::Host if named.is_some() && !host => {
                host = true;
                push_line(head, name, value, Known::Host);
                head.fields.swap_remove(0);
            }
            known => {
                push_line(head, name, value, known);
            }
        }
    }
    Ok(())
}

/// Appends a field; says where its value is.
fn push_line(head: &mut RequestHead, name: &[u8], value: &[u8], known: Known) -> Span {
    let name = push(&mut head.bytes, name);
    head.bytes.extend_from_slice(b": ");
    let value = push(&mut head.bytes, value);
    head.bytes.extend_from_slice(b"\r\n");
    head.fields.push(Field { known, name, value });
    value
}

fn push(bytes: &mut Vec<u8>, text: &[u8]) -> Span {
    let start = bytes.len();
    bytes.extend_from_slice(text);
    span(start, bytes.len())
}
