//! What passes on a client's connection, counted by the heads of frames: what comes in beside requests, and what is refused.

use std::io::IoSlice;
use std::rc::Rc;

use crate::proxy::worker::Worker;

/// The first bytes of a client's connection, in front of its first frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// The head of a frame, in bytes (RFC 9113 section 4.1).
const HEAD: usize = 9;
/// The head and what is read of a payload: the stream and the code of GOAWAY.
const KEPT: usize = HEAD + 8;
/// Types of frames, and their flag ACK (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
/// What GOAWAY names while every stream may still be served (RFC 9113 section 6.8).
const EVERY_STREAM: u32 = 0x7fff_ffff;

/// What came and went since the connection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `RST_STREAM` frames that came.
    pub resets: u64,
    /// Frames that came and are about no request: PING, SETTINGS, PRIORITY, types nobody knows. Answers to our own do not count.
    pub signals: u64,
    /// Bytes that went.
    pub sent: u64,
}

/// The counts of one connection, and where its refusals are counted.
pub struct Tally {
    worker: Rc<Worker>,
    incoming: Heads,
    outgoing: Heads,
    seen: Seen,
}

/// Finds the heads of frames in bytes, however they are cut.
#[derive(Debug)]
struct Heads {
    frame: [u8; KEPT],
    have: usize,
    /// Bytes until the next head.
    skip: usize,
}

/// The head of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    /// The first eight bytes of GOAWAY, four of `RST_STREAM`.
    payload: [u32; 2],
}

// === impl Tally ===

impl Tally {
    /// That of a client's connection, nothing of which was read or written.
    #[must_use]
    pub fn new(worker: Rc<Worker>) -> Self {
        Self { worker, incoming: Heads::after(PREFACE), outgoing: Heads::after(0), seen: Seen::default() }
    }

    /// What was counted.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Counts what was read.
    pub fn read(&mut self, bytes: &[u8]) {
        let seen = &mut self.seen;
        self.incoming.feed(bytes, |frame| match frame.kind {
            DATA | HEADERS | WINDOW_UPDATE | CONTINUATION => {}
            RST_STREAM => seen.resets += 1,
            PING | SETTINGS if frame.flags & ACK != 0 => {}
            _ => seen.signals += 1,
        });
    }

    /// Counts the first `written` bytes of `slices`.
    pub fn wrote(&mut self, slices: &[IoSlice<'_>], written: usize) {
        self.seen.sent += written as u64;
        let shard = self.worker.shard();
        let mut left = written;
        for slice in slices {
            let bytes = &slice[..left.min(slice.len())];
            left -= bytes.len();
            self.outgoing.feed(bytes, |frame| match frame {
                Frame { kind: RST_STREAM, payload: [code, _], .. } => shard.http2_resets.of(code).add(1),
                // The first of two steps is no end yet.
                Frame { kind: GOAWAY, payload: [EVERY_STREAM, _], .. } => {}
                Frame { kind: GOAWAY, payload: [_, code], .. } => shard.http2_goaways.of(code).add(1),
                _ => {}
            });
        }
    }
}

// === impl Heads ===

impl Heads {
    fn after(skip: usize) -> Self {
        Self { frame: [0; KEPT], have: 0, skip }
    }

    fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let n = (self.wanted() - self.have).min(bytes.len());
            self.frame[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == self.wanted() {
                self.skip = HEAD + self.length() - self.have;
                self.have = 0;
                found(self.found());
            }
        }
    }

    /// Bytes of the frame in hand that are looked at.
    fn wanted(&self) -> usize {
        if self.have < HEAD {
            return HEAD;
        }
        let payload = match self.frame[3] {
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => 0,
        };
        HEAD + self.length().min(payload)
    }

    /// Bytes of its payload.
    fn length(&self) -> usize {
        let [a, b, c, ..] = self.frame;
        usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
    }

    fn found(&self) -> Frame {
        let number = |at: usize| self.frame[at..at + 4].iter().fold(0, |number, &byte| number << 8 | u32::from(byte));
        Frame { kind: self.frame[3], flags: self.frame[4], payload: [number(HEAD), number(HEAD + 4)] }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn codes_are_read_and_payload_is_no_head() {
        let bytes = [
            vec![0; PREFACE],
            frame(PING, 0, &[GOAWAY; 8]),
            frame(RST_STREAM, 0, &8_u32.to_be_bytes()),
            frame(GOAWAY, 0, b"\x7f\xff\xff\xff\0\0\0\x0bmore"),
            frame(SETTINGS, ACK, &[]),
            // Shorter than they may be.
            frame(RST_STREAM, 0, b""),
            frame(DATA, 0, &[PING; 300]),
        ]
        .concat();
        let mut found = Vec::new();
        Heads::after(PREFACE).feed(&bytes, |frame| found.push(frame));
        let kinds: Vec<_> = found.iter().map(|frame| (frame.kind, frame.flags)).collect();
        assert_eq!(kinds, [(PING, 0), (RST_STREAM, 0), (GOAWAY, 0), (SETTINGS, ACK), (RST_STREAM, 0), (DATA, 0)]);
        assert_eq!((found[1].payload[0], found[2].payload), (8, [EVERY_STREAM, 11]));
    }

    proptest! {
        #[test]
        fn it_is_all_one_how_bytes_are_cut(
            frames in prop::collection::vec((0_u8..12, 0_u8..2, 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..30, 1..10),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, &vec![7; length])).collect();
            let (mut heads, mut found, mut rest) = (Heads::after(0), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at(rest.len().min(*cut));
                heads.feed(piece, |frame| found.push((frame.kind, frame.flags)));
                rest = more;
            }
            let sent: Vec<_> = frames.iter().map(|&(kind, flags, _)| (kind, flags)).collect();
            prop_assert_eq!(found, sent);
        }
    }
}
