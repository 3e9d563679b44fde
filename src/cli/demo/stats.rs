//! What the load has seen, per step of the demo and per user. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::histogram::Histogram;
use crate::core::id::Variant;

/// Kinds of failure kept apart; further ones are counted under one name.
const KINDS_MAX: usize = 16;

/// Where the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The way to a step is asked for but not yet answered.
    Changing(usize),
    /// A step is in force.
    Step(usize),
}

/// One request and how it ended.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Who asked, below the number of users.
    pub(super) user: usize,
    /// Where the demo was when the request began.
    pub(super) began: Moment,
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
    /// Latencies of those that did not fail.
    pub(super) latency: Histogram,
    /// Which users were answered at all, and by the candidate.
    users: Vec<(bool, bool)>,
}

/// Everything seen.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    steps: Vec<StepStats>,
    /// Requests that began while a weight was being changed.
    between: StepStats,
    /// Where the demo is.
    now: Moment,
    /// Who answered each user last.
    last: Vec<Option<Variant>>,
    /// Users that were seen to change from stable to candidate.
    moved: u64,
    /// Times a user was seen to change from candidate to stable.
    moved_back: u64,
    /// The step from which on a way back to stable is what was asked for.
    abort_step: usize,
    /// Requests that were due but not sent because their connection was busy too long.
    pub(super) skipped: u64,
    /// How often each failure was seen.
    pub(super) failures: BTreeMap<String, u64>,
}

// === impl Stats ===

impl Stats {
    /// Nothing seen yet. The last step is the one after the abort.
    pub(super) fn new(steps: usize, users: usize) -> Self {
        Self {
            steps: vec![StepStats::new(users); steps],
            between: StepStats::new(users),
            now: Moment::Changing(0),
            last: vec![None; users],
            moved: 0,
            moved_back: 0,
            abort_step: steps.saturating_sub(1),
            skipped: 0,
            failures: BTreeMap::new(),
        }
    }

    /// The demo goes on to `moment`.
    pub(super) const fn enter(&mut self, moment: Moment) {
        self.now = moment;
    }

    /// Where the demo is.
    pub(super) const fn now(&self) -> Moment {
        self.now
    }

    /// Takes down one more request, which ends now.
    pub(super) fn record(&mut self, sample: &Sample) {
        let step = match sample.began {
            Moment::Step(step) => self.steps.get_mut(step).unwrap_or(&mut self.between),
            Moment::Changing(_) => &mut self.between,
        };
        step.record(sample);
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
            // A request in flight while the abort takes effect may go either way.
            (Some(Variant::Candidate), Variant::Stable) if !self.is_aborting() => self.moved_back += 1,
            _ => {}
        }
    }

    const fn is_aborting(&self) -> bool {
        let (Moment::Changing(step) | Moment::Step(step)) = self.now;
        step >= self.abort_step
    }

    /// What was seen in a step.
    pub(super) fn step(&self, step: usize) -> &StepStats {
        self.steps.get(step).unwrap_or(&self.between)
    }

    /// Users that went over to the candidate.
    pub(super) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Times a user went back to stable before the abort.
    pub(super) const fn moved_back(&self) -> u64 {
        self.moved_back
    }

    /// All requests.
    pub(super) fn requests(&self) -> u64 {
        self.all().map(|step| step.requests).sum()
    }

    /// All failed requests.
    pub(super) fn errors(&self) -> u64 {
        self.all().map(|step| step.errors).sum()
    }

    fn all(&self) -> impl Iterator<Item = &StepStats> {
        self.steps.iter().chain([&self.between])
    }
}

// === impl StepStats ===

impl StepStats {
    fn new(users: usize) -> Self {
        Self { requests: 0, candidate: 0, errors: 0, latency: Histogram::new(), users: vec![(false, false); users] }
    }

    fn record(&mut self, sample: &Sample) {
        self.requests += 1;
        match sample.outcome {
            Ok(variant) => {
                let on_candidate = variant == Variant::Candidate;
                self.candidate += u64::from(on_candidate);
                self.latency.record(sample.latency);
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
    use Moment::{Changing, Step};
    use Variant::{Candidate, Stable};

    fn sample(user: usize, began: Moment, outcome: Result<Variant, &str>) -> Sample {
        Sample { user, began, outcome: outcome.map_err(str::to_owned), latency: Duration::from_millis(2) }
    }

    /// One user's answers, each at its moment.
    fn seen(answers: &[(Moment, Variant)]) -> Stats {
        let mut stats = Stats::new(3, 1);
        for (moment, variant) in answers {
            stats.enter(*moment);
            stats.record(&sample(0, *moment, Ok(*variant)));
        }
        stats
    }

    #[test]
    fn shares_count_answers_and_users_count_once() {
        let mut stats = Stats::new(3, 4);
        for (user, outcome) in
            [(0, Ok(Stable)), (0, Ok(Stable)), (1, Ok(Candidate)), (2, Ok(Stable)), (3, Err("timeout"))]
        {
            stats.record(&sample(user, Step(1), outcome));
        }
        let step = stats.step(1);
        assert_eq!((step.requests, step.candidate, step.errors, step.share()), (5, 1, 1, Some(0.25)));
        assert_eq!(step.users(), (3, 1));
        assert_eq!((stats.requests(), stats.errors(), stats.step(0).share()), (5, 1, None));
        assert_eq!(stats.failures, BTreeMap::from([("timeout".to_owned(), 1)]));
    }

    #[test]
    fn a_way_back_counts_until_the_abort_begins() {
        let moves = |answers: &[_]| (seen(answers).moved(), seen(answers).moved_back());
        let up = [(Step(0), Stable), (Step(1), Candidate)];
        assert_eq!(moves(&up), (1, 0));
        for (moment, back) in [(Step(1), 1), (Changing(1), 1), (Changing(2), 0), (Step(2), 0)] {
            assert_eq!(moves(&[&up[..], &[(moment, Stable)]].concat()), (1, back), "{moment:?}");
        }
    }

    #[test]
    fn a_request_that_began_before_the_abort_may_end_after_it() {
        let mut stats = seen(&[(Step(1), Candidate)]);
        stats.enter(Changing(2));
        stats.record(&sample(0, Step(1), Ok(Stable)));
        assert_eq!((stats.moved_back(), stats.step(1).requests), (0, 2));
    }

    #[test]
    fn requests_between_steps_count_in_the_total_only_and_a_failure_moves_nobody() {
        let mut stats = Stats::new(2, 1);
        stats.record(&sample(0, Changing(0), Err("reset")));
        assert_eq!((stats.requests(), stats.errors(), stats.step(0).requests, stats.moved_back()), (1, 1, 0, 0));
    }

    #[test]
    fn kinds_of_failure_are_bounded() {
        let mut stats = Stats::new(1, 1);
        (0..100).for_each(|i| stats.record(&sample(0, Step(0), Err(&format!("kind {i}")))));
        assert_eq!(stats.failures.len(), KINDS_MAX + 1);
        assert_eq!(stats.failures.values().sum::<u64>(), 100);
    }
}
