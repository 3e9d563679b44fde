//! What time and facts do to a rollout.

use std::time::Duration;

use super::wanted::MIN_REQUESTS;
use super::{
    AbortReason, Checked, Counts, Effect, End, Event, Facts, OnLowTraffic, Otherwise, PauseReason, Plan, Point,
    RESTARTS_MAX, RESTARTS_WITHIN, Rollout, Stage, TRIAL, TRIAL_ABOVE, TRIAL_WEIGHT, Verdict,
};
use crate::core::weight::Weight;

impl Rollout {
    /// Takes in what happened; `passed` is the time since the tick before.
    pub fn on(&mut self, plan: &Plan, event: Event, passed: Duration) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        match event {
            Event::Tick(facts) => self.tick(plan, &facts, passed),
            Event::Checked(point, outcome) if self.awaited == Some(point) => self.checked(plan, point, outcome),
            // The answer to a question that is not asked any more.
            Event::Checked(..) => Vec::new(),
            Event::Restarted { at, counts } => self.restarted(plan, at, counts),
            Event::Superseded => self.shut(End::Superseded),
        }
    }

    fn tick(&mut self, plan: &Plan, facts: &Facts, passed: Duration) -> Vec<Effect> {
        self.seen = facts.counts;
        if facts.counts.requests < self.base.requests {
            // What was counted before a restart is lost: the step has had what is counted since.
            self.base = Counts::default();
        }
        // Whatever the state, paused ones included.
        if let Verdict::Harmful { metric } = &facts.verdict {
            return self.abort(AbortReason::Harmful { metric: metric.clone() });
        }
        if plan.max_failed_requests > 0 && facts.counts.bad > plan.max_failed_requests {
            return self.abort(AbortReason::FailedRequests);
        }
        let trying = matches!(self.stage, Stage::Trial { .. });
        if facts.alarm && self.weight > TRIAL_ABOVE && !trying {
            return self.begin_trial();
        }
        self.go_on_trying(facts, passed);
        if let Some(reason) = self.complaint(plan, facts) {
            return self.complain(reason);
        }
        if self.pause.is_some() {
            return self.wait(plan, passed);
        }
        if matches!(self.stage, Stage::Verifying | Stage::Progressing) && !plan.steps.is_empty() && !self.by_hand {
            self.spent += passed;
            if self.spent > plan.progress_deadline {
                return self.otherwise(plan.on_deadline, AbortReason::Deadline, PauseReason::Deadline);
            }
        }
        match &self.stage {
            Stage::Verifying => self.verify(plan, facts),
            Stage::Progressing | Stage::Baking => self.hold_on(plan, facts, passed),
            Stage::Trial { lasted, .. } if *lasted >= TRIAL => self.pause_for(PauseReason::StableDegraded),
            Stage::Trial { .. } | Stage::Over(_) => Vec::new(),
        }
    }

    /// A trial goes on under a person's pause, but not while there is nothing to compare.
    fn go_on_trying(&mut self, facts: &Facts, passed: Duration) {
        let stands_still = self.pause.is_some_and(|pause| pause.reason.clears());
        if let Stage::Trial { lasted, .. } = &mut self.stage
            && facts.verdict == Verdict::Open
            && !stands_still
        {
            *lasted = lasted.saturating_add(passed);
        }
    }

    /// What speaks against going on, most pressing first.
    fn complaint(&self, plan: &Plan, facts: &Facts) -> Option<PauseReason> {
        let trying = matches!(self.stage, Stage::Trial { .. });
        if facts.verdict == Verdict::Error {
            return Some(PauseReason::GateError);
        }
        // A trial is there to find out whose fault it is.
        if facts.stable_degraded && plan.pause_on_stable_degraded && (!trying || self.pause.is_some()) {
            return Some(PauseReason::StableDegraded);
        }
        if facts.endpoint {
            return Some(PauseReason::Endpoint);
        }
        (facts.sample_ratio && plan.pause_on_sample_ratio).then_some(PauseReason::SampleRatio)
    }

    /// Pauses, or stays in the pause there is: a person's pause is not turned into one that ends by itself.
    fn complain(&mut self, reason: PauseReason) -> Vec<Effect> {
        match &mut self.pause {
            Some(pause) => {
                pause.clear = Duration::ZERO;
                Vec::new()
            }
            None => self.pause_for(reason),
        }
    }

    /// A pause whose cause is gone for a whole hold ends by itself, if it is of that kind.
    fn wait(&mut self, plan: &Plan, passed: Duration) -> Vec<Effect> {
        let hold = self.hold(plan);
        let Some(pause) = &mut self.pause else { return Vec::new() };
        if !pause.reason.clears() {
            return Vec::new();
        }
        pause.clear += passed;
        if pause.clear < hold {
            return Vec::new();
        }
        self.go_on(plan, false)
    }

    /// Leaves a pause: the step's weight returns after a trial, its hold begins again. A weight set by hand stays unless somebody
    /// `asked`.
    pub(super) fn go_on(&mut self, plan: &Plan, asked: bool) -> Vec<Effect> {
        let reason = self.leave_pause(plan);
        self.held = Duration::ZERO;
        self.base = self.seen;
        if let Stage::Trial { from, lasted } = self.stage {
            // What came into a trial that is not over leaves it to go on.
            return if lasted >= TRIAL { self.end_trial(from) } else { Vec::new() };
        }
        // Whoever asked for 100 % and answers a pause goes on baking.
        let baking = reason.is_some() && self.stage == Stage::Baking;
        if asked
            && !baking
            && std::mem::take(&mut self.by_hand)
            && let Some(step) = plan.steps.get(self.step)
        {
            return self.hold_at(step.weight);
        }
        Vec::new()
    }

    /// A pause that waits for a person goes on waiting.
    fn begin_trial(&mut self) -> Vec<Effect> {
        self.stage = Stage::Trial { from: self.weight, lasted: Duration::ZERO };
        self.pause = self.pause.filter(|pause| !pause.reason.clears());
        self.awaited = None;
        self.weight = TRIAL_WEIGHT;
        vec![Effect::Weight(TRIAL_WEIGHT)]
    }

    /// The step's weight returns, and what was approved stays so.
    pub(super) fn end_trial(&mut self, from: Weight) -> Vec<Effect> {
        let approved = self.approved;
        let effects = self.hold_at(from);
        self.approved = approved;
        effects
    }

    fn verify(&mut self, plan: &Plan, facts: &Facts) -> Vec<Effect> {
        if !facts.ready || self.awaited.is_some() {
            return Vec::new();
        }
        if plan.checks.pre_rollout && !self.verified {
            self.awaited = Some(Point::Rollout);
            return vec![Effect::Check(Point::Rollout)];
        }
        self.ask_step(plan, 0)
    }

    /// In a step or a bake: goes on once it was held for long enough and enough requests have tried it.
    fn hold_on(&mut self, plan: &Plan, facts: &Facts, passed: Duration) -> Vec<Effect> {
        // Nobody has tried what has no endpoint to go to, least of all right after a restart.
        if !facts.ready {
            return Vec::new();
        }
        self.held += passed;
        let held_by_hand = self.by_hand || plan.steps.is_empty();
        if self.awaited.is_some() || (held_by_hand && self.stage != Stage::Baking) {
            return Vec::new();
        }
        let hold = self.hold(plan);
        if self.held < hold {
            return Vec::new();
        }
        // A bake no step describes wants what a step wants: no data is no pass.
        let step = plan.steps.get(self.step).filter(|_| !held_by_hand);
        let wanted = step.map_or(MIN_REQUESTS, |step| step.min_requests);
        if facts.counts.requests.saturating_sub(self.base.requests) >= wanted {
            return self.passed(plan);
        }
        if self.held < hold + plan.max_extend {
            return Vec::new();
        }
        let clean = facts.counts.bad == self.base.bad && facts.counts.good > self.base.good;
        match plan.on_low_traffic {
            OnLowTraffic::Advance => self.passed(plan),
            OnLowTraffic::AdvanceIfClean if clean => self.passed(plan),
            OnLowTraffic::AdvanceIfClean | OnLowTraffic::Pause => self.pause_for(PauseReason::LowTraffic),
        }
    }

    /// The step in hand has passed.
    pub(super) fn passed(&mut self, plan: &Plan) -> Vec<Effect> {
        if self.stage == Stage::Baking {
            return self.ask_promotion(plan);
        }
        self.ask_step(plan, self.step + 1)
    }

    /// Asks for whatever has to be true before the step at `index`, and begins it if that is nothing.
    fn ask_step(&mut self, plan: &Plan, index: usize) -> Vec<Effect> {
        let step = plan.steps.get(index);
        if step.is_some_and(|step| step.approval) && !self.approved {
            return self.pause_for(PauseReason::Approval);
        }
        let asked = step.is_some_and(|step| !step.synthetic.is_empty()) || plan.checks.pre_step;
        if asked {
            self.awaited = Some(Point::Step(index));
            return vec![Effect::Check(Point::Step(index))];
        }
        self.begin_step(plan, index)
    }

    /// Begins the step at `index`; behind the last one that is 100 %.
    pub(super) fn begin_step(&mut self, plan: &Plan, index: usize) -> Vec<Effect> {
        let weight = plan.steps.get(index).map_or(Weight::FULL, |step| step.weight);
        self.step = index;
        self.by_hand = false;
        let mut effects = self.hold_at(weight);
        effects.push(Effect::StepBegan(index));
        effects
    }

    fn ask_promotion(&mut self, plan: &Plan) -> Vec<Effect> {
        if plan.checks.pre_promotion {
            self.awaited = Some(Point::Promotion);
            return vec![Effect::Check(Point::Promotion)];
        }
        self.succeed()
    }

    pub(super) fn succeed(&mut self) -> Vec<Effect> {
        self.stage = Stage::Over(End::Succeeded);
        self.pause = None;
        self.awaited = None;
        self.weight = Weight::FULL;
        vec![Effect::Promote]
    }

    fn checked(&mut self, plan: &Plan, point: Point, outcome: Checked) -> Vec<Effect> {
        self.awaited = None;
        if let Checked::Failed(otherwise) = outcome {
            return self.otherwise(otherwise, AbortReason::Check, PauseReason::Hook);
        }
        self.verified |= point == Point::Rollout;
        // An answer during a pause does not raise the weight: the question is asked again after it.
        if self.pause.is_some() {
            return Vec::new();
        }
        match point {
            Point::Rollout => self.ask_step(plan, 0),
            Point::Step(index) => self.begin_step(plan, index),
            Point::Promotion => self.succeed(),
        }
    }

    /// The hold begins again; too many restarts wait for a person.
    fn restarted(&mut self, plan: &Plan, at: Duration, counts: Counts) -> Vec<Effect> {
        self.held = Duration::ZERO;
        (self.seen, self.base) = (counts, counts);
        self.awaited = None;
        self.restarts.retain(|before| at.saturating_sub(*before) < RESTARTS_WITHIN);
        self.restarts.push(at);
        if let Some(pause) = &mut self.pause {
            pause.clear = Duration::ZERO;
        }
        let often = self.restarts.len() >= RESTARTS_MAX;
        if often {
            self.restarts.drain(..self.restarts.len() - RESTARTS_MAX);
        }
        if self.pause.is_none() && (often || !plan.resume_after_restart) {
            return self.pause_for(PauseReason::Restarts);
        }
        Vec::new()
    }
}

impl Otherwise {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Abort => "abort",
        }
    }
}
