//! The data plane: workers, listeners, the policy of one request and the loop that forwards it.

pub mod headers;
pub mod ws;
