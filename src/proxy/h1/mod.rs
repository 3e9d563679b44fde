//! HTTP/1.1, both sides, without I/O: heads become positions in a buffer, bodies are framed in place, and what leaves is written anew.

pub mod edit;
pub mod framing;
pub mod head;

/// How a byte may be used, by value.
pub(in crate::proxy) mod bytes;
pub mod connection;
pub mod upstream;
pub mod wire;
