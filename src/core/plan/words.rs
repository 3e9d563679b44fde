//! Changes and refusals as sentences.

use std::fmt;
use std::net::SocketAddr;

use super::{Change, Reason, Refusal, ServiceChange};
use crate::core::id::Version;
use crate::core::weight::Weight;

// === impl ServiceChange ===

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "services.{}: {}", self.service, self.change)
    }
}

// === impl Change ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { stable, candidate: None } => write!(f, "added with stable {stable}"),
            Self::Added { stable, candidate: Some(candidate) } => {
                write!(f, "added with stable {stable} and candidate {candidate} at 0%")
            }
            Self::Removed { abort: None } => f.write_str("removed"),
            Self::Removed { abort: Some(version) } => write!(f, "removed, candidate {version} aborted"),
            Self::Settings { tables } => write!(f, "{} changed", tables.join(", ")),
            Self::DigestDeclared { version } => write!(f, "version {version} has a digest now"),
            Self::Endpoints { version, added, removed } => {
                write!(f, "version {version}: ")?;
                list(f, "added", added)?;
                f.write_str(if added.is_empty() || removed.is_empty() { "" } else { ", " })?;
                list(f, "removed", removed)
            }
            Self::CandidateAdded { version } => write!(f, "candidate {version} added at 0%"),
            Self::CandidateReplaced { from, to } => {
                write!(f, "candidate {from} superseded by {to}, at 0%; all traffic to stable")
            }
            Self::CandidateRemoved { version } => write!(f, "candidate {version} removed, all traffic to stable"),
            Self::StableChanged { from, to } => write!(f, "stable changed from {from} to {to}"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, verb: &str, addresses: &[SocketAddr]) -> fmt::Result {
    for (i, address) in addresses.iter().enumerate() {
        match i {
            0 => write!(f, "{verb} {address}")?,
            _ => write!(f, " {address}")?,
        }
    }
    Ok(())
}

// === impl Refusal ===

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.service;
        write!(f, "services.{name}: ")?;
        match &self.reason {
            Reason::CandidateIsStable { version } => write!(
                f,
                "stable and candidate are both version {version}; give the candidate a version of its own, or remove \
                 [services.{name}.candidate]"
            ),
            Reason::StableIsCandidate { stable, candidate, weight: Weight::FULL, aborted: false } => write!(
                f,
                "{candidate} cannot be made stable here, it is the running candidate and has all traffic already; put \
                 stable back to {stable} in the file. Making it stable without a restart comes with promotion; until then change the file and \
                 restart when it suits"
            ),
            Reason::StableIsCandidate { stable, candidate, weight, aborted: false } => write!(
                f,
                "{candidate} cannot be made stable here, it is the running candidate (at {weight}); put stable back to \
                 {stable} in the file and give it all traffic with `tidegate weight {name} 100%`"
            ),
            Reason::StableIsCandidate { stable, candidate, aborted: true, .. } => write!(
                f,
                "{candidate} cannot be made stable, it is the candidate and it was aborted; put stable back to {stable} in \
                 the file, and release a fixed build under a new version"
            ),
            Reason::BothChanged { running, wanted } => write!(
                f,
                "stable and candidate both change, from {} to {}, so no version known to work would be left; change one of \
                 them, reload, then the other",
                Pair(running),
                Pair(wanted)
            ),
            Reason::DigestChanged { version, running, wanted } => write!(
                f,
                "version {version} runs with digest {running}, but the file says {wanted}; a version never changes its \
                 content, so give the new build a new version"
            ),
        }
    }
}

impl std::error::Error for Refusal {}

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
