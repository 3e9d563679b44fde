//! What waits to be written, in order, without I/O.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::records;
use crate::control::desk::Record;
use crate::control::gates::Stored;
use crate::control::past::Past;
use crate::core::id::Name;
use crate::store::audit::Draft;
use crate::store::{self, Change, Table};

/// Most other records that are owed at the same time.
const ALSO_MAX: usize = 1_024;

/// Most entries of the audit about one service that are owed at the same time; of later ones only the number and the last are.
pub const DRAFTS_OWED_MAX: usize = 256;
/// Most who wait for what is owed about one service; more are answered that it has not landed.
const REPLIES_MAX: usize = 1_024;

/// What is to be durable about one service, or about none.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The service, and its record.
    pub service: Option<(Name, Record)>,
    /// Rollouts that have ended with it.
    pub past: Vec<Past>,
    /// What else lands with it.
    /// `None`: it goes. At most 1,024; of more, the oldest are left out.
    pub also: Vec<(Table, String, Option<store::Record>)>,
    /// The evidence for and against its rollout; none if nothing is watched.
    pub evidence: Option<Box<Stored>>,
    /// What the audit says about it; while it is owed at most [`DRAFTS_OWED_MAX`].
    pub drafts: Vec<Draft>,
    /// How much more it was to say.
    pub left_out: Option<Box<LeftOut>>,
}

/// What the audit was to say, had there not been too much of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// How many entries.
    pub count: u64,
    /// The last of them.
    pub last: Draft,
}

/// What became of a write.
pub type Outcome = Result<(), Failed>;

/// The store did not take it, or cannot say that it did: whoever was told so puts right what it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The disk is full.
    pub full: bool,
    /// In words.
    pub why: String,
}

/// The queue. What is owed is merged by service, so it is bounded by the services there are; of writes there is one at a time.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Job>,
    /// What was owed before anything in `waiting`, and has not landed.
    owed: Vec<Owed>,
    next_rollout: u64,
}

#[derive(Debug)]
enum Job {
    Write(Write),
    Owe(Owed),
}

#[derive(Debug)]
struct Write {
    lines: Vec<Line>,
    reply: oneshot::Sender<Outcome>,
}

#[derive(Debug)]
struct Owed {
    line: Line,
    replies: Vec<oneshot::Sender<()>>,
}

/// One commit.
#[derive(Debug)]
pub struct Turn {
    lines: Vec<Line>,
    next_rollout: u64,
    /// Absent: what is owed.
    reply: Option<oneshot::Sender<Outcome>>,
}

// === impl Queue ===

impl Queue {
    /// An empty queue; `next_rollout` is the number of the next rollout.
    #[must_use]
    pub fn new(next_rollout: u64) -> Self {
        Self { next_rollout, ..Self::default() }
    }

    /// Has `lines` written, all of them or nothing; tried once.
    pub fn write(&mut self, lines: Vec<Line>, next_rollout: u64, reply: oneshot::Sender<Outcome>) {
        self.next_rollout = self.next_rollout.max(next_rollout);
        self.waiting.push_back(Job::Write(Write { lines, reply }));
    }

    /// Has `line` written sooner or later.
    pub fn owe(&mut self, line: Line, reply: oneshot::Sender<()>) {
        // Behind a write there may be one of the same service: what is owed after it must come after it.
        let after_writes = self.waiting.iter_mut().rev().map_while(|job| match job {
            Job::Owe(owed) => Some(owed),
            Job::Write(_) => None,
        });
        match after_writes.into_iter().find(|owed| owed.line.is_of_same(&line)) {
            Some(owed) => owed.take_over(line, vec![reply]),
            None => self.waiting.push_back(Job::Owe(Owed { line, replies: vec![reply] })),
        }
    }

    /// Answers once what is owed about `service` has landed; at once if that is nothing.
    pub(super) fn landed(&mut self, service: &Name, reply: oneshot::Sender<()>) {
        let waiting = self.waiting.iter_mut().rev().filter_map(|job| match job {
            Job::Owe(owed) => Some(owed),
            Job::Write(_) => None,
        });
        let about = |owed: &&mut Owed| owed.line.service.as_ref().is_some_and(|(name, _)| name == service);
        match waiting.chain(&mut self.owed).find(about) {
            Some(owed) => owed.add([reply]),
            // Whoever no longer waits needs no answer.
            None => {
                let _ = reply.send(());
            }
        }
    }

