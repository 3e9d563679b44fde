//! Where a rollout that is followed is shown: lines for what happens and, on a terminal, a picture below them that is drawn anew in place.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::model::Evidence;
use super::story::{Outcome, Story, Told};
use super::{Event, Rollout};
use crate::cli::failure::Failure;
use crate::cli::terminal::{Terminal, complain, say};
use crate::cli::text::{Align, Cell, Paint, Tone, clean, columns, span};

/// Characters of a bar.
const BAR_CHARS: u8 = 24;
/// Everything after the cursor erased (ECMA-48 ED).
const ERASE: &str = "\x1b[J";
/// Longer lines are cut, so that lines of the screen are lines of the text (DECAWM, as xterm has it); and wrapped again.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Where it is shown.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal,
    /// Lines of the picture that is shown.
    drawn: usize,
}

// === impl Screen ===

impl Screen {
    /// Nothing is shown yet.
    pub(super) const fn new(terminal: Terminal) -> Self {
        Self { terminal, drawn: 0 }
    }

    /// Where it begins.
    pub(super) fn begin(&mut self, story: &Story) -> Result<(), Failure> {
        let line = if self.terminal.json {
            format!(
                "{}\n",
                json!({"event": "following", "service": story.service, "rollout": place_json(&story.rollout)})
            )
        } else {
            let paint = self.terminal.paint;
            format!("{}: {}\n", name(story, paint), stands(&story.rollout, paint))
        };
        say(&line)
    }

    /// What is new, and the picture.
    pub(super) fn tell(&mut self, story: &Story, told: &[Told], now: Instant) -> Result<(), Failure> {
        let lines: String = told.iter().map(|told| self.line(story, told, now)).collect();
        if !self.terminal.redraws() {
            return if lines.is_empty() { Ok(()) } else { say(&lines) };
        }
        let picture = picture(story, now, self.terminal.paint);
        let text = format!("{}{lines}{CUT}{picture}{WRAP}", self.erase());
        self.drawn = picture.lines().count();
        say(&text)
    }

    /// Ends the picture, so that something else can be written; what cannot be written cannot be seen.
    pub(super) fn leave(&mut self) {
        let _ = say(&self.erase());
    }

    /// How it ended.
    pub(super) fn end(&mut self, story: &Story, outcome: Outcome, admin: &str, now: Instant) -> Result<(), Failure> {
        if self.terminal.json {
            return say(&format!("{}\n", end_json(story, outcome, now)));
        }
        let paint = self.terminal.paint;
        let evidence = if outcome == Outcome::Detached { String::new() } else { evidence(story, paint) };
        say(&format!("{}{}{evidence}", self.erase(), end(story, outcome, now, paint)))?;
        if outcome == Outcome::Detached {
            complain(&detached(story, admin));
        }
        Ok(())
    }

    /// The cursor back to where the picture began, and the picture gone.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            // Up to the beginning of that line (ECMA-48 CPL).
            lines => format!("\x1b[{lines}F{ERASE}"),
        }
    }

    fn line(&self, story: &Story, told: &Told, now: Instant) -> String {
        if self.terminal.json {
            return format!("{}\n", told_json(story, told));
        }
        let paint = self.terminal.paint;
        let at = format!("{:>7.1}s", story.lasted(now).as_secs_f64());
        let text = match told {
            Told::Event(event) => happened(event, paint),
            Told::Changed(rollout) => stands(rollout, paint),
            Told::Away(failure) => paint.paint(Tone::Notable, &format!("{failure}\n  it is tried again")).into_owned(),
            Told::Back => "the admin API answers again".to_owned(),
        };
        format!("{} {}: {text}\n", paint.paint(Tone::Faint, &at), name(story, paint))
    }
}

// === functions ===

fn name(story: &Story, paint: Paint) -> String {
    paint.paint(Tone::Strong, &clean(&story.service)).into_owned()
}

/// `v2 progressing at 5%, step 1 of 3`
fn stands(rollout: &Rollout, paint: Paint) -> String {
    let words = rollout.words();
    let phase = paint.paint(rollout.tone(), &clean(&words)).into_owned();
    let weight = match clean(&rollout.weight) {
        weight if weight.is_empty() => String::new(),
        weight => format!(" at {weight}"),
    };
    format!("{} {phase}{weight}{}", clean(&rollout.version), rollout.place())
}

/// `step 5% -> 25% by plan`, and why.
fn happened(event: &Event, paint: Paint) -> String {
    let tone = match event.what.as_str() {
        "abort" | "rollback" | "store_failed" => Tone::Bad,
        "pause" | "trial" | "evidence_lost" => Tone::Notable,
        "promote" => Tone::Good,
        _ => Tone::Plain,
    };
    let what = event.what.replace('_', " ");
    let change = match (&event.from, &event.to) {
        (Some(from), Some(to)) => format!(" {} -> {}", clean(from), clean(to)),
        _ => String::new(),
    };
    let detail = event.detail.as_deref().map(|detail| format!("\n          {}", clean(detail))).unwrap_or_default();
    format!("{}{change} by {}{detail}", paint.paint(tone, &clean(&what)), clean(&event.actor))
}

