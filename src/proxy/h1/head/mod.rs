//! Reading heads: finding their end in what has arrived so far, and turning one into positions.

mod fields;
mod host;
mod parts;
mod request;
mod response;
mod scan;
mod target;

pub(super) use fields::{FieldLimits, parse_fields};
pub use parts::{FIELD_COST, Parts, parse_parts};
pub use request::parse_request;
pub use response::parse_response;
pub(super) use scan::{ScanLimits, scan_section};
pub use scan::{ScanState, scan_head, scan_response_head};

use crate::config::settings::{Limits, Underscores};

/// Largest response head, in bytes.
pub const RESPONSE_HEAD_MAX: usize = 64 * 1024;
/// Most fields in a response head.
pub const RESPONSE_FIELDS_MAX: usize = 256;
/// Most field names one head may nominate in `Connection`.
pub const NOMINATED_MAX: usize = 16;

/// How large a request head may be, and what is done with names that have `_` in them.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Largest head, in bytes, the empty line included.
    pub max_head: usize,
    /// Longest request line, in bytes, its end excluded.
    pub max_line: usize,
    /// Most fields in the head, and most in the trailers.
    pub max_fields: usize,
    /// What happens to names with `_`.
    pub underscores: Underscores,
}

/// Why a request is refused: it is answered so, nothing is forwarded and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: u16,
    /// What is wrong, for people.
    pub cause: &'static str,
}

/// Why a response is not forwarded: the client gets 502 and the connection to the upstream is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse {
    /// What is wrong, for people.
    pub cause: &'static str,
}

// === impl HeadLimits ===

impl HeadLimits {
    /// Those of a listener.
    #[must_use]
    pub fn new(limits: &Limits, underscores: Underscores) -> Self {
        Self { max_head: limits.max_head, max_line: limits.max_line, max_fields: limits.max_fields, underscores }
    }
}

// === impl Refusal ===

impl Refusal {
    /// 400: not valid HTTP, or HTTP that two readers could take for different things.
    pub(in crate::proxy) const fn bad(cause: &'static str) -> Self {
        Self { status: 400, cause }
    }

    pub(super) const fn new(status: u16, cause: &'static str) -> Self {
        Self { status, cause }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cause)
    }
}

impl std::error::Error for Refusal {}

// === impl BadResponse ===

impl From<Refusal> for BadResponse {
    fn from(refusal: Refusal) -> Self {
        Self { cause: refusal.cause }
    }
}

impl std::fmt::Display for BadResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cause)
    }
}

impl std::error::Error for BadResponse {}

#[cfg(test)]
mod tests;
