//! A retry storm is impossible: when every endpoint fails, upstreams are sent little more than clients send.

use super::*;

/// Requests of one round; they come at about this rate, or faster.
const REQUESTS: u64 = 1_000;

/// Attempts begun for [`REQUESTS`] requests while both endpoints fail, replays included.
async fn attempts(speaks: Speaks, how: Fails, retry: &str) -> u64 {
    let case = format!("{speaks:?} {how:?} {retry:?}");
    let (mut one, mut two) = (Endpoint::start(speaks).await, Endpoint::start(speaks).await);
    let endpoints = [one.address(), two.address()];
    // Long, unless that is what fails: a busy machine is slow to answer.
    let timeout = if how == Fails::Hangs { "200ms" } else { "10s" };
    let timeout = format!("response_timeout = \"{timeout}\"");
    let proxy = Proxy::start(|c| config(c, &endpoints, speaks, retry).set("services.web.upstream", &timeout)).await;
    // There are connections that have worked.
    let before = Load::run(&proxy.address(), &Plan::of(4, 16)).await;
    assert!(before.by_status.contains_key(&200), "{case}: {:?}", before.by_status);
    one.fail(how).await;
    two.fail(how).await;
    let begun = async || {
        let (attempts, replays) = ("tidegate_attempts_total", "tidegate_stale_replays_total");
        proxy.admin.count(attempts).await + proxy.admin.count(replays).await
    };
    let arrived = |one: &Endpoint, two: &Endpoint| one.arrived() + two.arrived();
    let (before, arrived_before) = (begun().await, if how == Fails::Refuses { 0 } else { arrived(&one, &two) });
    // Whoever hangs is asked by many at once, or the rate would be low.
    let sessions = if how == Fails::Hangs { 100 } else { 8 };
    let tally = Load::run(&proxy.address(), &Plan::of(sessions, REQUESTS)).await;
    assert_eq!((tally.responses, tally.failed), (REQUESTS, 0), "{case}: {:?}", tally.failures);
    assert!(tally.by_status.keys().all(|status| *status >= 500), "{case}: {:?}", tally.by_status);
    let attempts = begun().await - before;
    if how != Fails::Refuses {
        let arrived = (arrived(&one, &two) - arrived_before) as u64;
        assert!(arrived <= REQUESTS * 5 / 4, "{case}: {arrived} at the endpoints");
    }
    assert!((REQUESTS..=REQUESTS * 5 / 4).contains(&attempts), "{case}: {attempts} attempts");
    attempts
}

async fn storm(speaks: Speaks) {
    let all = "attempts = 3\non = [\"connect\", \"stale\", \"5xx\", \"reset\", \"timeout\"]\nbackoff = \"1ms\"";
    for how in [Fails::Status, Fails::Reset, Fails::Closes, Fails::Hangs, Fails::Refuses, Fails::RefusesStreams] {
        for (retry, retried) in [("", how == Fails::Refuses), ("attempts = 0", false), (all, true)] {
            let attempts = attempts(speaks, how, retry).await;
            assert!(
                !retried || attempts >= REQUESTS * 11 / 10,
                "{speaks:?} {how:?} {retry:?}: {attempts}, nothing is tried again"
            );
        }
    }
}

#[tokio::test]
async fn a_retry_storm_is_impossible_over_http1() {
    storm(Http1).await;
}

#[tokio::test]
async fn a_retry_storm_is_impossible_over_http2() {
    storm(Http2).await;
}
