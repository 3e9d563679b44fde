//! Retries on real sockets: what clients see of endpoints that fail, and what the endpoints see of retries.

mod storm;

use std::time::Duration;

use crate::harness::client::{Client, Load, Plan};
use crate::harness::config::Config;
use crate::harness::h2::{H2Client, request};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{until, within};

const EVERYTHING: &str = "on = [\"connect\", \"stale\", \"5xx\", \"reset\", \"timeout\"]\nbudget = \"100%\"\n";
/// Probes that never come a second time: whether an endpoint is tried is left to the requests.
const PROBED_ONCE: &str = "interval = \"1h\"\nfast_interval = \"1h\"\nrise = 1\nfall = 100";

/// What is spoken on a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

use Speaks::{Http1, Http2};

const PAIRS: [(Speaks, Speaks); 4] = [(Http1, Http1), (Http1, Http2), (Http2, Http1), (Http2, Http2)];

/// How an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    Status,
    Reset,
    Closes,
    Hangs,
    Refuses,
    /// Every stream; over HTTP/1.1 it just closes.
    RefusesStreams,
}

/// An endpoint of either protocol; another one is idle beside it.
struct Endpoint {
    speaks: Speaks,
    one: Upstream,
    two: Option<H2Server>,
}

impl Endpoint {
    async fn start(speaks: Speaks) -> Self {
        let one = Upstream::start(Behaviour::answer(200, &[], "hello")).await;
        Self { speaks, one, two: Some(H2Server::start(Options::default()).await) }
    }

    fn two(&self) -> &H2Server {
        self.two.as_ref().expect("still there")
    }

    fn address(&self) -> String {
        if self.speaks == Http1 { self.one.address() } else { self.two().address() }
    }

    fn arrived(&self) -> usize {
        if self.speaks == Http1 { self.one.arrived() } else { self.two().arrived() }
    }

    /// Fails every request from now on.
    async fn fail(&mut self, how: Fails) {
        let (behaviour, path) = match how {
            Fails::Status => (Behaviour::answer(503, &[], "no"), "/status/503"),
            Fails::Reset => (Behaviour::script([read_body(), Act::Reset]), "/reset"),
            Fails::Closes => (Behaviour::script([read_body(), Act::Close]), "/close"),
            Fails::RefusesStreams => (Behaviour::script([read_body(), Act::Close]), "/refuse"),
            Fails::Hangs => (Behaviour::hang(), "/hang"),
            Fails::Refuses => {
                self.one.stop().await;
                self.two = None;
                return;
            }
        };
        self.one.behave(behaviour);
        self.two().refuse(usize::MAX);
        self.two().always(path);
    }

    /// Answers the next request with 503, and the one after it with its body.
    fn fail_once_then_echo(&self) {
        let refusal = Behaviour::script([read_body(), answer(503, &[], "no")]);
        self.one.next([refusal, Behaviour::echo()]);
        self.two().next(&["/status/503", "/echo"]);
    }
}

fn config(base: Config, endpoints: &[String], speaks: Speaks, retry: &str) -> Config {
    let protocol = if speaks == Http1 { "http1" } else { "http2" };
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    base.web(&endpoints, &[])
        .set("services.web.upstream", &format!("protocol = \"{protocol}\"\nresponse_timeout = \"600ms\""))
        .set("services.web.upstream.retry", retry)
        .set("services.web.health", PROBED_ONCE)
}

/// The status and body of the answer to one request.
async fn ask(proxy: &Proxy, speaks: Speaks, method: &str, body: Option<&[u8]>) -> (u16, Vec<u8>) {
    match speaks {
        Http1 => {
            let mut client: Client = proxy.client().await;
            let length = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
            let head = format!("{method} / HTTP/1.1\r\nHost: test\r\n{length}\r\n");
            client.send([head.as_bytes(), body.unwrap_or_default()].concat()).await;
            let response = within("a response", client.try_response(method)).await.expect("a whole response");
            (response.status, response.body.bytes)
        }
        Http2 => {
            let client = H2Client::connect(&proxy.address()).await;
            let response = client.ask(request(method, "/").body(()).expect("a request"), body).await;
            (response.status, response.body)
        }
    }
}

async fn retries(proxy: &Proxy, reason: &str) -> f64 {
    proxy.admin.metric("tidegate_retries_total", &[&format!("reason=\"{reason}\"")]).await
}

