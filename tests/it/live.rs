//! Rollouts by their plan under a steady load: what the gate takes back, what it leaves alone, what it waits for.

use std::time::Duration;

use crate::harness::canary::{AT_FIVE, Canary, Caught, good, half, slow, status};
use crate::harness::client::Client;
use crate::harness::soak;
use crate::harness::upstream::Behaviour;
use crate::harness::wait::eventually;

/// Requests per second: what an unoptimised proxy serves beside other tests.
const RATE: u32 = 300;
/// Answers in which the gate learns what stable does.
const LEARNT: u64 = 600;
/// Longest wait for the gate. How long it takes is for `benches/canary.rs`.
const WAIT: Duration = Duration::from_secs(60);
/// A plan that stays at 20 %.
const AT_TWENTY: &str = "on_empty_store = \"start\"\nsteps = [{ weight = \"20%\", hold = \"30m\" }]";
/// A plan to the end, without long holds.
const SHORT: &str = "on_empty_store = \"start\"\nsteps = [{ weight = \"20%\", hold = \"1s\", min_requests = 20 }, \
    { weight = \"50%\", hold = \"1s\", min_requests = 20 }, { weight = \"100%\", hold = \"2s\", min_requests = 20 }]";
/// Requests failed until a broken candidate is taken back at 5 %; 20 in the median at 1,000 per second.
const FAILED_MAX: u64 = 60;

async fn caught(plan: &str, fault: Behaviour) -> Caught {
    let canary = Canary::start(1, RATE, plan, |config| config).await;
    canary.load.answers(LEARNT).await;
    let since = canary.candidate_does(&fault);
    canary.caught(since, WAIT).await
}

