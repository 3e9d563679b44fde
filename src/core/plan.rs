//! What a changed file asks for, compared with what runs.
//!
//! File and running state meet by version name. A version that runs in neither role is new; for one that is known only its endpoints
//! can change. What the file says about traffic it says only through new versions: an unchanged or reformatted file moves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::Pool;
use super::id::{Name, Version};
use super::service::Service;
use super::snapshot::Running;
use super::weight::Weight;

/// What follows from a file that is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What changes, in order of service name; empty when the file changes nothing.
    pub changes: Vec<ServiceChange>,
    /// The services that run from now on, in order of name. Where nothing changed these are the ones that ran.
    pub services: Vec<(Arc<Service>, Running)>,
    /// Number of the next rollout.
    pub next_rollout: u64,
}

/// One thing that changes about a service; a service may have several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChange {
    /// The service.
    pub service: Name,
    /// What changes.
    pub change: Change,
}

/// What changes about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added {
        /// The release in service.
        stable: Version,
        /// The release on trial; begins at weight 0.
        candidate: Option<Version>,
    },
    /// It is gone: its candidate, if one is open, is aborted first, then it drains.
    Removed {
        /// The candidate to abort, if there is one that is not aborted yet.
        abort: Option<Version>,
    },
    /// How it is reached or assigned differs.
    Settings {
        /// The tables of the service that differ: `upstream`, `health`, `force`, `affinity`, `rollout`.
        tables: Vec<&'static str>,
    },
    /// A version that runs was given a digest it did not have.
    DigestDeclared {
        /// The version.
        version: Version,
    },
    /// A version that runs has other endpoints.
    Endpoints {
        /// The version.
        version: Version,
        /// New ones, in order of address.
        added: Vec<SocketAddr>,
        /// Those that drain, in order of address.
        removed: Vec<SocketAddr>,
    },
    /// A candidate where there was none; begins at weight 0.
    CandidateAdded {
        /// The candidate.
        version: Version,
    },
    /// Another candidate: the one that ran is superseded, the new one begins at weight 0.
    CandidateReplaced {
        /// The one that is superseded.
        from: Version,
        /// The one that begins.
        to: Version,
    },
    /// The candidate is superseded and nothing takes its place: everything goes to stable.
    CandidateRemoved {
        /// The one that is superseded.
        version: Version,
    },
    /// Stable is another version, in place at once, as the file asks.
    StableChanged {
        /// The one that drains.
        from: Version,
        /// The one that takes over.
        to: Version,
    },
}

/// Why a file is refused, for one service. Nothing of such a file is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The service.
    pub service: Name,
    /// What it asks for that cannot be done.
    pub reason: Reason,
}

/// What a file asks for that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Candidate and stable are one version.
    CandidateIsStable {
        /// That version.
        version: Version,
    },
    /// Stable is to be what is the running candidate.
    StableIsCandidate {
        /// The version in service.
        stable: Version,
        /// The version on trial.
        candidate: Version,
        /// Its share.
        weight: Weight,
        /// Whether it was aborted.
        aborted: bool,
    },
    /// Both versions change at once: there would be nothing known to compare with or to go back to.
    BothChanged {
        /// The versions in service and on trial.
        running: (Version, Option<Version>),
        /// The versions the file names.
        wanted: (Version, Option<Version>),
    },
    /// A version that runs is to have another digest.
    DigestChanged {
        /// The version.
        version: Version,
        /// The digest it runs with.
        running: String,
        /// The digest in the file.
        wanted: String,
    },
}

