//! HTTP/2 clients: what HTTP/1.1 clients get, they get too, many requests at a time.

mod changes;
mod ends;
mod faults;
mod floods;
mod refused;
mod windows;

use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};

use crate::harness::files::TempDir;
use crate::harness::h2::{H2Client, get, raw, request};
use crate::harness::proxy::{Process, Proxy};
use crate::harness::tls::Authority;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{eventually, within};

pub(crate) async fn pair(behaviour: Behaviour) -> (Upstream, Proxy) {
    let upstream = Upstream::start(behaviour).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    (upstream, proxy)
}

#[tokio::test]
async fn a_request_is_rebuilt_as_that_of_an_http_1_client() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let client = H2Client::connect(&proxy.address()).await;
    let asked = request("GET", "/a/../b%20c?q={x}")
        .header("x-kept", "a")
        .header("x-kept", "b")
        .header("x_dropped", "1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-tidegate-variant", "candidate");
    let response = client.ask(asked.body(()).unwrap(), None).await;
    assert_eq!((response.status, response.text(), response.get("x-version")), (200, "v1", Some("v1")));
    assert!(response.get("date").is_some(), "{:?}", response.fields);
    assert_eq!(response.get("content-length"), Some("2"));
    let head = upstream.request().await.head;
    assert_eq!(head.line, "GET /b%20c?q={x} HTTP/1.1");
    assert_eq!((head.all("host"), head.all("x-kept")), (vec!["test"], vec!["a", "b"]));
    assert_eq!((head.all("cookie"), head.all("te")), (vec!["a=1; b=2"], vec!["trailers"]));
    assert_eq!((head.all("x-forwarded-for"), head.all("x-forwarded-proto")), (vec!["127.0.0.1"], vec!["http"]));
    for gone in ["x_dropped", "x-tidegate-variant", "content-length", "transfer-encoding"] {
        assert_eq!(head.get(gone), None, "{gone} in {:?}", head.fields);
    }
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 0\r\nx-own: 1\r\n\r\n";
    let (upstream, proxy) = pair(Behaviour::raw(chunked)).await;
    let client = H2Client::connect(&proxy.address()).await;
    let exact = request("POST", "/").header("content-length", "5").body(()).unwrap();
    let response = client.ask(exact, Some(b"hello")).await;
    assert_eq!((response.text(), response.get("transfer-encoding")), ("abc", None));
    assert_eq!(response.trailers.get("grpc-status"), Some(&HeaderValue::from_static("0")));
    assert_eq!(response.trailers.get("x-own"), None, "only listed trailers go further");
    let seen = upstream.request().await;
    assert_eq!((seen.body.text(), seen.head.get("content-length")), ("hello", Some("5")));

    let mut exchange = client.begin(request("POST", "/").body(()).unwrap(), false).await;
    exchange.body.send_data(Bytes::from_static(b"ab"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-test", HeaderValue::from_static("x"));
    exchange.body.send_trailers(trailers).unwrap();
    assert_eq!(exchange.response().await.unwrap().status, 200);
    let seen = upstream.request().await;
    assert_eq!((seen.body.text(), seen.head.get("transfer-encoding")), ("ab", Some("chunked")));
    assert_eq!(seen.body.trailers, [("grpc-test".to_owned(), "x".to_owned())]);
}

#[tokio::test]
async fn head_204_and_304_have_no_body() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let client = H2Client::connect(&proxy.address()).await;
    let head = client.ask(request("HEAD", "/").body(()).unwrap(), None).await;
    assert_eq!((head.status, head.get("content-length"), head.body.len()), (200, Some("2"), 0));
    for status in [204, 304] {
        upstream.next([Behaviour::answer(status, &["ETag: \"x\""], "")]);
        let response = client.get("/").await;
        assert_eq!((response.status, response.get("etag"), response.body.len()), (status, Some("\"x\""), 0));
        assert_eq!(response.get("content-length"), None);
    }
    assert_eq!(client.get("/").await.text(), "v1");
}

