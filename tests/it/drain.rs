//! Endpoints that are drained by command, and what leaves with the file: no new attempts, what is in flight finishes, all of it visible.

mod http2;

use std::time::Duration;

use serde_json::Value;
use tidegate::clock;

use crate::harness::client::{Load, Plan, WebSocket};
use crate::harness::config::Config;
use crate::harness::proxy::{Process, Proxy, Site};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, quiet, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn pair(behaviour: fn() -> Behaviour) -> [Upstream; 2] {
    [Upstream::start(behaviour()).await, Upstream::start(behaviour()).await]
}

fn v1() -> Behaviour {
    Behaviour::version("v1")
}

fn pool(config: Config, upstreams: &[Upstream], lines: &str) -> Config {
    let addresses: Vec<String> = upstreams.iter().map(Upstream::address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    config.web(&addresses, &[]).set("services.web.upstream", lines)
}

/// The status and body of a verb on an endpoint of `web`.
async fn verb(site: &Site, endpoint: &str, verb: &str, body: &str) -> (u16, Value) {
    let answer = site.admin.post(&format!("/v1/services/web/endpoints/{endpoint}/{verb}"), body).await;
    (answer.status, serde_json::from_str(answer.text()).expect("JSON"))
}

async fn drain(site: &Site, endpoint: &str) -> Value {
    let (status, body) = verb(site, endpoint, "drain", "{}").await;
    assert_eq!((status, &body["drained"], &body["settled"]), (200, &true.into(), &true.into()), "{body}");
    body
}

#[tokio::test]
async fn a_drained_endpoint_gets_nothing_new_and_comes_back() {
    let upstreams = pair(v1).await;
    let proxy = Proxy::start(|c| pool(c, &upstreams, "balance = \"round_robin\"")).await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 4, ..Plan::default() });
    load.progress(100).await;
    let answer = drain(&proxy, &upstreams[0].address()).await;
    assert!(answer["since_ms"].as_u64() > Some(1_000_000) && answer["generation"] == 1, "{answer}");
    until("its connections to be closed", || upstreams[0].open() == 0).await;
    let arrived = upstreams[0].arrived();
    load.progress(200).await;
    assert_eq!(upstreams[0].arrived(), arrived);
    let endpoint = proxy.admin.endpoint(&upstreams[0].address()).await;
    assert_eq!((&endpoint["drained_since_ms"], &endpoint["health"]), (&answer["since_ms"], &"ready".into()));
    assert_eq!(proxy.admin.count("tidegate_endpoint_drained").await, 1);
    // A reload changes nothing about it.
    let lines = "balance = \"round_robin\"\nconnect_timeout = \"900ms\"";
    proxy.reload_ok(&pool(proxy.base.clone(), &upstreams, lines)).await;
    load.progress(100).await;
    assert_eq!(upstreams[0].arrived(), arrived);
    let (status, body) = verb(&proxy, &upstreams[0].address(), "undrain", "{\"reason\":\"repaired\"}").await;
    assert_eq!((status, &body["drained"]), (200, &false.into()), "{body}");
    until("it to get requests again", || upstreams[0].arrived() > arrived + 10).await;
    load.stop().await.assert_clean();
    let status = proxy.admin.status().await;
    let events = status["events"].as_array().expect("events");
    let told = events.iter().find(|event| event["what"] == "endpoint_undrained").expect("an event");
    assert_eq!(told["detail"], format!("v1 {}: repaired", upstreams[0].address()));
}

