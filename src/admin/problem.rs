//! Errors as RFC 9457 problem details.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::answer::{self, Refused};
use crate::core::roles;

/// Media type of a problem.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// When to try again after too much at a time, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A problem (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:tidegate:problem:...`; what it is, for programs.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What it is, for people.
    title: &'static str,
    /// The status of the answer.
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What exactly, and what is allowed.
    detail: String,
    /// The services or endpoints there are, if one was asked for that is not.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schema(value_type = Vec<String>)]
    known: Box<[String]>,
    /// Everything that is wrong, one by one.
    #[serde(skip_serializing_if = "<[answer::Problem]>::is_empty")]
    #[schema(value_type = Vec<answer::Problem>)]
    errors: Box<[answer::Problem]>,
    /// What it takes to be let in (RFC 6750 section 3).
    #[serde(skip)]
    challenge: Option<Challenge>,
}

/// Goes with an answer to whoever may not ask that: it is for the log. Holds why, and no secret.
#[derive(Clone, Debug)]
pub(super) struct Denial(pub(super) String);

/// What it takes to be let in.
#[derive(Clone, Copy, Debug)]
enum Challenge {
    /// A token.
    Token,
    /// A token that is known.
    KnownToken,
    /// A token with this role.
    Role(&'static str),
}

macro_rules! kind {
    ($name:literal) => {
        concat!("urn:tidegate:problem:", $name)
    };
}

// === impl Problem ===

impl Problem {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind!("bad-request"), "The request is malformed", detail)
    }

    pub(super) fn foreign_host(detail: impl Into<String>) -> Self {
        let title = "The request is for another host";
        Self::new(StatusCode::MISDIRECTED_REQUEST, kind!("foreign-host"), title, detail)
    }

    pub(super) fn foreign_origin(detail: impl Into<String>) -> Self {
        let title = "The request comes from another origin";
        Self::new(StatusCode::FORBIDDEN, kind!("foreign-origin"), title, detail)
    }

    pub(super) fn media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind!("media-type"), "The media type is not supported", detail)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("a body has at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, kind!("too-large"), "The body is too large", detail)
    }

    pub(super) fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, kind!("too-slow"), "The request was not complete in time", detail)
    }

    /// No token, or (`is_unknown`) one that is not known.
    pub(super) fn unauthorized(detail: impl Into<String>, is_unknown: bool) -> Self {
        let challenge = Some(if is_unknown { Challenge::KnownToken } else { Challenge::Token });
        let title = "Whoever asks has to show a token";
        Self { challenge, ..Self::new(StatusCode::UNAUTHORIZED, kind!("unauthorized"), title, detail) }
    }

    /// The role `needed` is more than the token has.
    pub(super) fn forbidden(detail: impl Into<String>, needed: &'static str) -> Self {
        let challenge = Some(Challenge::Role(needed));
        let title = "The token does not allow this";
        Self { challenge, ..Self::new(StatusCode::FORBIDDEN, kind!("insufficient-role"), title, detail) }
    }

    pub(super) fn stale(detail: impl Into<String>) -> Self {
        let title = "Something else is in force by now";
        Self::new(StatusCode::PRECONDITION_FAILED, kind!("stale"), title, detail)
    }

    pub(super) fn under_way(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind!("under-way"), "The same command is under way", detail)
    }

    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        let title = "Too much at a time for one client";
        Self::new(StatusCode::TOO_MANY_REQUESTS, kind!("too-many"), title, detail)
    }

    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind!("busy"), "Too much at a time", detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind!("not-found"), "There is no such resource", detail)
    }

    pub(super) fn unknown_rollout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind!("unknown-rollout"), "There is no such rollout", detail)
    }

    /// The store cannot be read.
    pub(super) fn store_unread(detail: impl Into<String>) -> Self {
        let title = "The store cannot be read";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind!("store-failed"), title, detail)
    }

    pub(super) fn method_not_allowed(detail: impl Into<String>) -> Self {
        let title = "The method is not allowed here";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, kind!("method-not-allowed"), title, detail)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        let title = "A value is not allowed";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, kind!("invalid-value"), title, detail)
    }

    pub(super) fn not_ready(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, kind!("not-ready"), "Not ready", detail)
    }

    pub(super) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind!("internal"), "A defect in this program", detail)
    }

    /// What the state of a service does not allow (RFC 9110, RFC 4918, RFC 6585).
    fn state(why: &roles::Refused, detail: String) -> Self {
        let conflict = StatusCode::CONFLICT;
        let (status, kind, title) = match why {
            roles::Refused::NoRollout => (conflict, kind!("no-candidate"), "The service has no candidate"),
            roles::Refused::NoSuchRollout(_) => {
                (StatusCode::NOT_FOUND, kind!("unknown-rollout"), "There is no such rollout")
            }
            roles::Refused::Quarantined(_) => (StatusCode::LOCKED, kind!("quarantined"), "The candidate was aborted"),
            roles::Refused::Runs(_) | roles::Refused::OtherPlan(_) => {
                (conflict, kind!("rollout-runs"), "Another rollout runs")
            }
            roles::Refused::Stale { .. } | roles::Refused::StepStays { .. } => return Self::stale(detail),
            roles::Refused::Unconditional => {
                (StatusCode::PRECONDITION_REQUIRED, kind!("precondition-required"), "A precondition is needed")
            }
            roles::Refused::State(_)
            | roles::Refused::IsStable(_)
            | roles::Refused::NothingToRollBack
            | roles::Refused::NothingToRetry => (conflict, kind!("wrong-state"), "The state does not allow it"),
            roles::Refused::NoEndpoints(_)
            | roles::Refused::OtherDigest { .. }
            | roles::Refused::NeedsReason(_)
            | roles::Refused::OnlyFullIsForced => return Self::invalid(detail),
        };
        Self::new(status, kind, title, detail)
    }

    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title,
            status,
            detail: detail.into(),
            known: Box::default(),
            errors: Box::default(),
            challenge: None,
        }
    }
}

