//! The chunked decoder beside a reference that reads a whole body at once, straight from the grammar (RFC 9112 section 7.1).

use tidegate::proxy::h1::framing::{
    CHUNK_DIGITS_MAX, CHUNK_EXTENSIONS_MAX, CHUNK_LINE_MAX, Decoder, FramingError, Step,
};
use tidegate::proxy::headers::BodyLength;

use super::codec::limits;
use super::message::{Pair, canonical};
use super::random::{cuts, random_of};

/// What a body is.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    /// Payload, trailers, and how many bytes it took.
    Whole(Vec<u8>, Vec<Pair>, usize),
    /// The payload so far.
    Partial(Vec<u8>),
    /// The payload before what is not taken.
    Bad(Vec<u8>),
}

/// Checks a chunked body and what follows it.
///
/// # Panics
/// Decoder and reference disagree, or a split changes what is read.
pub fn check(raw: &[u8]) {
    let expected = reference(raw);
    let mut random = random_of(raw);
    for cuts in cuts(raw, &mut random).into_iter().chain([Vec::new()]) {
        assert_eq!(decoded(raw, &cuts), expected, "split at {cuts:?}");
    }
}

/// What the decoder reads when `raw` arrives up to each of `cuts` in turn.
fn decoded(raw: &[u8], cuts: &[usize]) -> Body {
    let mut decoder = Decoder::new(BodyLength::Chunked, limits(super::KEEP));
    let mut payload = Vec::new();
    let mut at = 0;
    for arrived in cuts.iter().copied().chain([raw.len()]) {
        loop {
            match decoder.decode(&raw[at..arrived.max(at)]) {
                Err(FramingError { .. }) => return Body::Bad(payload),
                Ok(Step { skip, payload: length, end }) => {
                    payload.extend_from_slice(&raw[at + skip..at + skip + length]);
                    at += skip + length;
                    if end {
                        assert!(decoder.is_end());
                        let trailers = decoder.trailers();
                        let span = |field: &tidegate::proxy::headers::Field| {
                            (field.name.of(&trailers.bytes).to_vec(), field.value.of(&trailers.bytes).to_vec())
                        };
                        return Body::Whole(payload, canonical(trailers.fields.iter().map(span)), at);
                    }
                    if skip + length == 0 {
                        break;
                    }
                }
            }
        }
    }
    assert!(!decoder.is_end() && decoder.eof().is_err());
    Body::Partial(payload)
}

/// What the grammar says.
fn reference(raw: &[u8]) -> Body {
    let mut payload = Vec::new();
    let mut extensions = 0;
    let mut at = 0;
    loop {
        let (size, line) = match size_line(&raw[at..], &mut extensions) {
            Ok(Some(line)) => line,
            Ok(None) => return Body::Partial(payload),
            Err(()) => return Body::Bad(payload),
        };
        at += line;
        if size == 0 {
            return match trailer_section(&raw[at..]) {
                Ok(Some((trailers, length))) => Body::Whole(payload, trailers, at + length),
                Ok(None) => Body::Partial(payload),
                Err(()) => Body::Bad(payload),
            };
        }
        let there = usize::try_from(size).map_or(raw.len() - at, |size| size.min(raw.len() - at));
        payload.extend_from_slice(&raw[at..at + there]);
        at += there;
        if (there as u64) < size {
            return Body::Partial(payload);
        }
        match &raw[at..] {
            [] | [b'\r'] => return Body::Partial(payload),
            [b'\r', b'\n', ..] => at += 2,
            _ => return Body::Bad(payload),
        }
    }
}

/// The size a chunk begins with, and how long its line is.
fn size_line(raw: &[u8], extensions: &mut usize) -> Result<Option<(u64, usize)>, ()> {
    let digits = raw.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > usize::from(CHUNK_DIGITS_MAX) || (digits == 0 && !raw.is_empty()) {
        return Err(());
    }
    if digits == raw.len() {
        return Ok(None);
    }
    let size = u64::from_str_radix(str::from_utf8(&raw[..digits]).map_err(|_| ())?, 16).map_err(|_| ())?;
    let blank = raw[digits..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let end = raw[digits..].iter().position(|byte| *byte == b'\r').map_or(raw.len(), |at| digits + at);
    let extension = &raw[digits..end];
    let begun = extension.get(blank).is_some();
    let valid = extension.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
    // The digits are there already when an extension is too long.
    *extensions += extension.len();
    let long = *extensions > CHUNK_EXTENSIONS_MAX || (!extension.is_empty() && end > CHUNK_LINE_MAX);
    if !valid || long || (begun && extension[blank] != b';') || (end < raw.len() && blank > 0 && !begun) {
        return Err(());
    }
    match &raw[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((size, end + 2))),
        _ => Err(()),
    }
}

/// The trailers at the front of `raw`, and how long they are, the empty line included.
fn trailer_section(raw: &[u8]) -> Result<Option<(Vec<Pair>, usize)>, ()> {
    match raw {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => return Ok(Some((Vec::new(), 2))),
        [byte, ..] if !is_token(*byte) => return Err(()),
        _ => {}
    }
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let section = &raw[..end.unwrap_or(raw.len())];
    for (at, byte) in section.iter().enumerate() {
        match byte {
            b'\r' if section.get(at + 1).is_some_and(|next| *next != b'\n') => return Err(()),
            b'\n' if at == 0 || section[at - 1] != b'\r' => return Err(()),
            b'\t' | b'\r' | b'\n' | b' '..=b'~' | 0x80.. => {}
            _ => return Err(()),
        }
    }
    let bounds = limits(super::KEEP);
    if section.len() > bounds.max_head || longest_first_line(section) > bounds.max_head {
        return Err(());
    }
    let Some(end) = end else { return Ok(None) };
    let lines = str_lines(&section[..end - 4]);
    if lines.len() > bounds.max_fields {
        return Err(());
    }
    let fields: Option<Vec<(&[u8], &[u8])>> = lines.into_iter().map(field).collect();
    Ok(Some((canonical(fields.ok_or(())?), end)))
}

fn longest_first_line(section: &[u8]) -> usize {
    section.iter().position(|byte| *byte == b'\n').unwrap_or(section.len()).saturating_sub(1)
}

fn str_lines(section: &[u8]) -> Vec<&[u8]> {
    section.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let valid = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !blank(byte)).map_or(from, |at| at + 1);
    valid.then_some((name, &value[from..to]))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