#[tokio::test]
async fn interim_responses_pass() {
    let interim = Act::Write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n".to_vec());
    let go = Act::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let (_upstream, proxy) = pair(Behaviour::script([go, read_body(), interim, answer(200, &[], "done")])).await;
    let client = H2Client::connect(&proxy.address()).await;
    let asked = request("POST", "/").header("expect", "100-continue").body(()).unwrap();
    let response = client.ask(asked, Some(b"ok")).await;
    assert_eq!((response.status, response.text()), (200, "done"));
    let seen: Vec<_> =
        response.interim.iter().map(|(status, fields)| (*status, fields.get("link").is_some())).collect();
    assert_eq!(seen, [(100, false), (103, true)]);
    assert!(response.interim[1].1.get("connection").is_none());
}

#[tokio::test]
async fn a_hundred_streams_at_once_and_one_that_waits_stops_none() {
    let (upstream, proxy) = pair(Behaviour::echo()).await;
    let client = H2Client::connect(&proxy.address()).await;
    upstream.next([Behaviour::hang()]);
    let waiting = client.begin(get("/waits"), true).await;
    upstream.head().await;
    let one = |n: u32| client.ask(request("POST", &format!("/{n}")).body(()).unwrap(), Some(b"payload"));
    let mut all = Vec::new();
    for n in 0..99 {
        all.push(one(n));
    }
    for (n, response) in futures(all).await.into_iter().enumerate() {
        assert!(response.text().starts_with(&format!("POST /{n} ")) && response.text().ends_with("payload"));
    }
    drop(waiting);
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

/// All of them, polled together.
async fn futures<F: Future>(all: Vec<F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in all.iter_mut().filter(|(_, output)| output.is_none()) {
            if let std::task::Poll::Ready(ready) = future.as_mut().poll(cx) {
                *output = Some(ready);
            }
        }
        if all.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    all.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test]
async fn alpn_chooses_and_can_be_switched_off() {
    let (authority, files) = (Authority::new(), TempDir::new());
    let (cert, key) = authority.issue(&["a.test"]).write(&files, "a");
    let tls = format!(
        "tls = {{ certificates = [{{ cert = {:?}, key = {:?} }}] }}",
        cert.display().to_string(),
        key.display().to_string()
    );
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).listen("127.0.0.1:0", &tls)).await;
    let config = authority.client_config();
    let client = H2Client::connect_tls(&proxy.address(), "a.test", &config).await;
    assert_eq!(client.get("/").await.text(), "v1");
    assert_eq!(upstream.request().await.head.get("x-forwarded-proto"), Some("https"));
    for chunked in [true, false] {
        upstream.next([Behaviour::huge(8 * 1024 * 1024, chunked)]);
        assert_eq!(client.get("/").await.body.len(), 8 * 1024 * 1024, "nothing stays behind in TLS");
    }
    let (mut old, _) =
        crate::harness::client::Client::connect_tls(&proxy.address(), "a.test", config).await.expect("a handshake");
    old.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(old.response().await.text(), "v1");
    assert!(proxy.admin.metric("tidegate_connections_http2_total", &[]).await >= 1.0);

    let off = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("h2 = { enabled = false }")).await;
    let refused = off.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(refused.status, 505);
}

#[tokio::test]
async fn the_preface_may_come_in_pieces_and_what_is_none_is_http_1() {
    let (_upstream, proxy) = pair(Behaviour::version("v1")).await;
    for seed in 0..5 {
        // A GET of / with `:authority: a` (RFC 7541 appendix A).
        let seen =
            raw(&proxy.address(), b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a", Some(seed), &[b"v1"]).await;
        assert!(seen.ends_with(b"v1"), "{}", seen.escape_ascii());
    }
    // The first byte that differs decides: `PRI` is a method like others, until the version.
    for (text, status) in [("PRI / HTTP/1.1\r\nHost: a\r\n\r\n", 200), ("PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400)] {
        assert_eq!(proxy.ask(text).await.status, status, "{text}");
    }
}

#[tokio::test]
async fn a_preface_that_does_not_end_runs_into_the_time_for_a_head() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits("head_timeout = \"100ms\"")).await;
    let mut client = proxy.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM").await;
    assert_eq!(client.response().await.status, 408);
    client.expect_close().await;
}