#[tokio::test]
async fn a_broken_candidate_is_taken_back_with_its_numbers_in_event_and_audit() {
    let canary = Canary::start(1, RATE, AT_FIVE, |config| config).await;
    canary.load.answers(LEARNT).await;
    let healthy = canary.proxy.admin.json("/v1/services/web/rollouts/current/analysis").await;
    assert_eq!(
        (healthy["running"].as_bool(), healthy["report"]["tests"][0]["metric"].as_str()),
        (Some(true), Some("error-rate"))
    );
    assert!(healthy["report"]["tests"][0]["candidate"]["exposed"].as_u64().is_some_and(|n| n > 0), "{healthy}");
    let since = canary.candidate_does(&status(500));
    let web = canary.within(WAIT, "the abort", |web| web["progress"]["phase"] == "aborted").await;
    assert_eq!((web["weight"].as_str(), web["progress"]["reason"].as_str()), (Some("0%"), Some("harmful")));
    let report = canary.proxy.admin.json("/v1/services/web/rollouts/current/analysis").await;
    assert_eq!(report["running"], false);
    assert!(report["report"]["log_e"].as_f64() >= report["report"]["bound"].as_f64(), "{report}");
    assert!(report["detected_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{report}");
    let unknown = canary.proxy.admin.get("/v1/services/web/rollouts/99/analysis").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    let caught = canary.caught(since, WAIT).await;
    assert_eq!(caught.actor, "gate/error-rate");
    assert!(caught.why.starts_with("error-rate: candidate ") && caught.why.contains(" nats"), "{}", caught.why);
    assert!((3..FAILED_MAX).contains(&caught.came.failed()), "{:?}", caught.came);
}

#[tokio::test]
async fn a_candidate_that_fails_every_other_time_is_taken_back() {
    let caught = caught(AT_FIVE, half(status(500), good("v2"))).await;
    assert_eq!(caught.actor, "gate/error-rate");
    assert!(caught.came.failed() < 2 * FAILED_MAX, "{:?}", caught.came);
}

#[tokio::test]
async fn a_candidate_that_lets_nobody_in_is_taken_back() {
    let caught = caught(AT_TWENTY, status(401)).await;
    assert_eq!(caught.actor, "gate/client-errors");
}

/// While a candidate warms up, ten times as long is still no hang.
#[tokio::test]
async fn a_candidate_that_hangs_is_taken_back_long_before_any_timeout() {
    let canary =
        Canary::start(1, RATE, AT_TWENTY, |config| config.set("services.web.upstream", "response_timeout = \"50s\""))
            .await;
    canary.load.answers(LEARNT).await;
    let since = canary.candidate_does(&Behaviour::hang());
    let caught = canary.caught(since, WAIT).await;
    assert_eq!(caught.actor, "gate/latency");
    assert!(caught.after < Duration::from_secs(20), "{:?}", caught.after);
    assert!(caught.came.waiting > 0 && caught.came.failed() == 0, "nothing has timed out: {:?}", caught.came);
}

#[tokio::test]
async fn a_candidate_twice_as_slow_is_taken_back_once_it_is_warm() {
    let usual = Duration::from_millis(30);
    let canary = Canary::start(1, RATE, AT_TWENTY, |config| config.set("services.web.gate", "warmup = \"3s\"")).await;
    canary.stable.behave(slow("v1", usual));
    let since = canary.candidate_does(&slow("v2", usual * 2));
    let caught = canary.caught(since, WAIT).await;
    assert_eq!(caught.actor, "gate/latency", "{}", caught.why);
    assert!(caught.after > Duration::from_secs(2), "{:?}: it was not warm yet", caught.after);
    assert_eq!(caught.came.failed(), 0, "{:?}", caught.came);
}

#[tokio::test]
async fn one_dead_endpoint_of_four_is_left_out_and_the_rollout_goes_on() {
    let mut canary = Canary::start(4, RATE, AT_TWENTY, |config| config).await;
    canary.load.answers(LEARNT).await;
    let dead = canary.candidate[2].address();
    canary.candidate[2].stop().await;
    canary
        .within(WAIT, "the endpoint to be left out", |web| {
            let endpoints = web["candidate"]["endpoints"].as_array().expect("endpoints");
            let it = endpoints.iter().find(|endpoint| endpoint["address"] == dead.as_str()).expect("known");
            it["outlier"]["state"] == "ejected" || it["health"] == "not_ready"
        })
        .await;
    canary.load.answers(3 * LEARNT).await;
    let web = canary.until("the rollout to go on", |web| web["progress"]["phase"] == "progressing").await;
    assert_eq!((web["weight"].as_str(), canary.event("abort").await), (Some("20%"), None));
}

#[tokio::test]
async fn an_outage_both_share_pauses_the_rollout_and_it_goes_on_by_itself() {
    let plan = "steps = [{ weight = \"20%\", hold = \"3s\", min_requests = 100000 }]";
    let canary = Canary::waiting(1, RATE, plan, |config| config).await;
    // Stable is judged by what it did before the rollout.
    canary.load.answers(u64::from(RATE) * 12).await;
    canary.begin().await;
    canary.load.answers(LEARNT).await;
    canary.stable.behave(status(500));
    canary.candidate_does(&status(500));
    let paused = |web: &serde_json::Value| web["progress"]["reason"] == "stable_degraded";
    let web = canary.within(WAIT, "a pause", paused).await;
    assert_eq!((web["weight"].as_str(), web["progress"]["phase"].as_str()), (Some("20%"), Some("paused")));
    let pause = canary.event("pause").await.expect("an event");
    assert_eq!(pause["actor"], "gate");
    assert!(pause["detail"].as_str().is_some_and(|why| why.contains("stable fails more")), "{pause}");
    canary.stable.behave(good("v1"));
    canary.candidate_does(&good("v2"));
    canary.within(WAIT, "the rollout to go on", |web| web["progress"]["phase"] == "progressing").await;
    assert_eq!(canary.event("abort").await, None);
}

#[tokio::test]
async fn a_healthy_candidate_becomes_stable_and_nobody_feels_it() {
    let canary = Canary::start(2, RATE, SHORT, |config| config).await;
    let web = canary.within(WAIT, "the promotion", |web| web["progress"]["phase"] == "succeeded").await;
    assert_eq!(web["stable"]["version"], "v2");
    canary.load.answers(LEARNT).await;
    let came = canary.load.stop();
    let failed: u64 = came.answers.iter().filter(|((_, status), _)| *status != 200).map(|(_, n)| n).sum();
    assert_eq!((failed, &came.why), (0, &None), "{came:?}");
    assert!(came.of("v1") > 0 && came.of("v2") >= LEARNT);
}

/// flagger#1801, argo-rollouts#1411: the gate runs in a pause, too.
#[tokio::test]
async fn flagger_1801_a_paused_rollout_is_watched_all_the_same() {
    let canary = Canary::start(1, RATE, AT_FIVE, |config| config).await;
    canary.load.answers(LEARNT).await;
    let answer = canary.proxy.admin.post("/v1/services/web/pause", "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let since = canary.candidate_does(&status(500));
    assert_eq!(canary.caught(since, WAIT).await.actor, "gate/error-rate");
}

/// After the event of the abort no attempt begins on the candidate, whoever aborted.
#[tokio::test]
async fn after_the_gate_has_aborted_nobody_is_sent_to_the_candidate() {
    let canary = Canary::start(1, RATE, AT_TWENTY, |config| config).await;
    canary.load.answers(LEARNT).await;
    canary.candidate_does(&status(500));
    eventually(WAIT, "the abort", || canary.event("abort")).await;
    let reached = canary.candidate[0].arrived();
    canary.load.answers(LEARNT).await;
    assert_eq!(canary.candidate[0].arrived(), reached);
}

#[tokio::test]
async fn five_healthy_minutes_make_the_gate_no_slower() {
    let healthy = if soak() { 300 } else { 10 };
    let canary = Canary::start(1, RATE, AT_FIVE, |config| config).await;
    canary.load.answers(healthy * u64::from(RATE)).await;
    assert_eq!(canary.event("abort").await, None);
    let since = canary.candidate_does(&status(500));
    let caught = canary.caught(since, WAIT).await;
    assert!(caught.came.failed() < FAILED_MAX, "{:?}", caught.came);
}

/// A connection that is open when the candidate becomes stable stays.
#[tokio::test]
async fn a_connection_outlives_the_promotion() {
    let canary = Canary::start(1, RATE, SHORT, |config| config).await;
    let mut client = Client::connect(&canary.proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    canary.within(WAIT, "the promotion", |web| web["progress"]["phase"] == "succeeded").await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.version(), "v2");
}
