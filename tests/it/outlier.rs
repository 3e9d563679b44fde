//! Endpoints whose own requests fail are left alone for a while, within bounds that keep a pool alive.

use std::time::Duration;

use tidegate::clock;
use tokio::task::JoinSet;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{WAIT_MAX, eventually, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn bad() -> Behaviour {
    Behaviour::answer(500, &[], "broken")
}

fn good() -> Behaviour {
    Behaviour::version("v1")
}

async fn upstreams<const N: usize>() -> [Upstream; N] {
    let mut all = Vec::new();
    for _ in 0..N {
        all.push(Upstream::start(good()).await);
    }
    all.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
}

/// `stable` taking turns, with these outlier rules.
fn turns(config: Config, stable: &[&Upstream], rules: &str) -> Config {
    let addresses: Vec<String> = stable.iter().map(|upstream| upstream.address()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    config
        .web(&addresses, &[])
        .set("services.web.upstream", "balance = \"round_robin\"")
        .set("services.web.outlier", rules)
}

/// Asks until `upstream` has answered `n` more.
async fn ask_until(proxy: &Proxy, upstream: &Upstream, n: usize) {
    let goal = upstream.arrived() + n;
    while upstream.arrived() < goal {
        proxy.ask(GET).await;
    }
}

async fn events(proxy: &Proxy, what: &str) -> Vec<String> {
    let status = proxy.admin.status().await;
    let events = status["events"].as_array().expect("events").iter().filter(|event| event["what"] == what);
    events.map(|event| event["detail"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn five_failures_eject_and_a_single_request_brings_it_back() {
    let [a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "ejection = \"400ms\"")).await;
    a.behave(bad());
    ask_until(&proxy, &a, 5).await;
    let failed = clock::now();
    let endpoint = proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    assert!(failed.elapsed() < Duration::from_millis(350), "ejected {:?} after the fifth failure", failed.elapsed());
    assert_eq!(endpoint["outlier"]["reason"], "5 failures in a row, last: status 500");
    assert_eq!(endpoint["health"], "ready", "its probes pass");
    assert_eq!(proxy.admin.count("tidegate_endpoint_ejected").await, 1);
    let arrived = a.arrived();
    for _ in 0..8 {
        assert_eq!(proxy.ask(GET).await.status, 200);
    }
    assert_eq!(a.arrived(), arrived, "it is left alone");
    // It is slow to answer the one request it gets: all others go to the other one.
    a.behave(Behaviour::script([read_body(), Act::Pause(Duration::from_millis(300)), answer(200, &[], "well")]));
    proxy.admin.until_outlier(&a.address(), Some("trial")).await;
    let tally = Load::run(&proxy.address(), &Plan::of(8, 60)).await;
    tally.assert_clean();
    assert_eq!(a.arrived(), arrived + 1, "a single request");
    proxy.admin.until_outlier(&a.address(), None).await;
    a.behave(good());
    ask_until(&proxy, &a, 3).await;
    assert!(
        events(&proxy, "endpoint_ejected").await[0]
            .ends_with("ejected for 400ms: 5 failures in a row, last: status 500")
    );
    assert_eq!(events(&proxy, "endpoint_restored").await.len(), 1);
    assert_eq!(
        proxy.admin.metric("tidegate_ejections_total", &["cause=\"failures\""]).await.to_bits(),
        1_f64.to_bits()
    );
    assert_eq!(proxy.admin.count("tidegate_endpoint_ejected").await, 0);
}

#[tokio::test]
async fn a_trial_that_fails_ejects_for_longer() {
    let [a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "ejection = \"100ms\"")).await;
    a.behave(bad());
    ask_until(&proxy, &a, 5).await;
    proxy.admin.until_outlier(&a.address(), Some("trial")).await;
    ask_until(&proxy, &a, 1).await;
    until("the trial to be judged", || a.arrived() == 6).await;
    proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    let told = events(&proxy, "endpoint_ejected").await;
    assert!(told[1].ends_with("ejected for 200ms: the request on trial failed, last: status 500"), "{told:?}");
}

#[tokio::test]
async fn half_of_its_requests_failing_is_an_outlier_too() {
    let [a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "window = \"10s\"")).await;
    a.next((0..200).flat_map(|_| [bad(), good()]));
    let tally = Load::run(&proxy.address(), &Plan::of(4, 200)).await;
    assert!(tally.by_status[&500] < 60, "{:?}", tally.by_status);
    let endpoint = proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    let reason = endpoint["outlier"]["reason"].as_str().expect("words").to_owned();
    assert!(reason.contains("requests failed, last: status 500"), "{reason}");
    Load::run(&proxy.address(), &Plan::of(4, 100)).await.assert_clean();
}

#[tokio::test]
async fn refused_connections_and_silence_are_failures_like_any_other() {
    let [a, b] = upstreams().await;
    let lines = "response_timeout = \"50ms\"";
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "").set("services.web.upstream", lines)).await;
    a.behave(Behaviour::hang());
    ask_until(&proxy, &a, 5).await;
    let endpoint = proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    assert_eq!(endpoint["outlier"]["reason"], "5 failures in a row, last: no response in time");
    let [mut a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "")).await;
    a.stop().await;
    Load::run(&proxy.address(), &Plan::of(2, 40)).await.assert_clean();
    let endpoint = proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    let reason = endpoint["outlier"]["reason"].as_str().expect("words");
    assert!(reason.ends_with("failures in a row, last: no connection"), "{reason}");
}

