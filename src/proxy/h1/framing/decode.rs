//! Bodies that come in: where the payload lies in what was read. Nothing is copied but trailers.

use super::{CHUNK_DIGITS_MAX, CHUNK_EXTENSIONS_MAX, CHUNK_LINE_MAX};
use crate::proxy::h1::bytes::is_token;
use crate::proxy::h1::head::{FieldLimits, HeadLimits, Refusal, ScanLimits, ScanState, parse_fields, scan_section};
use crate::proxy::headers::{BodyLength, Trailers};

/// Finds the payload of one message in the bytes that follow its head.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Payload bytes to come, of the message or of the chunk; while a size is read, the size so far.
    left: u64,
    /// Bytes of the current size line so far.
    line: usize,
    /// Bytes of all extensions so far.
    extensions: usize,
    limits: HeadLimits,
    scan: ScanState,
    trailers: Trailers,
}

/// What comes next in the bytes given: `skip` bytes of framing, then `payload` bytes of payload. Both are consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of framing in front.
    pub skip: usize,
    /// Bytes of payload after them.
    pub payload: usize,
    /// Whether the message ends after them. Otherwise, when nothing was consumed, more bytes are needed.
    pub end: bool,
}

/// Why a body cannot be read on; where the next message would begin is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramingError {
    /// The status to answer with if it was a request body.
    pub status: u16,
    /// What is wrong, for people.
    pub cause: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Payload of known length.
    Exact,
    /// Payload until the connection closes.
    UntilClose,
    /// A chunk size, with so many digits so far.
    Size(u8),
    /// White space after a chunk size: an extension must follow.
    BeforeExtension,
    /// A chunk extension.
    Extension,
    /// The LF of a size line.
    SizeLf,
    /// Payload of a chunk.
    Data,
    /// The CR after a chunk.
    DataCr,
    /// The LF after a chunk.
    DataLf,
    /// After the last chunk.
    Last,
    /// The LF of the empty line after the last chunk.
    LastLf,
    /// Trailers, collected.
    Trailers,
    /// Behind the message.
    End,
}

// === impl Decoder ===

impl Decoder {
    /// For a body of this length; `limits` bound the trailers.
    #[must_use]
    pub fn new(body: BodyLength, limits: HeadLimits) -> Self {
        let (state, left) = match body {
            BodyLength::None | BodyLength::Exact(0) => (State::End, 0),
            BodyLength::Exact(length) => (State::Exact, length),
            BodyLength::Chunked => (State::Size(0), 0),
            BodyLength::UntilClose => (State::UntilClose, 0),
        };
        let (scan, trailers) = (ScanState::default(), Trailers::default());
        Self { state, left, line: 0, extensions: 0, limits, scan, trailers }
    }

