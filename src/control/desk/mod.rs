//! What runs and what is about to: every decision over all services as a value; nothing is carried out here.
//!
//! On the way up a decision is proposed, written down, and true once [`Desk::written`] says so. On the way back it is true at once, and
//! overtakes whatever is being written about its service: that is never published, and the record of the way back, queued behind, is what
//! the store ends with.

mod file;
mod undone;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::id::{Name, Version};
use crate::core::roles::{Ask, Context, Effect, Ended, GateWork, Memory, Note, Outcome, Over, Refused, Roles};
use crate::core::rollout::{End, Event, Stage};
use crate::core::service::Service;
use crate::core::weight::Weight;

pub use file::{Filed, Stored};
pub use undone::{decided_anew, undone};

use undone::overtaken;

/// All services, and the one proposal that is being written.
#[derive(Debug)]
pub struct Desk {
    /// In order of name, as in the snapshot.
    held: Vec<Held>,
    /// Services that left the file.
    memories: BTreeMap<Name, Memory>,
    next_rollout: u64,
    writing: Option<Proposal>,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Held {
    /// As the file has it.
    pub wanted: Arc<Service>,
    /// What runs.
    pub roles: Roles,
}

/// What follows from an event.
#[derive(Debug)]
pub enum Decision {
    /// Everything is already as asked, or only time passed.
    Nothing,
    /// It is true; what is left is to carry it out.
    Done(Deeds),
    /// It becomes true once it is written.
    Up(Proposal),
}

/// Decisions that become true together, or, if not `whole`, each as long as nothing overtook it.
#[derive(Debug, Default)]
pub struct Proposal {
    decided: Vec<Decided>,
    whole: bool,
}

/// A decision about one service.
#[derive(Debug)]
struct Decided {
    wanted: Arc<Service>,
    before: Option<Sight>,
    outcome: Outcome,
    /// The service is gone from the file: what is remembered of it.
    goes: Option<Memory>,
    overtaken: bool,
}

/// What is told of a state that was left.
#[derive(Clone, Copy, Debug)]
struct Sight {
    weight: Weight,
    /// A rollout runs.
    active: bool,
}

/// What has to be done, in this order: switches, publication, what that shuts, records, the rest.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Throw the switch of the candidate of these, for good.
    pub close: Vec<Name>,
    /// Publish what runs of these.
    pub publish: Vec<Name>,
    /// Once that is done: shut these to everything published before.
    pub shut: Vec<(Name, Version)>,
    /// Has to land in the store, sooner or later.
    pub owed: Vec<Entry>,
    /// What the gate does for these.
    pub gate: Vec<(Name, GateWork)>,
    /// What to tell people.
    pub said: Vec<Said>,
    /// Rollouts that have ended.
    pub over: Vec<(Name, Ended)>,
    /// Pools that are kept no longer.
    pub released: Vec<(Name, Version)>,
}

/// What is to be durable about a service.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The service.
    pub service: Name,
    /// Its record.
    pub record: Record,
    /// What the audit says about it.
    pub notes: Vec<Note>,
    /// Rollouts that have ended.
    pub over: Vec<Over>,
}

/// The record of a service.
#[derive(Clone, Debug)]
pub enum Record {
    /// It is this.
    Is(Box<Roles>),
    /// It left the file, and this is remembered of it.
    Left(Box<Memory>),
    /// There is none any more.
    Gone,
}

/// A transition, for the journal.
#[derive(Clone, Debug)]
pub struct Said {
    /// The service.
    pub service: Name,
    /// Who, what, why.
    pub note: Note,
    /// The weight before and after.
    pub weights: (Weight, Weight),
    /// A rollout begins with it.
    pub begins: bool,
}

/// What became of a proposal.
#[derive(Debug)]
pub enum Written {
    /// Carry this out. `overtaken`: at least one of its decisions was dropped.
    True {
        /// What has to be done.
        deeds: Deeds,
        /// Services whose decision was dropped, because something overtook it.
        overtaken: Vec<Name>,
    },
    /// All of it was dropped: it is to be decided anew.
    Overtaken {
        /// What is true of the services it was about: the store has something else.
        as_is: Vec<Entry>,
    },
    /// The store did not take it: nothing has changed.
    Refused {
        /// What is true of the services it was about: a disk that fails may have written something else all the same.
        as_is: Vec<Entry>,
    },
}

