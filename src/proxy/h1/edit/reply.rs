//! The head of the proxy's own answers, and status lines.

use super::{ADDED, push_content_length, push_field};
use crate::proxy::h1::bytes::push_decimal;

/// An answer of the proxy itself.
#[derive(Clone, Copy, Debug)]
pub struct ReplyHead<'a> {
    /// The status.
    pub status: u16,
    /// `Content-Type`; empty: none.
    pub content_type: &'a [u8],
    /// Length of the body, of the one a `HEAD` does not get as well.
    pub content_length: u64,
    /// Whether the connection is closed after it.
    pub close: bool,
    /// `Date`, when there is a clock at hand (RFC 9110 section 6.6.1).
    pub date: Option<&'a [u8]>,
    /// Further fields.
    pub extra: &'a [(&'a [u8], &'a [u8])],
}

/// Appends the head of an answer of the proxy itself.
pub fn write_reply(out: &mut Vec<u8>, reply: &ReplyHead<'_>) {
    out.reserve(ADDED);
    push_status_line(out, reply.status, b"");
    if let Some(date) = reply.date {
        push_field(out, b"date", date);
    }
    if !reply.content_type.is_empty() {
        push_field(out, b"content-type", reply.content_type);
    }
    for (name, value) in reply.extra {
        push_field(out, name, value);
    }
    if reply.close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if !matches!(reply.status, 100..=199 | 204 | 304) {
        push_content_length(out, reply.content_length);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a status line; without `phrase`, with the usual one.
pub(super) fn push_status_line(out: &mut Vec<u8>, status: u16, phrase: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(if phrase.is_empty() { reason(status).as_bytes() } else { phrase });
    out.extend_from_slice(b"\r\n");
}

/// The reason phrases of the registry of status codes (RFC 9110 section 15, RFC 6585, RFC 8297 and others); unregistered ones have none.
const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400..=499 => client_error(status),
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

const fn client_error(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        _ => "",
    }
}
