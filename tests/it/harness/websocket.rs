//! RFC 6455, just enough of it for both ends of a test: the handshake and frames.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::wire::{Fault, Wire};

/// Appended to the key before hashing (RFC 6455 section 4.2.2).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The key of the example in RFC 6455 section 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// Largest frame a test reads, in bytes.
const FRAME_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What clients mask their frames with; any four bytes do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Text frame.
pub(crate) const TEXT: u8 = 0x1;
/// Binary frame.
pub(crate) const BINARY: u8 = 0x2;
/// Close frame.
pub(crate) const CLOSE: u8 = 0x8;
/// Ping frame.
pub(crate) const PING: u8 = 0x9;
/// Pong frame.
pub(crate) const PONG: u8 = 0xA;

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The last of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Who sends a frame: clients mask theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Masked.
    Client,
    /// Not masked.
    Server,
}

// === impl Frame ===

impl Frame {
    /// A whole message.
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, opcode, payload: payload.into() }
    }

    /// The status of a close frame.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match (self.opcode, self.payload.as_slice()) {
            (CLOSE, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// The bytes on the wire.
    pub(crate) fn encode(&self, side: Side) -> Vec<u8> {
        let masked = if side == Side::Client { 0x80 } else { 0 };
        let mut bytes = vec![self.opcode | if self.fin { 0x80 } else { 0 }];
        match self.payload.len() {
            n @ 0..126 => bytes.push(masked | u8::try_from(n).expect("below 126")),
            n @ 126..=0xffff => {
                bytes.push(masked + 126);
                bytes.extend(u16::try_from(n).expect("fits").to_be_bytes());
            }
            n => {
                bytes.push(masked + 127);
                bytes.extend((n as u64).to_be_bytes());
            }
        }
        if side == Side::Client {
            bytes.extend(MASK);
            bytes.extend(unmask(self.payload.clone(), MASK));
        } else {
            bytes.extend_from_slice(&self.payload);
        }
        bytes
    }

    /// The next frame, which `side` sent; `None` if the stream ends before it.
    pub(crate) async fn read(wire: &mut Wire, side: Side) -> Result<Option<Self>, Fault> {
        let head = match wire.read_exact(2).await {
            Ok(head) => head,
            Err(Fault::Eof(_)) if wire.pending().is_empty() => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if head[0] & 0x70 != 0 || (head[1] & 0x80 != 0) != (side == Side::Client) {
            return Err(Fault::Malformed(format!("frame head {head:?} from the {side:?}")));
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(wire.read_exact(2).await?.try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(wire.read_exact(8).await?.try_into().expect("eight bytes")),
            n => u64::from(n),
        };
        if length > FRAME_BYTES_MAX {
            return Err(Fault::Malformed(format!("a frame of {length} bytes")));
        }
        let mask =
            if side == Side::Client { wire.read_exact(4).await?.try_into().expect("four bytes") } else { [0; 4] };
        let payload = wire.read_exact(usize::try_from(length).expect("bounded above")).await?;
        Ok(Some(Self { fin: head[0] & 0x80 != 0, opcode: head[0] & 0x0f, payload: unmask(payload, mask) }))
    }
}

/// `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept_of(key: &str) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()).as_ref())
}

fn unmask(mut payload: Vec<u8>, mask: [u8; 4]) -> Vec<u8> {
    if mask != [0; 4] {
        for (byte, mask) in payload.iter_mut().zip(mask.into_iter().cycle()) {
            *byte ^= mask;
        }
    }
    payload
}

/// RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for sextet in 0..4 {
            let symbol = ALPHABET[(bits >> (18 - 6 * sextet)) as usize & 63];
            text.push(if sextet <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_section_1_3() {
        assert_eq!(accept_of(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_of_rfc_4648_section_10() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn frames_of_rfc_6455_section_5_7() {
        let hello = Frame::new(TEXT, "Hello");
        assert_eq!(hello.encode(Side::Server), [0x81, 5, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(hello.encode(Side::Client), [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(Frame::new(BINARY, vec![0; 256]).encode(Side::Server)[..4], [0x82, 126, 1, 0]);
        assert_eq!(Frame::new(BINARY, vec![0; 65536]).encode(Side::Server)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Frame::new(CLOSE, vec![3, 233]).close_code(), Some(1001));
    }
}
