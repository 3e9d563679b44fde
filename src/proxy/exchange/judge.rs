//! What an attempt says of its endpoint, once each: it works, it failed, or nothing.

use std::time::Instant;

use crate::core::balance::Balance;
use crate::core::outlier::fault::Fault;
use crate::state::conduct::Admission;
use crate::telemetry::termination::Termination;

use super::{Exchange, Failure};

impl Exchange {
    /// An attempt begins; what the one before has not said by now it does not say any more.
    pub(super) fn admitted(&mut self, admission: Admission) {
        self.give_back();
        self.admission = Some(admission);
    }

    /// The attempt is under way at its endpoint.
    pub(super) fn asked(&mut self) {
        if self.is_timed()
            && let (Some(endpoint), Some(admission)) = (self.endpoint(), self.admission)
        {
            self.admission = Some(endpoint.conduct.asked(admission));
        }
    }

    /// The endpoint is to blame for the attempt.
    pub(super) fn blame(&mut self, fault: Fault, now: Instant) {
        let admission = self.admission.take();
        let (Some(endpoint), Some(admission)) = (self.endpoint(), admission) else { return };
        endpoint.conduct.blame(admission, self.policy.worker, fault);
        if self.is_timed() {
            endpoint.conduct.observe_latency(None, now);
        }
    }

    /// A response head came: by its status the endpoint failed, or works as far as is known. The one request of a trial is not asked to
    /// come to its end first, which may be hours away; only the end of a call says what became of it.
    pub(super) fn judge_head(&mut self, status: u16, now: Instant) {
        if status >= 500 {
            return self.blame(Fault::Status(status), now);
        }
        if self.is_timed()
            && let (Some(endpoint), Some(admission)) = (self.endpoint(), self.admission)
        {
            let took = now.saturating_duration_since(self.sent.unwrap_or(self.attempt_began));
            endpoint.conduct.observe_latency(Some(took), now);
            self.admission = Some(endpoint.conduct.answered(admission));
        }
        let on_trial = self.admission.is_some_and(Admission::is_trial);
        if status == 101 || (on_trial && !self.status_due) {
            self.credit();
        }
    }

    /// The request is over.
    pub(super) fn judge_end(&mut self, termination: Termination, now: Instant) {
        let answered = self.head_at.is_some() && self.status < 500;
        match termination {
            Termination::UpstreamTruncated => self.blame(Fault::Truncated, now),
            // A call may have nothing to say for hours: its silence speaks against nobody.
            Termination::UpstreamIdle if !self.is_call() => self.blame(Fault::Stalled, now),
            Termination::Complete | Termination::ClientAbort | Termination::ClientIdle if answered => self.credit(),
            Termination::ClientAbort if self.head_at.is_none() => self.abandoned(now),
            _ => {}
        }
        self.give_back();
    }

    /// The client left without a response head. Clients leave for reasons of their own; but who has waited far longer than answers of the
    /// pool take lately has waited for an endpoint that hangs.
    fn abandoned(&mut self, now: Instant) {
        if self.connected.is_some() && self.is_given_up(now) {
            return self.overran(now);
        }
        let (Some(sent), Some(endpoint), Some(_)) = (self.sent, self.endpoint(), self.admission) else { return };
        let waited = now.saturating_duration_since(sent);
        if self.is_timed() {
            endpoint.conduct.observe_wait(waited, now);
        }
        if waited > endpoint.pool.patience() {
            self.blame(Fault::Abandoned, now);
        }
    }

    /// When the wait for a response head becomes one that speaks against the endpoint, if its client seems to have left; `None`: not at all,
    /// or not any more.
    #[must_use]
    pub fn doubt(&self) -> Option<Instant> {
        let (sent, endpoint, _) = (self.sent?, self.endpoint()?, self.admission?);
        sent.checked_add(endpoint.pool.patience()).filter(|_| self.head_at.is_none())
    }

    /// That time has come.
    pub fn doubted(&mut self, now: Instant) {
        self.blame(Fault::Abandoned, now);
    }

    fn credit(&mut self) {
        let admission = self.admission.take();
        if let (Some(endpoint), Some(admission)) = (self.endpoint(), admission) {
            endpoint.conduct.credit(admission, self.policy.worker);
        }
    }

    fn give_back(&mut self) {
        let admission = self.admission.take();
        if let (Some(endpoint), Some(admission)) = (self.endpoint(), admission) {
            endpoint.conduct.give_back(admission);
        }
    }

    fn is_timed(&self) -> bool {
        self.settings().is_some_and(|service| service.upstream.balance == Balance::PeakEwma)
    }
}

/// What a failure says of the endpoint; `None`: it is not to blame.
pub(super) fn fault_of(failure: Failure) -> Option<Fault> {
    match failure {
        Failure::Connect => Some(Fault::Connect),
        Failure::ConnectTimeout => Some(Fault::ConnectTimeout),
        Failure::Closed { .. } | Failure::Refused | Failure::Reset => Some(Fault::Reset),
        Failure::BadResponse => Some(Fault::Malformed),
        Failure::HeadTimeout => Some(Fault::HeadTimeout),
        Failure::SessionLimit | Failure::Drained | Failure::Withdrawn | Failure::OutOfResources | Failure::Full(_) => {
            None
        }
    }
}
