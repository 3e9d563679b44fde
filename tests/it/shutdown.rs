//! The end of the process: what is established is served, what is idle is closed, and the end comes in time.

use std::time::Duration;

use rustix::process::Signal;
use tidegate::clock;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{eventually, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn process(behaviour: Behaviour, runtime: &str) -> (Upstream, Process) {
    let upstream = Upstream::start(behaviour).await;
    let process = Process::start(|c: Config| c.web(&[&upstream.address()], &[]).set("runtime", runtime)).await;
    (upstream, process)
}

#[tokio::test]
async fn sigterm_under_load_fails_no_request_on_an_established_connection() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_upstream, mut process) = process(Behaviour::version("v1"), "").await;
        let load = Load::start(&process.address(), &Plan { sessions: 32, end_on_close: true, ..Plan::default() });
        load.progress(500).await;
        process.signal(signal);
        let tally = within("every session to be ended", load.join()).await;
        tally.assert_clean();
        assert!(process.exit().await.success(), "{}", process.log());
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_idle_connections_are_closed_in_order() {
    let slow = Behaviour::script([read_body(), Act::Pause(Duration::from_millis(500)), answer(200, &[], "slow")]);
    let (upstream, mut process) = process(slow, "idle_grace = \"100ms\"").await;
    let mut idle = process.client().await;
    let mut busy = process.client().await;
    busy.send(GET).await;
    upstream.head().await;
    process.signal(Signal::TERM);
    idle.expect_fin().await;
    let response = busy.response().await;
    assert_eq!((response.text(), response.keeps()), ("slow", false));
    busy.expect_fin().await;
    assert!(process.exit().await.success());
}

#[tokio::test]
async fn readiness_goes_first_and_connections_are_accepted_through_the_grace() {
    let (_upstream, mut process) =
        process(Behaviour::version("v1"), "accept_grace = \"1s\"\nidle_grace = \"100ms\"").await;
    process.signal(Signal::TERM);
    eventually(Duration::from_secs(1), "readiness to end", || async {
        (process.admin.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(process.ask(GET).await.version(), "v1", "a balancer that has not heard yet is still served");
    assert!(process.exit().await.success());
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let (upstream, mut process) = process(Behaviour::hang(), "drain_timeout = \"500ms\"").await;
    let mut client = process.client().await;
    client.send(GET).await;
    upstream.head().await;
    let began = clock::now();
    process.signal(Signal::TERM);
    process.exit().await;
    assert!(began.elapsed() >= Duration::from_millis(400), "it was given its time");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let (upstream, mut process) = process(Behaviour::hang(), "drain_timeout = \"30s\"").await;
    let mut client = process.client().await;
    client.send(GET).await;
    upstream.head().await;
    process.signal(Signal::TERM);
    eventually(Duration::from_secs(2), "the drain to begin", || async {
        (process.admin.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    let began = clock::now();
    process.signal(Signal::TERM);
    process.exit().await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_handle_of_the_app_drains_too() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let load = Load::start(&proxy.address(), &Plan { end_on_close: true, ..Plan::default() });
    load.progress(100).await;
    proxy.shutdown();
    load.join().await.assert_clean();
    proxy.join().await;
    upstream.all_closed().await;
}
