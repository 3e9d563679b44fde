//! Every behaviour of the upstream, seen by the client directly: what a test relies on has to be true without the proxy.

use std::time::Duration;

use super::super::client::{Client, WebSocket};
use super::super::pattern;
use super::super::soak;
use super::super::tls::Authority;
use super::super::wait::quiet;
use super::super::websocket::{BINARY, Frame, PING, PONG, Side};
use super::super::wire::{Fault, Framing};
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SHORT: Duration = Duration::from_millis(30);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

async fn pair(behaviour: Behaviour) -> (Upstream, Client) {
    let upstream = Upstream::start(behaviour).await;
    let client = Client::connect(&upstream.address()).await;
    (upstream, client)
}

#[tokio::test]
async fn answers_versions_and_echoes_on_one_connection() {
    let (upstream, mut client) = pair(Behaviour::version("v2")).await;
    upstream.next([Behaviour::answer(201, &["X-A: b"], "made"), Behaviour::echo()]);
    client.send(GET).await;
    let made = client.response().await;
    assert_eq!((made.status, made.text(), made.get("x-a")), (201, "made", Some("b")));
    let post = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    client.send(post).await;
    assert_eq!(client.response().await.text(), post);
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.try_response("HEAD").await.unwrap();
    assert_eq!((head.version(), head.body.length, head.framing), ("v2", 0, Framing::None));

    let (first, second, third) = (upstream.request().await, upstream.request().await, upstream.request().await);
    assert_eq!((first.connection, first.number, second.number, third.number), (0, 0, 1, 2));
    assert_eq!((second.head.line.as_str(), second.body.text(), second.complete), ("POST /p HTTP/1.1", "abc", true));
    assert_eq!(second.body.digest, ring::digest::digest(&ring::digest::SHA256, b"abc").as_ref());
    assert_eq!((upstream.accepted(), upstream.arrived(), upstream.open()), (1, 3, 1));
    drop(client);
    upstream.all_closed().await;
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn hangs_and_stalls() {
    let (upstream, mut client) = pair(Behaviour::hang()).await;
    client.send(GET).await;
    upstream.request().await;
    quiet(SHORT, "a hanging upstream is silent", client.any_head()).await;
    drop(client);
    upstream.all_closed().await;

    upstream.behave(Behaviour::stall());
    let mut client = Client::connect(&upstream.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(upstream.head().await.line, "GET / HTTP/1.1");
    assert_eq!(upstream.head().await.line, "POST / HTTP/1.1");
    quiet(SHORT, "a stalled upstream reads no body", upstream.request()).await;
}

#[tokio::test]
async fn drips_without_a_loss() {
    let (_upstream, mut client) = pair(Behaviour::drip(ANSWER, 1, Duration::from_micros(100))).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn resets_and_closes_at_every_offset() {
    let (upstream, _) = pair(Behaviour::echo()).await;
    for n in 0..ANSWER.len() {
        upstream.behave(Behaviour::reset_after(n, ANSWER));
        let mut client = Client::connect(&upstream.address()).await;
        client.send(GET).await;
        assert!(
            matches!(client.try_response("GET").await, Err(Fault::Io(e)) if e.kind() == std::io::ErrorKind::ConnectionReset)
        );

        upstream.behave(Behaviour::close_after(n, ANSWER));
        let mut client = Client::connect(&upstream.address()).await;
        client.send(GET).await;
        assert!(matches!(client.try_response("GET").await, Err(Fault::Eof(_))));
    }
}

#[tokio::test]
async fn lies_garbage_and_two_responses() {
    let (upstream, mut client) =
        pair(Behaviour::close_after(40, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")).await;
    client.send(GET).await;
    assert!(matches!(client.try_response("GET").await, Err(Fault::Eof("within a body"))));

    upstream.behave(Behaviour::raw("\x16\x03\x01 garbage\r\n\r\n"));
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    assert!(matches!(client.try_response("GET").await, Err(Fault::Malformed(_))));

    upstream.behave(Behaviour::raw([ANSWER, ANSWER].concat()));
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hello");
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn answers_early_and_then_reads_on() {
    let (upstream, mut client) = pair(Behaviour::early(413, "no")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(client.response().await.status, 413);
    client.send("late").await;
    assert_eq!(upstream.request().await.body.text(), "late");
    client.send(GET).await;
    assert_eq!(client.response().await.status, 413);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await;
    client.response().await;
    client.reset();
    upstream.request().await;
    let cut = upstream.request().await;
    assert_eq!((cut.complete, cut.body.length), (false, 2));
}

#[tokio::test]
async fn chunks_trailers_and_interim_responses() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    let (upstream, mut client) = pair(Behaviour::raw(text)).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send_chunk(b"one").await;
    client.send("3\r\ntwo\r\n0\r\nX-End: yes\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.text(), response.framing), ("abcde", Framing::Chunked));
    assert_eq!(response.body.trailers, [("X-Sum".to_owned(), "5".to_owned())]);
    assert_eq!(
        response.interim.iter().map(|h| h.line.as_str()).collect::<Vec<_>>(),
        ["HTTP/1.1 103 Early Hints", "HTTP/1.1 100 Continue"]
    );
    let request = upstream.requests().remove(0);
    assert_eq!((request.body.text(), request.body.trailers[0].1.as_str()), ("onetwo", "yes"));
}

#[tokio::test]
async fn says_continue_before_it_reads_a_body() {
    let go = Act::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let (_upstream, mut client) =
        pair(Behaviour::script([Act::Pause(SHORT), go, read_body(), answer(204, &[], "")])).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.any_head().await.line, "HTTP/1.1 100 Continue");
    client.send("ok").await;
    assert_eq!(client.response().await.status, 204);
}

#[tokio::test]
async fn feeds_server_sent_events() {
    let (behaviour, feed) = Behaviour::sse();
    let (_upstream, mut client) = pair(behaviour).await;
    client.send(GET).await;
    assert_eq!(client.head().await.get("content-type"), Some("text/event-stream"));
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        feed.send(event.into()).await.unwrap();
        assert_eq!(client.chunk().await.as_deref(), Some(event.as_bytes()));
    }
    drop(feed);
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn echoes_websocket_frames() {
    let upstream = Upstream::start(Behaviour::websocket()).await;
    let mut socket = WebSocket::open(&upstream.address(), "/ws", "X-A: b\r\n").await.ok().unwrap();
    assert_eq!(upstream.request().await.head.get("x-a"), Some("b"));
    assert!(socket.opened.get("sec-websocket-accept").is_some());
    socket.echo("hello").await;
    let big = Frame::new(BINARY, vec![7; 70_000]);
    socket.send(big.clone()).await;
    assert_eq!(socket.receive().await, Some(big));
    let ping = Frame::new(PING, "p").encode(Side::Client);
    socket.send_raw(&ping[..3]).await;
    socket.send_raw(&ping[3..]).await;
    assert_eq!(socket.receive().await, Some(Frame::new(PONG, "p")));
    socket.close().await;

    upstream.behave(Behaviour::answer(403, &[], "no"));
    let refused = WebSocket::open(&upstream.address(), "/ws", "").await.err().unwrap();
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn huge_bodies_both_ways_without_memory() {
    let bytes = pattern::BLOCK_BYTES * if soak() { 1_000 } else { 3 } + 11;
    for chunked in [false, true] {
        let (_upstream, mut client) = pair(Behaviour::huge(bytes, chunked)).await;
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!((response.body.length, response.body.digest), (bytes, pattern::digest(bytes)));
    }
    let (upstream, mut client) = pair(Behaviour::slow_reader(50_000, Duration::from_micros(100))).await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n")).await;
    client.send_pattern(bytes).await.unwrap();
    assert_eq!(client.response().await.text(), "read");
    let request = upstream.request().await;
    assert_eq!((request.body.length, request.body.digest), (bytes, pattern::digest(bytes)));
}

#[tokio::test]
async fn stops_and_starts_again_on_the_same_port() {
    let (mut upstream, mut client) = pair(Behaviour::version("v1")).await;
    client.send(GET).await;
    client.response().await;
    upstream.stop().await;
    client.expect_close().await;
    assert!(Client::try_connect(&upstream.address()).await.is_err());
    upstream.restart().await;
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    assert_eq!(client.response().await.version(), "v1");
}

#[tokio::test]
async fn serves_over_tls() {
    let authority = Authority::new();
    let identity = authority.issue(&["web.test"]);
    let upstream = Upstream::start_tls(Behaviour::close_after(ANSWER.len(), ANSWER), &identity).await;
    let (mut client, shown) =
        Client::connect_tls(&upstream.address(), "web.test", authority.client_config()).await.unwrap();
    assert_eq!(shown, identity.der().as_ref());
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "hello");
    client.expect_fin().await;
    assert!(Client::connect_tls(&upstream.address(), "other.test", authority.client_config()).await.is_err());
    assert!(Client::connect_tls(&upstream.address(), "web.test", Authority::new().client_config()).await.is_err());
}

#[tokio::test]
async fn remembers_what_no_client_may_send() {
    let bad = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;ext\r\nx\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: ",
    ];
    for bytes in bad {
        let (upstream, mut client) = pair(Behaviour::echo()).await;
        client.send_split(bytes.as_bytes(), 7).await;
        client.half_close().await;
        client.rest().await;
        assert_eq!(upstream.violations().len(), 1, "{bytes:?}");
    }
}
