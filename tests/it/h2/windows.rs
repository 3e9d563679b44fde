//! Windows and resets on a client's connection: what stalls or is late on one stream is felt on no other.

use bytes::Bytes;

use crate::harness::config::Config;
use crate::harness::h2::{Exchange, H2Client, request};
use crate::harness::h2_raw::{DATA, END_HEADERS, END_STREAM, End, HEADERS, RawH2, block};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::frames::{self, FrameServer, WINDOW_UPDATE};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::within;

/// Receive window of a stream, in bytes.
const WINDOW: usize = 64 * 1024;
/// SETTINGS of an upstream that takes no byte of a body unless it says so.
const NOTHING: [u8; 6] = [0, 4, 0, 0, 0, 0];

fn to(server: &FrameServer) -> impl Fn(Config) -> Config {
    let address = server.address();
    move |c| c.web(&[&address], &[]).set("services.web.upstream", "protocol = \"http2\"").set("runtime", "workers = 1")
}

/// Sends `length` bytes as the windows open.
async fn upload(exchange: &mut Exchange, length: usize) {
    let mut left = length;
    while left > 0 {
        exchange.body.reserve_capacity(left);
        let granted = within("a window", std::future::poll_fn(|cx| exchange.body.poll_capacity(cx))).await;
        let granted = granted.expect("an open stream").expect("an open stream").min(left);
        exchange.body.send_data(vec![b'a'; granted].into(), false).expect("an open stream");
        left -= granted;
    }
}

#[tokio::test]
async fn uploads_that_stall_hold_up_no_other() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(to(&server)).await;
    let client = H2Client::connect(&proxy.address()).await;
    let mut stalled = vec![client.begin(request("POST", "/").body(()).unwrap(), false).await];
    let mut frames = server.accept_with(&NOTHING).await;
    upload(&mut stalled[0], WINDOW).await;
    for _ in 0..40 {
        let mut exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
        upload(&mut exchange, WINDOW).await;
        stalled.push(exchange);
    }
    let mut moving = client.begin(request("POST", "/moving").body(()).unwrap(), false).await;
    moving.body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let mut last = 0;
    for _ in 0..=stalled.len() {
        last = frames.next(frames::HEADERS).await.expect("a request").stream;
    }
    frames.send(WINDOW_UPDATE, 0, last, &5_u32.to_be_bytes()).await;
    assert_eq!(frames.next(frames::DATA).await.expect("a body").payload, b"hello");
    frames.answer(last, b"done").await;
    assert_eq!(moving.response().await.expect("an answer").text(), "done");
}

#[tokio::test]
async fn small_frames_nobody_reads_end_no_connection() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(to(&server)).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    let head = |method: &'static [u8]| {
        block(&[(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")])
    };
    client.frame(HEADERS, END_HEADERS, 1, &head(b"POST")).await;
    let mut frames = server.accept_with(&NOTHING).await;
    frames.next(frames::HEADERS).await.expect("a request");
    // All the connection's window that is there without asking, a byte at a time.
    client.send(&crate::harness::h2_raw::frame(DATA, 0, 1, b"a").repeat(WINDOW - 1)).await;
    client.frame(HEADERS, END_HEADERS | END_STREAM, 3, &head(b"GET")).await;
    let stream = frames.next(frames::HEADERS).await.expect("a request").stream;
    // Nor has the window of its own stream been opened, so that no body may come.
    frames.answer(stream, b"on").await;
    assert_eq!(client.end(3).await, End::Response(200, b"on".to_vec()));
}

/// A client learns of a refusal a while after it was made: what it sent meanwhile is no mistake of its own.
#[tokio::test]
async fn late_frames_of_refused_uploads_end_no_connection() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let strict = "h2 = { max_error_resets = 10 }";
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits(strict)).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    let head = |path: &'static [u8]| {
        block(&[(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path)])
    };
    let streams: Vec<u32> = (0..100).map(|n| 2 * n + 1).collect();
    for &stream in &streams {
        client.frame(HEADERS, END_HEADERS, stream, &head(b"/%00")).await;
    }
    for &stream in &streams {
        assert!(matches!(client.end(stream).await, End::Response(400, _)));
    }
    for &stream in &streams {
        client.frame(DATA, 0, stream, b"late").await;
    }
    client.frame(HEADERS, END_HEADERS | END_STREAM, 201, &head(b"/")).await;
    assert_eq!(client.end(201).await, End::Response(200, b"v1".to_vec()));
}
