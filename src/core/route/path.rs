//! Paths: the form they are matched in, the form they are forwarded in, and those that are refused.
//!
//! Two spellings of one path must not reach two routes, and the upstream must not understand a path otherwise than the table did.

use std::fmt;

use super::super::fields::escape;

/// The two forms of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// What routes are compared with: dot segments resolved, unreserved characters plain, everything that may not stand plain in a
    /// path (RFC 3986 section 3.3) escaped with upper-case digits. An escaped `/` stays escaped, duplicate slashes stay.
    pub matching: &'a [u8],
    /// What is sent upstream: dot segments resolved, the client's own escapes otherwise (signed URLs).
    pub forwarded: &'a [u8],
}

/// Room for the forms that differ from what the client sent; kept by the caller from request to request.
#[derive(Debug, Default)]
pub struct PathScratch {
    matching: Vec<u8>,
    forwarded: Vec<u8>,
}

/// Why a path is refused (400).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with `/`.
    Relative,
    /// A control character, a space or DEL.
    Control,
    /// `#`
    Fragment,
    /// `\`, which some servers read as `/`.
    Backslash,
    /// `%00`
    Nul,
    /// `.` or `..` spelt with escapes, or beside an escaped `/` or `\`: another server may resolve it.
    EncodedDots,
}

/// What a byte of a path is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Letter, digit, `-`, `_` or `~`: the same plain and escaped (RFC 3986 section 2.3).
    Unreserved,
    /// Unreserved too, and it may make a dot segment.
    Dot,
    /// May stand plain, but means something else when escaped.
    Reserved,
    /// Ends a segment.
    Slash,
    /// Begins an escape.
    Percent,
    /// Has no place in a path, but some clients send it plain.
    Unsafe,
    /// Refused.
    Bad(BadPath),
}

/// What has to be done to a path.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// It has dot segments.
    resolve: bool,
    /// Its escapes are not in the form used for matching.
    respell: bool,
}

/// What is known of the segment being read; an escaped `/` or `\` ends one here, as it might elsewhere.
#[derive(Clone, Copy)]
struct Segment {
    dots: u32,
    other: bool,
    escaped: bool,
}

/// Brings `path` (without its query) into the forms it is matched and forwarded in. An empty path is `/`; `*` (`OPTIONS *`) stays.
///
/// Copies nothing when nothing has to change, and allocates nothing once `scratch` has grown to the longest path met.
///
/// # Errors
/// The path is refused; answered with 400.
pub fn normalise<'a>(path: &'a [u8], scratch: &'a mut PathScratch) -> Result<Normalised<'a>, BadPath> {
    match path {
        [] => return Ok(Normalised { matching: b"/", forwarded: b"/" }),
        b"*" => return Ok(Normalised { matching: path, forwarded: path }),
        [b'/', ..] => {}
        _ => return Err(BadPath::Relative),
    }
    let work = inspect(path)?;
    let PathScratch { matching, forwarded } = scratch;
    let forwarded = if work.resolve { resolve(path, forwarded) } else { path };
    let matching = if work.respell { respell(forwarded, matching) } else { forwarded };
    Ok(Normalised { matching, forwarded })
}

/// The matching form of a path written in the configuration.
///
/// # Errors
/// Not a path a request could have; the error says why.
pub fn pattern(path: &str) -> Result<Vec<u8>, BadPath> {
    match path.as_bytes() {
        [b'/', ..] => normalise(path.as_bytes(), &mut PathScratch::default()).map(|n| n.matching.to_vec()),
        _ => Err(BadPath::Relative),
    }
}

