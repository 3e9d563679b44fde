//! The client side of HTTP/2: one task per connection that reads and writes frames, one per request.

mod head;
pub mod runners;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::CONTENT_TYPE;
use http::{Method, Request};

use crate::clock;
use crate::config::settings::{Http2, Limits};
use crate::proxy::facts::ConnFacts;
use crate::proxy::forward::{forward, within};
use crate::proxy::grpc::is_grpc;
use crate::proxy::h1::head::{HeadLimits, Refusal};
use crate::proxy::headers::{HttpVersion, RequestHead};
use crate::proxy::io::{Buf, Stream as Socket};
use crate::proxy::observe::Refused;
use crate::proxy::respond::Reply;
use crate::proxy::timer::Alarm;
use crate::proxy::worker::Worker;

use super::body::{Bounds, Inbound, SEND_BUFFER_MAX};
use super::io::{Gathered, Io, gather};
use super::limits::{HEADER_LIST_FACTOR, RESET_FACTOR, RESET_REMEMBERED, small_frames_max};
use super::tally::{Seen, Tally};

use self::head::read_request;
pub use self::stream::Stream;

/// Longest wait for a client to notice that its connection ends, once nothing is in flight on it.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Streams a client reset may still be ending here; so many times the streams it may open are served at once, others are refused.
const ENDING_FACTOR: usize = 2;
/// What a client may do beside requests is counted over this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Streams a client may reset within it; from there on it may reset half of those it opens.
const RESETS_MAX: u64 = 1_000;
/// Frames about no request (PING, SETTINGS, PRIORITY) it may send within it; from there on one for each [`SIGNAL_BYTES`] it is sent. Clients
/// that measure their line send a PING with most of what they receive.
const SIGNALS_MAX: u64 = 1_000;
/// Less than a DATA frame with an empty gRPC message and the answer to a PING, more than two answers.
const SIGNAL_BYTES: u64 = 32;
/// Request heads kept for reuse per connection, and the most bytes of text each keeps.
const HEADS_KEPT_MAX: usize = 8;
const HEAD_KEPT_BYTES_MAX: usize = 4 * 1024;

/// What the streams of one connection share.
struct Shared {
    worker: Rc<Worker>,
    facts: Rc<ConnFacts>,
    heads: RefCell<Vec<RequestHead>>,
    /// Requests in hand.
    active: Cell<usize>,
    /// When the last of them ended.
    idle_since: Cell<Instant>,
}

/// The task of one connection.
struct Driver {
    shared: Rc<Shared>,
    connection: Connection<Io, Bytes>,
    gathered: Gathered,
    alarm: Alarm,
    limits: Limits,
    head_limits: HeadLimits,
    opened: Instant,
    served: u64,
    window: Window,
    /// The client was told that it is too much.
    flooded: bool,
    /// Since when the client is told to go.
    closing: Option<Instant>,
}

/// What there was when a [`WINDOW`] began.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    seen: Seen,
    served: u64,
}

/// Serves an HTTP/2 connection until it ends; `ahead` was read of it already.
pub async fn serve(worker: &Rc<Worker>, io: Socket, ahead: Buf, facts: Rc<ConnFacts>) {
    let opened = clock::now();
    let limits = facts.listener.limits;
    let (io, gathered) = gather(io, ahead, Some(Tally::new(Rc::clone(worker))));
    let alarm = worker.alarm();
    let mut handshake = pin!(builder(&limits.h2).handshake(io));
    let begun = poll_fn(|cx| {
        let begun = handshake.as_mut().poll(cx);
        match gathered.poll_write_out(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => begun.map(Result::ok),
        }
    });
    let Some(Some(connection)) = within(&alarm, Some(opened + limits.head_timeout), begun).await else { return };
    worker.shard().http2.add(1);
    let shared = Shared {
        worker: Rc::clone(worker),
        heads: RefCell::default(),
        active: Cell::new(0),
        idle_since: Cell::new(opened),
        facts,
    };
    let head_limits = HeadLimits {
        max_head: limits.h2.max_header_list as usize,
        max_fields: limits.h2.max_fields as usize,
        ..HeadLimits::new(&limits, shared.facts.listener.underscores)
    };
    let shared = Rc::new(shared);
    let mut driver = Driver {
        shared,
        connection,
        gathered,
        alarm,
        limits,
        head_limits,
        opened,
        served: 0,
        window: Window { since: opened, seen: Seen::default(), served: 0 },
        flooded: false,
        closing: None,
    };
    poll_fn(|cx| driver.poll(cx)).await;
}

fn builder(h2: &Http2) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(h2.max_streams)
        .initial_window_size(h2.stream_window)
        .initial_connection_window_size(h2.connection_window)
        .data_frame_budget(small_frames_max(h2.stream_window, h2.connection_window))
        .max_header_list_size(HEADER_LIST_FACTOR * h2.max_header_list)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .max_concurrent_reset_streams(RESET_FACTOR * h2.max_streams as usize)
        .reset_stream_duration(RESET_REMEMBERED)
        .max_pending_accept_reset_streams(h2.max_pending_resets as usize)
        .max_local_error_reset_streams(Some(h2.max_error_resets as usize));
    builder
}

// === impl Driver ===

