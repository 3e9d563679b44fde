//! Where users of other tools were hurt, and that it cannot happen here. Each test is named after its source; lines of the same kind that
//! are tested elsewhere: argo#4841 and flagger#1647 in `shift.rs`, envoy#3928 and caddy#2466 in `reload.rs`, caddy#2850 in `admin.rs`,
//! traefik#1104 in `upstream_faults.rs`.

use crate::harness::client::{Load, Plan, Response, WebSocket};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn version(name: &str) -> Upstream {
    Upstream::start(Behaviour::version(name)).await
}

async fn site(lines: impl FnOnce(Config) -> Config) -> (Upstream, Upstream, Proxy) {
    let (v1, v2) = (version("v1").await, version("v2").await);
    let proxy = Proxy::start(|c| lines(c.web(&[&v1.address()], &[&v2.address()]))).await;
    (v1, v2, proxy)
}

/// The answer that begins a session on `version`.
async fn session_on(proxy: &Proxy, version: &str) -> Response {
    loop {
        let response = proxy.ask(GET).await;
        if response.version() == version {
            return response;
        }
    }
}

/// Sticky to the version, on both sides, and released when the candidate goes.
#[tokio::test]
async fn flagger_1532_sticky_to_the_version_and_released_at_the_end() {
    let (v1, _v2, proxy) = site(|c| c).await;
    proxy.admin.weight("web", "50%").await;
    let first = session_on(&proxy, "v2").await;
    let cookie = first.set_cookie().expect("a split is in force").to_owned();
    assert!(first.get("set-cookie").is_some_and(|v| v.contains("Path=/")));
    let again = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n");
    assert_eq!(proxy.ask(&again).await.version(), "v2");
    proxy.reload_ok(&proxy.base.clone().web(&[&v1.address()], &[])).await;
    assert_eq!(proxy.ask(&again).await.version(), "v1", "no candidate, nothing to be sticky to");
}

#[tokio::test]
async fn ingress_nginx_8246_a_session_does_not_beat_the_force_header() {
    let (_v1, _v2, proxy) = site(|c| c.set("services.web.force", "header = \"x-canary\"")).await;
    proxy.admin.weight("web", "50%").await;
    let cookie = session_on(&proxy, "v2").await.set_cookie().unwrap().to_owned();
    let forced = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nX-Canary: stable\r\n\r\n");
    assert_eq!(proxy.ask(forced).await.version(), "v1");
}

#[tokio::test]
async fn flagger_pr_1514_header_and_weight_work_together() {
    let (_v1, _v2, proxy) = site(|c| c.set("services.web.force", "header = \"x-canary\"")).await;
    proxy.admin.weight("web", "50%").await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 1_000)).await;
    assert!((400..=600).contains(&tally.of("v2")), "{:?}", tally.by_version);
    let forced = Load::run(&proxy.address(), &Plan { fields: "X-Canary: true\r\n".into(), ..Plan::of(4, 100) }).await;
    assert_eq!(forced.of("v2"), 100);
}

#[tokio::test]
async fn traefik_9436_integer_weights_over_uneven_pools() {
    let (a, b, c) = (version("v1").await, version("v1").await, version("v1").await);
    let v2 = version("v2").await;
    let proxy = Proxy::start(|config| config.web(&[&a.address(), &b.address(), &c.address()], &[&v2.address()])).await;
    proxy.admin.weight("web", "10%").await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 2_000)).await;
    tally.assert_clean();
    // Users are drawn anew each time: five sigma around 200, where a share bent by the sizes of the pools would be 500.
    assert!((133..=267).contains(&tally.of("v2")), "{:?}", tally.by_version);
    assert!([&a, &b, &c].iter().all(|upstream| upstream.arrived() > 300), "and the pool shares its part");
}

