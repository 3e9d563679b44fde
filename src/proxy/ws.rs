//! Where WebSocket frames begin and end (RFC 6455 section 5.2), followed across reads of any size; and the Close frame of a drain. No I/O.

use std::fmt;

/// An endpoint or the proxy goes away (RFC 6455 section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// Longest payload of a control frame, in bytes (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: u8 = 125;
/// Longest reason of a Close frame, in bytes: what its code leaves of the payload.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX as usize - 2;
/// Longest Close frame, in bytes: two of head, four of mask, and the payload.
const CLOSE_FRAME_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX as usize;

/// Who sends the frames of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Masks every frame (RFC 6455 section 5.1).
    Client,
    /// Masks none.
    Server,
}

/// Follows the frames of one direction of a tunnel. It changes nothing and refuses nothing: bytes that are not WebSocket pass as well, and
/// only make it unknown where a frame ends.
#[derive(Clone, Copy, Debug)]
pub struct FrameTracker {
    sender: Sender,
    stage: Stage,
    /// A message has begun and its last fragment has not.
    in_message: bool,
    close_seen: bool,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first of a frame: FIN, opcode.
    First,
    /// The second: mask bit, length.
    Second { control: bool },
    /// One of `left` bytes of the long form of a length that is `value` so far; `least` is the smallest it may be.
    Length { left: u8, value: u64, least: u64 },
    /// One of `left` bytes of the mask, before `payload` bytes.
    Mask { left: u8, payload: u64 },
    /// One of so many bytes of payload, at least one.
    Payload(u64),
    /// Anything: this is not WebSocket.
    Broken,
}

/// A Close frame, ready to be sent.
#[derive(Clone, Copy)]
pub struct CloseFrame {
    bytes: [u8; CLOSE_FRAME_BYTES_MAX],
    length: usize,
}

/// A Close frame with `code` and as much of `reason` as fits ([`CLOSE_REASON_BYTES_MAX`], cut between characters). `code` is one that may be
/// sent: 1000 to 4999 without 1005, 1006 and 1015 (RFC 6455 section 7.4). `mask`: fresh random bytes towards a server, `None` towards a client.
#[must_use]
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> CloseFrame {
    let ends = reason.char_indices().map(|(start, character)| start + character.len_utf8());
    let reason = &reason.as_bytes()[..ends.take_while(|end| *end <= CLOSE_REASON_BYTES_MAX).last().unwrap_or(0)];
    let payload = code.to_be_bytes().into_iter().chain(reason.iter().copied());
    let mask_bit = if mask.is_some() { MASKED } else { 0 };
    let length = u8::try_from(2 + reason.len()).unwrap_or(CONTROL_BYTES_MAX);
    let head = [FIN | OPCODE_CLOSE, mask_bit | length];
    let key = mask.unwrap_or_default();
    let masked = payload.zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key);
    let mut frame = CloseFrame { bytes: [0; CLOSE_FRAME_BYTES_MAX], length: 0 };
    for byte in head.into_iter().chain(mask.into_iter().flatten()).chain(masked) {
        frame.bytes[frame.length] = byte;
        frame.length += 1;
    }
    frame
}

const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const OPCODE_CONTINUATION: u8 = 0x0;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;
const OPCODE_PING: u8 = 0x9;
const OPCODE_PONG: u8 = 0xa;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// The next two bytes are the length.
const LENGTH_16: u8 = 126;
/// The next eight bytes are the length.
const LENGTH_64: u8 = 127;

// === impl FrameTracker ===

impl FrameTracker {
    /// At the boundary before the first frame: right after the head of the request (client) or of the 101 response (server).
    #[must_use]
    pub const fn new(sender: Sender) -> Self {
        Self { sender, stage: Stage::First, in_message: false, close_seen: false }
    }