// === impl Challenge ===

impl Challenge {
    /// As `WWW-Authenticate` has it.
    fn text(self) -> String {
        let more = match self {
            Self::Token => String::new(),
            Self::KnownToken => ", error=\"invalid_token\"".to_owned(),
            Self::Role(role) => format!(", error=\"insufficient_scope\", scope=\"{role}\""),
        };
        format!("Bearer realm=\"tidegate\"{more}")
    }
}

/// Control refuses in its own words; the status code is chosen here.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        let mut problem = match &refused {
            Refused::UnknownService { .. } => {
                Self::new(StatusCode::NOT_FOUND, kind!("unknown-service"), "There is no such service", detail)
            }
            Refused::State { why, .. } => Self::state(why, detail),
            Refused::Overtaken(_) => {
                Self::new(StatusCode::CONFLICT, kind!("overtaken"), "An abort came in between", detail)
            }
            Refused::Store { full: true, .. } => {
                let title = "The disk of the store is full";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, kind!("store-full"), title, detail)
            }
            Refused::Store { full: false, .. } => {
                let title = "The store did not take the change";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind!("store-failed"), title, detail)
            }
            Refused::UnknownEndpoint { .. } => {
                Self::new(StatusCode::NOT_FOUND, kind!("unknown-endpoint"), "There is no such endpoint", detail)
            }
            Refused::LastEndpoint { .. } => {
                let title = "Stable would have no endpoint left";
                Self::new(StatusCode::CONFLICT, kind!("last-endpoint"), title, detail)
            }
            Refused::ForceWithoutReason => Self::invalid(detail),
            Refused::Stale { .. } => Self::stale(detail),
            Refused::Config(_) => Self::new(unprocessable, kind!("bad-config"), "The configuration is wrong", detail),
            Refused::Plan(_) => {
                let title = "What runs does not allow this configuration";
                Self::new(StatusCode::CONFLICT, kind!("refused-change"), title, detail)
            }
            Refused::Listeners(_) => {
                Self::new(StatusCode::CONFLICT, kind!("listener"), "A listener cannot be bound", detail)
            }
            Refused::Busy(_) => Self::busy(detail),
            Refused::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, kind!("stopping"), "The process is stopping", detail)
            }
        };
        match refused {
            Refused::UnknownService { known, .. } => problem.known = known.iter().map(ToString::to_string).collect(),
            Refused::UnknownEndpoint { known, .. } => problem.known = known.into(),
            Refused::Config(_) | Refused::Plan(_) | Refused::Listeners(_) => problem.errors = refused.problems().into(),
            Refused::State { .. }
            | Refused::Overtaken(_)
            | Refused::Store { .. }
            | Refused::LastEndpoint { .. }
            | Refused::ForceWithoutReason
            | Refused::Stale { .. }
            | Refused::Busy(_)
            | Refused::Stopping => {}
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, challenge) = (self.status, self.challenge);
        let denial = challenge.map(|_| Denial(self.detail.clone()));
        let mut response = (status, axum::Json(self)).into_response();
        if let Some(denial) = denial {
            response.extensions_mut().insert(denial);
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::from_str(&challenge.text()).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