#[tokio::test]
async fn traefik_8157_weight_zero_sends_everyone_to_stable() {
    let (_v1, v2, proxy) = site(|c| c).await;
    proxy.admin.weight("web", "100%").await;
    proxy.ask(GET).await;
    proxy.admin.weight("web", "0%").await;
    let before = v2.arrived();
    let tally = Load::run(&proxy.address(), &Plan::of(4, 500)).await;
    tally.assert_clean();
    assert_eq!((tally.of("v1"), v2.arrived()), (500, before));
}

/// The share never exceeds the table, whatever changes.
#[tokio::test]
async fn argo_4642_no_glitch_while_the_weight_is_set_again_and_again() {
    let (_v1, v2, proxy) = site(|c| c).await;
    let load = Load::start(&proxy.address(), &Plan::default());
    for turn in 0..1_000 {
        proxy.admin.weight("web", if turn % 2 == 0 { "5%" } else { "10%" }).await;
    }
    load.progress(200).await;
    let tally = load.stop().await;
    tally.assert_clean();
    assert!(proxy.admin.status().await["generation"].as_u64() > Some(1_000), "every change was one");
    // Never more than the larger weight allows, with room for five sigma: a glitch to another pool or to everyone is far above.
    let n = f64::from(u32::try_from(tally.responses).unwrap());
    let most = n * 0.10 + 5.0 * (n * 0.10 * 0.90).sqrt();
    assert!(tally.of("v2") > 0 && f64::from(u32::try_from(tally.of("v2")).unwrap()) <= most, "{tally:?}");
    proxy.admin.weight("web", "0%").await;
    let before = v2.arrived();
    Load::run(&proxy.address(), &Plan::of(4, 500)).await.assert_clean();
    assert_eq!(v2.arrived(), before, "nothing at 0%");
}

#[tokio::test]
async fn haproxy_93_websockets_live_through_reloads() {
    let upstream = Upstream::start(Behaviour::websocket()).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let mut socket = WebSocket::open(&proxy.address(), "/", "").await.expect("an upgrade");
    for turn in 0..50 {
        let lines = format!("connect_timeout = \"{}ms\"", 500 + turn);
        proxy
            .reload_ok(&proxy.base.clone().web(&[&upstream.address()], &[]).set("services.web.upstream", &lines))
            .await;
        socket.echo("here").await;
    }
    socket.close().await;
}

#[tokio::test]
async fn sozu_1442_a_stale_idle_connection_is_no_502() {
    let (mut v1, _v2, proxy) = site(|c| c).await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
        v1.restart().await;
    }
}

#[tokio::test]
async fn caddy_7304_labels_do_not_grow_with_hosts_and_paths() {
    let (_v1, _v2, proxy) = site(|c| c).await;
    proxy.ask(GET).await;
    let before = proxy.admin.metrics().await.lines().count();
    for n in 0..100 {
        proxy.ask(format!("GET /{n} HTTP/1.1\r\nHost: h{n}.test\r\nX-{n}: 1\r\n\r\n")).await;
    }
    let after = proxy.admin.metrics().await;
    assert_eq!(after.lines().count(), before);
    assert!(!after.contains("h7.test"));
}

#[tokio::test]
async fn cve_2024_45410_connection_cannot_strip_forwarding_fields() {
    let (v1, _v2, proxy) = site(|c| c).await;
    for field in ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"] {
        let response = proxy.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {field}\r\n\r\n")).await;
        assert!(matches!(response.status, 200 | 400), "{field}");
        if response.status == 200 {
            assert!(v1.request().await.head.get(field).is_some(), "{field} was stripped");
        }
    }
}

#[tokio::test]
async fn pingap_215_an_upgrade_is_no_way_around_the_checks() {
    let (v1, _v2, proxy) = site(|c| c.without_routes().route("path_prefix = \"/open\"\nservice = \"web\"")).await;
    assert_eq!(WebSocket::open(&proxy.address(), "/closed", "").await.err().map(|refused| refused.status), Some(404));
    let smuggled = WebSocket::open(&proxy.address(), "/open", "Transfer-Encoding: gzip\r\n").await;
    assert_eq!(smuggled.err().map(|refused| refused.status), Some(400));
    assert_eq!(v1.arrived(), 0);
}
