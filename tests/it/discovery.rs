//! Endpoints by name, over a DNS server of the test's own that changes, empties and fails its answers.

mod unix;

use std::time::Duration;

use serde_json::Value;

use crate::harness::client::{Load, Plan};
use crate::harness::config::Config;
use crate::harness::dns::{Dns, Mood};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, quiet};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// Probes that come fast and change something at once.
const QUICK: &str = "interval = \"20ms\"\nfast_interval = \"10ms\"\ntimeout = \"300ms\"\nrise = 1\nfall = 1";

/// Upstreams on one port of several loopback addresses, as records of one name are.
async fn together(ips: &[&str]) -> (u16, Vec<Upstream>) {
    let first = Upstream::start_at(&format!("{}:0", ips[0]), Behaviour::version(ips[0])).await;
    let port = first.address().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let mut upstreams = vec![first];
    for ip in &ips[1..] {
        upstreams.push(Upstream::start_at(&format!("{ip}:{port}"), Behaviour::version(ip)).await);
    }
    (port, upstreams)
}

/// `endpoints` of `web` as TOML, resolved by `dns`.
fn by_names(config: Config, dns: &Dns, endpoints: &str) -> Config {
    config
        .route("service = \"web\"")
        .set("services.web.stable", &format!("version = \"v1\"\nendpoints = {endpoints}"))
        .set("services.web.health", QUICK)
        .set("runtime.dns", &dns.lines())
}

/// The endpoints of stable once they are `expected`, all ready.
async fn until_ready(site: &Site, expected: &[String]) {
    until_pool(site, "stable", expected).await;
}

async fn until_pool(site: &Site, pool: &str, expected: &[String]) {
    eventually(WAIT_MAX, &format!("the endpoints {expected:?}"), || async {
        let web = site.admin.json("/v1/services/web").await;
        let endpoints = web[pool]["endpoints"].as_array().expect("a list").clone();
        let ready = endpoints.iter().all(|e| e["health"] == "ready" && e["leaving"].is_null());
        let found: Vec<_> = endpoints.iter().filter_map(|e| e["address"].as_str()).collect();
        (ready && found == expected).then_some(())
    })
    .await;
}

/// What the status says of a name once it is in `state`.
async fn until_name(site: &Site, name: &str, state: &str) -> Value {
    eventually(WAIT_MAX, &format!("{name} to be {state}"), || async {
        let status = site.admin.status().await;
        let names = status["names"].as_array().expect("a list").clone();
        names.into_iter().find(|known| known["name"] == name && known["state"] == state)
    })
    .await
}

async fn generation(site: &Site) -> u64 {
    site.admin.status().await["generation"].as_u64().expect("a number")
}

fn at(port: u16, ips: &[&str]) -> Vec<String> {
    ips.iter().map(|ip| format!("{ip}:{port}")).collect()
}

/// haproxy#75; pingap#16; praxis#77: only the first record was used, and only what it was at the start.
#[tokio::test]
async fn haproxy_75_pingap_16_praxis_77_all_records_are_used_and_changes_are_followed() {
    let (port, upstreams) = together(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]).await;
    let dns = Dns::start().await;
    dns.host("web.internal", 0, &["127.0.0.3", "127.0.0.2"]);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))).await;
    until_ready(&proxy, &at(port, &["127.0.0.2", "127.0.0.3"])).await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 100)).await;
    tally.assert_clean();
    assert_eq!(tally.by_version.keys().collect::<Vec<_>>(), ["127.0.0.2", "127.0.0.3"]);
    dns.host("web.internal", 0, &["127.0.0.4"]);
    until_ready(&proxy, &at(port, &["127.0.0.4"])).await;
    let tally = Load::run(&proxy.address(), &Plan::of(4, 50)).await;
    tally.assert_clean();
    assert_eq!(tally.by_version.keys().collect::<Vec<_>>(), ["127.0.0.4"]);
    assert!(upstreams.iter().all(|upstream| upstream.violations().is_empty()));
}

