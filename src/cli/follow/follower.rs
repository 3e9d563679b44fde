//! One rollout, followed: every event about it, and how it stands, asked for again and again and after each event.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior};

use super::events::Events;
use super::model::{Event, Evidence, Rollout, Rollouts, Told};
use crate::cli::client::{self, Admin};
use crate::cli::failure::Failure;

/// Follows one rollout of a service.
pub(in crate::cli) struct Follower {
    admin: Admin,
    service: String,
    id: u64,
    events: Events,
    looks: Interval,
}

/// What there is to know next.
#[derive(Clone, Debug)]
pub(in crate::cli) enum News {
    /// Something happened to it.
    Event(Event),
    /// How it stands.
    Look(Box<Look>),
    /// The admin API does not answer; it is asked again.
    Away(Failure),
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Look {
    /// Where it is.
    pub(in crate::cli) rollout: Rollout,
    /// What the gate has seen, if the admin API says it.
    pub(in crate::cli) evidence: Option<Evidence>,
}

// === impl Follower ===

impl Follower {
    /// Follows the rollout `id` of `service`, looking at it this often; `events` were opened before it began.
    pub(in crate::cli) fn new(admin: &Admin, service: &str, id: u64, events: Events, every: Duration) -> Self {
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { admin: admin.clone(), service: service.to_owned(), id, events, looks }
    }

    /// The next news. Nothing is lost if it is not waited for to its end, but a look is then begun anew.
    ///
    /// # Errors
    /// The admin API refuses, or does not know the rollout any more.
    pub(in crate::cli) async fn next(&mut self) -> Result<News, Failure> {
        tokio::select! {
            biased;
            event = about(&mut self.events, &self.service) => {
                self.looks.reset_immediately();
                Ok(News::Event(event))
            },
            _ = self.looks.tick() => self.look().await,
        }
    }

    /// The next event about it.
    pub(super) async fn event(&mut self) -> Event {
        about(&mut self.events, &self.service).await
    }

    async fn look(&self) -> Result<News, Failure> {
        let body = match self.admin.get(&format!("/v1/services/{}/rollouts", self.service)).await {
            Ok(body) => body,
            Err(failure) => return if is_refusal(&failure) { Err(failure) } else { Ok(News::Away(failure)) },
        };
        let Some(rollout) = client::read::<Rollouts>(&body)?.find(self.id) else {
            let gone = format!("{} has no rollout {} any more", self.service, self.id);
            return Err(Failure::new(gone).detail("`tidegate rollout list` shows those there are"));
        };
        let evidence = self.evidence().await;
        Ok(News::Look(Box::new(Look { rollout, evidence })))
    }

    /// What the gate has seen so far; nothing is as good as an answer.
    async fn evidence(&self) -> Option<Evidence> {
        let body =
            self.admin.get(&format!("/v1/services/{}/rollouts/{}/analysis", self.service, self.id)).await.ok()?;
        let whole: Value = serde_json::from_slice(&body).ok()?;
        let mut evidence: Evidence = serde_json::from_slice(&body).ok()?;
        evidence.whole = whole;
        Some(evidence)
    }

    /// The event that took the traffic back, if the process on the other side still has it: for a reader who was away meanwhile.
    pub(in crate::cli) async fn taken_back(&self) -> Option<Event> {
        let told: Told = client::read(&self.admin.get("/v1/status").await.ok()?).ok()?;
        let mut about = told.events.into_iter().rev().filter(|event| event.concerns(&self.service));
        about.find(Event::takes_back)
    }
}

async fn about(events: &mut Events, service: &str) -> Event {
    loop {
        let event = events.next().await;
        if event.concerns(service) {
            return event;
        }
    }
}

/// Whether asking again is of no use.
fn is_refusal(failure: &Failure) -> bool {
    matches!(failure.answered(), Some(400..=499)) && failure.answered() != Some(429)
}
