//! How requests spread over the endpoints of a pool.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::straggler::{latencies, p99};
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::until;

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

/// Peak EWMA goes by how fast who answers, which is not in a test's hands: its shares are tested where time is.
const SHARING: [&str; 4] = ["least_request", "round_robin", "random", "ring_hash"];

fn by(balance: &str) -> String {
    let key = if balance == "ring_hash" { "hash_key = [\"header:x-user\"]\n" } else { "" };
    format!("balance = {balance:?}\n{key}")
}

/// Stable with these weights.
fn weighed(config: Config, upstreams: &[Upstream], weights: &[u32], lines: &str) -> Config {
    let one =
        |(upstream, weight): (&Upstream, &u32)| format!("{{ address = {:?}, weight = {weight} }}", upstream.address());
    let list: Vec<String> = upstreams.iter().zip(weights).map(one).collect();
    pool(config, upstreams, lines).set("services.web.stable", &format!("endpoints = [{}]", list.join(", ")))
}

/// How many of `count` requests, one after the other and each of another user, got to the upstream `name`.
async fn part_of(name: &str, proxy: &Proxy, count: u32) -> u32 {
    let mut client = proxy.client().await;
    let mut part = 0;
    for user in 0..count {
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nX-User: u{user}\r\n\r\n")).await;
        part += u32::from(client.response().await.version() == name);
    }
    part
}

#[tokio::test]
async fn weights_are_kept_and_a_reload_changes_them() {
    for balance in SHARING {
        let upstreams = named(&["a", "b"]).await;
        let proxy = Proxy::start(|c| weighed(c, &upstreams, &[1, 3], &by(balance))).await;
        let heavy = part_of("b", &proxy, 800).await;
        assert!((510..=690).contains(&heavy), "{balance}: {heavy} of 800");
        proxy.reload_ok(&weighed(proxy.base.clone(), &upstreams, &[3, 1], &by(balance))).await;
        let heavy = part_of("a", &proxy, 800).await;
        assert!((510..=690).contains(&heavy), "{balance}, after the reload: {heavy} of 800");
    }
}

#[tokio::test]
async fn a_weight_of_a_hundred_beside_nine_of_one_is_a_hundred() {
    let upstreams = named(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]).await;
    let steep = [&[100][..], &[1; 9]].concat();
    let proxy = Proxy::start(|c| weighed(c, &upstreams, &steep, &by("least_request"))).await;
    for balance in SHARING {
        proxy.reload_ok(&weighed(proxy.base.clone(), &upstreams, &steep, &by(balance))).await;
        let heavy = part_of("a", &proxy, 600).await;
        assert!((510..=585).contains(&heavy), "{balance}: {heavy} of 600, not 550");
        proxy.reload_ok(&weighed(proxy.base.clone(), &upstreams, &[1; 10], &by(balance))).await;
        let one = part_of("a", &proxy, 600).await;
        assert!((20..=110).contains(&one), "{balance}, all alike: {one} of 600, not 60");
    }
    // Under load, when the light ones are idle and the heavy one is not.
    proxy.reload_ok(&weighed(proxy.base.clone(), &upstreams, &steep, &by("least_request"))).await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 600)).await;
    tally.assert_clean();
    assert!(tally.of("a") >= 480, "{:?}", tally.by_version);
}

#[tokio::test]
async fn an_endpoint_that_is_added_grows_into_its_share() {
    let mut old = named(&["old"]).await.remove(0);
    let proxy = Proxy::start(|c| pool(c, std::slice::from_ref(&old), "")).await;
    // It is in service for longer than a slow start takes.
    let grow = Plan { pace: Duration::from_millis(100), ..Plan::of(1, 42) };
    Load::run(&proxy.address(), &grow).await;
    for balance in SHARING {
        let both = [old, Upstream::start(Behaviour::version("new")).await];
        let lines = format!("{}slow_start = \"4s\"", by(balance));
        proxy.reload_ok(&pool(proxy.base.clone(), &both, &lines)).await;
        proxy.admin.until_health(&both[1].address(), "ready").await;
        let young = part_of("new", &proxy, 300).await;
        assert!((1..=100).contains(&young), "{balance}: {young} of 300 at a tenth of its share");
        [old, _] = both;
    }
    let both = [old, Upstream::start(Behaviour::version("new")).await];
    let lines = format!("{}slow_start = \"4s\"", by("round_robin"));
    proxy.reload_ok(&pool(proxy.base.clone(), &both, &lines)).await;
    proxy.admin.until_health(&both[1].address(), "ready").await;
    Load::run(&proxy.address(), &grow).await;
    assert_eq!(part_of("new", &proxy, 100).await, 50, "then it has its share, in turn");
}

#[tokio::test]
async fn peak_ewma_asks_an_endpoint_nobody_knows_once() {
    let upstreams = named(&["a", "b"]).await;
    upstreams[1].behave(Behaviour::stall());
    let lines = "balance = \"peak_ewma\"";
    let proxy = Proxy::start(|c| pool(c, &upstreams[..1], lines)).await;
    let load = Load::start(&proxy.address(), &Plan::default());
    load.progress(200).await;
    proxy.reload_ok(&pool(proxy.base.clone(), &upstreams, lines)).await;
    proxy.admin.until_health(&upstreams[1].address(), "ready").await;
    until("somebody to try it", || upstreams[1].arrived() > 0).await;
    load.progress(500).await;
    // Each of the two workers may choose it before the other's request is there.
    assert!((1..=2).contains(&upstreams[1].arrived()), "{}", upstreams[1].arrived());
}

#[tokio::test]
async fn the_less_busy_of_two_keeps_the_tail_short_beside_one_ten_times_slower() {
    let (one_by_one, of_two) = (latencies("round_robin", 480).await, latencies("least_request", 480).await);
    let (one_by_one, of_two) = (p99(&one_by_one), p99(&of_two));
    assert!(of_two * 10 <= one_by_one * 3, "p99 {of_two:?}, one by one {one_by_one:?}");
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