#[tokio::test]
async fn one_endpoint_of_two_that_fails_is_not_seen_by_clients() {
    for pair in PAIRS {
        for (how, reason) in
            [(Fails::Status, "5xx"), (Fails::Reset, "reset"), (Fails::Hangs, "timeout"), (Fails::Refuses, "connect")]
        {
            let (good, mut bad) = (Endpoint::start(pair.1).await, Endpoint::start(pair.1).await);
            let endpoints = [good.address(), bad.address()];
            let retry = format!("attempts = 2\n{EVERYTHING}");
            let proxy = Proxy::start(|c| config(c, &endpoints, pair.1, &retry)).await;
            bad.fail(how).await;
            let mut asked = 0;
            // Until some went to the bad one first.
            while retries(&proxy, reason).await < 2.0 {
                assert!(asked < 64, "{pair:?} {how:?}: the bad one was never drawn");
                let (status, body) = ask(&proxy, pair.0, "GET", None).await;
                assert_eq!((status, body.as_slice()), (200, &b"hello"[..]), "{pair:?} {how:?}");
                asked += 1;
            }
            let bad_ones = proxy.admin.count("tidegate_bad_attempts_total").await;
            assert!((2..=asked).contains(&bad_ones), "{pair:?} {how:?}: {bad_ones} of {asked}");
        }
    }
}

#[tokio::test]
async fn an_outage_is_not_multiplied() {
    for speaks in [Http1, Http2] {
        let (mut one, mut two) = (Endpoint::start(speaks).await, Endpoint::start(speaks).await);
        let endpoints = [one.address(), two.address()];
        let retry = "attempts = 3\non = [\"5xx\"]\nbudget = \"20%\"\nmin_per_second = 0\nbackoff = \"1ms\"";
        let proxy = Proxy::start(|c| config(c, &endpoints, speaks, retry)).await;
        one.fail(Fails::Status).await;
        two.fail(Fails::Status).await;
        let tally = Load::run(&proxy.address(), &Plan::of(8, 1_000)).await;
        assert_eq!(tally.by_status, [(503, 1_000)].into(), "{speaks:?}: {:?}", tally.failures);
        let arrived = one.arrived() + two.arrived();
        assert!((1_050..=1_200).contains(&arrived), "{speaks:?}: {arrived} attempts for 1000 requests");
        assert!(proxy.admin.count("tidegate_retries_denied_total").await >= 800, "{speaks:?}");
    }
}

#[tokio::test]
async fn bodies_are_sent_again_up_to_their_bound_and_only_where_that_is_safe() {
    let (small, large) = (vec![b's'; 8 * 1024], vec![b'l'; 8 * 1024 + 1]);
    for pair in PAIRS {
        let endpoint = Endpoint::start(pair.1).await;
        let retry = format!("max_body = \"8KiB\"\n{EVERYTHING}");
        let proxy = Proxy::start(|c| config(c, &[endpoint.address()], pair.1, &retry)).await;
        for (method, body, status, times) in
            [("PUT", &small, 200, 2), ("PUT", &large, 503, 1), ("POST", &small, 503, 1), ("DELETE", &small, 200, 2)]
        {
            let before = endpoint.arrived();
            endpoint.fail_once_then_echo();
            let (seen, answered) = ask(&proxy, pair.0, method, Some(body)).await;
            let case = format!("{pair:?} {method} of {} bytes", body.len());
            assert_eq!((seen, endpoint.arrived() - before), (status, times), "{case}");
            assert!(status != 200 || answered.ends_with(body), "{case}: the body came whole");
            if times == 1 {
                // What was to come second.
                assert_eq!(ask(&proxy, pair.0, method, Some(&small)).await.0, 200, "{case}");
            }
        }
    }
}

/// A body of unknown length is kept as it comes, and forgotten when it becomes too long.
#[tokio::test]
async fn chunked_bodies_are_bounded_too() {
    let endpoint = Endpoint::start(Http1).await;
    let retry = format!("max_body = \"1KiB\"\n{EVERYTHING}");
    let proxy = Proxy::start(|c| config(c, &[endpoint.address()], Http1, &retry)).await;
    let head = "PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (size, status) in [(1_024, 200), (1_025, 503)] {
        endpoint.fail_once_then_echo();
        let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "c".repeat(size));
        assert_eq!(proxy.ask(format!("{head}{body}")).await.status, status, "{size} bytes");
    }
}

