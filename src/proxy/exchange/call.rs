//! What is different for a gRPC call: its outcome stands in the trailers, or in a head that is all there is.

use std::time::Instant;

use crate::core::outlier::fault::Fault;
use crate::proxy::grpc;
use crate::proxy::headers::{Known, ResponseHead, Trailers};
use crate::proxy::respond::Reply;

use super::Exchange;

impl Exchange {
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

    fn judge_call(&mut self, status: Option<&[u8]>, now: Instant) {
        self.status_due = false;
        if grpc::is_bad(status) {
            self.mark_bad();
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
