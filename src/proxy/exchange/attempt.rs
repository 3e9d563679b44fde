//! Where the next attempt of a request goes: an endpoint of its pool, another one, stable instead of the candidate, or nowhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::assign::Assignment;
use crate::core::circuit::Limit;
use crate::core::id::Variant;
use crate::core::retry::Reason;
use crate::proxy::respond::Reply;
use crate::state::conduct::Admission;
use crate::state::live::{EndpointLive, InFlight};
use crate::telemetry::termination::Termination;

use super::again::narrow;
use super::choose::{is_out, why_out};
use super::judge::fault_of;
use super::{ATTEMPTS_MAX, Attempt, Exchange, Failure, Next, Outcome, Replay, TRIED_MAX};

impl Exchange {
    /// An attempt failed before a response head was passed: again, elsewhere, or an answer.
    pub fn failed(&mut self, failure: Failure, replay: Replay, now: Instant, random: &mut fastrand::Rng) -> Next {
        let failure = if self.call_until.is_some_and(|at| at <= now) { Failure::HeadTimeout } else { failure };
        self.remember(Outcome::Failed(failure));
        self.left(now);
        if self.can_repeat(replay) && self.is_free(failure, now) {
            return self.replay(now, random);
        }
        if failure.is_bad() {
            self.mark_bad(now);
        }
        if let Some(fault) = fault_of(failure) {
            self.blame(fault, now);
        }
        if let Some(shard) = self.shard().filter(|_| failure.is_connect()) {
            shard.connect_failures.add(1);
        }
        if let Some(granted) = self.granted() {
            return granted;
        }
        if failure == Failure::Withdrawn {
            return self.send(now, random);
        }
        // A request nobody has seen is better off on stable now than on the same endpoint of the candidate later.
        let has_stable = self.variant == Variant::Candidate && self.assignment != Assignment::Forced;
        let leaves = failure.is_connect() && has_stable && !(self.is_allowed() && self.has_other());
        let repeatable = self.idempotent || failure.is_untouched();
        if !leaves
            && let Some(reason) = failure.reason()
            && let Some(next) = self.retry(reason, repeatable, replay, now, random)
        {
            return next;
        }
        if failure.is_connect()
            && has_stable
            && self.can_repeat(replay)
            && let Some(next) = self.elsewhere(now, random)
        {
            return next;
        }
        Next::Reply(self.reply(failure.termination()))
    }

    /// Whether a failure leaves the request as if it had never been sent: a connection that died while idle, or a refusal, each once. An
    /// upstream can refuse everything it is sent, so refusals are repeated within the budget only.
    fn is_free(&mut self, failure: Failure, now: Instant) -> bool {
        match failure {
            Failure::Closed { accepted } => {
                let stale = self.proven && self.rules().is_some_and(|rules| rules.on.stale);
                let free = stale && !self.replayed && (self.idempotent || !accepted);
                self.replayed |= free;
                free
            }
            Failure::Refused => {
                let free = !self.refused && self.is_affordable(now);
                self.refused |= free;
                free
            }
            _ => false,
        }
    }

    /// The connection, although shared, has not answered anything yet.
    pub fn unproven(&mut self) {
        self.proven = false;
    }

    /// The attempt waited so long for a connection or a stream because all were busy; that is part of how fast its pool is.
    pub fn queued(&mut self, wait: Duration) {
        self.queued = wait;
    }

    /// The next attempt in the current pool (in stable if that of the candidate has nobody ready), or an answer if it has no endpoint left.
    pub(super) fn send(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        if !self.is_allowed() {
            self.fall_back();
            // Stable may have been rolled back, too: then the one before it is stable again.
            self.on_warm |= !self.is_allowed();
        }
        let Some(service) = self.service else { return Next::Reply(self.reply(Termination::NoRoute)) };
        let mut picked = self.pick(service, now, random);
        if picked.is_none() && self.is_retry() {
            picked = self.pick_tried(service, now, random);
        }
        if picked.is_none() && self.leave_unready(service, now) {
            picked = self.pick(service, now, random);
        }
        let live = &self.routing.live[service];
        if self.attempts >= ATTEMPTS_MAX
            && let Some((index, admission)) = picked.take()
        {
            live.endpoint(self.variant, index).inspect(|endpoint| endpoint.conduct.give_back(admission));
        }
        let Some((index, admission)) = picked else {
            let pool = self.pool(service);
            let reply = match is_out(pool) {
                _ if pool.is_empty() => Reply::of(Termination::Unresolved),
                true => Reply::unusable(why_out(pool)),
                false => Reply::of(Termination::NoEndpoint),
            };
            self.status = reply.status;
            return Next::Reply(reply);
        };
        let at = (self.variant, index);
        if self.tried_len < TRIED_MAX {
            self.tried[self.tried_len] = (at.0, narrow(at.1));
            self.tried_len += 1;
        }
        self.attempt(service, at, now, Some(admission))
    }

    /// An endpoint that was tried already: any but the last, or the last.
    fn pick_tried(&mut self, service: usize, now: Instant, random: &mut fastrand::Rng) -> Option<(usize, Admission)> {
        self.tried_len = 0;
        if let Some(last) = self.endpoint {
            self.tried[0] = (last.0, narrow(last.1));
            self.tried_len = 1;
        }
        self.pick(service, now, random).or_else(|| {
            self.tried_len = 0;
            self.pick(service, now, random)
        })
    }

