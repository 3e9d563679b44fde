//! `tidegate weight` and `tidegate abort`: the answer says what is now true, not what was asked for.

use serde::Deserialize;
use serde_json::{Value, json};

use super::args;
use super::client::{self, Admin};
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
    /// Whether every worker has acknowledged.
    #[serde(default = "yes")]
    settled: bool,
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

fn with_reason(reason: Option<&str>) -> Value {
    reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}))
}

fn show(body: &[u8], terminal: Terminal) -> Result<String, Failure> {
    if terminal.json { client::json_line(body) } else { Ok(client::read::<Applied>(body)?.render(terminal.paint)) }
}

const fn yes() -> bool {
    true
}

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
        let mut text = format!("{}: {now} (generation {})\n", paint.paint(Tone::Strong, &service), self.generation);
        if !self.settled {
            text.push_str(&paint.paint(Tone::Notable, NOT_SETTLED));
            text.push('\n');
        }
        text
    }
}

const NOT_SETTLED: &str = "  not every worker has acknowledged in time; the switch is thrown all the same";

#[cfg(test)]
mod tests {
    use super::*;

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
    fn workers_that_did_not_acknowledge_are_mentioned() {
        let text =
            shown(json!({"service": "web", "generation": 1, "weight": "0%", "state": "aborted", "settled": false}));
        assert!(
            text.ends_with("\n  not every worker has acknowledged in time; the switch is thrown all the same\n"),
            "{text}"
        );
    }

    #[test]
    fn a_reason_is_sent_only_if_given() {
        assert_eq!(with_reason(None), json!({}));
        assert_eq!(with_reason(Some("slow \"cart\"")), json!({"reason": "slow \"cart\""}));
    }
}
