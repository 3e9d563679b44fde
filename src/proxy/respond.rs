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
}

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
            Termination::NotReady => (503, "no endpoint is ready: its probes fail or have not passed yet"),
            Termination::ConnectFailed => (502, "the upstream cannot be reached"),
            Termination::ConnectTimeout => (504, "the upstream did not accept a connection in time"),
            Termination::ResponseTimeout => (504, "the upstream did not answer in time"),
            Termination::UpstreamReset => (502, "the upstream closed the connection before it answered"),
            Termination::BadResponse => (502, "the upstream's answer is malformed"),
            Termination::OutOfResources => (503, "the proxy is out of descriptors, ports or memory"),
            Termination::Drained => (503, "the endpoint was taken out of service"),
            _ => (502, "the upstream failed"),
        };
        let close = matches!(
            termination,
            Termination::BadRequest | Termination::HeadTimeout | Termination::ClientIdle | Termination::BodyTooLarge
        );
        Self { status, detail, termination, close }
    }

    /// The answer to a request the codec refused with `status`; `cause` says what was wrong. The connection closes.
    #[must_use]
    pub const fn refused(status: u16, cause: &'static str) -> Self {
        let termination = match status {
            408 => Termination::HeadTimeout,
            413 => Termination::BodyTooLarge,
            _ => Termination::BadRequest,
        };
        Self { status, detail: cause, termination, close: true }
    }
}
