//! The demo's course: step by step through the admin API, while the load goes on.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::display::{REDRAW_LINE, Shown, Summary, intro, intro_json, row, row_json};
use super::load::{Load, USERS};
use super::place::SERVICE;
use super::stats::{Moment, Stats};
use super::upstream::VERSIONS;
use crate::cli::client::{self, ANSWER_WITHIN, Admin};
use crate::cli::failure::Failure;
use crate::cli::terminal::{Terminal, say};

/// The weights, one after the other; `None` is the abort at the end.
const STEPS: [Option<&str>; 6] = [Some("0%"), Some("5%"), Some("25%"), Some("50%"), Some("100%"), None];
/// The step at which everyone is on the candidate.
const FULL: usize = STEPS.len() - 2;
/// The step after the abort.
const ABORTED: usize = STEPS.len() - 1;
/// Time between two updates of the line of a step.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// What the demo plays on.
#[derive(Debug)]
pub(super) struct Stage {
    /// The admin API.
    pub(super) admin: Admin,
    /// The proxy.
    pub(super) proxy: SocketAddr,
}

/// Where the demo is shown.
struct Screen<'a> {
    terminal: Terminal,
    out: &'a mut dyn FnMut(&str) -> Result<(), Failure>,
}

/// What the admin API says is true after a command.
#[derive(Debug, Deserialize)]
struct InForce {
    generation: u64,
    weight: String,
}

/// Plays all steps, shows them, and ends with a summary. Ctrl-C ends it early.
pub(super) async fn play(stage: &Stage, length: Duration, terminal: Terminal) -> Result<Summary, Failure> {
    perform(stage, length, Screen { terminal, out: &mut say }).await
}

async fn perform(stage: &Stage, length: Duration, mut screen: Screen<'_>) -> Result<Summary, Failure> {
    screen.intro(stage, length)?;
    let waits = ANSWER_WITHIN * u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    let load = Load::start(stage.proxy, Stats::new(STEPS.len(), USERS), length + waits);
    let played = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(false),
        played = steps(stage, &load, length, &mut screen) => played.map(|()| true),
    };
    let stats = load.stop().await;
    let finished = played?;
    let summary = Summary { problems: problems(&stats, finished), stats, interrupted: !finished };
    screen.summary(&summary)?;
    Ok(summary)
}

async fn steps(stage: &Stage, load: &Load, length: Duration, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let hold = length / u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    for (at, weight) in STEPS.into_iter().enumerate() {
        load.stats().enter(Moment::Changing(at));
        let in_force = stage.command(weight).await?;
        load.stats().enter(Moment::Step(at));
        let name = weight.unwrap_or("abort");
        let end = tokio::time::sleep(hold);
        tokio::pin!(end);
        let mut redraw = tokio::time::interval(REDRAW_EVERY);
        loop {
            tokio::select! {
                biased;
                () = &mut end => break,
                _ = redraw.tick(), if screen.terminal.redraws() => screen.step(&in_force, name, &load.stats(), at, false)?,
            }
        }
        screen.step(&in_force, name, &load.stats(), at, true)?;
    }
    Ok(())
}

/// What was not as it has to be. Of a demo that was ended early only what was seen is judged.
fn problems(stats: &Stats, finished: bool) -> Vec<String> {
    let [stable, candidate] = VERSIONS;
    let mut problems = Vec::new();
    if stats.errors() > 0 {
        let kinds = stats.failures.iter().map(|(kind, times)| format!("{kind} ({times})")).collect::<Vec<_>>();
        problems.push(format!("{} of {} requests failed: {}", stats.errors(), stats.requests(), kinds.join(", ")));
    }
    if stats.moved_back() > 0 {
        problems.push(format!(
            "users moved back from {candidate} to {stable} {} times before the abort",
            stats.moved_back()
        ));
    }
    for (step, when) in [(0, "at weight 0%"), (ABORTED, "after the abort had answered")] {
        let reached = stats.step(step).candidate;
        if reached > 0 {
            problems.push(format!("{reached} requests reached {candidate} {when}"));
        }
    }
    let short = stats.step(FULL).share().filter(|share| *share < 1.0);
    if let Some(share) = short {
        problems.push(format!("at weight 100% only {:.2}% of the requests reached {candidate}", share * 100.0));
    }
    if finished && (0..STEPS.len()).any(|step| stats.step(step).share().is_none()) {
        problems.push("a step ended without a single answer".to_owned());
    }
    problems
}

// === impl Stage ===

impl Stage {
    /// Sets a weight, or aborts.
    async fn command(&self, weight: Option<&str>) -> Result<InForce, Failure> {
        let (verb, body) = match weight {
            Some(weight) => ("weight", json!({"weight": weight, "reason": "demo"})),
            None => ("abort", json!({"reason": "demo"})),
        };
        client::read(&self.admin.post(&format!("/v1/services/{SERVICE}/{verb}"), &body).await?)
    }
}

// === impl Screen ===

impl Screen<'_> {
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        (self.out)(text)
    }

    fn intro(&mut self, stage: &Stage, length: Duration) -> Result<(), Failure> {
        let proxy = format!("http://{}", stage.proxy);
        let admin = stage.admin.address();
        let text = if self.terminal.json {
            format!("{}\n", intro_json(&proxy, admin, length))
        } else {
            intro(&proxy, admin, length, self.terminal.paint)
        };
        self.say(&text)
    }

    /// The line of a step: drawn over again on a terminal while it lasts, and once when it is over.
    fn step(&mut self, now: &InForce, name: &str, stats: &Stats, at: usize, over: bool) -> Result<(), Failure> {
        let shown = Shown { name, weight: &now.weight, generation: now.generation, seen: stats.step(at) };
        let line = if self.terminal.json { row_json(shown).to_string() } else { row(shown, self.terminal.paint) };
        let begin = if self.terminal.redraws() { REDRAW_LINE } else { "" };
        let end = if over { "\n" } else { "" };
        self.say(&format!("{begin}{line}{end}"))
    }

    fn summary(&mut self, summary: &Summary) -> Result<(), Failure> {
        if summary.interrupted && self.terminal.redraws() {
            // Leaves the line that was being drawn over.
            self.say("\n")?;
        }
        let text =
            if self.terminal.json { format!("{}\n", summary.to_json()) } else { summary.render(self.terminal.paint) };
        self.say(&text)
    }
}

#[cfg(test)]
mod tests;
