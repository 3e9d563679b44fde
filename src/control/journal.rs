//! What happened lately and what is in force beside the snapshot: written by control, read by anyone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::clock;
use crate::config::settings::{ListenAddress, Settings};

use super::answer::{Outcome, Problem, Refused};

/// Events kept.
pub const EVENTS_MAX: usize = 1_024;
/// Events one reload may leave; the last one then says how many more there were.
pub const EVENTS_PER_RELOAD_MAX: usize = 64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who caused it.
    pub actor: String,
    /// What it was.
    pub what: What,
    /// The service, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The reason given, or what changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The generation in force after it.
    pub generation: u64,
}

/// What an event is about; the verb of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The process started.
    Start,
    /// A weight was set.
    Weight,
    /// A candidate was aborted.
    Abort,
    /// A rollout began by command.
    RolloutStart,
    /// A step was let pass, or the candidate became stable.
    Promote,
    /// The old stable is stable again.
    Rollback,
    /// A rollout waits.
    Pause,
    /// A rollout goes on.
    Resume,
    /// A step that waited for it was approved.
    Approve,
    /// A version that was taken back is tried again.
    Retry,
    /// A rollout went on to its next step.
    Step,
    /// Above nine tenths something is wrong: candidate and stable are compared at half the traffic each.
    Trial,
    /// The old stable is kept no longer.
    Expire,
    /// A rollout goes on after a restart of the process.
    RolloutRestart,
    /// What the gate had seen before a restart is lost.
    EvidenceLost,
    /// The store did not take a change.
    StoreFailed,
    /// What was being written never came true.
    Overtaken,
    /// A rollout ended because the file does not name its version any more.
    Supersede,
    /// A file took effect.
    Reload,
    /// A file was refused.
    ReloadRefused,
    /// Every endpoint was probed once.
    FirstProbes,
    /// An endpoint takes traffic.
    EndpointReady,
    /// An endpoint takes no traffic.
    EndpointNotReady,
    /// The liveness probes of an endpoint pass.
    EndpointAlive,
    /// The liveness probes of an endpoint fail.
    EndpointNotAlive,
    /// Names stand for other endpoints.
    EndpointsResolved,
    /// A name is not answered any more.
    NameFailed,
    /// A name is answered again.
    NameRecovered,
    /// An endpoint is left alone because its requests fail.
    EndpointEjected,
    /// An endpoint whose requests fail was to be ejected and is kept.
    EndpointSpared,
    /// An endpoint is back from an ejection.
    EndpointRestored,
    /// An endpoint gets no new attempts by command.
    EndpointDrained,
    /// A drained endpoint gets new attempts again.
    EndpointUndrained,
    /// So few endpoints of stable are usable that all that ever passed a probe are used.
    Panic,
    /// Enough endpoints of stable are usable again.
    PanicOver,
}

// === impl What ===

impl What {
    /// The word used in the API and the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Weight => "weight",
            Self::Abort => "abort",
            Self::RolloutStart => "rollout_start",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Retry => "retry",
            Self::Step => "step",
            Self::Trial => "trial",
            Self::Expire => "expire",
            Self::RolloutRestart => "rollout_restart",
            Self::EvidenceLost => "evidence_lost",
            Self::StoreFailed => "store_failed",
            Self::Overtaken => "overtaken",
            Self::Supersede => "supersede",
            Self::Reload => "reload",
            Self::ReloadRefused => "reload_refused",
            Self::FirstProbes => "first_probes",
            Self::EndpointReady => "endpoint_ready",
            Self::EndpointNotReady => "endpoint_not_ready",
            Self::EndpointAlive => "endpoint_alive",
            Self::EndpointNotAlive => "endpoint_not_alive",
            Self::EndpointsResolved => "endpoints_resolved",
            Self::NameFailed => "name_failed",
            Self::NameRecovered => "name_recovered",
            Self::EndpointEjected => "endpoint_ejected",
            Self::EndpointSpared => "endpoint_spared",
            Self::EndpointRestored => "endpoint_restored",
            Self::EndpointDrained => "endpoint_drained",
            Self::EndpointUndrained => "endpoint_undrained",
            Self::Panic => "panic",
            Self::PanicOver => "panic_over",
        }
    }
}