    /// Goes to stable if the request was assigned to a candidate nobody of which can be used. One that was ready once, or is ejected, is
    /// charged: one exposure, one bad. One that is still unknown, or was drained, has no share, so the request counts as assigned to
    /// stable. Whoever forces the candidate wants to know.
    fn leave_unready(&mut self, service: usize, now: Instant) -> bool {
        let live = &self.routing.live[service];
        let stays = self.variant == Variant::Stable || self.assignment == Assignment::Forced;
        if stays || !is_out(live.pool(Variant::Candidate)) {
            return false;
        }
        let at_fault = live.at_fault(Variant::Candidate).filter(|_| self.attempts == 0 && !self.bad);
        if let Some(endpoint) = at_fault {
            self.charge(service, endpoint, now);
        }
        let unknown = self.attempts == 0 && !self.bad;
        self.fall_back();
        if unknown {
            self.assignment = Assignment::Bucket;
        }
        true
    }

    /// Begins an attempt; without an admission of its own it goes on with that of the one before, whose exposure it is.
    fn attempt(&mut self, service: usize, at: (Variant, usize), now: Instant, admission: Option<Admission>) -> Next {
        let limits = self.settings().map(|service| service.upstream.limits).unwrap_or_default();
        let Some(endpoint) = self.routing.live[service].endpoint(at.0, at.1) else {
            return Next::Reply(self.reply(Termination::NoEndpoint));
        };
        let Some(in_flight) = InFlight::begin(Arc::clone(endpoint), &limits) else {
            endpoint.pool.overflowed(Limit::Requests);
            if let Some(admission) = admission {
                endpoint.conduct.give_back(admission);
            }
            return Next::Reply(self.reply(Termination::RequestLimit));
        };
        let (endpoint, counted) = (Arc::clone(endpoint), admission.is_some());
        if let Some(admission) = admission {
            self.admitted(admission);
        }
        self.endpoint = Some(at);
        self.asked();
        self.attempt_began = now;
        self.connected = None;
        self.queued = Duration::ZERO;
        (self.reused, self.proven) = (false, false);
        self.sent = None;
        self.status = 0;
        let shard = endpoint.counters.of(self.policy.worker);
        if counted {
            self.attempts += 1;
            self.exposed(now);
            shard.attempts.add(1);
            if let Some(reason) = self.history.reason.take() {
                shard.retries[reason as usize].add(1);
            }
        } else {
            shard.stale_replays.add(1);
        }
        Next::Send(Attempt { number: self.attempts, in_flight, may_reuse: counted })
    }

    /// The same exposure once more on a fresh connection: the old one had died while idle (RFC 9110 section 9.2.2), or nobody looked at it.
    fn replay(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        let on_trial = self.admission.is_some_and(Admission::is_trial);
        let leaving = self.endpoint().is_some_and(|e| e.is_removed() || !(e.is_usable() || on_trial));
        // After an abort the candidate gets nothing any more; what may be sent again may be sent to stable.
        let shut = !self.is_allowed();
        if leaving || shut {
            let next = self.send(now, random);
            if shut || matches!(next, Next::Send(_)) {
                return next;
            }
        }
        match (self.service, self.endpoint) {
            (Some(service), Some(at)) => self.attempt(service, at, now, None),
            _ => Next::Reply(self.reply(Termination::UpstreamReset)),
        }
    }

    /// After a connect that failed for good: stable instead of the candidate, once.
    fn elsewhere(&mut self, now: Instant, random: &mut fastrand::Rng) -> Option<Next> {
        self.fall_back();
        self.history.reason = Some(Reason::Connect);
        match self.send(now, random) {
            next @ Next::Send(_) => Some(next),
            _ => None,
        }
    }

    fn fall_back(&mut self) {
        self.variant = Variant::Stable;
        self.assignment = Assignment::Fallback;
        self.fresh = None;
    }

    /// Whether the connection just made must not be used: the variant was aborted meanwhile, or the endpoint left and another one of
    /// its pool can serve.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let leaving = self.endpoint().is_some_and(|endpoint| endpoint.is_leaving());
        !self.is_allowed() || (leaving && self.has_staying())
    }

    fn has_staying(&self) -> bool {
        self.has_untried(|endpoint| !endpoint.is_removed())
    }

    /// Whether the pool has another endpoint to try.
    pub(super) fn has_other(&self) -> bool {
        self.has_untried(|_| true)
    }

    /// Whether an endpoint of the pool can be used, was not tried, and is `wanted`.
    fn has_untried(&self, wanted: impl Fn(&EndpointLive) -> bool) -> bool {
        let Some(service) = self.service else { return false };
        let (pool, first) = (self.pool(service), self.first(service));
        let tried = &self.tried[..self.tried_len];
        let untried = |i: usize| !tried.contains(&(self.variant, narrow(first + i)));
        (0..pool.len()).any(|i| pool[i].is_usable() && wanted(&pool[i]) && untried(i))
    }

    /// Who was tried last.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Arc<EndpointLive>> {
        let (variant, index) = self.endpoint?;
        self.routing.live[self.service?].endpoint(variant, index)
    }

    /// From the beginning of the last attempt to its connection.
    #[must_use]
    pub fn connect_time(&self) -> Option<Duration> {
        self.connected.map(|at| at.saturating_duration_since(self.attempt_began))
    }

    /// From the request fully sent to the response head.
    #[must_use]
    pub fn upstream_time(&self) -> Option<Duration> {
        self.sent.and_then(|sent| Some(self.head_at?.saturating_duration_since(sent)))
    }

    /// Whether an attempt on the variant may begin at this moment.
    pub(super) fn is_allowed(&self) -> bool {
        let Some(service) = self.service else { return false };
        let (active, live) = self.routing.service(service);
        let shut = live.is_shut(self.variant, self.routing.snapshot.generation);
        if self.variant == Variant::Stable {
            return !shut || self.on_warm;
        }
        let openness = active.openness(live.is_candidate_open() && !shut);
        openness.open || (self.assignment == Assignment::Forced && openness.open_to_force)
    }
}