/// praxis#77, the other half: a name that has no answer must not keep the process from starting.
#[tokio::test]
async fn praxis_77_boots_unresolved_and_fills_in_when_the_answer_comes() {
    let (port, _upstreams) = together(&["127.0.0.2"]).await;
    let fixed = Upstream::start(Behaviour::version("v1")).await;
    for mood in [Mood::Silent, Mood::ServFail, Mood::NxDomain, Mood::Empty] {
        let dns = Dns::start().await;
        dns.mood(mood);
        let proxy = Proxy::start(|c| {
            by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))
                .route("path_prefix = \"/fixed\"\nservice = \"fixed\"")
                .pools("fixed", ("v1", &[&fixed.address()]), ("v2", &[]))
        })
        .await;
        let answer = proxy.ask(GET).await;
        assert_eq!(answer.status, 503, "{mood:?}");
        assert!(answer.text().contains("names are not resolved yet"), "{mood:?}: {}", answer.text());
        let other = proxy.ask("GET /fixed HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(other.status, 200, "{mood:?}: one service does not wait for the names of another");
        let name = until_name(&proxy, "web.internal", "unresolved").await;
        assert_eq!(name["addresses"], 0);
        assert!((proxy.admin.metric("tidegate_terminations_total", &["code=\"PU\""]).await - 1.0).abs() < 0.1);
        dns.host("web.internal", 0, &["127.0.0.2"]);
        dns.mood(Mood::Normal);
        until_ready(&proxy, &at(port, &["127.0.0.2"])).await;
        assert_eq!(proxy.ask(GET).await.status, 200, "{mood:?}");
    }
}

#[tokio::test]
async fn a_candidate_without_an_answer_has_no_share_until_it_has_one() {
    let (port, _upstreams) = together(&["127.0.0.2", "127.0.0.3"]).await;
    let dns = Dns::start().await;
    dns.host("web.internal", 60, &["127.0.0.2"]);
    let proxy = Proxy::start(|c| {
        by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))
            .set("services.web.candidate", &format!("version = \"v2\"\nendpoints = [\"canary.internal:{port}\"]"))
    })
    .await;
    proxy.admin.weight("web", "100%").await;
    let tally = Load::run(&proxy.address(), &Plan::of(2, 50)).await;
    tally.assert_clean();
    assert_eq!(tally.by_version.keys().collect::<Vec<_>>(), ["127.0.0.2"]);
    dns.host("canary.internal", 60, &["127.0.0.3"]);
    until_pool(&proxy, "candidate", &at(port, &["127.0.0.3"])).await;
    let tally = Load::run(&proxy.address(), &Plan::of(2, 50)).await;
    assert_eq!(tally.by_version.keys().collect::<Vec<_>>(), ["127.0.0.3"]);
}

#[tokio::test]
async fn a_record_that_goes_drains_without_a_failed_request() {
    let (port, upstreams) = together(&["127.0.0.2", "127.0.0.3"]).await;
    let dns = Dns::start().await;
    dns.host("web.internal", 0, &["127.0.0.2", "127.0.0.3"]);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))).await;
    until_ready(&proxy, &at(port, &["127.0.0.2", "127.0.0.3"])).await;
    let load = Load::start(&proxy.address(), &Plan::default());
    for ips in [&["127.0.0.2"][..], &["127.0.0.2", "127.0.0.3"], &["127.0.0.3"]] {
        dns.host("web.internal", 0, ips);
        until_ready(&proxy, &at(port, ips)).await;
        load.progress(50).await;
    }
    upstreams[0].all_closed().await;
    let gone = upstreams[0].arrived();
    load.progress(200).await;
    assert_eq!(upstreams[0].arrived(), gone, "nothing reaches what left");
    load.stop().await.assert_clean();
    let events = proxy.admin.status().await["events"].to_string();
    assert!(events.contains("endpoints_resolved") && events.contains("removed 127.0.0.2"), "{events}");
}

