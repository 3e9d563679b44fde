//! Probes against real upstreams: what passes, what does not and why, and that only ready endpoints get requests.

mod cost;
mod crowd;
mod grpc;
mod http2;
mod replaced;

use std::time::Duration;

use tidegate::clock;

use crate::harness::config::Config;
use crate::harness::dns::{Dns, Mood};
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::tls::Authority;
use crate::harness::upstream::{Act, Behaviour, Upstream, answer, read_body};
use crate::harness::wait::{WAIT_MAX, eventually, quiet, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
/// Probes that come fast and change something at once.
const QUICK: &str = "interval = \"20ms\"\nfast_interval = \"10ms\"\ntimeout = \"300ms\"\nrise = 1\nfall = 1";

/// Without panic, so that what is not ready gets nothing.
const CALM: &str = "panic_threshold = \"0%\"";

/// An upstream, another one that answers its probes, and a proxy.
struct Site {
    app: Upstream,
    probed: Upstream,
    proxy: Proxy,
}

fn quick(config: Config, probed: &Upstream, lines: &str) -> Config {
    let port = probed.address().rsplit(':').next().expect("a port").to_owned();
    let config = config.set("services.web.outlier", CALM);
    config.set("services.web.health", QUICK).set("services.web.health", &format!("port = {port}\n{lines}"))
}

impl Site {
    async fn start(behaviour: Behaviour, lines: &str) -> Self {
        let probed = Upstream::start(behaviour).await;
        Self::with(probed, lines).await
    }

    async fn with(probed: Upstream, lines: &str) -> Self {
        let app = Upstream::start(Behaviour::version("v1")).await;
        let proxy = Proxy::start(|c| quick(c.web(&[&app.address()], &[]), &probed, lines)).await;
        Self { app, probed, proxy }
    }

    async fn until(&self, health: &str) -> serde_json::Value {
        self.proxy.admin.until_health(&self.app.address(), health).await
    }

    async fn status(&self) -> u16 {
        self.proxy.ask(GET).await.status
    }

    /// How many readiness probes had this result.
    async fn probes(&self, probe: &str, result: &str) -> f64 {
        let labels = [format!("probe=\"{probe}\""), format!("result=\"{result}\"")];
        self.proxy.admin.metric("tidegate_probes_total", &[&labels[0], &labels[1]]).await
    }
}

fn ok(body: &str) -> Behaviour {
    Behaviour::answer(200, &[], body)
}

fn slow() -> Behaviour {
    Behaviour::script([read_body(), Act::Pause(Duration::from_millis(120)), answer(200, &[], "ok")])
}

/// What makes a probe fail, how the failure is told, and what is right.
fn failures() -> Vec<(&'static str, Behaviour, &'static str, Behaviour)> {
    let json = "expect_json = { \"$.checks[0].up\" = true, \"$.status\" = \"healthy\" }";
    let healthy = ok("{\"status\": \"healthy\", \"checks\": [{\"up\": true}]}");
    let large = "x".repeat(70_000);
    vec![
        ("", Behaviour::answer(503, &[], "no database"), "status 503 instead of 200-299", ok("")),
        ("", Behaviour::answer(302, &["Location: /"], ""), "status 302", Behaviour::answer(204, &[], "")),
        (
            "expect_status = [\"200\", \"401-403\"]",
            Behaviour::answer(204, &[], ""),
            "instead of 200, 401-403",
            Behaviour::answer(402, &[], ""),
        ),
        ("expect_body = \"fine\"", ok("not well"), "does not contain \"fine\"", ok("all is fine")),
        (
            json,
            ok("{\"status\": \"degraded\", \"checks\": [{\"up\": true}]}"),
            "$.status is \"degraded\" instead of \"healthy\"",
            healthy.clone(),
        ),
        (json, ok("{\"status\": \"healthy\"}"), "$.checks[0].up is missing", healthy.clone()),
        (json, ok("nonsense"), "the body is not JSON", healthy.clone()),
        (json, ok(&large), "longer than 65536 bytes", healthy),
        ("max_latency = \"50ms\"", slow(), "later than max_latency 50ms", ok("")),
        ("timeout = \"60ms\"", Behaviour::hang(), "no answer within 60ms", ok("")),
        ("", Behaviour::raw("garbage\r\n\r\n"), "", ok("")),
        ("", Behaviour::script([read_body(), Act::Close]), "", ok(&large)),
    ]
}

#[tokio::test]
async fn what_a_probe_expects_decides_and_is_told() {
    for (lines, bad, told, good) in failures() {
        let site = Site::start(bad, &format!("path = \"/ready\"\n{lines}")).await;
        let endpoint = site.until("not_ready").await;
        let error = endpoint["probe"]["error"].as_str().expect("an error");
        assert!(error.contains(told) && !error.is_empty(), "{lines}: {error}");
        assert_eq!(site.status().await, 503, "{lines}");
        assert_eq!(site.app.arrived(), 0, "{lines}: never ready, never routed to");
        site.probed.behave(good);
        let endpoint = site.until("ready").await;
        assert!(endpoint["probe"]["passed"] == true && endpoint["probe"]["error"].is_null(), "{lines}: {endpoint}");
        assert_eq!(site.status().await, 200, "{lines}");
    }
}

/// kamal-proxy#71: "failed to become healthy", but why?
#[tokio::test]
async fn kamal_proxy_71_every_message_says_what_the_last_probe_saw() {
    let site = Site::start(Behaviour::answer(503, &[], "no\ndatabase"), "path = \"/ready\"").await;
    let endpoint = site.until("not_ready").await;
    let probe = &endpoint["probe"];
    assert_eq!((&probe["status"], &probe["body"]), (&503.into(), &"no database".into()), "{endpoint}");
    assert!(probe["latency_ms"].is_u64() && probe["at_ms"].as_u64() > Some(1_000_000), "{probe}");
    let status = site.proxy.admin.status().await;
    let events = status["events"].as_array().expect("events");
    let told = events.iter().find(|event| event["what"] == "endpoint_not_ready").expect("an event");
    let detail = told["detail"].as_str().expect("words");
    let address = site.app.address();
    assert!(detail.starts_with(&format!("v1 {address}: readiness failed after ")), "{detail}");
    assert!(detail.ends_with("status 503 instead of 200-299 (body: no database)"), "{detail}");
    let codes = site.proxy.admin.metric("tidegate_terminations_total", &["code=\"PH\""]).await;
    site.status().await;
    // Counted once the answer is out.
    eventually(WAIT_MAX, "the code of its own the answer has", || async {
        let after = site.proxy.admin.metric("tidegate_terminations_total", &["code=\"PH\""]).await;
        ((after - codes - 1.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_flaps_below_the_counts_changes_nothing() {
    let bad = || Behaviour::answer(500, &[], "");
    let site = Site::start(ok(""), "path = \"/ready\"\nrise = 2\nfall = 3").await;
    site.until("ready").await;
    site.probed.next((0..8).flat_map(|_| [bad(), bad(), ok("")]));
    let seen = site.probed.arrived();
    until("all of them to be asked", || site.probed.arrived() >= seen + 26).await;
    assert!(site.probes("readiness", "failed").await >= 16.0);
    let changes = site.proxy.admin.status().await.to_string().matches("endpoint_not_ready").count();
    assert_eq!((changes, site.status().await), (0, 200));
    site.probed.behave(bad());
    site.until("not_ready").await;
    assert_eq!(site.status().await, 503);
    // One pass now and then is not enough either.
    site.probed.next((0..8).flat_map(|_| [ok(""), bad()]));
    let seen = site.probed.arrived();
    until("all of them to be asked", || site.probed.arrived() >= seen + 18).await;
    let changes = site.proxy.admin.status().await.to_string().matches("\"endpoint_ready\"").count();
    assert_eq!((changes, site.status().await), (0, 503));
    site.probed.behave(ok(""));
    site.until("ready").await;
}

#[tokio::test]
async fn startup_passes_once_before_readiness_is_asked() {
    let bad = || Behaviour::answer(503, &[], "starting");
    let probed = Upstream::start(ok("")).await;
    probed.next([bad(), bad(), bad()]);
    let site =
        Site::with(probed, "path = \"/ready\"\nfall = 2\nstartup = { path = \"/startup\", timeout = \"30s\" }").await;
    site.until("ready").await;
    let mut asked = Vec::new();
    while asked.len() < 6 {
        asked.push(site.probed.request().await.head.line.clone());
    }
    let paths: Vec<&str> = asked.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(paths, ["/startup", "/startup", "/startup", "/startup", "/ready", "/ready"]);
    let events = site.proxy.admin.status().await.to_string();
    assert!(!events.contains("endpoint_not_ready"), "a startup may take its time: {events}");
}

/// Paths that were asked for, once there are `count` more.
async fn paths(site: &Site, count: usize) -> Vec<String> {
    let seen = site.probed.arrived();
    until("probes", || site.probed.arrived() >= seen + count).await;
    let lines = site.probed.requests().into_iter().map(|request| request.head.line);
    lines.filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_slow_start_is_neither_dead_nor_degraded() {
    let lines = "path = \"/ready\"\nstartup = { path = \"/startup\", timeout = \"30s\" }\n\
                 liveness = { path = \"/live\" }\ndeep = { path = \"/health\", interval = \"10ms\" }";
    let probed = Upstream::start(Behaviour::answer(503, &[], "starting")).await;
    let app = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start_unready(|c| quick(c.web(&[&app.address()], &[]), &probed, lines)).await;
    let site = Site { app, probed, proxy };
    let asked = paths(&site, 12).await;
    assert!(asked.iter().all(|path| path == "/startup"), "{asked:?}");
    assert_eq!(site.proxy.admin.endpoint(&site.app.address()).await["alive"], serde_json::Value::Null);
    // It comes up, is alive, and not ready yet: nobody asks what is behind it.
    site.probed.next([ok("")]);
    site.until("not_ready").await;
    paths(&site, 1).await;
    let asked = paths(&site, 12).await;
    let all = |path: &str| asked.iter().any(|asked| asked == path);
    assert!(all("/ready") && all("/live") && !all("/health") && !all("/startup"), "{asked:?}");
    let (passed, failed) = (site.probes("deep", "passed").await, site.probes("deep", "failed").await);
    assert!((passed + failed).abs() < f64::EPSILON, "{passed}, {failed}");
    site.probed.behave(ok(""));
    site.until("ready").await;
    until("deep probes", || site.probed.requests().iter().any(|r| r.head.line.starts_with("GET /health "))).await;
    // From here on it counts, whatever its probes say.
    site.probed.behave(Behaviour::answer(503, &[], "gone"));
    site.until("not_ready").await;
    eventually(WAIT_MAX, "failed deep probes", || async { (site.probes("deep", "failed").await >= 2.0).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_startup_that_takes_too_long_is_told() {
    let lines = "path = \"/ready\"\nstartup = { path = \"/startup\", timeout = \"50ms\" }";
    let site = Site::start(Behaviour::answer(503, &[], "starting"), lines).await;
    let endpoint = site.until("not_ready").await;
    assert_eq!(endpoint["probe"]["probe"], "startup");
    site.probed.behave(ok(""));
    site.until("ready").await;
}

#[tokio::test]
async fn liveness_is_reported_and_does_not_route() {
    let app = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| {
        c.web(&[&app.address()], &[])
            .set("services.web.health", QUICK)
            .set("services.web.health", "liveness = { path = \"/live\" }")
    })
    .await;
    let alive = async |alive: bool| {
        crate::harness::wait::eventually(crate::harness::wait::WAIT_MAX, "liveness", || async {
            let endpoint = proxy.admin.endpoint(&app.address()).await;
            (endpoint["alive"] == alive).then_some(endpoint)
        })
        .await
    };
    alive(true).await;
    app.behave(Behaviour::answer(500, &[], "deadlock"));
    let endpoint = alive(false).await;
    assert_eq!((&endpoint["health"], &endpoint["liveness"]["body"]), (&"ready".into(), &"deadlock".into()));
    assert_eq!(proxy.ask(GET).await.text(), "deadlock", "it still gets the traffic");
    assert!(proxy.admin.metric("tidegate_endpoint_alive", &[]).await.abs() < f64::EPSILON);
    let events = proxy.admin.status().await["events"].to_string();
    assert!(events.contains("endpoint_not_alive") && !events.contains("endpoint_not_ready"), "{events}");
}

#[tokio::test]
async fn deep_probes_are_counted_and_do_not_route() {
    let app = Upstream::start(ok("{\"status\": \"degraded\"}")).await;
    let lines = "deep = { path = \"/health\", interval = \"10ms\" }\nexpect_json = { \"$.status\" = \"healthy\" }";
    let proxy = Proxy::start(|c| {
        c.web(&[&app.address()], &[]).set("services.web.health", QUICK).set("services.web.health", lines)
    })
    .await;
    let failed = ["probe=\"deep\"", "result=\"failed\"", "variant=\"stable\""];
    crate::harness::wait::eventually(crate::harness::wait::WAIT_MAX, "deep probes", || async {
        (proxy.admin.metric("tidegate_probes_total", &failed).await >= 3.0).then_some(())
    })
    .await;
    let endpoint = proxy.admin.endpoint(&app.address()).await;
    assert_eq!((&endpoint["health"], &endpoint["deep"]["passed"]), (&"ready".into(), &false.into()), "{endpoint}");
    assert_eq!(proxy.ask(GET).await.status, 200);
}

#[tokio::test]
async fn requests_go_to_their_own_port_with_host_and_headers_and_past_the_proxy() {
    let secret = std::env::var("PATH").expect("set everywhere");
    let lines = "path = \"/ready?deep=1\"\nhost = \"shop.internal\"\n\
                 headers = [{ name = \"X-Probe\", value = \"yes\" }, { name = \"authorization\", env = \"PATH\" }]";
    let site = Site::start(Behaviour::answer(500, &[], ""), lines).await;
    site.until("not_ready").await;
    let request = site.probed.request().await;
    assert_eq!(request.head.line, "GET /ready?deep=1 HTTP/1.1");
    let agent = format!("tidegate-probe/{}", env!("CARGO_PKG_VERSION"));
    for (name, value) in
        [("host", "shop.internal"), ("x-probe", "yes"), ("authorization", &secret), ("user-agent", &agent)]
    {
        assert_eq!(request.head.get(name), Some(value), "{name}");
    }
    for trace in ["x-forwarded-for", "x-request-id", "forwarded"] {
        assert_eq!(request.head.get(trace), None, "{trace}");
    }
    assert_eq!((site.app.accepted(), site.probed.violations()), (0, Vec::new()));
    assert!(!site.proxy.admin.status().await.to_string().contains(&secret), "a credential is shown");
    assert!(site.proxy.admin.metric("tidegate_attempts_total", &[]).await.abs() < f64::EPSILON);
}

#[tokio::test]
async fn a_connection_is_all_a_tcp_probe_wants() {
    let mut app = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| {
        c.web(&[&app.address()], &[]).set("services.web.health", QUICK).set("services.web.outlier", CALM)
    })
    .await;
    assert_eq!(proxy.ask(GET).await.version(), "v1");
    app.stop().await;
    let endpoint = proxy.admin.until_health(&app.address(), "not_ready").await;
    assert!(endpoint["probe"]["error"].as_str().expect("words").contains("cannot connect"), "{endpoint}");
    assert_eq!(proxy.ask(GET).await.status, 503);
    app.restart().await;
    proxy.admin.until_health(&app.address(), "ready").await;
    assert_eq!(proxy.ask(GET).await.version(), "v1");
}

#[tokio::test]
async fn probes_speak_tls_as_they_are_told() {
    let (authority, files) = (Authority::new(), TempDir::new());
    let identity = authority.issue(&["probe.internal"]);
    let ca = files.write("ca.pem", &authority.pem()).display().to_string();
    for (tls, path, passes) in [
        (format!("{{ ca = {ca:?}, sni = \"probe.internal\" }}"), true, true),
        (format!("{{ ca = {ca:?}, sni = \"other.internal\" }}"), true, false),
        ("{ sni = \"other.internal\", insecure = true }".to_owned(), true, true),
        (format!("{{ ca = {ca:?}, sni = \"probe.internal\" }}"), false, true),
        (format!("{{ ca = {ca:?}, sni = \"other.internal\" }}"), false, false),
    ] {
        let probed = Upstream::start_tls(ok(""), &identity).await;
        let path = if path { "path = \"/ready\"\n" } else { "" };
        let site = Site::with(probed, &format!("{path}tls = {tls}")).await;
        let endpoint = site.until(if passes { "ready" } else { "not_ready" }).await;
        let told = endpoint["probe"]["error"].as_str().unwrap_or_default();
        assert_eq!(told.contains("the TLS handshake failed"), !passes, "{tls}: {endpoint}");
    }
}

#[tokio::test]
async fn readyz_waits_for_the_first_round_and_not_for_health() {
    let began = clock::now();
    let site = Site::start(Behaviour::answer(500, &[], ""), "path = \"/ready\"").await;
    assert!(began.elapsed() < Duration::from_secs(4), "one answer is enough, whatever it is");
    assert_eq!(site.status().await, 503);
    let began = clock::now();
    let site = Site::start(Behaviour::hang(), "path = \"/ready\"\ntimeout = \"30s\"").await;
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
    assert_eq!((site.status().await, site.app.arrived()), (503, 0), "unknown: not routed to");
    assert_eq!(site.proxy.admin.endpoint(&site.app.address()).await["health"], "unknown");
}

#[tokio::test]
async fn readyz_is_503_while_the_first_round_lasts() {
    let (app, probed) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::hang()).await);
    let build = |c: Config| quick(c.web(&[&app.address()], &[]), &probed, "path = \"/ready\"\ntimeout = \"30s\"");
    let proxy = Proxy::start_unready(build).await;
    let answer = proxy.admin.get("/readyz").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    quiet(Duration::from_millis(300), "nothing is known yet", proxy.admin.until_health(&app.address(), "ready")).await;
}

/// Names take up to a second and probes up to five, but together they take no longer either.
#[tokio::test]
async fn names_and_probes_share_the_time_until_readyz() {
    let dns = Dns::start().await;
    dns.mood(Mood::Silent);
    let (app, probed) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::hang()).await);
    let build = |c: Config| {
        let named = c.web(&[&app.address(), "nobody.internal:1"], &[]).set("runtime.dns", &dns.lines());
        let slow = "path = \"/ready\"\ntimeout = \"30s\"";
        quick(named, &probed, slow).set("runtime.dns", "timeout = \"5s\"")
    };
    let proxy = Proxy::start(build).await;
    let status = proxy.admin.status().await;
    let at = |what: &str| {
        let events = status["events"].as_array().expect("events");
        let found = events.iter().find(|event| event["what"] == what).unwrap_or_else(|| panic!("{what}: {status}"));
        found["at_ms"].as_u64().expect("a time")
    };
    let took = at("first_probes") - at("start");
    assert!((4_500..5_800).contains(&took), "{took} ms");
}
