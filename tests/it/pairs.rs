//! The same behaviour whatever is spoken on either side: one table over the four pairs of protocols.

use std::time::Duration;

use http::HeaderMap;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Client;
use crate::harness::config::Config;
use crate::harness::h2::{H2Client, request};
use crate::harness::pattern;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::upstream::{Act, Behaviour, Upstream, read_body};
use crate::harness::wait::{WAIT_MAX, eventually, until, within};

const MIB: u64 = 1024 * 1024;

/// What is spoken on a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

use Speaks::{Http1, Http2};

const PAIRS: [(Speaks, Speaks); 4] = [(Http1, Http1), (Http1, Http2), (Http2, Http1), (Http2, Http2)];

/// An upstream of either kind, and the proxy before it.
struct Site {
    pair: (Speaks, Speaks),
    one: Upstream,
    two: H2Server,
    proxy: Proxy,
}

/// A response, whatever brought it.
#[derive(Debug)]
struct Answer {
    status: u16,
    length: Option<String>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

impl Site {
    async fn new(pair: (Speaks, Speaks)) -> Self {
        let one = Upstream::start(Behaviour::answer(200, &[], "hello")).await;
        let two = H2Server::start(Options::default()).await;
        let (address, protocol) = upstream(pair.1, &one, &two);
        let proxy = Proxy::start(|c| config(c, &address, protocol, "500ms")).await;
        Self { pair, one, two, proxy }
    }

