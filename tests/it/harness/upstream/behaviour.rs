//! What an upstream does with a request: a script of acts, down to the byte.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

use super::super::wire::Pace;

/// Pieces a feed holds until the upstream has sent them.
const FEED_PIECES_MAX: usize = 16;

/// What is done with one request once its head was read. Whatever the script leaves unread of the body is read at its end, and the
/// connection is kept if the request allows it.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour(pub(super) Arc<[Act]>);

/// One step of a script.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Reads the body to its end.
    ReadBody(Pace),
    /// Writes these bytes, whatever they are.
    Write(Vec<u8>),
    /// Writes a response; its body is left out for HEAD.
    Answer {
        /// Status line and fields without the blank line.
        head: String,
        /// The body.
        body: Vec<u8>,
    },
    /// Writes `bytes`, `each` at a time with a pause after each.
    Drip {
        /// All of them.
        bytes: Vec<u8>,
        /// How many at a time.
        each: usize,
        /// The pause.
        pause: Duration,
    },
    /// Writes so many bytes of the pattern.
    Pattern(u64),
    /// Writes so many bytes of the pattern as chunks, with the last chunk.
    ChunkedPattern(u64),
    /// Answers with the head and the body as they came.
    Echo,
    /// Writes a chunk per piece of the feed, and the last chunk when the feed's sender is gone.
    Feed(FeedEnd),
    /// Does the handshake and echoes text, binary and ping frames until a close frame, which it answers.
    WebSocket,
    /// One of the two, by lot, in place of this whole script.
    Either(Behaviour, Behaviour),
    /// Lets time pass.
    Pause(Duration),
    /// Waits for its turn among all requests with the same lock, then lets time pass: a server that does one thing at a time.
    Turn(Arc<Mutex<()>>, Duration),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Answers nothing, but notices when the connection goes.
    Hang,
    /// Neither reads nor writes any more.
    Stall,
}

/// The sender of a stream the test feeds.
pub(crate) type Feed = mpsc::Sender<Vec<u8>>;
/// The upstream's end of it.
pub(crate) type FeedEnd = Arc<Mutex<mpsc::Receiver<Vec<u8>>>>;

// === impl Behaviour ===

impl Behaviour {
    /// These acts in order.
    pub(crate) fn script(acts: impl IntoIterator<Item = Act>) -> Self {
        Self(acts.into_iter().collect())
    }

    /// What it is for one request.
    pub(super) fn drawn(self) -> Self {
        match self.0.first() {
            Some(Act::Either(one, other)) => if fastrand::bool() { one } else { other }.clone().drawn(),
            _ => self,
        }
    }

    /// Reads the request, then writes `response` byte for byte and keeps the connection.
    pub(crate) fn raw(response: impl Into<Vec<u8>>) -> Self {
        Self::script([read_body(), Act::Write(response.into())])
    }

    /// Reads the request and answers with a status, fields (`"Name: value"`) and a body.
    pub(crate) fn answer(status: u16, fields: &[&str], body: impl Into<Vec<u8>>) -> Self {
        Self::script([read_body(), answer(status, fields, body)])
    }

    /// 200 with the name of a release, in the body and as `x-version`.
    pub(crate) fn version(name: &str) -> Self {
        Self::answer(200, &[&format!("x-version: {name}")], name)
    }

    /// 200 with the head and the body as they came.
    pub(crate) fn echo() -> Self {
        Self::script([read_body(), Act::Echo])
    }

    /// Reads the request and never answers.
    pub(crate) fn hang() -> Self {
        Self::script([read_body(), Act::Hang])
    }

    /// Reads the head and nothing after it, ever.
    pub(crate) fn stall() -> Self {
        Self::script([Act::Stall])
    }

    /// Writes `response` slowly.
    pub(crate) fn drip(response: impl Into<Vec<u8>>, each: usize, pause: Duration) -> Self {
        Self::script([read_body(), Act::Drip { bytes: response.into(), each, pause }])
    }

    /// Writes the first `n` bytes of `response` and resets the connection.
    pub(crate) fn reset_after(n: usize, response: &[u8]) -> Self {
        Self::script([read_body(), Act::Write(response[..n].to_vec()), Act::Reset])
    }

    /// Writes the first `n` bytes of `response` and closes the connection.
    pub(crate) fn close_after(n: usize, response: &[u8]) -> Self {
        Self::script([read_body(), Act::Write(response[..n].to_vec()), Act::Close])
    }

    /// Answers before it reads the body.
    pub(crate) fn early(status: u16, body: &str) -> Self {
        Self::script([answer(status, &[], body)])
    }

    /// 200 with so many bytes of the pattern, with a length or in chunks.
    pub(crate) fn huge(bytes: u64, chunked: bool) -> Self {
        if chunked {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            return Self::script([read_body(), Act::Write(head.into()), Act::ChunkedPattern(bytes)]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        Self::script([read_body(), Act::Write(head.into()), Act::Pattern(bytes)])
    }

    /// Reads the body slowly, then answers 200.
    pub(crate) fn slow_reader(bytes: usize, pause: Duration) -> Self {
        Self::script([Act::ReadBody(Pace::Slow(bytes, pause)), answer(200, &[], "read")])
    }

    /// Server-sent events, fed by the test.
    pub(crate) fn sse() -> (Self, Feed) {
        let (feed, end) = mpsc::channel(FEED_PIECES_MAX);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        let acts = [read_body(), Act::Write(head.into()), Act::Feed(Arc::new(Mutex::new(end)))];
        (Self::script(acts), feed)
    }

    /// A WebSocket that echoes.
    pub(crate) fn websocket() -> Self {
        Self::script([Act::WebSocket])
    }
}

/// Reads the body as fast as it comes.
pub(crate) fn read_body() -> Act {
    Act::ReadBody(Pace::Eager)
}

/// A response with its length.
pub(crate) fn answer(status: u16, fields: &[&str], body: impl Into<Vec<u8>>) -> Act {
    let body = body.into();
    let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
    for field in fields {
        head.push_str(field);
        head.push_str("\r\n");
    }
    if !matches!(status, 204 | 304) {
        head.push_str("Content-Length: ");
        head.push_str(&body.len().to_string());
        head.push_str("\r\n");
    }
    Act::Answer { head, body }
}
