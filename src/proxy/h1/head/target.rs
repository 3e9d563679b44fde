//! Request targets (RFC 9112 section 3.2): origin form, absolute form, and `*`.

use memchr::{memchr, memchr2, memmem};

use super::Refusal;
use super::fields::span;
use super::host::Authority;
use crate::proxy::h1::bytes::is_target;
use crate::proxy::headers::{RequestHead, Span};

/// What the target says about where the request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: origin form or `*`.
    Origin,
    /// An authority, of a scheme with this port.
    Absolute { authority: Span, default_port: u16 },
}

/// Checks the target at `target` and sets the head's `target`, `path` and `query`.
///
/// # Errors
/// 400, with what is wrong with it.
pub(super) fn parse_target(head: &mut RequestHead, target: Span) -> Result<Form, Refusal> {
    let text = target.of(&head.bytes);
    if !is_target(text) {
        return Err(Refusal::bad("a control, DEL or `#` in the target"));
    }
    let (form, target) = match text {
        [b'/', ..] => (Form::Origin, target),
        b"*" if head.method.of(&head.bytes) == b"OPTIONS" => (Form::Origin, target),
        b"*" => return Err(Refusal::bad("the target `*` with a method other than OPTIONS")),
        _ => absolute(head, target)?,
    };
    head.target = target;
    let text = target.of(&head.bytes);
    let path = memchr(b'?', text).unwrap_or(text.len());
    check_path(&text[..path])?;
    let start = target.start as usize;
    let end = target.end as usize;
    head.path = span(start, start + path);
    head.query = (path < text.len()).then(|| span(start + path + 1, end));
    Ok(form)
}

/// Takes an absolute form apart: its authority, and its origin form.
fn absolute(head: &mut RequestHead, target: Span) -> Result<(Form, Span), Refusal> {
    let text = target.of(&head.bytes);
    let Some(colon) = memmem::find(text, b"://") else {
        return Err(Refusal::bad("a target that is neither a path nor a URL"));
    };
    let default_port = match &text[..colon] {
        scheme if scheme.eq_ignore_ascii_case(b"http") => 80,
        scheme if scheme.eq_ignore_ascii_case(b"https") => 443,
        _ => return Err(Refusal::bad("a target with a scheme other than http and https")),
    };
    let begin = target.start as usize + colon + 3;
    let authority = &text[colon + 3..];
    let authority = &authority[..memchr2(b'/', b'?', authority).unwrap_or(authority.len())];
    if Authority::parse(authority).is_none() {
        return Err(Refusal::bad("a target with an invalid host or port"));
    }
    let end = begin + authority.len();
    let form = |start, end| Form::Absolute { authority: span(start, end), default_port };
    if head.bytes.get(end) == Some(&b'/') {
        return Ok((form(begin, end), span(end, target.end as usize)));
    }
    // An empty path is `/`, and `*` for OPTIONS (RFC 9112 section 3.2.4). The authority moves over the slash before it to make room.
    let whole = end == target.end as usize;
    head.bytes.copy_within(begin..end, begin - 1);
    head.bytes[end - 1] = if whole && head.method.of(&head.bytes) == b"OPTIONS" { b'*' } else { b'/' };
    Ok((form(begin - 1, end - 1), span(end - 1, target.end as usize)))
}

/// Refuses what upstreams may read in more than one way.
fn check_path(path: &[u8]) -> Result<(), Refusal> {
    let Some(special) = memchr2(b'%', b'\\', path) else { return Ok(()) };
    let mut at = special;
    while at < path.len() {
        match path[at..] {
            [b'\\', ..] => return Err(Refusal::bad("a backslash in the path")),
            [b'%', b'0', b'0', ..] => return Err(Refusal::bad("an encoded NUL in the path")),
            _ => at += 1,
        }
    }
    if path.split(|byte| *byte == b'/').any(is_encoded_dots) {
        return Err(Refusal::bad("an encoded dot segment in the path"));
    }
    Ok(())
}

/// Whether `segment` is `.` or `..` with at least one dot as `%2e`.
fn is_encoded_dots(segment: &[u8]) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        rest = match rest {
            [] => return (dots == 1 || dots == 2) && segment.len() > dots,
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
}
