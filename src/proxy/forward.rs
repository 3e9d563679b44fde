//! THE forwarding loop: a downstream codec, an upstream codec, an [`Exchange`]. Written once, compiled for each pair of protocols.
//!
//! The loop moves bytes and watches timers; what to do with a failure, a response or a retry is asked of the exchange.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::service::HostMode;
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use super::body::{Broken, Fault, Fill, Pump, Sink, Source, WaitsFor};
use super::exchange::{Attempt, Exchange, Failure, Next, Replay};
use super::facts::ConnFacts;
use super::h1::edit::RequestEdits;
use super::h1::upstream::H1Upstream;
use super::headers::{RequestHead, ResponseHead};
use super::io::{Buf, Stream};
use super::respond::Reply;
use super::timer::Alarm;
use super::upgrade;
use super::worker::Worker;

/// The client's side of one request.
pub trait Downstream: Source + Sink {
    /// The head of the request.
    fn head(&self) -> &RequestHead;
    /// Who is there.
    fn facts(&self) -> &Rc<ConnFacts>;
    /// The connection's alarm.
    fn alarm(&self) -> &Alarm;
    /// Ready when the client is gone although nothing of the request is left to read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Buffers an interim head (RFC 9110 section 15.2), if the client's protocol has them.
    fn interim(&mut self, head: &ResponseHead);
    /// Buffers a response head. `last` says that the connection must not serve another request; returns whether it cannot.
    fn respond(&mut self, head: &ResponseHead, set_cookie: Option<&[u8]>, last: bool) -> bool;
    /// Buffers an answer of the proxy's own, body included. `last` as in [`Downstream::respond`].
    fn reply(&mut self, reply: &Reply, last: bool);
    /// Makes the end of the connection one that nobody can take for the end of a message.
    fn cut(&mut self);
    /// The bare connection, for an upgraded stream; `None` where the protocol has no such thing.
    fn raw(&mut self) -> Option<Raw<'_>>;
}

/// The upstream's side of one attempt.
pub trait Upstream: Source + Sink {
    /// Buffers the request head.
    fn begin(&mut self, head: &RequestHead, edits: &RequestEdits<'_>);
    /// Reads the next response head, interim or final.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HeadFault>>;
    /// The head read last.
    fn head(&self) -> &ResponseHead;
    /// Whether the socket took any byte of the request.
    fn accepted(&self) -> bool;
    /// The bare connection, for an upgraded stream.
    fn raw(&mut self) -> Option<Raw<'_>>;
    /// Keeps the connection for another request if `clean` and the protocol allows it; closes it otherwise.
    fn finish(self, worker: &Worker, endpoint: &EndpointLive, idle_max: Duration, clean: bool);
}

/// Why there is no response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Closed or reset before any byte of a response.
    Closed,
    /// Closed, reset or malformed within it.
    Malformed(&'static str),
}

/// A connection without its protocol: what was read ahead, and the stream.
pub struct Raw<'a> {
    /// Bytes read ahead.
    pub ahead: &'a mut Buf,
    /// The stream.
    pub io: &'a mut Stream,
}

/// Request body bytes kept for a replay.
#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    taken: u64,
    max: usize,
}

/// How an attempt came out.
enum Outcome {
    /// The response was delivered; whether the client's connection may go on.
    Complete(bool),
    /// No response head; the client has seen nothing.
    Failed(Failure),
    /// The request body failed before a response head was passed.
    BadBody(Reply),
    /// Over, with the response undelivered or incomplete.
    Cut(Termination),
    /// Both sides switched to a WebSocket, which has ended since.
    Tunnelled(Termination),
}

/// Byte counts of one request, for the access log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    /// Request body.
    pub up: u64,
    /// Response body.
    pub down: u64,
}

