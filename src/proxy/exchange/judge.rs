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
            && let (Some(endpoint), Some(_)) = (self.endpoint(), self.admission)
        {
            let took = now.saturating_duration_since(self.sent.unwrap_or(self.attempt_began));
            endpoint.conduct.observe_latency(Some(took), now);
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
            Termination::UpstreamIdle => self.blame(Fault::Stalled, now),
            Termination::Complete | Termination::ClientAbort | Termination::ClientIdle if answered => self.credit(),
            _ => {}
        }
        self.give_back();
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
        Failure::Drained | Failure::Withdrawn | Failure::OutOfResources | Failure::Full(_) => None,
    }
}
