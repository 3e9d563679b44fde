//! Commands that meet each other, events through a running proxy, and the command line with tokens.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::client::Client;
use crate::harness::config::Config;
use crate::harness::files::TempDir;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};

const JSON: &str = "Content-Type: application/json\r\n";
const WEIGHT: &str = "/v1/services/web/weight";

async fn site() -> (Upstream, Upstream, Proxy) {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let proxy = Proxy::start(|c| c.web(&[&v1.address()], &[&v2.address()])).await;
    (v1, v2, proxy)
}

/// How many weights were set.
async fn weights_set(proxy: &Proxy) -> usize {
    let status = proxy.admin.status().await;
    status["events"].as_array().expect("events").iter().filter(|event| event["what"] == "weight").count()
}

#[tokio::test]
async fn of_many_who_saw_the_same_one_sets_the_weight() {
    let (_v1, _v2, proxy) = site().await;
    let tag = proxy.admin.get("/v1/services/web").await.get("etag").expect("a tag").to_owned();
    let asked = (1..=20).map(|n| {
        let (admin, fields) = (proxy.admin.clone(), format!("{JSON}If-Match: {tag}\r\n"));
        tokio::spawn(async move { admin.request("POST", WEIGHT, &fields, &format!("{{\"weight\":\"{n}%\"}}")).await })
    });
    let mut statuses = Vec::new();
    for answer in asked.collect::<Vec<_>>() {
        statuses.push(answer.await.expect("no panic").status);
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1..].iter().all(|status| *status == 412)), (200, true), "{statuses:?}");
    assert_eq!(weights_set(&proxy).await, 1);
}

#[tokio::test]
async fn of_many_repetitions_one_is_carried_out() {
    let (_v1, _v2, proxy) = site().await;
    let asked = (0..20).map(|_| {
        let (admin, fields) = (proxy.admin.clone(), format!("{JSON}Idempotency-Key: once\r\n"));
        tokio::spawn(async move { admin.request("POST", WEIGHT, &fields, "{\"weight\":\"5%\"}").await })
    });
    for answer in asked.collect::<Vec<_>>() {
        let answer = answer.await.expect("no panic");
        assert!(matches!(answer.status, 200 | 409), "{}: {}", answer.status, answer.text());
    }
    proxy.admin.weight("web", "7%").await;
    let late =
        proxy.admin.request("POST", WEIGHT, &format!("{JSON}Idempotency-Key: once\r\n"), "{\"weight\":\"5%\"}").await;
    assert_eq!((late.status, late.get("idempotency-replayed")), (200, Some("true")));
    assert_eq!(weights_set(&proxy).await, 2, "5 % once, and 7 %");
    assert_eq!(proxy.admin.json("/v1/services/web").await["weight"], "7%");
}

