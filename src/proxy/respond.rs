//! The proxy's own answers: the only place that chooses their status codes.

use crate::telemetry::termination::Termination;

/// An answer the proxy gives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// One line for the person who sees it.
    pub detail: &'static str,
    /// Why.
    pub termination: Termination,
    /// The connection cannot be used after it.
    pub close: bool,
    /// The `grpc-status` of an answer to a gRPC call: its head says all there is to say (the form called Trailers-Only).
    pub grpc: Option<&'static str>,
}

/// Why nobody of a pool can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// By their probes.
    Probes,
    /// By their own requests.
    Ejected,
    /// By command.
    Drained,
    /// Not all for the same reason.
    Several,
}

/// Name and value of a field.
type Text = (&'static [u8], &'static [u8]);

impl Reply {
    /// The answer for a request that ended with `termination`.
    #[must_use]
    pub const fn of(termination: Termination) -> Self {
        let (status, detail) = match termination {
            Termination::BadRequest => (400, "the request is malformed"),
            Termination::HeadTimeout => (408, "the request head was not complete in time"),
            Termination::ClientIdle => (408, "the request body stalled"),
            Termination::BodyTooLarge => (413, "the request body is larger than allowed here"),
            Termination::NoRoute => (404, "no route takes this request"),
            Termination::NoEndpoint => (503, "no endpoint can take this request"),
            Termination::Unresolved => (503, "no endpoint is known: its names are not resolved yet"),
            Termination::NotReady => (503, "no endpoint can be used"),
            Termination::RequestLimit => (503, "the service has as many requests in flight as it may have"),
            Termination::PendingLimit => (503, "as many requests wait for a connection to the service as may"),
            Termination::ConnectionLimit => (503, "no connection to the service became free in time"),
            Termination::ConnectFailed => (502, "the upstream cannot be reached"),
            Termination::ConnectTimeout => (504, "the upstream did not accept a connection in time"),
            Termination::ResponseTimeout => (504, "the upstream did not answer in time"),
            Termination::UpstreamReset => (502, "the upstream closed the connection before it answered"),
            Termination::SessionLimit => (502, "the session with the upstream reached a limit"),
            Termination::BadResponse => (502, "the upstream's answer is malformed"),
            Termination::OutOfResources => (503, "the proxy is out of descriptors, ports or memory"),
            Termination::Drained => (503, "the endpoint was taken out of service"),
            _ => (502, "the upstream failed"),
        };
        let close = matches!(
            termination,
            Termination::BadRequest | Termination::HeadTimeout | Termination::ClientIdle | Termination::BodyTooLarge
        );
        Self { status, detail, termination, close, grpc: None }
    }

    /// The answer where nobody of the pool can be used.
    #[must_use]
    pub const fn unusable(why: Unusable) -> Self {
        let detail = match why {
            Unusable::Probes => "no endpoint is ready: their probes fail or have not passed yet",
            Unusable::Ejected => "no endpoint can be used: their requests failed, they are left alone for a while",
            Unusable::Drained => "no endpoint can be used: all are drained",
            Unusable::Several => "no endpoint can be used: each is drained, ejected or not ready",
        };
        Self { detail, ..Self::of(Termination::NotReady) }
    }

    /// The answer to a request the codec refused with `status`; `cause` says what was wrong. The connection closes.
    #[must_use]
    pub const fn refused(status: u16, cause: &'static str) -> Self {
        let termination = match status {
            408 => Termination::HeadTimeout,
            413 => Termination::BodyTooLarge,
            _ => Termination::BadRequest,
        };
        Self { status, detail: cause, termination, close: true, grpc: None }
    }

    /// The same answer to a gRPC call, whose client reads HTTP statuses other than 200 as a failure of the network between.
    #[must_use]
    pub const fn for_grpc(self) -> Self {
        let status = match (self.termination, self.status) {
            // 4 deadline exceeded, 8 resource exhausted, 12 unimplemented, 13 internal, 14 unavailable.
            (Termination::ResponseTimeout | Termination::HeadTimeout | Termination::ClientIdle, _) => "4",
            (_, 413 | 414 | 431) => "8",
            (_, 404 | 405 | 501) => "12",
            (_, 400 | 417 | 421) => "13",
            (_, 429 | 502 | 503 | 504) => "14",
            _ => "2",
        };
        Self { status: 200, grpc: Some(status), ..self }
    }

    /// `Content-Type`.
    #[must_use]
    pub const fn content_type(&self) -> &'static [u8] {
        if self.grpc.is_some() { b"application/grpc" } else { b"text/plain" }
    }

    /// Fields beside the usual ones.
    #[must_use]
    pub fn fields(&self) -> Vec<Text> {
        match self.grpc {
            // Nothing in our words has to be escaped.
            Some(status) => vec![(&b"grpc-status"[..], status.as_bytes()), (b"grpc-message", self.detail.as_bytes())],
            None => Vec::new(),
        }
    }

    /// What the body says, line end included; empty where there is none.
    #[must_use]
    pub const fn body(&self) -> (&'static str, &'static str) {
        if self.grpc.is_some() { ("", "") } else { (self.detail, "\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_to_use_is_told_by_its_cause() {
        let all = [Unusable::Probes, Unusable::Ejected, Unusable::Drained, Unusable::Several].map(Reply::unusable);
        for (at, reply) in all.iter().enumerate() {
            assert_eq!((reply.status, reply.termination, reply.close), (503, Termination::NotReady, false));
            assert!(all[..at].iter().all(|other| other.detail != reply.detail), "{}", reply.detail);
            let detail = reply.for_grpc().detail;
            assert!(detail.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'%'), "{detail}");
        }
    }

    #[test]
    fn grpc_clients_are_told_in_their_own_terms() {
        for (termination, status) in [
            (Termination::NoRoute, "12"),
            (Termination::NoEndpoint, "14"),
            (Termination::RequestLimit, "14"),
            (Termination::PendingLimit, "14"),
            (Termination::ConnectionLimit, "14"),
            (Termination::ConnectFailed, "14"),
            (Termination::ConnectTimeout, "14"),
            (Termination::ResponseTimeout, "4"),
            (Termination::UpstreamReset, "14"),
            (Termination::SessionLimit, "14"),
            (Termination::BadResponse, "14"),
            (Termination::OutOfResources, "14"),
            (Termination::Drained, "14"),
            (Termination::BodyTooLarge, "8"),
            (Termination::BadRequest, "13"),
        ] {
            let reply = Reply::of(termination).for_grpc();
            assert_eq!((reply.status, reply.grpc, reply.termination), (200, Some(status), termination));
            assert_eq!((reply.body(), reply.content_type()), (("", ""), &b"application/grpc"[..]));
            assert!(reply.detail.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'%'), "{}", reply.detail);
        }
    }
}