    /// Whether the message is complete.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Trailers of the message, once it is complete.
    #[must_use]
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Looks at the bytes that follow those consumed so far. To be called again with what follows the bytes consumed, until the message ends
    /// or nothing was consumed.
    ///
    /// # Errors
    /// Framing that is not exactly what RFC 9112 section 7.1 says, or over a bound.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Step, FramingError> {
        let mut skip = 0;
        loop {
            let rest = &buf[skip..];
            match self.state {
                State::End => return Ok(Step { skip, payload: 0, end: true }),
                State::UntilClose => return Ok(Step { skip, payload: rest.len(), end: false }),
                State::Exact => {
                    let payload = self.take(rest.len());
                    if self.left == 0 {
                        self.state = State::End;
                    }
                    return Ok(Step { skip, payload, end: self.left == 0 });
                }
                State::Data => {
                    let payload = self.take(rest.len());
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step { skip, payload, end: false });
                }
                State::Trailers => {
                    let (consumed, end) = self.collect(rest)?;
                    return Ok(Step { skip: skip + consumed, payload: 0, end });
                }
                _ => {
                    let Some(byte) = rest.first() else { return Ok(Step { skip, payload: 0, end: false }) };
                    self.state = self.after(*byte)?;
                    // The first byte of a trailer is read with the rest of it.
                    skip += usize::from(self.state != State::Trailers);
                }
            }
        }
    }

    /// The connection was closed.
    ///
    /// # Errors
    /// The message was not complete.
    pub fn eof(&mut self) -> Result<(), FramingError> {
        match self.state {
            State::UntilClose | State::End => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(FramingError::bad("the connection was closed within a body")),
        }
    }

    /// Takes up to `available` bytes of the payload that is left.
    fn take(&mut self, available: usize) -> usize {
        let payload = usize::try_from(self.left).map_or(available, |left| left.min(available));
        self.left -= payload as u64;
        payload
    }

    /// The state after one more byte of framing.
    fn after(&mut self, byte: u8) -> Result<State, FramingError> {
        match (self.state, byte) {
            (State::Size(digits), _) => self.after_size(digits, byte),
            (State::BeforeExtension, b' ' | b'\t') => self.within_line(State::BeforeExtension),
            (State::BeforeExtension, b';') | (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.within_line(State::Extension)
            }
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) => Err(FramingError::bad("a bare LF or a control character in a chunk extension")),
            (State::BeforeExtension, _) => Err(FramingError::bad("white space after a chunk size")),
            (State::SizeLf, b'\n') => Ok(if self.left == 0 { State::Last } else { State::Data }),
            (State::SizeLf, _) => Err(FramingError::bad("a bare CR in a chunk-size line")),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line = 0;
                Ok(State::Size(0))
            }
            (State::DataCr | State::DataLf, _) => Err(FramingError::bad("a chunk that is not followed by CR LF")),
            (State::Last, b'\r') => Ok(State::LastLf),
            (State::Last, byte) if is_token(&[byte]) => Ok(State::Trailers),
            (State::Last, _) => {
                Err(FramingError::bad("something other than fields or an empty line after the last chunk"))
            }
            (State::LastLf, b'\n') => Ok(State::End),
            (State::LastLf, _) => Err(FramingError::bad("a bare CR after the last chunk")),
            (state, _) => Ok(state),
        }
    }

    /// The state after one more byte of a chunk size of `digits` digits so far.
    fn after_size(&mut self, digits: u8, byte: u8) -> Result<State, FramingError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if digits == 0 => {
                return Err(FramingError::bad("a chunk size that does not begin with a hexadecimal digit"));
            }
            b'\r' => return Ok(State::SizeLf),
            b';' => return self.within_line(State::Extension),
            b' ' | b'\t' => return self.within_line(State::BeforeExtension),
            b'\n' => return Err(FramingError::bad("a bare LF in a chunk-size line")),
            _ => return Err(FramingError::bad("a chunk size with something other than hexadecimal digits")),
        };
        if digits == CHUNK_DIGITS_MAX {
            return Err(FramingError::bad("a chunk size of too many digits"));
        }
        // The last chunk left 0 here. 16 digits fit.
        self.left = self.left << 4 | u64::from(digit);
        self.line += 1;
        Ok(State::Size(digits + 1))
    }

    /// Goes to `state` with one more byte of the size line, none of which is a digit.
    fn within_line(&mut self, state: State) -> Result<State, FramingError> {
        self.line += 1;
        self.extensions += 1;
        if self.line > CHUNK_LINE_MAX {
            return Err(FramingError::bad("a chunk-size line that is too long"));
        }
        if self.extensions > CHUNK_EXTENSIONS_MAX {
            return Err(FramingError::bad("too many chunk extensions"));
        }
        Ok(state)
    }

    /// Takes in trailers from `buf`; how many bytes of it, and whether the message ends there.
    fn collect(&mut self, buf: &[u8]) -> Result<(usize, bool), FramingError> {
        let before = self.trailers.bytes.len();
        // One byte over the bound is enough to be refused.
        let room = (self.limits.max_head + 1).saturating_sub(before);
        self.trailers.bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        let limits = ScanLimits { total: self.limits.max_head, line: self.limits.max_head, skip_empty: false };
        let Some(length) =
            scan_section(&self.trailers.bytes, &mut self.scan, limits).map_err(FramingError::trailers)?
        else {
            return Ok((self.trailers.bytes.len() - before, false));
        };
        self.trailers.bytes.truncate(length);
        self.read_trailers()?;
        self.state = State::End;
        Ok((length - before, true))
    }

    fn read_trailers(&mut self) -> Result<(), FramingError> {
        let Trailers { bytes, fields } = &mut self.trailers;
        let limits = FieldLimits { fields: self.limits.max_fields, underscores: self.limits.underscores };
        // Fields that say how a message is framed or routed may stand here too: they are never forwarded (RFC 9110 section 6.5.1).
        parse_fields(bytes, 0, limits, fields).map_err(FramingError::trailers)
    }
}

// === impl FramingError ===

impl FramingError {
    const fn bad(cause: &'static str) -> Self {
        Self { status: 400, cause }
    }

    /// What scanning and reading fields say of a section of trailers.
    fn trailers(refusal: Refusal) -> Self {
        match refusal.status {
            // There is no first line that could be too long: it is the first field.
            414 | 431 => Self { status: 431, cause: "the trailers are too large" },
            status => Self { status, cause: refusal.cause },
        }
    }
}

impl std::fmt::Display for FramingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.cause)
    }
}

impl std::error::Error for FramingError {}