/// The next event of the journal on a stream.
async fn event(client: &mut Client, buffer: &mut String) -> Value {
    loop {
        if let Some(end) = buffer.find("\n\n") {
            let rest = buffer.split_off(end + 2);
            let event = std::mem::replace(buffer, rest);
            if let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) {
                return serde_json::from_str(data).expect("JSON");
            }
            continue;
        }
        let chunk = client.chunk().await.expect("an endless stream");
        buffer.push_str(std::str::from_utf8(&chunk).expect("ASCII"));
    }
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_taken_up_again() {
    let (_v1, _v2, proxy) = site().await;
    let open = async |more: &str| {
        let mut client = Client::connect(&proxy.admin.address).await;
        client.send(format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\n{more}\r\n", proxy.admin.address)).await;
        assert_eq!(client.head().await.get("content-type"), Some("text/event-stream"));
        client
    };
    let (mut live, mut text) = (open("").await, String::new());
    proxy.admin.weight("web", "5%").await;
    let set = event(&mut live, &mut text).await;
    assert_eq!((&set["what"], &set["to"]), (&"weight".into(), &"5%".into()));
    for verb in ["pause", "resume"] {
        assert_eq!(proxy.admin.post(&format!("/v1/services/web/{verb}"), "{}").await.status, 200);
        assert_eq!(event(&mut live, &mut text).await["what"], verb);
    }
    proxy.admin.abort("web").await;
    assert_eq!(event(&mut live, &mut text).await["what"], "abort");
    drop(live);
    let (mut again, mut text) = (open(&format!("Last-Event-ID: {}\r\n", set["seq"])).await, String::new());
    for what in ["pause", "resume", "abort"] {
        assert_eq!(event(&mut again, &mut text).await["what"], what);
    }
    proxy.shutdown();
    loop {
        let told = event(&mut again, &mut text).await;
        if told["reason"] == "stopping" {
            break;
        }
    }
}

/// What the command line says to `arguments` with this token in the environment.
async fn tidegate(arguments: &[&str], token: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_remove("TIDEGATE_TOKEN").env_remove("TIDEGATE_ADMIN");
    if let Some(token) = token {
        command.env("TIDEGATE_TOKEN", token);
    }
    tokio::task::spawn_blocking(move || command.output().expect("the binary")).await.expect("no panic")
}

#[tokio::test]
async fn the_command_line_shows_its_token_and_says_what_is_wrong_with_it() {
    let (v1, v2) = (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
    let dir = TempDir::new();
    let (viewer, operator) = ("viewer-viewer-viewer", "operator-operator-operator");
    let files = [dir.write("viewer.token", viewer), dir.write("operator.token", &format!("{operator}\n"))];
    let files = files.map(|file| file.display().to_string());
    let lines = format!(
        "tokens = [{{ name = \"v\", role = \"viewer\", file = {:?} }}, {{ name = \"o\", role = \"operator\", file = {:?} }}]",
        files[0], files[1]
    );
    let config = Config::new(&dir).admin_lines(&lines).web(&[&v1.address()], &[&v2.address()]);
    let proxy = Proxy::start_text(dir, &config.text()).await;
    let admin = format!("http://{}", proxy.admin.address);
    let status = ["status", "--admin", &admin];
    let weight = ["weight", "web", "5%", "--admin", &admin];
    for (arguments, token, words) in [
        (&status[..], None, &["has to show a token", "$TIDEGATE_TOKEN or --token-file"][..]),
        (&status, Some("wrong-wrong-wrong-wrong"), &["none of [admin] tokens", "is from $TIDEGATE_TOKEN"]),
        (&weight, Some(viewer), &["needs the role operator; token v has the role viewer", "is from $TIDEGATE_TOKEN"]),
        (&[&status[..], &["--token-file", "/nonexistent"]].concat(), Some(operator), &["/nonexistent cannot be read"]),
        (&["status", "--admin", "http://127.0.0.1:1"], Some(operator), &["nothing answers at http://127.0.0.1:1"]),
    ] {
        let output = tidegate(arguments, token).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
        assert!([viewer, operator, "wrong-wrong"].iter().all(|secret| !said.contains(secret)), "{said}");
    }
    assert!(tidegate(&status, Some(viewer)).await.status.success());
    // What is given wins over the environment.
    let given = tidegate(&[&weight[..], &["--token-file", &files[1]]].concat(), Some(viewer)).await;
    assert!(given.status.success(), "{}", String::from_utf8_lossy(&given.stderr));
    assert_eq!(proxy.admin.with(viewer).json("/v1/services/web").await["weight"], "5%");
    // So do the verbs of rollouts.
    for verb in ["pause", "resume", "rollback"] {
        let asked = [verb, "web", "--admin", &admin];
        let refused = tidegate(&asked, Some(viewer)).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("needs the role operator"), "{verb}: {said}");
        let done = tidegate(&asked, Some(operator)).await;
        assert!(done.status.success(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(tidegate(&["rollout", "list", "web", "--admin", &admin], Some(viewer)).await.status.success());
    let completions = tidegate(&["completions", "bash"], None).await;
    assert!(completions.status.success() && String::from_utf8_lossy(&completions.stdout).contains("_tidegate"));
}
