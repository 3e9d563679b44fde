//! What is accepted, oddities included, and what is read from it.

use super::*;
use crate::proxy::headers::Span;

fn accepted(raw: &str) -> RequestHead {
    let (head, length) = read_split(raw.as_bytes(), &limits())
        .unwrap_or_else(|refusal| panic!("{refusal}: {}", raw.escape_debug()))
        .expect("a complete head");
    assert_eq!(length, raw.find("\r\n\r\n").unwrap() + 4);
    head
}

fn text(head: &RequestHead, span: Span) -> &str {
    str::from_utf8(head.get(span)).unwrap()
}

#[test]
fn a_request_of_a_browser() {
    let head = accepted(
        "GET /shop/item?id=7&q=a|b^{c} HTTP/1.1\r\nHost: Shop.Example:8080\r\nUser-Agent: x\r\nCookie: a=b; c=d\r\nX-Empty:\r\nX-Odd:\t v\t w \t\r\n\r\nrest",
    );
    assert_eq!(text(&head, head.method), "GET");
    assert_eq!(text(&head, head.target), "/shop/item?id=7&q=a|b^{c}");
    assert_eq!(text(&head, head.path), "/shop/item");
    assert_eq!(head.query.map(|query| text(&head, query)), Some("id=7&q=a|b^{c}"));
    assert_eq!(text(&head, head.authority), "Shop.Example:8080");
    assert_eq!((head.version, head.body, head.keep_alive), (HttpVersion::Http11, BodyLength::None, true));
    assert_eq!(head.fields.len(), 5);
    assert_eq!(head.field(b"x-empty"), Some(&b""[..]));
    assert_eq!(head.field(b"X-ODD"), Some(&b"v\t w"[..]));
    assert_eq!(head.cookie(b"c"), Some(&b"d"[..]));
    assert!(!head.websocket && !head.expect_continue && !head.te_trailers);
}