#[tokio::test]
async fn a_server_that_fails_or_forgets_takes_nothing_away() {
    let (port, _upstreams) = together(&["127.0.0.2", "127.0.0.3"]).await;
    let dns = Dns::start().await;
    dns.host("web.internal", 0, &["127.0.0.2"]);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))).await;
    until_ready(&proxy, &at(port, &["127.0.0.2"])).await;
    let load = Load::start(&proxy.address(), &Plan::default());
    for mood in [Mood::ServFail, Mood::Silent, Mood::NxDomain, Mood::Empty] {
        dns.mood(mood);
        let name = until_name(&proxy, "web.internal", "stale").await;
        assert!(name["problem"].is_string() && name["addresses"] == 1, "{mood:?}: {name}");
        assert!((proxy.admin.metric("tidegate_dns_names", &["state=\"stale\""]).await - 1.0).abs() < 0.1);
        load.progress(20).await;
        dns.mood(Mood::Normal);
        until_name(&proxy, "web.internal", "resolved").await;
    }
    dns.host("web.internal", 0, &["127.0.0.3"]);
    until_ready(&proxy, &at(port, &["127.0.0.3"])).await;
    load.stop().await.assert_clean();
    let events = proxy.admin.status().await["events"].to_string();
    assert!(events.contains("name_failed") && events.contains("name_recovered"), "{events}");
    assert!(proxy.admin.metric("tidegate_dns_lookups_total", &["failure"]).await >= 4.0);
}

#[tokio::test]
async fn the_ttl_says_when_a_name_is_asked_for_again() {
    let (port, _upstreams) = together(&["127.0.0.2", "127.0.0.3"]).await;
    let dns = Dns::start().await;
    dns.host("long.internal", 300, &["127.0.0.2"]);
    dns.host("short.internal", 0, &["127.0.0.3"]);
    let endpoints = format!("[\"long.internal:{port}\", \"short.internal:{port}\"]");
    let proxy = Proxy::start(|c| by_names(c, &dns, &endpoints)).await;
    until_ready(&proxy, &at(port, &["127.0.0.2", "127.0.0.3"])).await;
    let asked = dns.asked("long.internal");
    dns.asked_again("short.internal", 6).await;
    assert_eq!((asked, dns.asked("long.internal")), (2, 2), "A and AAAA, once");
    // A reload asks for what is new and keeps what is known.
    let with_new = format!("[\"long.internal:{port}\", \"new.internal:{port}\"]");
    dns.host("new.internal", 300, &["127.0.0.3"]);
    proxy.reload_ok(&by_names(proxy.base.clone(), &dns, &with_new)).await;
    until_ready(&proxy, &at(port, &["127.0.0.2", "127.0.0.3"])).await;
    assert_eq!((dns.asked("long.internal"), dns.asked("new.internal")), (2, 2));
    let short = dns.asked("short.internal");
    quiet(Duration::from_millis(300), "a name nobody needs is not asked for", dns.asked_again("short.internal", 1))
        .await;
    assert_eq!(dns.asked("short.internal"), short);
}

#[tokio::test]
async fn srv_records_tell_ports_and_weights_and_only_the_lowest_priority_counts() {
    let (port, _upstreams) = together(&["127.0.0.2"]).await;
    let (other, _others) = together(&["127.0.0.3"]).await;
    let dns = Dns::start().await;
    let name = "_http._tcp.web.internal";
    dns.host("a.internal", 0, &["127.0.0.2"]);
    dns.host("b.internal", 0, &["127.0.0.3"]);
    dns.srv(name, 0, &[(1, 3, port, "a.internal."), (1, 1, other, "b.internal."), (9, 1, 1, "backup.internal.")]);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"srv:{name}\"]"))).await;
    let both = [format!("127.0.0.2:{port}"), format!("127.0.0.3:{other}")];
    until_ready(&proxy, &both).await;
    for (address, weight) in both.iter().zip([3, 1]) {
        assert_eq!(proxy.admin.endpoint(address).await["weight"], weight);
    }
    assert_eq!(dns.asked("backup.internal"), 0);
    dns.srv(name, 0, &[(9, 1, other, "b.internal.")]);
    until_ready(&proxy, &both[1..]).await;
    dns.srv(name, 0, &[(0, 0, 0, ".")]);
    until_name(&proxy, &format!("srv:{name}"), "stale").await;
    assert_eq!(proxy.ask(GET).await.status, 200, "a service that is said not to exist keeps what it had");
}

