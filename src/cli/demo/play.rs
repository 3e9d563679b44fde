//! The demo's course: a rollout is begun and goes on by itself, while the load goes on; in the middle of it something goes wrong.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::display::{REDRAW_LINE, Shown, Summary, intro, intro_json, note, note_json, row, row_json};
use super::fault::Fault;
use super::load::{Load, USERS};
use super::place::{SERVICE, WEIGHTS};
use super::stats::Stats;
use super::upstream::VERSIONS;
use crate::cli::client::{self, Admin};
use crate::cli::failure::Failure;
use crate::cli::follow::{Event, Events, Follower, Look, News, Rollout, Standing};
use crate::cli::terminal::{Terminal, say};
use crate::clock;

/// Before the rollout, its steps, after it.
const PHASES: usize = WEIGHTS.len() + 2;
/// Before the rollout.
const BEFORE: usize = 0;
/// After it.
pub(super) const AFTER: usize = PHASES - 1;
/// The step in the middle of which something goes wrong, from zero.
const SPOILED_STEP: u64 = 1;
/// Time between two updates of the line of a step, and two looks at the rollout.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How much longer than planned a rollout may take: probes, and requests a slow machine owes.
const DELAY_MAX: Duration = Duration::from_secs(20);

/// What the demo plays on.
#[derive(Debug)]
pub(super) struct Stage {
    /// The admin API.
    pub(super) admin: Admin,
    /// The proxy.
    pub(super) proxy: SocketAddr,
}

/// What is played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    /// What goes wrong.
    pub(super) fault: Fault,
    /// How long each step is held.
    pub(super) hold: Duration,
    /// How long it is before the rollout, and after it.
    margin: Duration,
}

/// How the rollout went.
#[derive(Clone, Debug, Default)]
pub(super) struct Course {
    /// How it stood last.
    pub(super) rollout: Rollout,
    /// When the candidate began to fail.
    pub(super) spoiled: Option<Spoiled>,
    /// What took it back.
    pub(super) taken_back: Option<Event>,
    /// What the gate had seen last, in words.
    pub(super) evidence: Option<String>,
}

/// When the candidate began to fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spoiled {
    /// Since the demo began.
    pub(super) after: Duration,
    /// In milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// Where the demo is shown.
struct Screen<'a> {
    terminal: Terminal,
    out: &'a mut dyn FnMut(&str) -> Result<(), Failure>,
}

/// A demo that is being played.
struct Player<'a> {
    script: &'a Script,
    /// Lets the candidate fail.
    spoil: &'a dyn Fn(),
    load: &'a Load,
    began: Instant,
    course: Course,
}

/// The answer to the start.
#[derive(Debug, Deserialize)]
struct Started {
    rollout: Rollout,
}

/// Plays the script, shows it, and ends with a summary. `spoil` lets the candidate fail. Ctrl-C ends it early.
pub(super) async fn play(
    stage: &Stage,
    script: &Script,
    spoil: &dyn Fn(),
    terminal: Terminal,
) -> Result<Summary, Failure> {
    perform(stage, script, spoil, Screen { terminal, out: &mut say }).await
}

async fn perform(stage: &Stage, script: &Script, spoil: &dyn Fn(), mut screen: Screen<'_>) -> Result<Summary, Failure> {
    screen.intro(stage, script)?;
    let load = Load::start(stage.proxy, Stats::new(PHASES, USERS), script.length() + DELAY_MAX * 2);
    let mut player = Player { script, spoil, load: &load, began: clock::now(), course: Course::default() };
    let played = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(false),
        played = player.play(stage, &mut screen) => played.map(|()| true),
    };
    let course = player.course;
    let stats = load.stop().await;
    let finished = played?;
    let problems = if finished { problems(script.fault, &course, &stats) } else { Vec::new() };
    let summary = Summary { fault: script.fault, problems, stats, course, interrupted: !finished };
    screen.summary(&summary)?;
    Ok(summary)
}

