//! What is written down of rollouts, over restarts: their course, the audit, and what was answered.

use std::process::Output;

use serde_json::Value;

use super::{FORCE, HELD, Releases, ok, stands, until, web};
use crate::harness::proxy::{Process, Site};
use crate::harness::wait::{WAIT_MAX, eventually};

const JSON: &str = "Content-Type: application/json\r\n";
const WEIGHT: &str = "/v1/services/web/weight";
const PROMOTE: &str = "/v1/services/web/promote";

/// What the command line says.
async fn tidegate(site: &Site, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let address = &site.admin.address;
    let admin = if address.starts_with("unix:") { address.clone() } else { format!("http://{address}") };
    command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN");
    tokio::task::spawn_blocking(move || command.output().expect("the binary")).await.expect("no panic")
}

/// What it says when it does what it is asked to.
async fn said(site: &Site, arguments: &[&str]) -> String {
    let output = tidegate(site, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A process whose rollout of v2 is in its second step.
async fn second_step(releases: &Releases) -> Process {
    let process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    until(&process, "v2 progressing 5%").await;
    ok(&process, "promote", "{\"to\":\"next\"}").await;
    process
}

async fn keyed(process: &Process, key: &str, body: &str) -> (u16, Option<String>, Value) {
    let fields = format!("{JSON}Idempotency-Key: {key}\r\n");
    let answer = process.admin.request("POST", WEIGHT, &fields, body).await;
    let replayed = answer.get("idempotency-replayed").map(str::to_owned);
    (answer.status, replayed, serde_json::from_str(answer.text()).expect("JSON"))
}

/// Times a weight was set, by the register.
async fn weights_set(site: &Site) -> usize {
    site.admin.get("/v1/audit").await.text().matches("\"verb\":\"weight\"").count()
}

#[tokio::test]
async fn a_killed_process_gives_the_answers_it_gave_and_does_nothing_again() {
    let releases = Releases::start().await;
    let mut process = second_step(&releases).await;
    let first = keyed(&process, "once", "{\"weight\":\"7%\"}").await;
    assert_eq!((first.0, first.1.as_deref(), &first.2["weight"]), (200, None, &"7%".into()));
    assert_eq!(keyed(&process, "free", "{\"weight\":\"200%\"}").await.0, 422);
    process.crash().await;
    ok(&process, "weight", "{\"weight\":\"9%\"}").await;
    let again = keyed(&process, "once", "{\"weight\":\"7%\"}").await;
    assert_eq!((again.0, again.1.as_deref(), &again.2), (200, Some("true"), &first.2));
    assert_eq!(web(&process).await["weight"], "9%");
    assert_eq!(weights_set(&process).await, 2);
    let (status, _, problem) = keyed(&process, "once", "{\"weight\":\"8%\"}").await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:tidegate:problem:invalid-value")));
}

/// Whatever is killed when: a key that is repeated until it is answered is carried out once.
#[tokio::test]
async fn a_command_that_is_repeated_over_a_kill_is_carried_out_once() {
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    let steps = (1..=8).map(|n| format!("{{ weight = \"{n}%\", hold = \"5m\" }}")).collect::<Vec<_>>().join(", ");
    process
        .reload_ok(&releases.changed(&process, 1, 2).set("services.web.rollout", &format!("steps = [{steps}]")))
        .await;
    until(&process, "v2 progressing 1%").await;
    let promoted = async |site: &Site| site.admin.get("/v1/audit").await.text().matches("\"verb\":\"promote\"").count();
    for round in 0..6 {
        let (admin, fields) = (process.admin.clone(), format!("{JSON}Idempotency-Key: round-{round}\r\n"));
        let sent = fields.clone();
        let asked = tokio::spawn(async move { admin.request("POST", PROMOTE, &sent, "{}").await.status });
        if round % 2 == 1 {
            // The moment it has landed, whether or not it is answered.
            eventually(WAIT_MAX, "landed", || async { (promoted(&process).await > round).then_some(()) }).await;
        }
        process.crash().await;
        // Its answer may have been lost with the process.
        drop(asked.await);
        let again = process.admin.request("POST", PROMOTE, &fields, "{}").await;
        assert_eq!(again.status, 200, "{}", again.text());
        assert_eq!(promoted(&process).await, round + 1, "once each");
        assert_eq!(web(&process).await["progress"]["step"].as_u64(), u64::try_from(round + 1).ok());
    }
}

#[tokio::test]
async fn the_course_of_a_rollout_and_the_audit_are_told_after_a_kill_too() {
    let releases = Releases::start().await;
    let mut process = second_step(&releases).await;
    ok(&process, "promote", FORCE).await;
    process.reload_ok(&releases.changed(&process, 1, 3)).await;
    until(&process, "v3 progressing 5%").await;
    process.crash().await;
    ok(&process, "abort", "{\"reason\":\"slow carts\"}").await;
    let history = said(&process, &["history", "--json"]).await;
    let history: Vec<Value> = serde_json::from_str(&history).expect("JSON");
    let (v3, v2) = (&history[0], &history[1]);
    let brief =
        |ended: &Value| format!("{} {} {}", ended["version"], ended["phase"], ended["highest"]).replace('"', "");
    assert_eq!((brief(v3), brief(v2)), ("v3 aborted 5%".to_owned(), "v2 succeeded 100%".to_owned()));
    let v2 = process.admin.json(&format!("/v1/services/web/rollouts/{}", v2["id"])).await;
    let verbs: Vec<_> = v2["legs"].as_array().expect("legs").iter().map(|leg| leg["verb"].as_str()).collect();
    assert_eq!(verbs, [Some("reload"), Some("step"), Some("promote")]);
    let left: Vec<_> = v2["plan"].as_array().expect("a plan").iter().map(|step| step["ended"].as_str()).collect();
    assert_eq!(left, [Some("promote"), Some("succeeded"), None]);
    let shown = said(&process, &["rollout", "show", "web"]).await;
    assert!(shown.contains("v3 aborted (manual), at most 5%") && shown.contains(": slow carts"), "{shown}");
    assert!(shown.contains("restart"), "{shown}");
    // The register, from the API, from the command line, and without the process.
    let entries = said(&process, &["audit", "--service", "web"]).await;
    assert!(entries.contains("promote") && entries.contains("slow carts"), "{entries}");
    let holds = said(&process, &["audit", "--verify"]).await;
    assert!(holds.starts_with("the audit holds from 1 to "), "{holds}");
    let metrics = process.admin.metrics().await;
    assert!(metrics.contains("tidegate_rollout_phase{service=\"web\",phase=\"aborted\"} 1"), "{metrics}");
    assert!(metrics.contains("tidegate_rollouts_ended_total{service=\"web\",outcome=\"aborted\",reason=\"manual\"} 1"));
    let state = process.dir.path().join("state").display().to_string();
    let refused = tidegate(&process, &["audit", "--verify", "--state-dir", &state]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by another tidegate"), "{refused:?}");
    process.kill().await;
    let offline = said(&process, &["audit", "--verify", "--state-dir", &state]).await;
    assert!(offline.starts_with("the audit holds from 1 to "), "{offline}");
    let none = tidegate(&process, &["audit", "--verify", "--state-dir", "/nonexistent"]).await;
    assert_eq!(none.status.code(), Some(1));
}

#[tokio::test]
async fn blue_green_verifies_at_nothing_goes_to_everything_and_bakes() {
    let releases = Releases::start().await;
    let file = |site: &Site, hold: &str| {
        let lines = format!(
            "strategy = \"blue_green\"\nsteps = [{{ weight = \"100%\", hold = \"{hold}\", min_requests = 0 }}]\n"
        );
        releases.changed(site, 1, 2).set("services.web.rollout", &lines)
    };
    let process = releases.process().await;
    process.reload_ok(&file(&process, "30m")).await;
    until(&process, "v2 baking 100%").await;
    for _ in 0..20 {
        assert_eq!(process.ask(super::GET).await.version(), "v2", "all of it at once");
    }
    let detail = process.admin.json("/v1/services/web/rollouts/current").await;
    let leg = |at: usize| format!("{} {}", detail["legs"][at]["phase"], detail["legs"][at]["weight"]).replace('"', "");
    assert_eq!((leg(0), leg(1)), ("verifying 0%".to_owned(), "baking 100%".to_owned()));
    // The old one is still connected: back at once.
    assert_eq!(process.admin.abort("web").await["state"], "aborted");
    assert_eq!(process.ask(super::GET).await.version(), "v1");
    ok(&process, "retry", "{\"reason\":\"fixed\"}").await;
    until(&process, "v2 baking 100%").await;
    assert_eq!(process.admin.abort("web").await["state"], "aborted");
    // And through to its end.
    process.reload_ok(&file(&process, "200ms")).await;
    ok(&process, "retry", "{\"reason\":\"fixed again\"}").await;
    let done = eventually(WAIT_MAX, "promoted", || async {
        Some(web(&process).await).filter(|web| web["stable"]["version"] == "v2")
    })
    .await;
    assert_eq!(done["warm"]["version"], "v1", "{done}");
    assert_eq!(stands(&done), "v2 succeeded 0%");
    assert_eq!(process.ask(super::GET).await.version(), "v2");
    assert_eq!(ok(&process, "rollback", "{}").await["stable"], "v1");
    assert_eq!(process.ask(super::GET).await.version(), "v1");
}

#[tokio::test]
async fn the_command_line_begins_a_rollout_with_its_own_steps() {
    let releases = Releases::start().await;
    let process = releases.process().await;
    process
        .reload_ok(
            &releases.changed(&process, 1, 2).set("services.web.rollout", &format!("start = \"manual\"\n{HELD}")),
        )
        .await;
    let bad = tidegate(&process, &["rollout", "start", "web", "--steps", "1%:2m,10%:soon"]).await;
    let why = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(why.contains("plan.steps[1].hold: \"soon\": a duration is a whole number with a unit"), "{why}");
    let begun = said(&process, &["rollout", "start", "web", "--steps", "1%:20m,10%:5m,100%"]).await;
    assert!(begun.contains("step 1/3"), "{begun}");
    until(&process, "v2 progressing 1%").await;
}