/// Serves one request; `last` says that its connection takes no other one. Returns whether the connection may go on.
pub async fn forward<D: Downstream>(down: &mut D, worker: &Rc<Worker>, last: bool) -> bool {
    let facts = Rc::clone(down.facts());
    let (mut exchange, mut next) = worker.begin(down.head(), &facts);
    let mut kept = Kept::default();
    let mut volume = Volume::default();
    let (termination, reusable) = loop {
        let attempt = match next {
            Next::Send(attempt) => attempt,
            Next::Reply(reply) => break answer(down, &reply, last, &mut volume).await,
        };
        let mut turn = Serving { worker, exchange: &mut exchange, kept: &mut kept, volume: &mut volume, last };
        match turn.attempt(down, &attempt).await {
            Outcome::Complete(reusable) => break (Termination::Complete, reusable),
            Outcome::Failed(failure) => next = worker.failed(&mut exchange, failure, kept.state()),
            Outcome::BadBody(reply) => {
                exchange.replied(reply.status);
                break answer(down, &reply, true, &mut volume).await;
            }
            Outcome::Cut(termination) => {
                down.cut();
                break (termination, false);
            }
            Outcome::Tunnelled(termination) => break (termination, false),
        }
    };
    let observation = exchange.end(termination, clock::now());
    worker.observe(&exchange, &observation, down.head(), &facts, volume);
    reusable
}

/// What one request keeps through all its attempts.
struct Serving<'a> {
    worker: &'a Rc<Worker>,
    exchange: &'a mut Exchange,
    kept: &'a mut Kept,
    volume: &'a mut Volume,
    last: bool,
}

impl Serving<'_> {
    async fn attempt<D: Downstream>(&mut self, down: &mut D, attempt: &Attempt) -> Outcome {
        let mut up = match self.connect(down, attempt).await {
            Ok(up) => up,
            Err(failure) => return Outcome::Failed(failure),
        };
        let endpoint = attempt.in_flight.endpoint();
        let Some(service) = self.exchange.settings().map(Arc::clone) else {
            return Outcome::Failed(Failure::Connect);
        };
        self.kept.max = attempt.replay_max;
        up.begin(down.head(), &edits(self.exchange, down.head(), down.facts(), endpoint));
        let now = clock::now();
        let mut drive = Drive {
            serving: self,
            endpoint,
            upload: Pump::Flowing,
            upload_waits: WaitsFor::Source,
            upload_moved: now,
            upload_broken: false,
            replayed: 0,
            download: None,
            download_waits: WaitsFor::Source,
            download_moved: now,
            interims: 0,
            last: false,
        };
        let outcome = poll_fn(|cx| drive.poll(cx, down, &mut up)).await;
        match outcome {
            Driven::Upgraded => {
                self.exchange.upgraded();
                let ended =
                    upgrade::tunnel(down, &mut up, self.worker, self.exchange, endpoint, &service, self.volume).await;
                up.finish(self.worker, endpoint, Duration::ZERO, false);
                Outcome::Tunnelled(ended)
            }
            Driven::Over { outcome, clean } => {
                up.finish(self.worker, endpoint, service.upstream.keepalive_idle, clean);
                outcome
            }
        }
    }

    /// An idle connection, or a new one within the connect timeout.
    async fn connect<D: Downstream>(&mut self, down: &mut D, attempt: &Attempt) -> Result<H1Upstream, Failure> {
        let endpoint = attempt.in_flight.endpoint();
        let now = clock::now();
        if attempt.may_reuse
            && let Some(io) = self.worker.idle().take(endpoint.slot, now)
        {
            self.exchange.connected(true, now);
            return Ok(H1Upstream::new(io, self.worker));
        }
        let Some(service) = self.exchange.settings().map(Arc::clone) else { return Err(Failure::Connect) };
        let deadline = now + service.upstream.connect_timeout;
        let dial = self.worker.dialer().dial(&service, attempt.address);
        match within(down.alarm(), Some(deadline), dial).await {
            Some(Ok(io)) => {
                self.exchange.connected(false, clock::now());
                Ok(H1Upstream::new(io, self.worker))
            }
            Some(Err(error)) => {
                tracing::debug!(endpoint = %endpoint.key, %error, "connect failed");
                Err(Failure::Connect)
            }
            None => Err(Failure::ConnectTimeout),
        }
    }
}

