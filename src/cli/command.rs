//! `tidegate weight` and `tidegate abort`: the answer says what is now true, not what was asked for.

use serde::Deserialize;
use serde_json::json;

use super::args;
use super::client::{self, Admin, with_reason};
use super::failure::Failure;
use super::terminal::{Terminal, say};
use super::text::{Paint, Tone, clean};

/// What is true after a command.
#[derive(Debug, Deserialize)]
struct Applied {
    service: String,
    generation: u64,
    weight: String,
    state: String,
    /// The version of stable, if the admin API says it.
    #[serde(default)]
    stable: Option<String>,
    /// The version of the candidate, if there is one and the admin API says it.
    #[serde(default)]
    candidate: Option<String>,
    /// Whether every worker has acknowledged; absent where nobody has to.
    settled: Option<bool>,
    /// Whether the store has it; absent where it has from the start.
    persisted: Option<bool>,
}

/// Sets the candidate's share.
pub(super) async fn weight(admin: &Admin, asked: &args::SetWeight, terminal: Terminal) -> Result<(), Failure> {
    let mut command = with_reason(asked.reason.as_deref());
    command["weight"] = json!(asked.weight.to_string());
    let body = admin.post(&format!("/v1/services/{}/weight", asked.service), &command).await?;
    say(&show(&body, terminal)?)
}

/// Takes all traffic back to stable.
pub(super) async fn abort(admin: &Admin, asked: &args::Abort, terminal: Terminal) -> Result<(), Failure> {
    let command = with_reason(asked.reason.as_deref());
    let body = admin.post(&format!("/v1/services/{}/abort", asked.service), &command).await?;
    say(&show(&body, terminal)?)
}

fn show(body: &[u8], terminal: Terminal) -> Result<String, Failure> {
    if terminal.json { client::json_line(body) } else { Ok(client::read::<Applied>(body)?.render(terminal.paint)) }
}

/// What is not so yet after a command that took effect, a line each.
pub(super) fn warnings(settled: Option<bool>, persisted: Option<bool>, paint: Paint) -> String {
    let lines = [(settled, NOT_SETTLED), (persisted, NOT_PERSISTED)];
    let missing = lines.iter().filter(|(done, _)| *done == Some(false));
    missing.flat_map(|(_, line)| [paint.paint(Tone::Notable, line), "\n".into()]).collect()
}

const NOT_SETTLED: &str = "  not every worker has acknowledged in time; the switch is thrown all the same";
const NOT_PERSISTED: &str = "  the store has not taken it yet; it is tried until it does";

// === impl Applied ===

impl Applied {
    fn render(&self, paint: Paint) -> String {
        let named = |variant: &str, version: Option<&String>| match version {
            Some(version) => format!("{variant} {}", clean(version)),
            None => variant.to_owned(),
        };
        let (stable, candidate) = (named("stable", self.stable.as_ref()), named("candidate", self.candidate.as_ref()));
        let (service, weight) = (clean(&self.service), clean(&self.weight));
        let now = match (self.state.as_str(), weight.as_ref()) {
            ("aborted", _) => format!("{candidate} aborted, all traffic on {stable}"),
            ("idle", "0%") if self.candidate.is_none() => format!("all traffic on {stable}"),
            (_, "0%") => format!("{candidate} at 0%, all traffic on {stable}"),
            _ => format!("{candidate} at {weight}"),
        };
        let warnings = warnings(self.settled, self.persisted, paint);
        format!("{}: {now} (generation {})\n{warnings}", paint.paint(Tone::Strong, &service), self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::Value;

    fn shown(answer: Value) -> String {
        let applied: Applied = serde_json::from_value(answer).expect("an answer");
        applied.render(Paint(false))
    }

    #[test]
    fn the_answer_says_what_is_now_true() {
        let of = |state: &str, weight: &str| {
            shown(
                json!({"service": "web", "generation": 12, "weight": weight, "state": state, "stable": "v1", "candidate": "v2"}),
            )
        };
        assert_eq!(of("splitting", "5%"), "web: candidate v2 at 5% (generation 12)\n");
        assert_eq!(of("idle", "0%"), "web: candidate v2 at 0%, all traffic on stable v1 (generation 12)\n");
        assert_eq!(of("aborted", "0%"), "web: candidate v2 aborted, all traffic on stable v1 (generation 12)\n");
    }

    #[test]
    fn an_answer_without_versions_is_shown_without_them() {
        let of = |state: &str, weight: &str| {
            shown(json!({"service": "web", "generation": 1, "weight": weight, "state": state}))
        };
        assert_eq!(of("splitting", "5%"), "web: candidate at 5% (generation 1)\n");
        assert_eq!(of("aborted", "0%"), "web: candidate aborted, all traffic on stable (generation 1)\n");
        assert_eq!(of("idle", "0%"), "web: all traffic on stable (generation 1)\n");
    }

    #[test]
    fn workers_that_did_not_acknowledge_and_a_store_that_has_it_not_yet_are_mentioned() {
        let of = |settled: bool, persisted: bool| {
            let aborted = json!({"service": "web", "generation": 1, "weight": "0%", "state": "aborted",
                "settled": settled, "persisted": persisted});
            shown(aborted).split_once('\n').map(|(_, warnings)| warnings.to_owned())
        };
        let settled = "  not every worker has acknowledged in time; the switch is thrown all the same\n";
        let persisted = "  the store has not taken it yet; it is tried until it does\n";
        assert_eq!(of(true, true).as_deref(), Some(""));
        assert_eq!(of(false, true).as_deref(), Some(settled));
        assert_eq!(of(true, false).as_deref(), Some(persisted));
        assert_eq!(of(false, false), Some(format!("{settled}{persisted}")));
    }
}
