//! The verbs.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::control::answer::{Aborted, Applied, Drained, Reloaded, Validated};
use crate::control::endpoint::Verb;
use crate::control::reload::Source;
use crate::core::weight::Weight;

use super::AdminState;
use super::problem::Problem;
use super::read::{Tagged, segment};
use super::serve::Peer;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    weight: String,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    #[serde(default)]
    force: bool,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidateBody {
    config: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {}

pub(super) async fn weight(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Tagged<Applied>, Problem> {
    let (service, WeightBody { weight, reason }) = (segment(name)?, parsed(&body)?);
    let weight = Weight::parse(&weight).map_err(|bad| Problem::invalid(format!("weight: {weight:?}: {bad}")))?;
    let applied = state.control.set_weight(&service, weight, &peer.actor(), checked(reason)?).await?;
    Ok(Tagged(applied.generation, applied))
}

pub(super) async fn abort(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Tagged<Aborted>, Problem> {
    let (service, ReasonBody { reason }) = (segment(name)?, parsed_or_empty(&body)?);
    let (control, actor, reason) = (state.control, peer.actor(), checked(reason)?);
    // A task of its own: a client that gives up does not take its abort back.
    let aborting = tokio::spawn(async move { control.abort(&service, &actor, reason).await });
    let aborted = aborting.await.map_err(|_| Problem::internal("the abort ended unexpectedly; see the log"))??;
    Ok(Tagged(aborted.generation, aborted))
}

/// The service and the endpoint named in the path.
type Named = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn drain(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    named: Named,
    body: Bytes,
) -> Result<Tagged<Drained>, Problem> {
    let DrainBody { force, reason } = parsed_or_empty(&body)?;
    endpoint(state, peer, Verb::Drain, named, force, reason).await
}

pub(super) async fn undrain(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    named: Named,
    body: Bytes,
) -> Result<Tagged<Drained>, Problem> {
    let ReasonBody { reason } = parsed_or_empty(&body)?;
    endpoint(state, peer, Verb::Undrain, named, false, reason).await
}

async fn endpoint(
    state: AdminState,
    peer: Peer,
    verb: Verb,
    named: Named,
    force: bool,
    reason: Option<String>,
) -> Result<Tagged<Drained>, Problem> {
    let Path((service, endpoint)) = named.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let place = (service.as_str(), endpoint.as_str());
    let drained = state.control.endpoint(verb, place, force, &peer.actor(), checked(reason)?).await?;
    Ok(Tagged(drained.generation, drained))
}

pub(super) async fn validate(State(state): State<AdminState>, body: Bytes) -> Result<Tagged<Validated>, Problem> {
    let ValidateBody { config } = parsed_or_empty(&body)?;
    let validated = state.control.validate(config.map_or(Source::Check, Source::Text)).await?;
    Ok(Tagged(validated.generation, validated))
}

pub(super) async fn reload(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Result<Tagged<Reloaded>, Problem> {
    let ReloadBody {} = parsed_or_empty(&body)?;
    let reloaded = state.control.reload(&peer.actor()).await?;
    Ok(Tagged(reloaded.generation, reloaded))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// An empty body stands for an empty object.
pub(super) fn parsed_or_empty<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() { Ok(T::default()) } else { parsed(body) }
}

pub(super) fn checked(reason: Option<String>) -> Result<Option<String>, Problem> {
    match reason {
        Some(reason) if reason.len() > REASON_BYTES_MAX => {
            Err(Problem::invalid(format!("reason: at most {REASON_BYTES_MAX} bytes")))
        }
        reason => Ok(reason),
    }
}
