//! What a changed file does to a service that runs. It acts only through what changed in it since the last one.

use std::sync::Arc;
use std::time::Duration;

use super::settle::{Beginning, By};
use super::{Context, Declared, Effect, Origin, Outcome, Roles, words};
use crate::core::endpoint::Pool;
use crate::core::id::Version;
use crate::core::membership::{declaration, is_declared_alike};
use crate::core::rollout::Command;
use crate::core::rollout::wanted::Start;
use crate::core::service::Service;
use crate::core::weight::Weight;

/// What a file asks for that cannot be done. Nothing of such a file is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Candidate and stable are one version.
    CandidateIsStable(Version),
    /// Stable is to be what is being tried.
    StableIsCandidate {
        /// The version in service.
        stable: Version,
        /// The version on trial.
        candidate: Version,
        /// Its share.
        weight: Weight,
    },
    /// Stable is to be another version while one is being tried.
    StableDuringRollout {
        /// The version the file names.
        wanted: Version,
        /// The version on trial.
        candidate: Version,
    },
    /// Stable is to be a version that was taken back.
    StableQuarantined {
        /// The version in service.
        stable: Version,
        /// The version the file names.
        wanted: Version,
    },
    /// Both versions change at once: nothing known to work would be left.
    BothChanged {
        /// What the file said before.
        before: (Version, Option<Version>),
        /// What it says now.
        wanted: (Version, Option<Version>),
    },
    /// A version is to consist of something else.
    OtherDigest {
        /// The version.
        version: Version,
        /// What it consists of.
        known: String,
        /// What the file says.
        said: String,
    },
}

/// What the versions named in a file ask for.
enum Move {
    Nothing,
    /// The rollout that came from the file ends, and nothing takes its place.
    Withdraw(Version),
    Begin(Arc<Pool>),
    /// `start = "manual"`.
    Wait(Version),
}

impl Roles {
    /// Takes in a file that was reloaded.
    ///
    /// # Errors
    /// Every reason why it is refused.
    pub fn file(&self, context: &Context<'_>) -> Result<Outcome, Vec<Reason>> {
        let reasons = self.refusals(context.wanted);
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let mut next = self.clone();
        let mut changes = next.take_pools(context.wanted);
        let (mut raw, mut began) = (Vec::new(), None);
        match self.asked(context.wanted) {
            Move::Nothing => {}
            Move::Wait(version) => {
                // What was requested by the file is not in it any more.
                if next.active().is_some_and(|current| current.origin == Origin::File) {
                    raw = next.supersede(context.now);
                }
                changes.push(words::waits(&self.service, &version));
            }
            Move::Withdraw(version) => {
                if next.active().is_some() {
                    raw = next.supersede(context.now);
                    changes.push(words::withdrawn(&version));
                }
                if let Some(current) = &mut next.current {
                    current.kept = false;
                }
            }
            Move::Begin(pool) => {
                let from = next.active().map(|current| current.candidate.version.clone());
                changes.push(words::begins(&pool.version, from.as_ref()));
                raw = next.begin(context.next_rollout, beginning(pool, context.wanted, true), context.now);
                began = Some(context.next_rollout);
            }
        }
        changes.extend(next.hold_back(context.wanted));
        next.declared = Declared::of(context.wanted);
        if raw.is_empty() && next == *self {
            return Ok(Outcome { roles: next, effects: Vec::new(), began, changes });
        }
        let by = By::of("file", "reload");
        let effects = next.settle(&self.sight(), raw, Some(by), context.now);
        Ok(Outcome { roles: next, effects, began, changes })
    }

    /// The service is gone from the file: its rollout is aborted first, then it drains. What stays is a
    /// [`Memory`](super::Memory).
    #[must_use]
    pub fn removed(&self, now: Duration) -> Outcome {
        let mut next = self.clone();
        let mut raw = Vec::new();
        let aborted = self.active().map(|current| format!(", candidate {} aborted", current.candidate.version));
        if let Some(current) = next.current.as_mut().filter(|current| !current.rollout.is_over())
            && let Ok(effects) = current.rollout.obey(&current.terms.plan, Command::Abort)
        {
            raw = effects;
        }
        next.warm = None;
        let by = By::of("file", "remove");
        let mut effects = next.settle(&self.sight(), raw, Some(by), now);
        // Even without a rollout the pools go.
        if !effects.contains(&Effect::Publish) {
            effects.push(Effect::Publish);
        }
        Outcome { roles: next, effects, began: None, changes: vec![format!("removed{}", aborted.unwrap_or_default())] }
    }

    pub(super) fn refusals(&self, wanted: &Service) -> Vec<Reason> {
        let candidate = version_of(wanted.candidate.as_ref());
        let mut reasons = Vec::new();
        if candidate == Some(&wanted.stable.version) {
            reasons.push(Reason::CandidateIsStable(wanted.stable.version.clone()));
        }
        reasons.extend(self.refuse_stable(wanted).filter(|_| reasons.is_empty()));
        for pool in std::iter::once(&wanted.stable).chain(&wanted.candidate) {
            if let Some((known, said)) = self.other_digest(pool) {
                let (version, known) = (pool.version.clone(), known.to_owned());
                reasons.push(Reason::OtherDigest { version, known, said });
            }
        }
        reasons
    }