/// Both directions of one attempt, as one future without tasks or channels.
struct Drive<'a, 'b> {
    serving: &'a mut Serving<'b>,
    endpoint: &'a EndpointLive,
    upload: Pump,
    upload_waits: WaitsFor,
    upload_moved: Instant,
    /// The upstream stopped taking the request.
    upload_broken: bool,
    /// Kept body bytes already sent again.
    replayed: usize,
    /// `None` until a final response head came.
    download: Option<Pump>,
    download_waits: WaitsFor,
    download_moved: Instant,
    interims: u32,
    last: bool,
}

enum Driven {
    Upgraded,
    /// `clean`: the upstream connection is between messages.
    Over {
        outcome: Outcome,
        clean: bool,
    },
}

/// Most interim responses passed for one request.
const INTERIMS_MAX: u32 = 8;

impl Drive<'_, '_> {
    fn poll<D: Downstream, U: Upstream>(&mut self, cx: &mut Context<'_>, down: &mut D, up: &mut U) -> Poll<Driven> {
        let now = clock::now();
        if let Some(outcome) = self.turn_upload(cx, down, up, now) {
            return over(outcome);
        }
        if self.download.is_none()
            && let Poll::Ready(driven) = self.poll_response(cx, down, up, now)
        {
            return Poll::Ready(driven);
        }
        if self.download.is_some()
            && let Poll::Ready(driven) = self.turn_download(cx, down, up, now)
        {
            return Poll::Ready(driven);
        }
        if self.upload == Pump::Done && down.poll_gone(cx).is_ready() {
            return over(Outcome::Cut(Termination::ClientAbort));
        }
        let (deadline, outcome) = self.deadline(down.facts());
        match down.alarm().poll_until(cx, deadline, now) {
            Poll::Ready(()) => over(outcome),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Moves request body; `Some` when the request cannot go on.
    fn turn_upload<D: Downstream, U: Upstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        up: &mut U,
        now: Instant,
    ) -> Option<Outcome> {
        if self.upload == Pump::Done {
            return None;
        }
        let kept = &mut *self.serving.kept;
        while self.replayed < kept.bytes.len() {
            match up.poll_send(cx, &kept.bytes[self.replayed..]) {
                Poll::Ready(Ok(n)) => self.replayed += n,
                Poll::Ready(Err(_)) => return self.stop_upload(now),
                Poll::Pending => {
                    self.upload_waits = WaitsFor::Sink;
                    return None;
                }
            }
        }
        let turn = self.upload.turn(cx, down, up, &mut |bytes| kept.push(bytes));
        self.replayed = kept.bytes.len();
        match turn {
            Ok(turn) => {
                self.serving.volume.up += turn.moved;
                if turn.moved > 0 {
                    self.upload_moved = now;
                }
                match turn.waits {
                    Some(waits) => self.upload_waits = waits,
                    None => self.serving.exchange.sent(now),
                }
                None
            }
            Err(Broken::Sink(_)) => self.stop_upload(now),
            Err(Broken::Source(fault)) => Some(self.bad_body(&fault)),
        }
    }

    /// The upstream takes no more of the request; it may have answered all the same (RFC 9112 section 9.5).
    fn stop_upload(&mut self, now: Instant) -> Option<Outcome> {
        self.upload = Pump::Done;
        self.upload_broken = true;
        self.last = true;
        self.serving.exchange.sent(now);
        None
    }

    fn bad_body(&self, fault: &Fault) -> Outcome {
        if self.download.is_some() {
            return Outcome::Cut(Termination::ClientAbort);
        }
        match fault {
            Fault::Malformed(cause) => Outcome::BadBody(Reply::refused(400, cause)),
            Fault::TooLarge => Outcome::BadBody(Reply::of(Termination::BodyTooLarge)),
            Fault::Closed | Fault::Io(_) => Outcome::Cut(Termination::ClientAbort),
        }
    }

    /// Reads response heads up to the final one.
    fn poll_response<D: Downstream, U: Upstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        up: &mut U,
        now: Instant,
    ) -> Poll<Driven> {
        loop {
            let failure = match std::task::ready!(up.poll_head(cx)) {
                Err(HeadFault::Closed) => Failure::Closed { accepted: up.accepted() },
                Err(HeadFault::Malformed(cause)) => {
                    tracing::debug!(endpoint = %self.endpoint.key, cause, "malformed response");
                    Failure::BadResponse
                }
                Ok(()) if up.head().status == 101 && down.head().websocket => {
                    self.serving.exchange.response(up.head(), now);
                    down.respond(up.head(), None, true);
                    return Poll::Ready(Driven::Upgraded);
                }
                Ok(()) if up.head().status >= 200 => {
                    self.pass(down, up.head(), now);
                    return Poll::Pending;
                }
                Ok(()) if up.head().status == 101 || self.interims == INTERIMS_MAX => Failure::BadResponse,
                Ok(()) => {
                    self.interims += 1;
                    down.interim(up.head());
                    match down.poll_flush(cx) {
                        Poll::Ready(Err(_)) => return over(Outcome::Cut(Termination::ClientAbort)),
                        Poll::Ready(Ok(())) | Poll::Pending => continue,
                    }
                }
            };
            return over(Outcome::Failed(failure));
        }
    }

