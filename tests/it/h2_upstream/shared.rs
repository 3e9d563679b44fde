//! What one request does to the others on its session: nothing.

use std::time::Duration;

use ::h2::client::Builder;

use super::{MIB, asking, get, http2};
use crate::harness::client::Client;
use crate::harness::h2::{self, Exchange, H2Client};
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::frames::{DATA, END_HEADERS, FrameServer, Frames, HEADERS, PING, RST_STREAM, block};
use crate::harness::wait::{eventually, within};

/// Receive window of a stream to an upstream, in bytes.
const WINDOW: usize = 128 * 1024;

async fn begin_answer(frames: &mut Frames, stream: u32) {
    frames.send(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")])).await;
}

/// A client that takes one byte of each answer.
async fn slow_client(address: &str) -> H2Client {
    let mut builder = Builder::new();
    builder.initial_window_size(1);
    H2Client::connect_with(address, &builder).await
}

/// Begins so many requests and has `answer` answer each; then another one on the same session gets through.
async fn stall(
    client: &H2Client,
    server: &FrameServer,
    count: usize,
    answer: impl AsyncFn(&mut Frames, u32),
) -> Vec<Exchange> {
    let mut stuck = Vec::new();
    for _ in 0..count {
        stuck.push(client.begin(h2::get("/"), true).await);
    }
    let mut frames = server.accept().await;
    for stream in frames.requests(count).await {
        begin_answer(&mut frames, stream).await;
        answer(&mut frames, stream).await;
    }
    for exchange in &mut stuck {
        exchange.head().await.expect("a head");
    }
    let (response, ()) = tokio::join!(client.get("/"), async {
        let stream = frames.requests(1).await[0];
        frames.answer(stream, b"x").await;
    });
    assert_eq!((response.status, response.text()), (200, "x"));
    stuck
}

/// Clients that do not read hold up neither the proxy's memory nor the other streams of their session.
#[tokio::test]
async fn slow_readers_cost_bounded_memory_and_hold_up_nobody() {
    const STREAMS: usize = 90;
    const FRAME: usize = 16 * 1024;
    let server = FrameServer::start().await;
    let proxy = Process::start(|c| http2(c, &server.address())).await;
    let client = slow_client(&proxy.address()).await;
    let before = proxy.rss();
    let all = async |frames: &mut Frames, stream| {
        frames.send_many(WINDOW / FRAME, DATA, 0, stream, &[b'a'; FRAME]).await;
    };
    let stuck = stall(&client, &server, STREAMS, all).await;
    let growth = proxy.rss().saturating_sub(before);
    assert!(growth < 32 * MIB, "{growth} bytes more than before, for {} streams", stuck.len());
}

/// What small frames cost beside their payload ends a window, not the session.
#[tokio::test]
async fn small_frames_nobody_reads_cut_nobody() {
    const EACH: usize = 20;
    const STREAMS: usize = 8;
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let client = slow_client(&proxy.address()).await;
    let all = async |frames: &mut Frames, stream| {
        frames.send_many(WINDOW / EACH, DATA, 0, stream, &[b'a'; EACH]).await;
    };
    let _stuck = stall(&client, &server, STREAMS, all).await;
    assert_eq!(proxy.admin.count("tidegate_upstream_h2_streams").await, STREAMS as u64, "nobody was cut");
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
}

/// What was under way to streams that were cancelled is no mistake of anybody.
#[tokio::test]
async fn late_frames_of_cancelled_streams_cut_nobody() {
    const ROUNDS: usize = 25;
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let clients = asking(&proxy, 100, &get("/")).await;
    let mut frames = server.accept().await;
    let streams = frames.requests(100).await;
    clients.into_iter().for_each(Client::reset);
    for _ in &streams {
        frames.next(RST_STREAM).await.expect("a stream cancelled");
    }
    // The library counts a stream at most once before it has said so.
    for _ in 0..ROUNDS {
        for &stream in &streams {
            frames.send(DATA, 0, stream, b"late").await;
        }
        frames.send(PING, 0, 0, &[0; 8]).await;
        frames.next(PING).await.expect("its answer");
    }
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let stream = frames.requests(1).await[0];
    frames.answer(stream, b"on the same session").await;
    assert_eq!(client.response().await.text(), "on the same session");
}

/// The library ends a connection at the 101st empty DATA frame, whoever sent the others: that is nobody's failure.
#[tokio::test]
async fn a_session_our_library_ends_is_not_charged() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let mut clients = asking(&proxy, 2, &get("/")).await;
    let mut frames = server.accept().await;
    let streams = frames.requests(2).await;
    begin_answer(&mut frames, streams[0]).await;
    frames.send_many(101, DATA, 0, streams[0], &[]).await;
    let (mut cut, mut refused) = (0, 0);
    for client in &mut clients {
        match within("an answer or its end", client.try_response("GET")).await {
            Ok(response) => {
                assert_eq!(response.status, 502);
                refused += 1;
            }
            Err(_) => cut += 1,
        }
    }
    assert_eq!((cut, refused), (1, 1));
    // A client may have its answer a moment before the request is over for the proxy.
    eventually(Duration::from_secs(5), "both to be counted", || async {
        (proxy.admin.metric("tidegate_terminations_total", &["code=\"PS\""]).await > 1.5).then_some(())
    })
    .await;
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
}
