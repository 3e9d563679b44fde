//! The admin API: what is true now, and the verbs that change it. On loopback or a unix socket, never beside the data plane.

pub mod bind;
pub mod explain;
pub mod gather;
mod guard;
mod problem;
mod read;
mod rollouts;
pub mod serve;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::control::handle::ControlHandle;
use crate::state::lifecycle::Lifecycle;

use explain::Explainer;

/// What the API answers from.
#[derive(Clone)]
pub struct AdminState {
    /// The writer.
    pub control: ControlHandle,
    /// What `/readyz` answers.
    pub lifecycle: Lifecycle,
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Answers `/v1/explain`.
    pub explain: Explainer,
    /// What one client may take.
    pub bounds: Bounds,
}

/// What clients of the API may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections; more wait in the accept queue.
    pub connections: usize,
    /// Longest time until a request head is complete, the wait for it included.
    pub head: Duration,
    /// Longest time until a request body is complete.
    pub body: Duration,
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Age at which a connection is closed after the request in hand, and twice of it at all events.
    pub age: Duration,
    /// Longest wait for requests in hand when the API stops.
    pub stop: Duration,
}

/// The routes, with every check in front of them.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .route("/metrics", get(read::metrics))
        .route("/v1/status", get(read::status))
        .route("/v1/services", get(read::services))
        .route("/v1/services/{service}", get(read::service))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/services/{service}/weight", post(write::weight))
        .route("/v1/services/{service}/abort", post(write::abort))
        .route("/v1/services/{service}/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/v1/services/{service}/rollouts/{rollout}/{verb}", post(rollouts::on_rollout))
        .route("/v1/services/{service}/{verb}", post(rollouts::short))
        .route("/v1/services/{service}/endpoints/{endpoint}/drain", post(write::drain))
        .route("/v1/services/{service}/endpoints/{endpoint}/undrain", post(write::undrain))
        .route("/v1/config:validate", post(write::validate))
        .route("/v1/config:reload", post(write::reload))
        .fallback(read::not_found)
        .method_not_allowed_fallback(read::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.bounds, guard::guard))
        .with_state(state)
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            body_bytes: 1024 * 1024,
            age: Duration::from_secs(60),
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
