//! Precedence: of the routes that take a request, the greatest [`Rank`] wins.

use std::cmp::Reverse;
use std::fmt;

use super::{HostMatch, Matcher, PathMatch, path};

/// How specific a route is. The order of the fields is the order of importance; the greater, the better.
///
/// No two routes of a table are equal, since file order tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    host: HostRank,
    path: PathRank,
    /// How many headers, query parameters and cookies it asks for.
    predicates: usize,
    /// Whether it asks for a method.
    method: bool,
    /// What comes first in the file wins.
    order: Reverse<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Any,
    /// By length.
    Wildcard(usize),
    Exact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// By file order, before anything else is looked at.
    Regex(Reverse<usize>),
    /// By length.
    Prefix(usize),
    Exact,
}

/// What one route won over another by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Exact host over the longest wildcard over any host.
    Host,
    /// Exact path over the longest prefix over regular expressions.
    Path,
    /// Of regular expressions the one that comes first in the file.
    RegexOrder,
    /// More headers, query parameters and cookies asked for.
    Predicates,
    /// A method asked for.
    Method,
    /// Equal in all else: the one that comes first in the file.
    FileOrder,
}

// === impl Rank ===

impl Rank {
    /// The rank of a route at `order` in the file.
    #[must_use]
    pub fn of(matcher: &Matcher, order: usize) -> Self {
        let host = match &matcher.host {
            HostMatch::Exact(_) => HostRank::Exact,
            HostMatch::Wildcard(suffix) => HostRank::Wildcard(suffix.len()),
            HostMatch::Any => HostRank::Any,
        };
        let path = match &matcher.path {
            PathMatch::Exact(_) => PathRank::Exact,
            PathMatch::Prefix(prefix) => PathRank::Prefix(path::trimmed(prefix).len()),
            PathMatch::Regex(_) => PathRank::Regex(Reverse(order)),
        };
        let predicates = matcher.headers.len() + matcher.query.len() + matcher.cookies.len();
        Self { host, path, predicates, method: !matcher.methods.is_empty(), order: Reverse(order) }
    }

    /// What tells `self` and `other` apart.
    #[must_use]
    pub fn criterion(&self, other: &Self) -> Criterion {
        if self.host != other.host {
            return Criterion::Host;
        }
        match (self.path, other.path) {
            (PathRank::Regex(a), PathRank::Regex(b)) if a != b => return Criterion::RegexOrder,
            (a, b) if a != b => return Criterion::Path,
            _ => {}
        }
        if self.predicates != other.predicates {
            Criterion::Predicates
        } else if self.method != other.method {
            Criterion::Method
        } else {
            Criterion::FileOrder
        }
    }
}

// === impl Criterion ===

impl Criterion {
    /// All, the most important first.
    pub const ALL: [Self; 6] =
        [Self::Host, Self::Path, Self::RegexOrder, Self::Predicates, Self::Method, Self::FileOrder];

    /// Why the winner won, to be read after its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "its host is more specific",
            Self::Path => "its path is more specific",
            Self::RegexOrder => "its path expression comes first in the file",
            Self::Predicates => "it asks for more headers, query parameters or cookies",
            Self::Method => "it asks for a method",
            Self::FileOrder => "it comes first in the file",
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::route::{FieldMatch, ValueMatch};

    fn matcher(host: &str, path: &str, predicates: usize, methods: &[&str]) -> Matcher {
        let field = FieldMatch { name: "a".into(), value: ValueMatch::Present(true) };
        Matcher {
            host: if host == "*" { HostMatch::Any } else { HostMatch::parse(host).expect(host) },
            path: match path.split_once(' ') {
                Some(("=", path)) => PathMatch::Exact(path.into()),
                Some((_, regex)) => PathMatch::Regex(regex::bytes::Regex::new(regex).expect(regex)),
                None => PathMatch::Prefix(path.into()),
            },
            methods: methods.iter().map(|&m| m.into()).collect(),
            headers: vec![field.clone(); predicates.min(1)],
            query: vec![field.clone(); predicates.saturating_sub(1).min(1)],
            cookies: vec![field; predicates.saturating_sub(2)],
        }
    }

    #[test]
    fn each_step_of_the_precedence_beats_everything_after_it() {
        let falling = [
            (matcher("a.b.c", "= /x", 0, &[]), 9, Criterion::Path),
            (matcher("a.b.c", "/x/y", 0, &[]), 8, Criterion::Path),
            (matcher("a.b.c", "/x", 3, &["GET"]), 7, Criterion::Path),
            (matcher("a.b.c", "~ ^/x$", 0, &[]), 3, Criterion::RegexOrder),
            (matcher("a.b.c", "~ ^/x$", 3, &["GET"]), 4, Criterion::Host),
            (matcher("*.b.c", "/", 2, &[]), 5, Criterion::Predicates),
            (matcher("*.b.c", "/", 1, &["GET"]), 6, Criterion::Method),
            (matcher("*.b.c", "/", 1, &[]), 1, Criterion::FileOrder),
            (matcher("*.b.c", "", 1, &[]), 2, Criterion::Host),
            (matcher("*.c", "= /x/y/z", 3, &["GET"]), 0, Criterion::Host),
            (matcher("*", "= /x/y/z", 3, &["GET"]), 0, Criterion::Path),
            (matcher("*", "/", 3, &["GET"]), 0, Criterion::FileOrder),
        ];
        for pair in falling.windows(2) {
            let (better, worse) = (Rank::of(&pair[0].0, pair[0].1), Rank::of(&pair[1].0, pair[1].1));
            assert!(better > worse, "{:?} > {:?}", pair[0], pair[1]);
            assert_eq!((better.criterion(&worse), worse.criterion(&better)), (pair[0].2, pair[0].2));
        }
    }

    #[test]
    fn a_closing_slash_of_a_prefix_makes_no_difference() {
        let (with, without) = (matcher("*", "/api/", 0, &[]), matcher("*", "/api", 0, &[]));
        assert_eq!(Rank::of(&with, 0), Rank::of(&without, 0));
    }
}
