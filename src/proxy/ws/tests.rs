//! The examples of RFC 6455, what is not WebSocket, and any stream of frames split anywhere.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A frame as a sender writes it.
fn frame(sender: Sender, first: u8, payload: usize) -> Vec<u8> {
    let mask_bit = if sender == Sender::Client { MASKED } else { 0 };
    let mut bytes = vec![first];
    match payload {
        0..=125 => bytes.push(mask_bit | u8::try_from(payload).unwrap()),
        126..=0xffff => {
            bytes.push(mask_bit | LENGTH_16);
            bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | LENGTH_64);
            bytes.extend((payload as u64).to_be_bytes());
        }
    }
    if sender == Sender::Client {
        bytes.extend([0x37, 0xfa, 0x21, 0x3d]);
    }
    // Payload that looks like Close frames, were it read as one.
    bytes.extend(std::iter::repeat_n(0x88, payload));
    bytes
}

fn tracked(sender: Sender, bytes: &[u8]) -> FrameTracker {
    let mut tracker = FrameTracker::new(sender);
    tracker.advance(bytes);
    tracker
}

#[test]
fn the_examples_of_rfc_6455_section_5_7() {
    let hello_unmasked = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let hello_masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    let pong_masked = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let of_256 = [&[0x82, 0x7e, 0x01, 0x00][..], &[0; 256]].concat();
    let of_64_ki = [&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![0; 65536]].concat();
    let server: [&[u8]; 5] = [&hello_unmasked, &fragments, &ping, &of_256, &of_64_ki];
    let client: [&[u8]; 2] = [&hello_masked, &pong_masked];
    let cases = server.map(|bytes| (Sender::Server, bytes)).into_iter().chain(client.map(|b| (Sender::Client, b)));
    for (sender, bytes) in cases {
        let tracker = tracked(sender, bytes);
        assert!(tracker.at_boundary() && !tracker.close_seen() && !tracker.is_broken(), "{sender:?} {tracker:?}");
        assert!(!tracked(sender, &bytes[..bytes.len() - 1]).at_boundary());
    }
}

#[test]
fn a_control_frame_fits_between_fragments_and_its_boundary_counts() {
    let mut tracker = FrameTracker::new(Sender::Server);
    for part in [frame(Sender::Server, 0x01, 3), frame(Sender::Server, 0x89, 1), frame(Sender::Server, 0x00, 0)] {
        tracker.advance(&part);
        assert!(tracker.at_boundary());
    }
    tracker.advance(&frame(Sender::Server, 0x80, 1));
    tracker.advance(&frame(Sender::Server, 0x82, 1));
    assert!(tracker.at_boundary() && !tracker.is_broken());
}

#[test]
fn compressed_messages_use_a_reserved_bit() {
    // RFC 7692: RSV1 on the first frame of a message.
    assert!(tracked(Sender::Client, &frame(Sender::Client, 0xc1, 10)).at_boundary());
}

#[test]
fn a_close_is_seen_from_its_first_byte_and_nothing_may_follow_it() {
    let close = frame(Sender::Server, 0x88, 2);
    for end in 1..=close.len() {
        let tracker = tracked(Sender::Server, &close[..end]);
        assert!(tracker.close_seen() && !tracker.is_broken());
        assert_eq!(tracker.at_boundary(), end == close.len());
    }
    let mut tracker = tracked(Sender::Server, &close);
    tracker.advance(&frame(Sender::Server, 0x81, 1));
    assert!(tracker.is_broken() && tracker.close_seen());
}