#[tokio::test]
async fn ipv6_addresses_are_used_beside_ipv4_ones_and_alone() {
    let (port, _v4) = together(&["127.0.0.2"]).await;
    let _v6 = Upstream::start_at(&format!("[::1]:{port}"), Behaviour::version("v6")).await;
    let dns = Dns::start().await;
    dns.host("web.internal", 0, &["::1", "127.0.0.2"]);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"web.internal:{port}\"]"))).await;
    until_ready(&proxy, &[format!("127.0.0.2:{port}"), format!("[::1]:{port}")]).await;
    dns.host("web.internal", 0, &["::1"]);
    until_ready(&proxy, &[format!("[::1]:{port}")]).await;
    let tally = Load::run(&proxy.address(), &Plan::of(1, 10)).await;
    assert_eq!(tally.by_version.keys().collect::<Vec<_>>(), ["v6"]);
}

#[tokio::test]
async fn names_of_the_hosts_file_need_no_server() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let port = upstream.address().rsplit(':').next().expect("a port").to_owned();
    let dns = Dns::start().await;
    dns.mood(Mood::Silent);
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[\"localhost:{port}\"]"))).await;
    proxy.admin.until_health(&upstream.address(), "ready").await;
    assert_eq!(proxy.ask(GET).await.status, 200);
    assert_eq!(dns.asked("localhost"), 0);
}

/// Names nobody answers take long to ask for, and there are more of them than can be asked for at once.
#[tokio::test]
async fn dead_names_do_not_keep_a_living_one_waiting() {
    let dns = Dns::start().await;
    let (port, _upstreams) = together(&["127.0.0.2", "127.0.0.3"]).await;
    let dead: Vec<_> = (1..=140).map(|n| format!("dead{n}.internal")).collect();
    for name in &dead {
        dns.silence(name);
    }
    dns.host("web.internal", 0, &["127.0.0.2"]);
    let endpoints: Vec<_> = dead.iter().map(|name| format!("\"{name}:1\"")).collect();
    let endpoints = format!("[{}, \"web.internal:{port}\"]", endpoints.join(", "));
    // Those that fail are asked for again as soon as those that do not.
    let proxy = Proxy::start(|c| by_names(c, &dns, &endpoints).set("runtime.dns", "max_ttl = \"50ms\"")).await;
    until_ready(&proxy, &at(port, &["127.0.0.2"])).await;
    for _ in 0..3 {
        dns.asked_again("web.internal", 2).await;
        dns.asked_again("dead140.internal", 1).await;
    }
    dns.host("web.internal", 0, &["127.0.0.3"]);
    until_ready(&proxy, &at(port, &["127.0.0.3"])).await;
}

#[tokio::test]
async fn many_names_that_change_at_once_are_few_publications() {
    let dns = Dns::start().await;
    let names: Vec<_> = (1..=40).map(|n| format!("n{n}.internal")).collect();
    for name in &names {
        dns.host(name, 0, &["127.0.0.2"]);
    }
    // Every name has an endpoint of its own; nobody listens there, so that nothing but names makes generations.
    let endpoints: Vec<_> = names.iter().zip(1..).map(|(name, port)| format!("\"{name}:{port}\"")).collect();
    let proxy = Proxy::start(|c| by_names(c, &dns, &format!("[{}]", endpoints.join(", ")))).await;
    until_all_at(&proxy, 40, "127.0.0.2:").await;
    let before = generation(&proxy).await;
    for name in &names {
        dns.host(name, 0, &["127.0.0.3"]);
    }
    until_all_at(&proxy, 40, "127.0.0.3:").await;
    let after = generation(&proxy).await;
    assert!(before <= 10 && after - before <= 10, "{before}, then {after} generations for 40 names");
}

async fn until_all_at(site: &Site, count: usize, prefix: &str) {
    eventually(WAIT_MAX, &format!("{count} endpoints at {prefix}"), || async {
        let web = site.admin.json("/v1/services/web").await;
        let endpoints = web["stable"]["endpoints"].as_array().expect("a list").clone();
        let all = endpoints.iter().all(|e| e["address"].as_str().is_some_and(|a| a.starts_with(prefix)));
        (all && endpoints.len() == count).then_some(())
    })
    .await;
}