/// The command is about a place, so a release there does not undo it, and the answer of the reload says so.
#[tokio::test]
async fn a_release_at_the_same_place_does_not_undo_a_drain() {
    let upstreams = pair(v1).await;
    let proxy = Proxy::start(|c| pool(c, &upstreams, "balance = \"round_robin\"")).await;
    proxy.ask(GET).await;
    proxy.ask(GET).await;
    let since = drain(&proxy, &upstreams[0].address()).await["since_ms"].clone();
    let arrived = upstreams[0].arrived();
    let addresses = [upstreams[0].address(), upstreams[1].address()];
    let release =
        proxy.base.clone().route("service = \"web\"").set("services.web.upstream", "balance = \"round_robin\"");
    let file = release.pools("web", ("v2", &[&addresses[0], &addresses[1]]), ("v3", &[]));
    let answer = proxy.reload(&file.text()).await;
    let told = format!("services.web: {} stays drained, as version v2", addresses[0]);
    let status = proxy.admin.status().await["events"].to_string();
    assert!(answer.text().contains(&told) || status.contains(&told), "{}", answer.text());
    let promote = "{\"to\":\"full\",\"force\":true,\"reason\":\"a test\"}";
    let promoted = proxy.admin.post("/v1/services/web/promote", promote).await;
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    proxy.admin.until_health(&addresses[0], "ready").await;
    proxy.admin.until_health(&addresses[1], "ready").await;
    Load::run(&proxy.address(), &Plan::of(4, 100)).await.assert_clean();
    assert_eq!(upstreams[0].arrived(), arrived);
    assert_eq!(proxy.admin.endpoint(&addresses[0]).await["drained_since_ms"], since);
    verb(&proxy, &addresses[0], "undrain", "{}").await;
    Load::run(&proxy.address(), &Plan::of(4, 20)).await.assert_clean();
    assert!(upstreams[0].arrived() > arrived);
}