/// Compares what runs with the services a new file wants; names are distinct within each. The order of services and of endpoints
/// makes no difference. `next_rollout` numbers the rollouts that begin.
///
/// A candidate that runs keeps its weight, and an aborted one stays aborted while it is listed. A new candidate begins at weight 0; so
/// does one that was listed before, since only what runs now is known here.
///
/// # Errors
/// Every refusal, in order of service name. Nothing may be applied then.
pub fn plan(
    running: &[(Arc<Service>, Running)],
    wanted: &[Arc<Service>],
    next_rollout: u64,
) -> Result<Plan, Vec<Refusal>> {
    let running: BTreeMap<&Name, &(Arc<Service>, Running)> = running.iter().map(|r| (&r.0.name, r)).collect();
    let wanted: BTreeMap<&Name, &Arc<Service>> = wanted.iter().map(|w| (&w.name, w)).collect();
    let mut plan = Plan { changes: Vec::new(), services: Vec::new(), next_rollout };
    let mut refusals = Vec::new();
    let names: BTreeSet<&Name> = running.keys().chain(wanted.keys()).copied().collect();
    for name in names {
        match (running.get(name), wanted.get(name)) {
            (Some((service, state)), None) => plan.remove(service, state),
            (None, Some(wanted)) => match refuse_new(wanted) {
                Some(reason) => refusals.push(Refusal { service: name.clone(), reason }),
                None => plan.add(wanted),
            },
            (Some((service, state)), Some(wanted)) => {
                let reasons = refuse(service, state, wanted);
                if reasons.is_empty() {
                    plan.change(service, state, wanted);
                }
                refusals.extend(reasons.into_iter().map(|reason| Refusal { service: name.clone(), reason }));
            }
            (None, None) => {}
        }
    }
    if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
}

fn refuse_new(wanted: &Service) -> Option<Reason> {
    let candidate = wanted.candidate.as_ref()?;
    let same = candidate.version == wanted.stable.version;
    same.then(|| Reason::CandidateIsStable { version: candidate.version.clone() })
}

fn refuse(running: &Service, state: &Running, wanted: &Service) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = refuse_new(wanted).into_iter().collect();
    let stable_changed = wanted.stable.version != running.stable.version;
    match &running.candidate {
        Some(candidate) if wanted.stable.version == candidate.version => reasons.push(Reason::StableIsCandidate {
            stable: running.stable.version.clone(),
            candidate: candidate.version.clone(),
            weight: state.weight,
            aborted: state.aborted,
        }),
        // What is wrong with the names is said already; that both changed would not help.
        _ if stable_changed && candidate_of(wanted) != candidate_of(running) && reasons.is_empty() => {
            let versions = |s: &Service| (s.stable.version.clone(), candidate_of(s).cloned());
            reasons.push(Reason::BothChanged { running: versions(running), wanted: versions(wanted) });
        }
        _ => {}
    }
    let pools = pools(wanted).filter_map(|pool| Some((known(running, &pool.version)?, pool)));
    reasons.extend(pools.filter_map(|(before, pool)| refuse_digest(before, pool)));
    reasons
}

fn refuse_digest(running: &Pool, wanted: &Pool) -> Option<Reason> {
    let (before, after) = (running.digest.as_ref()?, wanted.digest.as_ref()?);
    (before != after).then(|| Reason::DigestChanged {
        version: running.version.clone(),
        running: before.clone(),
        wanted: after.clone(),
    })
}

fn candidate_of(service: &Service) -> Option<&Version> {
    service.candidate.as_ref().map(|pool| &pool.version)
}

fn pools(service: &Service) -> impl Iterator<Item = &Arc<Pool>> {
    std::iter::once(&service.stable).chain(&service.candidate)
}

/// The pool that runs `version`, in either role.
fn known<'a>(running: &'a Service, version: &Version) -> Option<&'a Arc<Pool>> {
    pools(running).find(|pool| pool.version == *version)
}

/// The pool that runs from now on, and what changes about it. A digest that is no longer written is still known, and endpoints in
/// another order are the same.
fn merge(running: &Arc<Pool>, wanted: &Arc<Pool>) -> (Arc<Pool>, Vec<Change>) {
    let addresses = |pool: &Pool| pool.endpoints.iter().map(|e| e.address).collect::<BTreeSet<_>>();
    let (before, after) = (addresses(running), addresses(wanted));
    let mut merged = Pool::clone(running);
    let mut changes = Vec::new();
    if running.digest.is_none() && wanted.digest.is_some() {
        merged.digest.clone_from(&wanted.digest);
        changes.push(Change::DigestDeclared { version: running.version.clone() });
    }
    if before != after {
        merged.endpoints.clone_from(&wanted.endpoints);
        changes.push(Change::Endpoints {
            version: running.version.clone(),
            added: after.difference(&before).copied().collect(),
            removed: before.difference(&after).copied().collect(),
        });
    }
    if changes.is_empty() { (Arc::clone(running), changes) } else { (Arc::new(merged), changes) }
}

