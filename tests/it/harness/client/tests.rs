//! The client against scripted upstreams: it must see every failure and call nothing a failure that is none.

use std::sync::Arc;

use super::super::files::TempDir;
use super::super::upstream::{Act, Behaviour, Upstream, read_body};
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn refuses_what_is_not_a_response() {
    let bad = [
        "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    ];
    for text in bad {
        let upstream = Upstream::start(Behaviour::close_after(text.len(), text.as_bytes())).await;
        let mut client = Client::connect(&upstream.address()).await;
        client.send(GET).await;
        assert!(matches!(client.try_response("GET").await, Err(Fault::Malformed(_))), "{text:?}");
    }
}

#[tokio::test]
async fn reads_until_close_and_notices_what_follows_a_response() {
    let upstream = Upstream::start(Behaviour::close_after(22, b"HTTP/1.0 200 OK\r\n\r\nabc")).await;
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.text(), response.keeps()), ("abc", false));

    upstream.behave(Behaviour::raw("HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\nextra"));
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    assert_eq!(client.response().await.set_cookie(), Some("a=b"));
    client.half_close().await;
    assert_eq!(client.rest().await, b"extra");
}

#[tokio::test]
#[should_panic(expected = "the end was expected")]
async fn an_end_with_bytes_before_it_is_not_accepted() {
    let upstream = Upstream::start(Behaviour::close_after(1, b"x")).await;
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    client.expect_close().await;
}

#[tokio::test]
#[should_panic(expected = "an orderly end was expected")]
async fn a_reset_is_not_an_orderly_end() {
    let upstream = Upstream::start(Behaviour::script([read_body(), Act::Reset])).await;
    let mut client = Client::connect(&upstream.address()).await;
    client.send(GET).await;
    client.expect_fin().await;
}

#[tokio::test]
async fn splits_lose_nothing() {
    let upstream = Upstream::start(Behaviour::echo()).await;
    let request = "POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n0123456789";
    for seed in 0..20 {
        let mut client = Client::connect(&upstream.address()).await;
        client.send_split(request.as_bytes(), seed).await;
        assert_eq!(client.response().await.text(), request, "seed {seed}");
    }
}

#[tokio::test]
async fn comes_from_other_addresses_and_over_unix_sockets() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let mut client = Client::connect_from("127.0.0.9", &upstream.address()).await;
    client.send(GET).await;
    assert_eq!(client.slow_response(1, Duration::from_micros(10)).await.unwrap().text(), "v1");

    let dir = TempDir::new();
    let path = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&format!("unix:{}", path.display())).await;
    client.send("ping").await;
    let mut peer = Wire::new(listener.accept().await.unwrap().0);
    assert_eq!(peer.read_exact(4).await.unwrap(), b"ping");
    drop(peer);
    client.expect_close().await;
}

#[tokio::test]
async fn a_session_never_retries_and_remembers() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let mut session = Session::new(&upstream.address()).with("X-User: 7\r\n");
    assert_eq!(session.get("/a").await.version(), "v1");
    assert_eq!(upstream.request().await.head.get("x-user"), Some("7"));
    assert!(session.connected());

    // Announced: the next request takes a new connection, and nothing has failed.
    upstream.next([Behaviour::script([
        read_body(),
        Act::Write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Act::Close,
    ])]);
    session.get("/b").await;
    assert!(!session.connected());
    session.get("/c").await;
    assert_eq!((session.failures().0, upstream.accepted()), (0, 2));

    // Not announced: a failure, and the request came once.
    upstream.next([Behaviour::script([read_body(), Act::Close])]);
    assert!(session.try_get("/d").await.is_err());
    session.get("/e").await;
    assert_eq!((session.failures().0, upstream.arrived()), (1, 5));
    assert!(session.failures().1[0].contains("request 4"));
}

#[tokio::test]
async fn a_load_counts() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    upstream.next((0..30).map(|_| Behaviour::version("v2")));
    let tally: Tally = Load::run(&upstream.address(), &Plan::of(4, 100)).await;
    tally.assert_clean();
    assert_eq!((tally.responses, tally.of("v1"), tally.of("v2"), upstream.accepted()), (100, 70, 30, 4));
    assert!(tally.slowest > Duration::ZERO);

    let load = Load::start(&upstream.address(), &Plan { pace: Duration::from_micros(50), ..Plan::default() });
    load.progress(50).await;
    let responses = load.responses();
    let tally = load.stop().await;
    assert!(tally.responses >= responses && tally.responses >= 50);
    tally.assert_clean();
}

#[tokio::test]
async fn a_load_ends_with_the_server_and_tells_failures_from_announced_ends() {
    let bye = Behaviour::answer(200, &["Connection: close"], "bye");
    let upstream = Upstream::start(bye).await;
    let tally = Load::start(&upstream.address(), &Plan { end_on_close: true, ..Plan::default() }).join().await;
    assert_eq!((tally.responses, tally.failed), (8, 0));

    let upstream = Upstream::start(Behaviour::script([read_body(), Act::Close])).await;
    let tally = Load::run(&upstream.address(), &Plan::of(2, 10)).await;
    assert_eq!((tally.responses, tally.failed, tally.failures.len()), (0, 10, 10));

    let mut upstream = Upstream::start(Behaviour::version("v1")).await;
    let load = Load::start(&upstream.address(), &Plan::default());
    load.progress(20).await;
    upstream.stop().await;
    let tally = load.join().await;
    assert!(tally.failed >= 1, "a connection cut or refused is a failure");
}

#[tokio::test]
async fn tls_goes_both_ways() {
    let authority = super::super::tls::Authority::new();
    let upstream = Upstream::start_tls(Behaviour::echo(), &authority.issue(&["127.0.0.1"])).await;
    let config = authority.client_config();
    let (mut client, _) = Client::connect_tls(&upstream.address(), "127.0.0.1", Arc::clone(&config)).await.unwrap();
    client.send(GET).await;
    assert_eq!(client.response().await.text(), GET);
    client.half_close().await;
    client.expect_close().await;
    let dir = TempDir::new();
    let (cert, key) = authority.issue(&["a.test"]).write(&dir, "a");
    for pem in [authority.pem(), std::fs::read_to_string(cert).unwrap()] {
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    }
    assert!(std::fs::read_to_string(key).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
}
