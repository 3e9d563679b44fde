//! Routes: which service a request belongs to. Precedence is one [`Ord`]; file order breaks ties.

pub mod explain;
pub mod host;
pub mod path;
pub mod predicate;
pub mod rank;
pub mod table;
mod trie;

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::assign::Salt;
use super::service::KeySource;
use super::weight::Split;

/// One route, everything resolved. `S` names a service: a [`super::id::Name`] in the configuration, an index in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<S> {
    /// Which requests it takes.
    pub matcher: Matcher,
    /// Where they go.
    pub target: Target<S>,
    /// Longest wait for the response head, all attempts together; absent: the service's `response_timeout`.
    pub timeout: Option<Duration>,
    /// How it is called in messages, and `explain`: `routes[3]`.
    pub label: String,
}

/// Which requests a route takes: all conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// The host.
    pub host: HostMatch,
    /// The path.
    pub path: PathMatch,
    /// Upper-case methods; empty: any.
    pub methods: Vec<String>,
    /// Header predicates.
    pub headers: Vec<FieldMatch>,
    /// Query parameter predicates.
    pub query: Vec<FieldMatch>,
    /// Cookie predicates.
    pub cookies: Vec<FieldMatch>,
}

/// A host pattern; lower case, without port and trailing dot ([`HostMatch::parse`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// This host.
    Exact(String),
    /// `*.example.com`: any host below it, kept as `.example.com`.
    Wildcard(String),
    /// Any host.
    Any,
}

/// A path pattern, over the normalised path; paths in the form [`path::pattern`] gives them.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// This path.
    Exact(Vec<u8>),
    /// This path and all below it, by whole segments; a closing `/` makes no difference ([`path::is_within`]).
    Prefix(Vec<u8>),
    /// Any path the expression is found in.
    Regex(regex::bytes::Regex),
}

/// A predicate over a header, query parameter or cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldMatch {
    /// Its name (headers: lower case).
    pub name: String,
    /// What its value must be. Of several headers of one name any will do; of several query parameters or cookies of one name the
    /// first counts, as for affinity.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(Vec<u8>),
    /// Begin with this.
    Prefix(Vec<u8>),
    /// Contain a match.
    Regex(regex::bytes::Regex),
    /// Be there (true) or not be there (false).
    Present(bool),
}

/// Where a route sends its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<S> {
    /// To one service.
    Service(S),
    /// To several, by fixed shares.
    Split {
        /// The shares.
        split: Split<S>,
        /// Which requests stay together; empty: drawn anew for each request.
        key: Vec<KeySource>,
    },
}

// === Equality: expressions are equal when their patterns are ===

impl PathMatch {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Exact(path) => (0, path),
            Self::Prefix(path) => (1, path),
            Self::Regex(regex) => (2, regex.as_str().as_bytes()),
        }
    }
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for PathMatch {}

impl Hash for PathMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl ValueMatch {
    fn parts(&self) -> (u8, &[u8]) {
        match self {
            Self::Exact(value) => (0, value),
            Self::Prefix(value) => (1, value),
            Self::Regex(regex) => (2, regex.as_str().as_bytes()),
            Self::Present(false) => (3, b""),
            Self::Present(true) => (4, b""),
        }
    }
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ValueMatch {}

impl Hash for ValueMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

// === impl Matcher ===

impl Matcher {
    /// Salt of the route's split; made of the host and path it matches, so that moving the route in the file moves nobody.
    #[must_use]
    pub fn salt(&self) -> Salt {
        let host = match &self.host {
            HostMatch::Exact(host) => host.as_bytes(),
            HostMatch::Wildcard(suffix) => suffix.as_bytes(),
            HostMatch::Any => b"",
        };
        let (kind, path) = self.path.parts();
        Salt::of_route(&[host, &[kind], path])
    }
}

// === impl Target ===

impl<S> Target<S> {
    /// The same target with every service named another way.
    ///
    /// # Errors
    /// The first one `name` returns.
    pub fn try_map<T, E>(&self, name: impl Fn(&S) -> Result<T, E>) -> Result<Target<T>, E> {
        Ok(match self {
            Self::Service(service) => Target::Service(name(service)?),
            Self::Split { split, key } => Target::Split { split: split.try_map(name)?, key: key.clone() },
        })
    }
}