/// Whether `path` is `prefix` or lies below it, by whole segments: `/api` and `/api/` both take `/api`, `/api/` and `/api/x`, but
/// not `/apix`. `/` takes everything.
#[must_use]
pub fn is_within(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = trimmed(prefix);
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// A prefix without its closing slash.
pub(super) fn trimmed(prefix: &[u8]) -> &[u8] {
    prefix.strip_suffix(b"/").unwrap_or(prefix)
}

fn inspect(path: &[u8]) -> Result<Work, BadPath> {
    if is_plain(path) {
        return Ok(Work::default());
    }
    let mut work = Work::default();
    let mut segment = Segment::new(false);
    let mut at = 1;
    while at < path.len() {
        match CLASSES[usize::from(path[at])] {
            Class::Unreserved | Class::Reserved => segment.other = true,
            Class::Dot => segment.dots += 1,
            Class::Slash => {
                work.resolve |= segment.is_dots()?;
                segment = Segment::new(false);
            }
            Class::Unsafe => {
                segment.other = true;
                work.respell = true;
            }
            Class::Percent => at += inspect_escape(&path[at..], &mut segment, &mut work)?,
            Class::Bad(bad) => return Err(bad),
        }
        at += 1;
    }
    work.resolve |= segment.is_dots()?;
    Ok(work)
}

/// Whether nothing has to be done to `path` for sure: no escapes, and no segment that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b'/';
    path.iter().all(|&byte| {
        let plain = match CLASSES[usize::from(byte)] {
            Class::Unreserved | Class::Reserved | Class::Slash => true,
            Class::Dot => before != b'/',
            Class::Percent | Class::Unsafe | Class::Bad(_) => false,
        };
        before = byte;
        plain
    })
}

/// Looks at the `%` that `text` begins with; returns how many more bytes belong to it.
fn inspect_escape(text: &[u8], segment: &mut Segment, work: &mut Work) -> Result<usize, BadPath> {
    let Some(byte) = escape(text) else {
        segment.other = true;
        work.respell = true;
        return Ok(0);
    };
    work.respell |= text[1..3].iter().any(u8::is_ascii_lowercase);
    match (byte, CLASSES[usize::from(byte)]) {
        (0, _) => return Err(BadPath::Nul),
        (b'/' | b'\\', _) => {
            segment.escaped = true;
            segment.is_dots()?;
            *segment = Segment::new(true);
        }
        (_, Class::Dot) => {
            segment.dots += 1;
            segment.escaped = true;
            work.respell = true;
        }
        (_, class) => {
            segment.other = true;
            work.respell |= class == Class::Unreserved;
        }
    }
    Ok(2)
}

/// RFC 3986 section 5.2.4 for a path that begins with `/`.
fn resolve<'a>(path: &[u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    out.clear();
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => out.truncate(out.iter().rposition(|&b| b == b'/').unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            out.push(b'/');
        }
    }
    out
}

/// Writes `path` with every byte spelt the one way it is matched in.
fn respell<'a>(path: &[u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    out.clear();
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        let escaped = escape(&path[at..]);
        match (CLASSES[usize::from(byte)], escaped) {
            (Class::Percent, Some(byte)) => {
                at += 2;
                match CLASSES[usize::from(byte)] {
                    Class::Unreserved | Class::Dot => out.push(byte),
                    _ => push_escape(byte, out),
                }
            }
            // A lone `%` becomes `%25`, so that it can never form an escape with what follows it.
            (Class::Percent | Class::Unsafe, None) => push_escape(byte, out),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

const fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Unreserved,
        b'.' => Class::Dot,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Reserved,
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        0..=b' ' | 0x7f => Class::Bad(BadPath::Control),
        b'#' => Class::Bad(BadPath::Fragment),
        b'\\' => Class::Bad(BadPath::Backslash),
        _ => Class::Unsafe,
    }
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Unsafe; 256];
    let mut byte = 0_u8;
    loop {
        classes[byte as usize] = class(byte);
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

// === impl Segment ===

impl Segment {
    const fn new(escaped: bool) -> Self {
        Self { dots: 0, other: false, escaped }
    }

    /// Whether it is a dot segment written plainly.
    const fn is_dots(self) -> Result<bool, BadPath> {
        match (self.other, self.dots, self.escaped) {
            (false, 1 | 2, true) => Err(BadPath::EncodedDots),
            (false, 1 | 2, false) => Ok(true),
            _ => Ok(false),
        }
    }
}

// === impl BadPath ===

impl BadPath {
    /// What is wrong, as a sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relative => "a path begins with \"/\"",
            Self::Control => "a path has no control characters and no spaces",
            Self::Fragment => "a path has no \"#\"",
            Self::Backslash => "a path has no \"\\\"",
            Self::Nul => "a path has no \"%00\"",
            Self::EncodedDots => "a path has no \".\" or \"..\" segments written with escapes",
        }
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for BadPath {}

#[cfg(test)]
mod tests;