#[test]
fn what_is_not_websocket_is_broken_for_good() {
    let cases: [(&str, Sender, &[u8]); 13] = [
        ("reserved data opcode", Sender::Server, &[0x83]),
        ("reserved control opcode", Sender::Server, &[0x8b]),
        ("fragmented control frame", Sender::Server, &[0x09]),
        ("fragmented close", Sender::Server, &[0x08]),
        ("long control frame", Sender::Server, &[0x89, 126]),
        ("longer control frame", Sender::Client, &[0x88, 0xff]),
        ("masked by the server", Sender::Server, &[0x81, 0x85]),
        ("not masked by the client", Sender::Client, &[0x81, 0x05]),
        ("16 bits for 125", Sender::Server, &[0x82, 126, 0, 125]),
        ("64 bits for 65535", Sender::Server, &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("64 bits with the highest set", Sender::Client, &[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0]),
        ("a fragment of nothing", Sender::Server, &[0x80]),
        ("a message within a message", Sender::Server, &[0x01, 0x00, 0x81]),
    ];
    for (name, sender, bytes) in cases {
        let before = tracked(sender, &bytes[..bytes.len() - 1]);
        assert!(!before.is_broken(), "{name}: too early");
        let mut tracker = tracked(sender, bytes);
        assert!(tracker.is_broken() && !tracker.at_boundary(), "{name}");
        tracker.advance(&frame(sender, 0x81, 3));
        assert!(tracker.is_broken() && !tracker.at_boundary(), "{name}: came back");
        assert_eq!(tracker.split_at_boundary(&[0x81, 0]), 2);
        // Not known to be broken yet: it all belongs to the frame under way.
        if !before.at_boundary() {
            let rest = [&bytes[bytes.len() - 1..], &frame(sender, 0x81, 3)].concat();
            assert_eq!(before.split_at_boundary(&rest), rest.len(), "{name}");
        }
    }
}

#[test]
fn the_largest_length_does_not_overflow() {
    let mut tracker = tracked(Sender::Server, &[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    tracker.advance(&[0; 1000]);
    assert!(!tracker.at_boundary() && !tracker.is_broken());
}

#[test]
fn close_frames_on_the_wire() {
    assert_eq!(close_frame(GOING_AWAY, "bye", None).as_bytes(), [0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
    let masked = close_frame(GOING_AWAY, "", Some([1, 2, 3, 4]));
    assert_eq!(masked.as_bytes(), [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
    let masked = close_frame(GOING_AWAY, "abc", Some([1, 2, 3, 4]));
    assert_eq!(masked.as_bytes()[6..], [0x03 ^ 1, 0xe9 ^ 2, b'a' ^ 3, b'b' ^ 4, b'c' ^ 1]);
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "é".repeat(100);
    let frame = close_frame(1000, &reason, Some([0; 4]));
    assert_eq!(frame.as_bytes().len(), 2 + 4 + 2 + 122);
    assert!(std::str::from_utf8(&frame.as_bytes()[8..]).is_ok());
    assert_eq!(close_frame(1000, &"x".repeat(200), Some([0; 4])).as_bytes().len(), CLOSE_FRAME_BYTES_MAX);
}

/// A valid stream of one direction, and the offsets at which frames end.
fn streams() -> impl Strategy<Value = (Sender, Vec<u8>, BTreeSet<usize>)> {
    let length = prop_oneof![
        4 => 0_usize..140,
        1 => Just(125_usize),
        1 => 126_usize..400,
        1 => Just(0xffff_usize),
        1 => Just(0x1_0000_usize),
    ];
    let sender = prop_oneof![Just(Sender::Client), Just(Sender::Server)];
    let frames = prop::collection::vec((any::<bool>(), 0_u8..4, length), 0..12);
    (sender, frames, any::<bool>()).prop_map(|(sender, frames, close)| {
        let (mut bytes, mut boundaries, mut in_message) = (Vec::new(), BTreeSet::from([0]), false);
        for (last, kind, payload) in frames {
            let fin = if last { FIN } else { 0 };
            let (first, payload) = match kind {
                0 => (FIN | OPCODE_PING, payload.min(usize::from(CONTROL_BYTES_MAX))),
                1 => (FIN | OPCODE_PONG, payload.min(usize::from(CONTROL_BYTES_MAX))),
                _ if in_message => (fin | OPCODE_CONTINUATION, payload),
                2 => (fin | OPCODE_TEXT, payload),
                _ => (fin | OPCODE_BINARY, payload),
            };
            if kind > 1 {
                in_message = !last;
            }
            bytes.extend(frame(sender, first, payload));
            boundaries.insert(bytes.len());
        }
        if close {
            bytes.extend(frame(sender, FIN | OPCODE_CLOSE, 2));
            boundaries.insert(bytes.len());
        }
        (sender, bytes, boundaries)
    })
}

proptest! {
    #[test]
    fn boundaries_are_the_same_however_the_stream_is_split(
        (sender, bytes, boundaries) in streams(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        // Anywhere, and close to where frames begin and end.
        let near = boundaries.iter().flat_map(|end| end.saturating_sub(1)..=(end + 15).min(bytes.len()));
        let cuts: BTreeSet<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain(near).chain([bytes.len()]).collect();
        let (mut tracker, mut at) = (FrameTracker::new(sender), 0);
        for cut in cuts {
            tracker.advance(&bytes[at..cut]);
            at = cut;
            prop_assert!(!tracker.is_broken());
            prop_assert_eq!(tracker.at_boundary(), boundaries.contains(&at), "at {}", at);
            let next = boundaries.range(at..).next().copied().unwrap_or(bytes.len());
            prop_assert_eq!(tracker.split_at_boundary(&bytes[at..]), next - at, "from {}", at);
        }
    }

    #[test]
    fn a_close_injected_where_the_frame_under_way_ends_leaves_a_valid_stream(
        (sender, bytes, _) in streams(),
        cut in any::<prop::sample::Index>(),
        mask in any::<[u8; 4]>(),
    ) {
        let (before, after) = bytes.split_at(cut.index(bytes.len() + 1));
        let mut tracker = tracked(sender, before);
        let rest = tracker.split_at_boundary(after);
        tracker.advance(&after[..rest]);
        prop_assert!(tracker.at_boundary());
        prop_assume!(!tracker.close_seen());
        let close = close_frame(GOING_AWAY, "drained", (sender == Sender::Client).then_some(mask));
        tracker.advance(close.as_bytes());
        prop_assert!(tracker.at_boundary() && tracker.close_seen() && !tracker.is_broken());
    }

    #[test]
    fn any_bytes_mean_the_same_in_one_piece_and_byte_by_byte(
        client in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let sender = if client { Sender::Client } else { Sender::Server };
        let (whole, mut single) = (tracked(sender, &bytes), FrameTracker::new(sender));
        for byte in &bytes {
            single.advance(std::slice::from_ref(byte));
        }
        prop_assert_eq!(
            (whole.at_boundary(), whole.is_broken(), whole.close_seen()),
            (single.at_boundary(), single.is_broken(), single.close_seen())
        );
        prop_assert!(FrameTracker::new(sender).split_at_boundary(&bytes) == 0);
    }
}
