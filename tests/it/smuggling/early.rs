//! Bytes that come before they may: behind a refusal, a handshake, an expectation, or the end of the last request.

use super::{Case, SMUGGLED, SMUGGLED_SEEN, post, run};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::websocket::KEY;

const FIRST: (&str, &str) = ("GET / HTTP/1.1\nhost: a", "");

#[tokio::test]
async fn requests_behind_a_refused_one() {
    let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut cases = Vec::new();
    for (status, bad) in [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (405, "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (405, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 0\r\n\r\n"),
        (400, "\r\n\r\n"),
        (400, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        cases.push(Case::passes(format!("{first}{bad}{SMUGGLED}"), &[FIRST]).then(status));
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000));
    cases.push(Case::passes(format!("{first}{long}{SMUGGLED}"), &[FIRST]).then(414));
    // Many at once, each in its place.
    let many: Vec<_> = (0..20).map(|n| (format!("POST /{n} HTTP/1.1\nhost: a\ncontent-length: 1"), "x")).collect();
    let raw = (0..20)
        .fold(String::new(), |raw, n| raw + &format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
    let seen: Vec<_> = many.iter().map(|(head, body)| (head.as_str(), *body)).collect();
    cases.push(Case::passes(raw, &seen));
    run(&cases).await;
}

#[tokio::test]
async fn requests_behind_the_last_one() {
    let keep = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    run(&[
        Case::passes(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{SMUGGLED}"), &[FIRST]).closed(),
        Case::passes(format!("GET / HTTP/1.0\r\nHost: a\r\n\r\n{SMUGGLED}"), &[FIRST]).closed(),
        Case::passes(format!("GET / HTTP/1.0\r\nHost: a\r\nConnection: close, keep-alive\r\n\r\n{SMUGGLED}"), &[FIRST])
            .closed(),
        Case::passes(format!("{keep}{SMUGGLED}"), &[FIRST, SMUGGLED_SEEN]),
        Case::passes(
            format!("POST / HTTP/1.0\r\nHost: a\r\n\r\n{SMUGGLED}"),
            &[("POST / HTTP/1.1\nhost: a\ncontent-length: 0", "")],
        )
        .closed(),
    ])
    .await;
}

/// A handshake that comes to nothing closes the connection: whoever took it for a tunnel must not have its bytes read as requests.
#[tokio::test]
async fn bytes_behind_a_handshake_that_fails() {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let whole = format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n");
    let seen = format!(
        "GET /ws HTTP/1.1\nhost: a\nSec-WebSocket-Key: {KEY}\nSec-WebSocket-Version: 13\nconnection: upgrade\nupgrade: websocket"
    );
    let plain = "GET /ws HTTP/1.1\nhost: a";
    let raw = |lines: &str, behind: &str| format!("GET /ws HTTP/1.1\r\nHost: a\r\n{lines}\r\n{behind}");
    let frame = "\u{1}\u{5}hello";
    run(&[
        // The upstream answers 200, not 101.
        Case::passes(raw(&whole, SMUGGLED), &[(&seen, "")]).closed(),
        Case::passes(raw(&whole, frame), &[(&seen, "")]).closed(),
        Case::passes(raw(&whole, ""), &[(&seen, "")]).closed(),
        // No handshake: the wrong version, no key, a bad key, two keys, a body, another method.
        Case::passes(raw(&format!("{upgrade}{key}Sec-WebSocket-Version: 12\r\n"), SMUGGLED), &[(plain, "")]).closed(),
        Case::passes(raw(&format!("{upgrade}Sec-WebSocket-Version: 13\r\n"), SMUGGLED), &[(plain, "")]).closed(),
        Case::passes(
            raw(&format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"), SMUGGLED),
            &[(plain, "")],
        )
        .closed(),
        Case::passes(raw(&format!("{whole}{key}"), SMUGGLED), &[(plain, "")]).closed(),
        Case::passes(raw(upgrade, SMUGGLED), &[(plain, "")]).closed(),
        Case::passes(
            raw(&format!("{whole}Content-Length: 5\r\n"), "hello"),
            &[("GET /ws HTTP/1.1\nhost: a\ncontent-length: 5", "hello")],
        )
        .closed(),
        Case::passes(
            format!("OPTIONS /ws HTTP/1.1\r\nHost: a\r\n{whole}\r\n{SMUGGLED}"),
            &[("OPTIONS /ws HTTP/1.1\nhost: a", "")],
        )
        .closed(),
        Case::passes(format!("GET /ws HTTP/1.0\r\nHost: a\r\n{whole}\r\n{SMUGGLED}"), &[(plain, "")]).closed(),
        // Not asked for by `Connection`: no upgrade, and a request like any other (RFC 9110 section 7.8).
        Case::passes(raw("Upgrade: websocket\r\n", SMUGGLED), &[(plain, ""), SMUGGLED_SEEN]),
        Case::passes(raw("Connection: upgrade\r\n", SMUGGLED), &[(plain, ""), SMUGGLED_SEEN]),
    ])
    .await;
}

/// An upgrade to HTTP/2 is ignored, so HTTP/1.1 goes on: a request behind it is one, the preface of HTTP/2 is none.
#[tokio::test]
async fn bytes_behind_an_upgrade_that_is_ignored() {
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let raw = |behind: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{behind}");
    run(&[
        Case::passes(raw(SMUGGLED), &[FIRST, SMUGGLED_SEEN]),
        Case::passes(raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"), &[FIRST]).then(505),
        Case::passes(raw("\0\0\0\u{4}\0\0\0\0\0"), &[FIRST]).then(400),
        Case::passes(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n\u{16}\u{3}\u{1}",
            &[FIRST],
        )
        .then(400),
    ])
    .await;
}

#[tokio::test]
async fn expectations_and_bodies() {
    let n = SMUGGLED.len();
    let told = format!("POST / HTTP/1.1\nhost: a\ncontent-length: {n}\nexpect: 100-continue");
    let chunked = "POST / HTTP/1.1\nhost: a\ntransfer-encoding: chunked\nexpect: 100-continue";
    let empty = ("POST / HTTP/1.1\nhost: a\ncontent-length: 0", "");
    let mut cases = vec![
        Case::passes(post(&format!("Expect: 100-continue\r\nContent-Length: {n}\r\n"), SMUGGLED), &[(&told, SMUGGLED)]),
        Case::passes(
            post(&format!("Expect: 100-Continue\r\nexpect: 100-continue\r\nContent-Length: {n}\r\n"), SMUGGLED),
            &[(&told, SMUGGLED)],
        ),
        Case::passes(
            post(
                "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
                &format!("{n:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
            &[(chunked, SMUGGLED)],
        ),
        // Without a body there is nothing to wait for.
        Case::passes(post("Expect: 100-continue\r\n", SMUGGLED), &[empty, SMUGGLED_SEEN]),
        Case::passes(post("Expect: 100-continue\r\nContent-Length: 0\r\n", SMUGGLED), &[empty, SMUGGLED_SEEN]),
        Case::passes(post("Connection: expect\r\nExpect: 100-continue\r\n", SMUGGLED), &[empty, SMUGGLED_SEEN]),
        Case::passes(
            format!("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {n}\r\n\r\n{SMUGGLED}"),
            &[(&format!("POST / HTTP/1.1\nhost: a\ncontent-length: {n}"), SMUGGLED)],
        )
        .closed(),
    ];
    for value in [
        "",
        "x",
        "100",
        "100-continue, x",
        "100-continue,100-continue",
        "100-continue;q=1",
        "\"100-continue\"",
        "y 100-continue",
    ] {
        cases.push(Case::refused(417, post(&format!("Expect: {value}\r\nContent-Length: {n}\r\n"), SMUGGLED)));
    }
    for lines in
        ["Expect : 100-continue", "Expect: 100-continue\n", "Expect:\r\n 100-continue", "Expect\0: 100-continue"]
    {
        cases.push(Case::refused(400, post(&format!("{lines}\r\nContent-Length: {n}\r\n"), SMUGGLED)));
    }
    run(&cases).await;
}

/// A client that was answered before it sent the body it announced may leave it out, or not: what it sends next could be either, so nothing
/// of it is read.
#[tokio::test]
async fn an_early_answer_to_an_expectation_ends_the_connection() {
    let upstream = Upstream::start(Behaviour::early(200, "early")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    for lines in [format!("Content-Length: {}\r\n", SMUGGLED.len()), "Transfer-Encoding: chunked\r\n".to_owned()] {
        let mut client = proxy.client().await;
        client.send(post(&format!("Expect: 100-continue\r\n{lines}"), "")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.head.lists("connection", "close")), (200, true));
        let _ = client.try_send(SMUGGLED).await;
        client.expect_close().await;
    }
    upstream.all_closed().await;
    let requests = upstream.requests();
    assert_eq!((requests.len(), upstream.arrived()), (2, 2), "{requests:?}");
    assert!(requests.iter().all(|request| !request.complete && request.head.line == "POST / HTTP/1.1"), "{requests:?}");
    assert_eq!(upstream.violations(), Vec::<String>::new());
}
