//! Bodies that go out: the bytes to put around payload that stays where it is.

use crate::proxy::h1::edit::push_field;
use crate::proxy::headers::{BodyLength, Trailers};

/// Frames one message body.
#[derive(Debug)]
pub struct Encoder {
    state: State,
}

/// What to write right before a piece of payload. At most 20 bytes: the end of the chunk before, and a size line.
#[derive(Clone, Copy, Debug)]
pub struct FramePrefix {
    /// Filled from the back.
    bytes: [u8; PREFIX_MAX],
    start: u8,
}

/// The payload is not what the head promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// There is more of it.
    Overrun,
    /// So many bytes are missing.
    Short(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are to come.
    Exact(u64),
    /// Chunks; `open`: the CR LF after the last one is not written yet.
    Chunked { open: bool },
    /// As it is.
    UntilClose,
    /// Nothing more may come.
    Finished,
}

/// CR LF, 16 digits, CR LF.
const PREFIX_MAX: usize = 20;

// === impl Encoder ===

impl Encoder {
    /// For a body announced with this length.
    #[must_use]
    pub fn new(body: BodyLength) -> Self {
        let state = match body {
            BodyLength::None => State::Exact(0),
            BodyLength::Exact(length) => State::Exact(length),
            BodyLength::Chunked => State::Chunked { open: false },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// What goes before the next `length` bytes of payload, which the caller writes right after it. Nothing goes before no payload: an empty
    /// chunk would end the message.
    ///
    /// # Errors
    /// There was less payload promised, or the message is finished.
    pub fn frame(&mut self, length: usize) -> Result<FramePrefix, EncodeError> {
        if length == 0 {
            return Ok(FramePrefix::empty());
        }
        match &mut self.state {
            State::Exact(left) => {
                *left = left.checked_sub(length as u64).ok_or(EncodeError::Overrun)?;
                Ok(FramePrefix::empty())
            }
            State::Chunked { open } => {
                let prefix = FramePrefix::chunk(length, *open);
                *open = true;
                Ok(prefix)
            }
            State::UntilClose => Ok(FramePrefix::empty()),
            State::Finished => Err(EncodeError::Overrun),
        }
    }

    /// What completes the last piece of payload when it is flushed and more may be long in coming: some recipients hand a chunk on only once
    /// they have its end. Otherwise the next prefix or the tail carries it.
    #[must_use]
    pub fn complete(&mut self) -> &'static [u8] {
        match &mut self.state {
            State::Chunked { open } if *open => {
                *open = false;
                b"\r\n"
            }
            _ => b"",
        }
    }

    /// Appends what goes after the last payload: of chunks their end, with the trailers that are forwarded. A second call appends nothing.
    ///
    /// # Errors
    /// There was more payload promised.
    pub fn finish(&mut self, out: &mut Vec<u8>, trailers: Option<&Trailers>) -> Result<(), EncodeError> {
        match self.state {
            State::Exact(left) if left > 0 => return Err(EncodeError::Short(left)),
            State::Chunked { open } => {
                out.extend_from_slice(if open { b"\r\n0\r\n" } else { b"0\r\n" });
                for (name, value) in trailers.iter().flat_map(|trailers| trailers.forwarded()) {
                    push_field(out, name, value);
                }
                out.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        self.state = State::Finished;
        Ok(())
    }
}

// === impl FramePrefix ===

impl FramePrefix {
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    const fn empty() -> Self {
        Self { bytes: [0; PREFIX_MAX], start: PREFIX_MAX as u8 }
    }

    fn chunk(length: usize, open: bool) -> Self {
        let mut prefix = Self::empty();
        prefix.push_front(b"\r\n");
        let mut rest = length;
        while rest > 0 {
            prefix.push_front(&[b"0123456789abcdef"[rest & 15]]);
            rest >>= 4;
        }
        if open {
            prefix.push_front(b"\r\n");
        }
        prefix
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 2 bytes are pushed")]
    fn push_front(&mut self, text: &[u8]) {
        let end = usize::from(self.start);
        self.start -= text.len() as u8;
        self.bytes[usize::from(self.start)..end].copy_from_slice(text);
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

// === impl EncodeError ===

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Overrun => f.write_str("more payload than the head promised"),
            Self::Short(left) => write!(f, "{left} bytes of payload less than the head promised"),
        }
    }
}

impl std::error::Error for EncodeError {}
