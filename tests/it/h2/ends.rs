//! How connections and requests end, frame by frame.

use h2::Reason;

use crate::harness::h2::{H2Client, get, request};
use crate::harness::h2_raw::{End, Pair, RawH2};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::frames::{END_HEADERS, FrameServer, Frames, HEADERS, RST_STREAM, block};
use crate::harness::upstream::{Behaviour, Upstream};

/// What GOAWAY names while every stream may still be served.
const EVERY_STREAM: u32 = 0x7fff_ffff;
const GET: [Pair<'_>; 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")];

#[tokio::test]
async fn goaway_comes_in_two_steps() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("h2 = { max_requests = 2 }")).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    for stream in [1, 3] {
        assert_eq!(client.goaways, []);
        client.head(stream, &GET, true).await;
        assert_eq!(client.end(stream).await, End::Response(200, b"v1".to_vec()));
    }
    assert_eq!(client.end(5).await, End::Closed);
    assert_eq!(client.goaways, [(EVERY_STREAM, 0), (3, 0)]);
    let ended = proxy.admin.metric("tidegate_http2_goaways_sent_total", &["code=\"NO_ERROR\""]).await;
    assert!((ended - 1.0).abs() < f64::EPSILON, "{ended} connections ended");
}

/// The code of the next reset, and the stream it ends.
async fn reset(frames: &mut Frames) -> (u32, Vec<u8>) {
    let frame = frames.next(RST_STREAM).await.expect("a reset before the end");
    (frame.stream, frame.payload)
}

#[tokio::test]
async fn what_a_client_aborts_is_cancelled_upstream() {
    let cancel = 8_u32.to_be_bytes().to_vec();
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| {
        c.web(&[&server.address()], &[])
            .set("services.web.upstream", "protocol = \"http2\"")
            .set("runtime", "workers = 1")
    })
    .await;
    let client = H2Client::connect(&proxy.address()).await;
    // Before the head of its response.
    let exchange = client.begin(get("/"), true).await;
    let mut frames = server.accept().await;
    let stream = frames.next(HEADERS).await.expect("a request").stream;
    exchange.reset(Reason::CANCEL);
    assert_eq!(reset(&mut frames).await, (stream, cancel.clone()));
    // Within its own body.
    let exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
    let stream = frames.next(HEADERS).await.expect("a request").stream;
    exchange.reset(Reason::CANCEL);
    assert_eq!(reset(&mut frames).await, (stream, cancel.clone()));
    // Within the body of its response.
    let mut exchange = client.begin(get("/"), true).await;
    let stream = frames.next(HEADERS).await.expect("a request").stream;
    frames.send(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")])).await;
    assert_eq!(exchange.head().await.expect("a head").status(), 200);
    exchange.reset(Reason::CANCEL);
    assert_eq!(reset(&mut frames).await, (stream, cancel));
}
