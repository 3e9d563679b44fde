//! What the demo shows. Pure.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::fault::Fault;
use super::load::{RATE, USERS};
use super::place::{WARMUP, WEIGHTS};
use super::play::{Course, Script};
use super::stats::{SLOW_FROM, Stats, StepStats};
use super::upstream::VERSIONS;
use crate::cli::text::{Paint, Tone, clean, count};

/// Characters of the bar.
const BAR_CHARS: u16 = 20;
/// Characters of a line.
const LINE_CHARS: usize = 80;
/// Where notes are set in.
const INDENT: &str = "         ";
/// Back to the start of the line, and the line erased (ECMA-48 EL).
pub(super) const REDRAW_LINE: &str = "\r\x1b[K";

/// A step as it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// `before`, `5%`, `after`
    pub(super) name: &'a str,
    /// What was seen.
    pub(super) seen: &'a StepStats,
}

/// How the demo ended.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// What went wrong with the candidate.
    pub(super) fault: Fault,
    /// Everything seen.
    pub(super) stats: Stats,
    /// How the rollout went.
    pub(super) course: Course,
    /// Whether Ctrl-C ended it before its time.
    pub(super) interrupted: bool,
    /// What was not as it has to be, a sentence each.
    pub(super) problems: Vec<String>,
}

// === Before ===

/// What is about to be shown, and where to take part in it.
pub(super) fn intro(proxy: &str, admin: &str, script: &Script, paint: Paint) -> String {
    let [stable, candidate] = VERSIONS;
    let title = paint.paint(Tone::Strong, "tidegate demo").into_owned();
    let heading = format!(
        "{:>6} {:>7}  {:<20}{:>7}{:>10}{:>8}{:>9}{:>9}",
        "WEIGHT",
        format!("ON {candidate}"),
        "",
        "USERS",
        "REQUESTS",
        "ERRORS",
        "P50",
        "P99"
    );
    let expected = match script.fault {
        Fault::None => format!("{candidate} stays healthy and is promoted."),
        fault => format!("In the middle of it {candidate} fails (--fault {}).", fault.as_str()),
    };
    let steps = WEIGHTS.join(", ");
    format!(
        "{title}: a rollout from {stable} to {candidate}: {steps}.\n\
         {USERS} users send {RATE} requests/s. {expected}\n\
         Made short for a demo: steps of {} s (default: 30 s to 5 min), warmup {} s (30 s).\n\
         take part  curl -i {proxy}/\n\
         look on    tidegate status --watch --admin {admin}\n\n{}\n",
        script.hold.as_secs_f64(),
        WARMUP.as_secs_f64(),
        paint.paint(Tone::Strong, heading.trim_end())
    )
}

/// The same for a program.
pub(super) fn intro_json(proxy: &str, admin: &str, script: &Script) -> Value {
    json!({
        "event": "started", "proxy": proxy, "admin": admin, "fault": script.fault.as_str(), "rate": RATE, "users": USERS,
        "steps": WEIGHTS, "hold_seconds": script.hold.as_secs_f64(), "warmup_seconds": WARMUP.as_secs_f64(),
    })
}

// === Meanwhile ===

/// One step on one line of at most 80 characters, without its end.
pub(super) fn row(shown: Shown<'_>, paint: Paint) -> String {
    let seen = shown.seen;
    let share = seen.share();
    let errors = format!("{:>8}", seen.errors);
    let tone = if seen.errors > 0 { Tone::Bad } else { Tone::Plain };
    format!(
        "{:>6} {:>7}  {}{:>7}{:>10}{}{:>9}{:>9}",
        clean(shown.name),
        share.map_or_else(|| "-".to_owned(), percent),
        paint.paint(Tone::Notable, &bar(share.unwrap_or(0.0))),
        seen.users().1,
        seen.requests,
        paint.paint(tone, &errors),
        millis(seen.latency.quantile(500)),
        millis(seen.latency.quantile(990)),
    )
}

/// The same for a program.
pub(super) fn row_json(shown: Shown<'_>) -> Value {
    let seen = shown.seen;
    let (users, on_candidate) = seen.users();
    json!({
        "event": "step", "step": shown.name, "observed": seen.share(), "users": users, "users_on_candidate": on_candidate,
        "requests": seen.requests, "errors": seen.errors, "slow": seen.slow,
        "p50_ms": number(seen.latency.quantile(500)), "p99_ms": number(seen.latency.quantile(990)),
    })
}