    /// Whether something has not landed that has to.
    #[must_use]
    pub fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The next commit. `due`: what failed may be tried again.
    pub fn next(&mut self, due: bool) -> Option<Turn> {
        let mut new = false;
        while let Some(Job::Owe(_)) = self.waiting.front() {
            let Some(Job::Owe(owed)) = self.waiting.pop_front() else { break };
            self.take_over(owed);
            new = true;
        }
        if !self.owed.is_empty() && (new || due) {
            let lines = self.owed.iter().map(|owed| owed.line.clone()).collect();
            return Some(Turn { lines, next_rollout: self.next_rollout, reply: None });
        }
        let Some(Job::Write(Write { lines, reply })) = self.waiting.pop_front() else { return None };
        Some(Turn { lines: self.with_owed(lines), next_rollout: self.next_rollout, reply: Some(reply) })
    }

    /// A commit has ended.
    pub fn done(&mut self, turn: Turn, outcome: Outcome) {
        if outcome.is_ok() {
            let landed = |owed: &Owed| turn.lines.iter().any(|line| line.is_of_same(&owed.line));
            for owed in self.owed.extract_if(.., |owed| landed(owed)) {
                for reply in owed.replies {
                    // Whoever no longer waits needs no answer; so below.
                    let _ = reply.send(());
                }
            }
        }
        if let Some(reply) = turn.reply {
            let _ = reply.send(outcome);
        }
    }

    /// `lines`, each after what is owed for the same service: the newer record, all entries.
    fn with_owed(&self, lines: Vec<Line>) -> Vec<Line> {
        let with = |line: Line| match self.owed.iter().find(|owed| owed.line.is_of_same(&line)) {
            Some(owed) => owed.line.clone().whole().followed_by(line),
            None => line,
        };
        lines.into_iter().map(with).collect()
    }

    fn take_over(&mut self, new: Owed) {
        match self.owed.iter_mut().find(|owed| owed.line.is_of_same(&new.line)) {
            Some(owed) => owed.take_over(new.line, new.replies),
            None => self.owed.push(new),
        }
    }
}

// === impl Owed ===

impl Owed {
    fn take_over(&mut self, newer: Line, replies: Vec<oneshot::Sender<()>>) {
        self.line = std::mem::take(&mut self.line).followed_by(newer);
        self.line.shorten();
        self.add(replies);
    }

    /// Those who are gone make room; whoever finds none is told so at once, as its reply is dropped.
    fn add(&mut self, replies: impl IntoIterator<Item = oneshot::Sender<()>>) {
        self.replies.retain(|reply| !reply.is_closed());
        self.replies.extend(replies);
        self.replies.truncate(REPLIES_MAX);
    }
}

// === impl Line ===

impl Line {
    fn is_of_same(&self, other: &Self) -> bool {
        let name = |line: &Self| line.service.as_ref().map(|(name, _)| name.clone());
        name(self) == name(other)
    }

    fn followed_by(mut self, newer: Self) -> Self {
        self.past.extend(newer.past);
        self.also.extend(newer.also);
        self.also.drain(..self.also.len().saturating_sub(ALSO_MAX));
        if let Some(left_out) = &mut self.left_out {
            let more = newer.drafts.len() as u64 + newer.left_out.as_ref().map_or(0, |more| more.count);
            left_out.count += more;
            let last = newer.left_out.map(|more| more.last).or(newer.drafts.into_iter().last());
            left_out.last = last.unwrap_or_else(|| std::mem::take(&mut left_out.last));
        } else {
            // What fails again and again is tried and undone again and again: once is enough until it lands.
            for draft in newer.drafts {
                if self.drafts.last().is_none_or(|last| *last != Draft { time: last.time, ..draft.clone() }) {
                    self.drafts.push(draft);
                }
            }
            self.left_out = newer.left_out;
        }
        Self { service: newer.service.or(self.service), evidence: newer.evidence, ..self }
    }

    /// With an entry for what was left out, so that nothing of what follows is.
    fn whole(mut self) -> Self {
        self.drafts.extend(self.left_out.take().map(|left_out| left_out.draft()));
        self
    }

    /// Keeps the oldest entries and counts the others.
    fn shorten(&mut self) {
        if self.drafts.len() <= DRAFTS_OWED_MAX {
            return;
        }
        let mut more = self.drafts.split_off(DRAFTS_OWED_MAX);
        let (count, Some(last)) = (more.len() as u64, more.pop()) else { return };
        let left_out = self.left_out.get_or_insert_with(|| Box::new(LeftOut { count: 0, last }));
        left_out.count += count;
    }
}

// === impl LeftOut ===

impl LeftOut {
    /// What the audit says in their place.
    pub(super) fn draft(&self) -> Draft {
        let reason = format!("and {} more, which the store did not take in time; this is the last of them", self.count);
        Draft { reason: Some(reason), ..self.last.clone() }
    }
}

// === impl Turn ===

impl Turn {
    /// What the store is told.
    ///
    /// # Errors
    /// A record that cannot be written as text: a defect.
    pub fn change(&self) -> serde_json::Result<Change> {
        records::change(&self.lines, self.next_rollout)
    }

    pub(super) fn is_owed(&self) -> bool {
        self.reply.is_none()
    }
}
