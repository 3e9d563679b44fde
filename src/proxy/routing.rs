//! From a request head to its route: host and path normalised, the table asked.

use crate::core::fields::FieldSource;
use crate::core::route::Route;
use crate::core::route::host::HostName;
use crate::core::route::path::{PathScratch, normalise};
use crate::core::route::predicate::Subject;
use crate::core::route::table::RouteTable;
use crate::telemetry::termination::Termination;

use super::headers::RequestHead;
use super::respond::Reply;

/// Buffers that are used again from request to request.
#[derive(Debug, Default)]
pub struct RouteScratch {
    path: PathScratch,
}

/// The route of a request.
#[derive(Debug)]
pub struct Found<'t> {
    /// Its index in file order.
    pub index: usize,
    /// The route.
    pub route: &'t Route<usize>,
    /// The path to forward, where it differs from the client's.
    pub target: Option<Vec<u8>>,
}

/// What was asked of the table, with the path to forward.
#[derive(Debug)]
pub struct Routed<T> {
    /// The answer.
    pub found: T,
    /// The path to forward, where it differs from the client's.
    pub target: Option<Vec<u8>>,
}

/// Finds the route of a request.
///
/// # Errors
/// The answer for a request that has none.
pub fn find_route<'t>(
    table: &'t RouteTable,
    head: &RequestHead,
    scratch: &mut RouteScratch,
) -> Result<Found<'t>, Reply> {
    let Routed { found, target } = route(head, scratch, |subject| table.find_index(subject))?;
    let index = found.ok_or(Reply::of(Termination::NoRoute))?;
    Ok(Found { index, route: &table.routes()[index], target })
}

/// Normalises host and path and asks `table`.
///
/// # Errors
/// The answer for a request whose host or path is refused.
pub fn route<T>(
    head: &RequestHead,
    scratch: &mut RouteScratch,
    table: impl FnOnce(&Subject<'_>) -> T,
) -> Result<Routed<T>, Reply> {
    let authority = head.get(head.authority);
    // HTTP/1.0 may come without a host; then only routes for any host take it.
    let name;
    let host: &[u8] = if authority.is_empty() {
        &[]
    } else {
        name = HostName::new(authority);
        name.as_ref().map_err(|bad| Reply::refused(400, bad.as_str()))?.as_bytes()
    };
    let path = head.get(head.path);
    let normalised = normalise(path, &mut scratch.path).map_err(|bad| Reply::refused(400, bad.as_str()))?;
    let found = table(&Subject {
        host,
        path: normalised.matching,
        method: head.get(head.method),
        query: head.query.map(|query| head.get(query)),
        fields: head,
    });
    let target = (normalised.forwarded != path).then(|| normalised.forwarded.to_vec());
    Ok(Routed { found, target })
}

impl FieldSource for RequestHead {
    fn any(&self, name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.fields_named(name).any(test)
    }
}