    /// What an HTTP/1.1 upstream does next; an HTTP/2 one reads it off the path.
    fn next(&self, behaviour: Behaviour) {
        self.one.next([behaviour]);
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, String> {
        match self.pair.0 {
            Http1 => {
                let mut client = self.proxy.client().await;
                let length = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
                let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{length}\r\n");
                client.send([head.as_bytes(), body.unwrap_or_default()].concat()).await;
                answer_of(client, method).await
            }
            Http2 => {
                let client = H2Client::connect(&self.proxy.address()).await;
                let mut request = request(method, path);
                if let Some(body) = body {
                    request = request.header("content-length", body.len());
                }
                let answer = client.try_ask(request.body(()).expect("a request"), body).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let length = answer.get("content-length").map(str::to_owned);
                Ok(Answer { status: answer.status, length, trailers: list(&answer.trailers), body: answer.body })
            }
        }
    }

    async fn arrived(&self, count: usize) {
        match self.pair.1 {
            Http1 => until("requests at the upstream", || self.one.arrived() >= count).await,
            Http2 => self.two.has(count).await,
        }
    }

    async fn whole(&self) -> bool {
        match self.pair.1 {
            Http1 => self.one.request().await.complete,
            Http2 => self.two.request().await.complete,
        }
    }
}

fn upstream(speaks: Speaks, one: &Upstream, two: &H2Server) -> (String, &'static str) {
    match speaks {
        Http1 => (one.address(), "http1"),
        Http2 => (two.address(), "http2"),
    }
}

fn config(base: Config, address: &str, protocol: &str, timeout: &str) -> Config {
    let lines = format!("protocol = \"{protocol}\"\nresponse_timeout = \"{timeout}\"\ndrain_timeout = \"300ms\"");
    base.web(&[address], &[]).set("services.web.upstream", &lines).set("runtime", "workers = 1")
}

async fn answer_of(mut client: Client, method: &str) -> Result<Answer, String> {
    let response = within("a response", client.try_response(method)).await.map_err(|fault| fault.to_string())?;
    let length = response.get("content-length").map(str::to_owned);
    Ok(Answer { status: response.status, length, trailers: response.body.trailers.clone(), body: response.body.bytes })
}

fn list(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect()
}

#[tokio::test]
async fn responses_of_every_kind() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        for (method, path, raw, status, length, body) in [
            ("GET", "/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, Some("5"), "hello"),
            ("HEAD", "/", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, Some("5"), ""),
            ("GET", "/status/204", "HTTP/1.1 204 No Content\r\n\r\n", 204, None, ""),
            ("GET", "/status/304", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, None, ""),
            ("GET", "/status/500", "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 500, Some("0"), ""),
            ("DELETE", "/status/404", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 404, Some("0"), ""),
        ] {
            site.next(Behaviour::raw(raw));
            let answer = site.ask(method, path, None).await.unwrap_or_else(|e| panic!("{pair:?} {method} {path}: {e}"));
            // Where the end of a stream says it already, a zero need not be said.
            let said = answer.length.as_deref().or(length.filter(|length| *length == "0"));
            assert_eq!((answer.status, said), (status, length), "{pair:?} {method} {path}");
            assert_eq!(answer.body, body.as_bytes(), "{pair:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn bodies_both_ways_and_trailers() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::echo());
        let text = vec![b'x'; 300_000];
        let answer = site.ask("POST", "/echo", Some(&text)).await.unwrap_or_else(|e| panic!("{pair:?}: {e}"));
        assert!(answer.status == 200 && answer.body.ends_with(&text), "{pair:?}: {} bytes", answer.body.len());

        site.next(Behaviour::raw(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: 5\r\ngrpc-message: said\r\n\r\n",
        ));
        let answer = site.ask("GET", "/grpc/5", None).await.unwrap_or_else(|e| panic!("{pair:?}: {e}"));
        let expected = [("grpc-status", "5"), ("grpc-message", "said")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!((answer.body.as_slice(), answer.trailers.as_slice()), (&[0; 5][..], &expected[..]), "{pair:?}");
        assert_eq!(site.proxy.admin.count("tidegate_bad_attempts_total").await, 0, "{pair:?}");

        let bytes = 8 * MIB;
        site.next(Behaviour::huge(bytes, false));
        let answer = site.ask("GET", &format!("/big/{bytes}"), None).await.unwrap_or_else(|e| panic!("{pair:?}: {e}"));
        assert_eq!(answer.length, Some(bytes.to_string()), "{pair:?}");
        if pair.0 == Http2 {
            let digest = ring::digest::digest(&ring::digest::SHA256, &answer.body);
            assert_eq!(digest.as_ref(), pattern::digest(bytes), "{pair:?}");
        }
    }
}

#[tokio::test]
async fn trailers_that_are_too_large_are_431() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::script([read_body(), Act::Close]));
        let fields = usize::from(u8::MAX);
        let status = match pair.0 {
            Http1 => {
                let mut client = site.proxy.client().await;
                let head = "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
                let trailers = "x: y\r\n".repeat(fields);
                client.send(format!("{head}4\r\nbody\r\n0\r\n{trailers}\r\n")).await;
                answer_of(client, "POST").await.unwrap_or_else(|e| panic!("{pair:?}: {e}")).status
            }
            Http2 => {
                let client = H2Client::connect(&site.proxy.address()).await;
                let mut exchange = client.begin(request("POST", "/upload").body(()).expect("a request"), false).await;
                let mut trailers = HeaderMap::new();
                for _ in 0..fields {
                    trailers.append("x", "y".parse().expect("a value"));
                }
                exchange.body.send_data("body".into(), false).expect("an open stream");
                exchange.body.send_trailers(trailers).expect("an open stream");
                exchange.response().await.unwrap_or_else(|e| panic!("{pair:?}: {e}")).status
            }
        };
        assert_eq!(status, 431, "{pair:?}");
        assert_eq!(site.proxy.admin.count("tidegate_bad_attempts_total").await, 0, "{pair:?}");
    }
}

#[tokio::test]
async fn a_truncated_response_never_looks_whole() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::close_after(45, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"));
        if let Ok(answer) = site.ask("GET", "/cut", None).await {
            assert_eq!(answer.status, 502, "{pair:?}");
        }
        site.next(Behaviour::close_after(0, b"x"));
        assert_eq!(site.ask("GET", "/reset", None).await.expect("an answer").status, 502, "{pair:?}");
        assert_eq!(site.proxy.admin.count("tidegate_bad_attempts_total").await, 2, "{pair:?}");
        assert_eq!(site.ask("GET", "/", None).await.expect("an answer").status, 200, "{pair:?}");
    }
}

#[tokio::test]
async fn a_silent_upstream_is_504_and_a_leaving_one_503() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::hang());
        assert_eq!(site.ask("GET", "/hang", None).await.expect("an answer").status, 504, "{pair:?}");

        let other = H2Server::start(Options::default()).await;
        site.next(Behaviour::hang());
        let (address, protocol) = upstream(pair.1, &site.one, &site.two);
        let base = || site.proxy.base.clone();
        site.proxy.reload_ok(&config(base(), &address, protocol, "20s")).await;
        let leave = async {
            site.arrived(2).await;
            site.proxy.reload_ok(&config(base(), &other.address(), "http2", "20s")).await;
        };
        let (answer, ()) = tokio::join!(site.ask("GET", "/hang", None), leave);
        assert_eq!(answer.expect("an answer").status, 503, "{pair:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_leaves_no_whole_request_behind() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::script([read_body(), Act::Close]));
        match pair.0 {
            Http1 => {
                let mut client = site.proxy.client().await;
                client
                    .send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
                    .await;
                site.arrived(1).await;
                client.reset();
            }
            Http2 => {
                let client = H2Client::connect(&site.proxy.address()).await;
                let request = request("POST", "/upload").body(()).expect("a request");
                let mut exchange = client.begin(request, false).await;
                exchange.body.send_data("half".into(), false).expect("an open stream");
                site.arrived(1).await;
                exchange.reset(h2::Reason::CANCEL);
            }
        }
        assert!(!site.whole().await, "{pair:?}");
    }
}

