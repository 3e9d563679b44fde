//! Why a request ended: a code per cause, in the access log and the metrics.

/// Why a request ended. The code's first letter says who ended it: `-` nobody, `C` the client, `U` the upstream, `P` the proxy, `T` a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Termination {
    /// The response was delivered whole.
    Complete,
    /// The request was malformed or not allowed.
    BadRequest,
    /// The request head was not complete in time.
    HeadTimeout,
    /// The request body was larger than allowed.
    BodyTooLarge,
    /// The client went away before the response was complete.
    ClientAbort,
    /// The client stalled within a body.
    ClientIdle,
    /// No route takes the request.
    NoRoute,
    /// The pool has no endpoint to try.
    NoEndpoint,
    /// No name of the pool was answered yet.
    Unresolved,
    /// No endpoint of the pool can be used: each has not passed its probes yet or does not any more, is ejected, or drained.
    NotReady,
    /// The pool has as many requests in flight as it may have.
    RequestLimit,
    /// The pool has as many connections as it may have, all busy, and as many requests wait for one as may.
    PendingLimit,
    /// The pool has as many connections as it may have, and none became free in time.
    ConnectionLimit,
    /// No connection to the upstream: refused, unreachable or TLS failed.
    ConnectFailed,
    /// No connection to the upstream in time.
    ConnectTimeout,
    /// No response head in time.
    ResponseTimeout,
    /// The upstream closed or reset before a response head.
    UpstreamReset,
    /// The upstream's response was malformed.
    BadResponse,
    /// The upstream closed or reset within a body.
    UpstreamTruncated,
    /// The upstream stalled within a body.
    UpstreamIdle,
    /// The process has no descriptor, port or memory left for a connection.
    OutOfResources,
    /// The HTTP/2 session with the upstream was ended here, over a limit.
    SessionLimit,
    /// Cut at a drain deadline.
    Drained,
    /// The stop was forced while the request was in flight.
    Dropped,
    /// A tunnel was silent too long.
    TunnelIdle,
    /// A tunnel was closed with 1001 because its endpoint or the proxy went away.
    TunnelDrained,
}

impl Termination {
    /// All, in index order (`self as usize`).
    pub const ALL: [Self; 26] = [
        Self::Complete,
        Self::BadRequest,
        Self::HeadTimeout,
        Self::BodyTooLarge,
        Self::ClientAbort,
        Self::ClientIdle,
        Self::NoRoute,
        Self::NoEndpoint,
        Self::Unresolved,
        Self::NotReady,
        Self::RequestLimit,
        Self::PendingLimit,
        Self::ConnectionLimit,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::UpstreamReset,
        Self::BadResponse,
        Self::UpstreamTruncated,
        Self::UpstreamIdle,
        Self::OutOfResources,
        Self::SessionLimit,
        Self::Drained,
        Self::Dropped,
        Self::TunnelIdle,
        Self::TunnelDrained,
    ];

    /// The two-letter code of the access log and the `code` label.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Complete => "--",
            Self::BadRequest => "CB",
            Self::HeadTimeout => "CT",
            Self::BodyTooLarge => "CL",
            Self::ClientAbort => "CA",
            Self::ClientIdle => "CI",
            Self::NoRoute => "PR",
            Self::NoEndpoint => "PN",
            Self::Unresolved => "PU",
            Self::NotReady => "PH",
            Self::RequestLimit => "PQ",
            Self::PendingLimit => "PP",
            Self::ConnectionLimit => "PC",
            Self::ConnectFailed => "UC",
            Self::ConnectTimeout => "UT",
            Self::ResponseTimeout => "UH",
            Self::UpstreamReset => "UR",
            Self::BadResponse => "UB",
            Self::UpstreamTruncated => "UD",
            Self::UpstreamIdle => "UI",
            Self::OutOfResources => "PO",
            Self::SessionLimit => "PS",
            Self::Drained => "PD",
            Self::Dropped => "PX",
            Self::TunnelIdle => "TI",
            Self::TunnelDrained => "TD",
        }
    }

    /// The cause in words, for people: the `cause` label of the metrics and the table in the documentation.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::BadRequest => "bad request",
            Self::HeadTimeout => "request head timed out",
            Self::BodyTooLarge => "request body too large",
            Self::ClientAbort => "client went away",
            Self::ClientIdle => "client stalled",
            Self::NoRoute => "no route",
            Self::NoEndpoint => "no endpoint",
            Self::Unresolved => "names not resolved",
            Self::NotReady => "no endpoint ready",
            Self::RequestLimit => "request limit",
            Self::PendingLimit => "pending limit",
            Self::ConnectionLimit => "connection limit",
            Self::ConnectFailed => "upstream connect failed",
            Self::ConnectTimeout => "upstream connect timed out",
            Self::ResponseTimeout => "upstream response timed out",
            Self::UpstreamReset => "upstream closed before its response",
            Self::BadResponse => "upstream response malformed",
            Self::UpstreamTruncated => "upstream response cut short",
            Self::UpstreamIdle => "upstream stalled",
            Self::OutOfResources => "proxy out of resources",
            Self::SessionLimit => "upstream session limit",
            Self::Drained => "drain deadline",
            Self::Dropped => "forced stop",
            Self::TunnelIdle => "tunnel idle",
            Self::TunnelDrained => "tunnel drained",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_indices_match() {
        let mut codes: Vec<_> = Termination::ALL.iter().map(|t| t.code()).collect();
        assert!(Termination::ALL.iter().enumerate().all(|(i, t)| *t as usize == i));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Termination::ALL.len());
    }

    #[test]
    fn words_are_distinct_and_fit_a_table() {
        let mut words: Vec<_> = Termination::ALL.iter().map(|t| t.words()).collect();
        assert!(
            words.iter().all(|w| !w.is_empty() && w.bytes().all(|b| b == b' ' || b.is_ascii_lowercase())),
            "{words:?}"
        );
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Termination::ALL.len());
    }
}
