//! Inputs: valid ones first, then damaged where damage hurts.

use fastrand::Rng;

use super::tokens::{
    BAD_FIELDS, BAD_REQUEST_LINES, BODIES, CHUNK_EXTENSIONS, CONFIG_LINES, COOKIE_TOKENS, FIELDS, LINE_ENDS, METHODS,
    PATH_TOKENS, REQUEST_LINES, RESPONSE_FIELDS, STATUS_LINES, TOKENS, TRAILER_FIELDS,
};

const REFERENCE: &str = include_str!("../../../config/reference.toml");

/// Requests on one connection.
#[must_use]
pub fn requests(random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.usize(1..4) {
        let lines = if random.u8(..24) == 0 { BAD_REQUEST_LINES } else { REQUEST_LINES };
        let line = lines[random.usize(..lines.len())];
        let method = METHODS[random.usize(..METHODS.len())];
        out.extend_from_slice(method.as_bytes());
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\nHost: a\r\n");
        message(&mut out, FIELDS, random);
        for _ in 0..[0, 0, 0, 0, 0, 1, 1, 2][random.usize(..8)] {
            out.extend_from_slice(b"\r\n");
        }
    }
    damaged(out, random)
}

/// The answer to one request, behind the method of that.
#[must_use]
pub fn responses(random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    if random.u8(..4) == 0 {
        out.extend_from_slice(b"HEAD\n");
    }
    for _ in 0..random.usize(0..3) {
        if random.u8(..4) == 0 {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        }
    }
    out.extend_from_slice(STATUS_LINES[random.usize(..STATUS_LINES.len())].as_bytes());
    out.extend_from_slice(b"\r\n");
    message(&mut out, RESPONSE_FIELDS, random);
    damaged(out, random)
}

/// A chunked body and what follows it.
#[must_use]
pub fn chunked(random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    chunks(&mut out, random);
    out.extend_from_slice(b"GET / HTTP/1.1\r\n");
    damaged(out, random)
}

/// WebSocket frames of one direction.
#[must_use]
pub fn frames(random: &mut Rng) -> Vec<u8> {
    let server = random.bool();
    let mut out = vec![u8::from(server)];
    for _ in 0..random.usize(1..6) {
        let opcode = [0x82, 0x81, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88][random.usize(..8)];
        let choices = if random.u8(..8) == 0 { 9 } else { 7 };
        let length = [0, 1, 5, 125, 126, 127, 300, 65_535, 65_536][random.usize(..choices)];
        let mask = if server { 0 } else { 0x80 };
        out.push(opcode);
        match length {
            0..=125 => out.push(mask | u8::try_from(length).unwrap_or(0)),
            126..=65_535 => {
                out.push(mask | 0x7e);
                out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_be_bytes());
            }
            _ => {
                out.push(mask | 0x7f);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.resize(out.len() + length + if server { 0 } else { 4 }, b'x');
    }
    if random.bool() { flipped(out, random) } else { out }
}

/// A path.
#[must_use]
pub fn path(random: &mut Rng) -> Vec<u8> {
    let mut out = b"/".to_vec();
    for _ in 0..random.usize(0..10) {
        out.extend_from_slice(PATH_TOKENS[random.usize(..PATH_TOKENS.len())]);
    }
    if random.u8(..4) == 0 { flipped(out, random) } else { out }
}

/// `Cookie` fields, one per line.
#[must_use]
pub fn cookies(random: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.usize(0..14) {
        out.extend_from_slice(COOKIE_TOKENS[random.usize(..COOKIE_TOKENS.len())]);
    }
    if random.u8(..4) == 0 { flipped(out, random) } else { out }
}

/// A configuration.
#[must_use]
pub fn settings(random: &mut Rng) -> Vec<u8> {
    let mut lines: Vec<&str> = REFERENCE.lines().filter(|line| !line.contains(".pem")).collect();
    for _ in 0..random.usize(0..6) {
        let at = random.usize(..lines.len());
        match random.u8(..4) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[random.usize(..lines.len())]),
            2 => lines.insert(at, CONFIG_LINES[random.usize(..CONFIG_LINES.len())]),
            _ => lines[at] = lines[at].trim_start_matches(['#', ' ']),
        }
    }
    let text = lines.join("\n").into_bytes();
    if random.u8(..4) == 0 { flipped(text, random) } else { text }
}

