//! Lines of the access log: JSON for machines, text for people. No `std::fmt`, no allocation beyond the buffer they are written to.

use super::digits;
use super::{Failed, How, Record};
use crate::core::endpoint::Address;

/// Longest free text (method, host, path, request id) shown, in bytes; the rest is cut off.
pub const TEXT_MAX: usize = 8 * 1024;

/// Appends `record` as one JSON object and a line feed. Bytes that are not UTF-8 become U+FFFD.
pub(super) fn json(out: &mut Vec<u8>, record: &Record<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    digits::timestamp(out, record.time);
    out.push(b'"');
    string(out, "request_id", record.request_id);
    string(out, "listener", record.listener.as_bytes());
    flag(out, "tls", record.tls);
    key(out, "client");
    quoted(out, record.client, digits::ip);
    string(out, "method", record.method);
    string(out, "host", record.host);
    string(out, "path", without_query(record.path));
    string(out, "protocol", record.protocol.as_bytes());
    number(out, "status", u64::from(record.status));
    string(out, "termination", record.termination.code().as_bytes());
    string(out, "route", record.route.as_bytes());
    string(out, "service", record.service.as_bytes());
    string(out, "version", record.version.as_bytes());
    string(out, "variant", record.variant.map_or("", |v| v.as_str()).as_bytes());
    string(out, "assignment", record.assignment.map_or("", |a| a.as_str()).as_bytes());
    key(out, "endpoint");
    match record.endpoint {
        Some(address) => address_json(out, address),
        None => out.extend_from_slice(b"null"),
    }
    number(out, "attempts", u64::from(record.attempts));
    number(out, "retries", u64::from(record.retries));
    key(out, "failed");
    failed_json(out, record.failed);
    flag(out, "reused", record.reused);
    number(out, "request_bytes", record.request_bytes);
    number(out, "response_bytes", record.response_bytes);
    key(out, "duration_ms");
    digits::millis(out, record.duration);
    for (name, timing) in timings(record) {
        key(out, name);
        match timing {
            Some(timing) => digits::millis(out, timing),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(b"}\n");
}

/// Appends `record` as one line of words. A word has no white space: everything but printable ASCII is written `\xNN`, absent ones are `-`.
pub(super) fn text(out: &mut Vec<u8>, record: &Record<'_>) {
    digits::timestamp(out, record.time);
    word(out, b" ", record.listener.as_bytes());
    out.push(b' ');
    or_dash(out, record.client, digits::ip);
    word(out, b" ", record.method);
    word(out, b" ", record.host);
    word(out, b" ", without_query(record.path));
    word(out, b" ", record.protocol.as_bytes());
    out.push(b' ');
    digits::integer(out, u64::from(record.status));
    word(out, b" ", record.termination.code().as_bytes());
    out.push(b' ');
    digits::millis(out, record.duration);
    out.extend_from_slice(b"ms");
    word(out, b" route=", record.route.as_bytes());
    word(out, b" service=", record.service.as_bytes());
    word(out, b" version=", record.version.as_bytes());
    word(out, b" variant=", record.variant.map_or("", |v| v.as_str()).as_bytes());
    word(out, b" assignment=", record.assignment.map_or("", |a| a.as_str()).as_bytes());
    out.extend_from_slice(b" endpoint=");
    or_dash(out, record.endpoint, address_text);
    for (name, value) in [
        (&b" tls="[..], u64::from(record.tls)),
        (b" attempts=", u64::from(record.attempts)),
        (b" retries=", u64::from(record.retries)),
        (b" reused=", u64::from(record.reused)),
        (b" request_bytes=", record.request_bytes),
        (b" response_bytes=", record.response_bytes),
    ] {
        out.extend_from_slice(name);
        digits::integer(out, value);
    }
    out.extend_from_slice(b" failed=");
    failed_text(out, record.failed);
    for (name, timing) in timings(record) {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        or_dash(out, timing, digits::millis);
    }
    word(out, b" id=", record.request_id);
    out.push(b'\n');
}

fn address_json(out: &mut Vec<u8>, address: &Address) {
    out.push(b'"');
    match address {
        Address::Ip(address) => digits::socket(out, *address),
        Address::Unix(path) => {
            out.extend_from_slice(b"unix:");
            escape(out, path.as_bytes());
        }
    }
    out.push(b'"');
}

fn address_text(out: &mut Vec<u8>, address: &Address) {
    match address {
        Address::Ip(address) => digits::socket(out, *address),
        Address::Unix(path) => word(out, b"unix:", path.as_bytes()),
    }
}

fn failed_json(out: &mut Vec<u8>, failed: &[Failed<'_>]) {
    let mut before: &[u8] = b"[{\"variant\":\"";
    for attempt in failed {
        out.extend_from_slice(before);
        before = b",{\"variant\":\"";
        out.extend_from_slice(attempt.variant.as_str().as_bytes());
        out.extend_from_slice(b"\",\"endpoint\":");
        address_json(out, attempt.endpoint);
        out.extend_from_slice(b",\"how\":\"");
        how(out, attempt.how);
        out.extend_from_slice(b"\"}");
    }
    out.extend_from_slice(if failed.is_empty() { b"[]" } else { b"]" });
}

/// `VARIANT/ENDPOINT/HOW`, with commas.
fn failed_text(out: &mut Vec<u8>, failed: &[Failed<'_>]) {
    for (at, attempt) in failed.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"" } else { b"," });
        out.extend_from_slice(attempt.variant.as_str().as_bytes());
        out.push(b'/');
        address_text(out, attempt.endpoint);
        out.push(b'/');
        how(out, attempt.how);
    }
    if failed.is_empty() {
        out.push(b'-');
    }
}

fn how(out: &mut Vec<u8>, how: How) {
    match how {
        How::Word(word) => out.extend_from_slice(word.as_bytes()),
        How::Status(status) => digits::integer(out, u64::from(status)),
    }
}

fn timings(record: &Record<'_>) -> [(&'static str, Option<std::time::Duration>); 2] {
    [("connect_ms", record.connect), ("upstream_head_ms", record.upstream_head)]
}

