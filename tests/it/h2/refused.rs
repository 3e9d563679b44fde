//! What is refused of HTTP/2 requests, and how: with the answer an HTTP/1.1 client would get, or by resetting the stream (RFC 9113
//! section 8.1.1). Either way nothing reaches the upstream and the connection goes on.

use h2::Reason;
use http::Request;

use crate::harness::h2::{H2Client, raw, request};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually};

use super::{pair, with_host};

/// What becomes of a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answer(u16),
    Reset(Reason),
}

const MALFORMED: Fate = Fate::Reset(Reason::PROTOCOL_ERROR);

fn field(name: &str, value: &str) -> Request<()> {
    request("GET", "/").header(name, value).body(()).expect("a request")
}

fn table() -> Vec<(Fate, Request<()>)> {
    let plain = |method, path| request(method, path).body(()).expect("a request");
    let mut table = vec![
        (Fate::Answer(400), plain("GET", "/a\\b")),
        (Fate::Answer(400), plain("GET", "/a%00")),
        (Fate::Answer(400), plain("GET", "/%2e%2e/a")),
        (Fate::Answer(400), plain("GET", "/a/.%2E/b")),
        (Fate::Answer(405), plain("TRACE", "/")),
        (Fate::Answer(414), plain("GET", &format!("/{}", "a".repeat(9 * 1024)))),
        (Fate::Answer(400), with_host("a", "b")),
        (Fate::Answer(400), with_host("a", "a:81")),
        (Fate::Answer(400), with_host("a", "")),
        (Fate::Answer(400), with_host("u@a", "a")),
        (Fate::Answer(400), field("x-padded", " a")),
        (Fate::Answer(400), field("x-padded", "a\t")),
        (Fate::Answer(417), field("expect", "something")),
        (Fate::Answer(431), field("x-large", &"a".repeat(70 * 1024))),
        (MALFORMED, field("content-length", "5")),
        (MALFORMED, field("content-length", "+0")),
    ];
    let two = |a, b| {
        request("POST", "/").header("content-length", a).header("content-length", b).body(()).expect("a request")
    };
    table.push((Fate::Answer(400), two("0", "0")));
    table.push((MALFORMED, two("0", "1")));
    let mut many = request("GET", "/");
    for n in 0..128 {
        many = many.header(format!("x-{n}"), "y");
    }
    table.push((Fate::Answer(431), many.header("x-more", "y").body(()).expect("a request")));
    table
}

#[tokio::test]
async fn refused_requests_reach_nobody_and_the_connection_goes_on() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let client = H2Client::connect(&proxy.address()).await;
    for (fate, request) in table() {
        let shown = format!("{request:?}").chars().take(200).collect::<String>();
        let seen = match client.try_ask(request, None).await {
            Ok(response) => Fate::Answer(response.status),
            Err(error) => Fate::Reset(error.reason().unwrap_or_else(|| panic!("{shown}: {error}"))),
        };
        assert_eq!(seen, fate, "{shown}");
    }
    assert_eq!(upstream.arrived(), 0);
    assert_eq!(client.get("/").await.text(), "v1");
}

#[tokio::test]
async fn tunnels_are_refused() {
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    let client = H2Client::connect(&proxy.address()).await;
    let connect = Request::builder().method("CONNECT").uri("a:443").body(()).unwrap();
    assert_eq!(client.ask(connect, None).await.status, 405);
    assert_eq!(upstream.arrived(), 0);
}

/// What the client's own library would not send: whole frames, byte by byte. Fields are literals without indexing (RFC 7541 section 6.2.2).
#[tokio::test]
async fn what_no_client_library_sends_is_a_stream_error() {
    const RESET: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x01";
    const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
    let line = |name: &str, value: &str| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [b"\0", &text(name)[..], &text(value)].concat()
    };
    let lines = [
        line("connection", "close"),
        line("transfer-encoding", "chunked"),
        line("upgrade", "websocket"),
        line("keep-alive", "5"),
        line("proxy-connection", "x"),
        line("te", "gzip"),
        line("X-Upper", "a"),
        line("x y", "a"),
        line("", "a"),
        line("x", "a\rb"),
        line("x", "a\nb"),
        line("x", "a\0b"),
        line(":path", "/again"),
        line(":unknown", "a"),
        line(":status", "200"),
        line(":protocol", "websocket"),
    ];
    let (upstream, proxy) = pair(Behaviour::version("v1")).await;
    for line in lines {
        let block = [GET, &line].concat();
        let length = u8::try_from(block.len()).unwrap();
        let frame = [&[0, 0, length, 1, 5, 0, 0, 0, 1], &block[..]].concat();
        let seen = raw(&proxy.address(), &frame, None, &[RESET, b"\0\0\x08\x07\0", b"v1"]).await;
        let ended = seen.ends_with(RESET) || seen.windows(5).any(|frame| frame == b"\0\0\x08\x07\0");
        assert!(ended, "{}: {}", line.escape_ascii(), seen.escape_ascii());
        assert!(!seen.windows(2).any(|two| two == b"v1"), "{}", line.escape_ascii());
    }
    assert_eq!(upstream.arrived(), 0);
}

/// A gRPC client takes any status but 200 for a fault on the way; and whoever reads the log wants to know what was refused.
#[tokio::test]
async fn refused_calls_are_answered_as_calls_and_logged_with_what_they_asked_for() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let log = "enabled = true\npath = \"access.log\"";
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[]).set("log.access", log)).await;
    let client = H2Client::connect(&proxy.address()).await;
    let call = || request("POST", "/pkg.Service/Do").header("content-type", "application/grpc+proto");
    for (request, status) in [
        (call().header("x-padded", " a"), "13"),
        (call().header("expect", "something"), "13"),
        (call().header("x-large", "a".repeat(70 * 1024)), "8"),
    ] {
        let answer = client.ask(request.body(()).expect("a request"), None).await;
        assert_eq!((answer.status, answer.get("grpc-status")), (200, Some(status)));
        assert_eq!((answer.get("content-type"), answer.body.len()), (Some("application/grpc"), 0));
    }
    let path = proxy.dir.path().join("access.log");
    let text = eventually(WAIT_MAX, "all lines", || async {
        std::fs::read_to_string(&path).ok().filter(|text| text.lines().count() == 3)
    })
    .await;
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let seen = ["method", "host", "path", "protocol", "termination"].map(|key| line[key].as_str());
        let expected = [Some("POST"), Some("test"), Some("/pkg.Service/Do"), Some("HTTP/2"), Some("CB")];
        assert_eq!(seen, expected, "{line}");
    }
    assert_eq!(upstream.arrived(), 0);
}