#[tokio::test]
async fn sessions_stick_and_the_access_log_says_http_2() {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let logs = TempDir::new();
    let path = logs.path().join("access").display().to_string();
    let proxy = Proxy::start(|c| {
        let c = c.web(&[&v1.address()], &[&v2.address()]).set("services.web.force", "header = \"x-release\"");
        c.set("log.access", &format!("enabled = true\npath = {path:?}"))
    })
    .await;
    proxy.admin.weight("web", "50%").await;
    let client = H2Client::connect(&proxy.address()).await;
    let first = client.get("/").await;
    let cookie = first.get("set-cookie").expect("a split is in force").split(';').next().unwrap().to_owned();
    for _ in 0..10 {
        let asked = request("GET", "/sticky").header("cookie", &cookie).header("cookie", "other=1").body(()).unwrap();
        assert_eq!(client.ask(asked, None).await.text(), first.text());
    }
    for (word, version) in [("candidate", "v2"), ("stable", "v1")] {
        let asked = request("GET", "/forced").header("x-release", word).body(()).unwrap();
        assert_eq!(client.ask(asked, None).await.text(), version);
    }
    let line = eventually(Duration::from_secs(5), "a line in the access log", || async {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().find(|line| line.contains("/sticky")).map(str::to_owned)
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((line["protocol"].as_str(), line["host"].as_str()), (Some("HTTP/2"), Some("test")), "{line}");
    assert_eq!((line["method"].as_str(), line["status"].as_u64()), (Some("GET"), Some(200)), "{line}");
}

#[tokio::test]
async fn a_drain_tells_the_client_and_fails_no_request() {
    let slow = Behaviour::script([read_body(), Act::Pause(Duration::from_millis(300)), answer(200, &[], "slow")]);
    let upstream = Upstream::start(slow).await;
    let mut process = Process::start(|c| c.web(&[&upstream.address()], &[])).await;
    let client = H2Client::connect(&process.address()).await;
    let mut flying = Vec::new();
    for _ in 0..20 {
        flying.push(client.begin(get("/"), true).await);
    }
    upstream.head().await;
    process.signal(rustix::process::Signal::TERM);
    for exchange in flying {
        assert_eq!(exchange.response().await.expect("a whole response").text(), "slow");
    }
    // GOAWAY in two steps: whatever the client still begins is served, or visibly never was.
    loop {
        match client.try_ask(get("/"), None).await {
            Ok(response) => assert_eq!(response.text(), "slow"),
            Err(error) => {
                assert!(error.is_go_away() || error.is_io() || error.reason().is_none(), "{error:?}");
                break;
            }
        }
    }
    assert!(client.closed().await.is_ok(), "GOAWAY without an error");
    assert!(process.exit().await.success(), "{}", process.log());
}

#[tokio::test]
async fn connections_end_by_age_and_by_number_of_requests() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    // That of HTTP/1.1 says nothing here.
    let number = "max_requests = 1\nh2 = { max_requests = 3 }";
    for (limit, least) in [(number, 3), ("max_age = \"500ms\"", 1), ("keepalive_idle = \"500ms\"", 1)] {
        let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).limits(limit)).await;
        let client = H2Client::connect(&proxy.address()).await;
        for _ in 0..least {
            assert_eq!(client.get("/").await.text(), "v1", "{limit}");
        }
        assert!(client.closed().await.is_ok(), "{limit}");
    }
}

#[tokio::test]
async fn curl_speaks_it() {
    let (upstream, proxy) = pair(Behaviour::echo()).await;
    for flag in ["--http2", "--http2-prior-knowledge"] {
        let url = format!("http://{}/curl", proxy.address());
        let run = tokio::task::spawn_blocking(move || {
            Command::new("curl").args(["-sS", flag, "-d", "body", "-w", "%{http_version} %{http_code}", &url]).output()
        });
        // Where there is no curl there is nothing to show.
        let Ok(output) = within("curl", run).await.expect("no panic") else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{flag}: {}", String::from_utf8_lossy(&output.stderr));
        let expected = if flag == "--http2" { "1.1 200" } else { "2 200" };
        assert!(text.starts_with("POST /curl ") && text.ends_with(&format!("body{expected}")), "{flag}: {text}");
    }
    assert_eq!(upstream.violations(), Vec::<String>::new());
}

/// A request whose `:authority` and `Host` are given apart.
pub(crate) fn with_host(authority: &str, host: &str) -> Request<()> {
    Request::builder().uri(format!("http://{authority}/")).header("host", host).body(()).expect("a request")
}