    fn refuse_stable(&self, wanted: &Service) -> Option<Reason> {
        let version = &wanted.stable.version;
        if !self.stable_moves(wanted) {
            return None;
        }
        let stable = self.stable.version.clone();
        if let Some(active) = self.active() {
            let candidate = active.candidate.version.clone();
            return Some(if candidate != *version {
                Reason::StableDuringRollout { wanted: version.clone(), candidate }
            } else if self.declared.stable.version == *version {
                return None;
            } else {
                Reason::StableIsCandidate { stable, candidate, weight: self.weight() }
            });
        }
        let (now, before) = (version_of(wanted.candidate.as_ref()), version_of(self.declared.candidate.as_ref()));
        // That the file catches up with a promotion is no change of its own.
        if now != before && before != Some(&self.stable.version) {
            let before = (self.declared.stable.version.clone(), before.cloned());
            return Some(Reason::BothChanged { before, wanted: (version.clone(), now.cloned()) });
        }
        self.quarantine(version).map(|_| Reason::StableQuarantined { stable, wanted: version.clone() })
    }

    /// The file names another stable than before, and than the one that runs.
    fn stable_moves(&self, wanted: &Service) -> bool {
        let version = &wanted.stable.version;
        *version != self.declared.stable.version && *version != self.stable.version
    }

    fn asked(&self, wanted: &Service) -> Move {
        if self.stable_moves(wanted) {
            return begin_or_wait(&wanted.stable, wanted);
        }
        let (now, before) = (&wanted.candidate, &self.declared.candidate);
        let changed = version_of(now.as_ref()) != version_of(before.as_ref());
        if let Some(pool) = now.as_ref().filter(|_| changed) {
            let runs = self.active().is_some_and(|current| current.candidate.version == pool.version);
            let known = runs || self.stable.version == pool.version || self.quarantine(&pool.version).is_some();
            if !known {
                return begin_or_wait(pool, wanted);
            }
        }
        self.withdrawn(wanted).map_or(Move::Nothing, Move::Withdraw)
    }

    /// The version of the latest rollout, if the file named it and does so no longer.
    fn withdrawn(&self, wanted: &Service) -> Option<Version> {
        let current = self.current.as_ref()?;
        let version = &current.candidate.version;
        let listed = wanted.stable.version == *version || version_of(wanted.candidate.as_ref()) == Some(version);
        let mine = current.rollout.is_over() || current.origin == Origin::File;
        let gone = self.declared.pool(version).is_some() && !listed && mine;
        (gone && self.candidate().is_some()).then(|| version.clone())
    }

    /// Endpoints and digests of versions that are known, as far as the file changed them.
    fn take_pools(&mut self, wanted: &Service) -> Vec<String> {
        let mut changes = Vec::new();
        for pool in std::iter::once(&wanted.stable).chain(&wanted.candidate) {
            if let Some(digest) = &pool.digest {
                let known = self.remember(&pool.version);
                if known.digest.is_none() {
                    known.digest = Some(digest.clone());
                    changes.push(words::digest(&pool.version));
                }
            }
            let said = self.declared.pool(&pool.version);
            if said.is_some_and(|said| is_declared_alike(said, pool)) {
                continue;
            }
            let current = self.current.as_mut().map(|current| &mut current.candidate);
            let warm = self.warm.as_mut().map(|warm| &mut warm.pool);
            let mut shown = Vec::new();
            for known in std::iter::once(&mut self.stable).chain(current).chain(warm) {
                if known.version == pool.version && !is_declared_alike(known, pool) {
                    shown = declaration(known, pool);
                    let digest = known.digest.clone();
                    *known = Arc::new(Pool::new(known.version.clone(), digest, pool.declared.clone()));
                }
            }
            changes.extend(shown.iter().map(ToString::to_string));
        }
        changes
    }

    /// A plan or gate that changed is for the next rollout: the one in flight is pinned.
    fn hold_back(&mut self, wanted: &Service) -> Option<String> {
        let current = self.current.as_mut().filter(|current| !current.rollout.is_over() && !current.own_terms)?;
        let terms = &wanted.rollout.terms;
        let pending = (*current.terms != *terms).then(|| Arc::new(terms.clone()));
        let new = pending.is_some() && current.pending != pending;
        current.pending = pending;
        new.then(|| words::pending(&current.candidate.version))
    }

    /// Takes in the file at a start of the process, when there is a record: what runs goes on, whatever versions the file names.
    pub(super) fn take_file_at_start(&mut self, wanted: &Service) -> Result<Vec<String>, Vec<Reason>> {
        let digests = self.refusals(wanted).into_iter().filter(|reason| matches!(reason, Reason::OtherDigest { .. }));
        let reasons: Vec<_> = digests.collect();
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let mut changes = self.take_pools(wanted);
        changes.extend(self.hold_back(wanted));
        self.declared = Declared::of(wanted);
        Ok(changes)
    }
}

fn begin_or_wait(pool: &Arc<Pool>, wanted: &Service) -> Move {
    match wanted.rollout.start {
        Start::Auto => Move::Begin(Arc::clone(pool)),
        Start::Manual => Move::Wait(pool.version.clone()),
    }
}

pub(super) fn beginning(pool: Arc<Pool>, wanted: &Service, known: bool) -> Beginning {
    let terms = Arc::new(wanted.rollout.terms.clone());
    Beginning { pool, origin: Origin::File, terms, own_terms: false, known, by_hand: None }
}

fn version_of(pool: Option<&Arc<Pool>>) -> Option<&Version> {
    pool.map(|pool| &pool.version)
}
