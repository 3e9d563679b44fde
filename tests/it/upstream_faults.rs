//! Upstreams that misbehave: the client gets a correct error or a visible cut, the worker lives, and the connection is never used again.

use std::time::Duration;

use crate::harness::client::{Client, Response};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, read_body};
use crate::harness::wait::within;
use crate::harness::wire::Fault;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
/// Bytes of the head of `ANSWER`.
const HEAD: usize = ANSWER.len() - 5;
const QUICK: &str = "connect_timeout = \"300ms\"\nresponse_timeout = \"300ms\"\nbody_idle = \"300ms\"";

async fn pair(behaviour: Behaviour) -> (Upstream, Proxy) {
    let upstream = Upstream::start(behaviour).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("services.web.upstream", QUICK)).await;
    (upstream, proxy)
}

async fn outcome(proxy: &Proxy) -> Result<Response, Fault> {
    let mut client: Client = proxy.client().await;
    client.send(GET).await;
    within("an answer or its end", client.try_response("GET")).await
}

/// After a fault the next request is served, on another connection to the upstream.
async fn assert_recovered(upstream: &Upstream, proxy: &Proxy, what: &str) {
    let before = upstream.accepted();
    // It closes, so that the next fault is not taken for a stale connection and replayed.
    upstream.behave(Behaviour::close_after(CLOSING.len(), CLOSING));
    let response = outcome(proxy).await.unwrap_or_else(|fault| panic!("after {what}: {fault}"));
    assert_eq!((response.status, response.text()), (200, "hello"), "after {what}");
    assert!(upstream.accepted() > before, "the connection was used again after {what}");
    assert_eq!(upstream.violations(), Vec::<String>::new(), "after {what}");
}

#[tokio::test]
async fn resets_and_closes_at_every_offset() {
    let (upstream, proxy) = pair(Behaviour::raw(ANSWER)).await;
    for n in 0..ANSWER.len() {
        for behaviour in [Behaviour::reset_after(n, ANSWER), Behaviour::close_after(n, ANSWER)] {
            upstream.behave(behaviour);
            match outcome(&proxy).await {
                Ok(response) => {
                    assert!(n < HEAD || response.status != 200, "offset {n}: half a body was delivered as a whole one");
                    assert_eq!(response.status, 502, "offset {n}");
                }
                Err(_) => assert!(n >= HEAD, "offset {n}: no response head had been passed on, so an error was due"),
            }
            assert_recovered(&upstream, &proxy, &format!("offset {n}")).await;
        }
    }
}

#[tokio::test]
async fn responses_that_are_none_are_502() {
    let garbage: &[&str] = &[
        "\x16\x03\x01\x02garbage\r\n\r\n",
        "HTTP/1.1 2OO OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ];
    let (upstream, proxy) = pair(Behaviour::raw(ANSWER)).await;
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70 * 1024));
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(12);
    for text in garbage.iter().copied().chain([endless.as_str(), interim.as_str()]) {
        upstream.behave(Behaviour::raw(text));
        let shown = &text[..text.len().min(60)];
        let response = outcome(&proxy).await.unwrap_or_else(|fault| panic!("{shown:?}: {fault}"));
        assert_eq!(response.status, 502, "{shown:?}");
        assert_recovered(&upstream, &proxy, shown).await;
    }
}

#[tokio::test]
async fn lies_about_the_length_are_seen() {
    let (upstream, proxy) = pair(Behaviour::close_after(40, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")).await;
    assert!(outcome(&proxy).await.is_err(), "less than promised must not look whole");
    assert_recovered(&upstream, &proxy, "too little").await;

    upstream.behave(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabEXTRA"));
    assert_eq!(outcome(&proxy).await.unwrap().text(), "ab");
    assert_recovered(&upstream, &proxy, "too much").await;
}

#[tokio::test]
async fn the_second_of_two_responses_reaches_nobody() {
    let second = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let (upstream, proxy) = pair(Behaviour::raw([ANSWER, second].concat())).await;
    assert_eq!(outcome(&proxy).await.unwrap().text(), "hello");
    assert_recovered(&upstream, &proxy, "two responses").await;
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_504() {
    let (upstream, proxy) = pair(Behaviour::hang()).await;
    assert_eq!(outcome(&proxy).await.unwrap().status, 504);
    upstream.all_closed().await;
    assert_recovered(&upstream, &proxy, "silence").await;
}

#[tokio::test]
async fn an_upstream_that_drips_is_delivered() {
    let upstream = Upstream::start(Behaviour::drip(ANSWER, 1, Duration::from_millis(2))).await;
    // Not in a hurry: how long a drip takes depends on whatever else the machine does.
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    assert_eq!(outcome(&proxy).await.unwrap().text(), "hello");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502_and_comes_back() {
    let (mut upstream, proxy) = pair(Behaviour::raw(ANSWER)).await;
    upstream.stop().await;
    assert_eq!(outcome(&proxy).await.unwrap().status, 502);
    upstream.restart().await;
    assert_eq!(outcome(&proxy).await.unwrap().status, 200);
}

/// A reused connection that dies before any response byte is replayed once, on a fresh one; a POST is not, once a byte of it was sent.
#[tokio::test]
async fn a_stale_connection_costs_an_idempotent_request_nothing() {
    let upstream = Upstream::start(Behaviour::raw(ANSWER)).await;
    // Idle connections belong to a worker: with one, the second request finds that of the first.
    let proxy = Proxy::start(|c| {
        c.web(&[&upstream.address()], &[]).set("services.web.upstream", QUICK).set("runtime", "workers = 1")
    })
    .await;
    outcome(&proxy).await.unwrap();
    let dying = Behaviour::script([read_body(), Act::Close]);
    upstream.next([dying.clone()]);
    assert_eq!(outcome(&proxy).await.unwrap().text(), "hello");
    assert_eq!(upstream.arrived(), 3, "the first, the one that died, its replay");

    upstream.next([dying]);
    let response = proxy.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!((response.status, upstream.arrived()), (502, 4), "a POST that was read is never sent twice");
}