    fn pass<D: Downstream>(&mut self, down: &mut D, head: &ResponseHead, now: Instant) {
        let cookie = self.serving.exchange.response(head, now);
        // A connection whose request is still arriving cannot tell where the next one begins.
        self.last |= self.serving.last || self.upload != Pump::Done || self.serving.worker.is_draining();
        self.last = down.respond(head, cookie.as_deref(), self.last);
        self.download = Some(Pump::Flowing);
        self.download_moved = now;
    }

    /// Moves response body.
    fn turn_download<D: Downstream, U: Upstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        up: &mut U,
        now: Instant,
    ) -> Poll<Driven> {
        let Some(pump) = &mut self.download else { return Poll::Pending };
        let turn = match pump.turn(cx, up, down, &mut |_| ()) {
            Ok(turn) => turn,
            Err(Broken::Source(_)) => return over(Outcome::Cut(Termination::UpstreamTruncated)),
            Err(Broken::Sink(_)) => return over(Outcome::Cut(Termination::ClientAbort)),
        };
        self.serving.volume.down += turn.moved;
        if turn.moved > 0 {
            self.download_moved = now;
        }
        match turn.waits {
            Some(waits) => {
                self.download_waits = waits;
                Poll::Pending
            }
            None => {
                let clean = self.upload == Pump::Done && !self.upload_broken;
                Poll::Ready(Driven::Over { outcome: Outcome::Complete(!self.last), clean })
            }
        }
    }

    /// The next deadline, and what it means when it passes.
    fn deadline(&self, facts: &ConnFacts) -> (Option<Instant>, Outcome) {
        let exchange = &*self.serving.exchange;
        let (client_idle, upstream_idle, drain) = match exchange.settings() {
            Some(s) => (facts.listener.limits.body_idle, s.upstream.body_idle, s.upstream.drain_timeout),
            None => return (None, Outcome::Cut(Termination::Dropped)),
        };
        let waiting = self.download.is_none();
        let mut soonest = (exchange.deadline(), Termination::ResponseTimeout);
        let mut sooner = |at: Option<Instant>, why| {
            if let Some(at) = at
                && soonest.0.is_none_or(|known| at < known)
            {
                soonest = (Some(at), why);
            }
        };
        if self.upload != Pump::Done {
            match self.upload_waits {
                WaitsFor::Source => sooner(Some(self.upload_moved + client_idle), Termination::ClientIdle),
                WaitsFor::Sink => sooner(Some(self.upload_moved + upstream_idle), Termination::UpstreamIdle),
            }
        }
        if !waiting {
            match self.download_waits {
                WaitsFor::Source => sooner(Some(self.download_moved + upstream_idle), Termination::UpstreamIdle),
                WaitsFor::Sink => sooner(Some(self.download_moved + client_idle), Termination::ClientIdle),
            }
        }
        sooner(self.serving.worker.removed_at(self.endpoint).map(|at| at + drain), Termination::Drained);
        let outcome = match soonest.1 {
            why if !waiting => Outcome::Cut(why),
            Termination::ClientIdle => Outcome::BadBody(Reply::of(Termination::ClientIdle)),
            Termination::Drained => Outcome::Failed(Failure::Drained),
            _ => Outcome::Failed(Failure::HeadTimeout),
        };
        (soonest.0, outcome)
    }
}

