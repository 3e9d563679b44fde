//! Changes, refusals and differences as sentences.

use std::fmt;

use super::file::Reason;
use super::settle::Sight;
use super::verbs::Refused;
use super::{Declared, Origin, Roles};
use crate::core::id::{Name, Version};
use crate::core::rollout::wanted::Start;
use crate::core::rollout::{End, PauseReason};
use crate::core::service::Service;

/// Stable, candidate, where its rollout is.
pub(super) fn sight(sight: &Sight) -> String {
    let Sight { running, stable, candidate, phase, pause, step, .. } = sight;
    let pause = pause.map(|reason| format!("({})", reason.as_str())).unwrap_or_default();
    let (stable, step) = (&stable.version, step + 1);
    match candidate {
        Some(pool) => {
            let (version, weight) = (&pool.version, running.weight);
            format!("stable {stable}, candidate {version} at {weight}, {phase}{pause}, step {step}")
        }
        None => format!("stable {stable}, {phase}"),
    }
}

pub(super) fn added(wanted: &Service) -> String {
    match &wanted.candidate {
        Some(candidate) => format!("added with stable {} and candidate {}", wanted.stable.version, candidate.version),
        None => format!("added with stable {}", wanted.stable.version),
    }
}

pub(super) fn begins(version: &Version, from: Option<&Version>) -> String {
    match from {
        Some(from) => format!("candidate {from} superseded by {version}, whose rollout begins at 0%"),
        None => format!("rollout of {version} begins at 0%"),
    }
}

pub(super) fn waits(service: &Name, version: &Version) -> String {
    format!("{version} waits for `tidegate rollout start {service}`")
}

pub(super) fn withdrawn(version: &Version) -> String {
    format!("candidate {version} removed, its rollout superseded: all traffic to stable")
}

pub(super) fn digest(version: &Version) -> String {
    format!("version {version} has a digest now")
}

pub(super) fn pending(version: &Version) -> String {
    format!("the rollout of {version} keeps its plan and gate; the new ones are for the next rollout")
}

impl Roles {
    /// That `version` is not tried, if it is not.
    pub(super) fn quarantined(&self, version: &Version) -> Option<String> {
        let quarantine = self.quarantine(version)?;
        Some(format!(
            "{version} is quarantined since rollout {}; `tidegate retry {}` with a reason tries it again",
            quarantine.rollout, self.service
        ))
    }

    /// Where the file and what runs differ, a sentence each. `wanted` is the file as it was taken in last.
    #[must_use]
    pub fn differences(&self, wanted: &Service) -> Vec<String> {
        let Declared { stable, candidate } = Declared::of(wanted);
        let mut said = Vec::new();
        let running = &self.stable.version;
        let active = self.active();
        let tried = active.map(|current| &current.candidate.version);
        if stable.version != *running && tried != Some(&stable.version) {
            said.push(format!("file is behind: stable is {running}, the file says {}", stable.version));
        }
        if let Some(version) = candidate.as_ref().map(|pool| &pool.version).filter(|version| Some(*version) != tried) {
            if version == running {
                // Promoted; said above, unless the file says it twice.
            } else if let Some(quarantined) = self.quarantined(version) {
                said.push(quarantined);
            } else if wanted.rollout.start == Start::Manual || tried.is_none() {
                said.push(waits(&self.service, version));
            } else {
                said.push(format!("the file names candidate {version}, and it is not the one on trial"));
            }
        }
        if let Some(current) = active {
            let version = &current.candidate.version;
            let paused = current.rollout.pause.map(|pause| pause.reason);
            if paused == Some(PauseReason::NoHistory) {
                said.push(format!("{}: nothing is known of what ran before", waits(&self.service, version)));
            }
            let listed = Declared::of(wanted).pool(version).is_some();
            match current.origin {
                Origin::Command if !listed => {
                    said.push(format!("{version} is on trial by a command; the file does not name it"));
                }
                Origin::File if !listed => {
                    said.push(format!("file is behind: {version} is on trial, the file does not name it"));
                }
                _ => {}
            }
            if current.pending.is_some() {
                said.push(pending(version));
            }
        }
        said
    }
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRollout => f.write_str("there is no rollout; start one, or name a candidate in the file"),
            Self::NoSuchRollout(id) => write!(f, "there is no rollout {id}"),
            Self::State(refused) => refused.fmt(f),
            Self::Runs(version) => write!(f, "a rollout of {version} runs; abort it first, or start with supersede"),
            Self::OtherPlan(version) => write!(
                f,
                "a rollout of {version} runs under another plan, which is pinned; go on without one, or abort it first"
            ),
            Self::IsStable(version) => write!(f, "{version} is stable already; abort takes everything back to it"),
            Self::Quarantined(version) => {
                write!(f, "{version} was taken back and is quarantined; retry it and say why it is safe now")
            }
            Self::NoEndpoints(version) => {
                write!(f, "nobody said where {version} runs; give its endpoints, or name it in the file")
            }
            Self::OtherDigest { version, known, said } => write!(
                f,
                "version {version} has digest {known}, not {said}; a version never changes its content, so give the new \
                 build a new version"
            ),
            Self::NeedsReason(what) => write!(f, "{what} needs a reason"),
            Self::Stale { step, revision } => {
                write!(f, "it has moved on: step {step} is in force, at revision {revision}; look again")
            }
            Self::StepStays { step, revision } => write!(
                f,
                "step {step} is not in force yet, and is the one in force after it: expected_step does not tell the first of two from \
                 the second; look again, at revision {revision}, and say If-Match"
            ),
            Self::OnlyFullIsForced => f.write_str("force is only for a promotion to \"full\""),
            Self::Unconditional => f.write_str("say what you believe to be true: expected_step, or If-Match"),
            Self::NothingToRollBack => {
                f.write_str("the old stable is kept no longer (keep_stable); start a rollout of it instead")
            }
            Self::NothingToRetry => f.write_str("there is no version that was tried and taken back"),
        }
    }
}

impl std::error::Error for Refused {}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CandidateIsStable(version) => {
                write!(f, "stable and candidate are both version {version}; a candidate has a version of its own")
            }
            Self::StableIsCandidate { stable, candidate, weight } => write!(
                f,
                "{candidate} cannot be made stable here, it is the candidate of the rollout that runs (at {weight}); put stable \
                 back to {stable} in the file, and promote it with `tidegate promote`"
            ),
            Self::StableDuringRollout { wanted, candidate } => write!(
                f,
                "stable cannot become {wanted} while {candidate} is on trial; promote or abort that first, then reload"
            ),
            Self::StableQuarantined { stable, wanted } => write!(
                f,
                "{wanted} cannot be made stable, it was taken back; put stable back to {stable} in the file, and release a \
                 fixed build under a new version, or retry it with a reason"
            ),
            Self::BothChanged { before, wanted } => write!(
                f,
                "stable and candidate both change, from {} to {}, so no version known to work would be left; change one of \
                 them, reload, then the other",
                Pair(before),
                Pair(wanted)
            ),
            Self::OtherDigest { version, known, said } => write!(
                f,
                "version {version} has digest {known}, but the file says {said}; a version never changes its content, so give \
                 the new build a new version"
            ),
        }
    }
}

impl std::error::Error for Reason {}

/// Stable and candidate.
struct Pair<'a>(&'a (Version, Option<Version>));

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (stable, Some(candidate)) => write!(f, "stable {stable} with candidate {candidate}"),
            (stable, None) => write!(f, "stable {stable} alone"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
