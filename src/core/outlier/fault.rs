//! What an attempt failed of, as far as its endpoint is to blame. In one word, so that workers can leave the last one for people.

use std::fmt;

/// Why an endpoint is blamed for an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection: refused, unreachable, TLS failed.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// Closed or reset before a response head.
    Reset,
    /// No response head in time.
    HeadTimeout,
    /// Its client left before a response head, after a wait that is long for the pool.
    Abandoned,
    /// A malformed response.
    Malformed,
    /// Closed or reset within a response body.
    Truncated,
    /// Stalled within a body.
    Stalled,
    /// A gRPC status that says the server failed, or none at all.
    Call,
    /// A status of 500 or above.
    Status(u16),
}

/// Faults without a number, by their number in a word; those from 100 on are status codes.
const NUMBERED: [Fault; 9] = [
    Fault::Connect,
    Fault::ConnectTimeout,
    Fault::Reset,
    Fault::HeadTimeout,
    Fault::Malformed,
    Fault::Truncated,
    Fault::Stalled,
    Fault::Call,
    Fault::Abandoned,
];

// === impl Fault ===

impl Fault {
    /// In one word that is not zero.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        match self {
            Self::Status(code) => u32::from(code.max(100)),
            other => (1_u32..).zip(NUMBERED).find(|(_, fault)| *fault == other).map_or(1, |(number, _)| number),
        }
    }

    /// From one word; `None` for any that [`Fault::to_bits`] does not give.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        match u16::try_from(bits) {
            Ok(code) if code >= 100 => Some(Self::Status(code)),
            Ok(number) => NUMBERED.get(usize::from(number).checked_sub(1)?).copied(),
            Err(_) => None,
        }
    }
}

/// Ends the sentence `5 failures in a row, last: ...`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status(code) => return write!(f, "status {code}"),
            Self::Connect => "no connection",
            Self::ConnectTimeout => "no connection in time",
            Self::Reset => "closed before its response",
            Self::HeadTimeout => "no response in time",
            Self::Abandoned => "no response until its client left",
            Self::Malformed => "malformed response",
            Self::Truncated => "response cut short",
            Self::Stalled => "stalled within a body",
            Self::Call => "gRPC status of a failed server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_back_from_its_word() {
        for fault in NUMBERED.into_iter().chain([500, 503, 599].map(Fault::Status)) {
            assert_eq!(Fault::from_bits(fault.to_bits()), Some(fault));
            assert_ne!(fault.to_bits(), 0);
        }
        for nothing in [0, 10, 99, u32::MAX] {
            assert_eq!(Fault::from_bits(nothing), None, "{nothing}");
        }
        assert_eq!(Fault::Status(503).to_string(), "status 503");
    }
}