fn over(outcome: Outcome) -> Poll<Driven> {
    Poll::Ready(Driven::Over { outcome, clean: false })
}

/// Answers a request ourselves. What is left of a body at hand is skipped; if more would have to come, the connection closes.
async fn answer<D: Downstream>(down: &mut D, reply: &Reply, last: bool, volume: &mut Volume) -> (Termination, bool) {
    let read = poll_fn(|cx| Poll::Ready(skip_body(cx, down, volume))).await;
    let last = last || reply.close || !read;
    down.reply(reply, last);
    let deadline = clock::now() + down.facts().listener.limits.body_idle;
    let sent = poll_fn(|cx| match down.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending => down.alarm().poll_until(cx, Some(deadline), clock::now()).map(|()| false),
    });
    if sent.await { (reply.termination, !last) } else { (Termination::ClientAbort, false) }
}

/// Skips what has arrived of a request body. Whether that was all of it.
fn skip_body<D: Downstream>(cx: &mut Context<'_>, down: &mut D, volume: &mut Volume) -> bool {
    let mut skipped = 0;
    while skipped < SKIP_MAX {
        match down.poll_fill(cx) {
            Poll::Ready(Ok(Fill::End)) => return true,
            Poll::Ready(Ok(Fill::Data)) => {
                let n = down.chunk().len();
                down.consume(n);
                skipped += n;
                volume.up += n as u64;
            }
            Poll::Ready(Err(_)) | Poll::Pending => return false,
        }
    }
    false
}

/// Most body bytes skipped to save a connection.
const SKIP_MAX: usize = 64 * 1024;

/// The future's output, or `None` when `deadline` passes first.
pub async fn within<T>(alarm: &Alarm, deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => alarm.poll_until(cx, deadline, clock::now()).map(|()| None),
    })
    .await
}

/// How the request head changes on its way to `endpoint`.
fn edits<'a>(
    exchange: &'a Exchange,
    head: &'a RequestHead,
    facts: &'a ConnFacts,
    endpoint: &'a EndpointLive,
) -> RequestEdits<'a> {
    let authority = head.get(head.authority);
    let address = endpoint.address_text.as_bytes();
    let host = match exchange.settings().map(|s| &s.upstream.host) {
        Some(HostMode::Name(name)) => name.as_bytes(),
        Some(HostMode::Preserve) if !authority.is_empty() => authority,
        _ => address,
    };
    let (strip_header, strip_cookie) = exchange.stripped();
    RequestEdits {
        target: exchange.target(),
        host,
        client_ip: facts.peer_text.as_bytes(),
        proto: if facts.secure { b"https" } else { b"http" },
        trusted: facts.trusted,
        request_id: exchange.request_id(),
        strip_header: strip_header.map(str::as_bytes),
        strip_cookie: strip_cookie.map(str::as_bytes),
        body: head.body,
        websocket: head.websocket,
    }
}

// === impl Kept ===

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        if self.bytes.len() + bytes.len() <= self.max {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.bytes = Vec::new();
            self.max = 0;
        }
    }

    fn state(&self) -> Replay {
        match self.taken {
            0 => Replay::Nothing,
            taken if taken == self.bytes.len() as u64 => Replay::Kept,
            _ => Replay::Truncated,
        }
    }
}
