//! Where the next attempt of a request goes: an endpoint of its pool, another one, stable instead of the candidate, or nowhere.

use std::sync::Arc;
use std::time::Instant;

use crate::core::assign::Assignment;
use crate::core::id::Variant;
use crate::state::conduct::Admission;
use crate::state::live::{EndpointLive, InFlight};
use crate::telemetry::termination::Termination;

use super::choose::is_out;
use super::judge::fault_of;
use super::{ATTEMPTS_MAX, Attempt, CONNECTS_PER_POOL_MAX, Exchange, Failure, Next, REFUSALS_MAX, Replay, TRIED_MAX};

impl Exchange {
    /// An attempt failed before a response head was passed: again, elsewhere, or an answer.
    pub fn failed(&mut self, failure: Failure, replay: Replay, now: Instant, random: &mut fastrand::Rng) -> Next {
        let failure = if self.call_until.is_some_and(|at| at <= now) { Failure::HeadTimeout } else { failure };
        if replay != Replay::Truncated && self.is_free(failure) {
            return self.replay(now, random);
        }
        if !matches!(failure, Failure::Drained | Failure::Withdrawn | Failure::OutOfResources) {
            self.mark_bad();
        }
        if let Some(fault) = fault_of(failure) {
            self.blame(fault, now);
        }
        match failure {
            Failure::Connect | Failure::ConnectTimeout => {
                if let Some(shard) = self.shard() {
                    shard.connect_failures.add(1);
                }
                self.elsewhere(failure, now, random)
            }
            Failure::Closed { .. } | Failure::Refused | Failure::Reset => {
                Next::Reply(self.reply(Termination::UpstreamReset))
            }
            Failure::BadResponse => Next::Reply(self.reply(Termination::BadResponse)),
            Failure::HeadTimeout => Next::Reply(self.reply(Termination::ResponseTimeout)),
            Failure::Drained => Next::Reply(self.reply(Termination::Drained)),
            Failure::OutOfResources => Next::Reply(self.reply(Termination::OutOfResources)),
            Failure::Withdrawn => self.send(now, random),
        }
    }

    /// Whether a failure leaves the request as if it had never been sent: a connection that died while idle, once, or a refusal.
    fn is_free(&mut self, failure: Failure) -> bool {
        match failure {
            Failure::Closed { accepted } => {
                let free = self.reused && !self.replayed && (self.idempotent || !accepted);
                self.replayed |= free;
                free
            }
            Failure::Refused => {
                self.refusals += 1;
                self.refusals <= REFUSALS_MAX
            }
            _ => false,
        }
    }

    /// The next attempt in the current pool (in stable if that of the candidate has nobody ready), or an answer if it has no endpoint left.
    pub(super) fn send(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        if !self.is_allowed() {
            self.fall_back();
        }
        let Some(service) = self.service else { return Next::Reply(self.reply(Termination::NoRoute)) };
        let mut picked = self.pick(service, now, random);
        if picked.is_none() && self.leave_unready(service) {
            picked = self.pick(service, now, random);
        }
        let live = &self.routing.live[service];
        if self.attempts >= ATTEMPTS_MAX
            && let Some((index, admission)) = picked.take()
        {
            live.pool(self.variant)[index].conduct.give_back(admission);
        }
        let Some((index, admission)) = picked else {
            let nobody = is_out(live, self.variant);
            return Next::Reply(self.reply(if nobody { Termination::NotReady } else { Termination::NoEndpoint }));
        };
        let endpoint = Arc::clone(&live.pool(self.variant)[index]);
        if self.tried_len < TRIED_MAX {
            self.tried[self.tried_len] = (self.variant, index);
            self.tried_len += 1;
        }
        Next::Send(self.attempt(endpoint, now, Some(admission)))
    }

