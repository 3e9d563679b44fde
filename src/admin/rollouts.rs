//! The verbs of rollouts, one route each: on the service for the latest rollout, and on `/rollouts/{rollout}`, where the caller has to say
//! what it believes to be true.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config;
use crate::config::settings::Role;
use crate::control::answer::{Aborted, Applied};
use crate::control::rollouts::{EndedStatus, RolloutStatus};
use crate::core::endpoint::{Declared, ENDPOINTS_MAX, WEIGHT_MIN};
use crate::core::id::Version;
use crate::core::roles::{self, Ask, StartWith, Verb};

use super::AdminState;
use super::auth::Caller;
use super::plan::{PlanBody, terms};
use super::problem::Problem;
use super::read::{Named, segment};
use super::tag::{Expected, Seen, Tag, Tagged, Unconditional};
use super::write::{WeightBody, parsed, parsed_or_empty, shortened};

/// Longest digest, in bytes.
const DIGEST_BYTES_MAX: usize = 256;
/// The word for the latest rollout in a path.
pub(super) const CURRENT: &str = "current";

/// What to start.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartBody {
    /// Absent: the candidate of the file.
    candidate: Option<CandidateBody>,
    /// Steps and limits for this rollout, the keys of `[services.X.rollout]`; what is left out is as the file says.
    #[schema(value_type = Option<PlanBody>)]
    plan: Option<serde_json::Value>,
    /// End the rollout of another version that runs.
    #[serde(default)]
    supersede: bool,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// A release.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CandidateBody {
    /// Its name.
    #[schema(example = "v2")]
    version: String,
    /// What it consists of; a version never changes it.
    #[schema(max_length = 256)]
    digest: Option<String>,
    /// Where it runs; empty: as the file says.
    #[serde(default)]
    endpoints: Vec<String>,
}

/// How to promote.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteBody {
    /// How far; absent: `next`.
    to: Option<To>,
    /// Stable at once, without the bake time; only `full`, and needs the role admin and a reason.
    #[serde(default)]
    force: bool,
    /// Only while this step is in force, counted from zero.
    expected_step: Option<usize>,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// How far.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum To {
    /// The step in hand passes.
    Next,
    /// To 100 %.
    Full,
}

/// A step and a reason.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepBody {
    /// Only while this step is in force, counted from zero.
    expected_step: Option<usize>,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What to try again.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryBody {
    /// The version; absent: of the latest rollout.
    version: Option<String>,
    /// Only while this step is in force, counted from zero.
    expected_step: Option<usize>,
    /// Why it is safe now; has to be there.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// Why.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackBody {
    /// Of no consequence here.
    #[expect(dead_code, reason = "who sends it with every verb is not refused for it")]
    expected_step: Option<usize>,
    /// Why, for the record.
    #[schema(max_length = 1024)]
    pub(super) reason: Option<String>,
}

/// The rollouts of a service.
#[derive(Serialize, ToSchema)]
pub(super) struct Rollouts {
    /// The service.
    service: String,
    /// The generation in force.
    generation: u64,
    /// Grows with everything that is recorded about the service.
    revision: u64,
    /// The latest, running or over.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<RolloutStatus>,
    /// Those that are over, the newest first.
    history: Vec<EndedStatus>,
}

/// The rollout a verb is meant for.
pub(super) struct Meant {
    service: String,
    /// Absent: the latest.
    rollout: Option<u64>,
    /// It was named: the caller has to say what it believes to be true.
    is_named: bool,
}

/// A verb and what came with it.
pub(super) struct Said {
    pub(super) verb: Verb,
    pub(super) expected_step: Option<usize>,
    pub(super) reason: Option<String>,
}

/// The rollouts of a service
#[utoipa::path(get, path = "/v1/services/{service}/rollouts", tag = "read",
    params(("service" = String, Path, description = "Its name"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of what the client has")),
    responses((status = 200, description = "The one that runs, and those that are over", body = Rollouts, headers(("ETag" = String))),
        (status = 304, description = "Nothing has happened since")))]