    /// Follows `bytes`, which were or will be forwarded.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_broken() {
            let step = self.step(bytes);
            bytes = &bytes[step..];
        }
    }

    /// Whether a frame may be put in here: no frame is under way. Fragments of a message do not matter, control frames may stand between
    /// them (RFC 6455 section 5.4).
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.stage == Stage::First
    }

    /// Whether a Close frame has begun: the sender ends the tunnel itself, and nothing may follow it.
    #[must_use]
    pub fn close_seen(&self) -> bool {
        self.close_seen
    }

    /// Whether this is not WebSocket as RFC 6455 has it: boundaries are unknown from here on. What is certain to mean that: a reserved
    /// opcode, a control frame that is long or fragmented, a mask on the wrong side, a length not in its shortest form, a fragment without
    /// a beginning or a beginning within a message, anything after Close. Reserved bits do not: extensions use them.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.stage == Stage::Broken
    }

    /// How many of `bytes`, which come next, belong to the frame under way: 0 at a boundary, all of them if it does not end in them or
    /// boundaries are unknown.
    #[must_use]
    pub fn split_at_boundary(&self, bytes: &[u8]) -> usize {
        let mut probe = *self;
        let mut split = 0;
        while split < bytes.len() && !probe.at_boundary() && !probe.is_broken() {
            split += probe.step(&bytes[split..]);
        }
        if probe.is_broken() { bytes.len() } else { split }
    }

    /// Follows one byte, or as much of the payload as is there; how many bytes that were. `bytes` is not empty.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if let Stage::Payload(left) = self.stage {
            let step = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.stage = Stage::payload(left - step as u64);
            return step;
        }
        self.stage = self.head_byte(bytes[0]).unwrap_or(Stage::Broken);
        1
    }

    /// The stage after `byte`, which is not payload; `None` if no WebSocket peer sends it here.
    fn head_byte(&mut self, byte: u8) -> Option<Stage> {
        match self.stage {
            Stage::First => self.first_byte(byte),
            Stage::Second { control } => self.second_byte(byte, control),
            Stage::Length { left, value, least } => {
                let value = value << 8 | u64::from(byte);
                match left - 1 {
                    // RFC 6455 section 5.2: the shortest form, and the most significant bit of the longest is 0.
                    0 if value < least || value > i64::MAX as u64 => None,
                    0 => Some(self.after_length(value)),
                    left => Some(Stage::Length { left, value, least }),
                }
            }
            Stage::Mask { left: 1, payload } => Some(Stage::payload(payload)),
            Stage::Mask { left, payload } => Some(Stage::Mask { left: left - 1, payload }),
            Stage::Payload(_) | Stage::Broken => None,
        }
    }

    fn first_byte(&mut self, byte: u8) -> Option<Stage> {
        if self.close_seen {
            return None;
        }
        let last = byte & FIN != 0;
        match byte & OPCODE {
            OPCODE_CONTINUATION if self.in_message => self.in_message = !last,
            OPCODE_TEXT | OPCODE_BINARY if !self.in_message => self.in_message = !last,
            OPCODE_CLOSE if last => self.close_seen = true,
            OPCODE_PING | OPCODE_PONG if last => {}
            _ => return None,
        }
        Some(Stage::Second { control: byte & OPCODE >= OPCODE_CLOSE })
    }

    fn second_byte(&self, byte: u8, control: bool) -> Option<Stage> {
        if (byte & MASKED != 0) != (self.sender == Sender::Client) {
            return None;
        }
        match byte & LENGTH {
            LENGTH_16 | LENGTH_64 if control => None,
            LENGTH_16 => Some(Stage::Length { left: 2, value: 0, least: u64::from(LENGTH_16) }),
            LENGTH_64 => Some(Stage::Length { left: 8, value: 0, least: 1 << 16 }),
            length => Some(self.after_length(u64::from(length))),
        }
    }

    fn after_length(&self, payload: u64) -> Stage {
        match self.sender {
            Sender::Client => Stage::Mask { left: 4, payload },
            Sender::Server => Stage::payload(payload),
        }
    }
}

// === impl Stage ===

impl Stage {
    const fn payload(left: u64) -> Self {
        if left == 0 { Self::First } else { Self::Payload(left) }
    }
}

// === impl CloseFrame ===

impl CloseFrame {
    /// The frame's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for CloseFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloseFrame").field(&self.as_bytes()).finish()
    }
}

#[cfg(test)]
mod tests;
