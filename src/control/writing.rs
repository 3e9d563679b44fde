//! What is being written: going on once it has landed, and giving up on a store that does not answer.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::clock;
use crate::core::id::Name;

use super::answer::{Applied, Refused};
use super::desk::{Written, undone};
use super::handle::Reply;
use super::journal::{Note, What};
use super::landing::Landing;
use super::ledger::{Failed, Line, Outcome};
use super::reload::{Filing, Work};
use super::writer::Control;

/// Longest wait for the store to take a change. Then it is given up, and what comes after it refused, until the store answers.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long no step is written after the store refused one.
const UP_AGAIN: Duration = Duration::from_secs(1);

/// Something that is being written.
pub(super) struct Writing {
    pub(super) answer: oneshot::Receiver<Outcome>,
    pub(super) then: Then,
    /// Since when.
    pub(super) since: Instant,
}

/// Who waits for it.
pub(super) enum Then {
    Command {
        service: Name,
        /// A rollout.
        begins: bool,
        landing: Option<Landing>,
        reply: Reply<Applied>,
    },
    /// Nobody: steps that time has brought.
    Tick,
    File(Box<Filing>),
    /// Nobody any more: it was given up. What is written if it has landed all the same, beside what becomes of services.
    Nobody(Option<Box<Line>>),
}

// === impl Control ===

impl Control {
    /// Whether nothing is being written that may come true.
    pub(super) fn is_free(&self) -> bool {
        self.writing.as_ref().is_none_or(Writing::is_given_up)
    }

    /// Goes on after what was being written has landed, or has not.
    pub(super) fn wrote(&mut self, outcome: Outcome, work: &mut Option<Work>) {
        let Some(Writing { then, .. }) = self.writing.take() else { return };
        if let Then::Nobody(undoing) = then {
            return self.answered_late(outcome.is_ok(), undoing);
        }
        let failed = outcome.err();
        let written = self.desk.written(failed.is_none());
        if let Some(Failed { full, why }) = failed {
            // It may have all of it, or nothing: what it says is not what the disk has, the full disk included.
            if let Written::Refused { as_is } = written {
                self.put_right(as_is);
                match &then {
                    Then::Command { landing: Some(landing), .. } => drop(self.ledger.owe(landing.undone())),
                    Then::File(filing) => self.take_back(filing, undone),
                    _ => {}
                }
            }
            return self.not_written(then, Refused::Store { full, why });
        }
        match then {
            Then::File(filing) => *work = self.filed(*filing, written),
            Then::Tick => {
                if let Written::True { deeds, .. } = written {
                    self.carry_out(deeds);
                }
            }
            Then::Nobody(_) => {}
            Then::Command { service, begins, reply, .. } => {
                let obeyed = self.obeyed(service, written).map(|applied| Applied { begins, ..applied });
                drop(reply.send(obeyed));
            }
        }
    }

    fn obeyed(&mut self, service: Name, written: Written) -> Result<Applied, Refused> {
        let Written::True { deeds, overtaken } = written else { return Err(Refused::Overtaken(service)) };
        if overtaken.contains(&service) {
            return Err(Refused::Overtaken(service));
        }
        self.carry_out(deeds);
        self.find(service.as_str()).map(|index| self.applied(index))
    }

    fn not_written(&mut self, then: Then, refused: Refused) {
        match then {
            Then::Command { reply, .. } => drop(reply.send(Err(refused))),
            Then::File(filing) => self.refuse(*filing, refused),
            Then::Tick => {
                self.up_from = clock::now() + UP_AGAIN;
                self.tell_of_store(format!("{refused}; no rollout goes on until it does"));
            }
            Then::Nobody(_) => {}
        }
    }

    /// Gives up what the store does not answer about, and tells of one that is gone.
    pub(super) fn look_after_the_store(&mut self, now: Instant) {
        if self.ledger.has_ended() && !std::mem::replace(&mut self.store_gone, true) {
            self.tell_of_store(format!("{}; nothing is written down any more", Failed::ended().why));
        }
        let late = |writing: &&mut Writing| now.saturating_duration_since(writing.since) >= WRITE_MAX;
        let Some(writing) = self.writing.as_mut().filter(|writing| !writing.is_given_up()).filter(late) else { return };
        let then = std::mem::replace(&mut writing.then, Then::Nobody(None));
        let undoing = match &then {
            Then::File(filing) => {
                let drafts = vec![self.draft(None, undone(&self.reload_note(filing)))];
                Some(Line { drafts, ..Line::default() })
            }
            Then::Command { landing, .. } => landing.as_ref().map(Landing::undone),
            Then::Tick | Then::Nobody(_) => None,
        };
        self.writing.iter_mut().for_each(|writing| writing.then = Then::Nobody(undoing.clone().map(Box::new)));
        if !matches!(then, Then::Tick) {
            self.tell_of_store(unanswered().to_string());
        }
        self.not_written(then, unanswered());
    }

    /// The store has answered about what was given up; whatever it took must not stay.
    fn answered_late(&mut self, landed: bool, undoing: Option<Box<Line>>) {
        let entries = self.desk.given_up(landed);
        self.owe(entries);
        // Of a write that failed nobody knows; what the audit was not told need not be taken back there, and keys may be.
        if let Some(line) = undoing.filter(|line| landed || !line.also.is_empty()) {
            self.ledger.owe(*line);
        }
        tracing::info!(landed, "the store answers again");
    }

    fn tell_of_store(&self, detail: String) {
        self.shared.journal.note(Note {
            actor: "store".to_owned(),
            what: What::StoreFailed,
            service: None,
            change: None,
            detail: Some(detail),
            generation: self.current.snapshot.generation,
        });
    }
}

// === impl Writing ===

impl Writing {
    fn is_given_up(&self) -> bool {
        matches!(self.then, Then::Nobody(_))
    }
}

/// The store has taken too long to say whether it takes a change.
pub(super) fn unanswered() -> Refused {
    Refused::Store { full: false, why: "the store does not answer".to_owned() }
}

/// Awaits the store.
pub(super) async fn answered(writing: &mut Option<Writing>) -> Outcome {
    match writing {
        Some(writing) => (&mut writing.answer).await.unwrap_or_else(|_| Err(Failed::ended())),
        None => std::future::pending().await,
    }
}