/// Queries may carry secrets and are never logged, whatever the caller passes.
fn without_query(path: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
    &path[..end]
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    key(out, name);
    digits::integer(out, value);
}

fn flag(out: &mut Vec<u8>, name: &str, value: bool) {
    key(out, name);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// A string field; empty is `null`.
fn string(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    key(out, name);
    if value.is_empty() {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    for chunk in value[..value.len().min(TEXT_MAX)].utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

fn quoted<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => {
            out.push(b'"');
            write(out, value);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn or_dash<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(out, value),
        None => out.push(b'-'),
    }
}

/// Escapes valid UTF-8 for a JSON string: quote, backslash and controls, the C1 ones (U+0080 to U+009F) for terminals' sake included.
fn escape(out: &mut Vec<u8>, valid: &[u8]) {
    let mut plain = 0;
    let mut at = 0;
    while at < valid.len() {
        let byte = valid[at];
        let c1 = byte == 0xc2 && valid.get(at + 1).is_some_and(|&next| next < 0xa0);
        let taken = 1 + usize::from(c1);
        if byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f && !c1 {
            at += 1;
            continue;
        }
        out.extend_from_slice(&valid[plain..at]);
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => {
                out.extend_from_slice(b"\\u00");
                digits::hex(out, if c1 { valid[at + 1] } else { byte });
            }
        }
        at += taken;
        plain = at;
    }
    out.extend_from_slice(&valid[plain..]);
}

/// `before`, then `value` as one word.
fn word(out: &mut Vec<u8>, before: &[u8], value: &[u8]) {
    out.extend_from_slice(before);
    if value.is_empty() {
        return out.push(b'-');
    }
    let value = &value[..value.len().min(TEXT_MAX)];
    let mut plain = 0;
    for (at, &byte) in value.iter().enumerate() {
        if byte.is_ascii_graphic() && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&value[plain..at]);
        plain = at + 1;
        if byte == b'\\' {
            out.extend_from_slice(b"\\\\");
        } else {
            out.extend_from_slice(b"\\x");
            digits::hex(out, byte);
        }
    }
    out.extend_from_slice(&value[plain..]);
}

#[cfg(test)]
pub(super) mod tests;
