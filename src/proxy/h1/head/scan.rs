//! Finding the end of a head in what has arrived so far. Every byte is looked at once however the head is split, and what may never
//! stand in a head (bare CR or LF, controls) is refused as soon as it is there.

use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::{BadResponse, HeadLimits, RESPONSE_HEAD_MAX, Refusal};

/// Bytes of a head that are checked at once.
const CLEAN_STEP: usize = 16;

/// How far one head has been looked at; a new one for each head.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScanState {
    /// Bytes that were there at the last call.
    seen: usize,
    /// Bytes known to be clean together with the byte after them.
    clean: usize,
    /// Where the first line begins: after the one empty line tolerated.
    start: usize,
    /// Whether the first line is complete and not too long.
    line: bool,
    /// Whether the one empty line tolerated in front is gone already.
    emptied: bool,
}

/// Bounds of a scan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanLimits {
    /// Most bytes, the empty line at the end included.
    pub(crate) total: usize,
    /// Longest first line.
    pub(crate) line: usize,
    /// Whether an empty line in front is skipped (RFC 9112 section 2.2).
    pub(crate) skip_empty: bool,
}

// === impl ScanState ===

impl ScanState {
    /// For a head whose one empty line in front was thrown away before it began: no other is tolerated, however they arrived.
    #[must_use]
    pub fn after_empty_line() -> Self {
        Self { emptied: true, ..Self::default() }
    }
}

/// Finds the end of the last line and the empty line after it; prepared once, since that costs more than most searches.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Looks for the end of the request head `buf` begins with: `Some(length)` once it is complete, `None` while more is needed. `buf` holds all
/// bytes received since the head began, at each call more of them.
///
/// # Errors
/// 400 for a bare CR or LF, a control, a second empty line in front; 414 for a request line over `max_line`; 431 for a head over `max_head`.
pub fn scan_head(buf: &[u8], state: &mut ScanState, limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
    scan_section(buf, state, ScanLimits { total: limits.max_head, line: limits.max_line, skip_empty: true })
}

/// The same for a response head, of at most [`RESPONSE_HEAD_MAX`].
///
/// # Errors
/// What is wrong with the response.
pub fn scan_response_head(buf: &[u8], state: &mut ScanState) -> Result<Option<usize>, BadResponse> {
    let limits = ScanLimits { total: RESPONSE_HEAD_MAX, line: RESPONSE_HEAD_MAX, skip_empty: false };
    scan_section(buf, state, limits).map_err(BadResponse::from)
}

/// Looks for the empty line that ends a first line and fields.
pub(crate) fn scan_section(buf: &[u8], state: &mut ScanState, limits: ScanLimits) -> Result<Option<usize>, Refusal> {
    let skip_empty = limits.skip_empty && state.start == 0 && !state.emptied;
    if skip_empty && buf.starts_with(b"\r\n") {
        state.start = 2;
        state.clean = 2;
    }
    match &buf[state.start..] {
        [] => return Ok(None),
        [b'\r'] if skip_empty && state.start == 0 => return Ok(None),
        [b'\r' | b'\n', ..] => return Err(Refusal::bad("an empty line or a bare CR or LF in front of the first line")),
        _ => {}
    }
    // The line after the next to the last byte seen may end with the bytes that came now.
    let from = state.seen.saturating_sub(3).max(state.start);
    let end = END.find(&buf[from..]).map(|at| from + at + 4);
    let head = &buf[..end.unwrap_or(buf.len())];
    if !state.line {
        state.line = first_line(&head[state.start..], state.seen.saturating_sub(state.start), limits.line)?;
    }
    if !is_clean(&head[state.clean..]) {
        return Err(fault(&head[state.clean..]));
    }
    if head.len() > limits.total {
        return Err(Refusal::new(431, "the head is too large"));
    }
    state.clean = head.len() - 1;
    state.seen = head.len();
    Ok(end)
}