/// Its probes are TCP connects, which the kernel answers, and its clients give up long before the response timeout: they close, or reset.
#[tokio::test]
async fn an_endpoint_that_hangs_is_ejected_when_patient_clients_give_up() {
    for reset in [false, true] {
        let [a, b] = upstreams().await;
        let proxy = Proxy::start(|c| turns(c, &[&a, &b], "")).await;
        Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
        a.behave(Behaviour::hang());
        // From the second round on at the latest it is known how fast the pool answers; until then more patience is asked for.
        eventually(WAIT_MAX, "the one that hangs to be ejected", || async {
            let mut clients = JoinSet::new();
            for _ in 0..10 {
                let mut client = proxy.client().await;
                clients.spawn(async move {
                    client.send(GET).await;
                    let waited = tokio::time::timeout(Duration::from_millis(1_100), client.response()).await;
                    if waited.is_err() && reset {
                        client.reset();
                    }
                });
            }
            clients.join_all().await;
            (proxy.admin.count("tidegate_endpoint_ejected").await == 1).then_some(())
        })
        .await;
        let reason = proxy.admin.endpoint(&a.address()).await["outlier"]["reason"].clone();
        assert!(reason.as_str().is_some_and(|r| r.ends_with("last: no response until its client left")), "{reason}");
        Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
    }
}

/// Who leaves early says nothing: people leave pages that are in order, too.
#[tokio::test]
async fn clients_that_leave_early_eject_nobody() {
    let [a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "")).await;
    Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
    a.behave(Behaviour::hang());
    let arrived = a.arrived();
    for n in 1..=10 {
        let mut client = proxy.client().await;
        while a.arrived() < arrived + n {
            client.send(GET).await;
            let _ = tokio::time::timeout(Duration::from_millis(50), client.response()).await;
        }
        client.reset();
    }
    let aborted = || async {
        let count = proxy.admin.metric("tidegate_terminations_total", &["code=\"CA\""]).await;
        (count > 9.5).then_some(())
    };
    eventually(WAIT_MAX, "the clients' leaving to be noticed", aborted).await;
    a.behave(good());
    Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
    assert_eq!(proxy.admin.count("tidegate_ejections_total").await, 0);
}

/// envoy#3263, #17504, #26877: ejection in pools of two and three.
#[tokio::test]
async fn envoy_3263_17504_26877_one_of_two_may_go_and_never_the_last() {
    for three in [false, true] {
        let [a, b, c] = upstreams().await;
        let pool = if three { vec![&a, &b, &c] } else { vec![&a, &b] };
        let proxy =
            Proxy::start(|config| turns(config, &pool, "max_ejected = \"100%\"\npanic_threshold = \"0%\"")).await;
        for upstream in &pool {
            upstream.behave(bad());
        }
        Load::run(&proxy.address(), &Plan::of(4, 200)).await;
        let expected = if three { 2 } else { 1 };
        eventually(WAIT_MAX, "all but one to be ejected", || async {
            (proxy.admin.count("tidegate_endpoint_ejected").await == expected).then_some(())
        })
        .await;
        assert_eq!(proxy.ask(GET).await.status, 500, "what is left answers as it can, nobody is refused");
        let before: Vec<usize> = pool.iter().map(|upstream| upstream.arrived()).collect();
        Load::run(&proxy.address(), &Plan::of(2, 50)).await;
        let busiest = pool.iter().zip(before).map(|(upstream, before)| upstream.arrived() - before).max();
        assert_eq!(busiest, Some(50), "it carries all");
        // The one that is left works again: no collapse.
        for upstream in &pool {
            upstream.behave(good());
        }
        Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
    }
}

