//! The admin API: what is true now, and the verbs that change it. On an address of its own, never beside the data plane.
//!
//! A route is a handler with its description; `described` lists them, a line each. Commands behind `once_per_key` are carried out once per
//! `Idempotency-Key`.

mod analysis;
mod auth;
pub mod bind;
pub mod events;
pub mod explain;
pub mod gather;
mod guard;
pub mod idempotency;
pub mod kept;
mod openapi;
mod plan;
pub mod probes;
mod problem;
mod read;
pub mod records;
mod rollouts;
pub mod scrape;
mod seats;
pub mod serve;
mod tag;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::handle::ControlHandle;
use crate::state::lifecycle::Lifecycle;

use events::Subscribers;
use explain::Explainer;
use guard::Guard;
use idempotency::Answers;
use records::Records;
use scrape::Scrape;

/// What the API answers from.
#[derive(Clone)]
pub struct AdminState {
    /// The writer.
    pub control: ControlHandle,
    /// What `/readyz` answers.
    pub lifecycle: Lifecycle,
    /// Answers `/metrics`.
    pub metrics: Scrape,
    /// Answers `/v1/explain`.
    pub explain: Explainer,
    /// Answers from the store.
    pub records: Records,
    /// Remembers what was answered to commands with an `Idempotency-Key`.
    pub answers: Arc<dyn Answers>,
    /// Places for those who read events.
    pub subscribers: Subscribers,
    /// What one client may take.
    pub bounds: Bounds,
}

/// What clients of the API may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections; more wait in the accept queue.
    pub connections: usize,
    /// Of these, those of one address beyond this machine (of one /64 in IPv6); more are closed.
    pub connections_per_address: usize,
    /// Longest time until a request head is complete, the wait for it included.
    pub head: Duration,
    /// Longest time until a request body is complete.
    pub body: Duration,
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Age at which a connection is closed after the request in hand, and twice of it at all events; reading events does not count.
    pub age: Duration,
    /// Longest silence towards whoever reads events.
    pub heartbeat: Duration,
    /// Longest time a reader of events may take for the next one while its queue is full.
    pub reader: Duration,
    /// Longest wait for requests in hand when the API stops.
    pub stop: Duration,
}

/// The routes, with every check in front of them.
pub fn router(state: AdminState) -> Router {
    let (router, _) = described(Arc::clone(&state.answers)).split_for_parts();
    router
        .fallback(read::not_found)
        .method_not_allowed_fallback(read::method_not_allowed)
        .layer(from_fn_with_state(Guard::new(state.clone()), guard::guard))
        .with_state(state)
}

/// The routes, and their description.
fn described(answers: Arc<dyn Answers>) -> OpenApiRouter<AdminState> {
    let once_per_key = OpenApiRouter::default()
        .routes(routes!(write::weight))
        .routes(routes!(write::drain))
        .routes(routes!(write::undrain))
        .routes(routes!(rollouts::start))
        .routes(routes!(rollouts::promote))
        .routes(routes!(rollouts::promote_one))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::pause_one))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::resume_one))
        .routes(routes!(rollouts::approve))
        .routes(routes!(rollouts::approve_one))
        .routes(routes!(rollouts::retry))
        .routes(routes!(rollouts::retry_one))
        .routes(routes!(rollouts::weight_one))
        .route_layer(from_fn_with_state(answers, idempotency::once));
    OpenApiRouter::with_openapi(openapi::outline())
        .routes(routes!(read::healthz))
        .routes(routes!(read::readyz))
        .routes(routes!(read::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(read::status))
        .routes(routes!(read::services))
        .routes(routes!(read::service))
        .routes(routes!(rollouts::list))
        .routes(routes!(analysis::analysis))
        .routes(routes!(records::rollout))
        .routes(routes!(records::audit))
        .routes(routes!(explain::explain))
        .routes(routes!(events::events))
        .merge(once_per_key)
        // An abort or a rollback whose key was used before is carried out all the same: the old answer could be wrong by now.
        .routes(routes!(rollouts::abort))
        .routes(routes!(rollouts::abort_one))
        .routes(routes!(rollouts::rollback))
        .routes(routes!(rollouts::rollback_one))
        .routes(routes!(write::validate))
        .routes(routes!(write::reload))
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_address: 16,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            body_bytes: 1024 * 1024,
            age: Duration::from_secs(60),
            heartbeat: Duration::from_secs(15),
            reader: Duration::from_secs(10),
            stop: Duration::from_secs(5),
        }
    }
}

// === impl AdminState ===

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}
