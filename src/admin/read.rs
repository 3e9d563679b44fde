//! What is true now.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::control::status::{ServiceStatus, Status};
use crate::state::lifecycle::Phase;

use super::AdminState;
use super::problem::Problem;

/// Media type of the Prometheus text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A body with the generation it is true of as its entity tag.
pub(super) struct Tagged<T>(pub(super) u64, pub(super) T);

#[derive(Serialize)]
pub(super) struct Services {
    generation: u64,
    services: Vec<ServiceStatus>,
}

pub(super) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

pub(super) async fn readyz(State(state): State<AdminState>) -> Result<Response, Problem> {
    match state.lifecycle.phase() {
        Phase::Ready => Ok(Json(json!({ "status": "ready" })).into_response()),
        phase => Err(Problem::not_ready(phase.as_str())),
    }
}

pub(super) async fn metrics(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], (state.metrics)()).into_response()
}

pub(super) async fn status(State(state): State<AdminState>) -> Tagged<Status> {
    let status = state.control.status();
    Tagged(status.generation, status)
}

pub(super) async fn services(State(state): State<AdminState>) -> Tagged<Services> {
    let (generation, services) = state.control.services();
    Tagged(generation, Services { generation, services })
}

pub(super) async fn service(
    State(state): State<AdminState>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Tagged<ServiceStatus>, Problem> {
    let (generation, service) = state.control.service(&segment(name)?)?;
    Ok(Tagged(generation, service))
}

pub(super) async fn not_found(request: Request) -> Problem {
    Problem::not_found(format!("there is nothing at {}", request.uri().path()))
}

pub(super) async fn method_not_allowed(request: Request) -> Problem {
    Problem::method_not_allowed(format!("{} is not a method of {}", request.method(), request.uri().path()))
}

/// The service named in the path.
pub(super) fn segment(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let Path(name) = name.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(name)
}

// === impl Tagged ===

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = HeaderValue::from_str(&format!("\"{}\"", self.0));
        let mut response = Json(self.1).into_response();
        if let Ok(tag) = tag {
            response.headers_mut().insert(ETAG, tag);
        }
        response
    }
}
