//! `[admin] probe_listen`: whether the process lives, is ready, and its metrics; for kubelet and Prometheus, which have no token.

use axum::Router;
use axum::routing::get;

use super::{AdminState, read};

/// The routes of the probe listener. Nothing here changes anything or tells more than metrics do, so nobody is asked who they are.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(read::healthz))
        .route("/readyz", get(read::readyz))
        .route("/metrics", get(read::metrics))
        .fallback(read::not_found)
        .method_not_allowed_fallback(read::method_not_allowed)
        .with_state(state)
}
