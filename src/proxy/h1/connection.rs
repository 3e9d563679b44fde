//! The client side of HTTP/1.1: one connection, its requests in order.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::clock::{self, HttpDate};
use crate::proxy::facts::ConnFacts;
use crate::proxy::forward::{Downstream, Raw, forward, within};
use crate::proxy::headers::{BodyLength, HttpVersion, Known, RequestHead, ResponseHead};
use crate::proxy::io::{BUFFER, Buf, Stream};
use crate::proxy::observe::Refused;
use crate::proxy::respond::Reply;
use crate::proxy::timer::Alarm;
use crate::proxy::worker::Worker;
use crate::telemetry::termination::Termination;

use super::edit::{ReplyHead, ResponseEdits, write_interim, write_reply, write_response};
use super::head::{HeadLimits, Refusal, ScanState, parse_request, scan_head};
use super::wire::{Wire, Wired};

/// Longest wait for a client to close its side after the last answer, so that a reset does not overtake the answer.
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes thrown away meanwhile.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// A client connection.
pub struct Connection {
    worker: Rc<Worker>,
    facts: Rc<ConnFacts>,
    wire: Wire,
    head: RequestHead,
    limits: HeadLimits,
    alarm: Alarm,
    /// When the first byte of the request in hand came.
    arrived: Instant,
    /// The client closed its sending side.
    half_closed: bool,
    /// The body on the way out ends with the connection.
    until_close: bool,
    /// The answer is incomplete.
    cut: bool,
    /// The client said that this is its last request.
    last_words: bool,
    /// Nothing but a part of [`PREFACE`] came so far.
    sniffing: bool,
}

/// A connection that turned out to speak HTTP/2 by prior knowledge (RFC 9113 section 3.3): its stream, and what was read of it.
pub struct Preface(pub Stream, pub Buf);

/// The first bytes of every HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came in.
enum Incoming {
    Request,
    /// The whole of [`PREFACE`].
    Preface,
    /// Closed, or silent for too long between requests.
    Gone,
    Refused(Refusal),
}

/// Serves a connection until it ends, or until it begins with the preface of HTTP/2 where that is spoken without TLS.
pub async fn serve(worker: &Rc<Worker>, io: Stream, facts: Rc<ConnFacts>) -> Option<Preface> {
    let mut connection = Connection::new(worker, io, facts);
    let opened = worker.tick();
    let limits = connection.facts.listener.limits;
    let mut served = 0;
    loop {
        match connection.next_request().await {
            Incoming::Request => {}
            Incoming::Preface => return Some(connection.into_preface()),
            Incoming::Gone => break,
            Incoming::Refused(refusal) => {
                connection.refuse(refusal).await;
                break;
            }
        }
        served += 1;
        let worn =
            served >= limits.max_requests || connection.arrived.saturating_duration_since(opened) >= limits.max_age;
        connection.last_words = !connection.head.keep_alive;
        let last = worn || connection.last_words;
        if !forward(&mut connection, worker, last).await {
            break;
        }
    }
    connection.close().await;
    None
}

// === impl Connection ===

impl Connection {
    fn new(worker: &Rc<Worker>, io: Stream, facts: Rc<ConnFacts>) -> Self {
        let limits = HeadLimits::new(&facts.listener.limits, facts.listener.underscores);
        Self {
            wire: Wire::new(io, limits),
            head: RequestHead::default(),
            limits,
            alarm: worker.alarm(),
            arrived: worker.tick(),
            half_closed: false,
            until_close: false,
            cut: false,
            last_words: false,
            sniffing: !facts.secure && facts.listener.limits.h2.enabled,
            worker: Rc::clone(worker),
            facts,
        }
    }