/// Something that happened this long after the demo began, on lines of at most 80 characters.
pub(super) fn note(at: Duration, text: &str, evidence: Option<&str>, paint: Paint) -> String {
    let at = format!("{:>6.1} s", at.as_secs_f64());
    let mut lines = format!("{} {}\n", paint.paint(Tone::Faint, &at), paint.paint(Tone::Bad, &clean(text)));
    for line in evidence.map(|evidence| wrapped(evidence, INDENT)).unwrap_or_default() {
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

/// The same for a program.
pub(super) fn note_json(at: Duration, what: &str, text: &str, evidence: Option<&str>) -> Value {
    json!({"event": what, "after_seconds": at.as_secs_f64(), "text": text, "evidence": evidence})
}

/// `text` in lines of at most 80 characters, all set in, broken between words; a number stays with its percent sign.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let text = clean(text).replace(" %", "\u{a0}%");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word = word.replace('\u{a0}', " ");
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE_CHARS => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(format!("{indent}{word}")),
        }
    }
    lines
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// `share` of the bar filled. Anything above nothing shows, and only everything fills it.
fn bar(share: f64) -> String {
    let inner = (1..BAR_CHARS).rev().find(|part| f64::from(*part) <= share * f64::from(BAR_CHARS)).unwrap_or(1);
    let filled = match share {
        all if all >= 1.0 => BAR_CHARS,
        some if some > 0.0 => inner,
        _ => 0,
    };
    format!("{}{}", "#".repeat(filled.into()), ".".repeat((BAR_CHARS - filled).into()))
}

/// In milliseconds.
fn number(latency: Option<Duration>) -> Option<f64> {
    latency.map(|latency| f64::from(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)) / 1_000.0)
}

fn millis(latency: Option<Duration>) -> String {
    number(latency).map_or_else(|| "-".to_owned(), |millis| format!("{millis:.1} ms"))
}

// === Afterwards ===

impl Summary {
    /// Whether everything was seen, and as it has to be.
    pub(super) fn is_proven(&self) -> bool {
        self.problems.is_empty() && !self.interrupted
    }

