//! Whether and when a request is tried again: rules of its service, budget of the worker, what came of the attempts before.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::core::id::Variant;
use crate::core::retry::{Budget, Reason, RetryRules};
use crate::telemetry::access::Failed;

use super::{ATTEMPTS_MAX, Exchange, Next, Outcome, REPLAYS_MAX, Replay};

/// Failed attempts of a request that are remembered for the access log: all there can be.
pub(super) const FAILED_SHOWN_MAX: usize = (ATTEMPTS_MAX + REPLAYS_MAX) as usize;

/// The retry budgets of one worker, by the number of the service.
#[derive(Debug)]
pub struct Budgets {
    began: Instant,
    by_service: RefCell<Vec<Budget>>,
}

/// An attempt that failed, or whose response was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FailedAttempt {
    variant: Variant,
    /// Which endpoint of the pool.
    index: u32,
    outcome: Outcome,
}

/// What a request has behind it, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Extra attempts that were granted, failovers aside.
    retries: u32,
    /// Another attempt was granted after a failed connect.
    failed_over: bool,
    /// Why the next attempt is made.
    pub(super) reason: Option<Reason>,
    /// When it is made.
    until: Option<Instant>,
    /// When the wait for a response head is given up if the request may be tried again: a share of what is left.
    share: Option<Instant>,
    /// An interim response reached the client.
    informed: bool,
    /// At most [`FAILED_SHOWN_MAX`]; without a failure there is nothing to allocate.
    failed: Vec<FailedAttempt>,
}

// === impl Budgets ===

impl Budgets {
    /// Budgets that look back from `now` on.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { began: now, by_service: RefCell::default() }
    }

    /// Notes a request to the service with this number.
    pub(super) fn request(&self, service: usize, now: Instant) {
        self.of(service, now, Budget::request);
    }

    fn take(&self, service: usize, now: Instant, rules: &RetryRules, workers: usize) -> bool {
        self.of(service, now, |budget, now| budget.take(now, rules, workers))
    }

    fn of<T>(&self, service: usize, now: Instant, ask: impl FnOnce(&mut Budget, Duration) -> T) -> T {
        let mut budgets = self.by_service.borrow_mut();
        if budgets.len() <= service {
            budgets.resize_with(service + 1, Budget::default);
        }
        ask(&mut budgets[service], now.saturating_duration_since(self.began))
    }
}

// === impl Exchange ===

impl Exchange {
    /// An interim response was passed to the client: nothing is tried again any more.
    pub fn informed(&mut self) {
        self.history.informed = true;
    }

    /// The request goes on after [`Next::Park`]; decided anew, since an abort or a reload may have come meanwhile.
    pub fn unpark(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        if let Some(until) = self.history.until.filter(|until| *until > now && self.is_allowed()) {
            return Next::Park { until };
        }
        self.history.until = None;
        self.send(now, random)
    }

    /// The wait for a response head has taken its time: whether it is over. It goes on if the request cannot be tried again and the time of
    /// all attempts is not over.
    pub fn overdue(&mut self, replay: Replay, now: Instant, random: &mut fastrand::Rng) -> bool {
        if self.head_deadline().is_some_and(|at| at <= now) || self.history.share.is_none_or(|at| at > now) {
            return true;
        }
        self.history.share = None;
        self.retry(Reason::Timeout, self.idempotent, replay, now, random).is_some()
    }

    /// What body may be kept in memory to be sent again, in bytes. `may_refuse`: the upstream can say that it has not looked at a request.
    #[must_use]
    pub fn replay_max(&self, may_refuse: bool) -> u64 {
        let Some(rules) = self.rules() else { return 0 };
        let stale = self.proven && !self.replayed && rules.on.stale;
        let again = self.idempotent && rules.retries_answers() && self.history.retries < rules.attempts;
        if stale || may_refuse || again { rules.max_body } else { 0 }
    }

