//! What reaches the upstream and what comes back: heads rebuilt, connections kept, requests in order.

use crate::harness::client::{Client, Load, Plan};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wire::Framing;

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn pair(behaviour: Behaviour) -> (Upstream, Proxy) {
    let upstream = Upstream::start(behaviour).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    (upstream, proxy)
}

#[tokio::test]
async fn the_head_is_rebuilt_and_forwarding_fields_are_ours() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let request = "GET /a/../b%20c?q={x} HTTP/1.1\r\nhOsT: Shop.Test\r\nX-Kept: a\r\nX-Kept: b\r\nX_Dropped: 1\r\nX-Mine: 1\r\n\
                   Connection: x-mine, keep-alive\r\nKeep-Alive: 5\r\nTE: gzip\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n\
                   X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nX-Tidegate-Variant: candidate\r\n\r\n";
    assert_eq!(proxy.ask(request).await.status, 200);
    let head = upstream.request().await.head;
    assert_eq!(head.line, "GET /b%20c?q={x} HTTP/1.1");
    assert_eq!((head.all("host"), head.all("x-kept")), (vec!["Shop.Test"], vec!["a", "b"]));
    for gone in [
        "x_dropped",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "x-tidegate-variant",
        "content-length",
    ] {
        assert_eq!(head.get(gone), None, "{gone} in {:?}", head.fields);
    }
    assert_eq!((head.all("x-forwarded-for"), head.all("x-forwarded-proto")), (vec!["127.0.0.1"], vec!["http"]));
    assert_eq!(head.all("x-forwarded-host"), ["Shop.Test"]);
    assert!(!head.all("forwarded").iter().any(|v| v.contains("6.6.6.6")));
    assert!(head.get("x-request-id").is_some_and(|id| !id.is_empty()));
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn forwarding_fields_of_trusted_proxies_are_kept() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let trusting = "trusted_proxies = [\"127.0.0.0/8\"]";
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).listen("127.0.0.1:0", trusting)).await;
    proxy.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n").await;
    let head = upstream.request().await.head;
    assert_eq!(head.get("x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
    assert_eq!((head.get("x-forwarded-proto"), head.get("x-request-id")), (Some("https"), Some("mine")));
}

#[tokio::test]
async fn the_response_passes_without_its_hop_by_hop_fields() {
    let fields = [
        "X-A: 1",
        "Connection: x-hop",
        "X-Hop: 1",
        "Keep-Alive: timeout=5",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "Proxy-Authenticate: x",
    ];
    let (_upstream, proxy) = pair(Behaviour::answer(203, &fields, "body")).await;
    let response = proxy.ask(GET).await;
    assert_eq!((response.status, response.text(), response.get("x-a")), (203, "body", Some("1")));
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    for gone in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(response.get(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = proxy.client().await;
    for _ in 0..50 {
        client.send(GET).await;
        assert!(client.response().await.keeps());
    }
    assert_eq!((upstream.arrived(), upstream.accepted()), (50, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (upstream, proxy) = pair(Behaviour::echo()).await;
    let one = |n| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n:02}");
    let all = (0..20).map(one).collect::<Vec<_>>().concat();
    for seed in 0..3 {
        let mut client = proxy.client().await;
        client.send_split(all.as_bytes(), seed).await;
        for n in 0..20 {
            let response = client.response().await;
            assert!(
                response.text().starts_with(&format!("POST /{n} ")) && response.text().ends_with(&format!("{n:02}"))
            );
        }
    }
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn head_204_and_304_have_no_body_and_keep_the_connection() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = proxy.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.try_response("HEAD").await.unwrap();
    assert_eq!((head.status, head.get("content-length")), (200, Some("2")));
    for status in [204, 304] {
        upstream.next([Behaviour::answer(status, &["ETag: \"x\""], "")]);
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!((response.status, response.framing), (status, Framing::None));
    }
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "v1");
}

#[tokio::test]
async fn http_1_0_clients_are_served_and_closed() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (upstream, proxy) = pair(Behaviour::raw(chunked)).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.text(), response.get("transfer-encoding")), ("abc", None), "HTTP/1.0 knows no chunks");
    client.expect_close().await;
    assert!(upstream.request().await.head.line.ends_with("HTTP/1.1"));
}

#[tokio::test]
async fn expect_continue_and_interim_responses() {
    let interim = Act::Write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".to_vec());
    let go = Act::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let (_upstream, proxy) = pair(Behaviour::script([go, read_body(), interim, answer(200, &[], "done")])).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.any_head().await.line.split(' ').nth(1), Some("100"));
    client.send("ok").await;
    let response = client.response().await;
    assert_eq!((response.status, response.interim.len(), response.interim[0].get("link")), (200, 1, Some("</a>")));
}

#[tokio::test]
async fn one_leading_crlf_is_tolerated() {
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    assert_eq!(proxy.ask(format!("\r\n{GET}")).await.status, 200);
}

/// All requests at once and then the end, as a shell does it.
#[tokio::test]
async fn pipelined_requests_of_a_half_closed_client_are_all_answered() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = proxy.client().await;
    client.send(GET.repeat(3)).await;
    client.half_close().await;
    for _ in 0..3 {
        assert_eq!(client.response().await.version(), "v1");
    }
    client.expect_close().await;
    assert_eq!(upstream.arrived(), 3);
}

/// An HTTP/1.0 client that wants to go on learns that an answer of our own is the last one.
#[tokio::test]
async fn our_own_answer_to_http_1_0_is_the_last() {
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = proxy.client().await;
    client.send("GET /../%00 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    client.expect_close().await;
}

/// RFC 9110 section 6.6.1.
#[tokio::test]
async fn a_response_without_a_date_gets_one() {
    let (_upstream, proxy) = pair(Behaviour::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
    let response = proxy.ask(GET).await;
    assert!(response.get("date").is_some_and(|date| date.ends_with(" GMT")), "{:?}", response.get("date"));
    let dated = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    let (_upstream, proxy) = pair(Behaviour::raw(dated)).await;
    assert_eq!(proxy.ask(GET).await.get("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
}

#[tokio::test]
async fn a_half_closed_client_still_gets_its_answer() {
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    client.half_close().await;
    assert_eq!(client.response().await.text(), "v1");
    client.expect_close().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_upstream_request() {
    let (upstream, proxy) = pair(Behaviour::hang()).await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    upstream.request().await;
    client.reset();
    upstream.all_closed().await;
}

#[tokio::test]
async fn a_limit_of_requests_is_announced() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("max_requests = 3")).await;
    let tally = Load::run(&proxy.address(), &Plan::of(1, 30)).await;
    tally.assert_clean();
    let mut client: Client = proxy.client().await;
    for n in 1..=3 {
        client.send(GET).await;
        assert_eq!(client.response().await.head.lists("connection", "close"), n == 3);
    }
    client.expect_close().await;
}

#[tokio::test]
async fn unix_sockets_serve_as_listeners() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let dir = crate::harness::files::TempDir::new();
    let listen = format!("unix:{}", dir.path().join("web.sock").display());
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).listen(&listen, "")).await;
    assert_eq!(proxy.address(), listen);
    assert_eq!(proxy.ask(GET).await.version(), "v1");
    assert_eq!(upstream.request().await.head.get("x-forwarded-for"), None, "a unix socket has no client address");
}
