//! What goes wrong on a stream is seen on that stream, with the right code, and on no other.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::Builder;

use crate::harness::h2::{H2Client, get, raw, request};
use crate::harness::h2_raw::{END_HEADERS, END_STREAM, HEADERS, Pair, RawH2, SETTINGS, block, frame};
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::frames::WINDOW_UPDATE;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{eventually, quiet, until};

use super::pair;

#[tokio::test]
async fn a_body_that_is_cut_is_never_whole() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let client = H2Client::connect(&proxy.address()).await;
    for behaviour in [
        Behaviour::close_after(answer.len(), answer),
        Behaviour::reset_after(answer.len(), answer),
        Behaviour::close_after(chunked.len(), chunked),
        Behaviour::reset_after(chunked.len(), chunked),
    ] {
        upstream.next([behaviour]);
        let error = client.try_ask(get("/"), None).await.expect_err("half a body");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error:?}");
        assert_eq!(client.get("/").await.text(), "v1", "the connection goes on");
    }
}

#[tokio::test]
async fn faults_before_the_head_are_answers() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let quick = "response_timeout = \"200ms\"";
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("services.web.upstream", quick)).await;
    let client = H2Client::connect(&proxy.address()).await;
    upstream.behave(Behaviour::hang());
    assert_eq!(client.get("/").await.status, 504);
    upstream.behave(Behaviour::raw("nonsense\r\n\r\n"));
    assert_eq!(client.get("/").await.status, 502);
    upstream.behave(Behaviour::version("v1"));
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_resets_ends_its_upstream_request_and_no_other() {
    let (upstream, proxy) = pair(Behaviour::hang()).await;
    let client = H2Client::connect(&proxy.address()).await;
    let exchange = client.begin(get("/"), true).await;
    upstream.head().await;
    exchange.reset(Reason::CANCEL);
    upstream.all_closed().await;
    upstream.behave(Behaviour::version("v1"));
    assert_eq!(client.get("/").await.text(), "v1");
}

#[tokio::test]
async fn a_client_that_resets_within_its_body_ends_the_upstream_request() {
    let (upstream, proxy) = pair(Behaviour::echo()).await;
    let client = H2Client::connect(&proxy.address()).await;
    let mut exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
    exchange.body.send_data(Bytes::from_static(b"some"), false).unwrap();
    upstream.head().await;
    exchange.reset(Reason::CANCEL);
    upstream.all_closed().await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn an_early_answer_stops_the_upload_without_an_error() {
    let (_upstream, proxy) = pair(Behaviour::early(413, "no")).await;
    let client = H2Client::connect(&proxy.address()).await;
    let mut exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
    exchange.body.send_data(Bytes::from_static(b"some"), false).unwrap();
    let (head, mut stream) = exchange.head().await.expect("an answer").into_parts();
    assert_eq!(head.status, 413);
    assert_eq!(stream.data().await.unwrap().unwrap(), "no");
    let reset = std::future::poll_fn(|cx| exchange.body.poll_reset(cx)).await.expect("a reset");
    assert_eq!(reset, Reason::NO_ERROR);
}

#[tokio::test]
async fn bodies_that_lie_about_their_length_are_refused() {
    let (upstream, proxy) = pair(Behaviour::echo()).await;
    let client = H2Client::connect(&proxy.address()).await;
    for body in [&b"four"[..], b"sixsix"] {
        let mut exchange =
            client.begin(request("POST", "/").header("content-length", "5").body(()).unwrap(), false).await;
        exchange.body.send_data(Bytes::copy_from_slice(body), true).unwrap();
        let error = exchange.response().await.expect_err("a lie");
        assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{error:?}");
    }
    upstream.all_closed().await;
    assert!(upstream.requests().iter().all(|request| !request.complete), "half a body looks whole to nobody");
}

#[tokio::test]
async fn bodies_over_the_limit_are_413() {
    let upstream = Upstream::start(Behaviour::echo()).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("max_body = \"1KiB\"")).await;
    let client = H2Client::connect(&proxy.address()).await;
    let response = client.ask(request("POST", "/").body(()).unwrap(), Some(&[b'a'; 2048])).await;
    assert_eq!(response.status, 413);
}