pub(super) async fn list(
    State(state): State<AdminState>,
    name: Named<String>,
    seen: Seen,
) -> Result<Response, Problem> {
    let service = segment(name)?;
    seen.answer(Tag::of_service(&state.control, &service)?, || {
        let (generation, status) = state.control.service(&service)?;
        let history = state.control.history(&service)?;
        let (revision, current) = (status.revision, status.progress);
        Ok(Rollouts { service, generation, revision, current, history })
    })
}

/// Begin a rollout
///
/// Also lets one go on that waits for this.
#[utoipa::path(post, path = "/v1/services/{service}/rollouts", tag = "command",
    params(("service" = String, Path, description = "Its name"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
    request_body = Option<StartBody>,
    responses((status = 201, description = "It begins with this", body = Applied, headers(("ETag" = String))),
        (status = 200, description = "It runs", body = Applied, headers(("ETag" = String)))))]
pub(super) async fn start(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    name: Named<String>,
    _: Unconditional,
    body: Bytes,
) -> Result<Response, Problem> {
    let service = segment(name)?;
    let StartBody { candidate, plan, supersede, reason } = parsed_or_empty(&body)?;
    let reason = state.reason(reason)?;
    // An unknown service is the first to be told of.
    state.control.service(&service)?;
    let candidate = candidate.map_or_else(|| named_in_file(&state, &service), Ok)?;
    let verb = Verb::Start(StartWith {
        version: version(&candidate.version)?,
        digest: candidate.digest.map(digest).transpose()?,
        endpoints: endpoints(&candidate.endpoints)?,
        terms: plan.map(|plan| terms(&state, &service, &plan)).transpose()?,
        supersede,
    });
    let ask = Ask { reason, source: caller.source().to_owned(), ..Ask::of(verb, caller.actor()) };
    let applied = state.control.obey_landing(None, &service, ask, caller.landing()).await?;
    let status = if applied.begins { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Tagged(Tag::at(applied.generation, applied.revision), applied)).into_response())
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

/// The two routes of a verb that can have a condition.
macro_rules! routes_of {
    ($about:tt, $body:ident, $read:expr, $latest:ident at $path:tt, $one:ident at $path_of_one:tt) => {
        #[doc = $about]
        #[utoipa::path(post, path = $path, tag = "command",
            params(("service" = String, Path, description = "Its name"),
                ("If-Match" = Option<String>, Header, description = "The ETag of what was looked at; 412 if something else is in force"),
                ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
            request_body = Option<$body>,
            responses((status = 200, description = "What is now true", body = Applied, headers(("ETag" = String)))))]
        pub(super) async fn $latest(
            State(state): State<AdminState>,
            Extension(caller): Extension<Caller>,
            name: Named<String>,
            expected: Expected,
            body: Bytes,
        ) -> Result<Tagged<Applied>, Problem> {
            let (service, said) = (segment(name)?, $read(&body)?);
            obey(&state, &caller, Meant::latest(service), expected, said).await
        }

        #[doc = $about]
        ///
        /// On this rollout; `expected_step` or `If-Match` has to be there (428).
        #[utoipa::path(post, path = $path_of_one, tag = "command",
            params(("service" = String, Path, description = "Its name"), ("rollout" = String, Path, description = "Its number, or current"),
                ("If-Match" = Option<String>, Header, description = "The ETag of what was looked at; 412 if something else is in force"),
                ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
            request_body = Option<$body>,
            responses((status = 200, description = "What is now true", body = Applied, headers(("ETag" = String)))))]
        pub(super) async fn $one(
            State(state): State<AdminState>,
            Extension(caller): Extension<Caller>,
            named: Named<(String, String)>,
            expected: Expected,
            body: Bytes,
        ) -> Result<Tagged<Applied>, Problem> {
            let (meant, said) = (Meant::named(named)?, $read(&body)?);
            obey(&state, &caller, meant, expected, said).await
        }
    };
}

routes_of!("Let the step in hand pass, or go to 100 %", PromoteBody, PromoteBody::read,
    promote at "/v1/services/{service}/promote",
    promote_one at "/v1/services/{service}/rollouts/{rollout}/promote");
