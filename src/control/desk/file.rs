//! What the file does to all services together: at the start of the process, and when it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Decided, Deeds, Desk, Entry, Held, Proposal, Record, Sight, Written, decided_anew, entry};
use crate::core::id::Name;
use crate::core::roles::{Context, First, MEMORIES_MAX, Memory, Reason, Roles};
use crate::core::service::Service;

/// What the store knew at the start.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Records by service.
    pub roles: BTreeMap<Name, Roles>,
    /// Services that left the file.
    pub memories: BTreeMap<Name, Memory>,
    /// The number of the next rollout.
    pub next_rollout: u64,
}

/// A file that is accepted.
#[derive(Debug)]
pub struct Filed {
    /// What becomes true once it is written.
    pub proposal: Proposal,
    /// What changes, a sentence each, in order of service.
    pub changes: Vec<String>,
}

impl Desk {
    /// Everything as it was: of every service in the file what its record says, else what the file says. Services that are not in the file
    /// any more have left it, as in [`Self::file`]. Everything that has to be done for it comes with it; all of it is true already.
    ///
    /// # Errors
    /// What the file asks for that cannot be done, a sentence each.
    pub fn open(stored: Stored, wanted: &[Arc<Service>], now: Duration) -> Result<(Self, Deeds), Vec<String>> {
        let known = stored.roles.values().filter_map(|roles| Some(roles.current.as_ref()?.id + 1)).max();
        let next_rollout = stored.next_rollout.max(known.unwrap_or(1)).max(1);
        let mut desk = Self { held: Vec::new(), memories: stored.memories, next_rollout, writing: None };
        let (mut deeds, mut refusals, mut roles) = (Deeds::default(), Vec::new(), stored.roles);
        for wanted in in_order(wanted) {
            let context = Context { now, wanted, next_rollout: desk.next_rollout };
            let record = roles.remove(&wanted.name);
            let outcome = match &record {
                Some(record) => {
                    let seen = record.active().map(|current| current.rollout.seen).unwrap_or_default();
                    record.boot(&context, seen)
                }
                None => Roles::first(First::EmptyStore, desk.memories.get(&wanted.name), &context),
            };
            let before = record.as_ref().map(Sight::of);
            match outcome {
                Ok(outcome) => {
                    desk.next_rollout += u64::from(outcome.began.is_some());
                    desk.memories.remove(&wanted.name);
                    let wanted = Arc::clone(wanted);
                    let mut decided = Decided { before, wanted, outcome, goes: None, overtaken: false };
                    let roles = &decided.outcome.roles;
                    let went_on = |record: &Roles| *record == Roles { revision: record.revision, ..roles.clone() };
                    match record.filter(went_on) {
                        // It only went on as it was: no change to speak of.
                        Some(record) => decided.outcome.roles = record,
                        None => deeds.owed.extend(decided.entry()),
                    }
                    deeds.take_in(&decided);
                    desk.held.push(Held { wanted: decided.wanted, roles: decided.outcome.roles });
                }
                Err(reasons) => refusals.extend(sentences(&wanted.name, reasons)),
            }
        }
        for (service, roles) in roles {
            let outcome = roles.removed(now);
            let memory = Memory::of(&outcome.roles, now);
            let record = Record::Left(Box::new(memory.clone()));
            deeds.owed.extend(entry(&service, record, &outcome.effects));
            desk.memories.insert(service, memory);
        }
        deeds.owed.extend(desk.forget());
        if refusals.is_empty() { Ok((desk, deeds)) } else { Err(refusals) }
    }

    /// What a file that changed does to all services: all of it, or nothing.
    ///
    /// # Errors
    /// What it asks for that cannot be done, a sentence each, everything at once.
    pub fn file(&mut self, wanted: &[Arc<Service>], now: Duration) -> Result<Filed, Vec<String>> {
        let (filed, next_rollout) = self.plan(wanted, now)?;
        self.next_rollout = next_rollout;
        Ok(filed)
    }

