//! Heads on their way to and from an HTTP/2 upstream: same fields as over HTTP/1.1, same strictness, other form.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, uri};

use crate::proxy::edits::{FieldWriter, RequestEdits, says_no_body, write_fields};
use crate::proxy::h1::bytes::{decimal, is_token};
use crate::proxy::h1::head::{RESPONSE_FIELDS_MAX, RESPONSE_HEAD_MAX};
use crate::proxy::h2::body::push;
use crate::proxy::headers::{BodyLength, Field, HttpVersion, Known, RequestHead, ResponseHead, Span};

/// Fields set aside for what is written beside those that came.
const ADDED: usize = 10;

/// Fields as a map, values as slices of one copy of the head.
struct Fields<'a> {
    map: HeaderMap,
    head: &'a RequestHead,
    shared: Bytes,
    scratch: Vec<u8>,
}

/// The request to send for `head`, `secure` being whether the session is encrypted. `None` when its target cannot be said in HTTP/2, which
/// takes one of 64 KiB.
pub(super) fn request(head: &RequestHead, edits: &RequestEdits<'_>, secure: bool) -> Option<Request<()>> {
    let mut fields = Fields {
        map: HeaderMap::with_capacity(head.fields.len() + ADDED),
        head,
        shared: Bytes::copy_from_slice(&head.bytes),
        scratch: Vec::new(),
    };
    write_fields(&mut fields, head, edits);
    let mut map = fields.map;
    match edits.body {
        BodyLength::Exact(length) => add_length(&mut map, length),
        BodyLength::None if says_no_body(head) => add_length(&mut map, 0),
        BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => {}
    }
    if head.te_trailers {
        map.insert(TE, HeaderValue::from_static("trailers"));
    }
    // Passed on, as RFC 9110 section 10.1.1 asks of a proxy: whoever answers decides whether the body is wanted.
    if head.expect_continue {
        map.insert(EXPECT, HeaderValue::from_static("100-continue"));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.get(head.method)).ok()?;
    *request.uri_mut() = target(head, edits, secure, &mut map)?;
    *request.headers_mut() = map;
    Some(request)
}

/// Scheme, authority, path and query.
fn target(head: &RequestHead, edits: &RequestEdits<'_>, secure: bool, map: &mut HeaderMap) -> Option<Uri> {
    let path = match edits.target {
        None => path(head.get(head.target)),
        Some(path_part) => {
            let mut whole = path_part.to_vec();
            if let Some(query) = head.query {
                whole.push(b'?');
                whole.extend_from_slice(head.get(query));
            }
            path(&whole)
        }
    };
    let mut parts = uri::Parts::default();
    parts.path_and_query = Some(path?);
    if let Ok(authority) = Authority::try_from(edits.host) {
        parts.authority = Some(authority);
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    } else {
        // Hosts that are no authority for everybody go where HTTP/1.1 has them (RFC 9113 section 8.3.1).
        map.insert(HOST, HeaderValue::from_bytes(edits.host).ok()?);
    }
    Uri::from_parts(parts).ok()
}

