//! An HTTP/2 client, and the beginnings of a server, made of bare frames (RFC 9113 section 4.1): they send what libraries refuse to. Heads
//! are written without compression; of those that come back only the status is read.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wait::within;

/// The first bytes of every connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
pub(crate) const DATA: u8 = 0;
/// The head of a message, or its trailers.
pub(crate) const HEADERS: u8 = 1;
/// The end of one stream.
pub(crate) const RST_STREAM: u8 = 3;
/// Settings of one side.
pub(crate) const SETTINGS: u8 = 4;
/// A sign of life.
pub(crate) const PING: u8 = 6;
/// The end of the connection.
pub(crate) const GOAWAY: u8 = 7;
/// More of a head.
pub(crate) const CONTINUATION: u8 = 9;

/// No more of this message; of SETTINGS and PING: an answer.
pub(crate) const END_STREAM: u8 = 1;
/// No more of this head.
pub(crate) const END_HEADERS: u8 = 4;

/// Longest frame a test reads, in bytes: what a peer may send unless told otherwise.
const FRAME_MAX: usize = 16 * 1024;
/// Settings: no dynamic table for heads that come back, so that a status can be read on its own; no push.
const OWN_SETTINGS: [u8; 12] = [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];

/// A field of a head, as bytes.
pub(crate) type Pair<'a> = (&'a [u8], &'a [u8]);

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A whole response: its status and its body.
    Response(u16, Vec<u8>),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// `GOAWAY` with this code, and the end of the connection.
    Gone(u32),
    /// The end of the connection without a word.
    Closed,
}

/// A connection.
pub(crate) struct RawH2 {
    io: TcpStream,
    buffer: Vec<u8>,
    responses: BTreeMap<u32, (u16, Vec<u8>)>,
    ends: BTreeMap<u32, End>,
    gone: Option<End>,
    pongs: usize,
    /// Stream and code of every GOAWAY, in order.
    pub goaways: Vec<(u32, u32)>,
}

// === impl RawH2 ===

impl RawH2 {
    fn new(io: TcpStream) -> Self {
        let (responses, ends) = (BTreeMap::new(), BTreeMap::new());
        Self { io, buffer: Vec::new(), responses, ends, gone: None, pongs: 0, goaways: Vec::new() }
    }

    /// Connects and says hello, by prior knowledge.
    pub(crate) async fn connect(address: &str) -> Self {
        let io = TcpStream::connect(address).await.expect("a listener");
        io.set_nodelay(true).expect("a socket");
        let mut connection = Self::new(io);
        connection.send(PREFACE).await;
        connection.frame(SETTINGS, 0, 0, &OWN_SETTINGS).await;
        connection
    }

    /// The other side of it: a server that has read the hello of a client. `None` if that was none.
    pub(crate) async fn accept(io: TcpStream) -> Option<Self> {
        let mut connection = Self::new(io);
        connection.fill(PREFACE.len()).await?;
        let rest = connection.buffer.split_off(PREFACE.len());
        (std::mem::replace(&mut connection.buffer, rest) == PREFACE).then_some(())?;
        connection.frame(SETTINGS, 0, 0, &[]).await;
        Some(connection)
    }

