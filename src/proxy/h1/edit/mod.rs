//! Writing heads. The first line, `Host`, the framing and everything that concerns one hop are written anew; all other fields go out with the
//! names, values and order they came with.

mod reply;
mod request;
mod response;

pub use reply::{ReplyHead, write_reply};
pub use request::write_request;
pub(in crate::proxy) use response::is_forwarded;
pub use response::{ResponseEdits, write_interim, write_response};

use super::bytes::push_decimal;
use crate::proxy::headers::{BodyLength, Field};

/// Bytes set aside for what is written beside the fields that came.
const ADDED: usize = 512;

/// Copies fields as they came; neighbours that lie in the canonical form already go in one piece.
struct Copier<'a> {
    bytes: &'a [u8],
    /// A run of whole lines not written yet.
    start: usize,
    end: usize,
}

// === impl Copier ===

impl<'a> Copier<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, start: 0, end: 0 }
    }

    /// Writes `field`, now or with its neighbours.
    #[inline]
    fn keep(&mut self, out: &mut Vec<u8>, field: &Field) {
        let [name, value] = [field.name.range(), field.value.range()];
        let canonical = self.bytes.get(name.end..value.start) == Some(b": ")
            && self.bytes.get(value.end..value.end + 2) == Some(b"\r\n");
        if canonical && self.end == name.start {
            self.end = value.end + 2;
        } else if canonical {
            self.flush(out);
            self.start = name.start;
            self.end = value.end + 2;
        } else {
            self.flush(out);
            push_field(out, &self.bytes[name], &self.bytes[value]);
        }
    }

    /// Writes what was kept so far.
    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[self.start..self.end]);
        self.start = self.end;
    }
}

/// Appends one field line.
#[inline]
pub(super) fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    // Without the space when there is no value: no line ends in white space.
    out.extend_from_slice(if value.is_empty() { b":" } else { b": " });
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the framing of a body there is.
fn push_framing(out: &mut Vec<u8>, body: BodyLength) {
    match body {
        BodyLength::Exact(length) => push_content_length(out, length),
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::None | BodyLength::UntilClose => {}
    }
}

fn push_content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    push_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
