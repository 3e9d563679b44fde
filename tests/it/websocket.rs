//! `WebSocket`s through the proxy: the handshake checked, frames both ways, ends passed on, streams that outlive what changes around them.

use std::time::Duration;

use crate::harness::client::WebSocket;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::websocket::{BINARY, Frame, KEY, PING, PONG, Side};

async fn pair(upstream_lines: &str) -> (Upstream, Proxy) {
    let upstream = Upstream::start(Behaviour::websocket()).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("services.web.upstream", upstream_lines)).await;
    (upstream, proxy)
}

async fn open(proxy: &Proxy) -> WebSocket {
    WebSocket::open(&proxy.address(), "/ws", "")
        .await
        .unwrap_or_else(|refused| panic!("refused with {}", refused.status))
}

#[tokio::test]
async fn frames_pass_both_ways_in_any_pieces() {
    let (upstream, proxy) = pair("").await;
    let mut socket = open(&proxy).await;
    let head = upstream.request().await.head;
    assert_eq!((head.get("sec-websocket-key"), head.get("sec-websocket-version")), (Some(KEY), Some("13")));
    socket.echo("hello").await;
    for size in [0, 125, 126, 65_535, 65_536, 1_000_000] {
        let frame = Frame::new(BINARY, vec![9; size]);
        socket.send(frame.clone()).await;
        assert_eq!(socket.receive().await, Some(frame), "{size} bytes");
    }
    for byte in Frame::new(PING, "p").encode(Side::Client) {
        socket.send_raw(&[byte]).await;
    }
    assert_eq!(socket.receive().await, Some(Frame::new(PONG, "p")));
    socket.close().await;
    upstream.all_closed().await;
}

#[tokio::test]
async fn an_incomplete_handshake_is_not_an_upgrade() {
    let (upstream, proxy) = pair("").await;
    upstream.behave(Behaviour::version("v1"));
    let incomplete = [
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
    ];
    for fields in incomplete {
        let response = proxy.ask(format!("GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_ne!(response.status, 101, "{fields:?}");
    }
    for request in upstream.requests() {
        assert_eq!((request.head.get("upgrade"), request.head.lists("connection", "upgrade")), (None, false));
    }
}

#[tokio::test]
async fn a_refused_handshake_is_passed_on() {
    let (upstream, proxy) = pair("").await;
    upstream.behave(Behaviour::answer(403, &[], "no"));
    let refused = WebSocket::open(&proxy.address(), "/ws", "").await.err().unwrap();
    assert_eq!((refused.status, refused.text()), (403, "no"));
}

#[tokio::test]
async fn the_end_of_one_side_ends_the_other() {
    let (mut upstream, proxy) = pair("").await;
    let mut socket = open(&proxy).await;
    socket.echo("a").await;
    upstream.stop().await;
    while socket.try_receive().await.is_ok_and(|frame| frame.is_some()) {}
    upstream.restart().await;
    let mut socket = open(&proxy).await;
    socket.echo("b").await;
    drop(socket);
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_silent_stream_is_closed() {
    let upstream = Upstream::start(Behaviour::websocket()).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("websocket_idle = \"300ms\"")).await;
    let mut socket = open(&proxy).await;
    socket.echo("a").await;
    while crate::harness::wait::within("the end", socket.try_receive()).await.is_ok_and(|frame| frame.is_some()) {}
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_removed_endpoint_ends_its_streams_with_1001() {
    let (upstream, proxy) = pair("websocket_drain = \"200ms\"").await;
    let other = Upstream::start(Behaviour::websocket()).await;
    let mut socket = open(&proxy).await;
    socket.echo("a").await;
    let lines = "websocket_drain = \"200ms\"";
    proxy.reload_ok(&proxy.base.clone().web(&[&other.address()], &[]).set("services.web.upstream", lines)).await;
    assert_eq!(socket.receive().await.and_then(|frame| frame.close_code()), Some(1001));
    upstream.all_closed().await;
    open(&proxy).await.echo("b").await;
}

#[tokio::test]
async fn an_abort_leaves_streams_until_their_drain_and_then_says_1001() {
    let (stable, candidate) =
        (Upstream::start(Behaviour::websocket()).await, Upstream::start(Behaviour::websocket()).await);
    let proxy = Proxy::start(|c| {
        c.web(&[&stable.address()], &[&candidate.address()]).set("services.web.upstream", "websocket_drain = \"300ms\"")
    })
    .await;
    proxy.admin.weight("web", "100%").await;
    let mut socket = open(&proxy).await;
    assert_eq!((candidate.open(), stable.open()), (1, 0));
    proxy.admin.abort("web").await;
    socket.echo("still here").await;
    assert_eq!(socket.receive().await.and_then(|frame| frame.close_code()), Some(1001));
    let bound = Duration::from_secs(5);
    crate::harness::wait::within_time(bound, "the candidate to be free", candidate.all_closed()).await;
}
