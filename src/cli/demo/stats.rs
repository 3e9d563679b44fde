//! What the load has seen, per step of the demo and per user. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use crate::core::id::Variant;

/// From when on an answer is slow enough to be noticed.
pub(super) const SLOW_FROM: Duration = Duration::from_millis(250);
/// Kinds of failure kept apart; further ones are counted under one name.
const KINDS_MAX: usize = 16;

/// One request and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Who asked, below the number of users.
    pub(super) user: usize,
    /// The step the demo was in when the request began.
    pub(super) began: usize,
    /// Which upstream answered, or what went wrong.
    pub(super) outcome: Result<Variant, String>,
    /// From when the request was due to its last byte.
    pub(super) latency: Duration,
}

/// The requests of one step.
#[derive(Clone, Debug)]
pub(super) struct StepStats {
    /// Requests that ended.
    pub(super) requests: u64,
    /// Answered by the candidate.
    pub(super) candidate: u64,
    /// Failed in any way.
    pub(super) errors: u64,
    /// Answered, but not before [`SLOW_FROM`].
    pub(super) slow: u64,
    /// Latencies of those that did not fail.
    pub(super) latency: Histogram,
    /// Which users were answered at all, and by the candidate.
    users: Vec<(bool, bool)>,
}

/// Everything seen.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    steps: Vec<StepStats>,
    /// The step the demo is in.
    now: usize,
    /// Who answered each user last.
    last: Vec<Option<Variant>>,
    /// Users that were seen to change from stable to candidate.
    moved: u64,
    /// Times a user was seen to change from candidate to stable while nothing was wrong.
    moved_back: u64,
    /// What had failed, and what had been slow, when something began to go wrong.
    before: Option<(u64, u64)>,
    /// Requests that were due but not sent because their connection was busy too long.
    pub(super) skipped: u64,
    /// How often each failure was seen.
    pub(super) failures: BTreeMap<String, u64>,
}

// === impl Stats ===

impl Stats {
    /// Nothing seen yet; at least one step.
    pub(super) fn new(steps: usize, users: usize) -> Self {
        Self {
            steps: vec![StepStats::new(users); steps.max(1)],
            now: 0,
            last: vec![None; users],
            moved: 0,
            moved_back: 0,
            before: None,
            skipped: 0,
            failures: BTreeMap::new(),
        }
    }

    /// The demo goes on to this step, the last one at most.
    pub(super) fn enter(&mut self, step: usize) {
        self.now = step.min(self.steps.len() - 1);
    }

    /// The step the demo is in.
    pub(super) const fn now(&self) -> usize {
        self.now
    }

    /// From now on something is wrong with the candidate: users may fail, and may go back to stable.
    pub(super) fn spoil(&mut self) {
        self.before = Some((self.errors(), self.all_slow()));
    }

    /// Takes down one more request, which ends now.
    pub(super) fn record(&mut self, sample: &Sample) {
        let at = sample.began.min(self.steps.len() - 1);
        self.steps[at].record(sample);
        match &sample.outcome {
            Ok(variant) => self.follow(sample, *variant),
            Err(kind) => {
                let full = self.failures.len() >= KINDS_MAX && !self.failures.contains_key(kind);
                let kind = if full { "other failures" } else { kind };
                *self.failures.entry(kind.to_owned()).or_default() += 1;
            }
        }
    }

    /// A user's requests come one after the other, so each either stays where the last one was or moves.
    fn follow(&mut self, sample: &Sample, variant: Variant) {
        let last = self.last[sample.user].replace(variant);
        match (last, variant) {
            (Some(Variant::Stable), Variant::Candidate) => self.moved += 1,
            (Some(Variant::Candidate), Variant::Stable) if self.before.is_none() => self.moved_back += 1,
            _ => {}
        }
    }

    /// What had failed before anything was wrong.
    pub(super) fn errors_before(&self) -> u64 {
        self.before.map_or_else(|| self.errors(), |(errors, _)| errors)
    }

    /// Slow answers since something is wrong.
    pub(super) fn slow(&self) -> u64 {
        self.before.map_or(0, |(_, slow)| self.all_slow() - slow)
    }

    fn all_slow(&self) -> u64 {
        self.steps.iter().map(|step| step.slow).sum()
    }

    /// What was seen in a step.
    pub(super) fn step(&self, step: usize) -> &StepStats {
        &self.steps[step.min(self.steps.len() - 1)]
    }

    /// Users that went over to the candidate.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Times a user went back to stable while nothing was wrong.
    pub(super) const fn moved_back(&self) -> u64 {
        self.moved_back
    }