    /// What a file would change, a sentence each.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn preview(&self, wanted: &[Arc<Service>], now: Duration) -> Result<Vec<String>, Vec<String>> {
        self.plan(wanted, now).map(|(filed, _)| filed.changes)
    }

    fn plan(&self, wanted: &[Arc<Service>], now: Duration) -> Result<(Filed, u64), Vec<String>> {
        let all = in_order(wanted);
        let names: BTreeSet<&Name> =
            all.iter().map(|service| &service.name).chain(self.held.iter().map(|held| &held.wanted.name)).collect();
        let (mut decided, mut changes, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_rollout = self.next_rollout;
        for name in names {
            let held = self.find(name.as_str()).map(|index| &self.held[index]);
            let wanted = all.binary_search_by(|service| service.name.cmp(name)).ok().map(|at| all[at]);
            match decide(held, self.memories.get(name), wanted, next_rollout, now) {
                Ok(Some(one)) => {
                    next_rollout += u64::from(one.outcome.began.is_some());
                    changes.extend(one.outcome.changes.iter().map(|change| format!("services.{name}: {change}")));
                    decided.push(one);
                }
                Ok(None) => {}
                Err(reasons) => refusals.extend(sentences(name, reasons)),
            }
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        Ok((Filed { proposal: Proposal { decided, whole: true }, changes }, next_rollout))
    }

    /// Puts a file in force that was written, unless something overtook it.
    pub(super) fn filed(&mut self, proposal: Proposal) -> Written {
        if proposal.decided.iter().any(|decided| decided.overtaken) {
            return Written::Overtaken { as_is: self.as_is(&proposal, decided_anew) };
        }
        let mut deeds = Deeds::default();
        let mut held = Vec::with_capacity(proposal.decided.len());
        for decided in proposal.decided {
            deeds.take_in(&decided);
            let Decided { wanted, outcome, goes, .. } = decided;
            if let Some(memory) = goes {
                self.memories.insert(wanted.name.clone(), memory);
            } else {
                self.memories.remove(&wanted.name);
                held.push(Held { wanted, roles: outcome.roles });
            }
        }
        self.held = held;
        deeds.owed.extend(self.forget());
        Written::True { deeds, overtaken: Vec::new() }
    }

    /// What the store is to have of `service`, which is not in the file.
    pub(super) fn left(&self, service: &Name) -> Entry {
        let memory = self.memories.get(service).cloned();
        let record = memory.map_or(Record::Gone, |memory| Record::Left(Box::new(memory)));
        Entry { service: service.clone(), record, notes: Vec::new(), over: Vec::new() }
    }

    /// Forgets those that left first, if too many have left.
    fn forget(&mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while self.memories.len() > MEMORIES_MAX {
            let oldest = self.memories.iter().min_by_key(|(_, memory)| memory.left).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            self.memories.remove(&oldest);
            entries.push(self.left(&oldest));
        }
        entries
    }
}

fn decide(
    held: Option<&Held>,
    memory: Option<&Memory>,
    wanted: Option<&Arc<Service>>,
    next_rollout: u64,
    now: Duration,
) -> Result<Option<Decided>, Vec<Reason>> {
    let before = held.map(|held| Sight::of(&held.roles));
    let decided = |wanted: &Arc<Service>, outcome| {
        Ok(Some(Decided { before, wanted: Arc::clone(wanted), outcome, goes: None, overtaken: false }))
    };
    match (held, wanted) {
        (Some(held), Some(wanted)) => {
            let mut outcome = held.roles.file(&Context { now, wanted, next_rollout })?;
            let tables = held.wanted.differing_tables(wanted);
            if !tables.is_empty() {
                outcome.changes.push(format!("{} changed", tables.join(", ")));
            }
            decided(wanted, outcome)
        }
        (None, Some(wanted)) => {
            decided(wanted, Roles::first(First::NewService, memory, &Context { now, wanted, next_rollout })?)
        }
        (Some(held), None) => {
            let outcome = held.roles.removed(now);
            let goes = Some(Memory::of(&outcome.roles, now));
            Ok(Some(Decided { before, wanted: Arc::clone(&held.wanted), outcome, goes, overtaken: false }))
        }
        (None, None) => Ok(None),
    }
}

fn in_order(services: &[Arc<Service>]) -> Vec<&Arc<Service>> {
    let mut services: Vec<_> = services.iter().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

fn sentences(service: &Name, reasons: Vec<Reason>) -> impl Iterator<Item = String> {
    reasons.into_iter().map(move |reason| format!("services.{service}: {reason}"))
}

// === impl Sight ===

impl Sight {
    pub(super) fn of(roles: &Roles) -> Self {
        Self { weight: roles.weight(), active: roles.active().is_some() }
    }
}
