//! The admin API: what it answers, what it refuses, and that it states what is now true.

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::files::TempDir;
use crate::harness::proxy::{Process, Proxy};
use crate::harness::upstream::{Behaviour, Upstream};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn site() -> (Upstream, Upstream, Proxy) {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[&v2.address()])).await;
    (v1, v2, proxy)
}

#[tokio::test]
async fn the_reading_routes_answer() {
    let (v1, v2, proxy) = site().await;
    proxy.ask(GET).await;
    for path in ["/healthz", "/readyz", "/metrics", "/v1/status", "/v1/services", "/v1/services/web"] {
        assert_eq!(proxy.admin.get(path).await.status, 200, "{path}");
    }
    let status = proxy.admin.status().await;
    assert_eq!(status["listeners"][0]["bound"].as_str(), Some(proxy.address().as_str()));
    let service = proxy.admin.json("/v1/services/web").await;
    assert_eq!((service["weight"].as_str(), service["state"].as_str()), (Some("0%"), Some("idle")));
    assert_eq!(service["stable"]["endpoints"][0]["address"].as_str(), Some(v1.address().as_str()));
    assert_eq!(service["candidate"]["endpoints"][0]["address"].as_str(), Some(v2.address().as_str()));
    assert!(proxy.admin.get("/v1/status").await.get("etag").is_some());
    let labels = ["service=\"web\"", "version=\"v1\"", "variant=\"stable\"", "status_class=\"2xx\""];
    assert!((proxy.admin.metric("tidegate_requests_total", &labels).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn weight_and_abort_state_what_is_now_true() {
    let (_v1, _v2, proxy) = site().await;
    let first = proxy.admin.weight("web", "5%").await;
    assert_eq!((first["weight"].as_str(), first["state"].as_str()), (Some("5%"), Some("splitting")));
    let second = proxy.admin.weight("web", "0.01%").await;
    assert!(second["generation"].as_u64() > first["generation"].as_u64());
    let aborted = proxy.admin.abort("web").await;
    assert_eq!((aborted["weight"].as_str(), aborted["state"].as_str()), (Some("0%"), Some("aborted")));
    let again = proxy.admin.abort("web").await;
    assert_eq!(again["state"].as_str(), Some("aborted"), "an abort can be repeated");
    let service = proxy.admin.json("/v1/services/web").await;
    assert_eq!((service["weight"].as_str(), service["state"].as_str()), (Some("0%"), Some("aborted")));
}

#[tokio::test]
async fn bad_requests_are_problems_and_change_nothing() {
    let (_v1, _v2, proxy) = site().await;
    let before = proxy.admin.status().await["generation"].clone();
    let refused = [
        ("/v1/services/web/weight", "{\"weight\":\"130%\"}"),
        ("/v1/services/web/weight", "{\"weight\":\"0.001%\"}"),
        ("/v1/services/web/weight", "{\"weight\":5}"),
        ("/v1/services/web/weight", "{\"wieght\":\"5%\"}"),
        ("/v1/services/web/weight", "{"),
        ("/v1/services/other/weight", "{\"weight\":\"5%\"}"),
        ("/v1/services/other/abort", "{}"),
        ("/v1/nothing", "{}"),
    ];
    for (path, body) in refused {
        let answer = proxy.admin.post(path, body).await;
        assert!((400..500).contains(&answer.status), "{path} {body}: {}", answer.status);
        assert_eq!(answer.get("content-type"), Some("application/problem+json"), "{path} {body}");
        let problem: Value = serde_json::from_str(answer.text()).unwrap();
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    }
    assert_eq!(proxy.admin.status().await["generation"], before);
}

/// DNS rebinding and cross-site requests (caddy#2850, caddy#5815).
#[tokio::test]
async fn other_hosts_origins_and_content_types_are_refused() {
    let (_v1, v2, proxy) = site().await;
    let body = "{\"weight\":\"100%\"}";
    let path = "/v1/services/web/weight";
    let json = "Content-Type: application/json\r\n";
    for fields in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        assert_eq!(proxy.admin.request("POST", path, fields, body).await.status, 415, "{fields:?}");
    }
    for origin in ["http://evil.test", "null"] {
        let answer = proxy.admin.request("POST", path, &format!("{json}Origin: {origin}\r\n"), body).await;
        assert_eq!(answer.status, 403, "{origin}");
    }
    for method_and_path in ["GET /v1/status", "POST /v1/services/web/abort"] {
        let mut client = Client::connect(&proxy.admin.address).await;
        client
            .send(format!("{method_and_path} HTTP/1.1\r\nHost: evil.test\r\n{json}Content-Length: 2\r\n\r\n{{}}"))
            .await;
        let status = client.response().await.status;
        assert!(matches!(status, 403 | 421), "{method_and_path}: {status}");
    }
    proxy.ask(GET).await;
    assert_eq!(v2.arrived(), 0, "nothing was changed");
}

#[tokio::test]
async fn whoever_floods_the_api_slowly_does_not_touch_requests() {
    let (v1, _v2, proxy) = site().await;
    let body = "POST /v1/services/web/abort HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let mut held = Vec::new();
    for sent in ["", "GET /v1/status HTTP/1.1\r\nHost: loc", body].iter().cycle().take(100) {
        let mut client = Client::connect(&proxy.admin.address).await;
        client.send(sent).await;
        held.push(client);
    }
    for _ in 0..100 {
        assert_eq!(proxy.ask(GET).await.status, 200);
    }
    assert_eq!(v1.arrived(), 100);
    drop(held);
    assert_eq!(proxy.admin.json("/v1/services/web").await["state"], "idle", "answers again, and nothing was changed");
}

#[tokio::test]
async fn without_tokens_only_loopback_and_unix_sockets_are_bound() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let (_v1, _v2, proxy) = site().await;
    let open = proxy.base.clone().admin("0.0.0.0:0").web(&[&upstream.address()], &[]).text();
    let body = serde_json::json!({ "config": open }).to_string();
    let answer = proxy.admin.post("/v1/config:validate", &body).await;
    assert!((400..500).contains(&answer.status) && answer.text().contains("admin.listen"), "{}", answer.text());

    let process = Process::start(|c| c.web(&[&upstream.address()], &[])).await;
    let socket = process.dir.path().join("admin.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn explain_says_which_release_and_why() {
    let (_v1, _v2, proxy) = site().await;
    proxy.admin.weight("web", "100%").await;
    let told = proxy.admin.json("/v1/explain?method=GET&url=http://a.test/x").await.to_string();
    for word in ["web", "candidate", "v2", "bucket"] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

#[tokio::test]
async fn validate_answers_without_applying() {
    let (v1, _v2, proxy) = site().await;
    let before = proxy.admin.status().await["generation"].clone();
    let good = proxy.base.clone().web(&[&v1.address()], &[]).text();
    let ask = async |text: &str| {
        proxy.admin.post("/v1/config:validate", &serde_json::json!({ "config": text }).to_string()).await
    };
    assert_eq!(ask(&good).await.status, 200);
    let answer = ask(&good.replace("[services.web.stable]", "[services.web.stable]\nnonsense = 1\nmore = 2")).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert!(
        answer.text().contains("nonsense") && answer.text().contains("more"),
        "all errors at once: {}",
        answer.text()
    );
    assert_eq!(proxy.admin.status().await["generation"], before);
}

#[tokio::test]
async fn an_idle_process_is_small() {
    // The code of an unoptimised build is several times as large, and what of it has run counts.
    const RSS_BYTES_MAX: u64 = if cfg!(debug_assertions) { 32 } else { 20 } * 1024 * 1024;
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let process = Process::start(|c| c.web(&[&upstream.address()], &[])).await;
    process.ask(GET).await;
    assert!(process.rss() < RSS_BYTES_MAX, "{} bytes", process.rss());
}

#[tokio::test]
async fn a_file_that_is_wrong_does_not_start() {
    let dir = TempDir::new();
    let file = dir.write("tidegate.toml", "[[routes]]\nservice = \"web\"\n\n[services.web.stable]\nversoin = \"v1\"\n");
    for verb in ["check", "run"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg(verb).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb}: {said}");
        assert!(said.contains("versoin") && said.contains(":5"), "{verb} names the key and the line: {said}");
    }
}