/// What is drawn anew: where it is, how far the hold is, and what the gate has seen.
fn picture(story: &Story, now: Instant, paint: Paint) -> String {
    let rollout = &story.rollout;
    let lasted = span(story.lasted(now).as_secs());
    let away = if story.is_away() { ", no connection" } else { "" };
    let mut text = format!("\n{}: {}  ({lasted}{away})\n", name(story, paint), stands(rollout, paint));
    if let (Some(held), Some(left)) = (story.held(), rollout.hold_left_ms) {
        let left = match left {
            0 => "held for long enough, waits for requests".to_owned(),
            ms => format!("{} left", span(ms.div_ceil(1_000))),
        };
        // Writing into a String does not fail; so below.
        let _ = writeln!(text, "  hold      {} {left}", bar(held, Tone::Good, paint));
    }
    if let Some(known) = &story.evidence {
        let tone = if known.share() >= 0.5 { Tone::Bad } else { Tone::Notable };
        let sum = known.sum().unwrap_or_default();
        let _ = writeln!(
            text,
            "  evidence  {} {}",
            bar(known.share(), tone, paint),
            clean(sum.trim_start_matches("evidence of harm "))
        );
    }
    text + &evidence_rows(story, paint)
}

/// What the gate had seen, with its sum.
fn evidence(story: &Story, paint: Paint) -> String {
    let sum = story.evidence.as_ref().and_then(Evidence::sum);
    let sum = sum.map(|sum| format!("  {}\n", clean(&sum))).unwrap_or_default();
    sum + &evidence_rows(story, paint)
}

fn evidence_rows(story: &Story, paint: Paint) -> String {
    let Some(known) = &story.evidence else { return String::new() };
    let candidate = story.rollout.version.as_str();
    let rows: Vec<Vec<Cell>> = known
        .measured()
        .iter()
        .map(|row| {
            let (candidate, stable) = (format!("{candidate} {}", row.candidate), format!("stable {}", row.stable));
            vec![Cell::plain(""), Cell::new(Tone::Faint, &row.name), Cell::plain(candidate), Cell::plain(stable)]
        })
        .collect();
    columns(paint, &[Align::Left; 4], &rows)
}

/// `share` of the bar filled.
fn bar(share: f64, tone: Tone, paint: Paint) -> String {
    let filled = (1..=BAR_CHARS).rev().find(|part| f64::from(*part) <= share * f64::from(BAR_CHARS)).unwrap_or(0);
    let (full, empty) = ("#".repeat(filled.into()), ".".repeat((BAR_CHARS - filled).into()));
    format!("[{}{empty}]", paint.paint(tone, &full))
}

fn end(story: &Story, outcome: Outcome, now: Instant, paint: Paint) -> String {
    let (rollout, lasted) = (&story.rollout, span(story.lasted(now).as_secs()));
    let (service, version) = (name(story, paint), clean(&rollout.version));
    let now = stands(rollout, paint);
    match outcome {
        Outcome::Succeeded => {
            let done = paint.paint(Tone::Good, "succeeded");
            format!("{service}: {version} {done} after {lasted}, it is stable now\n")
        }
        Outcome::Ended => {
            let words = rollout.words();
            let (by, why) = story.end().unwrap_or_default();
            let by = if by.is_empty() { by } else { format!(" by {}", clean(&by)) };
            let why = if why.is_empty() { why } else { format!("  {}\n", clean(&why)) };
            format!("{service}: {version} {}{by} after {lasted}\n{why}", paint.paint(Tone::Bad, &clean(&words)))
        }
        Outcome::Paused => format!("{service}: {now}, after {lasted}\n  {}\n", hint(story)),
        Outcome::Timeout => format!("{service}: {now}, and the {lasted} are over; it goes on\n"),
        Outcome::Detached => format!("{service}: {now}, after {lasted}\n"),
    }
}

/// What a person can do about a pause.
fn hint(story: &Story) -> String {
    let (service, reason) = (clean(&story.service), story.rollout.reason.as_deref().unwrap_or_default());
    match reason {
        "approval" => format!("`tidegate approve {service}` lets the next step begin"),
        "low_traffic" => {
            format!("`tidegate promote {service}` lets the step pass, `tidegate resume {service}` tries it again")
        }
        _ => format!("`tidegate resume {service}` lets it go on, `tidegate abort {service}` takes it back"),
    }
}

fn detached(story: &Story, admin: &str) -> String {
    let service = clean(&story.service);
    let admin = clean(admin);
    format!(
        "detached: the rollout goes on. Look again with\n  tidegate status --watch --admin {admin}\ntake it back with\n  tidegate abort {service} --admin {admin}"
    )
}

fn place_json(rollout: &Rollout) -> Value {
    json!({"id": rollout.id, "version": rollout.version, "phase": rollout.phase, "reason": rollout.reason,
        "step": rollout.step, "steps": rollout.steps, "weight": rollout.weight})
}

fn told_json(story: &Story, told: &Told) -> Value {
    let service = &story.service;
    match told {
        Told::Event(event) => {
            json!({"event": "transition", "service": service, "what": event.what, "actor": event.actor, "from": event.from,
                "to": event.to, "detail": event.detail, "at_ms": event.at_ms, "generation": event.generation})
        }
        Told::Changed(rollout) => json!({"event": "changed", "service": service, "rollout": place_json(rollout)}),
        Told::Away(failure) => json!({"event": "away", "problem": failure.to_json()}),
        Told::Back => json!({"event": "back"}),
    }
}

fn end_json(story: &Story, outcome: Outcome, now: Instant) -> Value {
    let (by, why) = story.end().unzip();
    let ended = outcome == Outcome::Ended;
    json!({"event": "end", "service": story.service, "outcome": outcome.word(&story.rollout), "exit": outcome.exit(),
        "rollout": place_json(&story.rollout), "seconds": story.lasted(now).as_secs_f64(),
        "by": by.filter(|_| ended), "why": why.filter(|_| ended),
        "analysis": story.evidence.as_ref().map(|evidence| &evidence.whole)})
}

#[cfg(test)]
mod tests;