fn settings(running: &Service, wanted: &Service) -> Option<Change> {
    let tables: Vec<_> = [
        ("upstream", running.upstream != wanted.upstream),
        ("health", running.health != wanted.health),
        ("force", running.force != wanted.force),
        ("affinity", running.affinity != wanted.affinity),
        ("rollout", running.rollout != wanted.rollout),
    ]
    .into_iter()
    .filter_map(|(table, differs)| differs.then_some(table))
    .collect();
    (!tables.is_empty()).then_some(Change::Settings { tables })
}

// === impl Plan ===

impl Plan {
    fn add(&mut self, wanted: &Arc<Service>) {
        let state = self.begin(wanted.candidate.is_some());
        self.push(
            &wanted.name,
            Change::Added { stable: wanted.stable.version.clone(), candidate: candidate_of(wanted).cloned() },
        );
        self.services.push((Arc::clone(wanted), state));
    }

    fn remove(&mut self, service: &Service, state: &Running) {
        let abort = candidate_of(service).filter(|_| !state.aborted).cloned();
        self.push(&service.name, Change::Removed { abort });
    }

    fn change(&mut self, running: &Arc<Service>, state: &Running, wanted: &Arc<Service>) {
        let before = self.changes.len();
        let stable = self.change_stable(running, &wanted.stable);
        let (candidate, state) = self.change_candidate(running, state, wanted.candidate.as_ref());
        if let Some(change) = settings(running, wanted) {
            self.push(&running.name, change);
        }
        let service = if self.changes.len() == before {
            Arc::clone(running)
        } else {
            Arc::new(Service { stable, candidate, ..Service::clone(wanted) })
        };
        self.services.push((service, state));
    }

    fn change_stable(&mut self, running: &Service, wanted: &Arc<Pool>) -> Arc<Pool> {
        if wanted.version == running.stable.version {
            return self.merge(&running.name, &running.stable, wanted);
        }
        let (from, to) = (running.stable.version.clone(), wanted.version.clone());
        self.push(&running.name, Change::StableChanged { from, to });
        Arc::clone(wanted)
    }

    fn change_candidate(
        &mut self,
        running: &Service,
        state: &Running,
        wanted: Option<&Arc<Pool>>,
    ) -> (Option<Arc<Pool>>, Running) {
        let change = match (&running.candidate, wanted) {
            (None, None) => return (None, state.clone()),
            (Some(before), Some(after)) if before.version == after.version => {
                return (Some(self.merge(&running.name, before, after)), state.clone());
            }
            (Some(before), Some(after)) => {
                Change::CandidateReplaced { from: before.version.clone(), to: after.version.clone() }
            }
            (None, Some(after)) => Change::CandidateAdded { version: after.version.clone() },
            (Some(before), None) => {
                self.push(&running.name, Change::CandidateRemoved { version: before.version.clone() });
                return (None, Running::idle(state.rollout));
            }
        };
        self.push(&running.name, change);
        (wanted.cloned(), self.begin(true))
    }

    fn merge(&mut self, service: &Name, running: &Arc<Pool>, wanted: &Arc<Pool>) -> Arc<Pool> {
        let (pool, changes) = merge(running, wanted);
        for change in changes {
            self.push(service, change);
        }
        pool
    }

    /// Everything on stable, and a number of its own for a rollout that begins.
    fn begin(&mut self, rollout: bool) -> Running {
        let number = self.next_rollout;
        self.next_rollout += u64::from(rollout);
        Running::idle(if rollout { number } else { 0 })
    }

    fn push(&mut self, service: &Name, change: Change) {
        self.changes.push(ServiceChange { service: service.clone(), change });
    }
}

mod words;

#[cfg(test)]
mod tests;
