//! `tidegate history` and `tidegate rollout show`: what became of rollouts.

use serde::Deserialize;
use serde_json::{Value, json};

use super::args;
use super::client::{self, Admin};
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{Align, Cell, Paint, Tone, clean, span, table};
use crate::telemetry::access::timestamp;

/// A rollout that is over, as the API lists it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Over {
    id: u64,
    version: String,
    phase: String,
    reason: Option<String>,
    highest: String,
    started_at_ms: u64,
    ended_at_ms: u64,
    by: String,
    why: Option<String>,
}

/// A rollout as a whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    id: u64,
    service: String,
    version: String,
    phase: String,
    reason: Option<String>,
    weight: String,
    highest: String,
    origin: String,
    hold_left_ms: Option<u64>,
    started_at_ms: u64,
    ended_at_ms: Option<u64>,
    ended_by: Option<String>,
    why: Option<String>,
    plan: Vec<Step>,
    legs: Vec<Leg>,
    legs_left_out: u64,
    evidence: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    weight: String,
    hold_ms: u64,
    approval: bool,
    began_at_ms: Option<u64>,
    ended_at_ms: Option<u64>,
    ended: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Leg {
    began_at_ms: u64,
    ended_at_ms: Option<u64>,
    phase: String,
    reason: Option<String>,
    step: Option<u64>,
    weight: String,
    actor: String,
    verb: String,
    why: Option<String>,
}

/// Lists the rollouts that ended, the newest first.
pub(super) async fn history(admin: &Admin, asked: &args::History, terminal: Terminal) -> Result<(), Failure> {
    let services = match &asked.service {
        Some(service) => vec![service.to_string()],
        None => names(&client::read(&admin.get("/v1/services").await?)?),
    };
    let mut all: Vec<(String, Value)> = Vec::new();
    for service in services {
        let body: Value = client::read(&admin.get(&format!("/v1/services/{service}/rollouts")).await?)?;
        let history = body["history"].as_array().cloned().unwrap_or_default();
        all.extend(history.into_iter().map(|ended| (service.clone(), ended)));
    }
    // The order of ends; numbers are given when rollouts begin.
    let when = |ended: &Value| (ended["ended_at_ms"].as_u64(), ended["id"].as_u64());
    all.sort_by_key(|(_, ended)| std::cmp::Reverse(when(ended)));
    all.truncate(usize::try_from(asked.limit).unwrap_or(usize::MAX));
    say(&if terminal.json { lines(&all) } else { listed(&all, terminal.paint)? })
}

/// Shows one rollout.
pub(super) async fn show(admin: &Admin, asked: &args::ShowRollout, terminal: Terminal) -> Result<(), Failure> {
    let id = asked.id.map_or_else(|| "current".to_owned(), |id| id.to_string());
    let body = admin.get(&format!("/v1/services/{}/rollouts/{id}", asked.service)).await?;
    let text =
        if terminal.json { client::json_line(&body)? } else { client::read::<Detail>(&body)?.render(terminal.paint) };
    say(&text)
}

fn names(services: &Value) -> Vec<String> {
    let all = services["services"].as_array().into_iter().flatten();
    all.filter_map(|service| service["name"].as_str().map(str::to_owned)).collect()
}

/// For a program: one array, each with its service.
fn lines(all: &[(String, Value)]) -> String {
    let with_service = |(service, ended): &(String, Value)| {
        let mut ended = ended.clone();
        ended["service"] = json!(service);
        ended
    };
    format!("{}\n", Value::Array(all.iter().map(with_service).collect()))
}

fn listed(all: &[(String, Value)], paint: Paint) -> Result<String, Failure> {
    let columns = [
        ("SERVICE", Align::Left),
        ("ROLLOUT", Align::Right),
        ("VERSION", Align::Left),
        ("ENDED", Align::Left),
        ("HIGHEST", Align::Right),
        ("TOOK", Align::Right),
        ("AT", Align::Left),
        ("BY", Align::Left),
        ("", Align::Left),
    ];
    let row = |(service, ended): &(String, Value)| {
        let ended: Over = client::read(ended.to_string().as_bytes())?;
        Ok(vec![
            Cell::new(Tone::Strong, service),
            Cell::plain(ended.id.to_string()),
            Cell::plain(&ended.version),
            Cell::new(tone(&ended.phase), words(&ended.phase, ended.reason.as_deref())),
            Cell::plain(&ended.highest),
            Cell::plain(took(ended.started_at_ms, ended.ended_at_ms)),
            Cell::plain(at(ended.ended_at_ms)),
            Cell::plain(&ended.by),
            Cell::new(Tone::Faint, ended.why.unwrap_or_default()),
        ])
    };
    let rows = all.iter().map(row).collect::<Result<Vec<_>, Failure>>()?;
    Ok(if rows.is_empty() { "no rollout has ended yet\n".to_owned() } else { table(paint, &columns, &rows) })
}