/// Digits of escapes.
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// A path with its query; what may not stand there raw, although browsers send some of it, is escaped.
fn path(raw: &[u8]) -> Option<PathAndQuery> {
    if let Ok(path) = PathAndQuery::try_from(raw) {
        return Some(path);
    }
    let mut escaped = Vec::with_capacity(raw.len() + 64);
    for &byte in raw {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            escaped.push(byte);
        } else {
            escaped.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    PathAndQuery::try_from(escaped).ok()
}

fn add_length(map: &mut HeaderMap, length: u64) {
    map.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

/// Fills `head` from a response; `ended` says that nothing follows it, `to_head` that it answers a `HEAD`.
///
/// # Errors
/// What is wrong with it. What `head` then holds is not to be used.
pub(super) fn response(
    head: &mut ResponseHead,
    status: StatusCode,
    fields: &HeaderMap,
    ended: bool,
    to_head: bool,
) -> Result<(), &'static str> {
    head.bytes.clear();
    head.fields.clear();
    head.status = status.as_u16();
    if !(100..=599).contains(&head.status) {
        return Err("a status outside 100 to 599");
    }
    head.reason = Span::default();
    head.version = HttpVersion::Http2;
    head.keep_alive = true;
    if fields.len() > RESPONSE_FIELDS_MAX {
        return Err("too many fields");
    }
    let mut length = None;
    for (name, value) in fields {
        // The `http` crate takes `"` for part of a token.
        if !is_token(name.as_str().as_bytes()) {
            return Err("a field name with a character that may not be in one");
        }
        let known = Known::of(name.as_str().as_bytes());
        match known {
            Known::ContentLength => {
                let number = decimal(value.as_bytes()).ok_or("a Content-Length that is not one number")?;
                if length.replace(number).is_some() {
                    return Err("more than one Content-Length");
                }
            }
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Te => return Err("a field of HTTP/1.1 connections in HTTP/2"),
            _ => {}
        }
        write_line(head, known, name, value);
        if head.bytes.len() > RESPONSE_HEAD_MAX {
            return Err("the head is too large");
        }
    }
    head.bytes.extend_from_slice(b"\r\n");
    head.body = match length {
        _ if matches!(head.status, 100..=199 | 204 | 304) || to_head => BodyLength::None,
        Some(0) => BodyLength::None,
        Some(length) => BodyLength::Exact(length),
        None if ended => BodyLength::None,
        None => BodyLength::Chunked,
    };
    Ok(())
}

/// Appends a field in the form that HTTP/1.1 copies in one piece.
fn write_line(head: &mut ResponseHead, known: Known, name: &HeaderName, value: &HeaderValue) {
    let name = push(&mut head.bytes, name.as_str().as_bytes());
    let value = value.as_bytes().trim_ascii();
    head.bytes.extend_from_slice(if value.is_empty() { b":" } else { b": " });
    let value = push(&mut head.bytes, value);
    head.bytes.extend_from_slice(b"\r\n");
    head.fields.push(Field { known, name, value });
}

// === impl Fields ===

impl FieldWriter for Fields<'_> {
    fn keep(&mut self, field: &Field) {
        let name = HeaderName::from_bytes(self.head.get(field.name));
        let value = HeaderValue::from_maybe_shared(self.shared.slice(field.value.range()));
        self.append(name.ok(), value.ok());
    }

    fn add(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(&mut self.scratch);
        self.append(HeaderName::from_bytes(name).ok(), HeaderValue::from_bytes(&self.scratch).ok());
    }
}

