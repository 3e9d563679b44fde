//! `tidegate rollout start --wait`: one rollout from its beginning to its end, for people who look at it and for pipelines that wait for it.
//! Ctrl-C ends the looking, never the rollout.

mod events;
mod follower;
mod model;
mod screen;
mod sse;
mod story;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use self::screen::Screen;
use self::story::{Outcome, Story};
use super::client::{self, Admin};
use super::failure::Failure;
use super::terminal::Terminal;
use crate::clock;

pub(super) use self::events::Events;
pub(super) use self::follower::{Follower, Look, News};
pub(super) use self::model::{Event, Rollout, Standing};

/// Time between two looks where the picture is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// The same where only changes are written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much later than what it tells of an event may come.
const LATE_MAX: Duration = Duration::from_millis(500);
/// How long the admin API may be away, a restart included, before that is an error.
pub(super) const AWAY_MAX: Duration = Duration::from_secs(60);

/// What is to be followed.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The service.
    pub(super) service: &'a str,
    /// The command that begins it.
    pub(super) command: Value,
    /// How long to wait; for as long as it takes if absent.
    pub(super) timeout: Option<Duration>,
}

/// The answer to a start.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Started {
    rollout: Option<Rollout>,
}

/// Begins a rollout and follows it; gives the exit code.
///
/// # Errors
/// The start was refused, or there is no admin API, at first or for longer than [`AWAY_MAX`].
pub(super) async fn start(admin: &Admin, wanted: &Wanted<'_>, terminal: Terminal) -> Result<u8, Failure> {
    // Before the command, so that no Ctrl-C is missed.
    let mut detach = Box::pin(tokio::signal::ctrl_c());
    let began = async {
        let events = Events::open(admin).await;
        (events, begin(admin, wanted).await)
    };
    let (events, rollout) = tokio::select! {
        biased;
        _ = &mut detach => return Err(Failure::new("ended by Ctrl-C before there was an answer").detail(MAYBE_BEGUN)),
        (events, rollout) = began => (events, rollout?),
    };
    let every = if terminal.redraws() { DRAW_EVERY } else { LOOK_EVERY };
    let mut follower = Follower::new(admin, wanted.service, rollout.id, events, every);
    let mut story = Story::new(wanted.service, rollout, clock::now());
    let mut screen = Screen::new(terminal);
    screen.begin(&story)?;
    let mut end = std::pin::pin!(async {
        match wanted.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    });
    let outcome = loop {
        let news = tokio::select! {
            biased;
            _ = &mut detach => break Outcome::Detached,
            () = &mut end => break Outcome::Timeout,
            news = follower.next() => news,
        };
        let news = news.inspect_err(|_| screen.leave())?;
        let told = story.take(news, clock::now()).inspect_err(|_| screen.leave())?;
        screen.tell(&story, &told, clock::now())?;
        if let Some(outcome) = story.outcome() {
            break outcome;
        }
    };
    // What ended it may be told a moment after it is true.
    if story.is_untold()
        && let Ok(event) = tokio::time::timeout(LATE_MAX, follower.event()).await
    {
        let told = story.take(News::Event(event), clock::now())?;
        screen.tell(&story, &told, clock::now())?;
    }
    if story.lacks_evidence(outcome) {
        story.learn(follower.taken_back().await);
    }
    screen.end(&story, outcome, admin.address(), clock::now())?;
    Ok(outcome.exit())
}

async fn begin(admin: &Admin, wanted: &Wanted<'_>) -> Result<Rollout, Failure> {
    let body = admin.post(&format!("/v1/services/{}/rollouts", wanted.service), &wanted.command).await?;
    let started: Started = client::read(&body)?;
    let nothing = || Failure::new("the admin API did not say which rollout it is").detail("is it of the same version?");
    started.rollout.ok_or_else(nothing)
}

const MAYBE_BEGUN: &str = "it may have begun all the same: `tidegate status` shows what is true";
