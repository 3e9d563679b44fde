//! Why a route was found: for `explain`, never on the request path.

use super::predicate::{Miss, Subject};
use super::rank::{Criterion, Rank};
use super::table::RouteTable;

/// Most routes listed as lost, and most listed as near misses.
pub const EXPLAIN_ROUTES_MAX: usize = 16;

/// Why a request goes where it goes. Routes are named by their index in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// The route that takes the request, as [`RouteTable::find_index`] says.
    pub found: Option<usize>,
    /// Why it won over the next best; `None` when no other route takes the request.
    pub won_by: Option<Criterion>,
    /// The other routes that would take it, the best first, with what they lost by; at most [`EXPLAIN_ROUTES_MAX`].
    pub lost: Vec<Lost>,
    /// Routes that fit in host and path but not in another condition, in file order; at most [`EXPLAIN_ROUTES_MAX`].
    pub near: Vec<Near<'a>>,
    /// How many routes were left out of `lost` and `near`.
    pub omitted: usize,
}

/// A route that takes the request but is less specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The route.
    pub route: usize,
    /// What the winner has over it.
    pub by: Criterion,
}

/// A route that takes the request but for one condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near<'a> {
    /// The route.
    pub route: usize,
    /// The first condition that does not hold.
    pub miss: Miss<'a>,
}

// === impl RouteTable ===

impl RouteTable {
    /// Why `subject` goes where it goes. Looks at every route and allocates.
    #[must_use]
    pub fn explain(&self, subject: &Subject<'_>) -> Explanation<'_> {
        let mut ranked = Vec::new();
        let mut near = Vec::new();
        for (at, route) in self.routes().iter().enumerate() {
            let matcher = &route.matcher;
            if !(matcher.host.takes(subject.host) && matcher.path.takes(subject.path)) {
                continue;
            }
            match matcher.miss(subject) {
                None => ranked.push((Rank::of(matcher, at), at)),
                Some(miss) => near.push(Near { route: at, miss }),
            }
        }
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        let mut ranked = ranked.into_iter();
        let winner = ranked.next();
        let mut lost: Vec<Lost> = match winner {
            Some((best, _)) => ranked.map(|(rank, route)| Lost { route, by: best.criterion(&rank) }).collect(),
            None => Vec::new(),
        };
        let total = lost.len() + near.len();
        lost.truncate(EXPLAIN_ROUTES_MAX);
        near.truncate(EXPLAIN_ROUTES_MAX);
        let omitted = total - lost.len() - near.len();
        Explanation {
            found: winner.map(|(_, at)| at),
            won_by: lost.first().map(|second| second.by),
            lost,
            near,
            omitted,
        }
    }
}