    /// Waits for a request and reads its head. Holds no buffers while nothing has arrived.
    async fn next_request(&mut self) -> Incoming {
        let since = self.worker.now();
        let mut now = Some(since);
        // Some clients send an empty line after a body (RFC 9112 section 2.2): no request begins with it alone.
        let mut scan = ScanState::default();
        if self.wire.input.bytes() == b"\r\n" {
            self.wire.input.clear();
            scan = ScanState::after_empty_line();
        }
        if self.wire.input.is_empty() && !poll_fn(|cx| self.poll_first(cx, since, now.take())).await {
            return Incoming::Gone;
        }
        self.arrived = self.worker.tick();
        let deadline = Some(self.arrived + self.limits_of().head_timeout);
        let len = poll_fn(|cx| {
            if let Poll::Ready(found) = self.poll_head(cx, &mut scan) {
                return Poll::Ready(found);
            }
            let timeout = Refusal { status: 408, cause: "the request head was not complete in time" };
            self.alarm.poll_until(cx, deadline, clock::now()).map(|()| Err(Some(timeout)))
        });
        match len.await {
            Ok(0) => Incoming::Preface,
            Ok(len) => self.parse(len),
            Err(None) => Incoming::Gone,
            Err(Some(refusal)) => {
                self.head.forget();
                Incoming::Refused(refusal)
            }
        }
    }

    /// Ready when the first byte of a request is there (`true`), or none will come. `now` is known at the first turn only.
    fn poll_first(&mut self, cx: &mut Context<'_>, since: Instant, now: Option<Instant>) -> Poll<bool> {
        {
            let mut buffers = self.worker.buffers();
            self.wire.input.attach(&mut buffers);
        }
        if let Poll::Ready(read) = self.wire.poll_read(cx) {
            self.half_closed = !matches!(read, Ok(n) if n > 0);
            return Poll::Ready(!self.half_closed);
        }
        self.give_back();
        let idle = since + self.limits_of().keepalive_idle;
        let deadline = self.worker.draining().map_or(idle, |draining| draining.idle_until.min(idle));
        let now = now.unwrap_or_else(|| self.worker.tick());
        self.alarm.poll_until(cx, Some(deadline), now).map(|()| false)
    }

    /// Finds the end of the head; `Err(None)` when the client went away within it, zero when it is no head but [`PREFACE`].
    fn poll_head(&mut self, cx: &mut Context<'_>, scan: &mut ScanState) -> Poll<Result<usize, Option<Refusal>>> {
        loop {
            let bytes = self.wire.input.bytes();
            if self.sniffing && bytes.starts_with(PREFACE) {
                return Poll::Ready(Ok(0));
            }
            // The first byte that differs decides.
            self.sniffing &= PREFACE.starts_with(bytes);
            let found = if self.sniffing { Ok(None) } else { scan_head(bytes, scan, &self.limits) };
            match found {
                Ok(Some(len)) => return Poll::Ready(Ok(len)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(Some(refusal))),
            }
            match ready!(self.wire.poll_read(cx)) {
                Ok(n) if n > 0 => {}
                _ => return Poll::Ready(Err(None)),
            }
        }
    }

    fn parse(&mut self, len: usize) -> Incoming {
        {
            let mut buffers = self.worker.buffers();
            if self.head.bytes.capacity() == 0 {
                self.head.bytes = buffers.take();
                self.head.fields = buffers.take_fields();
            }
            if self.wire.out.capacity() == 0 {
                self.wire.out = buffers.take();
            }
        }
        self.wire.input.split_head(len, &mut self.head.bytes);
        if let Err(refusal) = parse_request(&mut self.head, len, &self.limits) {
            return Incoming::Refused(refusal);
        }
        self.wire.expect(self.head.body, self.limits, self.limits_of().max_body);
        Incoming::Request
    }

    /// Answers something that is not a request we take.
    async fn refuse(&mut self, refusal: Refusal) {
        let reply = Reply::refused(refusal.status, refusal.cause);
        self.worker.observe_refusal(&Refused::of_head(reply, &self.facts, &self.head));
        self.wire.out.clear();
        self.write_reply(&reply, true, false);
        let deadline = clock::now() + LINGER;
        within(&self.alarm, Some(deadline), poll_fn(|cx| self.wire.poll_flush(cx))).await;
    }

    fn into_preface(self) -> Preface {
        Preface(self.wire.io, self.wire.input)
    }

    fn write_reply(&mut self, reply: &Reply, last: bool, bodyless: bool) {
        let date = self.worker.http_date();
        let (fields, (text, end)) = (reply.fields(), reply.body());
        let head = ReplyHead {
            status: reply.status,
            content_type: reply.content_type(),
            content_length: (text.len() + end.len()) as u64,
            close: last,
            date: Some(date.as_bytes()),
            extra: &fields,
        };
        write_reply(&mut self.wire.out, &head);
        if !bodyless {
            self.wire.out.extend_from_slice(text.as_bytes());
            self.wire.out.extend_from_slice(end.as_bytes());
        }
        self.wire.announce(BodyLength::None);
    }