#[tokio::test]
async fn an_abort_during_the_wait_keeps_every_retry_off_the_candidate() {
    for speaks in [Http1, Http2] {
        let (stable, mut candidate) = (Endpoint::start(speaks).await, Endpoint::start(speaks).await);
        let (of_stable, of_candidate) = (stable.address(), candidate.address());
        let retry = format!("attempts = 5\nbackoff = \"10s\"\n{EVERYTHING}");
        let proxy = Proxy::start(|c| {
            let base = config(c, std::slice::from_ref(&of_stable), speaks, &retry);
            base.pools("web", ("v1", &[&of_stable]), ("v2", &[&of_candidate]))
                .set("services.web.upstream", "response_timeout = \"60s\"")
        })
        .await;
        candidate.fail(Fails::Status).await;
        proxy.admin.weight("web", "100%").await;
        let load = Load::start(&proxy.address(), &Plan::of(8, 8));
        until("every request at the candidate", || candidate.arrived() >= 8).await;
        proxy.admin.abort("web").await;
        let arrived = candidate.arrived();
        let tally = within("the answers of stable", load.join()).await;
        tally.assert_clean();
        assert_eq!((tally.responses, candidate.arrived()), (8, arrived), "{speaks:?}: an attempt after the abort");
        assert!(stable.arrived() >= 8, "{speaks:?}");
        let of_variant = async |variant| proxy.admin.metric("tidegate_bad_attempts_total", &[variant]).await;
        assert!((of_variant("variant=\"candidate\"").await - 8.0).abs() < 0.5, "{speaks:?}");
        assert!(of_variant("variant=\"stable\"").await < 0.5, "{speaks:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_the_wait_is_noticed() {
    let mut endpoint = Endpoint::start(Http1).await;
    let retry = format!("attempts = 5\nbackoff = \"10s\"\n{EVERYTHING}");
    let proxy = Proxy::start(|c| {
        config(c, &[endpoint.address()], Http1, &retry).set("services.web.upstream", "response_timeout = \"60s\"")
    })
    .await;
    endpoint.fail(Fails::Status).await;
    let client = H2Client::connect(&proxy.address()).await;
    let mut parked = Vec::new();
    for _ in 0..8 {
        parked.push(client.begin(request("GET", "/").body(()).expect("a request"), true).await);
    }
    until("the requests at the endpoint", || endpoint.arrived() >= 8).await;
    for exchange in parked {
        exchange.reset(h2::Reason::CANCEL);
    }
    let aborted = || async {
        let count = proxy.admin.metric("tidegate_terminations_total", &["code=\"CA\""]).await;
        (count > 7.5).then_some(())
    };
    crate::harness::wait::eventually(Duration::from_secs(5), "the clients' leaving to be noticed", aborted).await;
    assert!(proxy.admin.metric("tidegate_in_flight_requests", &[]).await < 0.5);
}

#[tokio::test]
async fn nothing_is_sent_again_once_an_interim_response_was_passed() {
    let endpoint = Endpoint::start(Http1).await;
    let proxy = Proxy::start(|c| {
        config(c, &[endpoint.address()], Http1, &format!("attempts = 3\n{EVERYTHING}")).set("runtime", "workers = 1")
    })
    .await;
    assert_eq!(ask(&proxy, Http1, "GET", None).await.0, 200, "from here on there is an idle connection");
    let hints = Act::Write(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec());
    endpoint.one.next([Behaviour::script([read_body(), hints, Act::Close])]);
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.interim.len(), endpoint.arrived()), (502, 1, 2));
}

#[tokio::test]
async fn the_access_log_tells_of_every_attempt() {
    let (good, mut bad) = (Endpoint::start(Http1).await, Endpoint::start(Http1).await);
    let endpoints = [good.address(), bad.address()];
    let retry = format!("attempts = 1\n{EVERYTHING}");
    let mut log = std::path::PathBuf::new();
    let proxy = Proxy::start(|c| {
        let c = config(c, &endpoints, Http1, &retry);
        c.set("log.access", "enabled = true\npath = \"access.log\"")
    })
    .await;
    log.push(proxy.dir.path().join("access.log"));
    bad.fail(Fails::Status).await;
    while retries(&proxy, "5xx").await < 1.0 {
        assert_eq!(ask(&proxy, Http1, "GET", None).await.0, 200);
    }
    let told = format!(
        r#""attempts":2,"retries":1,"failed":[{{"variant":"stable","endpoint":"{}","how":"503"}}]"#,
        bad.address()
    );
    until("the line", || std::fs::read_to_string(&log).is_ok_and(|lines| lines.contains(&told))).await;
    let lines = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(lines.matches("\"failed\":[{").count(), 1, "{lines}");
}
