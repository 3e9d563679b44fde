//! What the gate has seen of a rollout, with every number.

use axum::Json;
use axum::extract::State;

use crate::control::gates::Evidence;

use super::AdminState;
use super::problem::Problem;
use super::read::{Named, segment};
use super::rollouts::CURRENT;

/// What the gate has seen of a rollout
///
/// Per test (`report.tests`): events and exposures of candidate and stable with their rates and 95 % intervals, the evidence of harm in nats,
/// whether harmlessness is shown, and the smallest ratio of rates it could have found by now. `report.log_e` is the evidence of all tests
/// together; from `report.bound` on the candidate is taken back. Endpoints of the candidate are named in `endpoints`, by their index. Of the
/// latest rollout only, as long as the process lives; what condemned an earlier one is in the audit.
#[utoipa::path(get, path = "/v1/services/{service}/rollouts/{rollout}/analysis", tag = "read",
    params(("service" = String, Path, description = "Its name"), ("rollout" = String, Path, description = "Its number, or current")),
    responses((status = 200, description = "Everything that was counted and concluded", body = Object)))]
pub(super) async fn analysis(
    State(state): State<AdminState>,
    named: Named<(String, String)>,
) -> Result<Json<Evidence>, Problem> {
    let (service, id) = segment(named)?;
    let evidence = state.control.evidence(&service).await?;
    let is_meant = |evidence: &Evidence| id == CURRENT || id == evidence.rollout.to_string();
    match evidence.filter(is_meant) {
        Some(evidence) => Ok(Json(evidence)),
        None => Err(Problem::not_found(format!(
            "the gate knows nothing of rollout {id:?} of {service}: it knows the latest one it has watched since the process began"
        ))),
    }
}
