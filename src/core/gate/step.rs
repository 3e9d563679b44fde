//! Whether a step of the rollout is over: time alone is not enough, requests have to have seen the candidate.

use serde::{Deserialize, Serialize};

/// What the candidate did in the current step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFacts {
    /// Attempts begun.
    pub begun: u64,
    /// Bad events of any metric but client errors, every request counted.
    pub bad: u64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Distinct sessions.
    pub sessions: u32,
}

/// What to do when a step is extended as far as it may be and there are still too few requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLowTraffic {
    /// Pass with no bad event and at least one success, else pause.
    AdvanceIfClean,
    /// Pause.
    Pause,
    /// Pass.
    Advance,
}

/// How long a step has been held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Shorter than its `hold`.
    Short,
    /// At least that.
    Whole,
    /// That and all of `max_extend`.
    Extended,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It goes on.
    Wait,
    /// It is passed as far as time and traffic are concerned.
    Pass,
    /// Too little traffic: `paused(low_traffic)`.
    Pause,
}

/// Decides by time and traffic alone; the verdict comes before it.
#[must_use]
pub fn step_end(facts: &StepFacts, min_requests: u64, held: Held, policy: OnLowTraffic) -> StepEnd {
    match held {
        Held::Short => StepEnd::Wait,
        _ if facts.begun >= min_requests => StepEnd::Pass,
        Held::Whole => StepEnd::Wait,
        Held::Extended => match policy {
            OnLowTraffic::Advance => StepEnd::Pass,
            OnLowTraffic::AdvanceIfClean if facts.bad == 0 && facts.succeeded > 0 => StepEnd::Pass,
            OnLowTraffic::AdvanceIfClean | OnLowTraffic::Pause => StepEnd::Pause,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::OnLowTraffic::{Advance, AdvanceIfClean, Pause};
    use super::*;

    #[test]
    fn a_step_needs_its_time_and_its_requests() {
        let facts = |begun, bad, succeeded| StepFacts { begun, bad, succeeded, sessions: 0 };
        let enough = facts(50, 3, 47);
        let end = |facts: &StepFacts, held, policy| step_end(facts, 50, held, policy);
        assert_eq!(end(&enough, Held::Short, Advance), StepEnd::Wait);
        assert_eq!(end(&enough, Held::Whole, Pause), StepEnd::Pass);
        for (facts, clean) in
            [(facts(49, 0, 1), StepEnd::Pass), (facts(49, 1, 48), StepEnd::Pause), (facts(0, 0, 0), StepEnd::Pause)]
        {
            assert_eq!(end(&facts, Held::Whole, Advance), StepEnd::Wait);
            assert_eq!(end(&facts, Held::Extended, AdvanceIfClean), clean);
            assert_eq!(end(&facts, Held::Extended, Pause), StepEnd::Pause);
            assert_eq!(end(&facts, Held::Extended, Advance), StepEnd::Pass);
        }
    }
}
