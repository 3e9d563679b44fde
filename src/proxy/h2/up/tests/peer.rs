//! The other side of a session: a server that can fall silent, and one of bare frames.

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::soon;

/// Requests a test leaves waiting at most.
const REQUESTS_MAX: usize = 16;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request and where its answer goes.
pub(super) type Request = (http::Request<RecvStream>, SendResponse<Bytes>);

/// A server that answers PINGs and passes requests on.
pub(super) struct Server {
    requests: mpsc::Receiver<Request>,
    silence: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// A server of frames.
pub(super) struct Frames {
    io: TcpStream,
}

/// Type, flags, stream and payload.
pub(super) type Frame = (u8, u8, u32, Vec<u8>);

// === impl Server ===

impl Server {
    /// Shakes hands on `stream`.
    pub(super) async fn start(stream: TcpStream) -> Self {
        let mut connection = soon(h2::server::handshake(stream)).await.unwrap();
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (silence, mut silenced) = oneshot::channel();
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    accepted = connection.accept() => {
                        let Some(Ok(request)) = accepted else { return };
                        sender.try_send(request).expect("room for it");
                    }
                    // The connection stays open, and nobody looks at it.
                    Ok(()) = &mut silenced => std::future::pending().await,
                }
            }
        });
        Self { requests, silence: Some(silence), task }
    }

    /// The next request.
    pub(super) async fn request(&mut self) -> Request {
        soon(self.requests.recv()).await.expect("a request before the end")
    }

    /// Reads and writes nothing any more.
    pub(super) fn silence(&mut self) {
        self.silence.take().expect("it speaks").send(()).expect("it lives");
    }

    /// Returns once the connection is closed.
    pub(super) async fn closed(self) {
        soon(self.task).await.unwrap();
    }
}

// === impl Frames ===

impl Frames {
    /// Exchanges prefaces on `io`.
    pub(super) async fn start(mut io: TcpStream) -> Self {
        let mut preface = [0; PREFACE.len()];
        soon(io.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut frames = Self { io };
        frames.send((SETTINGS, 0, 0, Vec::new())).await;
        frames
    }

    pub(super) async fn send(&mut self, (kind, flags, stream, payload): Frame) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), &payload].concat();
        self.io.write_all(&frame).await.unwrap();
    }

    /// The next frame but `SETTINGS` and `WINDOW_UPDATE`.
    pub(super) async fn next(&mut self) -> Frame {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.io.read_exact(&mut payload).await.unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.send((SETTINGS, ACK, 0, Vec::new())).await,
                SETTINGS | WINDOW_UPDATE => {}
                _ => return (kind, flags, u32::from_be_bytes(stream), payload),
            }
        }
    }

    /// The stream of the next request.
    pub(super) async fn request(&mut self) -> u32 {
        let (kind, _, stream, _) = soon(self.next()).await;
        assert_eq!(kind, HEADERS);
        stream
    }

    /// Waits for a PING and answers it.
    pub(super) async fn pong(&mut self) {
        let (kind, flags, stream, payload) = soon(self.next()).await;
        assert_eq!((kind, flags), (PING, 0));
        self.send((PING, ACK, stream, payload)).await;
    }

    /// Answers 200 without a body.
    pub(super) async fn answer(&mut self, stream: u32) {
        // The eighth entry of the static table (RFC 7541 appendix A).
        self.send((HEADERS, END_HEADERS | END_STREAM, stream, vec![0x88])).await;
    }
}
