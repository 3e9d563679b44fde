//! What can be asked of rollouts.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{AdminAddress, ShowRollout, duration, reason};
use crate::core::id::{Name, Version};
use crate::core::rollout::wanted::STEPS_MAX;
use crate::core::weight::Weight;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RolloutVerb {
    /// Begin the rollout of a version, or let the one that waits go on
    Start(StartRollout),
    /// Show the rollout that runs, and those that are over
    List(ListRollouts),
    /// Show one rollout: its steps, what became of it, who did what
    Show(ShowRollout),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StartRollout {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(in crate::cli) service: Name,
    /// The version [default: the candidate the file names]
    #[arg(value_parser = Version::new)]
    pub(in crate::cli) version: Option<Version>,
    /// Where it runs, such as 10.0.1.1:8080; may be given several times [default: as the file says]
    #[arg(long = "endpoint", value_name = "ADDRESS", requires = "version")]
    pub(in crate::cli) endpoints: Vec<String>,
    /// What it consists of, such as sha256:...
    #[arg(long, requires = "version")]
    pub(in crate::cli) digest: Option<String>,
    /// Steps of this rollout, each a share and how long it is held, such as 1%:2m,10%:5m,100% [default: as the file says]
    #[arg(long, value_name = "STEPS", value_parser = plan_step, value_delimiter = ',')]
    pub(in crate::cli) steps: Vec<PlanStep>,
    /// In place of the rollout of another version that runs
    #[arg(long)]
    pub(in crate::cli) supersede: bool,
    /// Follow it to its end: exit code 0 succeeded, 2 aborted or rolled back, 3 paused or out of time; Ctrl-C ends only the looking
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// Longest time to follow it, such as 30m
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = duration)]
    pub(in crate::cli) timeout: Option<Duration>,
    /// Why, for the record
    #[arg(long, value_parser = reason)]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ListRollouts {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(in crate::cli) service: Name,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}

/// A verb on the rollout that runs, or ran last.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StepVerb {
    /// Let the step in hand pass, or go to 100 %
    Promote(Promote),
    /// Hold the rollout where it is
    Pause(Place),
    /// Let a paused rollout go on
    Resume(Place),
    /// Let the step that waits for it begin
    Approve(Place),
    /// Try a version again that was taken back; needs a reason
    Retry(Retry),
    /// Make the release of before the last promotion stable again, at once
    Rollback(Place),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Place {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(in crate::cli) service: Name,
    /// Why, for the record
    #[arg(long, value_parser = reason)]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Promote {
    #[command(flatten)]
    pub(in crate::cli) place: Place,
    /// To 100 %, and not only to the next step
    #[arg(long)]
    pub(in crate::cli) full: bool,
    /// Make it stable at once, without the bake time; only with --full, and needs a reason
    #[arg(long, requires_all = ["full", "reason"])]
    pub(in crate::cli) force: bool,
    /// Only if this step is in force, counted from 1
    #[arg(long, value_name = "STEP", value_parser = clap::value_parser!(u64).range(1..=STEPS_MAX as u64))]
    pub(in crate::cli) step: Option<u64>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    pub(in crate::cli) place: Place,
    /// The version [default: the one tried last]
    #[arg(long, value_parser = Version::new)]
    pub(in crate::cli) version: Option<Version>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct PlanStep {
    pub(in crate::cli) weight: Weight,
    /// As it was written: the admin API knows what durations look like.
    pub(in crate::cli) hold: Option<String>,
}

fn plan_step(text: &str) -> Result<PlanStep, String> {
    let (weight, hold) = text.split_once(':').map_or((text, None), |(weight, hold)| (weight, Some(hold)));
    let weight = Weight::parse(weight).map_err(|bad| bad.to_string())?;
    if hold.is_some_and(str::is_empty) {
        return Err("a step is written as 5%:30s, or 5% alone".to_owned());
    }
    Ok(PlanStep { weight, hold: hold.map(str::to_owned) })
}

// === impl RolloutVerb ===

impl RolloutVerb {
    /// The admin API.
    pub(in crate::cli) fn admin(&self) -> &AdminAddress {
        match self {
            Self::Start(start) => &start.admin,
            Self::List(list) => &list.admin,
            Self::Show(show) => &show.admin,
        }
    }
}

// === impl StepVerb ===

impl StepVerb {
    /// Which service is meant.
    pub(in crate::cli) fn place(&self) -> &Place {
        match self {
            Self::Promote(promote) => &promote.place,
            Self::Retry(retry) => &retry.place,
            Self::Pause(place) | Self::Resume(place) | Self::Approve(place) | Self::Rollback(place) => place,
        }
    }

    /// The word of the command line, of the API and of control.
    pub(in crate::cli) const fn word(&self) -> &'static str {
        match self {
            Self::Promote(_) => "promote",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Approve(_) => "approve",
            Self::Retry(_) => "retry",
            Self::Rollback(_) => "rollback",
        }
    }
}
