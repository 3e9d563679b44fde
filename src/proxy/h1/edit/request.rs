//! The head of a request to an upstream.

use super::{ADDED, Copier, push_field, push_framing};
use crate::proxy::edits::{FieldWriter, RequestEdits, says_no_body, write_fields};
use crate::proxy::headers::{BodyLength, Field, RequestHead};

/// Fields as lines.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
    copier: Copier<'a>,
}

/// Appends the head of a request to an upstream.
pub fn write_request(out: &mut Vec<u8>, head: &RequestHead, edits: &RequestEdits<'_>) {
    out.reserve(head.bytes.len() + ADDED);
    request_line(out, head, edits);
    push_field(out, b"host", edits.host);
    let mut lines = Lines { out, copier: Copier::new(&head.bytes) };
    write_fields(&mut lines, head, edits);
    lines.copier.flush(lines.out);
    if edits.websocket {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    } else if head.te_trailers {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    match edits.body {
        BodyLength::None if says_no_body(head) => {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        // No request body is delimited by the end of the connection.
        BodyLength::UntilClose => push_framing(out, BodyLength::Chunked),
        body => push_framing(out, body),
    }
    if head.expect_continue {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn request_line(out: &mut Vec<u8>, head: &RequestHead, edits: &RequestEdits<'_>) {
    out.extend_from_slice(head.get(head.method));
    out.push(b' ');
    match edits.target {
        None => out.extend_from_slice(head.get(head.target)),
        Some(path) => {
            out.extend_from_slice(path);
            if let Some(query) = head.query {
                out.push(b'?');
                out.extend_from_slice(head.get(query));
            }
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

// === impl Lines ===

impl FieldWriter for Lines<'_> {
    #[inline]
    fn keep(&mut self, field: &Field) {
        self.copier.keep(self.out, field);
    }

    #[inline]
    fn add(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.copier.flush(self.out);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        write(self.out);
        self.out.extend_from_slice(b"\r\n");
    }
}