/// What was not as it has to be.
fn problems(fault: Fault, course: &Course, stats: &Stats) -> Vec<String> {
    let [stable, candidate] = VERSIONS;
    let mut problems = Vec::new();
    let mut unless = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    let phase = course.rollout.phase.as_str();
    let before = stats.errors_before();
    let kinds = stats.failures.iter().map(|(kind, times)| format!("{kind} ({times})")).collect::<Vec<_>>().join(", ");
    unless(before == 0, format!("{before} requests failed while {candidate} was healthy; of all failures: {kinds}"));
    let back = stats.moved_back();
    unless(back == 0, format!("users moved back from {candidate} to {stable} {back} times while nothing was wrong"));
    let early = stats.step(BEFORE).candidate;
    unless(early == 0, format!("{early} requests reached {candidate} before its rollout"));
    let after = stats.step(AFTER);
    unless(after.errors == 0, format!("{} requests failed after the end of the rollout: {kinds}", after.errors));
    unless(after.share().is_some(), "no request was answered after the end of the rollout".to_owned());
    if fault == Fault::None {
        unless(phase == "succeeded", format!("the rollout of a healthy {candidate} is {phase}"));
        let astray = after.requests - after.errors - after.candidate;
        unless(astray == 0, format!("{astray} requests still reached {stable} after {candidate} was promoted"));
        return problems;
    }
    unless(course.spoiled.is_some(), format!("the rollout was over before {candidate} failed"));
    unless(phase == "aborted", format!("the rollout of a {candidate} that fails is {phase}"));
    let by = course.taken_back.as_ref().map(|event| event.actor.as_str()).unwrap_or_default();
    unless(by.starts_with("gate/"), format!("it was not the gate that took {candidate} back, but \"{by}\""));
    let late = after.candidate;
    unless(late == 0, format!("{late} requests reached {candidate} after it was taken back"));
    problems
}

// === impl Script ===

impl Script {
    /// `fault` in a rollout that takes `length` if it is not taken back.
    pub(super) fn new(fault: Fault, length: Duration) -> Self {
        let steps = u32::try_from(WEIGHTS.len()).unwrap_or(u32::MAX);
        Self { fault, hold: length * 4 / 5 / steps, margin: length / 10 }
    }

    /// How long all of it takes.
    pub(super) fn length(&self) -> Duration {
        self.hold * u32::try_from(WEIGHTS.len()).unwrap_or(u32::MAX) + self.margin * 2
    }
}

// === impl Course ===

impl Course {
    /// From when the candidate began to fail until it was taken back.
    pub(super) fn caught_after(&self) -> Option<Duration> {
        let (spoiled, event) = (self.spoiled?, self.taken_back.as_ref()?);
        Some(Duration::from_millis(event.at_ms.saturating_sub(spoiled.at_ms)))
    }
}

// === impl Player ===

