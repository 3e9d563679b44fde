//! How requests spread over the endpoints of a pool.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};

/// Upstreams that answer with their names.
async fn named(names: &[&str]) -> Vec<Upstream> {
    let mut all = Vec::new();
    for name in names {
        all.push(Upstream::start(Behaviour::version(name)).await);
    }
    all
}

fn pool(config: Config, upstreams: &[Upstream], lines: &str) -> Config {
    let addresses: Vec<String> = upstreams.iter().map(Upstream::address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    config.web(&addresses, &[]).set("services.web.upstream", lines)
}

fn slow(name: &str, pause: Duration) -> Behaviour {
    let version = format!("x-version: {name}");
    Behaviour::script([read_body(), Act::Pause(pause), answer(200, &[&version], name)])
}

#[tokio::test]
async fn every_word_for_a_balance_spreads_requests() {
    for balance in ["least_request", "round_robin", "random", "peak_ewma"] {
        let upstreams = named(&["a", "b", "c"]).await;
        let proxy = Proxy::start(|c| pool(c, &upstreams, &format!("balance = {balance:?}"))).await;
        let tally = Load::run(&proxy.address(), &Plan::of(4, 600)).await;
        tally.assert_clean();
        let least = if balance == "peak_ewma" { 10 } else { 120 };
        assert!(["a", "b", "c"].iter().all(|name| tally.of(name) >= least), "{balance}: {:?}", tally.by_version);
    }
}

/// Who answers each of 60 users.
async fn homes(proxy: &Proxy) -> BTreeMap<usize, String> {
    let mut homes = BTreeMap::new();
    // One connection: a request is over before the next begins, so that no endpoint ever carries too much.
    let mut client = proxy.client().await;
    for user in 0..60 {
        for _ in 0..2 {
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nX-User: u{user}\r\n\r\n")).await;
            let response = client.response().await;
            let home = response.version().to_owned();
            assert_eq!(homes.entry(user).or_insert_with(|| home.clone()), &home, "user {user}");
        }
    }
    homes
}

#[tokio::test]
async fn a_ring_keeps_keys_where_they_are_when_an_endpoint_goes_and_comes_back() {
    let upstreams = named(&["a", "b", "c", "d"]).await;
    let lines = "balance = \"ring_hash\"\nhash_key = [\"header:x-user\"]";
    let proxy = Proxy::start(|c| pool(c, &upstreams, lines)).await;
    let before = homes(&proxy).await;
    let mut spread: Vec<&String> = before.values().collect();
    spread.sort_unstable();
    spread.dedup();
    assert_eq!(spread.len(), 4);
    proxy.reload_ok(&pool(proxy.base.clone(), &upstreams[..3], lines)).await;
    let without = homes(&proxy).await;
    for (user, home) in &before {
        assert!(without[user] != "d" && (home == "d" || home == &without[user]), "user {user}: {home}");
    }
    proxy.reload_ok(&pool(proxy.base.clone(), &upstreams, lines)).await;
    proxy.admin.until_health(&upstreams[3].address(), "ready").await;
    assert_eq!(homes(&proxy).await, before);
    // A request without a key goes anywhere.
    let tally = Load::run(&proxy.address(), &Plan::of(2, 200)).await;
    assert_eq!(tally.by_version.len(), 4, "{:?}", tally.by_version);
}

#[tokio::test]
async fn peak_ewma_avoids_the_slow_one() {
    let upstreams = named(&["a", "b", "c"]).await;
    upstreams[0].behave(slow("a", Duration::from_millis(40)));
    let proxy = Proxy::start(|c| pool(c, &upstreams, "balance = \"peak_ewma\"")).await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 600)).await;
    tally.assert_clean();
    assert!(tally.of("a") <= 30, "{:?}", tally.by_version);
}

/// linkerd's load biaser: an endpoint that fails fast looks fast.
#[tokio::test]
async fn linkerd_load_biaser_failing_fast_does_not_attract() {
    let upstreams = named(&["a", "b", "c"]).await;
    upstreams[0].behave(Behaviour::answer(500, &["x-version: a"], ""));
    upstreams[1..].iter().zip(["b", "c"]).for_each(|(u, name)| u.behave(slow(name, Duration::from_millis(5))));
    let config = |c: Config| {
        // Nobody is ejected here: balance alone has to do it.
        let rules = "consecutive_failures = 0\nmin_success = \"0%\"";
        pool(c, &upstreams, "balance = \"peak_ewma\"").set("services.web.outlier", rules)
    };
    let proxy = Proxy::start(config).await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 400)).await;
    assert!(tally.of("a") <= 20, "{:?}", tally.by_version);
    assert_eq!(proxy.admin.count("tidegate_ejections_total").await, 0);
}

#[tokio::test]
async fn an_endpoint_that_is_added_grows_into_its_share() {
    for balance in ["least_request", "round_robin", "random"] {
        let upstreams = named(&["a", "b"]).await;
        let lines = format!("balance = {balance:?}\nslow_start = \"1h\"");
        let old = std::slice::from_ref(&upstreams[0]);
        let proxy = Proxy::start(|c| pool(c, old, &format!("balance = {balance:?}"))).await;
        proxy.reload_ok(&pool(proxy.base.clone(), &upstreams, &lines)).await;
        proxy.admin.until_health(&upstreams[1].address(), "ready").await;
        // Both came into service a moment ago, one a little later: what counts is that a tenth is the least either gets.
        let tally = Load::run(&proxy.address(), &Plan::of(1, 400)).await;
        assert!(tally.of("a") >= 100 && tally.of("b") >= 100, "{balance}: equals: {:?}", tally.by_version);
        proxy.reload_ok(&pool(proxy.base.clone(), &upstreams, &format!("balance = {balance:?}"))).await;
        let tally = Load::run(&proxy.address(), &Plan::of(1, 400)).await;
        assert!(tally.of("b") >= 100, "{balance}: without: {:?}", tally.by_version);
    }
}

#[tokio::test]
async fn after_an_ejection_an_endpoint_starts_slowly() {
    let upstreams = named(&["a", "b"]).await;
    let config = |c: Config| {
        let lines = "balance = \"round_robin\"\nslow_start = \"2s\"";
        pool(c, &upstreams, lines).set("services.web.outlier", "ejection = \"2500ms\"")
    };
    let proxy = Proxy::start(config).await;
    upstreams[0].behave(Behaviour::answer(500, &["x-version: a"], ""));
    Load::run(&proxy.address(), &Plan::of(1, 60)).await;
    upstreams[0].behave(Behaviour::version("a"));
    proxy.admin.until_outlier(&upstreams[0].address(), Some("trial")).await;
    // The other one has long grown up by now.
    let load = Load::start(&proxy.address(), &Plan { sessions: 1, ..Plan::default() });
    proxy.admin.until_outlier(&upstreams[0].address(), None).await;
    load.stop().await;
    let tally = Load::run(&proxy.address(), &Plan::of(1, 60)).await;
    assert!((1..=20).contains(&tally.of("a")), "a small share at first: {:?}", tally.by_version);
}
