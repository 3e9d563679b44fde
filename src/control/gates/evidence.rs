//! What a gate has seen, for people and programs: the report with everything that has a name.

use std::fmt::Write as _;

use serde::Serialize;

use crate::core::gate::report::{Side, TestReport};
use crate::core::gate::{Outcome, Paused, Reason, Report, Verdict};

/// What is known of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The rollout.
    pub rollout: u64,
    /// Its step.
    pub step: u32,
    /// Whether anything is compared any more.
    pub running: bool,
    /// From the candidate's first bad request, as long as there was evidence of harm since, to the verdict, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected_after_ms: Option<u64>,
    /// Everything that was seen and concluded.
    pub report: Report,
    /// Endpoints of the candidate, by their index in the report.
    pub endpoints: Vec<String>,
}

/// What the gate says, in a sentence with its numbers; `None` if it says nothing. `metric` condemns the candidate.
///
/// `error-rate: candidate 31 of 31 (100 %, at least 89 %), stable 0 of 640 (0 %, at most 0.6 %); evidence 9.7 of 6.9 nats`
pub(super) fn words(known: &Evidence, verdict: &Verdict, metric: Option<&str>) -> Option<String> {
    let report = &known.report;
    let mut text = String::new();
    // Writing to a string does not fail; so below.
    let _ = match (&verdict.outcome, &verdict.paused) {
        (Outcome::Harmful(Reason::Test(test)), _) => match report.tests.get(*test) {
            Some(test) => about(&mut text, test, report),
            None => write!(text, "{}", metric.unwrap_or_default()),
        },
        (Outcome::Harmful(Reason::Rule { breach, .. }), _) => {
            write!(text, "{}: the rule is broken: {breach:?}", metric.unwrap_or_default())
        }
        _ if verdict.trial => {
            let evidence = show(report.alone.unwrap_or_default());
            write!(
                text,
                "the candidate fails more than stable did before (evidence {evidence} nats), or everything does"
            )
        }
        (_, Paused { stable_degraded: true, .. }) => {
            let evidence = show(report.stable_degraded.unwrap_or_default());
            write!(text, "stable fails more than in its last ten minutes (evidence {evidence} nats)")
        }
        (_, Paused { gate_error: true, .. }) => write!(text, "a source of a metric does not answer"),
        (_, Paused { endpoint: Some(endpoint), .. }) => {
            let address = known.endpoints.get(usize::from(*endpoint)).map_or("an endpoint", String::as_str);
            write!(text, "{address} keeps failing, the others do not")
        }
        _ if verdict.sample_ratio => {
            let (evidence, keys, candidate) = report.sample_ratio;
            write!(text, "{candidate} of {keys} users went to the candidate (evidence {} nats)", show(evidence))
        }
        _ => return None,
    };
    Some(text)
}

fn about(text: &mut String, test: &TestReport, report: &Report) -> std::fmt::Result {
    write!(text, "{}", test.metric)?;
    if let (Some(quantile), Some(us)) = (test.quantile, test.threshold_us) {
        write!(text, " (slower than {} ms, p{})", show(milli(us)), show(quantile * 100.0))?;
    }
    text.push_str(": candidate ");
    side(text, &test.candidate, "at least", test.candidate.ci95.0)?;
    if let Some(ceiling) = test.ceiling {
        write!(text, ", allowed are {} %", show(ceiling * 100.0))?;
    } else {
        text.push_str(", stable ");
        side(text, &test.stable, "at most", test.stable.ci95.1)?;
    }
    write!(text, "; evidence {} of {} nats", show(report.log_e), show(report.bound))
}

fn side(text: &mut String, side: &Side, word: &str, limit: f64) -> std::fmt::Result {
    let [rate, limit] = [side.rate, limit].map(|rate| show(rate * 100.0));
    write!(text, "{} of {} ({rate} %, {word} {limit} %)", side.events, side.exposed)
}

/// Two digits that say something.
fn show(number: f64) -> String {
    let text = if number.abs() >= 10.0 { format!("{number:.0}") } else { format!("{number:.1}") };
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[expect(clippy::cast_precision_loss, reason = "a latency in microseconds, far below 2^53")]
fn milli(us: u64) -> f64 {
    us as f64 / 1_000.0
}
