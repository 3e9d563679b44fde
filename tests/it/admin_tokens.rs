//! Who may do what with the admin API: tokens and roles, on loopback, on a unix socket, beyond; and what anyone may ask.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::client::{Client, Response};
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::{Admin, Process, Proxy};
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, until};

const VIEWER: &str = "viewer-viewer-viewer";
const OPERATOR: &str = "operator-operator-operator";
const ADMIN: &str = "admin-admin-admin";
const WEIGHT: &str = "/v1/services/web/weight";
const FIVE: &str = "{\"weight\":\"5%\"}";

/// The three tokens, each in a file of `dir`.
fn tokens(dir: &TempDir) -> String {
    let token = |name: &str, role: &str, secret: &str| {
        let file = dir.write(&format!("{name}.token"), &format!("{secret}\n"));
        format!("{{ name = {name:?}, role = {role:?}, file = {:?} }}", file.display().to_string())
    };
    let all = [token("dash", "viewer", VIEWER), token("ci", "operator", OPERATOR), token("ops", "admin", ADMIN)];
    format!("tokens = [{}]", all.join(", "))
}

struct Guarded {
    _upstreams: [Upstream; 2],
    proxy: Proxy,
}

async fn guarded(build: impl FnOnce(Config) -> Config) -> Guarded {
    let upstreams = [Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await];
    let dir = TempDir::new();
    let config = Config::new(&dir).admin_lines(&tokens(&dir));
    let text = build(config.web(&[&upstreams[0].address()], &[&upstreams[1].address()])).text();
    Guarded { proxy: Proxy::start_text(dir, &text).await, _upstreams: upstreams }
}

