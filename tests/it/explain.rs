//! What `explain` says of endpoints that get nothing, and that it is what requests get.

use crate::harness::client::{Load, Plan};
use crate::harness::proxy::{Proxy, Site};
use crate::harness::upstream::{Behaviour, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// A single failure ejects, for the rest of the test.
const STRICT: &str = "consecutive_failures = 1\nejection = \"1h\"\nmax_ejection_time = \"1h\"";

/// The state of each endpoint, and the reasons.
async fn explain(site: &Site) -> (Vec<serde_json::Value>, String) {
    let told = site.admin.json("/v1/explain?url=http://test/").await;
    (told["endpoints"].as_array().expect("a list").clone(), told["because"].to_string())
}

async fn drain(site: &Site, upstream: &Upstream) {
    let path = format!("/v1/services/web/endpoints/{}/drain", upstream.address());
    let answer = site.admin.post(&path, "{\"force\":true,\"reason\":\"fire\"}").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn ejections_and_drains_are_told_with_what_follows() {
    let (a, b) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v1")).await);
    let addresses = [a.address(), b.address()];
    let build = |c: crate::harness::config::Config| {
        c.web(&[&addresses[0], &addresses[1]], &[]).set("services.web.outlier", STRICT)
    };
    let proxy = Proxy::start(build).await;
    let (endpoints, because) = explain(&proxy).await;
    assert!(endpoints.iter().all(|e| e["health"] == "ready" && e["outlier"].is_null()), "{endpoints:?}");
    assert!(!because.contains("used"), "{because}");
    a.behave(Behaviour::answer(500, &[], ""));
    while a.arrived() == 0 {
        proxy.ask(GET).await;
    }
    proxy.admin.until_outlier(&addresses[0], Some("ejected")).await;
    let (endpoints, because) = explain(&proxy).await;
    assert_eq!((&endpoints[0]["outlier"]["state"], &endpoints[0]["health"]), (&"ejected".into(), &"ready".into()));
    assert!(!because.contains("used"), "the other one is: {because}");
    // The only one left is drained: the ejected one serves in panic, and that is what is said.
    a.behave(Behaviour::version("v1"));
    drain(&proxy, &b).await;
    let (endpoints, because) = explain(&proxy).await;
    assert!(endpoints[1]["drained_since_ms"].is_u64() && because.contains("are used (panic)"), "{because}");
    assert_eq!(proxy.ask(GET).await.status, 200);
    drain(&proxy, &a).await;
    let (_, because) = explain(&proxy).await;
    let told = format!(
        "no endpoint of stable can be used ({0} is drained, {1} is drained): the answer is 503",
        addresses[0], addresses[1]
    );
    assert!(because.contains(&told), "{because}");
    let answer = proxy.ask(GET).await;
    assert_eq!((answer.status, answer.text()), (503, "no endpoint can be used: all are drained\n"));
}

#[tokio::test]
async fn a_candidate_nobody_of_which_can_be_used_goes_to_stable() {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[&v2.address()])).await;
    proxy.admin.weight("web", "100%").await;
    drain(&proxy, &v2).await;
    let (endpoints, because) = explain(&proxy).await;
    assert_eq!(endpoints[0]["address"], v2.address());
    let told = format!("no endpoint of candidate can be used ({} is drained): stable answers", v2.address());
    assert!(because.contains(&told) && !because.contains("503"), "{because}");
    let tally = Load::run(&proxy.address(), &Plan::of(1, 5)).await;
    assert_eq!(tally.of("v1"), 5, "{:?}", tally.by_version);
    drain(&proxy, &v1).await;
    let (_, because) = explain(&proxy).await;
    assert!(because.contains("no endpoint of stable can be used") && because.contains("503"), "{because}");
}