    /// For a person.
    pub(super) fn render(&self, paint: Paint) -> String {
        let mut text = String::from("\n");
        let requests = count(self.stats.requests(), "request");
        let (verdict, tone) = match (self.interrupted, self.problems.is_empty()) {
            (true, _) => ("ENDED EARLY by Ctrl-C", Tone::Notable),
            (false, true) => ("OK", Tone::Good),
            (false, false) => ("FAILED", Tone::Bad),
        };
        for (at, line) in wrapped(&format!("{verdict}: {}", self.outcome()), "").into_iter().enumerate() {
            let line = match line.strip_prefix(verdict) {
                Some(rest) if at == 0 => format!("{}{rest}", paint.paint(tone, verdict)),
                _ => line,
            };
            text.push_str(&line);
            text.push('\n');
        }
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "{}",
            wrapped(&format!("{} of {requests} failed{}.", self.stats.errors(), self.when()), "").join("\n")
        );
        let _ = writeln!(text, "{}", self.stickiness());
        if self.stats.skipped > 0 {
            let skipped = count(self.stats.skipped, "request");
            let _ = writeln!(text, "{skipped} left out: answers came too late for the rate.");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "{} {}", paint.paint(Tone::Bad, "-"), clean(problem));
        }
        text
    }

    /// What became of the rollout.
    fn outcome(&self) -> String {
        let [stable, candidate] = VERSIONS;
        let rollout = &self.course.rollout;
        match (&self.course.taken_back, self.course.spoiled, self.course.caught_after()) {
            (Some(event), Some(spoiled), Some(caught)) => format!(
                "{candidate} began to fail {:.1} s in, at {}; {} took it back {:.2} s later. {stable} serves everyone.",
                spoiled.after.as_secs_f64(),
                event.from.as_deref().unwrap_or("its share"),
                event.actor,
                caught.as_secs_f64(),
            ),
            _ if rollout.phase == "succeeded" => {
                let seen = self.course.evidence.as_ref().map(|sum| format!(" The gate's last word: {sum}."));
                format!("{candidate} was promoted step by step and serves everyone.{}", seen.unwrap_or_default())
            }
            _ => format!("the rollout of {candidate} is {}.", rollout.phase),
        }
    }

    /// When requests failed, as the end of a sentence.
    fn when(&self) -> String {
        if self.fault == Fault::None || self.course.spoiled.is_none() {
            return String::new();
        }
        let (before, after) = (self.stats.errors_before(), self.stats.step(super::play::AFTER).errors);
        let slow = match self.stats.slow() {
            0 => String::new(),
            slow => format!("; {slow} took longer than {} s", SLOW_FROM.as_secs_f64()),
        };
        format!(" ({before} before the fault, {after} of those begun after it was taken back){slow}")
    }

    fn stickiness(&self) -> String {
        let [stable, candidate] = VERSIONS;
        let back = self.stats.moved_back();
        let moved = count(self.stats.moved(), "user");
        format!("{moved} went from {stable} to {candidate}, {back} back while nothing was wrong.")
    }

    /// For a program.
    pub(super) fn to_json(&self) -> Value {
        let taken_back = self.course.taken_back.as_ref();
        json!({
            "event": "summary", "ok": self.is_proven(), "interrupted": self.interrupted, "fault": self.fault.as_str(),
            "outcome": self.course.rollout.phase, "by": taken_back.map(|event| &event.actor),
            "evidence": taken_back.and_then(|event| event.detail.as_ref()),
            "failed_from_seconds": self.course.spoiled.map(|spoiled| spoiled.after.as_secs_f64()),
            "caught_after_seconds": self.course.caught_after().map(|caught| caught.as_secs_f64()),
            "requests": self.stats.requests(), "errors": self.stats.errors(), "errors_before": self.stats.errors_before(),
            "slow": self.stats.slow(), "failures": self.stats.failures, "skipped": self.stats.skipped,
            "users_moved": self.stats.moved(), "users_moved_back": self.stats.moved_back(), "problems": self.problems,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::play::Spoiled;
    use crate::cli::demo::stats::Sample;
    use crate::cli::follow::Event;
    use crate::core::id::Variant;

    const SENTENCE: &str = "error-rate: candidate 7 of 31 (23 %, at least 11 %), stable 0 of 640 (0 %, at most 0.6 %); evidence 9.7 of 6.9 nats";

    fn seen() -> Stats {
        let mut stats = Stats::new(2, USERS);
        for user in 0..200 {
            let variant = if user < 9 { Variant::Candidate } else { Variant::Stable };
            if user == 199 {
                stats.spoil();
            }
            let outcome = if user == 199 { Err("status 502".to_owned()) } else { Ok(variant) };
            let latency = Duration::from_micros(400);
            stats.record(&Sample { user, began: 0, outcome, latency });
        }
        stats
    }

    fn script(fault: Fault) -> Script {
        Script::new(fault, Duration::from_secs(20))
    }

    #[test]
    fn a_row_stays_below_its_heading_and_everything_within_a_terminal() {
        let stats = seen();
        let shown = Shown { name: "5%", seen: stats.step(0) };
        let intro = intro("http://127.0.0.1:1", "http://127.0.0.1:2", &script(Fault::Hang), Paint(false));
        let said =
            note(Duration::from_millis(7_249), "gate/error-rate takes all traffic back", Some(SENTENCE), Paint(false));
        let text = format!("{intro}{said}{}\n", row(shown, Paint(false)));
        insta::assert_snapshot!(text, @r"
        tidegate demo: a rollout from v1 to v2: 5%, 25%, 50%, 100%.
        200 users send 320 requests/s. In the middle of it v2 fails (--fault hang).
        Made short for a demo: steps of 4 s (default: 30 s to 5 min), warmup 1 s (30 s).
        take part  curl -i http://127.0.0.1:1/
        look on    tidegate status --watch --admin http://127.0.0.1:2

        WEIGHT   ON v2                        USERS  REQUESTS  ERRORS      P50      P99
           7.2 s gate/error-rate takes all traffic back
                 error-rate: candidate 7 of 31 (23 %, at least 11 %), stable 0 of 640
                 (0 %, at most 0.6 %); evidence 9.7 of 6.9 nats
            5%    4.5%  #...................      9       200       1   0.4 ms   0.4 ms
        ");
        assert!(text.lines().all(|line| line.chars().count() <= LINE_CHARS), "{text}");
        let json = row_json(shown);
        assert_eq!(
            (&json["requests"], &json["users_on_candidate"], &json["p50_ms"]),
            (&json!(200), &json!(9), &json!(0.403))
        );
    }

    #[test]
    fn a_step_without_answers_has_no_numbers() {
        let stats = Stats::new(1, 1);
        let shown = Shown { name: "before", seen: stats.step(0) };
        assert_eq!(
            row(shown, Paint(false)).split_whitespace().collect::<Vec<_>>(),
            ["before", "-", "....................", "0", "0", "0", "-", "-"]
        );
        assert_eq!(row_json(shown)["observed"], Value::Null);
    }

    #[test]
    fn the_bar_is_empty_at_nothing_full_at_everything_and_neither_between() {
        let filled = |share| bar(share).matches('#').count();
        let all = [0.0, 0.0001, 0.05, 0.25, 0.5, 0.9999, 1.0].map(filled);
        assert_eq!(all, [0, 1, 1, 5, 10, 19, 20]);
        assert_eq!(bar(0.5).len(), 20);
    }

    #[test]
    fn the_summary_says_what_was_shown_and_what_was_not() {
        let event = Event {
            at_ms: 1_250,
            actor: "gate/error-rate".to_owned(),
            from: Some("25%".to_owned()),
            detail: Some(SENTENCE.to_owned()),
            ..Event::default()
        };
        let spoiled = Spoiled { after: Duration::from_millis(7_040), at_ms: 1_000 };
        let course = Course { spoiled: Some(spoiled), taken_back: Some(event), ..Course::default() };
        let mut summary =
            Summary { fault: Fault::Errors, stats: seen(), course, interrupted: false, problems: Vec::new() };
        summary.stats.skipped = 2;
        insta::assert_snapshot!(summary.render(Paint(false)).trim_start(), @r"
        OK: v2 began to fail 7.0 s in, at 25%; gate/error-rate took it back 0.25 s
        later. v1 serves everyone.
        1 of 200 requests failed (0 before the fault, 0 of those begun after it was
        taken back).
        0 users went from v1 to v2, 0 back while nothing was wrong.
        2 requests left out: answers came too late for the rate.
        ");
        let json = summary.to_json();
        assert_eq!(
            (&json["ok"], &json["caught_after_seconds"], &json["errors_before"]),
            (&json!(true), &json!(0.25), &json!(0))
        );
        assert_eq!((&json["evidence"], &json["failures"]["status 502"]), (&json!(SENTENCE), &json!(1)));
        summary.problems.push("status 502".to_owned());
        assert!(summary.render(Paint(false)).starts_with("\nFAILED: v2 began"));
        assert!(summary.render(Paint(false)).ends_with("\n- status 502\n") && !summary.is_proven());
        summary.problems.clear();
        summary.interrupted = true;
        assert!(summary.render(Paint(false)).starts_with("\nENDED EARLY by Ctrl-C: ") && !summary.is_proven());
    }

    #[test]
    fn a_healthy_candidate_is_said_to_be_promoted() {
        let rollout = crate::cli::follow::Rollout { phase: "succeeded".to_owned(), ..Default::default() };
        let evidence = Some("evidence of harm 0.0 of 6.9 nats".to_owned());
        let course = Course { rollout, evidence, ..Course::default() };
        let summary =
            Summary { fault: Fault::None, stats: Stats::new(1, 1), course, interrupted: false, problems: Vec::new() };
        let text = summary.render(Paint(true));
        assert!(
            text.starts_with("\n\x1b[32mOK\x1b[0m: v2 was promoted step by step")
                && text.contains("\n0 of 0 requests failed.\n"),
            "{text}"
        );
        assert!(text.contains("The gate's last word:\nevidence of harm 0.0 of 6.9 nats."), "{text}");
        assert!(intro("a", "b", &script(Fault::None), Paint(false)).contains("v2 stays healthy and is promoted."));
    }
}
