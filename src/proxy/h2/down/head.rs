//! Heads between the `h2` crate and positions in a buffer.

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};

use crate::proxy::h1::edit::{ResponseEdits, is_forwarded};
use crate::proxy::h1::head::{HeadLimits, Parts, Refusal, parse_parts};
use crate::proxy::headers::{Field, HttpVersion, Known, RequestHead, ResponseHead};
use crate::proxy::respond::Reply;

/// Fields a response gets beside those of the upstream.
const ADDED: usize = 4;

/// Fills `head` from a request, by the rules of HTTP/1.1 and those of RFC 9113 section 8.
///
/// # Errors
/// The status to refuse the request with.
pub(super) fn read_request(
    head: &mut RequestHead,
    request: &Request<RecvStream>,
    limits: &HeadLimits,
) -> Result<(), Refusal> {
    let uri = request.uri();
    let default_port = match uri.scheme_str() {
        // The crate keeps it only beside an authority.
        None | Some("http") => 80,
        Some("https") => 443,
        Some(_) => return Err(Refusal::bad("a :scheme other than http and https")),
    };
    // The crate has cut off a fragment already, so a `#` is not refused here; what goes on is the target without it.
    let parts = Parts {
        method: request.method().as_str().as_bytes(),
        target: uri.path_and_query().map_or(b"", |target| target.as_str().as_bytes()),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        default_port,
        ended: request.body().is_end_stream(),
    };
    let fields = request.headers().iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    parse_parts(head, &parts, fields, limits)
}

/// The head of a response to a client.
pub(super) fn write_response(head: &ResponseHead, edits: &ResponseEdits<'_>) -> Response<()> {
    let mut map = copy_fields(head, |known| edits.keeps(known, head.status));
    if let Some(date) = edits.date.and_then(|date| HeaderValue::from_bytes(date).ok()) {
        map.entry(header::DATE).or_insert(date);
    }
    if let Some(cookie) = edits.set_cookie.and_then(|cookie| HeaderValue::from_bytes(cookie).ok()) {
        map.append(header::SET_COOKIE, cookie);
    }
    for (name, value) in edits.extra {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    match edits.length(head.status) {
        // From HTTP/2 an empty body is one that ended with its head; that of gRPC errors has no length.
        None => {}
        Some(0) if head.version == HttpVersion::Http2 => {}
        Some(length) => {
            map.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    respond(head.status, map)
}

/// The head of an informational response (RFC 9110 section 15.2).
pub(super) fn write_interim(head: &ResponseHead) -> Response<()> {
    respond(head.status, copy_fields(head, is_forwarded))
}

/// The head of an answer of the proxy's own.
pub(super) fn write_reply(reply: &Reply, date: &[u8]) -> Response<()> {
    let mut map = HeaderMap::with_capacity(ADDED);
    if let Ok(date) = HeaderValue::from_bytes(date) {
        map.insert(header::DATE, date);
    }
    let (text, end) = reply.body();
    if let Ok(value) = HeaderValue::from_bytes(reply.content_type()) {
        map.insert(header::CONTENT_TYPE, value);
    }
    if reply.grpc.is_none() {
        map.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len() + end.len()));
    }
    for (name, value) in reply.fields() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.insert(name, value);
        }
    }
    respond(reply.status, map)
}

/// The upstream's fields that go further. All values are parts of one copy of its head.
fn copy_fields(head: &ResponseHead, keeps: impl Fn(Known) -> bool) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(head.fields.len() + ADDED);
    let kept = || head.fields.iter().filter(|field| keeps(field.known));
    let bounds = kept().fold(None, |bounds: Option<(usize, usize)>, Field { value, .. }| {
        let (start, end) = (value.start as usize, value.end as usize);
        Some(bounds.map_or((start, end), |known| (known.0.min(start), known.1.max(end))))
    });
    let Some((start, end)) = bounds else { return map };
    let text = Bytes::copy_from_slice(&head.bytes[start..end]);
    for field in kept() {
        let value = text.slice(field.value.start as usize - start..field.value.end as usize - start);
        // Both were checked when they were read; what is still no field of HTTP/2 stays behind.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(head.get(field.name)), HeaderValue::from_maybe_shared(value))
        {
            // Only ever full of more fields than any head may have.
            let _ = map.try_append(name, value);
        }
    }
    map
}

fn respond(status: u16, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    // The codecs let nothing but 100 to 999 through.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = fields;
    response
}