    /// The stream of the next request; `None` at the end of the connection.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, payload) = self.next_frame().await?;
            match kind {
                HEADERS => return Some(stream),
                SETTINGS | PING if flags & END_STREAM == 0 => self.acknowledge(kind, payload).await,
                _ => {}
            }
        }
    }

    /// Writes bytes as they are. The peer may have closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).await;
    }

    /// Writes a frame.
    pub(crate) async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload)).await;
    }

    /// Writes a head in as many frames as it needs; `end` says that no body follows.
    pub(crate) async fn head(&mut self, stream: u32, fields: &[Pair<'_>], end: bool) {
        let block = block(fields);
        let (first, mut rest) = block.split_at(block.len().min(FRAME_MAX));
        let last = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        self.frame(HEADERS, last(rest) | if end { END_STREAM } else { 0 }, stream, first).await;
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(rest.len().min(FRAME_MAX));
            self.frame(CONTINUATION, last(rest), stream, part).await;
        }
    }

    /// Waits for the end of a stream, or of the connection.
    pub(crate) async fn end(&mut self, stream: u32) -> End {
        within("the end of a stream", async {
            loop {
                if let Some(end) = self.ends.remove(&stream) {
                    return end;
                }
                if let Some(gone) = &self.gone {
                    return gone.clone();
                }
                self.read_frame().await;
            }
        })
        .await
    }

    /// Whether a PING is answered: everything sent before it was read by then.
    pub(crate) async fn ping(&mut self) -> bool {
        let before = self.pongs;
        self.frame(PING, 0, 0, &[7; 8]).await;
        within("the answer to a PING", async {
            while self.pongs == before && self.gone.is_none() {
                self.read_frame().await;
            }
        })
        .await;
        self.gone.is_none()
    }

    async fn read_frame(&mut self) {
        let Some((kind, flags, stream, payload)) = self.next_frame().await else {
            self.gone.get_or_insert(End::Closed);
            return;
        };
        match kind {
            HEADERS => {
                assert!(flags & END_HEADERS != 0, "a head of a test's response fits one frame");
                // The second head of a stream is its trailers; an interim one gives way to the final one.
                let known = self.responses.get(&stream).is_some_and(|(status, _)| *status >= 200);
                if !known {
                    self.responses.insert(stream, (status(&payload), Vec::new()));
                }
            }
            DATA => self.responses.get_mut(&stream).expect("a head before its body").1.extend_from_slice(&payload),
            RST_STREAM => {
                self.ends.entry(stream).or_insert(End::Reset(number(&payload)));
            }
            GOAWAY => {
                let (last, code) = (number(&payload), number(&payload[4..]));
                self.goaways.push((last, code));
                if code != 0 {
                    self.gone.get_or_insert(End::Gone(code));
                }
            }
            PING if flags & END_STREAM != 0 => self.pongs += 1,
            SETTINGS | PING if flags & END_STREAM == 0 => self.acknowledge(kind, payload).await,
            _ => {}
        }
        if matches!(kind, HEADERS | DATA)
            && flags & END_STREAM != 0
            && let Some((status, body)) = self.responses.remove(&stream)
        {
            self.ends.insert(stream, End::Response(status, body));
        }
    }

    async fn acknowledge(&mut self, kind: u8, payload: Vec<u8>) {
        let answer = if kind == PING { payload } else { Vec::new() };
        self.frame(kind, END_STREAM, 0, &answer).await;
    }

    /// Type, flags, stream and payload; `None` at the end of the connection, however it comes.
    async fn next_frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        self.fill(9).await?;
        let length = usize::from(self.buffer[0]) << 16 | usize::from(self.buffer[1]) << 8 | usize::from(self.buffer[2]);
        assert!(length <= FRAME_MAX, "a frame of {length} bytes");
        self.fill(9 + length).await?;
        let rest = self.buffer.split_off(9 + length);
        let frame = std::mem::replace(&mut self.buffer, rest);
        Some((frame[3], frame[4], number(&frame[5..]) & 0x7fff_ffff, frame[9..].to_vec()))
    }

    async fn fill(&mut self, length: usize) -> Option<()> {
        while self.buffer.len() < length {
            match self.io.read_buf(&mut self.buffer).await {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
        Some(())
    }
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals that are neither indexed nor compressed (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[Pair<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_integer(&mut block, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer behind one bit (RFC 7541 section 5.1).
fn push_integer(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        return block.push(u8::try_from(value).expect("seven bits"));
    }
    block.push(127);
    let mut rest = value - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
}

/// The four bytes at the front as a number.
fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The status a header block begins with: from the static table, or as a literal with that name (RFC 7541 section 6).
fn status(block: &[u8]) -> u16 {
    // A dynamic table of no size comes first, once.
    let block = if block.first().is_some_and(|byte| byte & 0xe0 == 0x20) { &block[1..] } else { block };
    match *block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x48 | 0x08 | 0x18, length, ..] => digits(&block[2..], length & 0x80 != 0),
        _ => panic!("no status in front of {block:02x?}"),
    }
}

/// Three digits, plain or in the Huffman code (RFC 7541 appendix B: 0 to 2 have five bits, the others six).
fn digits(bytes: &[u8], huffman: bool) -> u16 {
    let plain = |bytes: &[u8]| bytes[..3].iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if !huffman {
        return plain(bytes);
    }
    let bits = u32::from_be_bytes([bytes[0], bytes[1], bytes.get(2).copied().unwrap_or(0xff), 0xff]);
    let (mut number, mut at) = (0, 0);
    for _ in 0..3 {
        let six = bits << at >> 26;
        let (digit, length) = if six >> 1 <= 2 { (six >> 1, 5) } else { (six - 0x19 + 3, 6) };
        number = number * 10 + u16::try_from(digit).expect("a digit");
        at += length;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_literals() {
        assert_eq!(block(&[(b"a", b"bc")]), [0, 1, b'a', 2, b'b', b'c']);
        let long = block(&[(b"a", &[b'x'; 300])]);
        assert_eq!(long[..5], [0, 1, b'a', 127, 0x80 + 45]);
        assert_eq!((long[5], long.len()), (1, 306));
        assert_eq!(frame(SETTINGS, 1, 3, b"x"), [0, 0, 1, 4, 1, 0, 0, 0, 3, b'x']);
    }

    #[test]
    fn statuses_are_read() {
        assert_eq!((status(&[0x88]), status(&[0x20, 0x8d])), (200, 404));
        assert_eq!(status(b"\x48\x03421"), 421);
        // In the Huffman code; the first is from RFC 7541 appendix C.6.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
        assert_eq!(status(&[0x08, 0x83, 0x68, 0x2c, 0xff]), 413);
        assert_eq!(status(&[0x18, 0x83, 0x69, 0x90, 0xff]), 431);
    }
}
