//! Who gets which release: shares, stickiness, force, aborts.

use crate::harness::client::{Load, Plan, Session};
use crate::harness::config::Config;
use crate::harness::proxy::Proxy;
use crate::harness::soak;
use crate::harness::upstream::{Behaviour, Upstream};

/// Requests written at once by [`versions`].
const BATCH: usize = 50;

/// A stable and a candidate release that say who they are, and the proxy before them.
async fn site(lines: impl FnOnce(Config) -> Config) -> (Upstream, Upstream, Proxy) {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let proxy = Proxy::start(|c| lines(c.web(&[&v1.address()], &[&v2.address()]))).await;
    (v1, v2, proxy)
}

fn by_header(config: Config) -> Config {
    config.set("services.web.affinity", "key = [\"header:x-user\"]")
}

/// The release each of `users` users gets, asked over one connection.
async fn versions(proxy: &Proxy, users: usize) -> Vec<String> {
    let mut client = proxy.client().await;
    let mut versions = Vec::with_capacity(users);
    for first in (0..users).step_by(BATCH) {
        let batch = first..users.min(first + BATCH);
        let one = |user| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: u{user}\r\n\r\n");
        let requests = batch.clone().map(one).collect::<Vec<_>>().concat();
        client.send(&requests).await;
        let mut keeps = true;
        for _ in batch {
            let response = client.response().await;
            versions.push(response.version().to_owned());
            keeps &= response.keeps();
        }
        if !keeps {
            client = proxy.client().await;
        }
    }
    versions
}

fn unlimited(config: Config) -> Config {
    config.limits("max_requests = 1000000")
}

#[tokio::test]
async fn observed_shares_are_within_three_sigma_of_the_weight() {
    // Users with names draw the same buckets every time: what holds once holds in every run.
    let (_v1, _v2, proxy) = site(|c| unlimited(by_header(c))).await;
    let users: u32 = if soak() { 200_000 } else { 20_000 };
    for (weight, share) in [("0.01%", 0.0001), ("1%", 0.01), ("5%", 0.05), ("50%", 0.5)] {
        proxy.admin.weight("web", weight).await;
        let versions = versions(&proxy, users as usize).await;
        let seen = f64::from(u32::try_from(versions.iter().filter(|version| *version == "v2").count()).unwrap());
        let n = f64::from(users);
        let sigma = (n * share * (1.0 - share)).sqrt();
        assert!((seen - n * share).abs() <= 3.0 * sigma, "{weight}: {seen} of {n}, sigma {sigma}");
        assert!(seen > 0.0, "{weight} is not nothing");
    }
}

#[tokio::test]
async fn nobody_moves_back_while_the_weight_rises() {
    let (_v1, _v2, proxy) = site(|c| unlimited(by_header(c))).await;
    let mut before = vec!["v1".to_owned(); 10_000];
    for (weight, share) in [("0%", 0.0), ("5%", 0.05), ("25%", 0.25), ("50%", 0.5), ("100%", 1.0)] {
        proxy.admin.weight("web", weight).await;
        let now = versions(&proxy, before.len()).await;
        let back = before.iter().zip(&now).filter(|(before, now)| *before == "v2" && *now != "v2").count();
        assert_eq!(back, 0, "users moved back at {weight}");
        let candidates = u32::try_from(now.iter().filter(|v| *v == "v2").count()).unwrap();
        let sigma = (10_000.0 * share * (1.0_f64 - share)).sqrt();
        assert!((f64::from(candidates) - 10_000.0 * share).abs() <= 3.0 * sigma, "{weight}: {candidates} of 10000");
        before = now;
    }
}

#[tokio::test]
async fn uneven_pools_do_not_bend_the_share() {
    let v1 = Upstream::start(Behaviour::version("v1")).await;
    let candidates = [Upstream::start(Behaviour::version("v2")).await, Upstream::start(Behaviour::version("v2")).await];
    let (a, b) = (candidates[0].address(), candidates[1].address());
    let proxy = Proxy::start(|c| unlimited(by_header(c.web(&[&v1.address()], &[&a, &b])))).await;
    proxy.admin.weight("web", "20%").await;
    let two = versions(&proxy, 2_000).await;
    proxy.reload_ok(&unlimited(by_header(proxy.base.clone().web(&[&v1.address()], &[&a])))).await;
    assert_eq!(versions(&proxy, 2_000).await, two, "the same users, whatever the size of the pool");
}

#[tokio::test]
async fn a_cookie_keeps_a_user_on_the_release() {
    let (_v1, _v2, proxy) = site(|c| c).await;
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.set_cookie(), None, "no split, no cookie");
    proxy.admin.weight("web", "50%").await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let first = proxy.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let cookie = first.set_cookie().expect("a cookie while a split is in force");
        assert!(cookie.starts_with("tidegate_web="), "{cookie}");
        let attributes = first.get("set-cookie").unwrap();
        assert!(
            attributes.contains("HttpOnly") && attributes.contains("Path=/") && !attributes.contains("Secure"),
            "{attributes}"
        );
        let mut session = Session::new(&proxy.address()).with(&format!("Cookie: other=1; {cookie}\r\n"));
        for _ in 0..5 {
            let again = session.get("/").await;
            assert_eq!((again.version(), again.set_cookie()), (first.version(), None));
        }
        seen.insert(first.version().to_owned());
    }
    assert_eq!(seen.len(), 2, "both releases had users");
}