/// The detail of a problem with this status.
fn problem(answer: &Response, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.get("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_str(answer.text()).expect("JSON");
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[tokio::test]
async fn with_tokens_loopback_needs_one_too() {
    let site = guarded(|c| c).await;
    let admin = &site.proxy.admin;
    for path in ["/v1/status", "/v1/services/web", "/v1/events", "/metrics", "/openapi.json", "/v1/nothing"] {
        let answer = admin.get(path).await;
        assert!(problem(&answer, 401).contains("Authorization: Bearer TOKEN"), "{path}");
        assert_eq!(answer.get("www-authenticate"), Some("Bearer realm=\"tidegate\""), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
        assert_eq!(admin.with("wrong-wrong-wrong-wrong").get(path).await.status, 200, "{path}");
    }
    let unknown = admin.with("wrong-wrong-wrong-wrong").get("/v1/status").await;
    assert!(problem(&unknown, 401).contains("none of [admin] tokens"));
    assert_eq!(unknown.get("www-authenticate"), Some("Bearer realm=\"tidegate\", error=\"invalid_token\""));
    for (fields, status) in [
        (format!("Authorization: Basic {OPERATOR}\r\n"), 401),
        (format!("Authorization: {OPERATOR}\r\n"), 401),
        (format!("Authorization: Bearer {OPERATOR}x\r\n"), 401),
        ("Authorization: Bearer\r\n".to_owned(), 401),
        (format!("Authorization: Bearer {OPERATOR}\r\nAuthorization: Bearer {ADMIN}\r\n"), 400),
    ] {
        problem(&admin.request("GET", "/v1/status", &fields, "").await, status);
    }
    assert_eq!(admin.get(&format!("/v1/status?access_token={OPERATOR}")).await.status, 401, "bearer alone");
    problem(&admin.post("/v1/services/web/abort", "{}").await, 401);
    assert_eq!(admin.with(VIEWER).json("/v1/services/web").await["state"], "idle", "nothing got through");
}

#[tokio::test]
async fn a_role_decides_and_the_token_is_named_in_events() {
    let site = guarded(|c| c).await;
    let (viewer, operator, admin) =
        (site.proxy.admin.with(VIEWER), site.proxy.admin.with(OPERATOR), site.proxy.admin.with(ADMIN));
    assert_eq!(viewer.get("/metrics").await.status, 200);
    for path in [
        WEIGHT,
        "/v1/services/web/promote",
        "/v1/services/web/rollouts/1/abort",
        "/v1/services/web/abort",
        "/v1/config:reload",
        "/v1/config:validate",
    ] {
        let answer = viewer.post(path, FIVE).await;
        assert!(problem(&answer, 403).contains("needs the role operator; token dash has the role viewer"), "{path}");
        let challenge = answer.get("www-authenticate").expect("a challenge");
        assert!(challenge.ends_with("error=\"insufficient_scope\", scope=\"operator\""), "{challenge}");
    }
    assert_eq!(operator.post(WEIGHT, FIVE).await.status, 200);
    let status = operator.status().await;
    let set = status["events"].as_array().expect("events").iter().find(|event| event["what"] == "weight");
    assert_eq!(set.expect("an event")["actor"], "token ci");
    let web = viewer.json("/v1/services/web").await;
    let drain =
        format!("/v1/services/web/endpoints/{}/drain", web["stable"]["endpoints"][0]["address"].as_str().expect("one"));
    let force = "{\"force\":true,\"reason\":\"burning\"}";
    assert!(
        problem(&operator.post(&drain, force).await, 403)
            .contains("force needs the role admin; token ci has the role operator")
    );
    assert!(problem(&admin.post(&drain, "{\"force\":true}").await, 422).contains("force needs a reason"));
    assert_eq!(admin.post(&drain, force).await.status, 200);
    for path in ["/v1/services/web/promote", "/v1/services/web/rollouts/current/promote"] {
        assert!(problem(&operator.post(path, force).await, 403).contains("force needs the role admin"), "{path}");
    }
    assert!(
        problem(&admin.post("/v1/services/web/promote", "{\"to\":\"full\",\"force\":true}").await, 422)
            .contains("a reason")
    );
    assert_eq!(operator.post("/v1/services/web/abort", "{}").await.status, 200);
}

#[tokio::test]
async fn a_unix_socket_needs_no_token_and_refusals_are_logged_once_in_a_while() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let dir = TempDir::new();
    let lines = tokens(&dir);
    let process = Process::start(|c| c.admin_lines(&lines).web(&[&upstream.address()], &[])).await;
    assert_eq!(process.admin.get("/v1/status").await.status, 200);
    assert_eq!(process.admin.with(OPERATOR).get("/v1/status").await.status, 200);
    assert_eq!(
        process.admin.with(VIEWER).post("/v1/services/web/abort", "{}").await.status,
        403,
        "who shows one has its role"
    );
    for _ in 0..50 {
        assert_eq!(process.admin.with("wrong-wrong-wrong-wrong").get("/v1/status").await.status, 401);
    }
    until("a line about it", || process.log().contains("admin: refused")).await;
    let log = process.log();
    assert!(log.matches("admin: refused").count() <= 5, "51 refusals, a line in ten seconds: {log}");
    for secret in ["wrong-wrong", VIEWER, OPERATOR, ADMIN] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

#[tokio::test]
async fn whoever_lacks_the_role_for_force_is_in_the_log() {
    let dir = TempDir::new();
    let lines = tokens(&dir);
    let process = Process::start(|c| c.admin_lines(&lines).web(&["127.0.0.1:1"], &[])).await;
    let force = "{\"force\":true,\"reason\":\"hurry\"}";
    let answer = process.admin.with(OPERATOR).post("/v1/services/web/promote", force).await;
    assert!(problem(&answer, 403).contains("force needs the role admin"));
    until("a line about it", || process.log().contains("admin: refused")).await;
    let log = process.log();
    assert!(log.contains("force needs the role admin; token ci has the role operator"), "{log}");
    assert!(!log.contains(OPERATOR), "{log}");
}

#[tokio::test]
async fn a_token_that_anyone_may_read_is_warned_of_from_the_start() {
    let dir = TempDir::new();
    let lines = tokens(&dir);
    for (name, mode) in [("dash", 0o644), ("ci", 0o600), ("ops", 0o640)] {
        let file = dir.path().join(format!("{name}.token"));
        std::fs::set_permissions(file, Permissions::from_mode(mode)).expect("a mode");
    }
    let process = Process::start(|c| c.admin_lines(&lines).web(&["127.0.0.1:1"], &[])).await;
    until("a warning", || process.log().contains("anyone on this machine may read this token")).await;
    let log = process.log();
    assert_eq!(log.matches("may read this token").count(), 1, "{log}");
    assert!(log.contains("dash.token") && !log.contains(VIEWER), "{log}");
}

#[tokio::test]
async fn beyond_loopback_a_token_is_needed_and_names_only_with_one() {
    let site = guarded(|c| c.admin("0.0.0.0:0")).await;
    let port = site.proxy.admin.address.rsplit_once(':').expect("a port").1.to_owned();
    let ask = async |host: &str, more: &str| {
        let mut client = Client::connect(&format!("127.0.0.1:{port}")).await;
        client.send(format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")).await;
        client.response().await.status
    };
    let token = format!("Authorization: Bearer {VIEWER}\r\n");
    for host in ["127.0.0.1", "10.1.2.3:9900", "[fd00::1]", "localhost"] {
        assert_eq!((ask(host, "").await, ask(host, &token).await), (401, 200), "{host}");
    }
    for host in ["tidegate.internal", "evil.test:9900"] {
        assert_eq!((ask(host, "").await, ask(host, &token).await), (421, 200), "{host}");
    }
    assert_eq!(ask("tidegate.internal", "Authorization: Bearer wrong-wrong-wrong-wrong\r\n").await, 421);
    assert_eq!(ask("10.1.2.3", &format!("{token}Origin: http://evil.test\r\n")).await, 403);
    assert_eq!(ask("tidegate.internal", &format!("{token}Origin: http://tidegate.internal\r\n")).await, 200);
}

#[tokio::test]
async fn an_address_beyond_loopback_is_refused_without_tokens() {
    let dir = TempDir::new();
    let text = Config::new(&dir).admin("0.0.0.0:0").web(&["127.0.0.1:1"], &[]).text();
    let file = dir.write("tidegate.toml", &text);
    for verb in ["check", "run"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg(verb).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("admin.listen") && said.contains("needs [admin] tokens, such as tokens = [{"), "{said}");
    }
}

#[tokio::test]
async fn a_token_changes_with_its_file() {
    let site = guarded(|c| c).await;
    let admin = &site.proxy.admin;
    assert_eq!(admin.with(OPERATOR).get("/v1/status").await.status, 200);
    let path = admin.with(VIEWER).json("/v1/status").await["config"]["path"].as_str().expect("a path").to_owned();
    let file = std::path::Path::new(&path).with_file_name("ci.token");
    std::fs::write(&file, "fresh-fresh-fresh-fresh").expect("writes");
    eventually(WAIT_MAX, "the new token to be known", || async {
        (admin.with("fresh-fresh-fresh-fresh").get("/v1/status").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(admin.with(OPERATOR).get("/v1/status").await.status, 401, "the old one is gone");
    // One that is no token any more changes nothing.
    std::fs::write(&file, "short").expect("writes");
    eventually(WAIT_MAX, "the file to be refused", || async {
        (admin.with(VIEWER).json("/v1/status").await["config"]["last_reload"]["ok"] == false).then_some(())
    })
    .await;
    assert_eq!(admin.with("fresh-fresh-fresh-fresh").get("/v1/status").await.status, 200);
    let status = admin.with(VIEWER).get("/v1/status").await;
    assert!(status.text().contains("what is in this file has 5 bytes"), "{}", status.text());
}

#[tokio::test]
async fn the_probe_listener_answers_three_questions_to_anyone_and_nothing_else() {
    let site = guarded(|c| c.admin_lines("probe_listen = \"0.0.0.0:0\"")).await;
    let port = site.proxy.probes().address.rsplit_once(':').expect("a port").1.to_owned();
    let probes = Admin::at(&format!("127.0.0.1:{port}"));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(probes.get(path).await.status, 200, "{path}");
    }
    assert!(probes.get("/metrics").await.text().contains("tidegate_generation"));
    for path in
        ["/", "/v1/status", "/v1/services/web", "/v1/events", "/openapi.json", "/healthz/x", "/v1/config:reload"]
    {
        problem(&probes.get(path).await, 404);
        problem(&probes.with(ADMIN).get(path).await, 404);
    }
    problem(&probes.post(WEIGHT, FIVE).await, 404);
    problem(&probes.post("/metrics", "{}").await, 405);
    let mut client = Client::connect(&probes.address).await;
    client.send("GET /healthz HTTP/1.1\r\nHost: node-7.cluster.internal\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200, "a kubelet may call it anything");
}
