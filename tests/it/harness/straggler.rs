//! A pool of four of which one endpoint is ten times slower. Each serves one request at a time, and requests come whether earlier ones
//! were answered or not, as users do: an endpoint that gets more than it can serve falls behind for good. The integration tests and the
//! benchmark of the balances measure the same.

use std::sync::Arc;
use std::time::Duration;

use tidegate::clock;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::client::Client;
use super::proxy::Proxy;
use super::upstream::{Act, Behaviour, Upstream, answer, read_body};
use super::wait::pause;

/// Endpoints, one of which is slow.
const ENDPOINTS: usize = 4;
/// What one of the others takes for a request.
const FAST: Duration = Duration::from_millis(4);
/// What the slow one takes.
const SLOW: Duration = Duration::from_millis(40);
/// Time from one request to the next: for the slow one a fourth of them is 1.6 times what it can serve, for the others a sixth.
const EVERY: Duration = Duration::from_micros(6_250);

/// How long each of `requests` took from when it was due until its response had come, shortest first, through `balance`.
pub(crate) async fn latencies(balance: &str, requests: u32) -> Vec<Duration> {
    let mut upstreams = Vec::new();
    for endpoint in 0..ENDPOINTS {
        let work = Act::Turn(Arc::new(Mutex::new(())), if endpoint == 0 { SLOW } else { FAST });
        upstreams.push(Upstream::start(Behaviour::script([read_body(), work, answer(200, &[], "")])).await);
    }
    let addresses: Vec<String> = upstreams.iter().map(Upstream::address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let proxy = Proxy::start(|config| {
        config.web(&addresses, &[]).set("services.web.upstream", &format!("balance = {balance:?}"))
    })
    .await;
    let (began, mut under_way) = (clock::now(), JoinSet::new());
    for n in 0..requests {
        let (due, address) = (began + EVERY * n, proxy.address());
        pause(due.saturating_duration_since(clock::now())).await;
        under_way.spawn(async move {
            let mut client = Client::connect(&address).await;
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
            due.elapsed()
        });
    }
    let mut latencies = under_way.join_all().await;
    latencies.sort_unstable();
    latencies
}

/// What all but one in a hundred of `latencies` are below.
pub(crate) fn p99(latencies: &[Duration]) -> Duration {
    latencies[latencies.len() * 99 / 100]
}