impl What {
    /// What a transition is, by its word in [`crate::core::roles::Note`].
    pub(super) fn of_verb(verb: &str) -> Self {
        match verb {
            "start" => Self::RolloutStart,
            "promote" => Self::Promote,
            "abort" => Self::Abort,
            "rollback" => Self::Rollback,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "approve" => Self::Approve,
            "retry" => Self::Retry,
            "weight" => Self::Weight,
            "trial" => Self::Trial,
            "expire" => Self::Expire,
            "restart" => Self::RolloutRestart,
            "add" | "reload" | "remove" => Self::Reload,
            "overtaken" | "undo" => Self::Overtaken,
            "supersede" => Self::Supersede,
            verb => {
                debug_assert_eq!(verb, "step", "a verb of its own is a kind of its own");
                Self::Step
            }
        }
    }

    /// Whether someone should look.
    const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::Abort
                | Self::Rollback
                | Self::Trial
                | Self::EvidenceLost
                | Self::StoreFailed
                | Self::Overtaken
                | Self::ReloadRefused
                | Self::EndpointNotReady
                | Self::EndpointNotAlive
                | Self::EndpointEjected
                | Self::EndpointSpared
                | Self::Panic
        )
    }
}

/// An event before it has a number and a time.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) actor: String,
    pub(super) what: What,
    pub(super) service: Option<String>,
    pub(super) change: Option<(String, String)>,
    pub(super) detail: Option<String>,
    pub(super) generation: u64,
}

/// How the last look at the file ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastReload {
    /// Whether the file is in force.
    pub ok: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who asked.
    pub actor: String,
    /// The generation in force after it.
    pub generation: u64,
    /// Everything that is wrong with the file.
    pub errors: Vec<Problem>,
}

/// How looks at the file ended, since the process began; the one at the start is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadCounts {
    /// Took effect.
    pub applied: u64,
    /// In force already.
    pub unchanged: u64,
    /// Refused.
    pub refused: u64,
}

/// What is in force beside the snapshot.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Where each listener of the settings is bound, in order.
    pub addresses: Vec<ListenAddress>,
    /// Sections of the file only a restart applies.
    pub needs_restart: Vec<&'static str>,
}

/// Events in order, as far as they are still kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The first event that was asked for and is not kept any more, if there is one; those up to the first of `events` are gone.
    pub lost_from: Option<u64>,
    /// What came then, oldest first.
    pub events: Vec<Event>,
}

/// The journal. Locked for moments, never on the request path.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
    /// The newest event.
    newest: watch::Sender<u64>,
    /// Tells this numbering of events from those of other processes.
    epoch: u64,
}

#[derive(Debug)]
struct Inner {
    in_force: InForce,
    last_reload: LastReload,
    counts: ReloadCounts,
    events: VecDeque<Event>,
    next_seq: u64,
}

// === impl Journal ===

impl Journal {
    /// A journal that begins with `in_force` at `generation`.
    pub(super) fn new(in_force: InForce, generation: u64) -> Self {
        let (actor, at_ms) = ("start".to_owned(), now_ms());
        let last_reload =
            LastReload { ok: true, outcome: Outcome::Applied, at_ms, actor, generation, errors: Vec::new() };
        let (counts, events) = (ReloadCounts::default(), VecDeque::new());
        let inner = Mutex::new(Inner { in_force, last_reload, counts, events, next_seq: 1 });
        Self { inner, newest: watch::Sender::new(0), epoch: now_ms() }
    }

    /// Tells this numbering of events from those before a restart: when it began, in milliseconds since 1970.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of the newest event, now and whenever there is one; zero before the first.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What came after the event `seq`, oldest first, at most `count`.
    #[must_use]
    pub fn after(&self, seq: u64, count: usize) -> Page {
        let (inner, wanted) = (self.inner(), seq.saturating_add(1));
        let oldest = inner.events.front().map_or(inner.next_seq, |event| event.seq);
        let lost_from = (wanted < oldest).then_some(wanted);
        // Numbers have no gaps: the place of an event is its distance from the oldest.
        let skip = usize::try_from(wanted.saturating_sub(oldest)).unwrap_or(usize::MAX);
        Page { lost_from, events: inner.events.iter().skip(skip).take(count).cloned().collect() }
    }

    /// What is in force beside the snapshot.
    #[must_use]
    pub fn in_force(&self) -> InForce {
        self.inner().in_force.clone()
    }

    /// How the last look at the file ended.
    #[must_use]
    pub fn last_reload(&self) -> LastReload {
        self.inner().last_reload.clone()
    }

    /// How looks at the file ended, since the process began.
    #[must_use]
    pub fn reload_counts(&self) -> ReloadCounts {
        self.inner().counts
    }

