//! Pseudo-header fields (RFC 9113 section 8.3): which there are, where they stand, and what may be in them.

use super::{Case, GET, SMUGGLED, pairs, run, with};
use crate::harness::h2_raw::Pair;

#[tokio::test]
async fn each_once_and_in_front() {
    let mut cases = Vec::new();
    for left_out in [0, 1, 3] {
        let fields: Vec<_> = GET.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, f)| *f).collect();
        cases.push(Case::refused(&fields));
    }
    // Neither :authority nor Host.
    cases.push(Case::refused(&[GET[0], GET[1], GET[3]]));
    for (name, value) in GET {
        cases.push(Case::refused(&[&GET[..], &[(name, value)]].concat()));
        cases.push(Case::refused(&[&[(name, value)], &GET[..]].concat()));
        cases.push(Case::refused(&[&GET[..], &[(name, b"/smuggled")]].concat()));
        // Behind a regular field.
        let others: Vec<_> = GET.iter().filter(|(other, _)| *other != name).copied().collect();
        cases.push(Case::refused(&[&others[..], &[(b"x", b"y"), (name, value)]].concat()));
        let shouted = name.to_ascii_uppercase();
        cases.push(Case::refused(&[&others[..], &[(&shouted, value)]].concat()));
        cases.push(Case::refused(&[&GET[..], &[(&shouted, value)]].concat()));
    }
    for name in [&b":status"[..], b":protocol", b":host", b":", b":foo", b":path ", b"::path", b":x-forwarded-for"] {
        cases.push(Case::refused(&[&GET[..], &[(name, b"200")]].concat()));
    }
    cases.push(Case::refused(&[]));
    cases.push(Case::refused(&[(b"x", b"y")]));
    run(&cases).await;
}

#[tokio::test]
async fn paths() {
    let mut cases = Vec::new();
    let split = format!("/ HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
    for path in [
        &b""[..],
        b"a",
        b"*",
        b"?x",
        b"a/b",
        b" /",
        b"/ ",
        b"/a b",
        b"/a\tb",
        b"/a HTTP/1.1",
        b"/a HTTP/1.1\r\nX: y",
        b"/a\r\nX: y",
        b"/a\nb",
        b"/a\rb",
        b"/a\0b",
        b"/a\x01",
        b"/a\x7f",
        b"/?a b",
        b"/?a\r\n",
        split.as_bytes(),
        b"http://a/",
        b"http://b/",
        b"https://a/",
        b"a:80",
        b"\\",
        b"/a\\b",
        b"/%00",
        b"/%2e%2e/b",
        b"/%2F..%2f",
    ] {
        cases.push(Case::refused(&pairs(&with(":path", path))));
    }
    for (path, seen) in [
        ("/a/../b", "/b"),
        ("//b/c", "//b/c"),
        ("/http://b/", "/http://b/"),
        ("/%0d%0aX:y", "/%0d%0aX:y"),
        ("/?a=/../", "/?a=/../"),
        // The frame's reader takes a fragment off before anybody sees it: routed and forwarded by what is left.
        ("/#", "/"),
        ("/a#b", "/a"),
        ("/a?b#c", "/a?b"),
        ("/a#/../b", "/a"),
    ] {
        let head = format!("GET {seen} HTTP/1.1\nhost: a");
        cases.push(Case::passes(&pairs(&with(":path", path.as_bytes())), &head, ""));
    }
    let mut options = with(":path", b"*");
    options[0].1 = b"OPTIONS".to_vec();
    cases.push(Case::passes(&pairs(&options), "OPTIONS * HTTP/1.1\nhost: a", ""));
    run(&cases).await;
}

#[tokio::test]
async fn methods() {
    let mut cases = Vec::new();
    for method in [
        &b""[..],
        b" ",
        b" GET",
        b"GET ",
        b"G T",
        b"GET\t/",
        b"GET\r\n",
        b"G\nT",
        b"G\0T",
        b"GET\x7f",
        b"G:T",
        b"G(T",
        b"\"GET\"",
        b"G\xc3\xa9T",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
        b"GET /smuggled HTTP/1.1\r\nX:",
        b"TRACE",
        b"CONNECT",
    ] {
        cases.push(Case::refused(&pairs(&with(":method", method))));
    }
    // CONNECT as it is meant to be, and extended, which nobody offered.
    cases.push(Case::refused(&[(b":method", b"CONNECT"), (b":authority", b"a:80")]));
    let extended = with(":method", b"CONNECT");
    let protocol: Pair<'_> = (b":protocol", b"websocket");
    cases.push(Case::refused(&[&pairs(&extended)[..], &[protocol]].concat()));
    for method in ["get", "PURGE", "PRI", "M-SEARCH"] {
        let head = format!("{method} / HTTP/1.1\nhost: a");
        cases.push(Case::passes(&pairs(&with(":method", method.as_bytes())), &head, ""));
    }
    run(&cases).await;
}

#[tokio::test]
async fn authorities_and_schemes() {
    let mut cases = Vec::new();
    for authority in [
        &b""[..],
        b" ",
        b"a b",
        b" a",
        b"a ",
        b"a\tb",
        b"a/b",
        b"a/",
        b"a?b",
        b"a#b",
        b"u@a",
        b"u:p@a",
        b"@a",
        b"a:",
        b"a:x",
        b"a:65536",
        b"a:80:80",
        b":80",
        b"a\r\nX: y",
        b"a\nX: y",
        b"a\0",
        b"a\\b",
        b"[::1",
        b"::1",
        b"<a>",
        b"a%zz",
        b"\xc3\xa9",
        b"a, b",
        b"http://a",
        b"a\r\n\r\nGET /smuggled HTTP/1.1",
    ] {
        cases.push(Case::refused(&pairs(&with(":authority", authority))));
        let host: Pair<'_> = (b"host", authority);
        cases.push(Case::refused(&[GET[0], GET[1], GET[3], host]));
    }
    for host in [&b"b"[..], b"a.", b"a:81", b"a, b", b"", b"a b", b"u@a", b"a\r\nX: y"] {
        cases.push(Case::refused_with(&[(b"host", host)]));
    }
    cases.push(Case::refused_with(&[(b"host", b"a"), (b"host", b"a")]));
    cases.push(Case::refused_with(&[(b"host", b"a"), (b"host", b"b")]));
    cases.push(Case::refused_with(&[(b"host", b"b"), (b"host", b"a")]));
    cases.push(Case::refused(&[GET[0], GET[1], GET[3], (b"host", b"a"), (b"host", b"a")]));
    for scheme in [&b""[..], b"ftp", b"http://a/", b"http ", b"ht tp", b"http\r\nX: y", b"http\0", b"http:", b"1http"] {
        cases.push(Case::refused(&pairs(&with(":scheme", scheme))));
    }
    cases.push(Case::passes(&[&GET[..], &[(b"host", b"a")]].concat(), "GET / HTTP/1.1\nhost: a", ""));
    cases.push(Case::passes(&[&GET[..], &[(b"host", b"A:80")]].concat(), "GET / HTTP/1.1\nhost: A:80", ""));
    cases.push(Case::passes(&[GET[0], GET[1], GET[3], (b"host", b"a")], "GET / HTTP/1.1\nhost: a", ""));
    cases.push(Case::passes(&pairs(&with(":authority", b"a:8080")), "GET / HTTP/1.1\nhost: a:8080", ""));
    cases.push(Case::passes(&pairs(&with(":scheme", b"https")), "GET / HTTP/1.1\nhost: a", ""));
    run(&cases).await;
}
