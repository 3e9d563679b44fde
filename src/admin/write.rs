//! The verbs.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::config::settings::Role;
use crate::control::answer::{Applied, Drained, Reloaded, Validated};
use crate::control::endpoint::Verb;
use crate::control::reload::Source;
use crate::core::roles;
use crate::core::weight::Weight;

use super::AdminState;
use super::auth::Caller;
use super::problem::Problem;
use super::read::{Named, segment};
use super::rollouts::{self, Meant, Said};
use super::tag::{Expected, Tag, Tagged, Unconditional};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// A share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightBody {
    /// The candidate's share, in steps of 0.01 %.
    #[schema(example = "5%", pattern = r"^[0-9]{1,3}(\.[0-9]{1,2})?%$")]
    weight: String,
    /// Only while this step is in force, counted from zero.
    expected_step: Option<usize>,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// A reason.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// How to drain.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainBody {
    /// Also the last usable endpoint of stable; needs the role admin and a reason.
    #[serde(default)]
    force: bool,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What to check.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ValidateBody {
    /// A file in TOML; absent: the one in use.
    config: Option<String>,
}

/// Nothing.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadBody {}

/// Set the share of the candidate
///
/// Opens a rollout by hand where none runs.
#[utoipa::path(post, path = "/v1/services/{service}/weight", tag = "command",
    params(("service" = String, Path, description = "Its name"),
        ("If-Match" = Option<String>, Header, description = "The ETag of what was looked at; 412 if something else is in force"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
    request_body = WeightBody,
    responses((status = 200, description = "What is now true", body = Applied, headers(("ETag" = String)))))]
pub(super) async fn weight(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    name: Named<String>,
    expected: Expected,
    body: Bytes,
) -> Result<Tagged<Applied>, Problem> {
    let service = segment(name)?;
    let said = parsed::<WeightBody>(&body)?.said()?;
    rollouts::obey(&state, &caller, Meant::latest(service), expected, said).await
}

/// Let no new attempts begin on an endpoint
#[utoipa::path(post, path = "/v1/services/{service}/endpoints/{endpoint}/drain", tag = "command",
    params(("service" = String, Path, description = "Its name"), ("endpoint" = String, Path, description = "Its address"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
    request_body = Option<DrainBody>,
    responses((status = 200, description = "What is now true", body = Drained, headers(("ETag" = String)))))]
pub(super) async fn drain(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    named: Named<(String, String)>,
    _: Unconditional,
    body: Bytes,
) -> Result<Tagged<Drained>, Problem> {
    let DrainBody { force, reason } = parsed_or_empty(&body)?;
    if force {
        caller.may(Role::Admin, "force")?;
    }
    endpoint(state, caller, Verb::Drain, named, force, reason).await
}

/// Let new attempts begin there again
#[utoipa::path(post, path = "/v1/services/{service}/endpoints/{endpoint}/undrain", tag = "command",
    params(("service" = String, Path, description = "Its name"), ("endpoint" = String, Path, description = "Its address"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
    request_body = Option<ReasonBody>,
    responses((status = 200, description = "What is now true", body = Drained, headers(("ETag" = String)))))]
pub(super) async fn undrain(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    named: Named<(String, String)>,
    _: Unconditional,
    body: Bytes,
) -> Result<Tagged<Drained>, Problem> {
    let ReasonBody { reason } = parsed_or_empty(&body)?;
    endpoint(state, caller, Verb::Undrain, named, false, reason).await
}

async fn endpoint(
    state: AdminState,
    caller: Caller,
    verb: Verb,
    named: Named<(String, String)>,
    force: bool,
    reason: Option<String>,
) -> Result<Tagged<Drained>, Problem> {
    let (service, endpoint) = segment(named)?;
    let (place, reason) = ((service.as_str(), endpoint.as_str()), state.reason(reason)?);
    let drained = state.control.endpoint(verb, place, force, caller.author(), reason).await?;
    Ok(Tagged(Tag::at(drained.generation, drained.revision), drained))
}

/// Check a file
#[utoipa::path(post, path = "/v1/config:validate", tag = "config",
    request_body = Option<ValidateBody>,
    responses((status = 200, description = "What it would change", body = Validated, headers(("ETag" = String)))))]
pub(super) async fn validate(
    State(state): State<AdminState>,
    _: Unconditional,
    body: Bytes,
) -> Result<Tagged<Validated>, Problem> {
    let ValidateBody { config } = parsed_or_empty(&body)?;
    let validated = state.control.validate(config.map_or(Source::Check, Source::Text)).await?;
    Ok(Tagged(Tag::of(validated.generation), validated))
}

/// Put the file in force
#[utoipa::path(post, path = "/v1/config:reload", tag = "config",
    request_body = Option<ReloadBody>,
    responses((status = 200, description = "What changed", body = Reloaded, headers(("ETag" = String)))))]
pub(super) async fn reload(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    _: Unconditional,
    body: Bytes,
) -> Result<Tagged<Reloaded>, Problem> {
    let ReloadBody {} = parsed_or_empty(&body)?;
    let reloaded = state.control.reload(caller.author()).await?;
    Ok(Tagged(Tag::of(reloaded.generation), reloaded))
}

pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// What of the reason of an abort goes into the record: it is never refused for it.
pub(super) fn shortened(mut reason: String) -> String {
    let mut len = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    reason.truncate(len);
    reason
}

/// An empty body stands for an empty object.
pub(super) fn parsed_or_empty<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { parsed(body) }
}

// === impl WeightBody ===

impl WeightBody {
    pub(super) fn said(self) -> Result<Said, Problem> {
        let Self { weight, expected_step, reason } = self;
        let weight = Weight::parse(&weight).map_err(|bad| Problem::invalid(format!("weight: {weight:?}: {bad}")))?;
        Ok(Said { verb: roles::Verb::Weight(weight), expected_step, reason })
    }
}

// === impl AdminState ===

impl AdminState {
    /// The reason as it goes into the record.
    ///
    /// # Errors
    /// It is too long, or missing where the file wants one.
    pub(super) fn reason(&self, reason: Option<String>) -> Result<Option<String>, Problem> {
        match reason {
            Some(reason) if reason.len() > REASON_BYTES_MAX => {
                Err(Problem::invalid(format!("reason: at most {REASON_BYTES_MAX} bytes")))
            }
            reason if reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) && self.requires_reason() => {
                Err(Problem::invalid(
                    "reason: missing; [admin] require_reason wants one with every command but abort and rollback",
                ))
            }
            reason => Ok(reason),
        }
    }

    fn requires_reason(&self) -> bool {
        self.control.settings().admin.require_reason
    }
}
