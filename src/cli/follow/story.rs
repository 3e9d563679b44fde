//! What is known of a rollout that is followed, and what of it is worth a line. Pure: time comes in.

use std::time::{Duration, Instant};

use super::model::{Event, Evidence, Rollout, Standing};
use super::{AWAY_MAX, Look, News};
use crate::cli::failure::Failure;

/// A rollout as far as it is known.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) service: String,
    /// How it stood last.
    pub(super) rollout: Rollout,
    /// What the gate had seen last.
    pub(super) evidence: Option<Evidence>,
    /// Since when it is followed.
    pub(super) since: Instant,
    /// What was left of the hold when the step in hand was first seen, in milliseconds.
    hold_ms: Option<u64>,
    /// The event that took the traffic back.
    ended: Option<Event>,
    /// Since when the admin API is away.
    away: Option<Instant>,
    /// An event was told since the last look.
    told: bool,
    /// The look before saw a change no event has told of yet.
    untold: bool,
    /// It was looked at.
    seen: bool,
}

/// Something worth a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// It happened.
    Event(Event),
    /// It stands otherwise than before, and no event said so.
    Changed(Rollout),
    /// The admin API does not answer.
    Away(Failure),
    /// It answers again.
    Back,
}

/// How the following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The candidate is stable.
    Succeeded,
    /// It was taken back, or another one took its place.
    Ended,
    /// It waits for a person.
    Paused,
    /// The time is over.
    Timeout,
    /// Ctrl-C.
    Detached,
}

// === impl Story ===

impl Story {
    /// The story of a rollout of `service` that has just begun.
    pub(super) fn new(service: &str, rollout: Rollout, now: Instant) -> Self {
        Self {
            service: service.to_owned(),
            hold_ms: rollout.hold_left_ms,
            rollout,
            evidence: None,
            since: now,
            ended: None,
            away: None,
            told: false,
            untold: false,
            seen: false,
        }
    }

    /// Takes news in; gives what of them is worth a line.
    ///
    /// # Errors
    /// The admin API is away for longer than [`AWAY_MAX`].
    pub(super) fn take(&mut self, news: News, now: Instant) -> Result<Vec<Told>, Failure> {
        match news {
            News::Event(event) => Ok(self.event(event)),
            News::Look(look) => Ok(self.look(*look)),
            News::Away(failure) => self.missed(failure, now),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Told> {
        (self.told, self.untold) = (true, false);
        if event.takes_back() {
            self.ended = Some(event.clone());
        }
        vec![Told::Event(event)]
    }

    fn look(&mut self, look: Look) -> Vec<Told> {
        let Look { rollout, evidence } = look;
        let mut told = Vec::new();
        if self.away.take().is_some() {
            told.push(Told::Back);
        }
        let stands = |r: &Rollout| (r.phase.clone(), r.reason.clone(), r.step, r.by_hand);
        let changed = stands(&rollout) != stands(&self.rollout);
        // An event may come a moment after what it tells of is true: it has until the next look.
        let is_over = matches!(rollout.standing(), Standing::Succeeded | Standing::Ended);
        if self.untold && !self.told && !is_over {
            told.push(Told::Changed(rollout.clone()));
            self.untold = false;
        } else {
            self.untold = changed && !self.told;
        }
        self.told = false;
        if changed || self.hold_ms < rollout.hold_left_ms {
            self.hold_ms = rollout.hold_left_ms;
        }
        self.evidence = evidence.or(self.evidence.take());
        self.rollout = rollout;
        self.seen = true;
        told
    }

    fn missed(&mut self, failure: Failure, now: Instant) -> Result<Vec<Told>, Failure> {
        match self.away {
            Some(since) if now.saturating_duration_since(since) >= AWAY_MAX => {
                Err(failure.note(&format!("no answer for {} s; the rollout may go on", AWAY_MAX.as_secs())))
            }
            Some(_) => Ok(Vec::new()),
            None => {
                self.away = Some(now);
                Ok(vec![Told::Away(failure)])
            }
        }
    }

    /// How the following ends, if it does. What it was when it was started does not count: only what was seen since.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self.rollout.standing() {
            _ if !self.seen => None,
            Standing::Runs => None,
            Standing::Waits => Some(Outcome::Paused),
            Standing::Succeeded => Some(Outcome::Succeeded),
            Standing::Ended => Some(Outcome::Ended),
        }
    }

    /// Whether no event told of how it stands.
    pub(super) const fn is_untold(&self) -> bool {
        self.untold
    }

    /// Whether the admin API is away.
    pub(super) const fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether somebody who was away has to be told why it ended.
    pub(super) fn lacks_evidence(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Ended && self.end().is_none()
    }

    /// What took the traffic back.
    pub(super) fn learn(&mut self, event: Option<Event>) {
        self.ended = self.ended.take().or(event);
    }

    /// Who ended it, and why, as far as that is known.
    pub(super) fn end(&self) -> Option<(String, String)> {
        let told = self.ended.as_ref().map(|event| (event.actor.clone(), event.detail.clone().unwrap_or_default()));
        told.or_else(|| self.rollout.end())
    }

    /// How much of the hold of the step in hand is over, `0.0..=1.0`; `None` where nothing is held.
    pub(super) fn held(&self) -> Option<f64> {
        let (left, whole) = (self.rollout.hold_left_ms?, self.hold_ms.filter(|whole| *whole > 0)?);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds, far below 2^53")]
        let left = left.min(whole) as f64 / whole as f64;
        Some(1.0 - left)
    }

