//! The WebSocket frame tracker beside a reference that reads all frames from the beginning (RFC 6455 section 5.2).

use tidegate::proxy::ws::{CLOSE_REASON_BYTES_MAX, FrameTracker, GOING_AWAY, Sender, close_frame};

use super::random::{cuts, random_of};

/// What is known after some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    broken: bool,
    boundary: bool,
    close: bool,
}

/// Checks one direction of a tunnel; the first byte says which.
///
/// # Panics
/// Tracker and reference disagree, or a split changes what is known.
pub fn check(input: &[u8]) {
    let Some((first, raw)) = input.split_first() else { return };
    let sender = if first & 1 == 0 { Sender::Client } else { Sender::Server };
    let mut random = random_of(input);
    for cuts in cuts(raw, &mut random).into_iter().chain([Vec::new()]) {
        let mut tracker = FrameTracker::new(sender);
        let mut at = 0;
        for cut in cuts.into_iter().chain([raw.len()]) {
            let (before, piece) = (tracker, &raw[at..cut]);
            tracker.advance(piece);
            at = cut;
            if cut < raw.len() && cut % 17 != 0 {
                continue;
            }
            let expected = reference(&raw[..cut], sender);
            let found =
                Known { broken: tracker.is_broken(), boundary: tracker.at_boundary(), close: tracker.close_seen() };
            assert_eq!(found, expected, "after {cut} bytes");
            split(before, piece);
        }
        inject(tracker, sender);
    }
}

/// Where a frame may be put into `piece`, a boundary is, and none before.
fn split(before: FrameTracker, piece: &[u8]) {
    let at = before.split_at_boundary(piece);
    let mut there = before;
    there.advance(&piece[..at]);
    assert!(at == piece.len() || there.at_boundary(), "no boundary {at} bytes on");
    for earlier in 0..at {
        let mut probe = before;
        probe.advance(&piece[..earlier]);
        assert!(!probe.at_boundary() || probe.is_broken() || there.is_broken(), "a boundary {earlier} bytes on");
    }
}

/// A Close frame at a boundary is a Close frame to the peer.
fn inject(tracker: FrameTracker, sender: Sender) {
    if !tracker.at_boundary() || tracker.close_seen() {
        return;
    }
    let mask = (sender == Sender::Client).then_some([1, 2, 3, 4]);
    let mut after = tracker;
    after.advance(close_frame(GOING_AWAY, &"x".repeat(CLOSE_REASON_BYTES_MAX + 1), mask).as_bytes());
    assert!(after.at_boundary() && after.close_seen() && !after.is_broken());
}

fn reference(raw: &[u8], sender: Sender) -> Known {
    let mut rest = raw;
    let (mut fragments, mut close) = (false, false);
    let broken = |close| Known { broken: true, boundary: false, close };
    loop {
        let Some((first, after)) = rest.split_first() else {
            return Known { broken: false, boundary: true, close };
        };
        let (last, opcode) = (first >> 7 == 1, first & 15);
        let valid = match opcode {
            0 => fragments,
            1 | 2 => !fragments,
            8..=10 => last,
            _ => false,
        };
        if close || !valid {
            return broken(close);
        }
        if opcode < 8 {
            fragments = !last;
        }
        close = opcode == 8;
        let within = Known { broken: false, boundary: false, close };
        let Some((second, after)) = after.split_first() else { return within };
        if (second >> 7 == 1) != (sender == Sender::Client) {
            return broken(close);
        }
        let (size, least) = match second & 127 {
            126 | 127 if opcode >= 8 => return broken(close),
            126 => (2, 126),
            127 => (8, 65_536),
            _ => (0, 0),
        };
        let Some((long, after)) = after.split_at_checked(size) else { return within };
        let length = match size {
            0 => u64::from(second & 127),
            _ => long.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length < least || length >> 63 == 1 {
            return broken(close);
        }
        let mask = if sender == Sender::Client { 4 } else { 0 };
        let Some(after) = after.get(mask..) else { return within };
        match usize::try_from(length).ok().and_then(|length| after.get(length..)) {
            Some(after) => rest = after,
            None => return within,
        }
    }
}
