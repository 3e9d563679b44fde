//! Which endpoints of a version come and go, in values and in sentences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::endpoint::{Address, Declared, Place, Pool};
use super::id::Version;

/// Most elements of a list that a sentence names.
const LISTED_MAX: usize = 16;

/// What changes about the endpoints of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are other ones.
    Endpoints {
        /// The version.
        version: Version,
        /// New ones, in order of address.
        added: Vec<Address>,
        /// Those that drain, in order of address.
        removed: Vec<Address>,
        /// Those with another weight, in order of address.
        reweighted: Vec<Address>,
    },
    /// They are declared otherwise: by other names, or by other words for the same endpoints.
    Declared {
        /// The version.
        version: Version,
        /// New names, in order.
        added: Vec<Place>,
        /// Names it no longer goes by, in order.
        removed: Vec<Place>,
    },
}

/// What is different about the endpoints of a version, if anything is; their order makes no difference.
#[must_use]
pub fn membership(before: &Pool, after: &Pool) -> Option<Change> {
    let weights =
        |pool: &Pool| pool.endpoints.iter().map(|e| (e.address.clone(), e.weight)).collect::<BTreeMap<_, _>>();
    let (old, new) = (weights(before), weights(after));
    let only = |these: &BTreeMap<Address, u32>, those: &BTreeMap<Address, u32>| {
        these.keys().filter(|address| !those.contains_key(address)).cloned().collect()
    };
    let other = |(address, weight): (&Address, &u32)| new.get(address).is_some_and(|now| now != weight);
    (old != new).then(|| Change::Endpoints {
        version: before.version.clone(),
        added: only(&new, &old),
        removed: only(&old, &new),
        reweighted: old.iter().filter(|known| other(*known)).map(|(address, _)| address.clone()).collect(),
    })
}

/// What is different about how the endpoints of a version are declared, if anything is, whatever names stand for.
#[must_use]
pub fn declaration(before: &Pool, after: &Pool) -> Vec<Change> {
    if is_declared_alike(before, after) {
        return Vec::new();
    }
    let unresolved = |pool: &Pool| pool.resolved(&|_| None);
    let moved = membership(&unresolved(before), &unresolved(after));
    let names = |pool: &Pool| {
        let named = pool.declared.iter().map(|declared| &declared.place).filter(|place| place.question().is_some());
        named.cloned().collect::<BTreeSet<Place>>()
    };
    let (old, new) = (names(before), names(after));
    let named = (old != new || moved.is_none()).then(|| Change::Declared {
        version: before.version.clone(),
        added: new.difference(&old).cloned().collect(),
        removed: old.difference(&new).cloned().collect(),
    });
    named.into_iter().chain(moved).collect()
}

/// Whether both are declared by the same elements, in whatever order.
#[must_use]
pub fn is_declared_alike(a: &Pool, b: &Pool) -> bool {
    let declared = |pool: &Pool| pool.declared.iter().cloned().collect::<BTreeSet<Declared>>();
    a.declared == b.declared || declared(a) == declared(b)
}

// === impl Change ===

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::endpoint::Endpoint;

    fn fixed(endpoints: &[(u8, u32)]) -> Pool {
        let at = |n: u8| Address::from(std::net::SocketAddr::from(([10, 0, 0, n], 80)));
        let endpoint = |&(n, weight): &(u8, u32)| Endpoint { address: at(n), weight };
        Pool::fixed(Version::new("v1").expect("version"), None, endpoints.iter().map(endpoint).collect())
    }

    fn named(name: &str, weight: u32) -> Pool {
        let declared = vec![Declared { place: Place::Host(name.into(), 80), weight }];
        Pool::new(Version::new("v1").expect("version"), None, declared)
    }

    #[test]
    fn weights_that_change_are_a_change_and_long_lists_are_cut() {
        let change = membership(&fixed(&[(1, 1), (2, 2)]), &fixed(&[(1, 1), (2, 3)])).expect("a change");
        assert_eq!(change.to_string(), "version v1: other weight for 10.0.0.2:80");
        assert_eq!(membership(&fixed(&[(1, 1), (2, 2)]), &fixed(&[(2, 2), (1, 1)])), None);
        let twenty: Vec<_> = (1..=20).map(|n| (n, 1)).collect();
        let many = membership(&fixed(&[]), &fixed(&twenty)).expect("a change").to_string();
        assert!(many.ends_with("10.0.0.16:80 and 4 more"), "{many}");
    }

    #[test]
    fn names_are_told_apart_from_addresses_and_from_how_they_are_written() {
        let said = |before: &Pool, after: &Pool| {
            declaration(before, after).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(said(&named("a", 1), &named("b", 1)), "version v1: names added b:80, removed a:80");
        assert_eq!(said(&named("a", 1), &named("a", 2)), "version v1: the same endpoints, written otherwise");
        assert_eq!(
            said(&named("a", 1), &fixed(&[(1, 1)])),
            "version v1: names removed a:80; version v1: added 10.0.0.1:80"
        );
        assert_eq!(said(&fixed(&[(1, 1), (2, 1)]), &fixed(&[(2, 1), (1, 1)])), "");
    }
}
