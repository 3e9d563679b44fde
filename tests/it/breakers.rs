//! Circuit breakers on real sockets: limits hold exactly over two workers, what is beyond them is refused at once, and it recovers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::clock;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::harness::client::{Client, Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::{Admin, Proxy};
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{eventually, until};

const AT_ONCE: Duration = Duration::from_millis(900);
/// How long a slow endpoint takes: longer than "at once".
const SLOW: Duration = Duration::from_secs(2);

fn slow() -> Behaviour {
    Behaviour::script([read_body(), Act::Pause(SLOW), answer(200, &[], "hello")])
}

fn config(base: Config, endpoints: &[&str], upstream: &str) -> Config {
    let usual = "connect_timeout = \"10s\"\nresponse_timeout = \"20s\"";
    let never = "interval = \"1h\"\nfast_interval = \"1h\"\nrise = 1\nfall = 100";
    base.web(endpoints, &[])
        .set("services.web.upstream", usual)
        .set("services.web.upstream", upstream)
        .set("services.web.health", never)
}

/// So many requests at the same time, each on a connection of its own: status and time of each.
fn ask_all(proxy: &Proxy, count: usize, path: &str) -> JoinSet<(u16, Duration)> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (address, request) = (proxy.address(), format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        asked.spawn(async move {
            let mut client = Client::connect(&address).await;
            let began: Instant = clock::now();
            client.send(request).await;
            (client.response().await.status, began.elapsed())
        });
    }
    asked
}

async fn of_limit(admin: &Admin, metric: &str, limit: &str) -> f64 {
    admin.metric(metric, &[&format!("limit=\"{limit}\""), "variant=\"stable\""]).await
}

async fn until_used(admin: &Admin, limit: &str, count: f64) {
    eventually(Duration::from_secs(8), &format!("{count} {limit} in use"), || async {
        let used = of_limit(admin, "tidegate_pool_use", limit).await;
        ((used - count).abs() < 0.5).then_some(())
    })
    .await;
}

/// A request is counted once its answer is written: its client may be faster.
async fn until_terminated(admin: &Admin, code: &str, count: f64) {
    eventually(Duration::from_secs(8), &format!("{count} requests ended with {code}"), || async {
        near(terminations(admin, code).await, count).then_some(())
    })
    .await;
}

async fn terminations(admin: &Admin, code: &str) -> f64 {
    admin.metric("tidegate_terminations_total", &[&format!("code=\"{code}\"")]).await
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_at_once() {
    let one = Upstream::start(slow()).await;
    let two = H2Server::start(Options::default()).await;
    for (address, protocol) in [(one.address(), "http1"), (two.address(), "http2")] {
        let upstream = format!("protocol = \"{protocol}\"\nmax_requests = 4");
        let proxy = Proxy::start(|c| config(c, &[&address], &upstream)).await;
        let mut asked = ask_all(&proxy, 16, "/hold");
        let mut statuses = Vec::new();
        while statuses.len() < 12 {
            let (status, took) = asked.join_next().await.expect("more").expect("no panic");
            assert!(status == 503 && took < AT_ONCE, "{protocol}: {status} after {took:?}");
            statuses.push(status);
        }
        assert!(near(of_limit(&proxy.admin, "tidegate_pool_use", "requests").await, 4.0), "{protocol}");
        if protocol == "http2" {
            two.release();
        }
        while let Some(ended) = asked.join_next().await {
            assert_eq!(ended.expect("no panic").0, 200, "{protocol}");
        }
        assert!(near(terminations(&proxy.admin, "PQ").await, 12.0), "{protocol}");
        assert!(near(of_limit(&proxy.admin, "tidegate_pool_overflows_total", "requests").await, 12.0));
        assert_eq!(proxy.admin.count("tidegate_attempts_total").await, 4, "{protocol}: nobody else was exposed");
        assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0, "{protocol}: nobody is to blame");
        until_used(&proxy.admin, "requests", 0.0).await;
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 200, "{protocol}: recovered");
    }
}

