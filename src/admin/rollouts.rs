//! The verbs of rollouts, one word each: on the service for the latest rollout, and on `/rollouts/{id}`, where the caller has to say what
//! he believes to be true.

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::control::rollouts::{EndedStatus, RolloutStatus};
use crate::core::endpoint::{Declared, ENDPOINTS_MAX, WEIGHT_MIN};
use crate::core::id::Version;
use crate::core::roles::{Ask, Expected, StartWith, Verb};
use crate::core::weight::Weight;

use super::AdminState;
use super::problem::Problem;
use super::read::{Tagged, segment};
use super::serve::Peer;
use super::write::{checked, parsed_or_empty};

/// Longest digest, in bytes.
const DIGEST_BYTES_MAX: usize = 256;
/// The word for the latest rollout in a path.
const CURRENT: &str = "current";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    candidate: Option<CandidateBody>,
    #[serde(default)]
    supersede: bool,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CandidateBody {
    version: String,
    digest: Option<String>,
    #[serde(default)]
    endpoints: Vec<String>,
}

/// What any verb may come with; each refuses what is not its own.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerbBody {
    to: Option<To>,
    #[serde(default)]
    force: bool,
    version: Option<String>,
    weight: Option<String>,
    expected_step: Option<usize>,
    reason: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum To {
    Next,
    Full,
}

/// The rollouts of a service.
#[derive(Serialize)]
pub(super) struct Rollouts {
    service: String,
    generation: u64,
    revision: u64,
    /// The latest, running or over.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<RolloutStatus>,
    /// Those that are over, the newest first.
    history: Vec<EndedStatus>,
}

pub(super) async fn list(
    State(state): State<AdminState>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Tagged<Rollouts>, Problem> {
    let service = segment(name)?;
    let (generation, status) = state.control.service(&service)?;
    let history = state.control.history(&service)?;
    let (revision, current) = (status.revision, status.progress);
    Ok(Tagged(generation, Rollouts { service, generation, revision, current, history }))
}

pub(super) async fn start(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    name: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Response, Problem> {
    let service = segment(name)?;
    let StartBody { candidate, supersede, reason } = parsed_or_empty(&body)?;
    let candidate = candidate.map_or_else(|| named_in_file(&state, &service), Ok)?;
    let verb = Verb::Start(StartWith {
        version: version(&candidate.version)?,
        digest: candidate.digest.map(digest).transpose()?,
        endpoints: endpoints(&candidate.endpoints)?,
        terms: None,
        supersede,
    });
    let ask = Ask { reason: checked(reason)?, ..Ask::of(verb, &peer.actor()) };
    let applied = state.control.obey(&service, ask).await?;
    let status = if applied.begins { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(applied)).into_response())
}

/// The candidate the file names.
fn named_in_file(state: &AdminState, service: &str) -> Result<CandidateBody, Problem> {
    let settings = state.control.settings();
    let named = settings.services.iter().find(|named| named.name.as_str() == service);
    let candidate = named.and_then(|named| named.candidate.as_ref());
    let version = candidate.map(|pool| pool.version.to_string());
    let version = version.ok_or_else(|| Problem::invalid("candidate: the file names none, so say which version"))?;
    Ok(CandidateBody { version, digest: None, endpoints: Vec::new() })
}

pub(super) async fn short(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    place: Result<Path<(String, String)>, PathRejection>,
    body: Bytes,
) -> Result<Response, Problem> {
    let Path((service, word)) = place.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    obey(state, peer, &service, &word, (None, false), &body).await
}

pub(super) async fn on_rollout(
    State(state): State<AdminState>,
    Extension(peer): Extension<Peer>,
    place: Result<Path<(String, String, String)>, PathRejection>,
    body: Bytes,
) -> Result<Response, Problem> {
    let Path((service, id, word)) = place.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let id = match id.parse() {
        Ok(id) => Some(id),
        Err(_) if id == CURRENT => None,
        Err(_) => return Err(Problem::not_found(format!("{id:?}: a rollout is a number, or \"{CURRENT}\""))),
    };
    obey(state, peer, &service, &word, (id, true), &body).await
}

async fn obey(
    state: AdminState,
    peer: Peer,
    service: &str,
    word: &str,
    (rollout, required): (Option<u64>, bool),
    body: &[u8],
) -> Result<Response, Problem> {
    let body: VerbBody = parsed_or_empty(body)?;
    let expected = Expected { required, step: body.expected_step, revision: None };
    let reason = checked(body.reason.clone())?;
    let ask = Ask { verb: verb(word, &body)?, rollout, expected, actor: peer.actor(), reason };
    let (control, service) = (state.control, service.to_owned());
    if matches!(ask.verb, Verb::Abort | Verb::Rollback) {
        // A task of its own: a client that gives up does not take its abort back.
        let aborting = tokio::spawn(async move { control.take_back(&service, ask).await });
        let aborted = aborting.await.map_err(|_| Problem::internal("the abort ended unexpectedly; see the log"))??;
        return Ok(Tagged(aborted.generation, aborted).into_response());
    }
    let applied = control.obey(&service, ask).await?;
    Ok(Tagged(applied.generation, applied).into_response())
}

fn verb(word: &str, body: &VerbBody) -> Result<Verb, Problem> {
    let VerbBody { to, force, version: of, weight, .. } = body;
    let alien = [
        ("to", to.is_some() && word != "promote"),
        ("force", *force && word != "promote"),
        ("version", of.is_some() && word != "retry"),
        ("weight", weight.is_some() && word != "weight"),
    ];
    if let Some((field, _)) = alien.into_iter().find(|(_, alien)| *alien) {
        return Err(Problem::bad_request(format!("the body: {field} does not belong to {word}")));
    }
    Ok(match word {
        "promote" => Verb::Promote { full: matches!(to, Some(To::Full)), force: *force },
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "approve" => Verb::Approve,
        "abort" => Verb::Abort,
        "rollback" => Verb::Rollback,
        "retry" => Verb::Retry(of.as_deref().map(version).transpose()?),
        "weight" => {
            let text = weight.as_deref().ok_or_else(|| Problem::bad_request("the body: missing field `weight`"))?;
            Verb::Weight(Weight::parse(text).map_err(|bad| Problem::invalid(format!("weight: {text:?}: {bad}")))?)
        }
        _ => return Err(Problem::not_found(format!("there is no verb {word:?} for rollouts"))),
    })
}

fn version(text: &str) -> Result<Version, Problem> {
    Version::new(text).map_err(|bad| Problem::invalid(format!("version: {text:?}: {bad}")))
}

fn digest(text: String) -> Result<String, Problem> {
    if text.is_empty() || text.len() > DIGEST_BYTES_MAX {
        return Err(Problem::invalid(format!("digest: between 1 and {DIGEST_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn endpoints(texts: &[String]) -> Result<Vec<Declared>, Problem> {
    if texts.len() > ENDPOINTS_MAX {
        return Err(Problem::invalid(format!("endpoints: at most {ENDPOINTS_MAX}")));
    }
    let mut all: Vec<Declared> = Vec::with_capacity(texts.len());
    for text in texts {
        let place = config::place(text).map_err(|bad| Problem::invalid(format!("endpoints: {text:?}: {bad}")))?;
        if all.iter().any(|declared| declared.place == place) {
            return Err(Problem::invalid(format!("endpoints: {text:?}: listed twice")));
        }
        all.push(Declared { place, weight: WEIGHT_MIN });
    }
    Ok(all)
}
