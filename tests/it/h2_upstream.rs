//! HTTP/2 towards upstreams: many requests on one session, and sessions that end without a request lost.

mod shared;

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::harness::client::Client;
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::pattern;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::upstream::frames::{END_HEADERS, END_STREAM, FrameServer, GOAWAY, HEADERS, block};
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::wait::{eventually, within};
use crate::harness::wire::Framing;

const MIB: u64 = 1024 * 1024;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// One worker, so that everything shares its sessions.
fn http2(config: Config, endpoint: &str) -> Config {
    config.web(&[endpoint], &[]).set("services.web.upstream", "protocol = \"http2\"").set("runtime", "workers = 1")
}

async fn pair(options: Options) -> (H2Server, Proxy) {
    let server = H2Server::start(options).await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    (server, proxy)
}

/// Clients that have sent `request` each.
async fn asking(proxy: &Proxy, count: usize, request: &str) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.client().await;
        client.send(request).await;
        clients.push(client);
    }
    clients
}

async fn all_answered(clients: Vec<Client>, text: &str) {
    for mut client in clients {
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, text));
    }
}

#[tokio::test]
async fn a_request_goes_over_and_comes_back() {
    let (server, proxy) = pair(Options::default()).await;
    let response = proxy.ask("GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\nX-Mixed: V\r\nCookie: a=1\r\n\r\n").await;
    assert_eq!((response.status, response.text(), response.version()), (200, "hello", "h2"));
    assert_eq!(response.framing, Framing::Length(5));
    let seen = server.request().await;
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("GET", "http://shop.test/a?b=c"));
    assert_eq!((seen.fields["x-mixed"].as_bytes(), seen.fields["cookie"].as_bytes()), (&b"V"[..], &b"a=1"[..]));
    assert_eq!(seen.fields["x-forwarded-for"], "127.0.0.1");
    assert!(!seen.fields.contains_key("host") && !seen.fields.contains_key("connection"));
}

#[tokio::test]
async fn a_hundred_requests_share_one_session() {
    let (server, proxy) = pair(Options::default()).await;
    let clients = asking(&proxy, 100, &get("/hold")).await;
    server.has(100).await;
    assert_eq!((server.accepted(), server.most()), (1, 100));
    assert_eq!(proxy.admin.count("tidegate_upstream_h2_streams").await, 100);
    assert_eq!(proxy.admin.count("tidegate_upstream_h2_sessions").await, 1);
    let mut one_more = proxy.client().await;
    one_more.send(get("/hold")).await;
    server.has(101).await;
    assert_eq!(server.accepted(), 2, "the hundred and first has a session of its own");
    server.release();
    all_answered(clients, "hello").await;
    one_more.response().await;
    let mut on: Vec<usize> = server.seen().iter().map(|seen| seen.connection).collect();
    on.sort_unstable();
    assert_eq!((on.len(), on[99], on[100]), (101, 0, 1));
    assert_eq!(proxy.admin.count("tidegate_upstream_h2_streams").await, 0);
}

#[tokio::test]
async fn a_server_of_one_stream_at_a_time_is_given_no_more() {
    let (server, proxy) = pair(Options::streams(1)).await;
    let clients = asking(&proxy, 8, &get("/hold")).await;
    server.has(8).await;
    assert_eq!((server.accepted(), server.most()), (8, 1));
    server.release();
    all_answered(clients, "hello").await;
    proxy.ask(get("/")).await;
    assert_eq!(server.accepted(), 8, "a stream that ended makes room");
}

#[tokio::test]
async fn goodbye_loses_nothing() {
    let (server, proxy) = pair(Options::default()).await;
    let clients = asking(&proxy, 20, &post("/hold", "x")).await;
    server.has(20).await;
    server.go_away();
    // Whatever comes meanwhile finds the session going, or goes on another one.
    let more = asking(&proxy, 20, &post("/hold", "y")).await;
    server.has(40).await;
    server.release();
    all_answered(clients, "hello").await;
    all_answered(more, "hello").await;
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
}

