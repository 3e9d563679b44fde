//! What the file does to all services together: at the start of the process, and when it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Decided, Deeds, Desk, Entry, Held, Proposal, Sight, Written};
use crate::core::id::Name;
use crate::core::roles::{Context, Effect, First, Note, Outcome, Reason, Roles};
use crate::core::service::Service;

/// What the store knew at the start.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Records by service.
    pub roles: BTreeMap<Name, Roles>,
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
    /// Everything as it was: of every service in the file what its record says, else what the file says. Records of services that are not
    /// in the file any more are forgotten. Everything that has to be done for it comes with it; all of it is true already.
    ///
    /// # Errors
    /// What the file asks for that cannot be done, a sentence each.
    pub fn open(stored: Stored, wanted: &[Arc<Service>], now: Duration) -> Result<(Self, Deeds), Vec<String>> {
        let known = stored.roles.values().filter_map(|roles| Some(roles.current.as_ref()?.id + 1)).max();
        let next_rollout = stored.next_rollout.max(known.unwrap_or(1)).max(1);
        let mut desk = Self { held: Vec::new(), next_rollout, writing: None };
        let (mut deeds, mut refusals, mut roles) = (Deeds::default(), Vec::new(), stored.roles);
        for wanted in in_order(wanted) {
            let context = Context { now, wanted, next_rollout: desk.next_rollout };
            let record = roles.remove(&wanted.name);
            let outcome = match &record {
                Some(record) => {
                    let seen = record.active().map(|current| current.rollout.seen).unwrap_or_default();
                    record.boot(&context, seen)
                }
                None => first(First::EmptyStore, &context),
            };
            let before = record.as_ref().map(Sight::of);
            match outcome {
                Ok(outcome) => {
                    desk.next_rollout += u64::from(outcome.began.is_some());
                    let wanted = Arc::clone(wanted);
                    let mut decided = Decided { before, wanted, outcome, goes: false, overtaken: false };
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
        deeds.owed.extend(roles.into_iter().map(|(service, gone)| forgotten(service, &gone, now)));
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
            match decide(held, wanted, next_rollout, now) {
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
            return Written::Overtaken { as_is: self.as_is(&proposal) };
        }
        let mut deeds = Deeds::default();
        let mut held = Vec::with_capacity(proposal.decided.len());
        for decided in proposal.decided {
            deeds.take_in(&decided);
            if !decided.goes {
                held.push(Held { wanted: decided.wanted, roles: decided.outcome.roles });
            }
        }
        self.held = held;
        Written::True { deeds, overtaken: Vec::new() }
    }
}

fn decide(
    held: Option<&Held>,
    wanted: Option<&Arc<Service>>,
    next_rollout: u64,
    now: Duration,
) -> Result<Option<Decided>, Vec<Reason>> {
    let before = held.map(|held| Sight::of(&held.roles));
    let decided = |wanted: &Arc<Service>, outcome, goes| {
        Ok(Some(Decided { before, wanted: Arc::clone(wanted), outcome, goes, overtaken: false }))
    };
    match (held, wanted) {
        (Some(held), Some(wanted)) => {
            let mut outcome = held.roles.file(&Context { now, wanted, next_rollout })?;
            let tables = held.wanted.differing_tables(wanted);
            if !tables.is_empty() {
                outcome.changes.push(format!("{} changed", tables.join(", ")));
            }
            decided(wanted, outcome, false)
        }
        (None, Some(wanted)) => {
            decided(wanted, first(First::NewService, &Context { now, wanted, next_rollout })?, false)
        }
        (Some(held), None) => decided(&held.wanted, held.roles.removed(now), true),
        (None, None) => Ok(None),
    }
}

/// A service without a record.
fn first(first: First, context: &Context<'_>) -> Result<Outcome, Vec<Reason>> {
    let wanted = context.wanted;
    match wanted.candidate.as_ref().filter(|candidate| candidate.version == wanted.stable.version) {
        Some(candidate) => Err(vec![Reason::CandidateIsStable(candidate.version.clone())]),
        None => Ok(Roles::first(first, context)),
    }
}

/// A service that left the file while nobody looked.
fn forgotten(service: Name, roles: &Roles, now: Duration) -> Entry {
    let notes = roles.removed(now).effects.into_iter().filter_map(|effect| match effect {
        Effect::Record(note) => Some(note),
        _ => None,
    });
    let notes: Vec<Note> = notes.collect();
    Entry { service, roles: None, notes, over: Vec::new() }
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