fn words(phase: &str, reason: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(" ({})", reason.replace('_', " ")));
    format!("{}{}", phase.replace('_', " "), reason.unwrap_or_default())
}

fn tone(phase: &str) -> Tone {
    match phase {
        "aborted" | "rolled_back" => Tone::Bad,
        "paused" | "trial" => Tone::Notable,
        "succeeded" => Tone::Good,
        _ => Tone::Plain,
    }
}

fn took(from_ms: u64, to_ms: u64) -> String {
    span(to_ms.saturating_sub(from_ms).div_ceil(1_000))
}

fn at(unix_ms: u64) -> String {
    timestamp(std::time::Duration::from_millis(unix_ms))
}

// === impl Over ===

impl Default for Over {
    fn default() -> Self {
        Self {
            id: 0,
            version: String::new(),
            phase: String::new(),
            reason: None,
            highest: String::new(),
            started_at_ms: 0,
            ended_at_ms: 0,
            by: "unknown".to_owned(),
            why: None,
        }
    }
}

// === impl Detail ===

impl Detail {
    fn render(&self, paint: Paint) -> String {
        let left_out = match self.legs_left_out {
            0 => String::new(),
            count => format!("({count} between the first and the second are not kept)\n"),
        };
        let parts = [self.heading(paint), self.steps(paint), self.legs(paint) + &left_out];
        parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn heading(&self, paint: Paint) -> String {
        let name = format!("{} rollout {}", clean(&self.service), self.id);
        let phase = clean(&words(&self.phase, self.reason.as_deref())).into_owned();
        let weight = match self.ended_at_ms {
            Some(_) => format!(", at most {}", clean(&self.highest)),
            None => format!(" at {}", clean(&self.weight)),
        };
        let left = self.hold_left_ms.filter(|_| self.ended_at_ms.is_none());
        let left = left.map(|left| format!(", {} left", span(left.div_ceil(1_000)))).unwrap_or_default();
        let (name, phase) = (paint.paint(Tone::Strong, &name), paint.paint(tone(&self.phase), &phase));
        let mut lines = vec![
            format!("{name}: {} {phase}{weight}{left}", clean(&self.version)),
            format!("began {} (asked for by {})", at(self.started_at_ms), clean(&self.origin)),
        ];
        lines.extend(self.ended_at_ms.map(|ended| {
            let by = self.ended_by.as_ref().map(|by| format!(" by {}", clean(by))).unwrap_or_default();
            let why = self.why.as_ref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
            format!("ended {} after {}{by}{why}", at(ended), took(self.started_at_ms, ended))
        }));
        lines.extend(self.evidence.as_ref().map(|evidence| format!("evidence {}", clean(&evidence.to_string()))));
        lines.join("\n") + "\n"
    }

    fn steps(&self, paint: Paint) -> String {
        let columns = [
            ("STEP", Align::Right),
            ("WEIGHT", Align::Right),
            ("HOLD", Align::Right),
            ("BEGAN", Align::Left),
            ("TOOK", Align::Right),
            ("LEFT BY", Align::Left),
        ];
        let row = |(index, step): (usize, &Step)| {
            let took = step.began_at_ms.zip(step.ended_at_ms).map(|(from, to)| took(from, to));
            let waits = if step.approval && step.began_at_ms.is_none() { "needs an approval" } else { "" };
            vec![
                Cell::plain((index + 1).to_string()),
                Cell::plain(&step.weight),
                Cell::plain(span(step.hold_ms / 1_000)),
                Cell::plain(step.began_at_ms.map(at).unwrap_or_default()),
                Cell::plain(took.unwrap_or_default()),
                Cell::plain(step.ended.as_deref().unwrap_or(waits)),
            ]
        };
        table(paint, &columns, &self.plan.iter().enumerate().map(row).collect::<Vec<_>>())
    }

    fn legs(&self, paint: Paint) -> String {
        let columns = [
            ("FROM", Align::Left),
            ("FOR", Align::Right),
            ("PHASE", Align::Left),
            ("STEP", Align::Right),
            ("WEIGHT", Align::Right),
            ("BY", Align::Left),
            ("WHAT", Align::Left),
            ("", Align::Left),
        ];
        let row = |leg: &Leg| {
            vec![
                Cell::plain(at(leg.began_at_ms)),
                Cell::plain(leg.ended_at_ms.map(|ended| took(leg.began_at_ms, ended)).unwrap_or_default()),
                Cell::new(tone(&leg.phase), words(&leg.phase, leg.reason.as_deref())),
                Cell::plain(leg.step.map(|step| (step + 1).to_string()).unwrap_or_default()),
                Cell::plain(&leg.weight),
                Cell::plain(&leg.actor),
                Cell::plain(&leg.verb),
                Cell::new(Tone::Faint, leg.why.as_deref().unwrap_or_default()),
            ]
        };
        table(paint, &columns, &self.legs.iter().map(row).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidy(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_rollout_is_shown_with_its_steps_and_what_became_of_it() {
        let detail = json!({"id": 7, "service": "web", "version": "v2", "phase": "aborted", "reason": "failed_requests",
            "weight": "0%", "highest": "25%", "origin": "file", "started_at_ms": 0, "ended_at_ms": 65_000, "ended_by": "plan",
            "plan": [{"weight": "5%", "hold_ms": 30_000, "began_at_ms": 1_000, "ended_at_ms": 31_500, "ended": "step"},
                {"weight": "100%", "hold_ms": 300_000, "approval": true}],
            "legs": [{"began_at_ms": 0, "ended_at_ms": 1_000, "phase": "verifying", "weight": "0%", "actor": "file", "verb": "reload"},
                {"began_at_ms": 1_000, "ended_at_ms": 65_000, "phase": "paused", "reason": "low_traffic", "step": 0, "weight": "5%",
                    "actor": "gate", "verb": "pause", "why": "night"}],
            "legs_left_out": 2, "evidence": {"S": 7}});
        let text = serde_json::from_value::<Detail>(detail).expect("a rollout").render(Paint(false));
        assert_eq!(
            tidy(&text),
            [
                "web rollout 7: v2 aborted (failed requests), at most 25%",
                "began 1970-01-01T00:00:00.000Z (asked for by file)",
                "ended 1970-01-01T00:01:05.000Z after 1m 5s by plan",
                "evidence {\"S\":7}",
                "",
                "STEP WEIGHT HOLD BEGAN TOOK LEFT BY",
                "1 5% 30s 1970-01-01T00:00:01.000Z 31s step",
                "2 100% 5m needs an approval",
                "",
                "FROM FOR PHASE STEP WEIGHT BY WHAT",
                "1970-01-01T00:00:00.000Z 1s verifying 0% file reload",
                "1970-01-01T00:00:01.000Z 1m 4s paused (low traffic) 1 5% gate pause night",
                "(2 between the first and the second are not kept)",
            ]
        );
    }

    #[test]
    fn the_history_says_how_each_ended_and_by_whom() {
        let ended = json!({"id": 3, "version": "v2", "phase": "rolled_back", "highest": "100%", "started_at_ms": 0,
            "ended_at_ms": 90_000, "by": "token ci", "why": "slow"});
        let all = vec![("web".to_owned(), ended)];
        let text = listed(&all, Paint(false)).expect("rollouts");
        assert_eq!(tidy(&text)[1], "web 3 v2 rolled back 100% 1m 30s 1970-01-01T00:01:30.000Z token ci slow");
        assert_eq!(listed(&[], Paint(false)).expect("none"), "no rollout has ended yet\n");
        let json: Value = serde_json::from_str(&lines(&all)).expect("JSON");
        assert_eq!((&json[0]["service"], &json[0]["id"]), (&json!("web"), &json!(3)));
    }
}