/// Streams above the last one a GOAWAY names were not looked at: they are sent again, POSTs too; those below are finished.
#[tokio::test]
async fn what_goodbye_leaves_out_is_sent_again() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let clients = asking(&proxy, 3, &post("/", "body")).await;
    let mut first = server.accept().await;
    assert_eq!(first.requests(3).await, [1, 3, 5]);
    first.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    let mut second = server.accept().await;
    for stream in second.requests(2).await {
        second.answer(stream, b"again").await;
    }
    first.answer(1, b"finished").await;
    let mut texts = Vec::new();
    for mut client in clients {
        texts.push(client.response().await.text().to_owned());
    }
    texts.sort_unstable();
    assert_eq!(texts, ["again", "again", "finished"]);
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
    assert_eq!(proxy.admin.count("tidegate_stale_replays_total").await, 2);
}

#[tokio::test]
async fn refused_streams_are_sent_again_once() {
    let (server, proxy) = pair(Options::default()).await;
    server.refuse(1);
    let response = proxy.ask(post("/refuse", "once more")).await;
    assert_eq!((response.status, server.arrived()), (200, 2));
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
    server.refuse(usize::MAX);
    let response = proxy.ask(post("/refuse", "and again")).await;
    assert_eq!((response.status, server.arrived()), (502, 4), "one replay and no more");
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 1);
    assert_eq!(server.accepted(), 1, "the session lives on");
}

/// Requests that share a session from its first moment on: when it dies without having answered any of them, it was no stale connection.
#[tokio::test]
async fn a_new_session_that_dies_under_many_requests_gives_none_of_them_a_replay() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let clients = asking(&proxy, 20, &get("/")).await;
    let mut first = server.accept().await;
    assert_eq!(first.requests(20).await.len(), 20);
    drop(first);
    for mut client in clients {
        assert_eq!(client.response().await.status, 502);
    }
    let count = async |name| proxy.admin.count(name).await;
    assert_eq!((count("tidegate_stale_replays_total").await, count("tidegate_bad_attempts_total").await), (0, 20));
    assert_eq!(
        (count("tidegate_upstream_connects_total").await, count("tidegate_upstream_reuses_total").await),
        (1, 19)
    );
}

/// A stream the upstream gives up is no stale connection: nothing is sent twice, and it counts.
#[tokio::test]
async fn a_reset_is_a_failure_of_its_own() {
    let (server, proxy) = pair(Options::default()).await;
    proxy.ask(get("/")).await;
    assert_eq!(proxy.ask(get("/reset")).await.status, 502);
    assert_eq!(server.arrived(), 2);
    let mut client = proxy.client().await;
    client.send(get("/cut")).await;
    assert!(within("a cut", client.try_response("GET")).await.is_err(), "half a body must not look whole");
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(server.accepted(), 1);
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 2);
}