#[tokio::test]
async fn a_default_pool_of_two_loses_one_and_a_lone_endpoint_none() {
    let [a, b] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&a, &b], "")).await;
    a.behave(bad());
    Load::run(&proxy.address(), &Plan::of(2, 30)).await;
    proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    Load::run(&proxy.address(), &Plan::of(2, 100)).await.assert_clean();
    assert!(b.arrived() >= 100);
    let [alone] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &[&alone], "")).await;
    alone.behave(bad());
    Load::run(&proxy.address(), &Plan::of(2, 50)).await;
    alone.behave(good());
    Load::run(&proxy.address(), &Plan::of(2, 50)).await.assert_clean();
    assert_eq!(proxy.admin.count("tidegate_ejections_total").await, 0);
}

/// Both of two fail: no collapse, and it is said that one is kept although it fails, and that nobody can be relied on.
#[tokio::test]
async fn a_pool_of_two_that_fails_is_in_panic_and_recovers_with_the_first_that_works() {
    let pool: [Upstream; 2] = upstreams().await;
    let proxy = Proxy::start(|c| turns(c, &pool.each_ref(), "ejection = \"300ms\"")).await;
    for upstream in &pool {
        upstream.behave(bad());
    }
    let tally = Load::run(&proxy.address(), &Plan::of(4, 200)).await;
    assert_eq!((tally.by_status, tally.failed), ([(500, 200)].into(), 0), "nobody is refused");
    let count = async |name: &str| proxy.admin.count(name).await;
    eventually(WAIT_MAX, "panic", || async { (count("tidegate_panics_total").await >= 1).then_some(()) }).await;
    assert!(count("tidegate_ejections_spared_total").await >= 1);
    let told = events(&proxy, "endpoint_spared").await;
    assert!(told[0].contains(": failing, kept as the last of its pool: "), "{told:?}");
    let (mut spared, mut ejected) = (None, None);
    for upstream in &pool {
        let endpoint = proxy.admin.endpoint(&upstream.address()).await;
        let state = if endpoint["outlier"]["state"] == "spared" { &mut spared } else { &mut ejected };
        *state = Some(upstream);
    }
    let (spared, ejected) = (spared.expect("one is kept"), ejected.expect("one is not"));
    ejected.behave(good());
    // Its trial is one of these requests, and then the one that still fails can go.
    eventually(WAIT_MAX, "the one that fails to go", || async {
        proxy.ask(GET).await;
        let state = proxy.admin.endpoint(&spared.address()).await["outlier"]["state"].clone();
        (state == "ejected" && count("tidegate_panic").await == 0).then_some(())
    })
    .await;
    let arrived = ejected.arrived();
    Load::run(&proxy.address(), &Plan::of(2, 20)).await;
    assert!(ejected.arrived() >= arrived + 19, "users are where it works");
}

/// Both variants lose all their endpoints to their probes.
async fn lost(panic_threshold: &str) -> (Upstream, Upstream, Upstream, Proxy) {
    let [v1, probed] = upstreams().await;
    let v2 = Upstream::start(Behaviour::version("v2")).await;
    let port = probed.address().rsplit(':').next().expect("a port").to_owned();
    let health =
        format!("path = \"/ready\"\nport = {port}\ninterval = \"20ms\"\nfast_interval = \"10ms\"\nrise = 1\nfall = 1");
    let proxy = Proxy::start(|c| {
        c.web(&[&v1.address()], &[&v2.address()])
            .set("services.web.health", &health)
            .set("services.web.outlier", &format!("panic_threshold = {panic_threshold:?}"))
    })
    .await;
    proxy.admin.weight("web", "100%").await;
    assert_eq!(proxy.ask(GET).await.version(), "v2");
    probed.behave(bad());
    proxy.admin.until_health(&v1.address(), "not_ready").await;
    proxy.admin.until_health(&v2.address(), "not_ready").await;
    (v1, v2, probed, proxy)
}

