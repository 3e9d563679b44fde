//! One rollout as a state machine: state, event and time in; state and effects out. Nothing here waits, asks a clock or touches a disk.
//!
//! The weight rises only when a step has passed, by an approval, at the end of a trial or by an explicit command. Taking it back needs
//! nothing but the event that says so, whatever the state. No data and errors are neither harmful nor passed.

mod command;
mod progress;
pub mod wanted;
mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::Name;
use super::weight::Weight;

pub use command::{Command, Refused};

/// Weight of a trial: stable and candidate side by side.
pub const TRIAL_WEIGHT: Weight = Weight::HALF;
/// How long a trial may take.
pub const TRIAL: Duration = Duration::from_secs(30);
/// Above it nothing is left to compare with, so an alarm leads to a trial.
pub const TRIAL_ABOVE: Weight = Weight::NINE_TENTHS;
/// Bake time of whatever reaches 100 % without a step that says how long; it wants [`wanted::MIN_REQUESTS`].
pub const BAKE: Duration = Duration::from_secs(300);
/// Restarts within [`RESTARTS_WITHIN`] after which a rollout waits for a person.
pub const RESTARTS_MAX: usize = 3;
/// See [`RESTARTS_MAX`].
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(600);

/// What a rollout does if nothing speaks against it. Pinned when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its steps, weights rising; empty for one opened by hand.
    pub steps: Vec<Step>,
    /// Longest time in [`Stage::Verifying`] and [`Stage::Progressing`] together, pauses left out.
    pub progress_deadline: Duration,
    /// What happens then.
    pub on_deadline: Otherwise,
    /// How long a step waits for its requests after its hold.
    pub max_extend: Duration,
    /// What happens when they still did not come.
    pub on_low_traffic: OnLowTraffic,
    /// Bad candidate requests after which the traffic is taken back, whatever the gate says; zero: any number.
    pub max_failed_requests: u64,
    /// Whether a stable that got worse pauses the rollout.
    pub pause_on_stable_degraded: bool,
    /// Whether a share that does not fit the weight pauses the rollout.
    pub pause_on_sample_ratio: bool,
    /// Whether the rollout goes on by itself after a restart of the process.
    pub resume_after_restart: bool,
    /// Which checks have to be asked before going on.
    pub checks: Checks,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of the candidate.
    pub weight: Weight,
    /// How long it lasts at least.
    pub hold: Duration,
    /// Candidate requests that have to begin in it.
    pub min_requests: u64,
    /// Somebody has to approve before it begins.
    pub approval: bool,
    /// Synthetic transactions to pass before it begins.
    pub synthetic: Vec<Name>,
    /// Share of live requests copied to the candidate.
    pub mirror: Weight,
}

/// Points at which hooks are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    /// Before the first request.
    pub pre_rollout: bool,
    /// Before every step.
    pub pre_step: bool,
    /// Before the candidate becomes stable.
    pub pre_promotion: bool,
}

/// What follows when something that was to happen did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Otherwise {
    /// Wait for a person.
    Pause,
    /// Take the traffic back.
    Abort,
}

/// What to do about a step nobody tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum OnLowTraffic {
    /// Go on if nothing was bad and something succeeded; pause otherwise.
    AdvanceIfClean,
    /// Pause.
    Pause,
    /// Go on.
    Advance,
}

/// Where a rollout is. A pause is beside it, not instead of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Stage {
    /// At 0 %: waits for ready endpoints, hooks and synthetic transactions.
    Verifying,
    /// In a step below 100 %, or held at a weight set by hand.
    Progressing,
    /// At 100 %, stable kept warm.
    Baking,
    /// Back at [`TRIAL_WEIGHT`] to compare, after an alarm above [`TRIAL_ABOVE`].
    Trial {
        /// The weight it came from.
        from: Weight,
        /// How long it has lasted.
        lasted: Duration,
    },
    /// Over.
    Over(End),
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum End {
    /// The candidate is stable.
    Succeeded,
    /// The traffic was taken back.
    Aborted(AbortReason),
    /// It had succeeded, and was taken back within `keep_stable`.
    RolledBack,
    /// Another one took its place.
    Superseded,
}