/// Fields, the empty line, and a body as they announce it.
fn message(out: &mut Vec<u8>, fields: &[&str], random: &mut Rng) {
    for _ in 0..random.usize(0..5) {
        let fields = if random.u8(..32) == 0 { BAD_FIELDS } else { fields };
        line(out, fields[random.usize(..fields.len())]);
    }
    match random.u8(..4) {
        0 => {
            line(out, "Transfer-Encoding: chunked");
            out.extend_from_slice(b"\r\n");
            chunks(out, random);
        }
        1 => {
            let body = BODIES[random.usize(..BODIES.len())];
            line(out, &format!("Content-Length: {}", body.len()));
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(body);
        }
        _ => out.extend_from_slice(b"\r\n"),
    }
}

fn chunks(out: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(0..4) {
        let body = BODIES[random.usize(1..BODIES.len())];
        let size = if random.bool() { format!("{:x}", body.len()) } else { format!("{:04X}", body.len()) };
        out.extend_from_slice(size.as_bytes());
        line(out, CHUNK_EXTENSIONS[random.usize(..CHUNK_EXTENSIONS.len())]);
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0");
    line(out, CHUNK_EXTENSIONS[random.usize(..CHUNK_EXTENSIONS.len())]);
    for _ in 0..random.usize(0..3) {
        line(out, TRAILER_FIELDS[random.usize(..TRAILER_FIELDS.len())]);
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn damaged(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    // Many stay as they are: what is valid has to be read alike as well.
    for _ in 0..[0, 0, 1, 1, 2][random.usize(..5)] {
        bytes = mutate(bytes, random);
    }
    bytes
}

/// `bytes` with one piece of damage.
#[must_use]
pub fn mutate(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    let lines: Vec<usize> = line_starts(&bytes);
    let some = lines[random.usize(..lines.len())];
    let next = lines.iter().copied().find(|start| *start > some).unwrap_or(bytes.len());
    let token = TOKENS[random.usize(..TOKENS.len())];
    match random.u8(..12) {
        // A line again, elsewhere.
        0 => {
            let copy = bytes[some..next].to_vec();
            let at = lines[random.usize(..lines.len())];
            bytes.splice(at..at, copy);
        }
        1 => drop(bytes.drain(some..next)),
        // Another end of a line.
        2 => {
            let end = bytes[some..next].iter().position(|byte| *byte == b'\r').map_or(next, |at| some + at);
            bytes.splice(end..next, LINE_ENDS[random.usize(..LINE_ENDS.len())].bytes());
        }
        // White space or control around a colon.
        3 => {
            let colon = bytes[some..next].iter().position(|byte| *byte == b':').map_or(some, |at| some + at);
            let at = colon + random.usize(..2).min(bytes.len() - colon);
            let blank = [" ", "\t", "\r\n ", "\0", "\x0b", ":", "_", "\u{a0}"][random.usize(..8)];
            bytes.splice(at..at, blank.bytes());
        }
        4 | 5 => {
            let at = random.usize(..=bytes.len());
            bytes.splice(at..at, token.iter().copied());
        }
        6 => {
            bytes.splice(some..some, token.iter().copied());
        }
        7 => bytes.truncate(random.usize(..=bytes.len())),
        8 => {
            let from = random.usize(..=bytes.len());
            let to = (from + random.usize(..8)).min(bytes.len());
            drop(bytes.drain(from..to));
        }
        // Half of a line end is something else.
        9 | 10 => {
            let ends: Vec<usize> = (0..bytes.len()).filter(|at| matches!(bytes[*at], b'\r' | b'\n')).collect();
            if !ends.is_empty() {
                bytes[ends[random.usize(..ends.len())]] = b"\r\nX0 \t\0"[random.usize(..7)];
            }
        }
        _ => bytes = flipped(bytes, random),
    }
    bytes
}

fn flipped(mut bytes: Vec<u8>, random: &mut Rng) -> Vec<u8> {
    if !bytes.is_empty() {
        let at = random.usize(..bytes.len());
        bytes[at] = if random.bool() { random.u8(..) } else { bytes[at] ^ (1 << random.u8(..8)) };
    }
    bytes
}

fn line_starts(bytes: &[u8]) -> Vec<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(ends).collect()
}