    /// All requests.
    pub(super) fn requests(&self) -> u64 {
        self.steps.iter().map(|step| step.requests).sum()
    }

    /// All failed requests.
    pub(super) fn errors(&self) -> u64 {
        self.steps.iter().map(|step| step.errors).sum()
    }
}

// === impl StepStats ===

impl StepStats {
    fn new(users: usize) -> Self {
        Self {
            requests: 0,
            candidate: 0,
            errors: 0,
            slow: 0,
            latency: Histogram::new(),
            users: vec![(false, false); users],
        }
    }

    fn record(&mut self, sample: &Sample) {
        self.requests += 1;
        match sample.outcome {
            Ok(variant) => {
                let on_candidate = variant == Variant::Candidate;
                self.candidate += u64::from(on_candidate);
                self.latency.record(sample.latency);
                self.slow += u64::from(sample.latency >= SLOW_FROM);
                let user = &mut self.users[sample.user];
                *user = (true, user.1 || on_candidate);
            }
            Err(_) => self.errors += 1,
        }
    }

    /// Share of the answered requests that the candidate answered, `0.0..=1.0`; `None` without an answer.
    pub(super) fn share(&self) -> Option<f64> {
        let answered = self.requests - self.errors;
        #[expect(clippy::cast_precision_loss, reason = "a demo has fewer than 2^52 requests")]
        (answered > 0).then(|| self.candidate as f64 / answered as f64)
    }

    /// Users that were answered, and those of them that the candidate answered.
    pub(super) fn users(&self) -> (u64, u64) {
        let count = |pick: fn(&(bool, bool)) -> bool| self.users.iter().filter(|user| pick(user)).count() as u64;
        (count(|user| user.0), count(|user| user.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Variant::{Candidate, Stable};

    fn sample(user: usize, began: usize, outcome: Result<Variant, &str>) -> Sample {
        Sample { user, began, outcome: outcome.map_err(str::to_owned), latency: Duration::from_millis(2) }
    }

    #[test]
    fn shares_count_answers_and_users_count_once() {
        let mut stats = Stats::new(3, 4);
        for (user, outcome) in
            [(0, Ok(Stable)), (0, Ok(Stable)), (1, Ok(Candidate)), (2, Ok(Stable)), (3, Err("timeout"))]
        {
            stats.record(&sample(user, 1, outcome));
        }
        let slow = Sample { latency: SLOW_FROM, ..sample(2, 2, Ok(Stable)) };
        stats.record(&slow);
        stats.spoil();
        stats.record(&slow);
        let step = stats.step(1);
        assert_eq!((step.requests, step.candidate, step.errors, step.share()), (5, 1, 1, Some(0.25)));
        assert_eq!((step.users(), stats.step(2).slow, stats.slow()), ((3, 1), 2, 1));
        assert_eq!((stats.requests(), stats.errors(), stats.step(0).share()), (7, 1, None));
        assert_eq!(stats.failures, BTreeMap::from([("timeout".to_owned(), 1)]));
    }

    #[test]
    fn a_way_back_counts_until_something_is_wrong() {
        let mut stats = Stats::new(3, 1);
        for variant in [Stable, Candidate, Stable, Candidate] {
            stats.record(&sample(0, 1, Ok(variant)));
        }
        assert_eq!((stats.moved(), stats.moved_back()), (2, 1));
        stats.spoil();
        stats.record(&sample(0, 1, Ok(Stable)));
        assert_eq!(stats.moved_back(), 1);
    }

    #[test]
    fn what_failed_before_the_fault_is_kept_apart_and_a_failure_moves_nobody() {
        let mut stats = Stats::new(2, 1);
        stats.record(&sample(0, 0, Err("reset")));
        assert_eq!((stats.errors(), stats.errors_before()), (1, 1));
        stats.spoil();
        stats.record(&sample(0, 1, Err("status 500")));
        assert_eq!((stats.errors(), stats.errors_before(), stats.moved_back()), (2, 1, 0));
    }

    #[test]
    fn a_step_there_is_not_is_the_last_one() {
        let mut stats = Stats::new(2, 1);
        stats.enter(7);
        stats.record(&sample(0, 9, Ok(Stable)));
        assert_eq!((stats.now(), stats.step(1).requests, stats.step(5).requests), (1, 1, 1));
    }

    #[test]
    fn kinds_of_failure_are_bounded() {
        let mut stats = Stats::new(1, 1);
        (0..100).for_each(|i| stats.record(&sample(0, 0, Err(&format!("kind {i}")))));
        assert_eq!(stats.failures.len(), KINDS_MAX + 1);
        assert_eq!(stats.failures.values().sum::<u64>(), 100);
    }
}