/// Why the traffic was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum AbortReason {
    /// The gate says so; its largest term.
    Harmful {
        /// The metric.
        metric: String,
    },
    /// Somebody said so.
    Manual,
    /// It took too long.
    Deadline,
    /// A hook or a synthetic transaction failed.
    Check,
    /// More requests were bad than the plan allows.
    FailedRequests,
}

/// Why a rollout waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum PauseReason {
    /// Somebody said so.
    Manual,
    /// The next step needs an approval.
    Approval,
    /// Nothing is known of what ran before.
    NoHistory,
    /// Too few requests to tell.
    LowTraffic,
    /// Stable itself got worse.
    StableDegraded,
    /// The gate cannot decide.
    GateError,
    /// One endpoint of the candidate is bad, not the version.
    Endpoint,
    /// It took too long.
    Deadline,
    /// A hook or a synthetic transaction failed.
    Hook,
    /// The process restarted too often.
    Restarts,
    /// The share of requests does not fit the weight.
    SampleRatio,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Why.
    pub reason: PauseReason,
    /// How long its cause has been gone.
    pub clear: Duration,
}

/// A point at which checks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Point {
    /// Before the first request: `pre_rollout` hooks.
    Rollout,
    /// Before the step of that index: its synthetic transactions, `pre_step` hooks.
    Step(usize),
    /// Before the candidate becomes stable: `pre_promotion` hooks.
    Promotion,
}

/// Candidate requests since the rollout began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Begun.
    pub requests: u64,
    /// Bad.
    pub bad: u64,
    /// Succeeded.
    pub good: u64,
}

/// What the gate says at a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it, or nothing is known.
    Open,
    /// The candidate does harm.
    Harmful {
        /// The metric with the largest term.
        metric: String,
    },
    /// The gate has no answer.
    Error,
}

/// What is true at a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The candidate has ready endpoints.
    pub ready: bool,
    /// Its requests.
    pub counts: Counts,
    /// The gate.
    pub verdict: Verdict,
    /// The candidate's rate is above what stable's was; only of meaning above [`TRIAL_ABOVE`].
    pub alarm: bool,
    /// Stable got worse since the rollout began.
    pub stable_degraded: bool,
    /// The share of requests does not fit the weight.
    pub sample_ratio: bool,
    /// One endpoint is bad and the others are not.
    pub endpoint: bool,
}

/// How a check came out, `ignore` applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Go on.
    Passed,
    /// Do not.
    Failed(Otherwise),
}

/// Something happened. Commands are a type of their own: they can be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick(Facts),
    /// A check was answered.
    Checked(Point, Checked),
    /// The process restarted.
    Restarted {
        /// When, in time since 1970.
        at: Duration,
        /// The candidate's requests as far as they are remembered.
        counts: Counts,
    },
    /// Another rollout takes its place, or its service is gone.
    Superseded,
}

/// What has to be done, in order. The first ones are the safe ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Shut the candidate out, at once and for good.
    Close,
    /// Publish this weight.
    Weight(Weight),
    /// Make the candidate stable; the old stable stays warm.
    Promote,
    /// Make the old stable stable again.
    Restore,
    /// Do not try this version again until somebody says why.
    Quarantine,
    /// Ask the checks of this point; [`Event::Checked`] answers.
    Check(Point),
    /// A step began: the gate counts from here.
    StepBegan(usize),
}

/// The state of one rollout. Everything in it survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Where it is.
    pub stage: Stage,
    /// Why it waits, if it does.
    pub pause: Option<Pause>,
    /// The step it is in; the first one while verifying.
    pub step: usize,
    /// Share of the candidate.
    pub weight: Weight,
    /// How long the step has been held.
    pub held: Duration,
    /// Time spent of the deadline.
    pub spent: Duration,
    /// The check that is awaited.
    pub awaited: Option<Point>,
    /// The checks before the first request have passed.
    pub verified: bool,
    /// The candidate's requests until now.
    pub seen: Counts,
    /// The candidate's requests when the step began.
    pub base: Counts,
    /// Somebody approved the next step.
    pub approved: bool,
    /// The last restarts, in time since 1970.
    pub restarts: Vec<Duration>,
    /// The weight was set by hand: no step is in force until it is resumed.
    pub by_hand: bool,
}