// === impl Desk ===

impl Desk {
    /// The services, in order of name.
    #[must_use]
    pub fn services(&self) -> &[Held] {
        &self.held
    }

    /// The service called `name`, by its index.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.held.binary_search_by(|held| held.wanted.name.as_str().cmp(name)).ok()
    }

    /// The number of the next rollout.
    #[must_use]
    pub fn next_rollout(&self) -> u64 {
        self.next_rollout
    }

    /// Whether a proposal is being written.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Decides a command for the service at `index`. `now` is the time since 1970.
    ///
    /// # Errors
    /// What the state does not allow.
    pub fn ask(&mut self, index: usize, ask: &Ask, now: Duration) -> Result<Decision, Refused> {
        let held = &self.held[index];
        let context = Context { now, wanted: &held.wanted, next_rollout: self.next_rollout };
        let outcome = match held.roles.obey(ask, &context) {
            Ok(outcome) => outcome,
            // It may be the one that is being written.
            Err(Refused::NoSuchRollout(id)) if ask.is_back() => {
                return self.drop_unwritten(index, ask).map(Decision::Done).ok_or(Refused::NoSuchRollout(id));
            }
            Err(refused) => return Err(refused),
        };
        self.next_rollout += u64::from(outcome.began.is_some());
        if outcome.effects.is_empty() {
            let dropped = if ask.is_back() { self.drop_unwritten(index, ask) } else { None };
            return Ok(dropped.map_or(Decision::Nothing, Decision::Done));
        }
        Ok(self.decision(index, outcome))
    }

    /// Takes in that time passed, or what a check said, for the service at `index`.
    pub fn on(&mut self, index: usize, event: Event, passed: Duration, now: Duration) -> Decision {
        let held = &mut self.held[index];
        if held.is_at_rest() {
            return Decision::Nothing;
        }
        let mut roles = held.roles.clone();
        let effects = roles.on(event, passed, now);
        if effects.is_empty() {
            held.roles = roles;
            return Decision::Nothing;
        }
        if !is_back(&effects) && self.is_written_about(index) {
            // Its next step is being written. Whatever else is true will still be true then.
            return Decision::Nothing;
        }
        self.decision(index, Outcome { roles, effects, began: None, changes: Vec::new() })
    }

    /// What to write for `proposal`, which is the one being written from now on.
    pub fn write(&mut self, proposal: Proposal) -> Vec<Entry> {
        debug_assert!(self.writing.is_none(), "one at a time");
        let entries = proposal.decided.iter().filter_map(Decided::entry).collect();
        self.writing = Some(proposal);
        entries
    }

    /// The store has taken what was being written, or has not.
    pub fn written(&mut self, landed: bool) -> Written {
        let Some(proposal) = self.writing.take() else { return Written::Refused { as_is: Vec::new() } };
        if !landed {
            return Written::Refused { as_is: self.as_is(&proposal, undone) };
        }
        if proposal.whole {
            return self.filed(proposal);
        }
        let (mut deeds, mut overtaken) = (Deeds::default(), Vec::new());
        for decided in proposal.decided {
            let name = decided.wanted.name.clone();
            match self.find(name.as_str()).filter(|_| !decided.overtaken) {
                Some(index) => self.install(index, decided, &mut deeds),
                None => overtaken.push(name),
            }
        }
        Written::True { deeds, overtaken }
    }

    /// What was being written was given up and never comes true: what the store is to have in its place. `landed`: it has taken that, with
    /// what the audit says about it.
    pub fn given_up(&mut self, landed: bool) -> Vec<Entry> {
        let Some(proposal) = self.writing.take() else { return Vec::new() };
        let mut entries = self.as_is(&proposal, undone);
        for entry in &mut entries {
            let of_it = proposal.decided.iter().filter(|decided| landed && decided.wanted.name == entry.service);
            entry.notes = of_it.flat_map(Decided::notes).map(undone).collect();
        }
        entries
    }

    /// The record of the service at `index` as it is, for a restart to go on from: time that passed, requests that were seen.
    #[must_use]
    pub fn checkpoint(&self, index: usize) -> Option<Entry> {
        let held = self.held.get(index).filter(|held| !held.is_at_rest())?;
        // What is being written is newer.
        (!self.is_written_about(index)).then(|| held.entry(Vec::new()))
    }

    /// What the store is to have in place of `proposal`, and what the audit says of each of its notes. Of what was overtaken that has been
    /// said.
    fn as_is(&self, proposal: &Proposal, say: impl Fn(&Note) -> Note) -> Vec<Entry> {
        let names = proposal.decided.iter().filter(|decided| decided.notes().next().is_some());
        let entry = |decided: &Decided| {
            let service = &decided.wanted.name;
            let index = self.find(service.as_str());
            let entry = index.map_or_else(|| self.left(service), |index| self.held[index].entry(Vec::new()));
            let notes = decided.notes().filter(|_| !decided.overtaken).map(&say).collect();
            Entry { notes, ..entry }
        };
        names.map(entry).collect()
    }

    /// An abort of what does not run yet: what is being written about it must not come true, and not stay in the store. One that names
    /// another rollout than that has nothing to do with it.
    fn drop_unwritten(&mut self, index: usize, ask: &Ask) -> Option<Deeds> {
        let begun = self.unwritten(index)?.notes().next().cloned()?;
        if ask.rollout.is_some_and(|id| id != begun.rollout) {
            return None;
        }
        self.overtake(index, &ask.actor);
        let (actor, source) = (ask.actor.clone(), ask.source.clone());
        let (verb, reason) = (ask.verb.as_str(), ask.reason.clone());
        let note = Note { actor, source, verb, rollout: begun.rollout, from: begun.to, to: begun.from, reason };
        let held = &self.held[index];
        Some(Deeds { owed: vec![held.entry(vec![note.clone()])], said: vec![Said::of(held, note)], ..Deeds::default() })
    }

    fn decision(&mut self, index: usize, outcome: Outcome) -> Decision {
        let held = &self.held[index];
        let before = Some(Sight::of(&held.roles));
        let back = is_back(&outcome.effects);
        let decided = Decided { wanted: Arc::clone(&held.wanted), before, outcome, goes: None, overtaken: false };
        if !back {
            return Decision::Up(Proposal { decided: vec![decided], whole: false });
        }
        let actor = decided.notes().next().map_or("", |note| note.actor.as_str());
        let overtaken = self.overtake(index, actor);
        let held = &self.held[index];
        let said = overtaken.iter().cloned().map(|note| Said::of(held, note)).collect();
        let owed = decided.entry().map(|mut entry| {
            entry.notes.splice(0..0, overtaken);
            entry
        });
        let mut deeds = Deeds { owed: owed.into_iter().collect(), said, ..Deeds::default() };
        self.install(index, decided, &mut deeds);
        Decision::Done(deeds)
    }

    /// Lets what is being written about the service at `index` never come true; says so of each of its notes, by `actor`.
    fn overtake(&mut self, index: usize, actor: &str) -> Vec<Note> {
        let name = &self.held[index].wanted.name;
        let decided = self.writing.iter_mut().flat_map(|proposal| &mut proposal.decided);
        let mut about = decided.filter(|decided| decided.wanted.name == *name && !decided.overtaken);
        let Some(decided) = about.next() else { return Vec::new() };
        decided.overtaken = true;
        decided.notes().map(|note| overtaken(note, actor)).collect()
    }

    /// What is being written about the service at `index`, as far as nothing overtook it.
    fn unwritten(&self, index: usize) -> Option<&Decided> {
        let name = &self.held[index].wanted.name;
        let mut decided = self.writing.iter().flat_map(|proposal| &proposal.decided);
        decided.find(|decided| decided.wanted.name == *name && !decided.overtaken)
    }

    fn is_written_about(&self, index: usize) -> bool {
        self.unwritten(index).is_some()
    }

    /// Makes a decision true.
    fn install(&mut self, index: usize, decided: Decided, deeds: &mut Deeds) {
        deeds.take_in(&decided);
        self.held[index] = Held { wanted: decided.wanted, roles: decided.outcome.roles };
    }
}

