//! Bodies of every framing and size, both ways: nothing lost, nothing added, nothing held back, memory flat.

use std::time::Duration;

use crate::harness::client::Client;
use crate::harness::pattern;
use crate::harness::proxy::{Process, Proxy};
use crate::harness::soak;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{quiet, within, within_time};
use crate::harness::wire::Framing;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const MIB: u64 = 1024 * 1024;
/// Memory the proxy may take on while a body passes, in bytes: buffers of two connections and noise of the allocator.
const GROWTH_BYTES_MAX: u64 = 8 * MIB;
/// Longest time for the largest body.
const TRANSFER_MAX: Duration = Duration::from_secs(600);

async fn pair(behaviour: Behaviour) -> (Upstream, Proxy) {
    let upstream = Upstream::start(behaviour).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    (upstream, proxy)
}

#[tokio::test]
async fn lengths_and_chunks_pass_split_at_any_place() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789";
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\n012\r\n007\r\n3456789\r\n0\r\n\r\n";
    for seed in 0..10 {
        for request in [length, chunked] {
            let mut client = proxy.client().await;
            client.send_split(request.as_bytes(), seed).await;
            client.response().await;
            let seen = upstream.request().await;
            assert_eq!((seen.body.text(), seen.complete), ("0123456789", true), "split {seed} of {request:?}");
        }
    }
    // The upstream's own parser refuses chunk extensions and padded sizes: what it saw was rebuilt.
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn responses_of_every_framing() {
    let (upstream, proxy) =
        pair(Behaviour::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "abcd");
    upstream.behave(Behaviour::close_after(23, b"HTTP/1.1 200 OK\r\n\r\nabcd"));
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!(
        (response.text(), response.framing),
        ("abcd", Framing::Chunked),
        "an end by close becomes an end the client can see"
    );
    upstream.behave(Behaviour::answer(200, &[], ""));
    client.send(GET).await;
    assert_eq!(client.response().await.framing, Framing::Length(0));
}

#[tokio::test]
async fn trailers_pass_by_the_allow_list_only() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n1\r\na\r\n0\r\ngrpc-status: 0\r\nContent-Length: 5\r\n\r\n";
    let (_upstream, proxy) = pair(Behaviour::raw(text)).await;
    let response = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    assert_eq!(response.body.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
}

#[tokio::test]
async fn events_are_not_held_back() {
    let (behaviour, feed) = Behaviour::sse();
    let (_upstream, proxy) = pair(behaviour).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    client.head().await;
    for n in 0..20 {
        let event = format!("data: {n}\n\n").into_bytes();
        feed.send(event.clone()).await.unwrap();
        assert_eq!(client.chunk().await, Some(event));
    }
    drop(feed);
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn a_request_body_streams_before_its_end() {
    let (upstream, proxy) = pair(Behaviour::early(200, "early")).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send_chunk(b"first").await;
    upstream.head().await;
    assert_eq!(client.response().await.text(), "early", "an early response does not wait for the upload");
}

#[tokio::test]
async fn a_stalled_reader_stalls_the_writer() {
    let (_upstream, proxy) = pair(Behaviour::stall()).await;
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1024 * MIB)).await;
    quiet(Duration::from_millis(500), "backpressure", client.send_pattern(256 * MIB)).await;
}

#[tokio::test]
async fn a_client_that_uploads_half_a_body_leaves_no_whole_request_behind() {
    for head in ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let (upstream, proxy) = pair(Behaviour::version("v1")).await;
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
        upstream.head().await;
        client.reset();
        let seen = upstream.request().await;
        assert_eq!((seen.complete, seen.body.text()), (false, "half"));
        upstream.all_closed().await;
    }
}

#[tokio::test]
async fn a_silent_body_is_cut() {
    let upstream = Upstream::start(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")).await;
    let proxy = Proxy::start(|c| {
        c.web(&[&upstream.address()], &[])
            .set("services.web.upstream", "body_idle = \"200ms\"")
            .limits("body_idle = \"200ms\"")
    })
    .await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    assert!(within("a cut", client.try_response("GET")).await.is_err(), "a body that is not whole must not look whole");

    upstream.behave(Behaviour::version("v1"));
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response().await.status, 408);
    client.expect_close().await;
}

/// 1 GiB both ways; 10 GiB in the long version.
#[tokio::test]
async fn huge_bodies_leave_memory_flat() {
    let bytes = if soak() { 10 * 1024 * MIB } else { 1024 * MIB };
    let upstream = Upstream::start(Behaviour::huge(16 * MIB, false)).await;
    let proxy = Process::start(|c| c.web(&[&upstream.address()], &[])).await;
    assert_eq!(proxy.ask(GET).await.body.length, 16 * MIB, "buffers have their size from here on");
    let before = proxy.rss();
    let expected = pattern::digest(bytes);
    for chunked in [false, true] {
        upstream.behave(Behaviour::huge(bytes, chunked));
        let mut client: Client = proxy.client().await;
        client.send(GET).await;
        let response = within_time(TRANSFER_MAX, "a huge response", client.try_response("GET")).await.unwrap();
        assert_eq!((response.body.length, &response.body.digest), (bytes, &expected));
    }
    upstream.behave(Behaviour::version("v1"));
    upstream.requests();
    let mut client: Client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n")).await;
    within_time(TRANSFER_MAX, "a huge upload", client.send_pattern(bytes)).await.unwrap();
    assert_eq!(client.response().await.version(), "v1");
    assert_eq!(upstream.request().await.body.digest, expected);
    let growth = proxy.rss().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more than before");
}
