//! How an attempt fails, and what a failure means: whom it is charged to, whether it may be retried, how the client is answered.

use crate::core::circuit::Limit;
use crate::core::retry::Reason;
use crate::telemetry::access::How;
use crate::telemetry::termination::Termination;

/// How an attempt failed before a response head was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// Closed or reset before any response byte; `accepted` says whether the socket took any byte of the request.
    Closed {
        /// Any byte of the request was taken.
        accepted: bool,
    },
    /// The upstream said that nothing of it has looked at the request (RFC 9113 section 8.7), or its session was gone before any of it
    /// was sent.
    Refused,
    /// The upstream gave this one request up, its session lives on.
    Reset,
    /// The session was ended here, over a limit that whatever was on it had reached.
    SessionLimit,
    /// Closed, reset or malformed within the response head.
    BadResponse,
    /// No response head in time.
    HeadTimeout,
    /// The endpoint left and its drain time is over.
    Drained,
    /// The variant was aborted, or the endpoint left, while the connection was made: nothing was sent.
    Withdrawn,
    /// This process has no descriptor, port or memory for a connection: nothing was sent, nobody else is to blame.
    OutOfResources,
    /// The pool is at a limit: nothing was sent.
    Full(Limit),
}

/// What of the request body could be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// No body byte was taken from the client yet.
    Nothing,
    /// Everything taken so far is kept.
    Kept,
    /// More was taken than is kept.
    Truncated,
}

/// How an attempt came out that brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It failed before a response head.
    Failed(Failure),
    /// Its response had this status and was dropped.
    Status(u16),
}

// === impl Outcome ===

impl Outcome {
    /// As the access log has it.
    #[must_use]
    pub fn how(self) -> How {
        match self {
            Self::Failed(failure) => How::Word(failure.as_str()),
            Self::Status(status) => How::Status(status),
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Whether the endpoint is to blame.
    #[must_use]
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::SessionLimit | Self::Drained | Self::Withdrawn | Self::OutOfResources | Self::Full(_))
    }

    /// Whether no connection could be made.
    #[must_use]
    pub fn is_connect(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout)
    }

    /// As what it may be retried; `None` for what the proxy decided itself.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Connect | Self::ConnectTimeout => Some(Reason::Connect),
            Self::Closed { .. } | Self::Refused | Self::Reset | Self::SessionLimit | Self::BadResponse => {
                Some(Reason::Reset)
            }
            Self::HeadTimeout => Some(Reason::Timeout),
            Self::Drained | Self::Withdrawn | Self::OutOfResources | Self::Full(_) => None,
        }
    }

    /// Whether nobody can have looked at the request, so that sending it again is no second time.
    #[must_use]
    pub fn is_untouched(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Closed { accepted: false } | Self::Refused)
    }

    /// The answer if it is not retried.
    #[must_use]
    pub fn termination(self) -> Termination {
        match self {
            Self::Connect | Self::Withdrawn => Termination::ConnectFailed,
            Self::ConnectTimeout => Termination::ConnectTimeout,
            Self::Closed { .. } | Self::Refused | Self::Reset => Termination::UpstreamReset,
            Self::SessionLimit => Termination::SessionLimit,
            Self::BadResponse => Termination::BadResponse,
            Self::HeadTimeout => Termination::ResponseTimeout,
            Self::Drained => Termination::Drained,
            Self::OutOfResources => Termination::OutOfResources,
            Self::Full(Limit::Connections) => Termination::ConnectionLimit,
            Self::Full(Limit::Pending) => Termination::PendingLimit,
            Self::Full(Limit::Requests) => Termination::RequestLimit,
        }
    }

    /// Its word in the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::Closed { .. } => "closed",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::SessionLimit => "session-limit",
            Self::BadResponse => "malformed",
            Self::HeadTimeout => "timeout",
            Self::Drained => "drained",
            Self::Withdrawn => "withdrawn",
            Self::OutOfResources => "resources",
            Self::Full(_) => "full",
        }
    }
}