/// Whether the first line of `head` is complete; its first `seen` bytes hold no end of line.
fn first_line(head: &[u8], seen: usize, longest: usize) -> Result<bool, Refusal> {
    let end = memchr(b'\n', &head[seen.min(head.len())..]);
    // An end not yet there may be one CR away.
    let length = end.map_or(head.len().saturating_sub(1), |at| (seen + at).saturating_sub(1));
    if length > longest {
        return Err(Refusal::new(414, "the request line is too long"));
    }
    Ok(end.is_some())
}

/// Whether no control other than tabs and CR LF pairs is in `bytes`; a CR in the end may wait for its LF, an LF in the beginning had its CR.
fn is_clean(bytes: &[u8]) -> bool {
    let Some((last, rest)) = bytes.split_last() else { return true };
    let next = &bytes[1..];
    let (pieces, _) = rest.as_chunks::<CLEAN_STEP>();
    let (nexts, _) = next.as_chunks::<CLEAN_STEP>();
    // A byte for each place in a piece, put together once at the end: the compiler keeps them in one vector.
    let mut dirty = [0; CLEAN_STEP];
    for (piece, next) in pieces.iter().zip(nexts) {
        add_dirt(&mut dirty, piece, next);
    }
    // The bytes that fill no piece: looked at with some of those before them once more.
    match (rest.last_chunk::<CLEAN_STEP>(), next.last_chunk::<CLEAN_STEP>()) {
        (Some(piece), Some(next)) => add_dirt(&mut dirty, piece, next),
        _ => dirty[0] |= rest.iter().zip(next).fold(0, |dirty, (&byte, &next)| dirty | dirt(byte, next)),
    }
    dirty.iter().fold(0, |all, dirty| all | dirty) == 0 && !is_control(*last)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "otherwise the pieces are in memory between two calls")]
fn add_dirt(dirty: &mut [u8; CLEAN_STEP], piece: &[u8; CLEAN_STEP], next: &[u8; CLEAN_STEP]) {
    for at in 0..CLEAN_STEP {
        dirty[at] |= dirt(piece[at], next[at]);
    }
}

/// Not zero for a control, and for a CR or LF without the other; `next` is the byte behind.
#[inline(always)]
#[expect(clippy::needless_bitwise_bool, reason = "without branches the compiler makes vector instructions of it")]
#[expect(clippy::inline_always, reason = "a call per byte otherwise")]
fn dirt(byte: u8, next: u8) -> u8 {
    let control = (byte < 0x20) & (byte != b'\t') & (byte != b'\r') & (byte != b'\n');
    let unpaired = (byte == b'\r') != (next == b'\n');
    u8::from(control | (byte == 0x7f) | unpaired)
}

fn is_control(byte: u8) -> bool {
    byte == 0x7f || (byte < 0x20 && !matches!(byte, b'\t' | b'\r' | b'\n'))
}

/// What makes `bytes` not clean.
#[cold]
fn fault(bytes: &[u8]) -> Refusal {
    for pair in bytes.windows(2) {
        match pair {
            [b'\r', next] if *next != b'\n' => return Refusal::bad("a CR without LF behind it"),
            [before, b'\n'] if *before != b'\r' => return Refusal::bad("an LF without CR in front of it"),
            [byte, _] if is_control(*byte) => break,
            _ => {}
        }
    }
    Refusal::bad("a control character")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{Limits, Underscores};

    /// Scanning byte by byte looks at every byte once: a head that drips costs no more than one that does not.
    #[test]
    fn dripping_is_linear() {
        let mut raw = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        raw.resize(32 * 1024 - 2, b'a');
        let limits = HeadLimits::new(&Limits::default(), Underscores::Drop);
        let mut state = ScanState::default();
        for length in 1..raw.len() {
            assert_eq!(scan_head(&raw[..length], &mut state, &limits), Ok(None));
            assert!(length - state.clean <= 1 && state.seen == length);
        }
    }
}
