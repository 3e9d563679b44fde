//! The route table: finds the most specific route.

use std::cmp::Reverse;
use std::ops::Range;

use super::predicate::Subject;
use super::rank::Rank;
use super::trie::{Trie, TrieBuilder, index};
use super::{HostMatch, PathMatch, Route, path};

/// Routes, indexed by host and path.
///
/// Hosts are a tree of labels from the right; below each host pattern is a tree of path segments, whose nodes hold the routes of one
/// path in order of precedence. A lookup visits the patterns from the most specific to the least, so the first route whose other
/// conditions hold is the greatest [`Rank`] among those that take the request. Lookup tables hold only what the configuration put
/// there, so no request can make them slow; its cost grows with the labels of host and path, with the number of routes that differ in
/// predicates alone, and with the number of regular expressions of the host.
#[derive(Debug)]
pub struct RouteTable {
    routes: Box<[Route<usize>]>,
    /// Values are indices into `sites`.
    hosts: Trie,
    /// Roots are those of `sites`; values are indices into `lists`.
    paths: Trie,
    sites: Box<[Site]>,
    any: Option<u32>,
    /// Ranges of `order`, one per path of a site.
    lists: Box<[Range<u32>]>,
    /// Indices of routes.
    order: Box<[u32]>,
}

/// The routes of one host pattern.
#[derive(Debug)]
struct Site {
    /// Root of its paths.
    root: u32,
    /// Range of `order`: routes with a regular expression, in file order.
    regexes: Range<u32>,
}

/// Root of the hosts.
const HOSTS: u32 = 0;

// === impl RouteTable ===

impl RouteTable {
    /// Indexes `routes`, given in file order.
    #[must_use]
    pub fn new(routes: Vec<Route<usize>>) -> Self {
        let mut build = Build::default();
        build.hosts.root();
        // In order of precedence, so that every list is in order of precedence too.
        let mut ranked: Vec<_> = routes.iter().enumerate().collect();
        ranked.sort_by_cached_key(|(at, route)| Reverse(Rank::of(&route.matcher, *at)));
        for (at, route) in ranked {
            build.add(index(at), route);
        }
        build.finish(routes)
    }

    /// The routes in file order.
    #[must_use]
    pub fn routes(&self) -> &[Route<usize>] {
        &self.routes
    }

    /// The route that takes the request: the greatest [`Rank`] among those all of whose conditions hold. Does not allocate (but see
    /// [`super::Matcher::miss`]).
    ///
    /// A more specific host whose routes do not take the request leaves it to the next. The method is a condition like any other: a
    /// route that matches but for its method does not match, and when no other does the answer is 404, not 405, because which methods
    /// a path has is the upstream's to say.
    #[must_use]
    pub fn find(&self, subject: &Subject<'_>) -> Option<&Route<usize>> {
        self.find_index(subject).map(|at| &self.routes[at])
    }

    /// As [`find`](Self::find): the index of the route, in file order.
    #[must_use]
    pub fn find_index(&self, subject: &Subject<'_>) -> Option<usize> {
        let host = self.hosts.walk(HOSTS, host_labels(subject.host));
        // `*.example.com` does not take `example.com`.
        let mut sites = self.hosts.exact(host).into_iter().chain(self.hosts.below(host, true)).chain(self.any);
        sites.find_map(|site| self.find_in(&self.sites[site as usize], subject))
    }

    fn find_in(&self, site: &Site, subject: &Subject<'_>) -> Option<usize> {
        let path = self.paths.walk(site.root, path_labels(subject.path));
        let lists = self.paths.exact(path).into_iter().chain(self.paths.below(path, false));
        let mut plain = lists.flat_map(|list| self.slice(&self.lists[list as usize]));
        let meets = |at: &u32| self.routes[*at as usize].matcher.miss(subject).is_none();
        let found = plain.find(|at| meets(at)).or_else(|| {
            let takes = |at: &u32| self.routes[*at as usize].matcher.path.takes(subject.path);
            self.slice(&site.regexes).iter().find(|at| meets(at) && takes(at))
        });
        found.map(|at| *at as usize)
    }

    fn slice(&self, range: &Range<u32>) -> &[u32] {
        &self.order[range.start as usize..range.end as usize]
    }
}

/// The labels of a host, the most general first.
fn host_labels(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    host.rsplit(|&b| b == b'.')
}

/// The segments of a path; the empty one before the first `/` keeps `*` apart from `/*`.
fn path_labels(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/')
}

// === impl Build ===

/// A table being made.
#[derive(Default)]
struct Build {
    hosts: TrieBuilder,
    paths: TrieBuilder,
    /// Root of the paths, and routes with a regular expression.
    sites: Vec<(usize, Vec<u32>)>,
    any: Option<u32>,
    lists: Vec<Vec<u32>>,
}

impl Build {
    fn add(&mut self, at: u32, route: &Route<usize>) {
        let site = self.site(&route.matcher.host);
        let (root, regexes) = &mut self.sites[site as usize];
        let next = index(self.lists.len());
        let list = match &route.matcher.path {
            PathMatch::Regex(_) => return regexes.push(at),
            PathMatch::Exact(exact) => *self.paths.slot(*root, path_labels(exact)).exact.get_or_insert(next),
            PathMatch::Prefix(prefix) => {
                let prefix = path::trimmed(prefix);
                // The empty prefix takes even `*`, so it is the root, not the empty label.
                let labels = path_labels(prefix).filter(|_| !prefix.is_empty());
                *self.paths.slot(*root, labels).below.get_or_insert(next)
            }
        };
        if list == next {
            self.lists.push(Vec::new());
        }
        self.lists[list as usize].push(at);
    }

    fn site(&mut self, host: &HostMatch) -> u32 {
        let root = HOSTS as usize;
        let slot = match host {
            HostMatch::Exact(name) => &mut self.hosts.slot(root, host_labels(name.as_bytes())).exact,
            HostMatch::Wildcard(suffix) => {
                let suffix = suffix.strip_prefix('.').unwrap_or(suffix);
                &mut self.hosts.slot(root, host_labels(suffix.as_bytes())).below
            }
            HostMatch::Any => &mut self.any,
        };
        *slot.get_or_insert_with(|| {
            self.sites.push((self.paths.root(), Vec::new()));
            index(self.sites.len() - 1)
        })
    }

    fn finish(self, routes: Vec<Route<usize>>) -> RouteTable {
        let mut order = Vec::with_capacity(routes.len());
        let mut append = |routes: &[u32]| {
            let start = index(order.len());
            order.extend_from_slice(routes);
            start..index(order.len())
        };
        let lists = self.lists.iter().map(|list| append(list)).collect();
        let sites =
            self.sites.iter().map(|(root, regexes)| Site { root: index(*root), regexes: append(regexes) }).collect();
        RouteTable {
            routes: routes.into(),
            hosts: self.hosts.build(),
            paths: self.paths.build(),
            sites,
            any: self.any,
            lists,
            order: order.into(),
        }
    }
}

#[cfg(test)]
mod tests;
