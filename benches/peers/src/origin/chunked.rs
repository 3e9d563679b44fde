//! The chunked coding (RFC 9112 section 7.1), read for its length only.

use std::io;

/// Longest line of a chunk's size or of a trailer.
const LINE_BYTES_MAX: usize = 4_096;

/// Where in a chunked body the reader is.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    length: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    /// The line end after the data.
    DataEnd,
    Trailer,
    End,
}

// === impl Chunked ===

impl Chunked {
    /// Takes what it can use of `bytes` and says how many that were.
    pub(super) fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while self.state != State::End {
            let rest = &bytes[used..];
            if let State::Data(left) = self.state {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                used += taken;
                self.length += taken as u64;
                let left = left - taken as u64;
                self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                if left > 0 {
                    break;
                }
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if rest.len() > LINE_BYTES_MAX {
                    return Err(io::Error::other("a chunk line without an end"));
                }
                break;
            };
            let line = String::from_utf8_lossy(&rest[..end]);
            self.state = self.after_line(line.trim_end())?;
            used += end + 1;
        }
        Ok(used)
    }

    /// Bytes of data so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Whether the last chunk and the trailers have been read.
    pub(super) fn ended(&self) -> bool {
        self.state == State::End
    }

    fn after_line(&self, line: &str) -> io::Result<State> {
        match self.state {
            State::Size => match u64::from_str_radix(line, 16) {
                Ok(0) => Ok(State::Trailer),
                Ok(size) => Ok(State::Data(size)),
                Err(_) => Err(io::Error::other("a bad chunk size")),
            },
            State::DataEnd => Ok(State::Size),
            State::Trailer if line.is_empty() => Ok(State::End),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_any_pieces_has_its_length() {
        let body = b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nx: y\r\n\r\nGET";
        for piece in 1..body.len() {
            let (mut chunked, mut held, mut at) = (Chunked::default(), Vec::new(), 0);
            while !chunked.ended() {
                let end = (at + piece).min(body.len());
                assert!(end > at, "the body ends");
                held.extend_from_slice(&body[at..end]);
                at = end;
                let used = chunked.take(&held).unwrap();
                held.drain(..used);
            }
            assert_eq!((chunked.length(), [&held, &body[at..]].concat()), (19, b"GET".to_vec()), "{piece}");
        }
    }
}
