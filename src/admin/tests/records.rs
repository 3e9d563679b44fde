//! One rollout as a whole, and the audit.

use super::{Bounds, start};
use crate::store::audit::{NOTHING_BEFORE, digest_of};

const WEIGHT: &str = "/v1/services/web/weight";
const FIVE: &str = r#"{"weight":"5%","reason":"try"}"#;

#[tokio::test]
async fn a_rollout_is_told_from_its_beginning_to_its_end_and_beyond() {
    let api = start(Bounds::default()).await;
    let path = "/v1/services/api/rollouts/current";
    api.get(path).await.is_problem(404, "there is no rollout yet");
    let old = api.get("/v1/services/web/rollouts/current").await.json()["id"].clone();
    assert_eq!(api.post(WEIGHT, FIVE).await.status, 200);
    let first = api.get("/v1/services/web/rollouts/current").await;
    assert!(first.status == 200 && first.head.contains("etag: \""), "{first:?}");
    let (current, id) = (first.json(), first.json()["id"].clone());
    let by_number = api.get(&format!("/v1/services/web/rollouts/{id}")).await.json();
    assert_eq!((&by_number["legs"], &by_number["id"]), (&current["legs"], &id));
    let latest = current["legs"].as_array().expect("legs").last().expect("a leg").clone();
    assert_eq!((&latest["verb"], &latest["why"], &latest["weight"]), (&"weight".into(), &"try".into(), &"5%".into()));
    assert!(
        current["ended_at_ms"].is_null() && current["evidence"].is_null() && current["weight"] == "5%",
        "{current}"
    );
    assert_eq!(api.post("/v1/services/web/abort", r#"{"reason":"slow"}"#).await.status, 200);
    let over = api.get(&format!("/v1/services/web/rollouts/{id}")).await.json();
    assert_eq!((&over["phase"], &over["reason"], &over["why"]), (&"aborted".into(), &"manual".into(), &"slow".into()));
    assert!(over["ended_by"].as_str().is_some_and(|by| by.starts_with("admin ")), "{over}");
    assert_eq!((&over["weight"], &over["highest"]), (&"0%".into(), &"5%".into()));
    // Another one takes its place; it is told from the store.
    let retried = api.post("/v1/services/web/retry", r#"{"reason":"fixed"}"#).await;
    assert_eq!(retried.status, 200, "{retried:?}");
    let kept = api.get(&format!("/v1/services/web/rollouts/{id}")).await.json();
    assert_eq!((&kept["legs"], &kept["plan"]), (&over["legs"], &over["plan"]));
    assert!(old.is_number(), "{old}");
    for (path, status, words) in [
        ("/v1/services/web/rollouts/9999", 404, "there is no rollout 9999"),
        ("/v1/services/web/rollouts/latest", 404, "a rollout is a number"),
        ("/v1/services/nope/rollouts/1", 404, "there is no service"),
    ] {
        api.get(path).await.is_problem(status, words);
    }
}

#[tokio::test]
async fn the_audit_is_lines_whose_digests_chain() {
    let api = start(Bounds::default()).await;
    assert_eq!(api.post(WEIGHT, FIVE).await.status, 200);
    assert_eq!(api.post("/v1/services/web/abort", "").await.json()["persisted"], true);
    let all = api.get("/v1/audit").await;
    assert!(all.status == 200 && all.head.contains("content-type: application/x-ndjson"), "{all:?}");
    let lines: Vec<&str> = all.body.lines().collect();
    assert!(all.body.ends_with('\n') && lines.len() >= 3, "{all:?}");
    let mut previous = NOTHING_BEFORE.to_owned();
    for line in &lines {
        let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(entry["previous"], previous.as_str());
        previous = digest_of(line.as_bytes());
    }
    assert!(lines.last().expect("a line").contains("\"verb\":\"abort\""));
    let page = api.get("/v1/audit?after=1&limit=1").await;
    assert_eq!(page.body.trim_end(), lines[1]);
    assert_eq!(api.get("/v1/audit?after=99").await.body, "");
    api.get("/v1/audit?limit=0").await.is_problem(422, "limit: \"0\": a number from 1 to 1000");
    api.get("/v1/audit?since=1").await.is_problem(422, "allowed are: after, limit");
}

#[tokio::test]
async fn a_rollout_can_have_a_plan_of_its_own() {
    let api = start(Bounds::default()).await;
    let rollouts = "/v1/services/web/rollouts";
    let body = |plan: &str| {
        format!(r#"{{"candidate":{{"version":"v3","endpoints":["127.0.0.1:8003"]}},"supersede":true,"plan":{plan}}}"#)
    };
    for (plan, words) in [
        (r#"{"steps":[{"weight":"1%"},{"weight":"130%"}]}"#, "plan.steps[1].weight: \"130%\": a weight is between"),
        (r#"{"step":[]}"#, "plan.step: unknown key"),
        (r#"{"start":"manual"}"#, "plan.start: unknown key"),
        ("7", "plan: 7"),
    ] {
        let refused = api.post(rollouts, &body(plan)).await;
        refused.is_problem(422, words);
        assert!(refused.json()["errors"][0]["key"].as_str().is_some_and(|key| key.starts_with("plan")), "{refused:?}");
    }
    let plan = r#"{"steps":[{"weight":"1%","hold":"2m"},{"weight":"100%","hold":"5m"}]}"#;
    let begun = api.post(rollouts, &body(plan)).await;
    assert_eq!((begun.status, &begun.json()["rollout"]["steps"]), (201, &2.into()), "{begun:?}");
    let detail = api.get("/v1/services/web/rollouts/current").await.json();
    assert_eq!((&detail["plan"][0]["weight"], &detail["plan"][0]["hold_ms"]), (&"1%".into(), &120_000.into()));
    assert_eq!(api.post(rollouts, &body(plan)).await.status, 200);
    api.post(rollouts, &body(r#"{"steps":[{"weight":"2%"}]}"#)).await.is_problem(409, "under another plan");
}
