//! What is true now.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::status::{ServiceStatus, Status};
use crate::state::lifecycle::Phase;

use super::AdminState;
use super::problem::Problem;
use super::tag::{Seen, Tag};

/// Media type of the Prometheus text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the path names, such as a service, or why it could not be read.
pub(super) type Named<T> = Result<Path<T>, PathRejection>;

/// One word.
#[derive(Serialize, ToSchema)]
pub(super) struct Word {
    status: &'static str,
}

/// All services.
#[derive(Serialize, ToSchema)]
pub(super) struct Services {
    /// The generation in force.
    generation: u64,
    /// In order of name.
    services: Vec<ServiceStatus>,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "read", responses((status = 200, description = "It does", body = Word)))]
pub(super) async fn healthz() -> Json<Word> {
    Json(Word { status: "ok" })
}

/// Whether it takes traffic
#[utoipa::path(get, path = "/readyz", tag = "read",
    responses((status = 200, description = "Every endpoint was probed", body = Word),
        (status = 503, description = "Not yet, or not any more", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn readyz(State(state): State<AdminState>) -> Result<Json<Word>, Problem> {
    match state.lifecycle.phase() {
        Phase::Ready => Ok(Json(Word { status: "ready" })),
        phase => Err(Problem::not_ready(phase.as_str())),
    }
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "read",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(state): State<AdminState>) -> Result<Response, Problem> {
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], state.metrics.text().await?).into_response())
}

/// Everything about the process
#[utoipa::path(get, path = "/v1/status", tag = "read",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, description = "What is true now", body = Status, headers(("ETag" = String))),
        (status = 304, description = "Nothing has happened since")))]
pub(super) async fn status(State(state): State<AdminState>, seen: Seen) -> Result<Response, Problem> {
    seen.answer(Tag::now(&state.control), || Ok(state.control.status()))
}

/// All services
#[utoipa::path(get, path = "/v1/services", tag = "read",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, description = "What is true now", body = Services, headers(("ETag" = String))),
        (status = 304, description = "Nothing has happened since")))]
pub(super) async fn services(State(state): State<AdminState>, seen: Seen) -> Result<Response, Problem> {
    seen.answer(Tag::now(&state.control), || {
        let (generation, services) = state.control.services();
        Ok(Services { generation, services })
    })
}

/// One service
#[utoipa::path(get, path = "/v1/services/{service}", tag = "read",
    params(("service" = String, Path, description = "Its name"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, description = "What is true now", body = ServiceStatus, headers(("ETag" = String))),
        (status = 304, description = "Nothing has happened since")))]
pub(super) async fn service(
    State(state): State<AdminState>,
    name: Named<String>,
    seen: Seen,
) -> Result<Response, Problem> {
    let service = segment(name)?;
    seen.answer(Tag::of_service(&state.control, &service)?, || Ok(state.control.service(&service)?.1))
}

pub(super) async fn not_found(request: Request) -> Problem {
    Problem::not_found(format!("there is nothing at {}", request.uri().path()))
}

pub(super) async fn method_not_allowed(request: Request) -> Problem {
    Problem::method_not_allowed(format!("{} is not a method of {}", request.method(), request.uri().path()))
}

/// What the path named.
pub(super) fn segment<T>(named: Named<T>) -> Result<T, Problem> {
    let Path(named) = named.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    Ok(named)
}