#[tokio::test]
async fn so_many_wait_for_a_connection_and_the_others_are_refused_at_once() {
    let endpoint = Upstream::start(slow()).await;
    let upstream = "max_connections = 2\nmax_pending = 3";
    let proxy = Proxy::start(|c| config(c, &[&endpoint.address()], upstream)).await;
    let mut asked = ask_all(&proxy, 9, "/");
    for _ in 0..4 {
        let (status, took) = asked.join_next().await.expect("more").expect("no panic");
        assert!(status == 503 && took < AT_ONCE, "{status} after {took:?}");
    }
    let used = |limit| of_limit(&proxy.admin, "tidegate_pool_use", limit);
    assert!(near(used("connections").await, 2.0) && near(used("pending").await, 3.0));
    let web = proxy.admin.json("/v1/services/web").await;
    assert_eq!(web["stable"]["limits"]["pending"], serde_json::json!({ "used": 3, "max": 3, "overflows": 4 }));
    let mut most = 0.0_f64;
    while let Some(ended) = asked.join_next().await {
        assert_eq!(ended.expect("no panic").0, 200);
        most = most.max(used("connections").await);
    }
    assert!(most <= 2.0, "{most} connections");
    assert!(near(terminations(&proxy.admin, "PP").await, 4.0));
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
    until_used(&proxy.admin, "pending", 0.0).await;
    endpoint.behave(Behaviour::answer(200, &[], "hello"));
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_wait_ends_with_the_connect_timeout_and_blames_nobody() {
    let one = Upstream::start(slow()).await;
    let two = H2Server::start(Options::streams(1)).await;
    for (address, protocol) in [(one.address(), "http1"), (two.address(), "http2")] {
        let upstream = format!("protocol = \"{protocol}\"\nmax_connections = 1\nconnect_timeout = \"300ms\"");
        let proxy = Proxy::start(|c| config(c, &[&address], &upstream)).await;
        let mut first = ask_all(&proxy, 1, "/hold");
        until_used(&proxy.admin, "requests", 1.0).await;
        let arrived = || if protocol == "http1" { one.arrived() } else { two.arrived() };
        until("the first at the endpoint", || arrived() > 0).await;
        let response = proxy.ask("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(response.status, 503, "{protocol}");
        until_terminated(&proxy.admin, "PC", 1.0).await;
        assert!(near(of_limit(&proxy.admin, "tidegate_pool_overflows_total", "connections").await, 1.0), "{protocol}");
        assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0, "{protocol}");
        if protocol == "http2" {
            two.release();
        }
        assert_eq!(first.join_next().await.expect("one").expect("no panic").0, 200, "{protocol}");
    }
}

/// One connection for two workers and two endpoints: whoever has it idle gives it up, and nobody that waits is forgotten.
#[tokio::test]
async fn one_connection_goes_round_all_workers_and_endpoints() {
    for protocol in ["http1", "http2"] {
        let (mut ones, mut twos) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            ones.push(Upstream::start(Behaviour::answer(200, &[], "hello")).await);
            twos.push(H2Server::start(Options::default()).await);
        }
        let addresses: Vec<String> = match protocol {
            "http1" => ones.iter().map(Upstream::address).collect(),
            _ => twos.iter().map(H2Server::address).collect(),
        };
        let upstream = format!("protocol = \"{protocol}\"\nmax_connections = 1");
        let endpoints: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let proxy = Proxy::start(|c| config(c, &endpoints, &upstream)).await;
        let load = Load::start(&proxy.address(), &Plan::of(8, 400));
        let mut most = 0.0_f64;
        while load.responses() < 400 {
            most = most.max(of_limit(&proxy.admin, "tidegate_pool_use", "connections").await);
            assert!(most <= 1.0, "{protocol}: {most} connections");
        }
        let tally = load.join().await;
        tally.assert_clean();
        assert!(tally.slowest < Duration::from_secs(5), "{protocol}: {:?}", tally.slowest);
        until_used(&proxy.admin, "pending", 0.0).await;
    }
}

#[tokio::test]
async fn limits_are_changed_by_a_reload() {
    let endpoint = Upstream::start(slow()).await;
    let proxy = Proxy::start(|c| config(c, &[&endpoint.address()], "max_requests = 1")).await;
    let mut first = ask_all(&proxy, 1, "/");
    until_used(&proxy.admin, "requests", 1.0).await;
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 503);
    proxy.reload_ok(&config(proxy.base.clone(), &[&endpoint.address()], "max_requests = 2")).await;
    assert!(near(of_limit(&proxy.admin, "tidegate_pool_limit", "requests").await, 2.0));
    assert_eq!(
        proxy.ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.status,
        200,
        "what was in flight still counts, below two"
    );
    assert_eq!(first.join_next().await.expect("one").expect("no panic").0, 200);
}

/// The endpoint of a gRPC call that waited here has that much less time for it.
#[tokio::test]
async fn a_call_that_waited_says_what_is_left_of_its_time() {
    let gate = Arc::new(Mutex::new(()));
    let turn = Act::Turn(Arc::clone(&gate), Duration::ZERO);
    let upstream = Upstream::start(Behaviour::script([read_body(), turn, answer(200, &[], "hello")])).await;
    let proxy = Proxy::start(|c| config(c, &[&upstream.address()], "max_connections = 1")).await;
    let held = gate.lock().await;
    let mut asked = JoinSet::new();
    for pending in [0.0, 1.0] {
        let address = proxy.address();
        asked.spawn(async move {
            let mut client = Client::connect(&address).await;
            let fields = "Content-Type: application/grpc\r\ngrpc-timeout: 60S\r\nContent-Length: 0";
            client.send(format!("POST /call HTTP/1.1\r\nHost: test\r\n{fields}\r\n\r\n")).await;
            client.response().await.status
        });
        until("the first call at the upstream", || upstream.arrived() == 1).await;
        until_used(&proxy.admin, "pending", pending).await;
    }
    let waiting = clock::now();
    until("some time to wait", || waiting.elapsed() > Duration::from_millis(2)).await;
    drop(held);
    assert_eq!(asked.join_all().await, [200, 200]);
    let told: Vec<String> = upstream
        .requests()
        .iter()
        .map(|request| request.head.get("grpc-timeout").expect("a timeout").to_owned())
        .collect();
    let left: u64 = told[1].strip_suffix('u').expect("microseconds").parse().expect("a number");
    assert!((told[0].ends_with('S') || told[0].ends_with('u')) && left < 59_998_000, "{told:?}");
}
