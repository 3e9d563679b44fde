//! Every refusal of HTTP/1.1 requests, as raw bytes: the status, the closed connection, and that nothing reached the upstream. Each is sent
//! whole and cut at random places, for a parser must not depend on how the bytes come.

use crate::harness::client::Client;
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, within};

/// How often each request is sent in pieces.
const SPLITS: u64 = 3;

/// What is refused, and with which status. `GET / HTTP/1.1\r\nHost: a\r\n\r\n` is what an entry has to differ from.
fn refused() -> Vec<(u16, String)> {
    let mut table = Vec::new();
    let mut add = |status: u16, requests: &[&str]| table.extend(requests.iter().map(|r| (status, (*r).to_owned())));
    host_and_line(&mut add);
    fields_and_framing(&mut add);
    add(
        505,
        &[
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        ],
    );
    add(405, &["CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"]);
    table.push((414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 * 1024))));
    table.push((431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(33 * 1024))));
    table.push((431, format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100))));
    table
}

fn host_and_line(add: &mut impl FnMut(u16, &[&str])) {
    add(
        400,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a/.%2E/b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    );
}

fn fields_and_framing(add: &mut impl FnMut(u16, &[&str])) {
    add(
        400,
        &[
            "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX(: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\u{1}\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    );
}

#[tokio::test]
async fn every_refusal_is_answered_and_closed_and_forwards_nothing() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    for (status, request) in refused() {
        for seed in 0..=SPLITS {
            let mut client = proxy.client().await;
            if seed == 0 {
                // A refusal may come before the last byte; what counts is the answer.
                let _ = client.try_send(&request).await;
            } else {
                client.send_split(request.as_bytes(), seed).await;
            }
            let shown = &request[..request.len().min(120)];
            let response = within("a refusal", client.try_response("GET")).await;
            let response = response.unwrap_or_else(|fault| panic!("{shown:?}, split {seed}: {fault}"));
            assert_eq!(response.status, status, "{shown:?}, split {seed}");
            assert!(response.head.lists("connection", "close"), "{shown:?}: the close is announced");
            client.expect_close().await;
        }
    }
    assert_eq!((upstream.arrived(), upstream.violations()), (0, Vec::new()), "something reached the upstream");
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200, "the proxy lives on");
}

/// Requests whose head is fine and whose chunked body is not: the head may have been forwarded, but never a whole request.
#[tokio::test]
async fn a_bad_chunk_ends_both_sides() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5 * 1024));
    for body in [
        "x\r\n",
        "-1\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "1 \nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "11111111111111111\r\nx",
        "\r\n",
        &long,
    ] {
        for seed in 0..=SPLITS {
            let mut client = proxy.client().await;
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            if seed == 0 {
                let _ = client.try_send(&request).await;
            } else {
                client.send_split(request.as_bytes(), seed).await;
            }
            let response = within("a refusal", client.try_response("GET")).await;
            assert_eq!(
                response.unwrap_or_else(|fault| panic!("{body:?}: {fault}")).status,
                400,
                "{body:?}, split {seed}"
            );
            client.expect_close().await;
        }
    }
    upstream.all_closed().await;
    assert_eq!(upstream.violations(), Vec::<String>::new());
    let whole: Vec<_> = upstream.requests().into_iter().filter(|request| request.complete).collect();
    assert!(whole.is_empty(), "requests with bad bodies were taken for whole: {whole:?}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_408_and_a_silent_connection_is_closed() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| {
        c.web(&[&upstream.address()], &[]).limits("head_timeout = \"200ms\"\nkeepalive_idle = \"300ms\"")
    })
    .await;
    let mut slow = proxy.client().await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert_eq!(slow.response().await.status, 408);
    slow.expect_close().await;

    let mut silent = proxy.client().await;
    silent.expect_close().await;
    assert_eq!(upstream.arrived(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let upstream = Upstream::start(Behaviour::echo()).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("max_body = \"1KiB\"")).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n").await;
    assert_eq!(client.response().await.status, 413);
    client.expect_close().await;
    assert_eq!(upstream.arrived(), 0, "a length over the limit is refused before anything is sent");

    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("401\r\n{}\r\n", "x".repeat(1025));
    client.send(&chunk).await;
    assert_eq!(client.response().await.status, 413);
}

#[tokio::test]
async fn no_route_is_404_and_keeps_the_connection() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| {
        c.pools("web", ("v1", &[&upstream.address()]), ("v2", &[])).route("host = \"known.test\"\nservice = \"web\"")
    })
    .await;
    let mut client: Client = proxy.client().await;
    for (host, status) in [("other.test", 404), ("known.test", 200), ("KNOWN.test.:80", 200)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.response().await.status, status, "{host}");
    }
}

/// The access log says of a refused request what was read of it, and nothing of the one before it.
#[tokio::test]
async fn refusals_are_logged_with_what_is_known() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let log = "enabled = true\npath = \"access.log\"";
    let set = |c: Config| c.web(&[&upstream.address()], &[]).set("log.access", log).set("runtime", "workers = 1");
    let proxy = Proxy::start(set).await;
    let (read, unread) = ((Some("GET"), Some("HTTP/1.1")), (None, None));
    let many = format!("POST /many HTTP/1.0\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 * 1024));
    let cases = [
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, unread, None),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, read, None),
        ("GET /there HTTP/1.1\r\nHost: a b\r\n\r\n", 400, read, Some("/there")),
        (&long, 414, unread, None),
        (&many, 431, (Some("POST"), Some("HTTP/1.0")), Some("/many")),
    ];
    for (request, status, ..) in &cases {
        let mut client = proxy.client().await;
        client.send("PUT /before HTTP/1.1\r\nHost: before\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        client.send(*request).await;
        assert_eq!(client.response().await.status, *status, "{request:.80}");
    }
    let path = proxy.dir.path().join("access.log");
    let text = eventually(WAIT_MAX, "all lines", || async {
        std::fs::read_to_string(&path).ok().filter(|text| text.lines().count() == 2 * cases.len())
    })
    .await;
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let refused = lines.filter(|line| line["path"] != "/before");
    for (line, (request, status, (method, protocol), path)) in refused.zip(cases) {
        let seen = (line["status"].as_u64(), line["method"].as_str(), line["protocol"].as_str(), line["path"].as_str());
        assert_eq!(seen, (Some(u64::from(status)), method, protocol, path), "{request:.80}");
        assert!(line["host"].is_null(), "{line}");
    }
}