impl Player<'_> {
    async fn play(&mut self, stage: &Stage, screen: &mut Screen<'_>) -> Result<(), Failure> {
        // Before the rollout begins, so that nothing of it is missed.
        let events = Events::open(&stage.admin).await;
        self.stay(self.script.margin, screen).await?;
        self.turn(BEFORE + 1, screen)?;
        let path = format!("/v1/services/{SERVICE}/rollouts");
        let started: Started = client::read(&stage.admin.post(&path, &json!({"reason": "demo"})).await?)?;
        let mut follower = Follower::new(&stage.admin, SERVICE, started.rollout.id, events, LOOK_EVERY);
        self.course.rollout = started.rollout;
        let longest = self.script.length() + DELAY_MAX;
        let followed = self.follow(&mut follower, screen);
        tokio::time::timeout(longest, followed).await.unwrap_or(Ok(()))?;
        // That it is over may be known before the event has come.
        if self.course.taken_back.is_none()
            && let Some(event) = follower.taken_back().await
        {
            self.happened(event, screen)?;
        }
        self.turn(AFTER, screen)?;
        self.stay(self.script.margin, screen).await?;
        screen.row(self.load, AFTER, true)
    }

    /// Follows the rollout to its end.
    async fn follow(&mut self, follower: &mut Follower, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let mut due: Option<Instant> = None;
        loop {
            let spoils = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let news = tokio::select! {
                biased;
                () = spoils => {
                    due = None;
                    self.spoil(screen)?;
                    continue;
                },
                news = follower.next() => news?,
            };
            match news {
                News::Event(event) => self.happened(event, screen)?,
                News::Look(look) => {
                    if self.look(*look, screen)? {
                        return Ok(());
                    }
                    let in_step = self.course.rollout.step == SPOILED_STEP && self.script.fault != Fault::None;
                    if in_step && due.is_none() && self.course.spoiled.is_none() {
                        due = Some(clock::now() + self.script.hold / 2);
                    }
                }
                News::Away(failure) => return Err(failure),
            }
        }
    }

    fn spoil(&mut self, screen: &mut Screen<'_>) -> Result<(), Failure> {
        self.load.stats().spoil();
        let at_ms = u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX);
        (self.spoil)();
        let spoiled = Spoiled { after: self.began.elapsed(), at_ms };
        self.course.spoiled = Some(spoiled);
        let text = format!("{} {}", VERSIONS[1], self.script.fault.words());
        screen.note(spoiled.after, "fault", &text, None)
    }

    /// Takes an event down; the end is shown at once, with its evidence.
    fn happened(&mut self, event: Event, screen: &mut Screen<'_>) -> Result<(), Failure> {
        if !event.takes_back() {
            return Ok(());
        }
        let caught = Course { taken_back: Some(event.clone()), ..self.course.clone() }.caught_after();
        let later = caught.map(|caught| format!(" after {:.2} s", caught.as_secs_f64())).unwrap_or_default();
        let text = format!("{} takes all traffic back{later}", event.actor);
        let evidence = event.detail.clone();
        self.course.taken_back = Some(event);
        screen.note(self.began.elapsed(), "taken_back", &text, evidence.as_deref())
    }

    /// Takes in how the rollout stands; whether it is over.
    fn look(&mut self, look: Look, screen: &mut Screen<'_>) -> Result<bool, Failure> {
        let seen = look.evidence.and_then(|evidence| evidence.sum());
        self.course.evidence = seen.or(self.course.evidence.take());
        self.course.rollout = look.rollout;
        let over = matches!(self.course.rollout.standing(), Standing::Succeeded | Standing::Ended);
        if !over {
            let step = usize::try_from(self.course.rollout.step).unwrap_or(AFTER);
            self.turn((BEFORE + 1).saturating_add(step).min(AFTER - 1), screen)?;
            screen.redraw(self.load)?;
        }
        Ok(over)
    }

    /// Goes on to `step`, with the line of the one before ended.
    fn turn(&mut self, step: usize, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let before = self.load.stats().now();
        if before == step {
            return Ok(());
        }
        self.load.stats().enter(step);
        screen.row(self.load, before, true)
    }

    /// Lets the load go on for a while.
    async fn stay(&mut self, time: Duration, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        let mut redraw = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = &mut end => return Ok(()),
                _ = redraw.tick() => screen.redraw(self.load)?,
            }
        }
    }
}

// === impl Screen ===

impl Screen<'_> {
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        (self.out)(text)
    }

    fn intro(&mut self, stage: &Stage, script: &Script) -> Result<(), Failure> {
        let proxy = format!("http://{}", stage.proxy);
        let admin = stage.admin.address();
        let text = if self.terminal.json {
            format!("{}\n", intro_json(&proxy, admin, script))
        } else {
            intro(&proxy, admin, script, self.terminal.paint)
        };
        self.say(&text)
    }

    /// Draws the line of the step in hand over, where lines can be.
    fn redraw(&mut self, load: &Load) -> Result<(), Failure> {
        if !self.terminal.redraws() {
            return Ok(());
        }
        let now = load.stats().now();
        self.row(load, now, false)
    }

    fn row(&mut self, load: &Load, step: usize, over: bool) -> Result<(), Failure> {
        let line = {
            let stats = load.stats();
            let shown = Shown { name: name(step), seen: stats.step(step) };
            if self.terminal.json { row_json(shown).to_string() } else { row(shown, self.terminal.paint) }
        };
        let begin = if self.terminal.redraws() { REDRAW_LINE } else { "" };
        let end = if over { "\n" } else { "" };
        self.say(&format!("{begin}{line}{end}"))
    }

    /// Something happened in the middle of a step.
    fn note(&mut self, at: Duration, what: &str, text: &str, evidence: Option<&str>) -> Result<(), Failure> {
        let begin = if self.terminal.redraws() { REDRAW_LINE } else { "" };
        let text = if self.terminal.json {
            format!("{}\n", note_json(at, what, text, evidence))
        } else {
            note(at, text, evidence, self.terminal.paint)
        };
        self.say(&format!("{begin}{text}"))
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

/// `before`, a weight, `after`
fn name(step: usize) -> &'static str {
    match step {
        BEFORE => "before",
        AFTER => "after",
        step => WEIGHTS[step - 1],
    }
}

#[cfg(test)]
mod tests;
