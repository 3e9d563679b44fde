//! The gate through real sockets: what it takes back, and what it does not.

use std::time::Duration;

use serde_json::Value;
use tidegate::clock;

use crate::harness::client::{Load, Plan, Session};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::eventually;

/// Most responses from a fault to the abort: two seconds at some hundred requests per second. How long that takes is the machine's affair.
const ABORT_MAX: u64 = 500;
/// Longest wait for an abort.
const WAIT: Duration = Duration::from_secs(40);
/// How long a response head is waited for where one never comes.
const TIMEOUT: Duration = Duration::from_secs(50);
/// Responses in which the gate would have condemned anybody it condemns at all.
const ENOUGH: u64 = 800;

struct World {
    v1: Upstream,
    v2: Upstream,
    proxy: Proxy,
}

impl World {
    async fn new(lines: impl FnOnce(Config) -> Config) -> Self {
        let (v1, v2) = (Upstream::start(good("v1")).await, Upstream::start(good("v2")).await);
        let proxy = Proxy::start(|c| lines(c.web(&[&v1.address()], &[&v2.address()]).limits("max_requests = 1000000")));
        Self { proxy: proxy.await, v1, v2 }
    }

    /// Some hundred requests per second, as many users as requests.
    fn load(&self, sessions: usize) -> Load {
        let plan = Plan { sessions, pace: Duration::from_millis(10), ..Plan::default() };
        Load::start(&self.proxy.address(), &plan)
    }

    /// The abort of the gate, if there is one.
    async fn abort(&self) -> Option<Value> {
        let status = self.proxy.admin.status().await;
        let events = status["events"].as_array().expect("events");
        events.iter().rev().find(|event| event["what"] == "abort").cloned()
    }

    /// The abort, which has to come.
    async fn aborted(&self) -> Value {
        eventually(WAIT, "the gate to take the traffic back", || self.abort()).await
    }

    async fn weight(&self) -> String {
        let web = self.proxy.admin.json("/v1/services/web").await;
        web["weight"].as_str().expect("a weight").to_owned()
    }
}

/// Returns once `n` more responses came; a machine may be slow as long as it goes on.
async fn progress(load: &Load, n: u64) {
    for _ in 0..n / 50 {
        load.progress(50).await;
    }
}

fn good(version: &str) -> Behaviour {
    Behaviour::version(version)
}

fn bad() -> Behaviour {
    Behaviour::answer(500, &[], "broken")
}

fn slow(version: &str) -> Behaviour {
    let version = format!("x-version: {version}");
    Behaviour::script([read_body(), Act::Pause(Duration::from_millis(100)), answer(200, &[&version], "slow")])
}

#[tokio::test]
async fn a_broken_candidate_loses_its_traffic_within_a_moment() {
    let world = World::new(|c| c).await;
    let load = world.load(8);
    progress(&load, 200).await;
    world.proxy.admin.weight("web", "20%").await;
    progress(&load, 200).await;
    assert_eq!(world.abort().await, None, "a healthy one is left alone");
    world.v2.behave(bad());
    let before = load.responses();
    let event = world.aborted().await;
    let took = load.responses() - before;
    assert!(took < ABORT_MAX, "{took} responses");
    assert_eq!((event["actor"].as_str(), event["to"].as_str()), (Some("gate/error-rate"), Some("0%")));
    let detail = event["detail"].as_str().expect("the evidence");
    assert!(detail.starts_with("error-rate: candidate ") && detail.contains(" of 6.9 nats"), "{detail}");
    assert_eq!(world.weight().await, "0%");
    let reached = world.v2.arrived();
    progress(&load, 200).await;
    assert_eq!(world.v2.arrived(), reached, "nobody is sent there any more");
    let tally = load.stop().await;
    let failed = tally.by_status.get(&500).copied().unwrap_or(0);
    assert!((3..=60).contains(&failed), "{failed} requests failed");
}

#[tokio::test]
async fn a_candidate_that_hangs_is_caught_long_before_its_timeout() {
    let timeout = format!("response_timeout = \"{}s\"", TIMEOUT.as_secs());
    let world = World::new(|c| c.set("services.web.upstream", &timeout)).await;
    let load = world.load(40);
    progress(&load, 300).await;
    world.proxy.admin.weight("web", "10%").await;
    progress(&load, 200).await;
    world.v2.behave(Behaviour::hang());
    let began = clock::now();
    let event = world.aborted().await;
    let took = began.elapsed();
    assert!(took < TIMEOUT / 2, "{took:?}");
    assert_eq!(event["actor"].as_str(), Some("gate/latency"), "{event}");
    assert!(world.proxy.admin.count("tidegate_bad_attempts_total").await == 0, "nothing has timed out yet");
}

/// Whatever both suffer from is no case against the candidate: failures, and slowness.
#[tokio::test]
async fn what_both_share_takes_nothing_back() {
    let world = World::new(|c| c).await;
    let load = world.load(16);
    progress(&load, 200).await;
    world.proxy.admin.weight("web", "50%").await;
    progress(&load, 200).await;
    world.v1.behave(bad());
    world.v2.behave(bad());
    progress(&load, ENOUGH).await;
    assert_eq!((world.abort().await, world.weight().await.as_str()), (None, "50%"));
    world.v1.behave(slow("v1"));
    world.v2.behave(slow("v2"));
    progress(&load, 300).await;
    assert_eq!((world.abort().await, world.weight().await.as_str()), (None, "50%"));
    // It does watch.
    world.v1.behave(good("v1"));
    world.v2.behave(bad());
    assert_eq!(world.aborted().await["actor"].as_str(), Some("gate/error-rate"));
}

#[tokio::test]
async fn forced_requests_are_no_evidence() {
    let world = World::new(|c| c.set("services.web.force", "header = \"x-canary\"")).await;
    let load = world.load(8);
    progress(&load, 300).await;
    world.proxy.admin.weight("web", "0.01%").await;
    world.v2.behave(bad());
    let plan = Plan { fields: "X-Canary: candidate\r\n".into(), ..Plan::of(4, 400) };
    let forced = Load::run(&world.proxy.address(), &plan).await;
    assert_eq!(forced.by_status.get(&500), Some(&400));
    progress(&load, 100).await;
    assert_eq!((world.abort().await, world.weight().await.as_str()), (None, "0.01%"));
    world.proxy.admin.weight("web", "50%").await;
    assert_eq!(world.aborted().await["actor"].as_str(), Some("gate/error-rate"));
}

/// One user's burst of errors is one bad event, not a hundred.
#[tokio::test]
async fn a_session_that_fails_again_and_again_is_one_event() {
    let world = World::new(|c| c.set("services.web.affinity", "key = [\"header:x-user\"]")).await;
    world.proxy.admin.weight("web", "50%").await;
    let user = |name: &str| Session::new(&world.proxy.address()).with(&format!("X-User: {name}\r\n"));
    let mut unlucky = None;
    for n in 0..64 {
        let mut session = user(&format!("u{n}"));
        let on_candidate = session.get("/").await.version() == "v2";
        if on_candidate && unlucky.is_none() {
            unlucky = Some(session);
        }
    }
    let mut unlucky = unlucky.expect("a user of the candidate");
    world.v2.behave(bad());
    for _ in 0..200 {
        assert_eq!(unlucky.get("/").await.status, 500);
    }
    assert_eq!(world.abort().await, None);
    // Others fail as well: then it is the candidate. How many of them are its users is chance.
    for n in 0..256 {
        user(&format!("u{n}")).get("/").await;
    }
    assert_eq!(world.aborted().await["actor"].as_str(), Some("gate/error-rate"));
}
