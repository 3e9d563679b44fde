//! An HTTP/2 upstream frame by frame, for what no server library would do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::wait::within;

/// Types of frames (RFC 9113 section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where connections are accepted.
pub(crate) struct FrameServer {
    listener: TcpListener,
    address: SocketAddr,
}

/// One connection.
pub(crate) struct Frames {
    io: TcpStream,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

// === impl FrameServer ===

impl FrameServer {
    /// Starts on a free port of the loopback.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        Self { listener, address }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next connection, prefaces exchanged.
    pub(crate) async fn accept(&self) -> Frames {
        self.accept_with(&[]).await
    }

    /// The same with settings as their payload has them.
    pub(crate) async fn accept_with(&self, settings: &[u8]) -> Frames {
        let mut frames = Frames { io: self.accept_raw().await };
        let mut preface = [0; PREFACE.len()];
        within("a preface", frames.io.read_exact(&mut preface)).await.expect("a preface");
        assert_eq!(&preface, PREFACE);
        frames.send(SETTINGS, 0, 0, settings).await;
        frames
    }

    /// The next connection on which anything comes, as it comes.
    pub(crate) async fn accept_raw(&self) -> TcpStream {
        within("a connection", async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                if super::speaks(&stream).await {
                    return stream;
                }
            }
        })
        .await
    }
}

// === impl Frames ===

impl Frames {
    /// Writes one frame; the peer may be gone.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_many(1, kind, flags, stream, payload).await;
    }

    /// Writes one frame `count` times.
    pub(crate) async fn send_many(&mut self, count: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.io.write_all(&frame.repeat(count)).await;
    }

    /// The next frame of the type `kind`; SETTINGS on the way are acknowledged, everything else is skipped. `None` at the end.
    pub(crate) async fn next(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = within("a frame", self.read()).await?;
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Reads on until `count` requests came whole; their streams.
    pub(crate) async fn requests(&mut self, count: usize) -> Vec<u32> {
        let mut streams = Vec::new();
        while streams.len() < count {
            let frame = within("a frame", self.read()).await.expect("a frame before the end");
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                HEADERS | DATA if frame.flags & END_STREAM != 0 => streams.push(frame.stream),
                _ => {}
            }
        }
        streams
    }

    /// Answers 200 with `body` on `stream`.
    pub(crate) async fn answer(&mut self, stream: u32, body: &[u8]) {
        self.send(HEADERS, END_HEADERS, stream, &block(&[(":status", "200")])).await;
        self.send(DATA, END_STREAM, stream, body).await;
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }
}

/// Fields as a header block of literals (RFC 7541 section 6.2.2), whatever is in them.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    block
}