    /// The newest events, at most `count` (and [`EVENTS_MAX`]), oldest first.
    #[must_use]
    pub fn events(&self, count: usize) -> Vec<Event> {
        let inner = self.inner();
        let skip = inner.events.len().saturating_sub(count);
        inner.events.iter().skip(skip).cloned().collect()
    }

    /// Takes down an event; the oldest gives way.
    pub(super) fn note(&self, note: Note) {
        let detail = note.detail.as_deref().unwrap_or_default();
        let (from, to) = note.change.clone().unzip();
        let (actor, what, service, generation) = (&note.actor, note.what.as_str(), &note.service, note.generation);
        if note.what.is_warning() {
            tracing::warn!(actor, what, service, from, to, detail, generation, "control event");
        } else {
            tracing::info!(actor, what, service, from, to, detail, generation, "control event");
        }
        let mut inner = self.inner();
        let seq = inner.next_seq;
        inner.next_seq += 1;
        if inner.events.len() == EVENTS_MAX {
            inner.events.pop_front();
        }
        let Note { actor, what, service, detail, generation, .. } = note;
        inner.events.push_back(Event { seq, at_ms: now_ms(), actor, what, service, from, to, detail, generation });
        self.newest.send_replace(seq);
    }

    /// Takes down that a file is in force, with what it changed.
    pub(super) fn reloaded(&self, actor: &str, outcome: Outcome, generation: u64, changes: &[String]) {
        let reload = |detail| Note {
            actor: actor.to_owned(),
            what: What::Reload,
            service: None,
            change: None,
            detail,
            generation,
        };
        self.looked(actor, outcome, generation, Vec::new());
        if outcome == Outcome::Unchanged {
            return;
        }
        let shown = if changes.len() > EVENTS_PER_RELOAD_MAX { EVENTS_PER_RELOAD_MAX - 1 } else { changes.len() };
        for change in &changes[..shown] {
            self.note(reload(Some(change.clone())));
        }
        match changes.len() - shown {
            0 if shown > 0 => {}
            0 => self.note(reload(None)),
            more => self.note(reload(Some(format!("and {more} more changes")))),
        }
    }

    /// Takes down that a file was refused.
    pub(super) fn refused(&self, actor: &str, generation: u64, why: &Refused) {
        self.looked(actor, Outcome::Refused, generation, why.problems());
        self.note(Note {
            actor: actor.to_owned(),
            what: What::ReloadRefused,
            service: None,
            change: None,
            detail: Some(why.to_string()),
            generation,
        });
    }

    /// Replaces what is in force.
    pub(super) fn set_in_force(&self, in_force: InForce) {
        self.inner().in_force = in_force;
    }

    fn looked(&self, actor: &str, outcome: Outcome, generation: u64, errors: Vec<Problem>) {
        let (ok, actor) = (outcome != Outcome::Refused, actor.to_owned());
        let mut inner = self.inner();
        match outcome {
            Outcome::Applied => inner.counts.applied += 1,
            Outcome::Unchanged => inner.counts.unchanged += 1,
            Outcome::Refused => inner.counts.refused += 1,
        }
        inner.last_reload = LastReload { ok, outcome, at_ms: now_ms(), actor, generation, errors };
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake;

    fn journal(events: usize) -> Journal {
        let settings = Arc::new(fake::web_and_api());
        let journal = Journal::new(InForce { settings, addresses: Vec::new(), needs_restart: Vec::new() }, 1);
        for _ in 0..events {
            journal.note(Note {
                actor: "test".to_owned(),
                what: What::Weight,
                service: None,
                change: None,
                detail: None,
                generation: 1,
            });
        }
        journal
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn events_are_read_on_from_any_number_without_gap_or_repetition() {
        let journal = journal(5);
        assert_eq!(*journal.newest().borrow(), 5);
        for (after, count, expected) in
            [(0, 9, vec![1, 2, 3, 4, 5]), (0, 2, vec![1, 2]), (2, 2, vec![3, 4]), (4, 9, vec![5]), (5, 9, vec![])]
        {
            let page = journal.after(after, count);
            assert_eq!((seqs(&page), page.lost_from), (expected, None), "after {after}");
        }
        assert_eq!(journal.after(u64::MAX, 9).events, []);
    }

    #[test]
    fn events_that_are_not_kept_any_more_are_told_of() {
        let journal = journal(EVENTS_MAX + 3);
        let page = journal.after(1, 2);
        assert_eq!((page.lost_from, seqs(&page)), (Some(2), vec![4, 5]));
        let page = journal.after(3, 1);
        assert_eq!((page.lost_from, seqs(&page)), (None, vec![4]));
    }
}
