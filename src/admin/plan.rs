//! The plan of one rollout, as a start command brings it.

use serde::Serialize;
use utoipa::ToSchema;

use super::AdminState;
use super::problem::Problem;
use crate::config;
use crate::control::answer::{self, Refused};
use crate::core::rollout::wanted::Terms;

/// Steps and limits of one rollout: the keys of `[services.X.rollout]`, in the notation of the file.
#[derive(Serialize, ToSchema)]
pub(super) struct PlanBody {
    /// `canary` or `blue_green`.
    #[schema(example = "canary")]
    strategy: Option<String>,
    /// Between 1 and 100, their weights rising.
    steps: Option<Vec<StepBody>>,
    /// In place of steps.
    ramp: Option<RampBody>,
    /// Longest time until 100 %, pauses left out.
    #[schema(example = "1h")]
    progress_deadline: Option<String>,
    /// `pause` or `abort`.
    #[schema(example = "pause")]
    on_deadline: Option<String>,
    /// How long the old stable is kept after the promotion.
    #[schema(example = "30m")]
    keep_stable: Option<String>,
    /// `resume` or `pause`.
    #[schema(example = "resume")]
    on_restart: Option<String>,
    /// Failed candidate requests after which it is aborted, whatever the gate says; 0: any number.
    max_failed_requests: Option<u32>,
}

/// A step.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanStep)]
pub(super) struct StepBody {
    /// Share of the candidate.
    #[schema(example = "5%")]
    weight: String,
    /// How long it lasts at least.
    #[schema(example = "30s")]
    hold: Option<String>,
    /// Candidate requests that have to begin in it.
    min_requests: Option<u32>,
    /// Somebody has to approve before it begins.
    approval: Option<bool>,
}

/// Steps, each so many times the one before.
#[derive(Serialize, ToSchema)]
#[schema(as = PlanRamp)]
pub(super) struct RampBody {
    /// The first share.
    #[schema(example = "0.1%")]
    from: Option<String>,
    /// The last one.
    #[schema(example = "100%")]
    to: Option<String>,
    /// From step to step.
    #[schema(example = 2)]
    factor: Option<f64>,
    /// How long each lasts at least.
    #[schema(example = "30s")]
    every: Option<String>,
}

/// What a rollout of `service` under `plan` is pinned to.
///
/// # Errors
/// Every mistake in the plan at once.
pub(super) fn terms(state: &AdminState, service: &str, plan: &serde_json::Value) -> Result<Terms, Problem> {
    let settings = state.control.settings();
    let wanted = settings.services.iter().find(|wanted| wanted.name.as_str() == service);
    let unknown = || Refused::UnknownService { service: service.to_owned(), known: Vec::new() };
    let wanted = wanted.ok_or_else(unknown)?;
    let mistakes = |errors: Vec<config::ConfigError>| errors.into_iter().map(answer::Problem::from).collect();
    config::plan(plan, &wanted.rollout).map_err(|errors| Refused::Config(mistakes(errors)).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rollout::wanted::Wanted;

    fn refused(body: &PlanBody) -> Vec<config::ConfigError> {
        let mut plan = serde_json::to_value(body).expect("JSON");
        plan.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        config::plan(&plan, &Wanted::default()).err().unwrap_or_default()
    }

    #[test]
    fn the_description_has_the_keys_that_are_understood() {
        let text = |text: &str| Some(text.to_owned());
        let step = StepBody { weight: "5%".to_owned(), hold: text("1s"), min_requests: Some(1), approval: Some(false) };
        let ramp = RampBody { from: text("1%"), to: text("9%"), factor: Some(2.0), every: text("1s") };
        let plan = PlanBody {
            strategy: text("canary"),
            steps: Some(vec![step]),
            ramp: None,
            progress_deadline: text("1h"),
            on_deadline: text("pause"),
            keep_stable: text("1m"),
            on_restart: text("pause"),
            max_failed_requests: Some(1),
        };
        assert_eq!(refused(&plan), []);
        assert_eq!(refused(&PlanBody { steps: None, ramp: Some(ramp), ..plan }), []);
    }
}
