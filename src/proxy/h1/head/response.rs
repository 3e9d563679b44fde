//! A complete response head becomes positions, or is not believed.

use memchr::memchr;

use super::fields::{Facts, FieldLimits, parse_fields, span};
use super::{BadResponse, RESPONSE_FIELDS_MAX, Refusal};
use crate::config::settings::Underscores;
use crate::proxy::headers::{BodyLength, HttpVersion, ResponseHead};

/// Reads the head in `head.bytes[..len]`, where `len` is what [`super::scan_response_head`] found, and fills in everything else of `head`.
/// `request_is_head`: the request was a `HEAD`, so there is no body whatever the head says.
///
/// # Errors
/// What is wrong with it. What `head` then holds is not to be used.
pub fn parse_response(head: &mut ResponseHead, len: usize, request_is_head: bool) -> Result<(), BadResponse> {
    let len = len.min(head.bytes.len());
    head.fields.clear();
    let after = parse_line(head, len)?;
    let limits = FieldLimits { fields: RESPONSE_FIELDS_MAX, underscores: Underscores::Keep };
    parse_fields(&head.bytes[..len], after, limits, &mut head.fields)?;
    let facts = Facts::read(&head.bytes, &head.fields)?;
    let announced = facts.length(&head.bytes, head.version)?;
    facts.mark_nominated(&head.bytes, &mut head.fields);
    let bodyless = matches!(head.status, 100..=199 | 204);
    head.body = match announced {
        _ if bodyless || head.status == 304 || request_is_head => BodyLength::None,
        Some(length) => length,
        None => BodyLength::UntilClose,
    };
    // A body announced where there can be none may still come: nobody reads it, so nothing may be read after it.
    let clean = !bodyless || matches!(announced, None | Some(BodyLength::None));
    head.keep_alive =
        facts.persistent(head.version) && clean && head.body != BodyLength::UntilClose && head.status != 101;
    Ok(())
}

/// Reads `version SP status [SP reason] CRLF`; returns where the fields begin.
fn parse_line(head: &mut ResponseHead, len: usize) -> Result<usize, Refusal> {
    let Some(end) = memchr(b'\r', &head.bytes[..len]) else { return Err(Refusal::bad("a status line without end")) };
    let line = &head.bytes[..end];
    head.version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => HttpVersion::Http11,
        Some(b"HTTP/1.0 ") => HttpVersion::Http10,
        _ => return Err(Refusal::bad("a status line that begins with neither HTTP/1.1 nor HTTP/1.0")),
    };
    let (Some(&[a, b, c]), true) = (line.get(9..12), matches!(line.get(12), None | Some(b' '))) else {
        return Err(Refusal::bad("a status that is not three digits"));
    };
    let digits = [a, b, c];
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::bad("a status that is not three digits"));
    }
    head.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
    if !(100..=599).contains(&head.status) {
        return Err(Refusal::bad("a status outside 100 to 599"));
    }
    // The space after the status is left out by some when there is no reason.
    head.reason = span(13.min(end), end);
    Ok(end + 2)
}