#[tokio::test]
async fn a_session_that_died_costs_an_idempotent_request_nothing() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let mut clients = asking(&proxy, 1, &get("/")).await;
    let mut first = server.accept().await;
    first.next(HEADERS).await;
    first.answer(1, b"one").await;
    assert_eq!(clients[0].response().await.text(), "one");
    clients[0].send(get("/")).await;
    first.next(HEADERS).await;
    drop(first);
    let mut second = server.accept().await;
    second.next(HEADERS).await;
    second.answer(1, b"two").await;
    assert_eq!(clients[0].response().await.text(), "two");

    clients[0].send(post("/", "x")).await;
    second.next(HEADERS).await;
    drop(second);
    assert_eq!(clients[0].response().await.status, 502, "a POST that was read is never sent twice");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_stream_only() {
    let (server, proxy) = pair(Options::default()).await;
    let mut staying = proxy.client().await;
    staying.send(get("/hold")).await;
    let mut leaving = proxy.client().await;
    leaving.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    leaving.head().await;
    server.has(2).await;
    leaving.reset();
    let seen = server.request().await;
    assert!(!seen.complete, "a stream that was cut must not look whole");
    server.release();
    assert_eq!((staying.response().await.status, server.accepted()), (200, 1));
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_loses_its_stream_only() {
    let server = H2Server::start(Options::default()).await;
    let proxy =
        Proxy::start(|c| http2(c, &server.address()).set("services.web.upstream", "response_timeout = \"200ms\""))
            .await;
    assert_eq!(proxy.ask(get("/hang")).await.status, 504);
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn trailers_and_interim_responses_pass() {
    let (server, proxy) = pair(Options::default()).await;
    let response = proxy.ask(get("/hints")).await;
    assert_eq!(response.interim.len(), 1);
    assert_eq!(response.interim[0].get("link"), Some("</a.css>; rel=preload"));

    let chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\nx-checksum-a: 7\r\nx-other: 8\r\n\r\n";
    let response = proxy.ask(chunked).await;
    assert_eq!((response.text(), response.framing), ("hello", Framing::Chunked));
    assert_eq!(response.body.trailers, [("x-checksum-a".to_owned(), "7".to_owned())]);
    let seen = server.seen();
    assert_eq!(seen.last().expect("two requests").fields["te"], "trailers");

    let mut client = proxy.client().await;
    client.send("POST /expect HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert!(client.any_head().await.line.contains("100"), "the upstream's word is passed on");
    client.send("ok").await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn responses_without_a_body_end_where_they_should() {
    let (_server, proxy) = pair(Options::default()).await;
    let mut client = proxy.client().await;
    for (request, method, status) in [
        (get("/status/204"), "GET", 204),
        (get("/status/304"), "GET", 304),
        (get("/status/500"), "GET", 500),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "HEAD", 200),
        (get("/"), "GET", 200),
    ] {
        client.send(&request).await;
        let response = within("a response", client.try_response(method))
            .await
            .unwrap_or_else(|fault| panic!("{request}: {fault}"));
        assert_eq!(response.status, status, "{request}");
    }
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_upload() {
    let (_server, proxy) = pair(Options::default()).await;
    let mut client = proxy.client().await;
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send_chunk(b"first").await;
    assert_eq!(client.response().await.text(), "early");
}

#[tokio::test]
async fn big_bodies_pass_whole_both_ways() {
    let (_server, proxy) = pair(Options::default()).await;
    let bytes = 32 * MIB;
    let response = proxy.ask(get(&format!("/big/{bytes}"))).await;
    assert_eq!((response.body.length, response.body.digest), (bytes, pattern::digest(bytes)));
    let mut client = proxy.client().await;
    client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n")).await;
    client.send_pattern(bytes).await.expect("an open connection");
    assert_eq!(client.response().await.text(), format!("{bytes} true"));
}

#[tokio::test]
async fn a_slow_upstream_stalls_the_writer() {
    let (_server, proxy) = pair(Options::default()).await;
    let mut client = proxy.client().await;
    client.send(format!("POST /stall HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1024 * MIB)).await;
    crate::harness::wait::quiet(Duration::from_millis(500), "backpressure", client.send_pattern(256 * MIB)).await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_keeps_what_is_in_flight_and_nothing_else() {
    let (one, two) = (H2Server::start(Options::default()).await, H2Server::start(Options::default()).await);
    let proxy = Proxy::start(|c| http2(c, &one.address())).await;
    let mut holding = proxy.client().await;
    holding.send(get("/hold")).await;
    one.has(1).await;
    proxy.reload_ok(&http2(proxy.base.clone(), &two.address())).await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
    assert_eq!((one.arrived(), two.arrived(), one.open()), (1, 1, 1));
    one.release();
    assert_eq!(holding.response().await.text(), "hello");
    one.all_closed().await;
}

#[tokio::test]
async fn an_endpoint_that_leaves_is_cut_when_its_time_is_over() {
    let (one, two) = (H2Server::start(Options::default()).await, H2Server::start(Options::default()).await);
    let config =
        |c: Config, at: &H2Server| http2(c, &at.address()).set("services.web.upstream", "drain_timeout = \"200ms\"");
    let proxy = Proxy::start(|c| config(c, &one)).await;
    let mut holding = proxy.client().await;
    holding.send(get("/hang")).await;
    one.has(1).await;
    proxy.reload_ok(&config(proxy.base.clone(), &two)).await;
    assert_eq!(holding.response().await.status, 503);
    one.all_closed().await;
}

#[tokio::test]
async fn idle_sessions_close_and_other_protocols_use_none_of_them() {
    let server = H2Server::start(Options::default()).await;
    let config = |c: Config| http2(c, &server.address());
    let proxy = Proxy::start(|c| config(c).set("services.web.upstream", "keepalive_idle = \"100ms\"")).await;
    proxy.ask(get("/")).await;
    server.all_closed().await;
    proxy.ask(get("/")).await;
    assert_eq!(server.accepted(), 2);

    let base = config(proxy.base.clone());
    proxy.reload_ok(&base.set("services.web.upstream", "protocol = \"http1\"")).await;
    let status = proxy.ask(get("/")).await.status;
    assert_eq!((status, server.accepted()), (502, 3), "an HTTP/2 server makes nothing of HTTP/1.1");
    proxy.reload_ok(&config(proxy.base.clone())).await;
    assert_eq!(proxy.ask(get("/")).await.status, 200);
}

#[tokio::test]
async fn tls_needs_the_server_to_choose_http2() {
    let (authority, files) = (Authority::new(), TempDir::new());
    let identity = authority.issue(&["web.internal"]);
    let ca = files.write("ca.pem", &authority.pem());
    let tls = format!("tls = {{ ca = {:?}, sni = \"web.internal\" }}", ca.display().to_string());
    for (protocols, status) in [(&["h2"][..], 200), (&["http/1.1"], 502), (&[], 502)] {
        let server = H2Server::start(Options::tls(&identity, protocols)).await;
        let proxy = Proxy::start(|c| http2(c, &server.address()).set("services.web.upstream", &tls)).await;
        assert_eq!(proxy.ask(get("/")).await.status, status, "{protocols:?}");
        assert_eq!(server.arrived(), usize::from(status == 200), "{protocols:?}");
        if status == 200 {
            assert_eq!(server.request().await.uri, "https://shop.test/");
        }
    }
}

#[tokio::test]
async fn a_server_of_another_protocol_is_a_failed_connect() {
    let server = FrameServer::start().await;
    let once = |c| http2(c, &server.address()).set("services.web.upstream.retry", "attempts = 0");
    let proxy = Proxy::start(once).await;
    let mut client = proxy.client().await;
    client.send(get("/")).await;
    let mut io = server.accept_raw().await;
    io.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.expect("an open connection");
    assert_eq!(client.response().await.status, 502);
    assert_eq!(proxy.admin.count("tidegate_upstream_connect_failures_total").await, 1);
}

#[tokio::test]
async fn responses_that_are_none_are_502() {
    let server = FrameServer::start().await;
    let proxy = Proxy::start(|c| http2(c, &server.address())).await;
    let many: Vec<String> = (0..300).map(|n| format!("x-{n}")).collect();
    let many = std::iter::once((":status", "200")).chain(many.iter().map(|name| (name.as_str(), "1")));
    let many: Vec<(&str, &str)> = many.collect();
    for fields in [
        &[(":status", "200"), ("X-Upper", "1")][..],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "2")],
        &[(":status", "200"), ("content-length", "x")],
        &[(":status", "200"), ("x", "a\r\nb: c")],
        &[(":status", "200"), ("x y", "1")],
        &[(":status", "099")],
        &[(":status", "101")],
        &[(":status", "777")],
        &[(":path", "/")],
        &[("x", "1")],
        &many,
    ] {
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        let mut frames = server.accept().await;
        let stream = frames.next(HEADERS).await.expect("a request").stream;
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields)).await;
        assert_eq!(client.response().await.status, 502, "{:?}", &fields[..fields.len().min(3)]);
    }
    assert_eq!(proxy.admin.status().await["services"][0]["name"], "web", "the proxy lives");
}

#[tokio::test]
async fn lies_about_the_length_are_seen() {
    let (_server, proxy) = pair(Options::default()).await;
    for path in ["/length/9", "/length/3"] {
        let mut client = proxy.client().await;
        client.send(get(path)).await;
        if let Ok(response) = within("an answer or its end", client.try_response("GET")).await {
            assert_eq!(response.status, 502, "{path}");
        }
    }
    assert_eq!(proxy.ask(get("/")).await.text(), "hello");
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 2);
}

/// What a call's status says of the server counts, in the trailers and in a head that is all there is.
#[tokio::test]
async fn failed_calls_count_for_the_gate() {
    let (_server, proxy) = pair(Options::default()).await;
    let call = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
    };
    let paths = [("/grpc/0", 0), ("/grpc/5", 0), ("/only/0", 0), ("/grpc/14", 1), ("/only/13", 2), ("/", 2)];
    for (calls, (path, bad)) in (1..).zip(paths) {
        let response = proxy.ask(call(path)).await;
        assert_eq!(response.status, 200, "{path}");
        // The client may have its answer a moment before the call is over for the proxy.
        eventually(Duration::from_secs(5), "the call to be counted", || async {
            (proxy.admin.count("tidegate_requests_total").await == calls).then_some(())
        })
        .await;
        assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, bad, "{path}");
    }
}