// === impl Rollout ===

impl Rollout {
    /// A rollout that begins; `known` says that there is a history, without which it waits for a start command.
    #[must_use]
    pub fn begin(known: bool) -> Self {
        let pause = (!known).then_some(Pause { reason: PauseReason::NoHistory, clear: Duration::ZERO });
        Self {
            stage: Stage::Verifying,
            pause,
            step: 0,
            weight: Weight::ZERO,
            held: Duration::ZERO,
            spent: Duration::ZERO,
            awaited: None,
            verified: false,
            seen: Counts::default(),
            base: Counts::default(),
            approved: false,
            restarts: Vec::new(),
            by_hand: false,
        }
    }

    /// One opened by hand at `weight`: no steps, held there, watched by the gate like any other.
    #[must_use]
    pub fn by_hand(weight: Weight) -> (Self, Vec<Effect>) {
        let mut rollout = Self { by_hand: true, ..Self::begin(true) };
        let effects = rollout.hold_at(weight);
        (rollout, effects)
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(_))
    }

    /// The word for where it is, as the API and the CLI have it.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match (&self.stage, &self.pause) {
            (Stage::Over(end), _) => end.as_str(),
            (_, Some(_)) => "paused",
            (Stage::Verifying, None) => "verifying",
            (Stage::Progressing, None) => "progressing",
            (Stage::Baking, None) => "baking",
            (Stage::Trial { .. }, None) => "trial",
        }
    }

    /// Why it is there: of a pause or an abort.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match (&self.stage, &self.pause) {
            (Stage::Over(End::Aborted(reason)), _) => Some(reason.as_str()),
            (Stage::Over(_), _) => None,
            (_, pause) => pause.map(|pause| pause.reason.as_str()),
        }
    }

    /// How long the stage lasts at least: the hold of its step, or the bake time. While verifying that of the first step: it is how long
    /// what paused it has to stay clear.
    #[must_use]
    pub fn hold(&self, plan: &Plan) -> Duration {
        let weight = if let Stage::Trial { from, .. } = self.stage { from } else { self.weight };
        let verifying = self.stage == Stage::Verifying;
        let step = plan.steps.get(self.step).filter(|step| !self.by_hand && (verifying || step.weight == weight));
        step.map_or(BAKE, |step| step.hold)
    }

    /// Leaves a pause, and what it or another one below it stood for: a deadline that has passed would bring it back at once.
    fn leave_pause(&mut self, plan: &Plan) -> Option<PauseReason> {
        if self.spent > plan.progress_deadline {
            self.spent = Duration::ZERO;
        }
        self.pause.take().map(|pause| pause.reason)
    }

    fn pause_for(&mut self, reason: PauseReason) -> Vec<Effect> {
        self.pause = Some(Pause { reason, clear: Duration::ZERO });
        Vec::new()
    }

    /// Takes the traffic back.
    fn abort(&mut self, reason: AbortReason) -> Vec<Effect> {
        let quarantine = matches!(reason, AbortReason::Harmful { .. } | AbortReason::Manual);
        let mut effects = self.shut(End::Aborted(reason));
        effects.extend(quarantine.then_some(Effect::Quarantine));
        effects
    }

    fn shut(&mut self, end: End) -> Vec<Effect> {
        self.stage = Stage::Over(end);
        self.pause = None;
        self.awaited = None;
        self.weight = Weight::ZERO;
        vec![Effect::Close, Effect::Weight(Weight::ZERO)]
    }

    fn otherwise(&mut self, what: Otherwise, abort: AbortReason, pause: PauseReason) -> Vec<Effect> {
        match what {
            Otherwise::Abort => self.abort(abort),
            Otherwise::Pause => self.pause_for(pause),
        }
    }

    /// Publishes `weight` and counts anew. No pause is left by then.
    fn hold_at(&mut self, weight: Weight) -> Vec<Effect> {
        self.stage = if weight == Weight::FULL { Stage::Baking } else { Stage::Progressing };
        self.awaited = None;
        self.approved = false;
        self.weight = weight;
        self.held = Duration::ZERO;
        self.base = self.seen;
        vec![Effect::Weight(weight)]
    }
}

#[cfg(test)]
mod tests;
