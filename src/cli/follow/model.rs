//! What the admin API says of one rollout. What another version adds is left out, what it lacks is empty.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::text::Tone;

/// A rollout, running or over.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(in crate::cli) struct Rollout {
    /// Its number.
    pub(in crate::cli) id: u64,
    /// What is tried.
    pub(in crate::cli) version: String,
    /// Where it is.
    pub(in crate::cli) phase: String,
    /// Why it is paused or was aborted.
    pub(in crate::cli) reason: Option<String>,
    /// Its step, from zero.
    pub(in crate::cli) step: u64,
    /// How many there are.
    pub(in crate::cli) steps: u64,
    /// Share of the candidate: `5%`; empty of one that is over and not the latest.
    pub(in crate::cli) weight: String,
    /// No step is in force.
    pub(in crate::cli) by_hand: bool,
    /// What is left of the hold, in milliseconds.
    pub(in crate::cli) hold_left_ms: Option<u64>,
    /// Who ended it, if that is said.
    pub(in crate::cli) by: Option<String>,
    /// Why, in the words of whoever did, if that is said.
    pub(in crate::cli) why: Option<String>,
}

/// The rollouts of a service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rollouts {
    /// The latest one.
    pub(super) current: Option<Rollout>,
    /// Those that are over.
    pub(super) history: Vec<Rollout>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(in crate::cli) struct Event {
    /// Milliseconds since 1970.
    pub(in crate::cli) at_ms: u64,
    /// Who caused it.
    pub(in crate::cli) actor: String,
    /// What it was.
    pub(in crate::cli) what: String,
    /// The service, if it is about one.
    pub(in crate::cli) service: Option<String>,
    /// The weight before, if it changed.
    pub(in crate::cli) from: Option<String>,
    /// The weight after it.
    pub(in crate::cli) to: Option<String>,
    /// The reason given, the evidence, or what is true now.
    pub(in crate::cli) detail: Option<String>,
    /// The generation in force after it.
    pub(in crate::cli) generation: u64,
}

/// The newest events, as the status has them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    /// The oldest first.
    pub(super) events: Vec<Event>,
}

/// What the gate has seen.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(in crate::cli) struct Evidence {
    /// Everything it has concluded.
    report: Report,
    /// As it came.
    #[serde(skip)]
    pub(in crate::cli) whole: Value,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Report {
    /// Evidence of harm, in nats; absent before there is any.
    log_e: Option<f64>,
    /// From where on the candidate is condemned.
    bound: Option<f64>,
    /// Latencies are still compared with ten times their thresholds.
    warming_up: bool,
    tests: Vec<Test>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Test {
    metric: String,
    quantile: Option<f64>,
    threshold_us: Option<u64>,
    candidate: Side,
    stable: Side,
    log_e: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Side {
    events: u64,
    exposed: u64,
    rate: f64,
}

/// One test, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    /// `error-rate`, `latency p99 over 12 ms`
    pub(super) name: String,
    /// `3 of 412 (0.73%)`
    pub(super) candidate: String,
    /// Likewise.
    pub(super) stable: String,
}

/// How a rollout stands for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Standing {
    /// It goes on by itself.
    Runs,
    /// It waits for a person.
    Waits,
    /// The candidate is stable.
    Succeeded,
    /// It was taken back, or another one took its place.
    Ended,
}

// === impl Rollout ===

impl Rollout {
    /// How it stands.
    pub(in crate::cli) fn standing(&self) -> Standing {
        match self.phase.as_str() {
            "succeeded" => Standing::Succeeded,
            "aborted" | "rolled_back" | "superseded" => Standing::Ended,
            // These end by themselves once their cause is gone for one hold.
            "paused" if matches!(self.reason.as_deref(), Some("stable_degraded" | "gate_error")) => Standing::Runs,
            "paused" => Standing::Waits,
            _ => Standing::Runs,
        }
    }

    /// `paused (low traffic)`
    pub(super) fn words(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{}{reason}", self.phase).replace('_', " ")
    }