    /// Since when it is followed.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

// === impl Outcome ===

impl Outcome {
    /// The exit code: 0 done, 2 taken back, 3 not done yet, 130 detached (128 and SIGINT, as shells have it).
    pub(super) const fn exit(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Ended => 2,
            Self::Paused | Self::Timeout => 3,
            Self::Detached => 130,
        }
    }

    /// The word for programs where the phase does not say it.
    pub(super) fn word(self, rollout: &Rollout) -> &str {
        match self {
            Self::Succeeded | Self::Ended | Self::Paused => &rollout.phase,
            Self::Timeout => "timeout",
            Self::Detached => "detached",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn rollout(phase: &str, step: u64, left: u64) -> Rollout {
        Rollout { id: 1, phase: phase.to_owned(), step, steps: 3, hold_left_ms: Some(left), ..Rollout::default() }
    }

    fn look(rollout: Rollout) -> News {
        News::Look(Box::new(Look { rollout, evidence: None }))
    }

    fn event(what: &str) -> Event {
        Event { what: what.to_owned(), actor: "plan".to_owned(), ..Event::default() }
    }

    fn story() -> Story {
        Story::new("web", rollout("progressing", 0, 1_000), clock::now())
    }

    fn take(story: &mut Story, news: News) -> Vec<Told> {
        story.take(news, clock::now()).expect("not away for long")
    }

    #[test]
    fn an_event_is_told_once_whether_it_or_the_look_comes_first() {
        let (mut first, mut second) = (story(), story());
        let step = News::Event(event("step"));
        assert_eq!(take(&mut first, step.clone()), [Told::Event(event("step"))]);
        for _ in 0..3 {
            assert_eq!(take(&mut first, look(rollout("progressing", 1, 1_000))), []);
        }
        assert_eq!(take(&mut second, look(rollout("progressing", 1, 1_000))), []);
        assert_eq!(take(&mut second, step), [Told::Event(event("step"))]);
        for _ in 0..3 {
            assert_eq!(take(&mut second, look(rollout("progressing", 1, 900))), []);
        }
    }

    #[test]
    fn a_change_no_event_told_of_is_told_at_the_second_look() {
        let mut story = story();
        let next = rollout("progressing", 1, 1_000);
        assert_eq!(take(&mut story, look(next.clone())), []);
        assert_eq!(take(&mut story, look(next.clone())), [Told::Changed(next.clone())]);
        assert_eq!(take(&mut story, look(next)), []);
    }

    #[test]
    fn who_is_away_is_told_of_once_and_given_up_in_time() {
        let (mut story, start) = (story(), clock::now());
        let away = || News::Away(Failure::new("nothing answers"));
        assert_eq!(story.take(away(), start), Ok(vec![Told::Away(Failure::new("nothing answers"))]));
        assert_eq!(story.take(away(), start + AWAY_MAX / 2), Ok(vec![]));
        assert_eq!(take(&mut story, look(rollout("progressing", 0, 900))), [Told::Back]);
        assert!(story.take(away(), start + AWAY_MAX).is_ok(), "it was back meanwhile");
        let given_up = story.take(away(), start + AWAY_MAX * 2).expect_err("too long");
        assert!(given_up.to_string().contains("no answer for 60 s"), "{given_up}");
    }

    #[test]
    fn it_ends_with_what_was_seen_and_every_end_has_its_code() {
        let paused = Rollout { reason: Some("no_history".to_owned()), ..rollout("paused", 0, 0) };
        assert_eq!(Story::new("web", paused.clone(), clock::now()).outcome(), None, "that is what it was before");
        for (seen, outcome, exit) in [
            (rollout("progressing", 2, 1), None, None),
            (rollout("succeeded", 2, 0), Some(Outcome::Succeeded), Some(0)),
            (rollout("aborted", 1, 0), Some(Outcome::Ended), Some(2)),
            (rollout("rolled_back", 1, 0), Some(Outcome::Ended), Some(2)),
            (paused, Some(Outcome::Paused), Some(3)),
        ] {
            let mut story = story();
            take(&mut story, look(seen));
            assert_eq!((story.outcome(), story.outcome().map(Outcome::exit)), (outcome, exit));
        }
        assert_eq!((Outcome::Timeout.exit(), Outcome::Detached.exit()), (3, 130));
    }

    #[test]
    fn the_hold_is_measured_from_what_was_left_when_its_step_was_first_seen() {
        let mut story = story();
        take(&mut story, look(rollout("progressing", 0, 250)));
        assert!(story.held().is_some_and(|held| (held - 0.75).abs() < 1e-9));
        take(&mut story, look(rollout("progressing", 1, 4_000)));
        assert_eq!(story.held(), Some(0.0));
        take(&mut story, look(rollout("progressing", 1, 1_000)));
        assert!(story.held().is_some_and(|held| (held - 0.75).abs() < 1e-9));
        take(&mut story, look(Rollout { hold_left_ms: None, ..rollout("trial", 1, 0) }));
        assert_eq!(story.held(), None);
    }

    #[test]
    fn the_end_is_who_took_it_back_and_why() {
        let mut story = story();
        assert!(story.lacks_evidence(Outcome::Ended) && !story.lacks_evidence(Outcome::Paused));
        let abort = Event { actor: "gate/latency".to_owned(), detail: Some("slow".to_owned()), ..event("abort") };
        take(&mut story, News::Event(abort));
        story.learn(Some(event("abort")));
        assert_eq!(story.end(), Some(("gate/latency".to_owned(), "slow".to_owned())));
        assert!(!story.lacks_evidence(Outcome::Ended));
    }
}
