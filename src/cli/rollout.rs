//! `tidegate rollout`, and the verbs on the rollout that runs: the answer says what is now true.

use serde::Deserialize;
use serde_json::{Value, json};

use super::args::{self, RolloutVerb, StepVerb};
use super::client::{self, Admin, with_reason};
use super::command::warnings;
use super::failure::Failure;
use super::history;
use super::status::Progress;
use super::terminal::{Terminal, say};
use super::text::{Align, Cell, Paint, Tone, clean, table};

/// What is true after a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    service: String,
    generation: u64,
    stable: String,
    rollout: Option<Progress>,
    /// Of a rollback: whether every worker has acknowledged.
    settled: Option<bool>,
    /// Of a rollback: whether the store has it.
    persisted: Option<bool>,
}

/// The rollouts of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rollouts {
    current: Option<Progress>,
    history: Vec<Progress>,
}

/// Begins a rollout, or lists them.
pub(super) async fn rollout(admin: &Admin, verb: &RolloutVerb, terminal: Terminal) -> Result<(), Failure> {
    match verb {
        RolloutVerb::Start(start) => {
            let body = admin.post(&format!("/v1/services/{}/rollouts", start.service), &start_body(start)).await?;
            say(&show(&body, terminal)?)
        }
        RolloutVerb::Show(show) => history::show(admin, show, terminal).await,
        RolloutVerb::List(list) => {
            let body = admin.get(&format!("/v1/services/{}/rollouts", list.service)).await?;
            let text =
                if terminal.json { client::json_line(&body)? } else { listed(&client::read(&body)?, terminal.paint) };
            say(&text)
        }
    }
}

/// One verb on the rollout that runs.
pub(super) async fn perform(admin: &Admin, verb: &StepVerb, terminal: Terminal) -> Result<(), Failure> {
    let path = format!("/v1/services/{}/{}", verb.place().service, verb.word());
    let body = admin.post(&path, &verb_body(verb)).await?;
    say(&show(&body, terminal)?)
}

/// What a start command says.
pub(super) fn start_body(start: &args::StartRollout) -> Value {
    let mut body = with_reason(start.reason.as_deref());
    if let Some(version) = &start.version {
        let mut candidate = json!({ "version": version.as_str() });
        if !start.endpoints.is_empty() {
            candidate["endpoints"] = json!(start.endpoints);
        }
        if let Some(digest) = &start.digest {
            candidate["digest"] = json!(digest);
        }
        body["candidate"] = candidate;
    }
    if !start.steps.is_empty() {
        let step = |step: &args::PlanStep| match &step.hold {
            Some(hold) => json!({ "weight": step.weight.to_string(), "hold": hold }),
            None => json!({ "weight": step.weight.to_string() }),
        };
        body["plan"] = json!({ "steps": start.steps.iter().map(step).collect::<Vec<_>>() });
    }
    if start.supersede {
        body["supersede"] = json!(true);
    }
    body
}

fn verb_body(verb: &StepVerb) -> Value {
    let mut body = with_reason(verb.place().reason.as_deref());
    match verb {
        StepVerb::Promote(promote) => {
            body["to"] = json!(if promote.full { "full" } else { "next" });
            if promote.force {
                body["force"] = json!(true);
            }
            if let Some(step) = promote.step {
                body["expected_step"] = json!(step - 1);
            }
        }
        StepVerb::Retry(retry) => {
            if let Some(version) = &retry.version {
                body["version"] = json!(version.as_str());
            }
        }
        StepVerb::Pause(_) | StepVerb::Resume(_) | StepVerb::Approve(_) | StepVerb::Rollback(_) => {}
    }
    body
}

fn show(body: &[u8], terminal: Terminal) -> Result<String, Failure> {
    if terminal.json { client::json_line(body) } else { Ok(client::read::<Answer>(body)?.render(terminal.paint)) }
}