    /// How it stands, as a colour.
    pub(super) fn tone(&self) -> Tone {
        match self.standing() {
            Standing::Succeeded => Tone::Good,
            Standing::Ended => Tone::Bad,
            Standing::Waits => Tone::Notable,
            Standing::Runs if self.phase == "paused" || self.phase == "trial" => Tone::Notable,
            Standing::Runs => Tone::Plain,
        }
    }

    /// `, step 2 of 3`; by hand there is none.
    pub(super) fn place(&self) -> String {
        match self.steps {
            _ if self.by_hand => ", by hand".to_owned(),
            0 => String::new(),
            steps => format!(", step {} of {steps}", (self.step + 1).min(steps)),
        }
    }

    /// Who ended it and why, if that is kept with it.
    pub(super) fn end(&self) -> Option<(String, String)> {
        Some((self.by.clone()?, self.why.clone().unwrap_or_default()))
    }
}

// === impl Rollouts ===

impl Rollouts {
    /// The one with this number.
    pub(super) fn find(self, id: u64) -> Option<Rollout> {
        let mut over = self.history.into_iter().filter(|rollout| rollout.id == id);
        match self.current.filter(|current| current.id == id) {
            // Only what is over says who ended it.
            Some(current) => {
                let (by, why) = over.next().map(|ended| (ended.by, ended.why)).unwrap_or_default();
                Some(Rollout { by, why, ..current })
            }
            None => over.next(),
        }
    }
}

// === impl Event ===

impl Event {
    /// Whether it is about where a rollout of `service` stands.
    pub(super) fn concerns(&self, service: &str) -> bool {
        const WHAT: [&str; 14] = [
            "weight",
            "abort",
            "rollout_start",
            "promote",
            "rollback",
            "pause",
            "resume",
            "approve",
            "retry",
            "step",
            "trial",
            "rollout_restart",
            "evidence_lost",
            "store_failed",
        ];
        self.service.as_deref() == Some(service) && WHAT.contains(&self.what.as_str())
    }

    /// Whether it took the candidate's traffic back for good.
    pub(in crate::cli) fn takes_back(&self) -> bool {
        matches!(self.what.as_str(), "abort" | "rollback")
    }
}

// === impl Evidence ===

impl Evidence {
    /// `evidence of harm 0.4 of 6.9 nats`
    pub(in crate::cli) fn sum(&self) -> Option<String> {
        let report = &self.report;
        let bound = report.bound?;
        let harm = report.log_e.unwrap_or_default().max(0.0);
        let cold = if report.warming_up { ", warming up: latency x10" } else { "" };
        Some(format!("evidence of harm {harm:.1} of {bound:.1} nats{cold}"))
    }

    /// How far it is from condemning, `0.0..=1.0`.
    pub(super) fn share(&self) -> f64 {
        let harm = self.report.log_e.unwrap_or_default().max(0.0);
        self.report.bound.filter(|bound| *bound > 0.0).map_or(0.0, |bound| (harm / bound).min(1.0))
    }

    /// Every test, but of the latencies only the one with the most evidence.
    pub(super) fn measured(&self) -> Vec<Measured> {
        let mut shown: Vec<&Test> = Vec::new();
        for test in &self.report.tests {
            match shown.iter_mut().find(|other| other.metric == test.metric) {
                Some(other) if evidence(test) > evidence(other) => *other = test,
                Some(_) => {}
                None => shown.push(test),
            }
        }
        shown.into_iter().map(Test::measured).collect()
    }
}

fn evidence(test: &Test) -> f64 {
    test.log_e.unwrap_or(f64::NEG_INFINITY)
}

// === impl Test ===

impl Test {
    fn measured(&self) -> Measured {
        let above = self
            .threshold_us
            .map(|us| format!(" over {:.1} ms", std::time::Duration::from_micros(us).as_secs_f64() * 1e3));
        let quantile = self.quantile.map(|quantile| format!(" p{}", (quantile * 1e4).round() / 1e2));
        Measured {
            name: format!("{}{}{}", self.metric, quantile.unwrap_or_default(), above.unwrap_or_default()),
            candidate: self.candidate.words(),
            stable: self.stable.words(),
        }
    }
}