routes_of!("Hold a rollout where it is", StepBody, StepBody::pause,
    pause at "/v1/services/{service}/pause",
    pause_one at "/v1/services/{service}/rollouts/{rollout}/pause");
routes_of!("Let a paused rollout go on", StepBody, StepBody::resume,
    resume at "/v1/services/{service}/resume",
    resume_one at "/v1/services/{service}/rollouts/{rollout}/resume");
routes_of!("Let the step that waits for it begin", StepBody, StepBody::approve,
    approve at "/v1/services/{service}/approve",
    approve_one at "/v1/services/{service}/rollouts/{rollout}/approve");
routes_of!("Try a version again that was taken back", RetryBody, RetryBody::read,
    retry at "/v1/services/{service}/retry",
    retry_one at "/v1/services/{service}/rollouts/{rollout}/retry");

/// Set the share of the candidate
///
/// On this rollout; `expected_step` or `If-Match` has to be there (428).
#[utoipa::path(post, path = "/v1/services/{service}/rollouts/{rollout}/weight", tag = "command",
    params(("service" = String, Path, description = "Its name"), ("rollout" = String, Path, description = "Its number, or current"),
        ("If-Match" = Option<String>, Header, description = "The ETag of what was looked at; 412 if something else is in force"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and request: carried out once, the same answer")),
    request_body = WeightBody,
    responses((status = 200, description = "What is now true", body = Applied, headers(("ETag" = String)))))]
pub(super) async fn weight_one(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    named: Named<(String, String)>,
    expected: Expected,
    body: Bytes,
) -> Result<Tagged<Applied>, Problem> {
    let (meant, body): (Meant, WeightBody) = (Meant::named(named)?, parsed(&body)?);
    obey(&state, &caller, meant, expected, body.said()?).await
}

/// The two routes of a verb that takes back: nothing can stand in its way.
macro_rules! ways_back {
    ($about:tt, $more:tt, $verb:expr, $latest:ident at $path:tt, $one:ident at $path_of_one:tt) => {
        #[doc = $about]
        #[doc = ""]
        #[doc = $more]
        #[utoipa::path(post, path = $path, tag = "command",
            params(("service" = String, Path, description = "Its name")),
            request_body = Option<BackBody>,
            responses((status = 200, description = "What is now true", body = Aborted, headers(("ETag" = String)))))]
        pub(super) async fn $latest(
            State(state): State<AdminState>,
            Extension(caller): Extension<Caller>,
            name: Named<String>,
            body: Bytes,
        ) -> Result<Tagged<Aborted>, Problem> {
            let (service, BackBody { reason, .. }) = (segment(name)?, parsed_or_empty(&body)?);
            take_back(state, &caller, Meant::latest(service), $verb, reason).await
        }

        #[doc = $about]
        #[doc = ""]
        #[doc = concat!("Of this rollout. ", $more)]
        #[utoipa::path(post, path = $path_of_one, tag = "command",
            params(("service" = String, Path, description = "Its name"), ("rollout" = String, Path, description = "Its number, or current")),
            request_body = Option<BackBody>,
            responses((status = 200, description = "What is now true", body = Aborted, headers(("ETag" = String)))))]
        pub(super) async fn $one(
            State(state): State<AdminState>,
            Extension(caller): Extension<Caller>,
            named: Named<(String, String)>,
            body: Bytes,
        ) -> Result<Tagged<Aborted>, Problem> {
            let (meant, BackBody { reason, .. }) = (Meant::named(named)?, parsed_or_empty(&body)?);
            take_back(state, &caller, meant, $verb, reason).await
        }
    };
}

ways_back!("Take all traffic off the candidate, at once",
    "No condition, no key and no missing reason can stand in its way; it can be repeated as often as one likes. A reason that is too long is cut.",
    Verb::Abort,
    abort at "/v1/services/{service}/abort",
    abort_one at "/v1/services/{service}/rollouts/{rollout}/abort");
ways_back!("Make the release of before the last promotion stable again, at once",
    "As long as it is kept; of a rollout that runs it is the abort. Nothing else can stand in its way.",
    Verb::Rollback,
    rollback at "/v1/services/{service}/rollback",
    rollback_one at "/v1/services/{service}/rollouts/{rollout}/rollback");

