//! What is known of endpoints outlives reloads, and traffic waits for those that are new.

use super::{GET, QUICK, Site, ok, quick};
use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::until;

/// Reloads in a row.
const RELOADS: u32 = 30;

/// traefik PR#13223, haproxy#2085: health forgotten on reload.
#[tokio::test]
async fn traefik_13223_haproxy_2085_health_outlives_reloads() {
    let slow = "path = \"/ready\"\ninterval = \"1h\"\nfast_interval = \"1h\"\njitter = \"0%\"";
    let site = Site::start(ok(""), slow).await;
    site.until("ready").await;
    // The one after the first comes anywhere in the interval; no other does.
    let asked = site.probed.arrived();
    for turn in 1..=RELOADS {
        let timeout = format!("connect_timeout = \"{}ms\"", 1_000 + turn);
        let file = quick(site.proxy.base.clone().web(&[&site.app.address()], &[]), &site.probed, slow);
        let answer = site.proxy.reload(&file.set("services.web.upstream", &timeout).text()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(site.status().await, 200, "reload {turn}");
    }
    assert!(site.probed.arrived() <= asked + 1, "nobody was asked anew");
    // Asked otherwise, it is still what it was.
    site.probed.behave(Behaviour::hang());
    let file = quick(site.proxy.base.clone().web(&[&site.app.address()], &[]), &site.probed, slow);
    let answer = site.proxy.reload(&file.set("services.web.health", "path = \"/other\"").text()).await;
    assert_eq!((answer.status, site.status().await), (200, 200));
    until("the new path to be asked", || {
        site.probed.requests().iter().any(|request| request.head.line.starts_with("GET /other"))
    })
    .await;
    assert_eq!(site.status().await, 200);
}

async fn stopped(name: &str) -> Upstream {
    let mut upstream = Upstream::start(Behaviour::version(name)).await;
    upstream.stop().await;
    upstream
}

/// An endpoint added by reload gets nothing before its probe passed, and those it replaces serve meanwhile.
#[tokio::test]
async fn the_last_ready_endpoints_serve_until_a_replacement_is_ready() {
    let old = Upstream::start(Behaviour::version("old")).await;
    let mut new = stopped("new").await;
    let file = |base: Config, at: &Upstream| base.web(&[&at.address()], &[]).set("services.web.health", QUICK);
    let proxy = Proxy::start(|c| file(c, &old)).await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 2, ..Plan::default() });
    load.progress(50).await;
    proxy.reload_ok(&file(proxy.base.clone(), &new)).await;
    assert_eq!(proxy.admin.endpoint(&old.address()).await["leaving"], true);
    assert_eq!(proxy.admin.endpoint(&new.address()).await["health"], "not_ready");
    for _ in 0..20 {
        assert_eq!(proxy.ask(GET).await.version(), "old");
    }
    new.restart().await;
    proxy.admin.until_health(&new.address(), "ready").await;
    let gone =
        || async { (!proxy.admin.status().await["services"].to_string().contains(&old.address())).then_some(()) };
    crate::harness::wait::eventually(crate::harness::wait::WAIT_MAX, "the old one to go", gone).await;
    let served = old.arrived();
    for _ in 0..20 {
        assert_eq!(proxy.ask(GET).await.version(), "new");
    }
    assert_eq!(old.arrived(), served, "nothing more for the one that went");
    load.progress(50).await;
    load.stop().await.assert_clean();
    old.all_closed().await;
}

