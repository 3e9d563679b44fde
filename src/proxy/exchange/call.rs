//! What is different for a gRPC call: its outcome stands in the trailers, or in a head that is all there is.

use std::time::{Duration, Instant};

use crate::core::outlier::fault::Fault;
use crate::proxy::grpc;
use crate::proxy::headers::{Known, ResponseHead, Trailers};
use crate::proxy::respond::Reply;
use crate::proxy::timer::TICK;

use super::{Exchange, Failure, Outcome};

/// How much sooner than its deadline, as it is known here, a call can be given up for it: the client's time began when it sent the call, ours
/// when it came, and what it writes is rounded up. So much in any case, this part of the whole time beside, and never more than the other.
const EARLY: Duration = TICK;
const EARLY_PART: u32 = 64;
const EARLY_PART_MAX: u32 = 8;
/// Time spent on connections, waits and other attempts from which on a call goes out with what is left of its time.
const SPENT_MIN: Duration = Duration::from_millis(1);

impl Exchange {
    /// Whether the request is a call.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.grpc
    }

    /// Takes in the head of a response that may be one to a call.
    pub(super) fn answered(&mut self, head: &ResponseHead, now: Instant) {
        if head.known(Known::ContentType).is_some_and(grpc::is_grpc) {
            self.status_due = true;
            if let Some(status) = head.known(Known::GrpcStatus) {
                self.judge_call(Some(status), now);
            }
        }
    }

    /// Judges what came behind a response that is complete.
    pub fn trailers(&mut self, trailers: Option<&Trailers>, now: Instant) {
        if self.status_due {
            self.judge_call(trailers.and_then(|trailers| trailers.known(Known::GrpcStatus)), now);
        }
    }

    /// What is left of the time of the call, once so much of it was spent here that its endpoint has to be told.
    #[must_use]
    pub fn call_left(&self, now: Instant) -> Option<Duration> {
        let until = self.call_until?;
        (now.saturating_duration_since(self.began) >= SPENT_MIN).then(|| until.saturating_duration_since(now))
    }

    /// Whether a client that leaves at `now` does so because the time of its call is over, and an attempt is under way.
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        let Some(until) = self.call_until else { return false };
        let allowed = until.saturating_duration_since(self.began);
        let early = (allowed / EARLY_PART_MAX).min(EARLY + allowed / EARLY_PART);
        self.granted().is_none() && until.saturating_duration_since(now) <= early
    }

    /// The client left while the endpoint did not take a connection.
    pub fn left_dialling(&mut self, now: Instant) {
        if self.is_given_up(now) {
            self.overran(now);
        }
    }

    /// The endpoint let the time of the call run out: as bad as if the end of it had been noticed here and not by the client.
    pub(super) fn overran(&mut self, now: Instant) {
        self.remember(Outcome::Failed(Failure::HeadTimeout));
        self.left(now);
        self.mark_bad(now);
        self.blame(Fault::HeadTimeout, now);
    }

    fn judge_call(&mut self, status: Option<&[u8]>, now: Instant) {
        self.status_due = false;
        if grpc::is_bad(status) {
            self.mark_bad(now);
            self.blame(Fault::Call, now);
        }
    }

    /// An answer of the proxy as this client understands it, also one that was decided outside (a body that turned out malformed or too
    /// large); its status is what the client sees.
    pub fn worded(&mut self, reply: Reply) -> Reply {
        let reply = if self.grpc { reply.for_grpc() } else { reply };
        self.status = reply.status;
        reply
    }
}