/// Waits until somebody begins a TLS handshake, which nobody answers.
async fn greeted(silent: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = within("a connection", silent.accept()).await.expect("a listener");
        // Probes say nothing and leave.
        if within("a hello, or none", stream.peek(&mut [0])).await.is_ok_and(|n| n > 0) {
            return stream;
        }
    }
}

#[tokio::test]
async fn who_leaves_while_a_connection_is_made_is_gone_at_once() {
    for pair in PAIRS {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = silent.local_addr().expect("a bound socket").to_string();
        let protocol = if pair.1 == Http1 { "http1" } else { "http2" };
        let lines = format!("protocol = \"{protocol}\"\nconnect_timeout = \"10m\"\n");
        let lines = lines + "tls = { sni = \"upstream.test\", insecure = true }";
        let proxy = Proxy::start(|c| c.web(&[&address], &[]).set("services.web.upstream", &lines)).await;
        let _held = match pair.0 {
            Http1 => {
                let mut client = proxy.client().await;
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let held = greeted(&silent).await;
                client.reset();
                held
            }
            Http2 => {
                let client = H2Client::connect(&proxy.address()).await;
                // Its body is still to come.
                let exchange = client.begin(request("POST", "/").body(()).expect("a request"), false).await;
                let held = greeted(&silent).await;
                exchange.reset(h2::Reason::CANCEL);
                held
            }
        };
        let left = || async { proxy.admin.metric("tidegate_terminations_total", &["code=\"CA\""]).await };
        eventually(WAIT_MAX, "the end of the request", || async { (left().await > 0.5).then_some(()) }).await;
    }
}

/// What a gRPC client is told by the proxy itself, and how long it waits.
#[tokio::test]
async fn calls_are_answered_in_their_own_terms() {
    for pair in PAIRS {
        let site = Site::new(pair).await;
        site.next(Behaviour::hang());
        let began = tidegate::clock::now();
        let (status, fields) = call(&site, "/hang").await;
        assert!(began.elapsed() >= Duration::from_millis(100), "{pair:?}");
        assert_eq!((status, fields.as_str()), (200, "4 the upstream did not answer in time"), "{pair:?}");
        assert_eq!(site.proxy.admin.count("tidegate_bad_attempts_total").await, 1, "{pair:?}");
    }
}

/// Status, `grpc-status` and `grpc-message` of a call that may take 100 ms.
async fn call(site: &Site, path: &str) -> (u16, String) {
    let text = |status: Option<&str>, message: Option<&str>| {
        format!("{} {}", status.unwrap_or_default(), message.unwrap_or_default())
    };
    match site.pair.0 {
        Http1 => {
            let head = "Content-Type: application/grpc\r\nTE: trailers\r\nConnection: te\r\ngrpc-timeout: 100m\r\n";
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{head}Content-Length: 0\r\n\r\n");
            let answer = site.proxy.ask(request).await;
            (answer.status, text(answer.get("grpc-status"), answer.get("grpc-message")))
        }
        Http2 => {
            let client = H2Client::connect(&site.proxy.address()).await;
            let request = request("POST", path).header("content-type", "application/grpc");
            let request = request.header("te", "trailers").header("grpc-timeout", "100m").body(()).expect("a request");
            let answer = client.ask(request, None).await;
            (answer.status, text(answer.get("grpc-status"), answer.get("grpc-message")))
        }
    }
}
