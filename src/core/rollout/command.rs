//! What people ask of a rollout.

use std::fmt;

use super::{AbortReason, Effect, End, PauseReason, Plan, Rollout, Stage, TRIAL};
use crate::core::weight::Weight;

/// A verb of the API. Abort has no precondition; all others say what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Take the traffic back. Of one that succeeded: roll it back.
    Abort,
    /// Take back one that succeeded; of one that runs, its abort.
    Rollback,
    /// Wait.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Let the step that waits for it begin.
    Approve,
    /// Let the step in hand pass.
    PromoteNext,
    /// Go to 100 % and bake, or be done at once.
    PromoteFull {
        /// Leave out the bake time.
        force: bool,
    },
    /// Hold it at this weight.
    Weight(Weight),
}

/// Why a command does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The rollout is over.
    Over(&'static str),
    /// It does not wait.
    NotPaused,
    /// It does not wait for an approval.
    NotForApproval,
}

impl Rollout {
    /// Obeys.
    ///
    /// # Errors
    /// What the state does not allow; nothing changed then.
    pub fn obey(&mut self, plan: &Plan, command: Command) -> Result<Vec<Effect>, Refused> {
        if let Stage::Over(end) = &self.stage {
            return match (end, command) {
                (End::Succeeded, Command::Abort | Command::Rollback) => {
                    self.stage = Stage::Over(End::RolledBack);
                    self.weight = Weight::ZERO;
                    Ok(vec![Effect::Restore, Effect::Quarantine])
                }
                // Safe to repeat.
                (_, Command::Abort | Command::Rollback) => Ok(Vec::new()),
                (end, _) => Err(Refused::Over(end.as_str())),
            };
        }
        match command {
            Command::Abort | Command::Rollback => Ok(self.abort(AbortReason::Manual)),
            Command::Pause => Ok(self.pause_for(PauseReason::Manual)),
            Command::Resume => self.resume(plan),
            Command::Approve => self.approve(plan),
            Command::PromoteNext => Ok(self.promote_next(plan)),
            Command::PromoteFull { force: true } => Ok(self.succeed()),
            Command::PromoteFull { force: false } => Ok(self.set(plan, Weight::FULL)),
            Command::Weight(weight) => Ok(self.set(plan, weight)),
        }
    }

    fn set(&mut self, plan: &Plan, weight: Weight) -> Vec<Effect> {
        self.leave_pause(plan);
        self.by_hand = true;
        self.hold_at(weight)
    }

    fn resume(&mut self, plan: &Plan) -> Result<Vec<Effect>, Refused> {
        match self.pause {
            None if self.by_hand && !plan.steps.is_empty() => Ok(self.go_on(plan, true)),
            None => Err(Refused::NotPaused),
            Some(pause) if pause.reason == PauseReason::Approval => Err(Refused::NotForApproval),
            Some(_) => Ok(self.go_on(plan, true)),
        }
    }

    fn approve(&mut self, plan: &Plan) -> Result<Vec<Effect>, Refused> {
        if self.pause.map(|pause| pause.reason) != Some(PauseReason::Approval) {
            return Err(Refused::NotForApproval);
        }
        self.leave_pause(plan);
        self.approved = true;
        Ok(match self.stage {
            // What is approved begins after the trial.
            Stage::Trial { from, lasted } if lasted >= TRIAL => self.end_trial(from),
            // Likewise; and the checks come first: the tick asks them.
            Stage::Verifying | Stage::Trial { .. } => Vec::new(),
            _ => self.passed(plan),
        })
    }

    fn promote_next(&mut self, plan: &Plan) -> Vec<Effect> {
        self.leave_pause(plan);
        self.awaited = None;
        match self.stage {
            Stage::Verifying => self.begin_step(plan, 0),
            Stage::Trial { from, .. } => self.hold_at(from),
            Stage::Progressing => self.begin_step(plan, self.step + 1),
            Stage::Baking => self.succeed(),
            Stage::Over(_) => Vec::new(),
        }
    }
}

// === impl Refused ===

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over(end) => write!(f, "the rollout is over ({end})"),
            Self::NotPaused => f.write_str("the rollout is not paused"),
            Self::NotForApproval => {
                f.write_str("approve is for a step that waits for it, resume for every other pause")
            }
        }
    }
}
