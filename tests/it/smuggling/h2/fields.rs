//! Fields (RFC 9113 section 8.2): names and values that would be more than one line, and those that belong to a connection.

use super::{Case, GET, SMUGGLED, run};
use crate::harness::h2_raw::Pair;

#[tokio::test]
async fn names() {
    let mut cases = Vec::new();
    let smuggling = format!("x: y\r\n\r\n{SMUGGLED}");
    for name in [
        &b""[..],
        b"X",
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"x-Y",
        b"x ",
        b" x",
        b"x y",
        b"x\t",
        b"x:",
        b"x:y",
        b":x",
        b"x\r",
        b"x\n",
        b"x\r\n",
        b"x\0",
        b"x\x7f",
        b"x\x01y",
        b"x\xff",
        b"\xc3\xa9",
        b"x(y",
        b"x,y",
        b"x/y",
        b"x@y",
        b"[x]",
        b"\"x\"",
        b"content-length ",
        b"content-length:",
        b"transfer-encoding\t",
        b"x: y\r\ncontent-length",
        b"x\r\ntransfer-encoding",
        b"host\r\nhost",
        b"x\ny",
        smuggling.as_bytes(),
    ] {
        cases.push(Case::refused_with(&[(name, b"5")]));
    }
    run(&cases).await;
}

#[tokio::test]
async fn values() {
    let mut cases = Vec::new();
    let smuggling = format!("y\r\n\r\n{SMUGGLED}");
    for value in [
        &b"\r"[..],
        b"\n",
        b"\r\n",
        b"\0",
        b"y\r",
        b"y\n",
        b"y\r\n",
        b"\r\ny",
        b"y\r\nx: z",
        b"y\nx: z",
        b"y\rx: z",
        b"y\0z",
        b"y\x01",
        b"y\x7f",
        b"y\x0b",
        b"y\r\n z",
        b"y\r\ntransfer-encoding: chunked",
        b"y\r\n\r\n",
        b" y",
        b"y ",
        b"\ty",
        b"y\t",
        b" ",
        smuggling.as_bytes(),
    ] {
        for name in [&b"x"[..], b"cookie", b"user-agent", b"x-forwarded-for", b"x-request-id", b"referer", b"te"] {
            cases.push(Case::refused_with(&[(name, value)]));
        }
    }
    run(&cases).await;
}

/// A connection's fields have no place in HTTP/2, and become none of HTTP/1.1 (RFC 9113 section 8.2.2).
#[tokio::test]
async fn fields_of_a_connection() {
    let mut cases = Vec::new();
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "content-length"),
        ("connection", ""),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("transfer-encoding", "xchunked"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "chunked"),
        ("te", ""),
        ("expect", "x"),
        ("expect", "100-continue, x"),
    ] {
        cases.push(Case::refused_with(&[(name.as_bytes(), value.as_bytes())]));
        let body = format!("0\r\n\r\n{SMUGGLED}");
        cases.push(Case::refused_with(&[(name.as_bytes(), value.as_bytes())]).body(&[&body]).late());
    }
    run(&cases).await;
}

#[tokio::test]
async fn fields_that_pass() {
    let get = "GET / HTTP/1.1\nhost: a";
    let cases =
        |fields: &[Pair<'_>], more: &str| Case::passes(&[&GET[..], fields].concat(), &format!("{get}{more}"), "");
    let large = vec![b'x'; 20_000];
    let large_seen = format!("\nx: {}", "x".repeat(20_000));
    run(&[
        cases(&[(b"x", b"y"), (b"x-empty", b""), (b"!#$%&'*+-.^`|~", b"z")], "\nx: y\nx-empty: \n!#$%&'*+-.^`|~: z"),
        cases(&[(b"x", b"a\tb, \"c\"; d")], "\nx: a\tb, \"c\"; d"),
        cases(&[(b"x", "\u{e9}".as_bytes())], "\nx: \u{e9}"),
        cases(
            &[(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3; d=4")],
            "\ncookie: a=1; b=2; c=3; d=4\nx: y",
        ),
        cases(&[(b"te", b"trailers")], "\nte: trailers\nconnection: te"),
        // Whoever says so: these are ours to say, or nobody's.
        cases(
            &[(b"x-forwarded-for", b"1.2.3.4"), (b"forwarded", b"for=1.2.3.4"), (b"x-tidegate-variant", b"candidate")],
            "",
        ),
        cases(&[(b"content_length", b"5"), (b"transfer_encoding", b"chunked"), (b"x_y", b"z")], ""),
        cases(&[(b"http2-settings", b"AAMAAABk"), (b"proxy-authorization", b"Basic eDp5")], ""),
        cases(&[(b"expect", b"100-continue")], ""),
        cases(&[(b"content-length", b"0")], ""),
        cases(&[(b"x", &large)], &large_seen),
    ])
    .await;
}

#[tokio::test]
async fn too_much() {
    let many: Vec<Pair<'_>> = (0..200).map(|_| -> Pair<'_> { (b"x", b"y") }).collect();
    let large = vec![b'x'; 70_000];
    let pieces = vec![b'x'; 9_000];
    let tens: Vec<Pair<'_>> = (0..10).map(|_| -> Pair<'_> { (b"x", &pieces) }).collect();
    let path = [b"/", &vec![b'x'; 9_000][..]].concat();
    run(&[
        Case::refused_with(&many),
        Case::refused_with(&[(b"x", &large)]),
        Case::refused_with(&[(&large, b"x")]),
        Case::refused_with(&tens),
        Case::refused(&[GET[0], GET[1], GET[2], (b":path", &path)]),
    ])
    .await;
}