impl Fields<'_> {
    /// Appends a field; nothing our parsers let in is no field here.
    fn append(&mut self, name: Option<HeaderName>, value: Option<HeaderValue>) {
        debug_assert!(name.is_some() && value.is_some(), "parsed, and yet not a field");
        if let (Some(name), Some(value)) = (name, value) {
            self.map.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::fixture;

    fn edits(head: &RequestHead) -> RequestEdits<'_> {
        RequestEdits {
            target: None,
            host: head.get(head.authority),
            client_ip: b"192.0.2.1",
            proto: b"http",
            trusted: false,
            request_id: b"id-1",
            strip_header: None,
            strip_cookie: None,
            body: head.body,
            call_left: None,
            websocket: false,
        }
    }

    fn fields(request: &Request<()>) -> Vec<String> {
        let show = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        request.headers().iter().map(show).collect()
    }

    #[test]
    fn the_same_fields_as_over_http1_go_out_in_lower_case() {
        let head = fixture::raw_request(
            b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: Shop:80\r\nX-Empty:\r\nCookie: a=1\r\nCookie: b=2\r\nKeep-Alive: 5\r\n\
              TE: trailers\r\nConnection: te, x-hop\r\nX-Hop: 1\r\nAccept: */*\r\nTransfer-Encoding: chunked\r\n\
              Expect: 100-continue\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
        );
        let request = request(&head, &edits(&head), true).unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("POST", "https://Shop:80/a%2Fb?c=d".into())
        );
        let mut seen = fields(&request);
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                "accept: */*",
                "cookie: a=1; b=2",
                "expect: 100-continue",
                "forwarded: for=192.0.2.1;host=\"Shop:80\";proto=http",
                "te: trailers",
                "x-empty: ",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: Shop:80",
                "x-forwarded-proto: http",
                "x-request-id: id-1",
            ]
        );
    }

    #[test]
    fn lengths_are_announced_as_over_http1() {
        for (method, fields, length) in [
            ("POST", "Content-Length: 5\r\n", Some("5")),
            ("POST", "", Some("0")),
            ("GET", "", None),
            ("PUT", "Transfer-Encoding: chunked\r\n", None),
        ] {
            let head = fixture::request(method, "/", fields);
            let request = request(&head, &edits(&head), false).unwrap();
            let found = request.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(found, length, "{method} {fields}");
        }
    }

    #[test]
    fn targets_keep_their_escapes_and_what_may_not_be_raw_is_escaped() {
        for (sent, expected) in [
            ("/a/%2e%41?x=%7b", "/a/%2e%41?x=%7b"),
            ("/?q={a|b}^", "/?q={a|b}^"),
            ("/<b>?\"q\"", "/%3Cb%3E?%22q%22"),
            ("/\u{e9}", "/\u{e9}"),
        ] {
            let head = fixture::raw_request(format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            let request = request(&head, &edits(&head), false).unwrap();
            let path = request.uri().path_and_query().unwrap().as_str();
            let decoded = |text: &str| percent(text);
            assert_eq!(decoded(path), decoded(expected), "{sent}");
        }
        let head = fixture::request("GET", "/a/../b?c", "");
        let changed = RequestEdits { target: Some(b"/b"), ..edits(&head) };
        assert_eq!(request(&head, &changed, false).unwrap().uri().to_string(), "http://a.test/b?c");
        let head = fixture::request("OPTIONS", "*", "");
        assert_eq!(request(&head, &edits(&head), false).unwrap().uri().path_and_query().unwrap().as_str(), "*");
    }

    /// The bytes a target stands for.
    fn percent(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, tail @ ..] = rest {
            let escape = tail.get(..2).filter(|_| *first == b'%');
            let byte = escape.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
            bytes.push(byte.unwrap_or(*first));
            rest = if byte.is_some() { &tail[2..] } else { tail };
        }
        bytes
    }

    #[test]
    fn a_host_that_is_no_authority_goes_as_a_field() {
        let head = fixture::get("");
        let odd = RequestEdits { host: b"a%zz[", ..edits(&head) };
        let request = request(&head, &odd, true).unwrap();
        assert_eq!((request.uri().authority(), request.headers()[HOST].as_bytes()), (None, &b"a%zz["[..]));
    }

    fn read(status: u16, fields: &[(&str, &str)], ended: bool, to_head: bool) -> Result<ResponseHead, &'static str> {
        let (mut head, mut map) = (ResponseHead::default(), HeaderMap::new());
        for (name, value) in fields {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        response(&mut head, StatusCode::from_u16(status).unwrap(), &map, ended, to_head).map(|()| head)
    }

    #[test]
    fn responses_say_how_long_they_are() {
        for (status, length, ended, to_head, body) in [
            (200, None, false, false, BodyLength::Chunked),
            (200, None, true, false, BodyLength::None),
            (200, Some("7"), false, false, BodyLength::Exact(7)),
            (200, Some("0"), false, false, BodyLength::None),
            (200, Some("7"), true, true, BodyLength::None),
            (204, None, false, false, BodyLength::None),
            (304, Some("7"), true, false, BodyLength::None),
        ] {
            let fields: Vec<_> = length.map(|length| ("content-length", length)).into_iter().collect();
            let head = read(status, &fields, ended, to_head).unwrap();
            assert_eq!((head.status, head.body), (status, body), "{status} {length:?} {ended} {to_head}");
        }
        let head = read(200, &[("x-a", " 1 "), ("set-cookie", "a=b"), ("set-cookie", "c=d"), ("x-e", "")], true, false);
        let head = head.unwrap();
        assert_eq!(head.bytes, b"x-a: 1\r\nset-cookie: a=b\r\nset-cookie: c=d\r\nx-e:\r\n\r\n");
        assert_eq!(head.all_known(Known::SetCookie).count(), 2);
    }

    #[test]
    fn responses_that_are_none_are_refused() {
        let many: Vec<(String, &str)> = (0..=RESPONSE_FIELDS_MAX).map(|n| (format!("x-{n}"), "1")).collect();
        let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let large = "a".repeat(RESPONSE_HEAD_MAX);
        for (status, fields) in [
            (600, &[][..]),
            (200, &[("content-length", "1"), ("content-length", "1")]),
            (200, &[("content-length", "+1")]),
            (200, &[("content-length", "1, 1")]),
            (200, &[("transfer-encoding", "chunked")]),
            (200, &[("connection", "close")]),
            (200, &[("upgrade", "h2c")]),
            (200, &[("keep-alive", "5")]),
            (200, &[("te", "trailers")]),
            (200, &[("x-large", large.as_str())]),
            (200, &many),
        ] {
            assert!(read(status, fields, false, false).is_err(), "{status} {:?}", fields.first());
        }
    }
}
