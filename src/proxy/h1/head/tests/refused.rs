//! Every refusal there is, with its status.

use super::*;

fn refused(status: u16, raw: &[u8]) {
    match read_split(raw, &limits()) {
        Err(refusal) => assert_eq!(refusal.status, status, "{refusal}: {}", raw.escape_ascii()),
        Ok(read) => panic!("accepted ({}): {}", read.is_some(), raw.escape_ascii()),
    }
}

/// A valid request but for what `lines` add.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn line_ends_and_controls() {
    for raw in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\rX: y\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\rb\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\0b\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \x01\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \x1f\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX: \x7f\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nX\x0b: a\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\0",
        "\x16\x03\x01\x02\0\x01\0",
    ] {
        refused(400, raw.as_bytes());
    }
}

/// Nothing of these is waited for: they are refused before the head is complete.
#[test]
fn early() {
    let mut line = b"GET /".to_vec();
    line.resize(limits().max_line + 2, b'a');
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.resize(limits().max_head + 1, b'a');
    for (status, raw) in [
        (400, &b"GET / HTTP/1.1\n"[..]),
        (400, b"GET / HTTP/1.1\r\nX: a\rb"),
        (400, b"GET / HTTP/1.1\r\nX: a\0"),
        (400, b"\n"),
        (400, b"\r\n\r"),
        (414, &line),
        (431, &head),
    ] {
        refused(status, raw);
    }
}

#[test]
fn request_lines() {
    for raw in [
        "GET\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\tHTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / b HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
        " / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET / HTTP/1\r\nHost: a\r\n\r\n",
        "GET / HTTP/+.1\r\nHost: a\r\n\r\n",
        "GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
        "GET / ICY\r\nHost: a\r\n\r\n",
    ] {
        refused(400, raw.as_bytes());
    }
    for version in ["2.0", "1.2", "0.9", "3.0", "1.9"] {
        refused(505, format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
    }
    refused(505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    refused(405, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    refused(405, b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n");
    refused(405, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn targets() {
    for target in [
        "/a#b",
        "/#",
        "/a\u{7f}b",
        "/a\\b",
        "/a\\..\\b",
        "/%00",
        "/a%00b",
        "/%2e",
        "/%2E/",
        "/a/%2e%2e/b",
        "/a/.%2e",
        "/a/%2E.",
        "/%2e%2E?x",
        "*",
        "a",
        "a/b",
        "a:443",
        "//\\",
        "?x",
        "ftp://a/",
        "http:/a/",
        "http//a/",
        "http:a",
        "://a/",
        "http:///",
        "http://",
        "http://?x",
        "http://u@a/",
        "http://a:b/",
        "http://a:65536/",
        "http://b/",
        "http://a:81/",
        "https://a:80/",
        "http://a\\b/",
        "http://a/%2e%2e",
        "http://a#b",
        "data:,x",
    ] {
        refused(400, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    for target in ["*x", "**", "/%00", "http://b"] {
        refused(400, format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    refused(400, b"GET http://u@a/ HTTP/1.0\r\n\r\n");
}

#[test]
fn hosts() {
    for lines in ["", "Host: a\r\nHost: a\r\n", "Host: a\r\nhost: b\r\n", "Host:\r\n", "Host: \r\n", "Hostt: a\r\n"] {
        refused(400, format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
    }
    for host in [
        "a b", "a/b", "u@a", "a:", "a:x", "a:65536", ":80", "[::1", "::1", "a,b@c", "a?", "a#", "\u{e9}", "a%zz",
        "a\tb", "http://a",
    ] {
        refused(400, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        refused(400, format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes());
    }
    refused(400, b"GET http://a/ HTTP/1.1\r\n\r\n");
    refused(400, b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n");
}

#[test]
fn fields() {
    for lines in [
        "X : y\r\n",
        "X\t: y\r\n",
        "Content-Length : 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        " X: y\r\n",
        "\tX: y\r\n",
        "X: y\r\n z\r\n",
        "X: y\r\n\tz: a\r\n",
        "X: y\r\n \r\n",
        ": y\r\n",
        "X\r\n",
        "X y: z\r\n",
        "X(y): z\r\n",
        "X@: z\r\n",
        "\"X\": z\r\n",
        "X/y: z\r\n",
        "\u{e9}: z\r\n",
    ] {
        refused(400, &with(lines));
    }
    // obs-fold right behind the request line.
    refused(400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n");
}

#[test]
fn framing() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: five\r\n",
        "Content-Length:\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 1e1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "transfer-encoding: chunked\r\ncontent-length: x\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chun ked\r\n",
    ] {
        refused(400, &with(lines));
    }
    refused(400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    refused(400, b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n");
}

#[test]
fn connection_and_expect() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "close, x-forwarded-for",
        "a b",
        "a;b",
        "\"close\"",
    ] {
        refused(400, &with(&format!("Connection: {name}\r\n")));
        refused(400, &with(&format!("Connection: keep-alive\r\nConnection: {name}\r\n")));
    }
    let many: Vec<_> = (0..=NOMINATED_MAX).map(|number| format!("x-{number}")).collect();
    refused(400, &with(&format!("Connection: {}\r\n", many.join(", "))));
    for value in ["", "101", "100-continue, x", "100-continued", "x=y"] {
        refused(417, &with(&format!("Expect: {value}\r\n")));
    }
    refused(417, &with("Expect: 100-continue\r\nExpect: x\r\nContent-Length: 1\r\n"));
    refused(417, &with("Expect: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"));
}

#[test]
fn sizes() {
    let line = |length: usize| {
        let path = "a".repeat(length - "GET / HTTP/1.1".len());
        format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    };
    assert!(read_split(&line(8192), &limits()).is_ok());
    refused(414, &line(8193));
    let empty_in_front = |length| [&b"\r\n"[..], &line(length)].concat();
    assert!(read_split(&empty_in_front(8192), &limits()).is_ok());
    refused(414, &empty_in_front(8193));

    let head = |length: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length - rest)).into_bytes()
    };
    assert!(read_cut(&head(32 * 1024), &[], &limits()).is_ok());
    assert_eq!(read_cut(&head(32 * 1024 + 1), &[], &limits()).unwrap_err().status, 431);
    assert_eq!(read_cut(&head(32 * 1024 + 1), &[32 * 1024, 32 * 1024 + 1], &limits()).unwrap_err().status, 431);

    assert!(read_split(&with(&"X: y\r\n".repeat(99)), &limits()).is_ok());
    refused(431, &with(&"X: y\r\n".repeat(100)));
    // Fields that are dropped count as well.
    refused(431, &with(&"X_Y: y\r\n".repeat(100)));
}

#[test]
fn underscores() {
    let reject = HeadLimits { underscores: Underscores::Reject, ..limits() };
    assert_eq!(read_split(&with("X_Y: z\r\n"), &reject).map(|_| ()).unwrap_err().status, 400);
    assert!(read_split(&with("X-Y: z_\r\n"), &reject).is_ok());
}