/// An endpoint that is added beside ready ones and listens gets nothing all the same before its probe passed.
#[tokio::test]
async fn one_that_is_added_gets_nothing_before_its_probe_passed() {
    let old = Upstream::start_at("127.0.0.2:0", Behaviour::version("old")).await;
    let new = Upstream::start_at("127.0.0.3:0", Behaviour::version("new")).await;
    let well = Upstream::start_at("127.0.0.2:0", ok("")).await;
    let port = well.address().rsplit(':').next().expect("a port").to_owned();
    let probed = Upstream::start_at(&format!("127.0.0.3:{port}"), Behaviour::answer(503, &[], "warming up")).await;
    let file = |base: Config, endpoints: &[&str]| {
        let probes = format!("path = \"/ready\"\nport = {port}");
        base.web(endpoints, &[]).set("services.web.health", QUICK).set("services.web.health", &probes)
    };
    let (old_address, new_address) = (old.address(), new.address());
    let proxy = Proxy::start(|c| file(c, &[&old_address])).await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 4, ..Plan::default() });
    load.progress(50).await;
    let both = file(proxy.base.clone(), &[&old_address, &new_address]);
    assert_eq!(proxy.reload(&both.text()).await.status, 200);
    load.progress(100).await;
    until("it to be asked more than once", || probed.arrived() > 3).await;
    proxy.admin.until_health(&new_address, "not_ready").await;
    load.progress(100).await;
    assert_eq!((new.accepted(), new.arrived()), (0, 0), "it listens, and nobody comes");
    probed.behave(ok(""));
    proxy.admin.until_health(&new_address, "ready").await;
    until("its share", || new.arrived() > 20).await;
    load.stop().await.assert_clean();
}

/// argo#3372, #4390: a superseding release routes to a pool that is not up.
#[tokio::test]
async fn argo_3372_4390_a_candidate_gets_nothing_before_its_probe_passed() {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let mut v3 = stopped("v3").await;
    let file = |base: Config, version: &str, at: &Upstream| {
        let route = base.route("service = \"web\"");
        route.pools("web", ("v1", &[&v1.address()]), (version, &[&at.address()])).set("services.web.health", QUICK)
    };
    let proxy = Proxy::start(|c| file(c, "v2", &v2)).await;
    proxy.admin.weight("web", "100%").await;
    assert_eq!(proxy.ask(GET).await.version(), "v2");
    proxy.reload_ok(&file(proxy.base.clone(), "v3", &v3)).await;
    proxy.admin.weight("web", "100%").await;
    let load = Load::start(&proxy.address(), &Plan { sessions: 2, ..Plan::default() });
    for _ in 0..30 {
        assert_eq!(proxy.ask(GET).await.version(), "v1", "not up: no share yet");
    }
    load.progress(100).await;
    let charged = proxy.admin.metric("tidegate_bad_attempts_total", &["version=\"v3\""]).await;
    assert!(charged.abs() < f64::EPSILON, "nobody is charged for what was never up");
    v3.restart().await;
    proxy.admin.until_health(&v3.address(), "ready").await;
    assert_eq!(proxy.ask(GET).await.version(), "v3");
    load.stop().await.assert_clean();
}

/// envoy#14968, contour#1846: a candidate that is down fails over to stable and is charged for it.
#[tokio::test]
async fn a_candidate_that_was_up_and_is_down_is_charged_while_stable_answers() {
    let v1 = Upstream::start(Behaviour::version("v1")).await;
    let mut v2 = Upstream::start(Behaviour::version("v2")).await;
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[&v2.address()]).set("services.web.health", QUICK)).await;
    proxy.admin.weight("web", "100%").await;
    v2.stop().await;
    proxy.admin.until_health(&v2.address(), "not_ready").await;
    let counted = async |name: &str, labels: &[&str]| proxy.admin.metric(name, labels).await;
    let before = counted("tidegate_bad_attempts_total", &["variant=\"candidate\""]).await;
    let dials = counted("tidegate_upstream_connect_failures_total", &["variant=\"candidate\""]).await;
    for _ in 0..10 {
        assert_eq!(proxy.ask(GET).await.version(), "v1");
    }
    let exactly = |value: f64, expected: f64| assert!((value - expected).abs() < 0.5, "{value} is not {expected}");
    exactly(counted("tidegate_bad_attempts_total", &["variant=\"candidate\""]).await, before + 10.0);
    exactly(counted("tidegate_requests_total", &["variant=\"stable\"", "assignment=\"fallback\""]).await, 10.0);
    exactly(counted("tidegate_bad_attempts_total", &["variant=\"stable\""]).await, 0.0);
    exactly(counted("tidegate_upstream_connect_failures_total", &["variant=\"candidate\""]).await, dials);
}