// === impl Held ===

impl Held {
    /// Nothing about it changes with time.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.roles.active().is_none() && self.roles.warm.is_none()
    }

    fn entry(&self, notes: Vec<Note>) -> Entry {
        let record = Record::Is(Box::new(self.roles.clone()));
        Entry { service: self.wanted.name.clone(), record, notes, over: Vec::new() }
    }
}

// === impl Said ===

impl Said {
    /// Something that moves nothing.
    fn of(held: &Held, note: Note) -> Self {
        let weight = held.roles.weight();
        Self { service: held.wanted.name.clone(), note, weights: (weight, weight), begins: false }
    }
}

// === impl Proposal ===

impl Proposal {
    /// Takes over the decisions of `other`, which are about other services.
    pub fn join(&mut self, other: Self) {
        self.decided.extend(other.decided);
    }

    /// Whether a rollout begins with it.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.decided.iter().any(|decided| decided.outcome.began.is_some())
    }

    /// Whether nothing is proposed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.decided.is_empty()
    }
}

// === impl Decided ===

impl Decided {
    /// What has to be written for it, if anything.
    fn entry(&self) -> Option<Entry> {
        let record = match &self.goes {
            Some(memory) => Record::Left(Box::new(memory.clone())),
            None => Record::Is(Box::new(self.outcome.roles.clone())),
        };
        entry(&self.wanted.name, record, &self.outcome.effects)
    }

