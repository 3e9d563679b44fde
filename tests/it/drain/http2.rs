//! Drains of endpoints that speak HTTP/2: the session stays for what is in flight on it and takes nothing new.

use std::time::Duration;

use super::{drain, verb};
use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::h2::{H2Server, Options};
use crate::harness::wait::{quiet, until};

/// One worker, so that everything shares its sessions; every endpoint gets its turn.
fn http2(config: Config, servers: &[H2Server; 2], lines: &str) -> Config {
    config
        .web(&[&servers[0].address(), &servers[1].address()], &[])
        .set("services.web.upstream", "protocol = \"http2\"\nbalance = \"round_robin\"")
        .set("services.web.upstream", lines)
        .set("runtime", "workers = 1")
}

async fn servers() -> [H2Server; 2] {
    [H2Server::start(Options::default()).await, H2Server::start(Options::default()).await]
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

#[tokio::test]
async fn a_drained_session_finishes_what_it_has_and_takes_nothing_new() {
    let servers = servers().await;
    let proxy = Proxy::start(|c| http2(c, &servers, "")).await;
    // Whatever path is asked for, the first to come to either is held.
    for server in &servers {
        server.next(&["/hold"]);
    }
    let mut holding = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.client().await;
        client.send(get("/held")).await;
        holding.push(client);
    }
    for server in &servers {
        server.has(1).await;
    }
    let load = Load::start(&proxy.address(), &Plan { sessions: 4, ..Plan::default() });
    load.progress(100).await;
    let address = servers[0].address();
    let answer = drain(&proxy, &address).await;
    assert!(answer["in_flight"].as_u64() >= Some(1), "{answer}");
    // What had begun before the answer arrives and ends; what is held alone stays.
    until("all others to end", || servers[0].in_flight() == 1).await;
    load.progress(20).await;
    let arrived = servers[0].arrived();
    load.progress(200).await;
    assert_eq!((servers[0].arrived(), servers[0].open(), servers[0].in_flight()), (arrived, 1, 1), "one is held");
    servers.iter().for_each(H2Server::release);
    for mut client in holding {
        assert_eq!(client.response().await.text(), "hello", "nobody was cut");
    }
    servers[0].all_closed().await;
    let sessions = servers[0].accepted();
    load.progress(50).await;
    assert_eq!(servers[0].accepted(), sessions);
    let (status, body) = verb(&proxy, &address, "undrain", "{}").await;
    assert_eq!((status, &body["drained"]), (200, &false.into()), "{body}");
    until("requests on a new session", || servers[0].accepted() > sessions && servers[0].arrived() > arrived + 10)
        .await;
    load.stop().await.assert_clean();
}

#[tokio::test]
async fn what_does_not_end_within_the_drain_timeout_is_cut() {
    let servers = servers().await;
    let proxy = Proxy::start(|c| http2(c, &servers, "drain_timeout = \"200ms\"")).await;
    let address = servers[0].address();
    servers[0].next(&["/hang"]);
    let mut hanging = loop {
        let others = servers[1].arrived();
        let mut client = proxy.client().await;
        client.send(get("/")).await;
        until("it to arrive", || servers[0].arrived() == 1 || servers[1].arrived() > others).await;
        if servers[0].arrived() == 1 {
            break client;
        }
    };
    quiet(Duration::from_millis(400), "nothing is cut before", servers[0].all_closed()).await;
    drain(&proxy, &address).await;
    servers[0].all_closed().await;
    assert_eq!(hanging.response().await.status, 503);
    assert_eq!(proxy.ask(get("/")).await.status, 200, "the other one serves");
    let (status, _) = verb(&proxy, &address, "undrain", "{}").await;
    assert_eq!(status, 200);
    let arrived = servers[0].arrived();
    Load::run(&proxy.address(), &Plan::of(2, 20)).await.assert_clean();
    assert!(servers[0].arrived() > arrived, "a new session");
}
