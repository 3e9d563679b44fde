//! A WebSocket client: handshake and frames.

use super::super::wait::within;
use super::super::websocket::{CLOSE, Frame, KEY, Side, TEXT, accept_of};
use super::super::wire::Fault;
use super::{Client, Response};

/// An upgraded connection.
pub(crate) struct WebSocket {
    client: Client,
    /// The 101 it began with.
    pub opened: Response,
}

// === impl WebSocket ===

impl WebSocket {
    /// Connects and upgrades; the fields are whole lines with their line breaks. The error is the response that refused it.
    pub(crate) async fn open(address: &str, path: &str, fields: &str) -> Result<Self, Box<Response>> {
        Self::over(Client::connect(address).await, path, fields).await
    }

    /// Upgrades a connection.
    pub(crate) async fn over(mut client: Client, path: &str, fields: &str) -> Result<Self, Box<Response>> {
        client.send(handshake(path, fields)).await;
        let opened = client.response().await;
        if opened.status != 101 {
            return Err(Box::new(opened));
        }
        assert_eq!(opened.get("sec-websocket-accept"), Some(accept_of(KEY).as_str()));
        assert!(
            opened.head.lists("connection", "upgrade") && opened.head.lists("upgrade", "websocket"),
            "{:?}",
            opened.head
        );
        Ok(Self { client, opened })
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: Frame) {
        self.client.send(frame.encode(Side::Client)).await;
    }

    /// Sends raw bytes, for frames in pieces.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.client.send(bytes).await;
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<Frame> {
        within("a frame", self.try_receive()).await.unwrap_or_else(|fault| panic!("no frame: {fault}"))
    }

    /// The next frame, without a bound on the wait.
    pub(crate) async fn try_receive(&mut self) -> Result<Option<Frame>, Fault> {
        Frame::read(&mut self.client.wire, Side::Server).await
    }

    /// Sends a text and reads its echo.
    pub(crate) async fn echo(&mut self, text: &str) {
        self.send(Frame::new(TEXT, text)).await;
        assert_eq!(self.receive().await, Some(Frame::new(TEXT, text)));
    }

    /// Closes in order and reads the close in return.
    pub(crate) async fn close(mut self) {
        self.send(Frame::new(CLOSE, 1000u16.to_be_bytes())).await;
        let answer = self.receive().await;
        assert_eq!(answer.and_then(|frame| frame.close_code()), Some(1000));
        self.client.expect_close().await;
    }
}

/// The bytes of a complete handshake.
pub(crate) fn handshake(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}