/// Has done what was said, if what was expected is in force.
pub(super) async fn obey(
    state: &AdminState,
    caller: &Caller,
    meant: Meant,
    expected: Expected,
    said: Said,
) -> Result<Tagged<Applied>, Problem> {
    let Said { verb, expected_step, reason } = said;
    if matches!(verb, Verb::Promote { force: true, .. }) {
        caller.may(Role::Admin, "force")?;
    }
    let (mark, reason) = (expected.mark()?, state.reason(reason)?);
    let expected = roles::Expected { required: meant.is_named, tagged: mark.is_some(), step: expected_step };
    let source = caller.source().to_owned();
    let ask = Ask { rollout: meant.rollout, expected, source, reason, ..Ask::of(verb, caller.actor()) };
    let applied = state.control.obey_landing(mark, &meant.service, ask, caller.landing()).await?;
    Ok(Tagged(Tag::at(applied.generation, applied.revision), applied))
}

/// Aborts or rolls back.
pub(super) async fn take_back(
    state: AdminState,
    caller: &Caller,
    meant: Meant,
    verb: Verb,
    reason: Option<String>,
) -> Result<Tagged<Aborted>, Problem> {
    let Meant { service, rollout, .. } = meant;
    let source = caller.source().to_owned();
    let ask = Ask { rollout, source, reason: reason.map(shortened), ..Ask::of(verb, caller.actor()) };
    // A task of its own: a client that gives up does not take its abort back.
    let aborting = tokio::spawn(async move { state.control.take_back(&service, ask).await });
    let aborted = aborting.await.map_err(|_| Problem::internal("the abort ended unexpectedly; see the log"))??;
    Ok(Tagged(Tag::at(aborted.generation, aborted.revision), aborted))
}

/// The service and the number of the rollout in a path; none: the latest.
pub(super) fn rollout_named(named: Named<(String, String)>) -> Result<(String, Option<u64>), Problem> {
    let (service, id) = segment(named)?;
    match id.parse() {
        Ok(number) => Ok((service, Some(number))),
        Err(_) if id == CURRENT => Ok((service, None)),
        Err(_) => Err(Problem::not_found(format!("{id:?}: a rollout is a number, or \"{CURRENT}\""))),
    }
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

// === impl Meant ===

impl Meant {
    /// The latest rollout of `service`, whichever it is.
    pub(super) fn latest(service: String) -> Self {
        Self { service, rollout: None, is_named: false }
    }

    /// # Errors
    /// It is neither a number nor the word for the latest.
    fn named(named: Named<(String, String)>) -> Result<Self, Problem> {
        let (service, rollout) = rollout_named(named)?;
        Ok(Self { service, rollout, is_named: true })
    }
}

// === impl PromoteBody ===

impl PromoteBody {
    fn read(body: &[u8]) -> Result<Said, Problem> {
        let Self { to, force, expected_step, reason } = parsed_or_empty(body)?;
        Ok(Said { verb: Verb::Promote { full: matches!(to, Some(To::Full)), force }, expected_step, reason })
    }
}

// === impl StepBody ===

impl StepBody {
    fn pause(body: &[u8]) -> Result<Said, Problem> {
        Self::read(body, Verb::Pause)
    }

    fn resume(body: &[u8]) -> Result<Said, Problem> {
        Self::read(body, Verb::Resume)
    }

    fn approve(body: &[u8]) -> Result<Said, Problem> {
        Self::read(body, Verb::Approve)
    }

    fn read(body: &[u8], verb: Verb) -> Result<Said, Problem> {
        let Self { expected_step, reason } = parsed_or_empty(body)?;
        Ok(Said { verb, expected_step, reason })
    }
}

// === impl RetryBody ===

impl RetryBody {
    fn read(body: &[u8]) -> Result<Said, Problem> {
        let Self { version: of, expected_step, reason } = parsed_or_empty(body)?;
        Ok(Said { verb: Verb::Retry(of.as_deref().map(version).transpose()?), expected_step, reason })
    }
}
