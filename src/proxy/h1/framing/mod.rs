//! How bodies lie in a connection (RFC 9112 sections 6 and 7): found in place when they come in, framed anew when they go out.

mod decode;
mod encode;

pub use decode::{Decoder, FramingError, Step};
pub use encode::{EncodeError, Encoder, FramePrefix};

/// Longest chunk-size line, in bytes, extensions included, its end excluded.
pub const CHUNK_LINE_MAX: usize = 4 * 1024;
/// Most bytes of chunk extensions in one message: they carry nothing, and many of them only cost.
pub const CHUNK_EXTENSIONS_MAX: usize = 16 * 1024;
/// Most digits of a chunk size.
pub const CHUNK_DIGITS_MAX: u8 = 16;

#[cfg(test)]
mod tests;