#[tokio::test]
async fn what_is_in_flight_finishes_within_the_drain_timeout() {
    let (behaviour, feed) = Behaviour::sse();
    let upstreams = pair(v1).await;
    upstreams[0].behave(behaviour);
    let proxy = Proxy::start(|c| pool(c, &upstreams, "balance = \"round_robin\"\ndrain_timeout = \"700ms\"")).await;
    let mut client = proxy.client().await;
    while upstreams[0].arrived() == 0 {
        client = proxy.client().await;
        client.send(GET).await;
        client.head().await;
    }
    feed.send(b"one".to_vec()).await.expect("sent");
    assert_eq!(client.chunk().await.expect("a chunk"), b"one");
    let answer = drain(&proxy, &upstreams[0].address()).await;
    assert_eq!(answer["in_flight"], 1);
    feed.send(b"two".to_vec()).await.expect("sent");
    assert_eq!(client.chunk().await.expect("a chunk"), b"two", "in flight goes on");
    let began = clock::now();
    client.rest().await;
    assert!(began.elapsed() > Duration::from_millis(300), "not before its time: {:?}", began.elapsed());
    eventually(WAIT_MAX, "nothing in flight", || async {
        (proxy.admin.endpoint(&upstreams[0].address()).await["in_flight"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn websockets_are_closed_with_1001_when_their_time_is_over_and_stay_if_it_is_taken_back() {
    let upstreams = pair(Behaviour::websocket).await;
    let proxy = Proxy::start(|c| pool(c, &upstreams, "balance = \"round_robin\"\nwebsocket_drain = \"500ms\"")).await;
    let open = async || {
        WebSocket::open(&proxy.address(), "/ws", "").await.unwrap_or_else(|refused| panic!("{}", refused.status))
    };
    let mut sockets = Vec::new();
    while upstreams[0].arrived() == 0 || upstreams[1].arrived() == 0 {
        let before = upstreams[0].arrived();
        let mut socket = open().await;
        socket.echo("hello").await;
        sockets.push((upstreams[0].arrived() > before, socket));
    }
    drain(&proxy, &upstreams[0].address()).await;
    verb(&proxy, &upstreams[0].address(), "undrain", "{}").await;
    for (on_drained, socket) in &mut sockets {
        quiet(Duration::from_millis(300), "no close", socket.receive()).await;
        if *on_drained {
            socket.echo("still here").await;
        }
    }
    drain(&proxy, &upstreams[0].address()).await;
    for (on_drained, mut socket) in sockets {
        if on_drained {
            let frame = socket.receive().await.expect("a close");
            assert_eq!(frame.payload[..2], 1001_u16.to_be_bytes());
        } else {
            socket.echo("untouched").await;
        }
    }
}

#[tokio::test]
async fn the_last_usable_endpoint_of_stable_is_refused_without_force() {
    let upstreams = pair(v1).await;
    let candidate = Upstream::start(Behaviour::version("v2")).await;
    let proxy =
        Proxy::start(|c| c.web(&[&upstreams[0].address(), &upstreams[1].address()], &[&candidate.address()])).await;
    drain(&proxy, &upstreams[0].address()).await;
    let last = upstreams[1].address();
    let (status, body) = verb(&proxy, &last, "drain", "{\"reason\":\"tired\"}").await;
    assert_eq!((status, &body["type"]), (409, &"urn:tidegate:problem:last-endpoint".into()), "{body}");
    let (status, body) = verb(&proxy, &last, "drain", "{\"force\":true}").await;
    assert!(status == 422 && body["detail"].as_str().expect("words").contains("reason"), "{body}");
    assert_eq!(proxy.ask(GET).await.status, 200);
    // A candidate that is drained is not charged, its users are with stable.
    proxy.admin.weight("web", "100%").await;
    drain(&proxy, &candidate.address()).await;
    Load::run(&proxy.address(), &Plan::of(2, 20)).await.assert_clean();
    assert_eq!(proxy.admin.count("tidegate_bad_attempts_total").await, 0);
    let (status, _) = verb(&proxy, &last, "drain", "{\"force\":true,\"reason\":\"fire\"}").await;
    assert_eq!((status, proxy.ask(GET).await.status), (200, 503));
    let (status, body) = verb(&proxy, "127.0.0.1:1", "drain", "{}").await;
    assert!(status == 404 && body["known"].as_array().expect("those there are").len() == 3, "{body}");
    let (status, _) = verb(&proxy, &last, "undrain", "{\"force\":true}").await;
    assert_eq!(status, 400, "an unknown field");
}

/// A pool that leaves with the file is visible until its last request is over.
#[tokio::test]
async fn what_leaves_with_the_file_is_visible_while_it_drains() {
    let (behaviour, feed) = Behaviour::sse();
    let (stable, candidate) = (Upstream::start(v1()).await, Upstream::start(behaviour).await);
    let proxy = Proxy::start(|c| c.web(&[&stable.address()], &[&candidate.address()])).await;
    proxy.admin.weight("web", "100%").await;
    let mut client = proxy.client().await;
    client.send(GET).await;
    client.head().await;
    proxy.reload_ok(&proxy.base.clone().web(&[&stable.address()], &[])).await;
    let draining = proxy.admin.status().await["draining"].clone();
    assert_eq!(draining.as_array().expect("a list").len(), 1, "{draining}");
    let one = &draining[0];
    assert_eq!((&one["service"], &one["version"], &one["variant"]), (&"web".into(), &"v2".into(), &"candidate".into()));
    assert_eq!((&one["address"], &one["in_flight"]), (&candidate.address().into(), &1.into()));
    let now = u64::try_from(clock::unix_time().as_millis()).expect("a time");
    assert!(one["since_ms"].as_u64().is_some_and(|at| at <= now && now - at < 10_000), "{one}");
    drop(feed);
    assert_eq!(client.chunk().await, None);
    eventually(WAIT_MAX, "nothing left", || async {
        (proxy.admin.status().await["draining"] == Value::Array(Vec::new())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_command_line_uses_the_same_words() {
    let upstreams = pair(v1).await;
    let process = Process::start(|c| pool(c, &upstreams, "")).await;
    let run = async |verb: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["endpoint", verb, "web", &upstreams[0].address(), "--admin", &process.admin.address]).args(more);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let address = upstreams[0].address();
    let (done, text) = run("drain", &["--reason", "disk"]).await;
    assert_eq!((done, text), (true, format!("web: {address} drained, nothing in flight\n")));
    let (done, text) = run("undrain", &["--json"]).await;
    assert!(done && text.contains("\"drained\":false"), "{text}");
    let (status, _) = verb(&process, &upstreams[1].address(), "drain", "{}").await;
    assert_eq!(status, 200);
    let (done, text) = run("drain", &[]).await;
    assert!(!done && text.contains("the last usable endpoint of stable"), "{text}");
}