    /// The weight before and after. Whoever is promoted has everything, although it is no candidate any more.
    fn weights(&self) -> (Weight, Weight) {
        let roles = &self.outcome.roles;
        let Some(before) = self.before else { return (Weight::ZERO, roles.weight()) };
        let promoted = before.active && roles.current.as_ref().is_some_and(|c| c.rollout.stage == PROMOTED);
        (before.weight, if promoted { Weight::FULL } else { roles.weight() })
    }

    fn notes(&self) -> impl Iterator<Item = &Note> {
        notes(&self.outcome.effects)
    }
}

// === impl Deeds ===

impl Deeds {
    /// Does both as one; those of `other` are about other services.
    pub fn join(&mut self, other: Self) {
        let Self { close, publish, shut, owed, gate, said, over, released } = other;
        self.close.extend(close);
        self.publish.extend(publish);
        self.shut.extend(shut);
        self.owed.extend(owed);
        self.gate.extend(gate);
        self.said.extend(said);
        self.over.extend(over);
        self.released.extend(released);
    }

    /// Adds what has to be done for `decided`, its records left out.
    fn take_in(&mut self, decided: &Decided) {
        let name = &decided.wanted.name;
        let mut publish = false;
        for effect in &decided.outcome.effects {
            match effect {
                Effect::Close => self.close.push(name.clone()),
                Effect::Publish => publish = true,
                Effect::Shut(version) => self.shut.push((name.clone(), version.clone())),
                Effect::Release(version) => {
                    self.released.push((name.clone(), version.clone()));
                    publish = true;
                }
                Effect::Gate(work) => self.gate.push((name.clone(), *work)),
                Effect::Record(note) => {
                    let (weights, begins) = (decided.weights(), decided.outcome.began.is_some());
                    self.said.push(Said { service: name.clone(), note: note.clone(), weights, begins });
                }
                Effect::Over(over) => self.over.push((name.clone(), over.ended.clone())),
                // Nothing asks for checks: the file cannot name any yet.
                Effect::Check { .. } => {}
            }
        }
        if publish {
            self.publish.push(name.clone());
        }
    }
}

/// What has to be written of `service` for `effects`, if anything.
fn entry(service: &Name, record: Record, effects: &[Effect]) -> Option<Entry> {
    let notes: Vec<Note> = notes(effects).cloned().collect();
    let over = effects.iter().filter_map(|effect| match effect {
        Effect::Over(over) => Some(Over::clone(over)),
        _ => None,
    });
    (!notes.is_empty()).then(|| Entry { service: service.clone(), record, notes, over: over.collect() })
}

fn notes(effects: &[Effect]) -> impl Iterator<Item = &Note> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Record(note) => Some(note),
        _ => None,
    })
}

const PROMOTED: Stage = Stage::Over(End::Succeeded);

/// Whether this takes traffic back: it is published before it is recorded.
fn is_back(effects: &[Effect]) -> bool {
    matches!(effects.first(), Some(Effect::Close | Effect::Publish))
}

#[cfg(test)]
mod tests;