fn listed(rollouts: &Rollouts, paint: Paint) -> String {
    let columns = [
        ("ROLLOUT", Align::Right),
        ("VERSION", Align::Left),
        ("PHASE", Align::Left),
        ("STEP", Align::Left),
        ("WEIGHT", Align::Right),
    ];
    let over = |rollout: &&Progress| rollouts.current.as_ref().is_none_or(|current| current.id != rollout.id);
    let all = rollouts.current.iter().chain(rollouts.history.iter().filter(over));
    let row = |rollout: &Progress| {
        vec![
            Cell::plain(rollout.id.to_string()),
            Cell::plain(&rollout.version),
            Cell::new(rollout.tone(), rollout.phase()),
            Cell::plain(rollout.place()),
            Cell::plain(rollout.highest.as_ref().unwrap_or(&rollout.weight)),
        ]
    };
    let rows: Vec<Vec<Cell>> = all.map(row).collect();
    if rows.is_empty() { "no rollout yet\n".to_owned() } else { table(paint, &columns, &rows) }
}

// === impl Answer ===

impl Answer {
    fn render(&self, paint: Paint) -> String {
        let name = clean(&self.service);
        let service = paint.paint(Tone::Strong, &name);
        let now = match &self.rollout {
            Some(rollout) => {
                let left = rollout.left().map(|left| format!(", {left} left")).unwrap_or_default();
                let words = rollout.phase();
                let (words, version, weight) = (clean(&words), clean(&rollout.version), clean(&rollout.weight));
                let phase = paint.paint(rollout.tone(), &words);
                let place = match rollout.place() {
                    place if place.is_empty() => place,
                    place if rollout.by_hand => format!(", {place}"),
                    place => format!(", step {place}"),
                };
                format!("{version} {phase} at {weight}{place}{left}")
            }
            None => format!("all traffic on {}", clean(&self.stable)),
        };
        let warnings = warnings(self.settled, self.persisted, paint);
        format!("{service}: {now}, stable {} (generation {})\n{warnings}", clean(&self.stable), self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(answer: Value) -> String {
        serde_json::from_value::<Answer>(answer).expect("an answer").render(Paint(false))
    }

    #[test]
    fn the_answer_says_where_the_rollout_is() {
        let rollout = json!({"id": 7, "version": "v2", "phase": "progressing", "step": 1, "steps": 3, "weight": "25%",
            "hold_left_ms": 59_001});
        let answer = |rollout: &Value| json!({"service": "web", "generation": 9, "stable": "v1", "rollout": rollout});
        assert_eq!(
            shown(answer(&rollout)),
            "web: v2 progressing at 25%, step 2/3, 1m left, stable v1 (generation 9)\n"
        );
        let paused = json!({"version": "v2", "phase": "paused", "reason": "approval", "steps": 3, "weight": "5%"});
        assert_eq!(shown(answer(&paused)), "web: v2 paused (approval) at 5%, step 1/3, stable v1 (generation 9)\n");
        let by_hand = json!({"version": "v2", "phase": "progressing", "by_hand": true, "weight": "5%"});
        assert!(shown(answer(&by_hand)).starts_with("web: v2 progressing at 5%, by hand, stable"));
        let slow = json!({"version": "v2", "phase": "paused", "reason": "low_traffic", "steps": 3, "weight": "5%"});
        assert!(shown(answer(&slow)).starts_with("web: v2 paused (low traffic) at 5%"));
    }

    #[test]
    fn a_rollback_says_what_is_not_so_yet() {
        let back = json!({"service": "web", "generation": 9, "stable": "v1", "settled": false, "persisted": false});
        let text = shown(back);
        assert!(text.starts_with("web: all traffic on v1, stable v1 (generation 9)\n  not every worker"), "{text}");
        assert!(text.ends_with("\n  the store has not taken it yet; it is tried until it does\n"), "{text}");
    }

    #[test]
    fn the_list_has_the_one_that_runs_first_and_once() {
        let rollouts = json!({"current": {"id": 2, "version": "v3", "phase": "aborted", "reason": "manual", "weight": "0%"},
            "history": [{"id": 2, "version": "v3", "phase": "aborted", "highest": "5%"},
                {"id": 1, "version": "v2", "phase": "succeeded", "step": 2, "steps": 3, "highest": "100%"}]});
        let text = listed(&serde_json::from_value(rollouts).expect("rollouts"), Paint(false));
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1..], ["2 v3 aborted (manual) 0%", "1 v2 succeeded 3/3 100%"]);
        assert_eq!(listed(&Rollouts::default(), Paint(false)), "no rollout yet\n");
    }
}