    /// Goes to stable if the request was assigned to a candidate nobody of which can be used. One that was ready once, or is ejected, is
    /// charged: one exposure, one bad. One that is still unknown, or was drained, has no share, so the request counts as assigned to stable. Whoever forces the
    /// candidate wants to know.
    fn leave_unready(&mut self, service: usize) -> bool {
        let live = &self.routing.live[service];
        if self.variant == Variant::Stable || self.assignment == Assignment::Forced || !is_out(live, Variant::Candidate)
        {
            return false;
        }
        let at_fault = live.at_fault(Variant::Candidate).filter(|_| self.attempts == 0 && !self.bad);
        if let Some(shard) = at_fault.map(|endpoint| endpoint.counters.of(self.policy.worker)) {
            shard.attempts.add(1);
            shard.bad.add(1);
            self.bad = true;
        }
        let unknown = self.attempts == 0 && !self.bad;
        self.fall_back();
        if unknown {
            self.assignment = Assignment::Bucket;
        }
        true
    }

    /// Begins an attempt; without an admission of its own it goes on with that of the one before, whose exposure it is.
    fn attempt(&mut self, endpoint: Arc<EndpointLive>, now: Instant, admission: Option<Admission>) -> Attempt {
        let counted = admission.is_some();
        if let Some(admission) = admission {
            self.admitted(admission);
        }
        self.endpoint = Some(Arc::clone(&endpoint));
        self.attempt_began = now;
        self.connected = None;
        self.reused = false;
        self.sent = None;
        self.status = 0;
        let shard = endpoint.counters.of(self.policy.worker);
        if counted {
            self.attempts += 1;
            shard.attempts.add(1);
            shard.retries.add(u64::from(self.attempts > 1));
        } else {
            shard.stale_replays.add(1);
        }
        Attempt {
            number: self.attempts,
            address: endpoint.key.address,
            in_flight: InFlight::begin(endpoint),
            may_reuse: counted,
        }
    }

    /// The same exposure once more on a fresh connection: the old one had died while idle (RFC 9110 section 9.2.2), or nobody looked at it.
    fn replay(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        let on_trial = self.admission.is_some_and(Admission::is_trial);
        let leaving = self.endpoint.as_ref().is_some_and(|e| e.is_removed() || !(e.is_usable() || on_trial));
        // After an abort the candidate gets nothing any more; what may be sent again may be sent to stable.
        if (leaving || !self.is_allowed())
            && let next @ Next::Send(_) = self.send(now, random)
        {
            return next;
        }
        match self.endpoint.clone() {
            Some(endpoint) => Next::Send(self.attempt(endpoint, now, None)),
            None => Next::Reply(self.reply(Termination::UpstreamReset)),
        }
    }

    /// After a failed connect: another endpoint of the pool, then stable, then an answer.
    pub(super) fn elsewhere(&mut self, failure: Failure, now: Instant, random: &mut fastrand::Rng) -> Next {
        self.connects_in_pool += 1;
        let answer = match failure {
            Failure::ConnectTimeout => Termination::ConnectTimeout,
            _ => Termination::ConnectFailed,
        };
        if self.connects_in_pool < CONNECTS_PER_POOL_MAX
            && let next @ Next::Send(_) = self.send(now, random)
        {
            return next;
        }
        if self.variant == Variant::Candidate && self.assignment != Assignment::Forced {
            self.fall_back();
            if let next @ Next::Send(_) = self.send(now, random) {
                return next;
            }
        }
        Next::Reply(self.reply(answer))
    }

    fn fall_back(&mut self) {
        self.variant = Variant::Stable;
        self.assignment = Assignment::Fallback;
        self.connects_in_pool = 0;
        self.fresh = None;
    }

    /// Whether the connection just made must not be used: the variant was aborted meanwhile, or the endpoint left and another one of
    /// its pool can serve.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        let leaving = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.is_leaving());
        !self.is_allowed() || (leaving && self.has_staying())
    }

    /// Whether an attempt on the variant may begin at this moment.
    pub(super) fn is_allowed(&self) -> bool {
        let Some(service) = self.service else { return false };
        if self.variant == Variant::Stable {
            return true;
        }
        let (active, live) = self.routing.service(service);
        let openness = active.openness(live.is_candidate_open());
        openness.open || (self.assignment == Assignment::Forced && openness.open_to_force)
    }
}
