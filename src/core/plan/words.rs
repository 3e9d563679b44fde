//! Changes and refusals as sentences.

use std::fmt;

use super::{Change, Reason, Refusal, ServiceChange};
use crate::core::id::Version;
use crate::core::weight::Weight;

/// Most elements of a list that a sentence names.
const LISTED_MAX: usize = 16;

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
            Self::Endpoints { version, added, removed, reweighted } => {
                write!(f, "version {version}: ")?;
                lists(f, [("added", added), ("removed", removed), ("other weight for", reweighted)])
            }
            Self::Declared { version, added, removed } if added.is_empty() && removed.is_empty() => {
                write!(f, "version {version}: the same endpoints, written otherwise")
            }
            Self::Declared { version, added, removed } => {
                write!(f, "version {version}: names ")?;
                lists(f, [("added", added), ("removed", removed)])
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

/// Lists that are not empty, each by its verb, cut when they are long.
fn lists<T: fmt::Display, const N: usize>(f: &mut fmt::Formatter<'_>, lists: [(&str, &Vec<T>); N]) -> fmt::Result {
    let some = lists.into_iter().filter(|(_, elements)| !elements.is_empty());
    for (i, (verb, elements)) in some.enumerate() {
        write!(f, "{}{verb}", if i > 0 { ", " } else { "" })?;
        for element in elements.iter().take(LISTED_MAX) {
            write!(f, " {element}")?;
        }
        if elements.len() > LISTED_MAX {
            write!(f, " and {} more", elements.len() - LISTED_MAX)?;
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