impl Driver {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = clock::now();
            if self.closing.is_none() && self.is_to_close(now) {
                self.close(now);
            }
            if self.poll_streams(cx, now).is_ready() {
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(_)) = self.gathered.poll_write_out(cx) {
                return Poll::Ready(());
            }
            let deadline = self.deadline(now);
            if self.closing.is_some() && deadline <= now {
                return Poll::Ready(());
            }
            if self.alarm.poll_until(cx, Some(deadline), now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Moves frames and begins requests; ready when the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            let accepted = self.connection.poll_accept(cx);
            if !self.flooded && self.is_flooding(now) {
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.closing = Some(now);
                self.flooded = true;
                continue;
            }
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) => self.begin(request, respond, now),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "an HTTP/2 connection failed");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
            if self.served >= self.limits.h2.max_requests.into() && self.closing.is_none() {
                self.close(now);
            }
        }
    }

    /// Begins a request, or refuses it.
    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, now: Instant) {
        self.served += 1;
        if self.shared.active.get() >= ENDING_FACTOR * self.limits.h2.max_streams as usize {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let mut head = self.shared.heads.borrow_mut().pop().unwrap_or_default();
        if let Err(refusal) = read_request(&mut head, &request, &self.head_limits) {
            self.shared.keep(head);
            return self.refuse(&request, respond, refusal);
        }
        let bounds = Bounds {
            payload: self.limits.max_body,
            fields: self.head_limits.max_fields,
            size: self.head_limits.max_head,
            underscores: self.head_limits.underscores,
        };
        let inbound = Inbound::new(request.into_body(), head.body, bounds);
        let stream = Stream::new(Rc::clone(&self.shared), head, now, inbound, respond);
        let worker = Rc::clone(&self.shared.worker);
        self.shared.worker.runners().begin(stream, async move |mut stream| {
            forward(&mut stream, &worker, false).await;
        });
    }

    /// Answers what is no request we take. The rest of the stream is thrown away.
    fn refuse(&self, request: &Request<RecvStream>, mut respond: SendResponse<Bytes>, refusal: Refusal) {
        let reply = Reply::refused(refusal.status, refusal.cause);
        let is_call = request.headers().get(CONTENT_TYPE).is_some_and(|name| is_grpc(name.as_bytes()));
        let reply = if is_call { reply.for_grpc() } else { reply };
        self.shared.worker.observe_refusal(&Refused {
            method: request.method().as_str().as_bytes(),
            host: request.uri().authority().map_or(b"", |authority| authority.as_str().as_bytes()),
            path: request.uri().path().as_bytes(),
            protocol: HttpVersion::Http2.as_str(),
            ..Refused::unread(reply, &self.shared.facts)
        });
        let date = self.shared.worker.http_date();
        Stream::answer(&mut respond, &reply, &date, request.method() == Method::HEAD);
    }

    /// Tells the client to open no more streams here: GOAWAY in two steps (RFC 9113 section 6.8). Those in flight finish.
    fn close(&mut self, now: Instant) {
        self.connection.graceful_shutdown();
        self.closing = Some(now);
    }

    /// Whether the client does so much beside requests that it is an attack (CVE-2023-44487, CVE-2019-9512, CVE-2019-9515).
    fn is_flooding(&mut self, now: Instant) -> bool {
        let seen = self.gathered.seen();
        let Window { since, seen: before, served } = self.window;
        let flooding = is_flood(before, seen, self.served - served);
        if now.saturating_duration_since(since) >= WINDOW {
            self.window = Window { since: now, seen, served: self.served };
        }
        flooding
    }

    fn is_to_close(&self, now: Instant) -> bool {
        self.shared.worker.is_draining() || self.deadline(now) <= now
    }

    /// When to close, or when to have closed.
    fn deadline(&self, now: Instant) -> Instant {
        let idle_since = if self.shared.active.get() > 0 { now } else { self.shared.idle_since.get() };
        match self.closing {
            Some(closing) => idle_since.max(closing) + CLOSE_WAIT,
            None => (idle_since + self.limits.keepalive_idle).min(self.opened + self.limits.max_age),
        }
    }
}

/// Whether what came between `before` and `now`, with `served` requests, is too much.
fn is_flood(before: Seen, now: Seen, served: u64) -> bool {
    let resets = now.resets - before.resets;
    let signals = now.signals - before.signals;
    let answered = (now.sent - before.sent) / SIGNAL_BYTES;
    (resets > RESETS_MAX && resets > served / 2) || signals > SIGNALS_MAX + answered
}

// === impl Shared ===

impl Shared {
    fn began(&self) {
        self.active.set(self.active.get() + 1);
    }

    fn ended(&self, head: RequestHead) {
        self.active.set(self.active.get() - 1);
        self.idle_since.set(self.worker.now());
        self.keep(head);
    }

    /// Keeps a head's memory for another request.
    fn keep(&self, head: RequestHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS_KEPT_MAX && head.bytes.capacity() <= HEAD_KEPT_BYTES_MAX {
            heads.push(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_what_is_out_of_proportion() {
        let before = Seen { resets: 5, signals: 7, sent: 1_000 };
        let after = |resets, signals, sent| Seen {
            resets: before.resets + resets,
            signals: before.signals + signals,
            sent: before.sent + sent,
        };
        assert!(!is_flood(before, after(RESETS_MAX, 0, 0), 0));
        assert!(is_flood(before, after(RESETS_MAX + 1, 0, 0), RESETS_MAX + 1), "every request is taken back");
        assert!(!is_flood(before, after(RESETS_MAX + 1, 0, 0), 10 * RESETS_MAX), "every tenth is");
        assert!(!is_flood(before, after(0, SIGNALS_MAX, 0), 0));
        assert!(is_flood(before, after(0, SIGNALS_MAX + 1, 0), 0));
        assert!(!is_flood(before, after(0, 100_000, 100_000 * 36), 0), "a PING with each small message of a stream");
        let answers = |n| after(0, n, n * 17);
        assert!(is_flood(before, answers(3 * SIGNALS_MAX), 0), "PINGs are not paid for by their answers");
    }
}
