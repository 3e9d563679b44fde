//! Where the next attempt of a request goes: an endpoint of its pool, another one, stable instead of the candidate, or nowhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::assign::Assignment;
use crate::core::balance::{Balance, Draw, Equals, pick};
use crate::core::id::Variant;
use crate::state::live::{EndpointLive, InFlight};
use crate::telemetry::termination::Termination;

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
        let mut picked = self.pick(service, random);
        if picked.is_none() && self.leave_unready(service) {
            picked = self.pick(service, random);
        }
        let live = &self.routing.live[service];
        let Some(index) = picked.filter(|_| self.attempts < ATTEMPTS_MAX) else {
            let pool = live.pool(self.variant);
            return Next::Reply(self.reply(match pool.iter().any(|endpoint| endpoint.is_ready()) {
                _ if pool.is_empty() => Termination::Unresolved,
                false => Termination::NotReady,
                true => Termination::NoEndpoint,
            }));
        };
        let at = (self.variant, index);
        if self.tried_len < TRIED_MAX {
            self.tried[self.tried_len] = at;
            self.tried_len += 1;
        }
        Next::Send(self.attempt(service, at, now, true))
    }

    /// An endpoint of the current pool that is ready and was not tried. Where nobody is ready there is none; whoever wants to send there
    /// all the same (panic, stable only) decides it here.
    fn pick(&self, service: usize, random: &mut fastrand::Rng) -> Option<usize> {
        let (active, live) = self.routing.service(service);
        let pool = live.pool(self.variant);
        let (variant, tried) = (self.variant, &self.tried[..self.tried_len]);
        let draw = random.u64(..);
        let fresh = |i: usize| pool[i].is_ready() && !tried.contains(&(variant, i));
        let staying = |i: usize| fresh(i) && !pool[i].is_removed();
        let load = |i: usize| pool[i].in_flight();
        let balance = active.service.upstream.balance;
        let cursor = if balance == Balance::RoundRobin { live.turn(variant) } else { 0 };
        let draw = Draw { random: draw, cursor, hashed: None };
        pick(balance, &Equals { count: pool.len(), eligible: staying, load }, &draw)
            // One that is leaving finishes what it has begun, and that is better than losing the request.
            .or_else(|| pick(balance, &Equals { count: pool.len(), eligible: fresh, load }, &draw))
    }

    /// Goes to stable if the request was assigned to a candidate nobody of which is ready. One that was ready once is charged: one
    /// exposure, one bad. One that is still unknown has no share yet, so the request counts as assigned to stable. Whoever forces the
    /// candidate wants to know.
    fn leave_unready(&mut self, service: usize) -> bool {
        let live = &self.routing.live[service];
        let ready = live.pool(Variant::Candidate).iter().any(|endpoint| endpoint.is_ready());
        if self.variant == Variant::Stable || self.assignment == Assignment::Forced || ready {
            return false;
        }
        let lost = live.lost(Variant::Candidate).filter(|_| self.attempts == 0 && !self.bad);
        if let Some(shard) = lost.map(|endpoint| endpoint.counters.of(self.policy.worker)) {
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

    fn attempt(&mut self, service: usize, at: (Variant, usize), now: Instant, counted: bool) -> Attempt {
        let endpoint = Arc::clone(&self.routing.live[service].pool(at.0)[at.1]);
        self.endpoint = Some(at);
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
            address: endpoint.key.address.clone(),
            in_flight: InFlight::begin(endpoint),
            may_reuse: counted,
        }
    }

    /// The same exposure once more on a fresh connection: the old one had died while idle (RFC 9110 section 9.2.2), or nobody looked at it.
    fn replay(&mut self, now: Instant, random: &mut fastrand::Rng) -> Next {
        let leaving = self.endpoint().is_some_and(|endpoint| endpoint.is_removed() || !endpoint.is_ready());
        // After an abort the candidate gets nothing any more; what may be sent again may be sent to stable.
        if (leaving || !self.is_allowed())
            && let next @ Next::Send(_) = self.send(now, random)
        {
            return next;
        }
        match (self.service, self.endpoint) {
            (Some(service), Some(at)) => Next::Send(self.attempt(service, at, now, false)),
            _ => Next::Reply(self.reply(Termination::UpstreamReset)),
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
        let leaving = self.endpoint().is_some_and(|endpoint| endpoint.is_removed());
        !self.is_allowed() || (leaving && self.has_staying())
    }

    fn has_staying(&self) -> bool {
        let Some(service) = self.service else { return false };
        let pool = self.routing.live[service].pool(self.variant);
        let tried = &self.tried[..self.tried_len];
        (0..pool.len()).any(|i| pool[i].is_ready() && !pool[i].is_removed() && !tried.contains(&(self.variant, i)))
    }

    /// Who was tried last.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Arc<EndpointLive>> {
        let (variant, index) = self.endpoint?;
        Some(&self.routing.live[self.service?].pool(variant)[index])
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
        if self.variant == Variant::Stable {
            return true;
        }
        let (active, live) = self.routing.service(service);
        let openness = active.openness(live.is_candidate_open());
        openness.open || (self.assignment == Assignment::Forced && openness.open_to_force)
    }
}
