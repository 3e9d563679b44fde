//! `tidegate rollout`, and the verbs on the rollout that runs: the answer says what is now true.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::{self, RolloutVerb, StepVerb};
use super::client::{self, Admin};
use super::failure::Failure;
use super::history;
use super::terminal::{Terminal, say};
use super::text::{Align, Cell, Paint, Tone, clean, span, table};

/// What is true after a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    service: String,
    generation: u64,
    stable: String,
    rollout: Option<Rollout>,
    /// Of an abort or a rollback: whether the store has it.
    persisted: Option<bool>,
    weight: String,
}

/// A rollout, running or over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rollout {
    id: u64,
    version: String,
    phase: String,
    reason: Option<String>,
    step: u64,
    steps: u64,
    weight: String,
    highest: String,
    by_hand: bool,
    hold_left_ms: Option<u64>,
}

/// The rollouts of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rollouts {
    current: Option<Rollout>,
    history: Vec<Rollout>,
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

fn start_body(start: &args::StartRollout) -> Value {
    let mut body = Map::new();
    if let Some(version) = &start.version {
        let mut candidate = json!({ "version": version });
        if !start.endpoints.is_empty() {
            candidate["endpoints"] = json!(start.endpoints);
        }
        if let Some(digest) = &start.digest {
            candidate["digest"] = json!(digest);
        }
        body.insert("candidate".to_owned(), candidate);
    }
    if !start.steps.is_empty() {
        let step = |step: &args::PlanStep| match &step.hold {
            Some(hold) => json!({ "weight": step.weight.to_string(), "hold": hold }),
            None => json!({ "weight": step.weight.to_string() }),
        };
        body.insert("plan".to_owned(), json!({ "steps": start.steps.iter().map(step).collect::<Vec<_>>() }));
    }
    if start.supersede {
        body.insert("supersede".to_owned(), true.into());
    }
    body.extend(start.reason.clone().map(|reason| ("reason".to_owned(), reason.into())));
    body.into()
}

fn verb_body(verb: &StepVerb) -> Value {
    let mut body = Map::new();
    body.extend(verb.place().reason.clone().map(|reason| ("reason".to_owned(), reason.into())));
    match verb {
        StepVerb::Promote(promote) => {
            body.insert("to".to_owned(), if promote.full { "full" } else { "next" }.into());
            if promote.force {
                body.insert("force".to_owned(), true.into());
            }
            body.extend(promote.step.map(|step| ("expected_step".to_owned(), (step - 1).into())));
        }
        StepVerb::Retry(retry) => body.extend(retry.version.clone().map(|v| ("version".to_owned(), v.into()))),
        StepVerb::Pause(_) | StepVerb::Resume(_) | StepVerb::Approve(_) | StepVerb::Rollback(_) => {}
    }
    body.into()
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
    let over = |rollout: &&Rollout| rollouts.current.as_ref().is_none_or(|current| current.id != rollout.id);
    let all = rollouts.current.iter().chain(rollouts.history.iter().filter(over));
    let rows: Vec<Vec<Cell>> = all
        .map(|rollout| {
            let weight = if rollout.highest.is_empty() { &rollout.weight } else { &rollout.highest };
            vec![
                Cell::plain(rollout.id.to_string()),
                Cell::plain(&rollout.version),
                Cell::new(rollout.tone(), rollout.phase()),
                Cell::plain(rollout.place()),
                Cell::plain(weight),
            ]
        })
        .collect();
    if rows.is_empty() { "no rollout yet\n".to_owned() } else { table(paint, &columns, &rows) }
}

// === impl Answer ===

impl Answer {
    fn render(&self, paint: Paint) -> String {
        let name = clean(&self.service);
        let service = paint.paint(Tone::Strong, &name);
        let now = match &self.rollout {
            Some(rollout) => {
                let left = rollout.hold_left_ms.map(|ms| format!(", {} left", span(ms.div_ceil(1_000))));
                let words = rollout.phase();
                let phase = paint.paint(rollout.tone(), &words);
                let (version, weight, place) = (clean(&rollout.version), clean(&rollout.weight), rollout.place());
                let place = if place.is_empty() { String::new() } else { format!(", step {place}") };
                format!("{version} {phase} at {weight}{place}{}", left.unwrap_or_default())
            }
            None => format!("all traffic on {}", clean(&self.stable)),
        };
        let mut text = format!("{service}: {now}, stable {} (generation {})\n", clean(&self.stable), self.generation);
        if self.persisted == Some(false) {
            text.push_str(&paint.paint(Tone::Notable, NOT_PERSISTED));
            text.push('\n');
        }
        text
    }
}

const NOT_PERSISTED: &str = "  the store has not taken it yet; it is tried until it does";

// === impl Rollout ===

impl Rollout {
    fn phase(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({})", clean(reason)));
        format!("{}{}", clean(&self.phase).replace('_', " "), reason.unwrap_or_default())
    }

    /// Which step it is in: `2/3`.
    fn place(&self) -> String {
        match self.steps {
            _ if self.by_hand => "by hand".to_owned(),
            0 => String::new(),
            steps => format!("{}/{steps}", (self.step + 1).min(steps)),
        }
    }

    fn tone(&self) -> Tone {
        match self.phase.as_str() {
            "aborted" | "rolled_back" => Tone::Bad,
            "paused" | "trial" => Tone::Notable,
            _ => Tone::Plain,
        }
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
        let back = json!({"service": "web", "generation": 9, "stable": "v1", "persisted": false});
        assert_eq!(shown(back), format!("web: all traffic on v1, stable v1 (generation 9)\n{NOT_PERSISTED}\n"));
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
