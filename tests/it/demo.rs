//! `tidegate demo` as people start it: each fault is caught by the gate, and nobody else suffers from it.

use std::process::{Command, Output};

use serde_json::Value;

/// The shortest there is.
const SECONDS: &str = "10";

async fn demo(fault: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["demo", "--seconds", SECONDS, "--fault", fault]).args(more);
    tokio::task::spawn_blocking(move || command.output().expect("the binary")).await.expect("no panic")
}

/// The summary of a demo that proved what it says.
async fn proven(fault: &str) -> Value {
    let output = demo(fault, &["--json"]).await;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let summary = lines.last().unwrap_or_else(|| panic!("nothing was said; {wrong}"));
    assert_eq!(
        (output.status.code(), &summary["event"], &summary["ok"]),
        (Some(0), &"summary".into(), &true.into()),
        "{said}{wrong}"
    );
    let told = |what: &str| lines.iter().filter(|line| line["event"] == what).count();
    let faults = usize::from(fault != "none");
    assert_eq!((told("fault"), told("taken_back")), (faults, faults), "{said}");
    assert_eq!((&lines[0]["event"], &summary["fault"]), (&"started".into(), &fault.into()));
    assert_eq!(wrong, "");
    summary.clone()
}

async fn caught(fault: &str, metric: &str) -> Value {
    let summary = proven(fault).await;
    assert_eq!(
        (&summary["outcome"], &summary["by"]),
        (&"aborted".into(), &format!("gate/{metric}").into()),
        "{summary}"
    );
    let evidence = summary["evidence"].as_str().expect("a sentence");
    assert!(evidence.starts_with(metric) && evidence.contains(" nats"), "{evidence}");
    assert!(summary["caught_after_seconds"].as_f64().is_some_and(|seconds| seconds < 5.0), "{summary}");
    summary
}

#[tokio::test]
async fn a_healthy_candidate_is_promoted_without_a_failed_request() {
    let summary = proven("none").await;
    assert_eq!(
        (&summary["outcome"], &summary["errors"], &summary["by"]),
        (&"succeeded".into(), &0.into(), &Value::Null)
    );
    assert!(summary["users_moved"].as_u64().is_some_and(|moved| moved > 100), "{summary}");
}

#[tokio::test]
async fn a_candidate_that_answers_with_errors_is_caught() {
    let summary = caught("errors", "error-rate").await;
    assert!(summary["errors"].as_u64().is_some_and(|errors| errors > 0), "{summary}");
}

#[tokio::test]
async fn a_candidate_that_becomes_slow_is_caught() {
    let summary = caught("latency", "latency").await;
    assert!(summary["slow"].as_u64().is_some_and(|slow| slow > 0), "{summary}");
}

#[tokio::test]
async fn a_candidate_that_hangs_is_caught() {
    caught("hang", "latency").await;
}

/// Most requests find another way: whoever cannot connect is sent to stable.
#[tokio::test]
async fn a_candidate_that_crashes_is_caught_with_its_evidence_for_people() {
    let output = demo("crash", &[]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for words in
        ["v2 crashes", "gate/error-rate takes all traffic back", "error-rate: candidate ", "OK: v2 began to fail"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
}
