//! Request lines and authorities: methods, targets, versions, and Host against all of them.

use super::{Case, SMUGGLED, SMUGGLED_SEEN, get, run};

/// A request with this line, `Host: a`, and another request behind it.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n{SMUGGLED}")
}

#[tokio::test]
async fn request_lines() {
    let mut cases = Vec::new();
    for raw in [
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        " GET / HTTP/1.1",
        "GET / X HTTP/1.1",
        "GET / HTTP/1.1 HTTP/1.1",
        "GET /x HTTP/1.1\tHTTP/1.0",
        "GET /",
        "GET / ",
        "GET",
        "/ HTTP/1.1",
        " / HTTP/1.1",
        "GET  HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1.1",
        "GET / HTTP/1,1",
        "GET / HTTP/01.1",
        "GET / HTTP/1.01",
        "GET / HTTP/ 1.1",
        "GET / HTTP /1.1",
        "GET / HTTP1.1",
        "GET / HTTP/1",
        "GET / HTTP/",
        "GET / HTTP/\u{661}.1",
        "GET / SIP/2.0",
        "GET / RTSP/1.0",
        "G\u{e9}T / HTTP/1.1",
        "G:T / HTTP/1.1",
        "\"GET\" / HTTP/1.1",
        "GET, / HTTP/1.1",
        "(GET) / HTTP/1.1",
        "X: y",
        "HTTP/1.1 200 OK",
    ] {
        cases.push(Case::refused(400, line(raw)));
    }
    // HTTP/0.9: a line is a request; here it is none.
    cases.push(Case::refused(400, format!("GET /\r\n\r\n{SMUGGLED}")));
    cases.push(Case::refused(400, format!("GET /\r\n{SMUGGLED}")));
    for version in ["0.9", "1.2", "1.9", "2.0", "2.1", "3.0", "0.0", "9.9"] {
        cases.push(Case::refused(505, line(&format!("GET / HTTP/{version}"))));
    }
    for method in ["CONNECT", "TRACE"] {
        for target in ["/", "a:443", "http://a/"] {
            cases.push(Case::refused(405, line(&format!("{method} {target} HTTP/1.1"))));
        }
    }
    let body = format!("Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    cases.push(Case::refused(405, format!("TRACE / HTTP/1.1\r\nHost: a\r\n{body}")));
    cases.push(Case::refused(405, format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n{body}")));
    // Methods are tokens, and other tokens are other methods.
    for method in ["connect", "Trace", "GETS", "PRI", "M-SEARCH", "!"] {
        let seen = format!("{method} / HTTP/1.1\nhost: a");
        cases.push(Case::passes(line(&format!("{method} / HTTP/1.1")), &[(&seen, ""), SMUGGLED_SEEN]));
    }
    run(&cases).await;
}

#[tokio::test]
async fn targets_that_are_refused() {
    let mut cases = Vec::new();
    for target in [
        "a",
        "a/b",
        "*",
        "*/",
        "?x",
        ";x",
        "@b/",
        "\\",
        "/\\b",
        "/a\\..\\b",
        "/#",
        "/a#b",
        "/%00",
        "/a%00.html",
        "/%2e%2e/",
        "/a/%2E./b",
        "/.%2e/b",
        "/%2F..%2fb",
        "/a/..%2fb",
        "/a%5c..%5cb",
        "/a/%2e",
        "/\u{7f}",
        "/a\u{b}b",
        "/a\0b",
        // URLs with another authority than Host, or with something in it that is none.
        "http://b/",
        "http://b",
        "http://b?x",
        "http://a.b/",
        "http://a:81/",
        "https://a:80/",
        "http://a@b/",
        "http://b@a/",
        "http://a:b@a/",
        "http://@a/",
        "http://a:/",
        "http://a:80:80/",
        "http://a:65616/",
        "http://a%2f/",
        "http://a\\/",
        "http://a#@b/",
        "http:///a/",
        "http:/a/",
        "http:a",
        "http://",
        "http:///",
        "HTTP://B/",
        "ftp://a/",
        "file:///etc",
        "ws://a/",
        "javascript://a/",
        "http+unix://a/",
        "://a/",
    ] {
        cases.push(Case::refused(400, line(&format!("GET {target} HTTP/1.1"))));
    }
    run(&cases).await;
}

#[tokio::test]
async fn targets_that_pass_mean_one_thing() {
    let mut cases = Vec::new();
    for (target, seen) in [
        ("http://a/x?y", "/x?y"),
        ("http://A:80/x", "/x"),
        ("https://a:443/x", "/x"),
        ("HTTP://a/x", "/x"),
        ("http://a", "/"),
        ("http://a?x", "/?x"),
        ("http://a/http://b/", "/http://b/"),
        ("//b/x", "//b/x"),
        ("//b@a/x", "//b@a/x"),
        ("/http://b/", "/http://b/"),
        ("/a:80@b", "/a:80@b"),
        ("/a/../b", "/b"),
        ("/../../b", "/b"),
        ("/./b", "/b"),
        ("/%2Fa%2fb%5C", "/%2Fa%2fb%5C"),
        ("/%0d%0aHost:%20b", "/%0d%0aHost:%20b"),
        ("/%252e%252e/", "/%252e%252e/"),
        ("/a;b=c/..;/d", "/a;b=c/..;/d"),
        ("/?a=HTTP/1.1", "/?a=HTTP/1.1"),
        ("/?\\..\\%00%2e%2e/", "/?\\..\\%00%2e%2e/"),
        ("/\u{e9}", "/\u{e9}"),
    ] {
        let seen = format!("GET {seen} HTTP/1.1\nhost: a");
        cases.push(Case::passes(line(&format!("GET {target} HTTP/1.1")), &[(&seen, ""), SMUGGLED_SEEN]));
    }
    for (target, seen) in [("*", "*"), ("http://a", "*"), ("http://a/", "/"), ("/", "/")] {
        let seen = format!("OPTIONS {seen} HTTP/1.1\nhost: a");
        cases.push(Case::passes(line(&format!("OPTIONS {target} HTTP/1.1")), &[(&seen, ""), SMUGGLED_SEEN]));
    }
    run(&cases).await;
}

#[tokio::test]
async fn host_fields() {
    let mut cases = Vec::new();
    for lines in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nX: y\r\nhost: b\r\n",
        "Host:\r\nHost: a\r\n",
        "Host: a\r\nHost:\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host : a\r\n",
        "Host: a\r\nHost : b\r\n",
        "Host: a\r\n Host: b\r\n",
        "Host: a\r\n b\r\n",
        "Host: a\nHost: b\r\n",
        "Host_: a\r\n",
        "HTTP_HOST: a\r\n",
    ] {
        cases.push(Case::refused(400, format!("GET / HTTP/1.1\r\n{lines}\r\n{SMUGGLED}")));
    }
    // Other fields that name a host name none to us.
    let lines = "X-Host: b\r\nX-Original-Host: b\r\n";
    let seen = "GET / HTTP/1.1\nhost: a\nX-Host: b\nX-Original-Host: b";
    cases.push(Case::passes(get(lines), &[(seen, ""), SMUGGLED_SEEN]));
    let lines = "X-Forwarded-Host: b\r\nX-Forwarded-Server: b\r\nForwarded: host=b\r\n";
    cases.push(Case::passes(get(lines), &[("GET / HTTP/1.1\nhost: a", ""), SMUGGLED_SEEN]));
    run(&cases).await;
}

#[tokio::test]
async fn hosts() {
    let mut cases = Vec::new();
    for host in [
        "a b",
        "a\tb",
        "a, b",
        "a/b",
        "a/",
        "/a",
        "a?b",
        "a#b",
        "a@b",
        "@a",
        "a:b@c",
        "a:",
        "a:x",
        "a:80x",
        "a:-1",
        "a:+80",
        "a: 80",
        "a:80:80",
        "a:65536",
        "a:99999999999",
        ":80",
        "http://a",
        "a\\b",
        "a\u{e9}",
        "<a>",
        "\"a\"",
        "a%",
        "a%0",
        "a%zz",
        "[::1",
        "::1",
        "[]",
        "[::1]b",
        "[::g]",
        "a\u{1}",
        "a\0",
        "{a}",
        "a|b",
        "a^b",
        "`a`",
        "a[b]",
    ] {
        for version in ["1.0", "1.1"] {
            cases.push(Case::refused(400, format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n{SMUGGLED}")));
        }
    }
    // One host, as it came: what the upstream sees is what was routed by.
    for host in ["A", "a.", "a:80", "a:0080", "a_b", "127.0.0.1", "[::1]:80", "xn--caf-dma", "a%20b", "a,b", "a;b=c"] {
        let raw = format!("GET / HTTP/1.1\r\nhOST: \t{host}\t\r\n\r\n{SMUGGLED}");
        let seen = format!("GET / HTTP/1.1\nhost: {host}");
        cases.push(Case::passes(raw, &[(&seen, ""), SMUGGLED_SEEN]));
    }
    run(&cases).await;
}