    /// Closes without letting a reset overtake the last answer (RFC 9112 section 9.6).
    async fn close(&mut self) {
        if self.cut {
            if self.until_close {
                self.wire.io.reset_on_close();
            }
            return;
        }
        // Nothing follows by which closing could become a reset: all was read, and the client said that there is no more.
        let over = self.last_words && self.wire.is_drained();
        if over && !self.wire.io.is_tls() {
            return;
        }
        let deadline = Some(clock::now() + LINGER);
        let wire = &mut self.wire;
        let shut = within(&self.alarm, deadline, poll_fn(|cx| wire.io.poll_shutdown(cx))).await;
        if over || self.half_closed || !matches!(shut, Some(Ok(()))) {
            return;
        }
        let mut thrown_away = 0;
        while thrown_away < LINGER_BYTES_MAX {
            wire.input.clear();
            match within(&self.alarm, deadline, poll_fn(|cx| wire.poll_read(cx))).await {
                Some(Ok(n)) if n > 0 => thrown_away += n,
                _ => break,
            }
        }
    }

    fn give_back(&mut self) {
        let mut buffers = self.worker.buffers();
        self.wire.input.detach(&mut buffers);
        if self.wire.out.is_empty() {
            buffers.give(std::mem::take(&mut self.wire.out));
        }
        buffers.give(std::mem::take(&mut self.head.bytes));
        buffers.give_fields(std::mem::take(&mut self.head.fields));
    }

    /// Whether no request may follow: none has arrived, and none will come or may come.
    fn is_last(&self, last: bool) -> bool {
        last || ((self.half_closed || self.worker.is_draining()) && self.wire.input.is_empty())
    }

    fn limits_of(&self) -> &crate::config::settings::Limits {
        &self.facts.listener.limits
    }
}

impl Downstream for Connection {
    fn head(&self) -> &RequestHead {
        &self.head
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn facts(&self) -> &Rc<ConnFacts> {
        &self.facts
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Pipelined requests are read ahead up to one buffer; a closed sending side is no sign that nobody waits.
        while !self.half_closed && self.wire.input.len() < BUFFER {
            match ready!(self.wire.poll_read(cx)) {
                Ok(0) => self.half_closed = true,
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    fn interim(&mut self, head: &ResponseHead) {
        if self.head.version != HttpVersion::Http10 {
            write_interim(&mut self.wire.out, head);
        }
    }

    fn respond(&mut self, head: &ResponseHead, set_cookie: Option<&[u8]>, last: bool) -> bool {
        let old = self.head.version == HttpVersion::Http10;
        let body = match head.body {
            BodyLength::UntilClose | BodyLength::Chunked if old => BodyLength::UntilClose,
            BodyLength::UntilClose => BodyLength::Chunked,
            body => body,
        };
        self.until_close = body == BodyLength::UntilClose;
        let last = self.is_last(last || self.until_close);
        let date = head.known(Known::Date).is_none().then(|| self.worker.http_date());
        let edits = ResponseEdits {
            body,
            close: last && head.status != 101,
            keep_alive_10: old && !last,
            no_body_head: head.status == 304 || self.head.get(self.head.method) == b"HEAD",
            date: date.as_ref().map(HttpDate::as_bytes),
            set_cookie,
            extra: &[],
        };
        write_response(&mut self.wire.out, head, &edits);
        self.wire.announce(body);
        last
    }

    fn reply(&mut self, reply: &Reply, last: bool) -> bool {
        let bodyless = self.head.get(self.head.method) == b"HEAD";
        // Nothing in our answers tells an HTTP/1.0 client that the connection stays.
        let last = self.is_last(last || self.head.version == HttpVersion::Http10);
        self.write_reply(reply, last, bodyless);
        last
    }

    fn cut(&mut self, _: Termination) {
        self.cut = true;
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        // A tunnel writes from where it reads, and has no more heads.
        let mut buffers = self.worker.buffers();
        buffers.give(std::mem::take(&mut self.wire.out));
        buffers.give(std::mem::take(&mut self.head.bytes));
        drop(buffers);
        Some(Raw { ahead: &mut self.wire.input, io: &mut self.wire.io })
    }
}

impl Wired for Connection {
    fn wire(&self) -> &Wire {
        &self.wire
    }

    fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
