//! What the demo shows. Pure.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{CONNECTIONS, RATE, USERS};
use super::stats::{Stats, StepStats};
use super::upstream::VERSIONS;
use crate::cli::text::{Paint, Tone, clean, count};

/// Characters of the bar.
const BAR_CHARS: u16 = 20;
/// Back to the start of the line, and the line erased (ECMA-48 EL).
pub(super) const REDRAW_LINE: &str = "\r\x1b[K";

/// A step as it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// `5%`, or `abort`.
    pub(super) name: &'a str,
    /// The weight in force, as the admin API said.
    pub(super) weight: &'a str,
    /// The generation in force, as the admin API said.
    pub(super) generation: u64,
    /// What was seen.
    pub(super) seen: &'a StepStats,
}

/// How the demo ended.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// Everything seen.
    pub(super) stats: Stats,
    /// Whether Ctrl-C ended it before its time.
    pub(super) interrupted: bool,
    /// What was not as it has to be, a sentence each.
    pub(super) problems: Vec<String>,
}

// === Before ===

/// What is about to be shown, and where to take part in it.
pub(super) fn intro(proxy: &str, admin: &str, length: Duration, paint: Paint) -> String {
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
    format!(
        "{title}: {} s, {RATE} requests/s by {USERS} users on {CONNECTIONS} connections, shifted from {stable} to {candidate}\n\
         proxy      {proxy}   (curl -i {proxy}/)\n\
         admin API  {admin}   (tidegate status --watch --admin {admin})\n\
         Each user stays on one version, so shares move a user at a time ({} each).\n\n{}\n",
        length.as_secs(),
        percent(1.0 / 200.0),
        paint.paint(Tone::Strong, heading.trim_end())
    )
}

/// The same for a program.
pub(super) fn intro_json(proxy: &str, admin: &str, length: Duration) -> Value {
    json!({
        "event": "started", "proxy": proxy, "admin": admin, "seconds": length.as_secs(),
        "rate": RATE, "connections": CONNECTIONS, "users": USERS,
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
        "event": "step", "step": shown.name, "weight": shown.weight, "generation": shown.generation,
        "observed": seen.share(), "users": users, "users_on_candidate": on_candidate,
        "requests": seen.requests, "errors": seen.errors,
        "p50_ms": number(seen.latency.quantile(500)), "p99_ms": number(seen.latency.quantile(990)),
    })
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
    /// Whether everything was as it has to be.
    pub(super) fn is_proven(&self) -> bool {
        self.problems.is_empty()
    }

    /// For a person.
    pub(super) fn render(&self, paint: Paint) -> String {
        let [stable, candidate] = VERSIONS;
        let stats = &self.stats;
        let mut text = String::from("\n");
        if self.interrupted {
            text.push_str("Ended early by Ctrl-C.\n");
        }
        let verdict = if self.is_proven() { paint.paint(Tone::Good, "OK") } else { paint.paint(Tone::Bad, "FAILED") };
        let requests = count(stats.requests(), "request");
        // Writing into a String does not fail.
        let _ = writeln!(text, "{verdict}: {requests}, {} failed.", stats.errors());
        let _ = writeln!(
            text,
            "Stickiness: {} moved from {stable} to {candidate}, {} moved back before the abort.",
            count(stats.moved(), "user"),
            stats.moved_back()
        );
        if stats.skipped > 0 {
            let skipped = count(stats.skipped, "request");
            let _ = writeln!(text, "{skipped} left out: answers came too late for the rate.");
        }
        for problem in &self.problems {
            let _ = writeln!(text, "{} {}", paint.paint(Tone::Bad, "-"), clean(problem));
        }
        text
    }

    /// For a program.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "event": "summary", "ok": self.is_proven(), "interrupted": self.interrupted,
            "requests": self.stats.requests(), "errors": self.stats.errors(), "failures": self.stats.failures,
            "skipped": self.stats.skipped, "users_moved": self.stats.moved(), "users_moved_back": self.stats.moved_back(),
            "problems": self.problems,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::stats::{Moment, Sample};
    use crate::core::id::Variant;

    fn seen() -> Stats {
        let mut stats = Stats::new(2, USERS);
        for user in 0..200 {
            let variant = if user < 9 { Variant::Candidate } else { Variant::Stable };
            let outcome = if user == 199 { Err("status 502".to_owned()) } else { Ok(variant) };
            let latency = Duration::from_micros(400);
            stats.record(&Sample { user, began: Moment::Step(0), outcome, latency });
        }
        stats
    }

    #[test]
    fn a_row_stays_below_its_heading_and_within_a_terminal() {
        let stats = seen();
        let shown = Shown { name: "5%", weight: "5%", generation: 3, seen: stats.step(0) };
        let intro = intro("http://127.0.0.1:1", "http://127.0.0.1:2", Duration::from_secs(20), Paint(false));
        let text = format!("{intro}{}\n", row(shown, Paint(false)));
        insta::assert_snapshot!(text, @r"
        tidegate demo: 20 s, 320 requests/s by 200 users on 16 connections, shifted from v1 to v2
        proxy      http://127.0.0.1:1   (curl -i http://127.0.0.1:1/)
        admin API  http://127.0.0.1:2   (tidegate status --watch --admin http://127.0.0.1:2)
        Each user stays on one version, so shares move a user at a time (0.5% each).

        WEIGHT   ON v2                        USERS  REQUESTS  ERRORS      P50      P99
            5%    4.5%  #...................      9       200       1   0.4 ms   0.4 ms
        ");
        assert!(row(shown, Paint(false)).len() <= 80);
        let json = row_json(shown);
        assert_eq!(
            (&json["requests"], &json["users_on_candidate"], &json["p50_ms"]),
            (&json!(200), &json!(9), &json!(0.403))
        );
    }

    #[test]
    fn a_step_without_answers_has_no_numbers() {
        let stats = Stats::new(1, 1);
        let shown = Shown { name: "0%", weight: "0%", generation: 1, seen: stats.step(0) };
        assert_eq!(
            row(shown, Paint(false)).split_whitespace().collect::<Vec<_>>(),
            ["0%", "-", "....................", "0", "0", "0", "-", "-"]
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
        let mut summary = Summary { stats: seen(), interrupted: false, problems: Vec::new() };
        summary.stats.skipped = 2;
        let good = summary.render(Paint(false));
        assert_eq!(
            good,
            "\nOK: 200 requests, 1 failed.\nStickiness: 0 users moved from v1 to v2, 0 moved back before the abort.\n\
             2 requests left out: answers came too late for the rate.\n"
        );
        summary.problems.push("status 502".to_owned());
        summary.interrupted = true;
        let bad = summary.render(Paint(false));
        assert!(bad.starts_with("\nEnded early by Ctrl-C.\nFAILED: ") && bad.ends_with("\n- status 502\n"), "{bad}");
        assert_eq!(
            (&summary.to_json()["ok"], &summary.to_json()["failures"]["status 502"]),
            (&json!(false), &json!(1))
        );
    }
}