/// envoy#14968, contour#1846: all unhealthy, and traffic goes to the unhealthy.
#[tokio::test]
async fn envoy_14968_contour_1846_panic_is_for_stable_only_and_visible() {
    let (_v1, v2, probed, proxy) = lost("50%").await;
    let (arrived, bad_before) = (v2.arrived(), charged(&proxy).await);
    let tally = Load::run(&proxy.address(), &Plan::of(2, 40)).await;
    tally.assert_clean();
    assert_eq!((tally.of("v1"), v2.arrived()), (40, arrived), "stable in panic, the candidate never");
    assert_eq!(charged(&proxy).await - bad_before, 40, "the candidate is charged");
    let on = async || proxy.admin.count("tidegate_panic").await;
    eventually(WAIT_MAX, "panic", || async { (on().await == 1).then_some(()) }).await;
    assert_eq!(proxy.admin.count("tidegate_panics_total").await, 1);
    assert_eq!(proxy.admin.json("/v1/services/web").await["stable"]["panic"], true);
    assert_eq!(events(&proxy, "panic").await.len(), 1);
    probed.behave(good());
    eventually(WAIT_MAX, "calm", || async { (on().await == 0).then_some(()) }).await;
    assert_eq!(events(&proxy, "panic_over").await.len(), 1);
}

#[tokio::test]
async fn without_panic_nobody_is_asked_who_is_not_ready() {
    let (v1, _v2, _probed, proxy) = lost("0%").await;
    let arrived = v1.arrived();
    assert_eq!(proxy.ask(GET).await.status, 503);
    assert_eq!((v1.arrived(), proxy.admin.count("tidegate_panics_total").await), (arrived, 0));
}

async fn charged(proxy: &Proxy) -> u64 {
    let bad = proxy.admin.metric("tidegate_bad_attempts_total", &["variant=\"candidate\""]).await;
    format!("{bad:.0}").parse().expect("a number")
}

/// A candidate nobody of which can be reached: its users are served by stable, at its expense, until the gate takes its share.
#[tokio::test]
async fn users_of_a_candidate_that_is_gone_are_served_and_it_is_charged() {
    let [v1, mut c1, mut c2] = upstreams().await;
    let quick = "interval = \"50ms\"\nfast_interval = \"20ms\"\nfall = 2";
    let proxy =
        Proxy::start(|c| c.web(&[&v1.address()], &[&c1.address(), &c2.address()]).set("services.web.health", quick))
            .await;
    proxy.admin.weight("web", "50%").await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 4, ..Plan::default() });
    load.progress(100).await;
    c1.stop().await;
    c2.stop().await;
    proxy.admin.until_health(&c1.address(), "not_ready").await;
    proxy.admin.until_health(&c2.address(), "not_ready").await;
    load.progress(200).await;
    let tally = load.stop().await;
    // What was in flight on them when they went may be lost, nothing after.
    assert!(tally.failed == 0 && tally.responses - tally.by_status[&200] <= 4, "{tally:?}");
    assert!(charged(&proxy).await >= 3, "it is charged");
    let status = proxy.admin.status().await;
    let events = status["events"].as_array().expect("events");
    assert!(events.iter().any(|event| event["what"] == "abort" && event["actor"] == "gate/error-rate"), "{events:?}");
}

#[tokio::test]
async fn an_ejection_outlives_reloads() {
    let [a, b] = upstreams().await;
    let file = |base: Config| turns(base, &[&a, &b], "");
    let proxy = Proxy::start(file).await;
    a.behave(bad());
    ask_until(&proxy, &a, 5).await;
    proxy.admin.until_outlier(&a.address(), Some("ejected")).await;
    let arrived = a.arrived();
    for turn in 1..=10 {
        let lines = format!("connect_timeout = \"{}ms\"", 900 + turn);
        proxy.reload_ok(&file(proxy.base.clone()).set("services.web.upstream", &lines)).await;
        Load::run(&proxy.address(), &Plan::of(2, 20)).await.assert_clean();
    }
    assert_eq!((a.arrived(), proxy.admin.count("tidegate_ejections_total").await), (arrived, 1));
}