#[tokio::test]
async fn force_beats_sticky_beats_bucket() {
    let force = "header = \"x-canary\"\ncookie = \"canary\"";
    let (_v1, _v2, proxy) =
        site(|c| c.set("services.web.force", force).set("services.web.affinity", "on_increase = \"new_sessions\""))
            .await;
    let ask = async |fields: &str| proxy.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    assert_eq!(ask("X-Canary: true\r\n").await.version(), "v2", "at weight 0");
    assert_eq!(ask("Cookie: canary=candidate\r\n").await.version(), "v2");
    proxy.admin.weight("web", "1%").await;
    let mut session = ask("").await;
    while session.version() != "v1" {
        session = ask("").await;
    }
    let cookie = format!("Cookie: {}\r\n", session.set_cookie().unwrap());
    proxy.admin.weight("web", "100%").await;
    assert_eq!(ask("").await.version(), "v2", "bucket");
    assert_eq!(ask(&cookie).await.version(), "v1", "sticky beats bucket");
    assert_eq!(ask(&format!("{cookie}X-Canary: candidate\r\n")).await.version(), "v2", "force beats sticky");
    assert_eq!(ask("X-Canary: false\r\n").await.version(), "v1");
    assert_eq!(ask("X-Canary: nonsense\r\n").await.version(), "v2", "an invalid value is ignored");
}

#[tokio::test]
async fn force_is_limited_to_its_addresses_and_its_secret() {
    let force = "header = \"x-canary\"\nallow_from = [\"127.0.0.9/32\"]";
    let (_v1, _v2, proxy) = site(|c| c.set("services.web.force", force)).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Canary: true\r\n\r\n";
    assert_eq!(proxy.ask(request).await.version(), "v1");
    let mut client = crate::harness::client::Client::connect_from("127.0.0.9", &proxy.address()).await;
    client.send(request).await;
    assert_eq!(client.response().await.version(), "v2");
}

#[tokio::test]
async fn argo_4841_after_an_abort_has_answered_no_attempt_reaches_the_candidate() {
    let (v1, v2, proxy) = site(|c| c).await;
    for _ in 0..20 {
        proxy.admin.weight("web", "100%").await;
        let load = Load::start(&proxy.address(), &Plan::default());
        load.progress(50).await;
        let answer = proxy.admin.abort("web").await;
        assert_eq!((answer["weight"].as_str(), answer["settled"].as_bool()), (Some("0%"), Some(true)));
        // What began before the answer may still be on its way to the upstream, so the attempts are counted where they begin.
        let begun = proxy.admin.metric("tidegate_attempts_total", &["variant=\"candidate\""]).await;
        load.progress(100).await;
        load.stop().await.assert_clean();
        let fresh = Load::run(&proxy.address(), &Plan::of(4, 50)).await;
        assert_eq!(fresh.of("v2"), 0, "a request that began after the answer reached the candidate");
        let after = proxy.admin.metric("tidegate_attempts_total", &["variant=\"candidate\""]).await;
        assert!((after - begun).abs() < 0.5, "an attempt on the candidate began after the answer");
        let reached = v2.arrived();
        // A new candidate of the same address, so that it can be aborted again.
        let version = format!("v2-{reached}");
        let (stable, candidate) = (v1.address(), v2.address());
        let config =
            proxy.base.clone().route("service = \"web\"").pools("web", ("v1", &[&stable]), (&version, &[&candidate]));
        proxy.reload_ok(&config).await;
    }
}

#[tokio::test]
async fn a_candidate_that_is_not_there_costs_no_request() {
    let (_v1, mut v2, proxy) = site(|c| c).await;
    v2.stop().await;
    proxy.admin.weight("web", "50%").await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 200)).await;
    tally.assert_clean();
    assert_eq!(tally.of("v1"), 200);
    // Until the gate takes its share.
    assert!(proxy.admin.metric("tidegate_requests_total", &["assignment=\"fallback\""]).await >= 3.0);
    assert!(
        proxy.admin.metric("tidegate_bad_attempts_total", &["variant=\"candidate\""]).await >= 3.0,
        "it is charged for it"
    );
}

#[tokio::test]
async fn a_fixed_split_over_services_is_independent_of_the_variants() {
    let up = async |name| Upstream::start(Behaviour::version(name)).await;
    let (us, us2, eu, eu2) = (up("us").await, up("us2").await, up("eu").await, up("eu2").await);
    // The same key for both draws, and the same users every time: what holds once holds in every run.
    let split = "services = [{ service = \"us\", weight = \"70%\" }, { service = \"eu\", weight = \"30%\" }]\n\
                 affinity = { key = [\"header:x-user\"] }";
    let proxy = Proxy::start(|c| {
        let key = "key = [\"header:x-user\"]";
        let pools = c.route(split).pools("us", ("1", &[&us.address()]), ("2", &[&us2.address()]));
        let pools = pools.pools("eu", ("1", &[&eu.address()]), ("2", &[&eu2.address()]));
        unlimited(pools.set("services.us.affinity", key).set("services.eu.affinity", key))
    })
    .await;
    proxy.admin.weight("us", "50%").await;
    proxy.admin.weight("eu", "10%").await;
    let versions = versions(&proxy, 10_000).await;
    let of = |name: &str| f64::from(u32::try_from(versions.iter().filter(|version| *version == name).count()).unwrap());
    let (us, eu) = (of("us") + of("us2"), of("eu") + of("eu2"));
    for (what, n, seen, share) in
        [("eu", 10_000.0, eu, 0.3), ("candidate of us", us, of("us2"), 0.5), ("candidate of eu", eu, of("eu2"), 0.1)]
    {
        let sigma = (n * share * (1.0_f64 - share)).sqrt();
        assert!((seen - n * share).abs() <= 3.0 * sigma, "{what}: {seen} of {n}, sigma {sigma}");
    }
}
