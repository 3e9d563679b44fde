//! One connection of an upstream: reads requests, plays their scripts.

use super::super::pattern;
use super::super::wait::pause;
use super::super::websocket::{self, Frame, Side};
use super::super::wire::{Body, Collector, Fault, Framing, Head, Pace, Wire};
use super::{Act, Behaviour, Open, Request};

/// Serves requests until the connection or a script ends.
pub(super) async fn connection(mut wire: Wire, open: &Open) {
    for number in 0.. {
        let head = match wire.read_head().await {
            Ok(Some(head)) => head,
            Ok(None) | Err(Fault::Io(_)) => return,
            Err(fault) => {
                return complain(open, &format!("{fault}, after {:?}", String::from_utf8_lossy(wire.pending())));
            }
        };
        let framing = match check(&head) {
            Ok(framing) => framing,
            Err(fault) => return complain(open, &format!("{fault}, in {:?}", String::from_utf8_lossy(&head.raw))),
        };
        let behaviour = open.shared.change(|log| log.arrive(&head)).drawn();
        let exchange = Exchange { wire, open, number, head, framing, body: None };
        match exchange.play(&behaviour).await {
            Some(kept) => wire = kept,
            None => return,
        }
    }
}

fn complain(open: &Open, what: &str) {
    open.shared.change(|log| log.violations.push(what.to_owned()));
}

/// What RFC 9112 demands of a request, on top of a well-formed head.
fn check(head: &Head) -> Result<Framing, Fault> {
    let parts: Vec<&str> = head.line.split(' ').collect();
    if parts.len() != 3 || !matches!(parts[2], "HTTP/1.1" | "HTTP/1.0") {
        return Err(Fault::Malformed("request line".into()));
    }
    if parts[2] == "HTTP/1.1" && head.all("host").len() != 1 {
        return Err(Fault::Malformed("not exactly one Host".into()));
    }
    Ok(head.framing()?.unwrap_or(Framing::None))
}

/// One request while its script is played.
struct Exchange<'a> {
    wire: Wire,
    open: &'a Open,
    number: usize,
    head: Head,
    framing: Framing,
    body: Option<Body>,
}

/// How a script went on.
enum Then {
    /// With its next act.
    Next,
    /// The connection is done.
    Close,
    /// The connection is to be reset.
    Reset,
}

impl Exchange<'_> {
    /// Plays the script; the connection comes back if another request may follow.
    async fn play(mut self, behaviour: &Behaviour) -> Option<Wire> {
        for act in behaviour.0.iter() {
            match self.act(act).await {
                Ok(Then::Next) => {}
                Ok(Then::Close) => {
                    // With a notice where there is TLS; the peer may be gone already.
                    let _ = self.wire.half_close().await;
                    return None;
                }
                // The other side may go whenever it likes; what it left unfinished was recorded where it was read.
                Err(_) => return None,
                Ok(Then::Reset) => {
                    self.wire.reset();
                    return None;
                }
            }
        }
        let read = self.read_body(Pace::Eager).await;
        let last = self.head.lists("connection", "close") || self.head.line.ends_with("HTTP/1.0");
        (read.is_ok() && !last).then_some(self.wire)
    }

    async fn act(&mut self, act: &Act) -> Result<Then, Fault> {
        match act {
            Act::ReadBody(pace) => self.read_body(*pace).await?,
            Act::Write(bytes) => self.write(bytes).await?,
            Act::Answer { head, body } => self.answer(head, body).await?,
            Act::Drip { bytes, each, pause: between } => {
                for piece in bytes.chunks(*each) {
                    self.write(piece).await?;
                    pause(*between).await;
                }
            }
            Act::Pattern(total) => self.pattern(*total, false).await?,
            Act::ChunkedPattern(total) => self.pattern(*total, true).await?,
            Act::Echo => {
                let body = self.body.as_ref().map(|b| b.bytes.clone()).unwrap_or_default();
                let echo = [self.head.raw.clone(), body].concat();
                self.answer(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", echo.len()), &echo).await?;
            }
            Act::Feed(end) => {
                let mut end = end.lock().await;
                while let Some(piece) = end.recv().await {
                    self.chunk(&piece).await?;
                }
                self.write(b"0\r\n\r\n").await?;
            }
            Act::WebSocket => {
                self.websocket().await?;
                return Ok(Then::Close);
            }
            // Drawn before.
            Act::Either(..) => {}
            Act::Pause(period) => pause(*period).await,
            Act::Turn(lock, period) => {
                let _turn = lock.lock().await;
                pause(*period).await;
            }
            Act::Close => return Ok(Then::Close),
            Act::Reset => return Ok(Then::Reset),
            Act::Hang => {
                self.wire.read_to_end().await?;
                return Ok(Then::Close);
            }
            Act::Stall => std::future::pending().await,
        }
        Ok(Then::Next)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.wire.write(bytes).await.map_err(Fault::Io)
    }

    async fn chunk(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let head = format!("{:x}\r\n", bytes.len());
        self.write(&[head.as_bytes(), bytes, b"\r\n"].concat()).await
    }

    async fn answer(&mut self, head: &str, body: &[u8]) -> Result<(), Fault> {
        let body = if self.head.line.starts_with("HEAD ") { &[] } else { body };
        self.write(&[head.as_bytes(), b"\r\n", body].concat()).await
    }

    async fn pattern(&mut self, total: u64, chunked: bool) -> Result<(), Fault> {
        let block = pattern::block();
        for n in pattern::pieces(total) {
            if chunked { self.chunk(&block[..n]).await? } else { self.write(&block[..n]).await? }
        }
        if chunked { self.write(b"0\r\n\r\n").await } else { Ok(()) }
    }

    /// Reads the body unless that was done, and records the request either way.
    async fn read_body(&mut self, pace: Pace) -> Result<(), Fault> {
        if self.body.is_some() {
            return Ok(());
        }
        let mut collector = Collector::default();
        let result = self.wire.read_body(self.framing, pace, &mut collector).await;
        let complete = result.is_ok();
        if let Err(Fault::Malformed(what)) = &result {
            complain(self.open, what);
        }
        let (trailers, result) = match result {
            Ok(trailers) => (trailers, Ok(())),
            Err(fault) => (Vec::new(), Err(fault)),
        };
        let body = collector.finish(trailers);
        self.body = Some(body.clone());
        let request =
            Request { connection: self.open.number, number: self.number, head: self.head.clone(), body, complete };
        self.open.shared.change(|log| log.finish(request));
        result
    }

    async fn websocket(&mut self) -> Result<(), Fault> {
        self.read_body(Pace::Eager).await?;
        let Some(key) = self.head.get("sec-websocket-key").filter(|_| self.head.lists("connection", "upgrade")) else {
            return self.answer("HTTP/1.1 400 No Handshake\r\nContent-Length: 0\r\n", b"").await;
        };
        let accept = websocket::accept_of(key);
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.write(head.as_bytes()).await?;
        while let Some(frame) = Frame::read(&mut self.wire, Side::Client).await? {
            let opcode = if frame.opcode == websocket::PING { websocket::PONG } else { frame.opcode };
            self.write(&Frame { opcode, ..frame.clone() }.encode(Side::Server)).await?;
            if frame.opcode == websocket::CLOSE {
                break;
            }
        }
        Ok(())
    }
}