    /// The attempts that failed, oldest first, replays included.
    pub fn failed_attempts(&self) -> impl Iterator<Item = Failed<'_>> {
        let shown = |attempt: &FailedAttempt| {
            let (live, index) = (&self.routing.live[self.service?], usize::try_from(attempt.index).ok()?);
            let endpoint = live.endpoint(attempt.variant, index)?;
            Some(Failed { variant: attempt.variant, endpoint: &endpoint.key.address, how: attempt.outcome.how() })
        };
        self.history.failed.iter().filter_map(shown)
    }

    pub(super) fn rules(&self) -> Option<&RetryRules> {
        Some(&self.settings()?.upstream.retry)
    }

    /// Whether nothing of an answer has reached the client, and all that was taken of the request can be sent again.
    pub(super) fn can_repeat(&self, replay: Replay) -> bool {
        replay != Replay::Truncated && !self.history.informed
    }

    /// Another attempt for `reason`, later, if rules, deadline and budget allow it. `repeatable` as in [`RetryRules::allow`]. A first failed
    /// connect goes to another endpoint although no attempt is left: nobody has seen the request.
    pub(super) fn retry(
        &mut self,
        reason: Reason,
        repeatable: bool,
        replay: Replay,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Option<Next> {
        let rules = *self.rules()?;
        let left = self.history.retries < rules.attempts;
        let connect = reason == Reason::Connect;
        let fails_over = connect && !self.history.failed_over && self.has_other();
        if !(left || fails_over) || !rules.allow(reason, repeatable) || !self.can_repeat(replay) {
            return None;
        }
        let until = now + rules.wait(self.history.retries + 1, random.u64(..));
        if self.head_deadline().is_some_and(|deadline| deadline <= until) {
            return None;
        }
        if !self.is_affordable(now) {
            return None;
        }
        self.history.retries += u32::from(left);
        self.history.failed_over |= connect;
        self.history.reason = Some(reason);
        self.history.until = Some(until);
        Some(Next::Park { until })
    }

    /// Takes one repetition from the budget of the service, or counts that there was none left.
    pub(super) fn is_affordable(&self, now: Instant) -> bool {
        let (Some(rules), Some(service)) = (self.rules(), self.service) else { return false };
        let (number, workers) = (self.routing.live[service].number, self.policy.process.workers());
        let left = self.policy.budgets.take(number, now, rules, workers);
        if let Some(shard) = self.shard().filter(|_| !left) {
            shard.retries_denied.add(1);
        }
        left
    }

    /// The retry that was granted already, when an attempt was given up for it.
    pub(super) fn granted(&self) -> Option<Next> {
        self.history.until.map(|until| Next::Park { until })
    }

    /// Whether the next attempt repeats one: then an endpoint that was tried before is better than none.
    pub(super) fn is_retry(&self) -> bool {
        self.history.reason.is_some()
    }

    /// Gives the attempt whose request was just sent its share of the time that is left, if another one may follow it.
    pub(super) fn share(&mut self, deadline: Instant, now: Instant) {
        let retries = self.history.retries;
        let left =
            self.rules().filter(|rules| rules.on.timeout).map_or(0, |rules| rules.attempts.saturating_sub(retries));
        let shared = left > 0 && self.idempotent && !self.history.informed;
        self.history.share = shared.then(|| now + deadline.saturating_duration_since(now) / (left + 1));
    }

    /// When the wait for a response head ends.
    pub(super) fn patience(&self) -> Option<Instant> {
        [self.head_deadline(), self.history.share].into_iter().flatten().min()
    }

    /// When there is no time for any attempt left.
    fn head_deadline(&self) -> Option<Instant> {
        [self.deadline, self.call_until].into_iter().flatten().min()
    }

    pub(super) fn remember(&mut self, outcome: Outcome) {
        if let Some((variant, index)) = self.endpoint.filter(|_| self.history.failed.len() < FAILED_SHOWN_MAX) {
            self.history.failed.push(FailedAttempt { variant, index: narrow(index), outcome });
        }
    }
}

/// The place of an endpoint in its pool in few bytes: every client connection carries room for some.
pub(super) fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