// === impl Side ===

impl Side {
    fn words(&self) -> String {
        if self.exposed == 0 {
            return "no requests yet".to_owned();
        }
        let percent = (self.rate * 1e4).round() / 1e2;
        format!("{} of {} ({percent}%)", self.events, self.exposed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rollout(phase: &str, reason: Option<&str>) -> Rollout {
        Rollout { phase: phase.to_owned(), reason: reason.map(str::to_owned), ..Rollout::default() }
    }

    #[test]
    fn only_what_needs_a_person_is_waited_for_in_vain() {
        for phase in ["verifying", "progressing", "baking", "trial", "a word of tomorrow"] {
            assert_eq!(rollout(phase, None).standing(), Standing::Runs, "{phase}");
        }
        for (reason, standing) in [
            ("approval", Standing::Waits),
            ("manual", Standing::Waits),
            ("low_traffic", Standing::Waits),
            ("stable_degraded", Standing::Runs),
            ("gate_error", Standing::Runs),
        ] {
            assert_eq!(rollout("paused", Some(reason)).standing(), standing, "{reason}");
        }
        assert_eq!(rollout("succeeded", None).standing(), Standing::Succeeded);
        for phase in ["aborted", "rolled_back", "superseded"] {
            assert_eq!(rollout(phase, None).standing(), Standing::Ended, "{phase}");
        }
    }

    #[test]
    fn a_rollout_is_found_when_another_one_took_its_place_and_knows_who_ended_it() {
        let rollouts = |current| -> Rollouts {
            let ended = json!([{"id": 3, "phase": "aborted", "by": "gate/latency", "why": "slow"}, {"id": 2, "phase": "superseded"}]);
            serde_json::from_value(json!({"current": current, "history": ended})).expect("rollouts")
        };
        let found = rollouts(json!({"id": 3, "phase": "aborted", "weight": "0%"})).find(3).expect("there");
        assert_eq!((found.weight.as_str(), found.end()), ("0%", Some(("gate/latency".to_owned(), "slow".to_owned()))));
        assert_eq!(rollouts(json!({"id": 4})).find(2).map(|rollout| rollout.phase), Some("superseded".to_owned()));
        assert_eq!(rollouts(json!(null)).find(7), None);
    }

    #[test]
    fn evidence_is_read_from_the_report_and_of_the_latencies_the_worst_is_shown() {
        let side =
            |events, exposed, rate| json!({"events": events, "exposed": exposed, "rate": rate, "ci95": [0.0, 1.0]});
        let latency = |quantile, us, log_e| {
            json!({"metric": "latency", "quantile": quantile, "threshold_us": us, "log_e": log_e,
                "candidate": side(7, 100, 0.07), "stable": side(1, 900, 0.001_111)})
        };
        let evidence: Evidence = serde_json::from_value(json!({"rollout": 1, "step": 0, "running": true, "report": {
            "ticks": 7, "log_e": 3.45, "bound": 6.9, "warming_up": true, "tests": [
                {"metric": "error-rate", "candidate": side(0, 0, 0.0), "stable": side(2, 900, 0.002_222), "log_e": null},
                latency(0.5, 1_000, 0.1), latency(0.99, 12_345, 3.0), latency(0.95, 5_000, 2.0)]}}))
        .expect("evidence");
        let sum = evidence.sum().expect("a sum");
        assert!(
            sum.starts_with("evidence of harm 3.5 of 6.9 nats, warming up") && (evidence.share() - 0.5).abs() < 1e-9,
            "{sum}"
        );
        let rows: Vec<_> = evidence.measured().into_iter().map(|row| (row.name, row.candidate, row.stable)).collect();
        let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            rows,
            [
                row("error-rate", "no requests yet", "2 of 900 (0.22%)"),
                row("latency p99 over 12.3 ms", "7 of 100 (7%)", "1 of 900 (0.11%)"),
            ]
        );
        assert_eq!(Evidence::default().sum(), None);
    }
}
