//! What was written down: one rollout as a whole, and the audit. The store is read beside the thread of the API, a few at a time, and into
//! memory first: who reads slowly holds nothing but an answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::control::past::{Past, RolloutDetail};
use crate::store::keep::Keep;
use crate::store::{AUDIT_PAGE_MAX, StoreError};

use super::AdminState;
use super::problem::Problem;
use super::read::Named;
use super::rollouts::rollout_named;
use super::tag::{Seen, Tag, Tagged, number};

/// Reads of the store at the same time; more are refused.
const READS_MAX: usize = 4;
/// JSON, one value per line.
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Reads what was written down.
#[derive(Clone)]
pub struct Records {
    store: Arc<dyn Keep>,
    reads: Arc<Semaphore>,
}

/// A rollout as a whole
///
/// Its plan with when each step was in force, and what became of it from leg to leg. Those that are over are kept as long as they are in the
/// history of their service, which is the last 50.
#[utoipa::path(get, path = "/v1/services/{service}/rollouts/{rollout}", tag = "read",
    params(("service" = String, Path, description = "Its name"), ("rollout" = String, Path, description = "Its number, or current: the latest"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, description = "Running or over", body = RolloutDetail, headers(("ETag" = String))),
        (status = 304, description = "Nothing has happened since")))]
pub(super) async fn rollout(
    State(state): State<AdminState>,
    named: Named<(String, String)>,
    seen: Seen,
) -> Result<Response, Problem> {
    let (service, id) = rollout_named(named)?;
    let tag = Tag::of_service(&state.control, &service)?;
    let Some((name, detail)) = state.control.rollout(&service, id)? else {
        return Err(Problem::unknown_rollout(match id {
            Some(id) => {
                format!("service \"{service}\": there is no rollout {id}, or it is not in the history any more")
            }
            None => format!("service \"{service}\": there is no rollout yet"),
        }));
    };
    if seen.has(tag) {
        return Ok(tag.not_modified());
    }
    if !detail.is_over() {
        return Ok(Tagged(tag, detail).into_response());
    }
    let id = detail.status.id;
    let past = state.records.read(move |store| Past::load(store, &name, id)).await?;
    let detail = match past {
        Some(past) => detail.with_past(past),
        None => detail,
    };
    Ok(Tagged(tag, detail).into_response())
}

/// The audit
///
/// One entry per line, the oldest first, exactly as it is stored: its SHA-256 is the `previous` of the next one. At most 1,000 lines and 512 KiB
/// at a time; ask again with the last `seq` until nothing comes. The last 100,000 entries are kept: where the first line is not `after` + 1,
/// those between were let go.
#[utoipa::path(get, path = "/v1/audit", tag = "read",
    params(("after" = Option<u64>, Query, description = "Only entries with a larger `seq`"),
        ("limit" = Option<u16>, Query, description = "Most lines", minimum = 1, maximum = 1000)),
    responses((status = 200, description = "Lines of JSON", body = String, content_type = "application/x-ndjson")))]
pub(super) async fn audit(
    State(state): State<AdminState>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let (after, limit) = page(&pairs)?;
    let entries = state.records.read(move |store| store.audit(after, limit)).await?;
    let bytes = entries.iter().map(|(_, entry)| entry.len() + 1).sum();
    let mut lines = Vec::with_capacity(bytes);
    for (seq, entry) in entries {
        if entry.contains(&b'\n') {
            let why = format!(
                "entry {seq} of the audit is damaged; `tidegate audit --verify --state-dir` looks at the store itself"
            );
            return Err(Problem::store_unread(why));
        }
        lines.extend_from_slice(&entry);
        lines.push(b'\n');
    }
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from(lines)).into_response())
}

/// After which entry, and how many.
fn page(pairs: &[(String, String)]) -> Result<(u64, usize), Problem> {
    let (mut after, mut limit) = (None, None);
    for (key, value) in pairs {
        let (slot, allowed) = match key.as_str() {
            "after" => (&mut after, 0..=u64::MAX),
            "limit" => (&mut limit, 1..=AUDIT_PAGE_MAX as u64),
            _ => return Err(Problem::invalid(format!("there is no parameter {key:?}; allowed are: after, limit"))),
        };
        let Some(number) = number(value).filter(|number| allowed.contains(number)) else {
            let (low, high) = allowed.into_inner();
            return Err(Problem::invalid(format!("{key}: {value:?}: a number from {low} to {high}")));
        };
        if slot.replace(number).is_some() {
            return Err(Problem::invalid(format!("{key} is given twice")));
        }
    }
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(AUDIT_PAGE_MAX);
    Ok((after.unwrap_or(0), limit))
}

// === impl Records ===

impl Records {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Keep>) -> Self {
        Self { store, reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Keep) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        // Not waited for: a disk that hangs must not take all the places for connections.
        let Ok(turn) = Arc::clone(&self.reads).try_acquire_owned() else {
            return Err(Problem::busy(format!("at most {READS_MAX} read the store at the same time")));
        };
        let store = Arc::clone(&self.store);
        let read = spawn_blocking(move || {
            // Given back when it is done, not when whoever asked is gone.
            let _turn = turn;
            work(store.as_ref())
        });
        let read = read.await.map_err(|_| Problem::internal("the store could not be read; see the log"))?;
        read.map_err(|error| Problem::store_unread(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_numbers_within_bounds_and_nothing_else() {
        let asked = |text: &str| {
            let pairs = text.split('&').filter(|pair| !pair.is_empty());
            let pairs: Vec<_> =
                pairs.filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            page(&pairs).ok()
        };
        assert_eq!(asked(""), Some((0, AUDIT_PAGE_MAX)));
        assert_eq!(asked("after=7&limit=2"), Some((7, 2)));
        assert_eq!(asked("after=18446744073709551615"), Some((u64::MAX, AUDIT_PAGE_MAX)));
        for bad in
            ["after=", "after=-1", "after=+1", "after=x", "limit=0", "limit=1001", "after=1&after=1", "service=web"]
        {
            assert_eq!(asked(bad), None, "{bad}");
        }
    }
}