#[test]
fn targets() {
    for (method, target, expected, path, query) in [
        ("GET", "/", "/", "/", None),
        ("GET", "/?", "/?", "/", Some("")),
        ("GET", "//a//b", "//a//b", "//a//b", None),
        ("GET", "/a/../b/./c", "/a/../b/./c", "/a/../b/./c", None),
        ("GET", "/%2Fa%zz%", "/%2Fa%zz%", "/%2Fa%zz%", None),
        ("GET", "/...%2e/%2ea", "/...%2e/%2ea", "/...%2e/%2ea", None),
        ("GET", "/?%00\\%2e%2e?x", "/?%00\\%2e%2e?x", "/", Some("%00\\%2e%2e?x")),
        ("GET", "/\"<>[]", "/\"<>[]", "/\"<>[]", None),
        ("GET", "/http://b/", "/http://b/", "/http://b/", None),
        ("OPTIONS", "*", "*", "*", None),
        ("OPTIONS", "http://a", "*", "*", None),
        ("OPTIONS", "http://a/", "/", "/", None),
        ("OPTIONS", "http://a?x", "/?x", "/", Some("x")),
        ("GET", "http://a/b?c", "/b?c", "/b", Some("c")),
        ("GET", "http://a", "/", "/", None),
        ("GET", "HTTP://A:80?x=/", "/?x=/", "/", Some("x=/")),
        ("GET", "https://a:443?", "/?", "/", Some("")),
        ("get", "/x", "/x", "/x", None),
        ("M-SEARCH", "/x", "/x", "/x", None),
    ] {
        let head = accepted(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(text(&head, head.method), method);
        assert_eq!(text(&head, head.target), expected, "{target}");
        assert_eq!(text(&head, head.path), path, "{target}");
        assert_eq!(head.query.map(|query| text(&head, query)), query, "{target}");
        assert_eq!(text(&head, head.authority), "a");
    }
    let bytes = b"GET /\x80\xff HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n";
    assert_eq!(read(bytes).unwrap().field(b"x"), Some(&b"\xe9"[..]));
}

#[test]
fn http_1_0() {
    let head = accepted("GET / HTTP/1.0\r\n\r\n");
    assert!(head.authority.is_empty() && !head.keep_alive);
    for (target, authority) in [("http://b:81", "b:81"), ("http://b?x", "b"), ("http://b/x", "b")] {
        let head = accepted(&format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!(text(&head, head.authority), authority);
    }
    assert!(accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert!(!accepted("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n").keep_alive);
    let head = accepted("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    assert!(!head.expect_continue);
    assert_eq!(head.body, BodyLength::Exact(1));
}

#[test]
fn bodies_and_connections() {
    let with = |lines: &str| accepted(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
    for (lines, body) in [
        ("", BodyLength::None),
        ("Content-Length: 0\r\n", BodyLength::None),
        ("Content-Length: \t5 \t\r\n", BodyLength::Exact(5)),
        ("content-length:005\r\n", BodyLength::Exact(5)),
        ("Content-Length: 18446744073709551615\r\n", BodyLength::Exact(u64::MAX)),
        ("Transfer-Encoding: CHUNKED\r\n", BodyLength::Chunked),
        ("transfer_encoding: chunked\r\n", BodyLength::None),
        ("Content_Length: 5\r\n", BodyLength::None),
    ] {
        assert_eq!(with(lines).body, body, "{lines}");
    }
    assert!(with("Connection: keep-alive\r\n").keep_alive);
    assert!(with("Connection: ,, TE ,\r\nTE: gzip, Trailers\r\n").te_trailers);
    assert!(!with("Connection: keep-alive\r\nConnection: foo,Close\r\n").keep_alive);
    assert!(with("Proxy-Connection: close\r\n").keep_alive);
    assert!(with("Expect: 100-Continue\r\nContent-Length: 5\r\n").expect_continue);
    assert!(with("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n").expect_continue);
    assert!(!with("Expect: 100-continue\r\n").expect_continue);
}

#[test]
fn nominated_fields_are_marked() {
    let head = accepted(
        "GET / HTTP/1.1\r\nX-A: 1\r\nHost: a\r\nConnection: x-a, Cookie, te, keep-alive,upgrade\r\nCookie: c=d\r\nX-B: 2\r\nx-A: 3\r\nTE: trailers\r\n\r\n",
    );
    let nominated: Vec<_> = head
        .fields
        .iter()
        .filter(|field| field.known == Known::Nominated)
        .map(|field| text(&head, field.name))
        .collect();
    assert_eq!(nominated, ["X-A", "Cookie", "x-A"]);
    assert_eq!(head.field(b"x-a"), None);
    assert_eq!(head.cookie(b"c"), None);
    assert_eq!(head.field(b"x-b"), Some(&b"2"[..]));
}

#[test]
fn underscores() {
    let raw = b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\nX-Y: 2\r\n\r\n";
    assert_eq!(read(raw).unwrap().fields.len(), 2);
    let keep = HeadLimits { underscores: Underscores::Keep, ..limits() };
    assert_eq!(read_cut(raw, &[], &keep).unwrap().unwrap().0.field(b"x_y"), Some(&b"1"[..]));
}

#[test]
fn websocket_needs_the_whole_handshake() {
    let lines = [
        "Upgrade: h2c, WebSocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let request = |start: &str, lines: &[&str]| {
        accepted(&format!("{start}\r\nHost: a\r\n{}\r\n\r\n", lines.join("\r\n"))).websocket
    };
    assert!(request("GET /chat HTTP/1.1", &lines));
    assert!(!request("POST /chat HTTP/1.1", &lines));
    assert!(!request("GET /chat HTTP/1.0", &lines));
    assert!(!request("GET /chat HTTP/1.1", &[&lines[..], &["Content-Length: 1"]].concat()));
    for index in 0..lines.len() {
        let mut partial = lines.to_vec();
        partial.remove(index);
        partial.push("X: y");
        assert!(!request("GET /chat HTTP/1.1", &partial), "without {}", lines[index]);
    }
    for (index, line) in [
        (0, "Upgrade: h2c"),
        (1, "Connection: keep-alive"),
        (1, "Connection: upgrade, sec-websocket-key"),
        (2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ="),
        (2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
        (2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (2, "Sec-WebSocket-Key: d!hlIHNhbXBsZSBub25jZQ=="),
        (3, "Sec-WebSocket-Version: 8"),
        (3, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8"),
    ] {
        let mut other = lines.to_vec();
        other[index] = line;
        assert!(!request("GET /chat HTTP/1.1", &other), "{line}");
    }
}

#[test]
fn a_head_is_reused_without_allocating() {
    let raw = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\nCookie: b=c\r\n\r\n";
    let mut head = read(raw).unwrap();
    let capacity = (head.bytes.capacity(), head.fields.capacity());
    for _ in 0..10 {
        head.bytes.clear();
        head.bytes.extend_from_slice(raw);
        parse_request(&mut head, raw.len(), &limits()).unwrap();
        assert_eq!((head.bytes.capacity(), head.fields.capacity()), capacity);
        assert_eq!(head.fields.len(), 3);
    }
}