/// A client that opens its window only by a little gets only that much, the upstream is not read further ahead than the buffers are
/// large, and other streams go on.
#[tokio::test]
async fn a_client_that_does_not_read_costs_bounded_memory() {
    const HUGE: u64 = 256 * 1024 * 1024;
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let process = Process::start(|c| c.web(&[&upstream.address()], &[]).set("runtime", "workers = 1")).await;
    let mut builder = Builder::new();
    builder.initial_window_size(64 * 1024).initial_connection_window_size(16 * 1024 * 1024);
    let client = H2Client::connect_with(&process.address(), &builder).await;
    assert_eq!(client.get("/").await.text(), "v1");
    let before = process.rss();
    let mut stuck = Vec::new();
    for chunked in [true, false].repeat(10) {
        upstream.next([Behaviour::huge(HUGE, chunked)]);
        let mut exchange = client.begin(get("/"), true).await;
        stuck.push(exchange.head().await.expect("a response"));
    }
    quiet(Duration::from_millis(300), "they are stuck", std::future::pending::<()>()).await;
    assert_eq!(client.get("/").await.text(), "v1", "others are not");
    let grown = process.rss().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes for {} streams", stuck.len());
}

/// The same where only the socket holds the connection up, because all windows are as large as they can be.
#[tokio::test]
async fn windows_without_end_cost_bounded_memory() {
    const STREAMS: u32 = 100;
    const CONNECTIONS: usize = 3;
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let process = Process::start(|c| c.web(&[&upstream.address()], &[]).set("runtime", "workers = 1")).await;
    let fields: [Pair<'_>; 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")];
    assert_eq!(H2Client::connect(&process.address()).await.get("/").await.text(), "v1");
    let before = process.rss();
    upstream.behave(Behaviour::huge(256 * 1024, true));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = RawH2::connect(&process.address()).await;
        // At once: who does not read is not read from either, so what came later could wait for ever.
        let mut bytes = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes()));
        bytes.extend((0..STREAMS).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &block(&fields))));
        client.send(&bytes).await;
        clients.push(client);
    }
    until("all requests", || upstream.arrived() > STREAMS as usize * CONNECTIONS).await;
    quiet(Duration::from_millis(500), "they are stuck", std::future::pending::<()>()).await;
    let grown = process.rss().saturating_sub(before);
    assert!(grown < 30 * 1024 * 1024, "{grown} bytes for {CONNECTIONS} connections");
}

/// An upload goes no faster than the upstream reads: the client's window is not opened again before.
#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let (_upstream, proxy) = pair(Behaviour::stall()).await;
    let client = H2Client::connect(&proxy.address()).await;
    let mut exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
    let mut sent = 0_usize;
    let mut send = async || {
        exchange.body.reserve_capacity(16 * 1024);
        let granted = std::future::poll_fn(|cx| exchange.body.poll_capacity(cx)).await.unwrap().unwrap();
        exchange.body.send_data(vec![b'a'; granted].into(), false).unwrap();
        granted
    };
    while let Ok(granted) = tokio::time::timeout(Duration::from_millis(300), send()).await {
        sent += granted;
        assert!(sent < 64 * 1024 * 1024, "the window opens for ever");
    }
    assert!(sent >= 64 * 1024, "{sent}");
}

/// Streams opened and reset as fast as the client can (CVE-2023-44487) end the connection, and cost the upstream next to nothing.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut bytes = Vec::new();
    for n in 0..2_000_u32 {
        let id = (2 * n + 1).to_be_bytes();
        bytes.extend_from_slice(b"\0\0\x06\x01\x05");
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(b"\x82\x86\x84\x41\x01a\0\0\x04\x03\0");
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&[0, 0, 0, 8]);
    }
    let seen = raw(&proxy.address(), &bytes, None, &[b"too_many_resets"]).await;
    assert!(seen.ends_with(b"too_many_resets"), "{}", seen.escape_ascii());
    assert!(upstream.arrived() < 200, "{} of 2000 got through", upstream.arrived());
    until("the upstream to be left alone", || upstream.open() <= 2).await;
    let next = eventually(Duration::from_secs(5), "others to be served", || async {
        Some(H2Client::connect(&proxy.address()).await.get("/").await.status)
    });
    assert_eq!(next.await, 200);
}
