//! Reloads, weight changes and a drain under HTTP/2 traffic, to HTTP/1.1 and to HTTP/2 upstreams: no request may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::harness::config::Config;
use crate::harness::h2::{H2Client, get};
use crate::harness::proxy::Process;
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{eventually, within_time};

/// Reloads and weight changes.
const CHANGES: u64 = 1_000;
/// Longest time for all of them.
const CHANGES_MAX: Duration = Duration::from_secs(300);
const CONNECTIONS: usize = 4;
const STREAMS: usize = 4;

/// Requests served to all clients.
#[derive(Default)]
struct Traffic {
    served: AtomicU64,
}

/// Asks again and again, on several streams of one connection after the other. A request that the proxy says it never took is no
/// failure; every other one without a whole response is.
async fn keep_asking(address: String, traffic: Arc<Traffic>) -> Result<(), String> {
    while let Some(client) = H2Client::try_connect(&address).await {
        while ask_on_all_streams(&client, &traffic).await? {}
    }
    Ok(())
}

/// One request on each stream, all at once; whether the connection takes more.
async fn ask_on_all_streams(client: &H2Client, traffic: &Traffic) -> Result<bool, String> {
    let mut flying = Vec::new();
    for n in 0..STREAMS {
        let path = ["/", "/rpc"][n % 2];
        match client.try_begin(get(path), true).await {
            Ok(exchange) => flying.push((path, exchange)),
            Err(_) => break,
        }
    }
    let mut open = flying.len() == STREAMS;
    for (path, exchange) in flying {
        match exchange.response().await {
            Ok(response) if response.status == 200 => drop(traffic.served.fetch_add(1, Ordering::Relaxed)),
            Ok(response) => return Err(format!("{path}: {} {}", response.status, response.text())),
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => open = false,
            Err(error) => return Err(format!("{path}: {error:?}")),
        }
    }
    Ok(open)
}

#[tokio::test]
async fn a_thousand_changes_and_a_drain_fail_no_request() {
    let plain = [Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await];
    let spoken = [H2Server::start(Options::default()).await, H2Server::start(Options::default()).await];
    let build = |base: Config, turn: u64| {
        let timeout = format!("connect_timeout = \"{}ms\"", 1_000 + turn % 2);
        base.route("path_prefix = \"/rpc\"\nservice = \"rpc\"")
            .web(&[&plain[0].address()], &[&plain[1].address()])
            .pools("rpc", ("v1", &[&spoken[0].address()]), ("v2", &[&spoken[1].address()]))
            .set("services.web.upstream", &timeout)
            .set("services.rpc.upstream", &format!("protocol = \"http2\"\n{timeout}"))
    };
    let mut process = Process::start(|base| build(base, 0)).await;
    let traffic = Arc::<Traffic>::default();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(keep_asking(process.address(), Arc::clone(&traffic)));
    }
    within_time(CHANGES_MAX, "all changes", async {
        for turn in 1..=CHANGES {
            process.reload_ok(&build(process.base.clone(), turn)).await;
            for service in ["web", "rpc"] {
                process.admin.weight(service, if turn % 2 == 0 { "10%" } else { "60%" }).await;
            }
        }
    })
    .await;
    let served = traffic.served.load(Ordering::Relaxed);
    assert!(served > CHANGES, "only {served} requests were served meanwhile");
    eventually(Duration::from_secs(10), "traffic after the changes", || async {
        (traffic.served.load(Ordering::Relaxed) > served + 100).then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    while let Some(ended) = clients.join_next().await {
        assert_eq!(ended.expect("no panic"), Ok(()));
    }
    assert!(process.exit().await.success(), "{}", process.log());
}
