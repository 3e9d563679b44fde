//! THE forwarding loop: a downstream codec, an upstream codec, an [`Exchange`]. Written once, compiled for each pair of protocols.
//!
//! The loop moves bytes and watches timers; what to do with a failure, a response or a retry is asked of the exchange.

mod connect;
mod drive;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::service::{HostMode, Protocol};
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use crate::proxy::body::{Fill, Sink, Source};
use crate::proxy::edits::RequestEdits;
use crate::proxy::exchange::{Attempt, Exchange, Failure, Next, Replay, Verdict};
use crate::proxy::facts::ConnFacts;
use crate::proxy::h1::upstream::H1Upstream;
use crate::proxy::headers::{BodyLength, RequestHead, ResponseHead};
use crate::proxy::io::{Buf, Stream};
use crate::proxy::respond::Reply;
use crate::proxy::timer::Alarm;
use crate::proxy::upgrade;
use crate::proxy::worker::Worker;

pub use self::connect::Complaints;

use self::drive::{Drive, Driven};

/// The client's side of one request.
pub trait Downstream: Source + Sink {
    /// Whether a client that leaves can be told from one that goes on sending its request.
    const SAYS_GONE: bool = false;
    /// The head of the request.
    fn head(&self) -> &RequestHead;
    /// When its first byte came.
    fn arrived(&self) -> Instant;
    /// Who is there.
    fn facts(&self) -> &Rc<ConnFacts>;
    /// The connection's alarm.
    fn alarm(&self) -> &Alarm;
    /// Ready when the client is gone; to be asked when nothing of the request is left to read, and before only with [`Self::SAYS_GONE`].
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Whether the client has closed its side. It may be gone, or have said all it had to say.
    fn is_half_closed(&self) -> bool {
        false
    }
    /// Buffers an interim head (RFC 9110 section 15.2), if the client's protocol has them.
    fn interim(&mut self, head: &ResponseHead);
    /// Buffers a response head. `last` says that the connection must not serve another request; returns whether it cannot. While the
    /// process drains it is the last unless another request has arrived already.
    fn respond(&mut self, head: &ResponseHead, set_cookie: Option<&[u8]>, last: bool) -> bool;
    /// Buffers an answer of the proxy's own, body included. `last` and what is returned as in [`Downstream::respond`].
    fn reply(&mut self, reply: &Reply, last: bool) -> bool;
    /// Makes the end of the connection, or of the stream, one that nobody can take for the end of a message.
    fn cut(&mut self, why: Termination);
    /// The bare connection, for an upgraded stream; `None` where the protocol has no such thing.
    fn raw(&mut self) -> Option<Raw<'_>>;
}

/// The upstream's side of one attempt.
pub trait Upstream: Source + Sink {
    /// Whether it can say that nothing has looked at a request it took.
    const MAY_REFUSE: bool;
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
    /// The upstream said that nothing of it has looked at the request.
    Refused,
    /// The upstream gave this one request up.
    Reset,
    /// The connection was ended here, over a limit that whatever was on it had reached.
    Limit,
    /// The upstream's protocol has no way to say this request.
    Unsendable,
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
    /// The client has sent its whole request.
    whole: bool,
}

/// Why a request does not wait any more.
enum Wake {
    /// It goes on.
    Due,
    /// Its client left.
    Gone,
}

/// How an attempt came out.
enum Outcome {
    /// The response was delivered; whether the client's connection may go on.
    Complete(bool),
    /// No response head; the client has seen nothing.
    Failed(Failure),
    /// The response was dropped; the client has seen nothing.
    Again(Next),
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
    worker.tick();
    let mut exchange = worker.exchange(down.head(), &facts, down.arrived());
    let mut next = worker.begin(&mut exchange, down.head(), &facts);
    let mut kept = Kept { whole: down.head().body == BodyLength::None, ..Kept::default() };
    let mut volume = Volume::default();
    let (termination, reusable) = loop {
        let attempt = match next {
            Next::Send(attempt) => attempt,
            Next::Park { until } => match park(down, &exchange, &kept, until).await {
                Wake::Due => {
                    next = worker.unpark(&mut exchange);
                    continue;
                }
                Wake::Gone => {
                    down.cut(Termination::ClientAbort);
                    break (Termination::ClientAbort, false);
                }
            },
            Next::Reply(reply) => {
                let reply = exchange.worded(reply);
                break answer(down, worker, &reply, last, &mut volume).await;
            }
        };
        let mut turn = Serving { worker, exchange: &mut exchange, kept: &mut kept, volume: &mut volume, last };
        match turn.attempt(down, attempt).await {
            Outcome::Complete(reusable) => break (Termination::Complete, reusable),
            Outcome::Failed(failure) => next = worker.failed(&mut exchange, failure, kept.state()),
            Outcome::Again(again) => next = again,
            Outcome::BadBody(reply) => {
                let reply = exchange.worded(reply);
                break answer(down, worker, &reply, true, &mut volume).await;
            }
            Outcome::Cut(termination) => {
                down.cut(termination);
                break (termination, false);
            }
            Outcome::Tunnelled(termination) => break (termination, false),
        }
    };
    let observation = exchange.end(termination, worker.now());
    worker.observe(&exchange, &observation, down.head(), &facts, volume);
    reusable
}

/// Waits for the next attempt: until then, until its pool is shut, or until the client is gone (which HTTP/1.1 only shows once it has sent
/// everything).
async fn park<D: Downstream>(down: &mut D, exchange: &Exchange, kept: &Kept, until: Instant) -> Wake {
    poll_fn(|cx| {
        let now = clock::now();
        if until <= now || exchange.is_shut_out() {
            return Poll::Ready(Wake::Due);
        }
        if kept.poll_gone(cx, down).is_ready() {
            return Poll::Ready(Wake::Gone);
        }
        down.alarm().poll_until(cx, Some(until), now).map(|()| Wake::Due)
    })
    .await
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
    async fn attempt<D: Downstream>(&mut self, down: &mut D, attempt: Attempt) -> Outcome {
        let attempt = &attempt;
        let protocol = self.exchange.settings().map(|service| service.upstream.protocol);
        let served = match protocol {
            // Boxed: every connection would carry room for a stream of a session that is somewhere else.
            Some(Protocol::Http2) => Box::pin(self.over_session(down, attempt)).await,
            _ => self.over_connection(down, attempt).await,
        };
        served.unwrap_or_else(|outcome| outcome)
    }

    async fn over_session<D: Downstream>(&mut self, down: &mut D, attempt: &Attempt) -> Result<Outcome, Outcome> {
        let mut up = self.lease(down, attempt).await?;
        let (outcome, clean) = self.serve(down, &mut up, attempt).await;
        up.finish(self.worker, attempt.in_flight.endpoint(), self.idle_max(), clean);
        Ok(outcome)
    }

    async fn over_connection<D: Downstream>(&mut self, down: &mut D, attempt: &Attempt) -> Result<Outcome, Outcome> {
        let link = match self.idle(attempt) {
            Some(link) => link,
            None => self.connect(down, attempt).await?,
        };
        let mut up = H1Upstream::new(link, self.worker);
        let (outcome, clean) = self.serve(down, &mut up, attempt).await;
        up.finish(self.worker, attempt.in_flight.endpoint(), self.idle_max(), clean);
        Ok(outcome)
    }

    /// Moves everything both ways. With the outcome comes whether the upstream connection is between messages.
    async fn serve<D: Downstream, U: Upstream>(
        &mut self,
        down: &mut D,
        up: &mut U,
        attempt: &Attempt,
    ) -> (Outcome, bool) {
        let endpoint = attempt.in_flight.endpoint();
        self.kept.allow(self.exchange.replay_max(U::MAY_REFUSE), down.head().body);
        let now = self.worker.now();
        up.begin(down.head(), &edits(self.exchange, down.head(), down.facts(), endpoint, now));
        let mut drive = Drive::new(self, endpoint, now);
        match poll_fn(|cx| drive.poll(cx, down, up)).await {
            Driven::Upgraded => {
                self.exchange.upgraded();
                let Some(service) = self.exchange.settings().map(Arc::clone) else {
                    return (Outcome::Failed(Failure::Connect), false);
                };
                // Boxed: it is large and rare, and every connection would carry room for it.
                let tunnel =
                    Box::pin(upgrade::tunnel(down, up, self.worker, self.exchange, endpoint, &service, self.volume));
                let ended = tunnel.await;
                self.worker.tick();
                (Outcome::Tunnelled(ended), false)
            }
            Driven::Over { outcome, clean } => (outcome, clean),
        }
    }

    fn respond(&mut self, head: &ResponseHead, now: Instant) -> Verdict {
        self.worker.respond(self.exchange, head, self.kept.state(), now)
    }

    fn is_overdue(&mut self, now: Instant) -> bool {
        self.worker.is_overdue(self.exchange, self.kept.state(), now)
    }

    /// How long the connection may be idle.
    fn idle_max(&self) -> Duration {
        self.exchange.settings().map_or(Duration::ZERO, |service| service.upstream.keepalive_idle)
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Answers a request ourselves. What is left of a body at hand is skipped; if more would have to come, the connection closes.
async fn answer<D: Downstream>(
    down: &mut D,
    worker: &Worker,
    reply: &Reply,
    last: bool,
    volume: &mut Volume,
) -> (Termination, bool) {
    let read = poll_fn(|cx| Poll::Ready(skip_body(cx, down, volume))).await;
    let last = down.reply(reply, last || reply.close || !read);
    let deadline = clock::now() + down.facts().listener.limits.body_idle;
    let sent = poll_fn(|cx| match down.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result.is_ok()),
        Poll::Pending => down.alarm().poll_until(cx, Some(deadline), clock::now()).map(|()| false),
    });
    let sent = sent.await;
    worker.tick();
    if sent { (reply.termination, !last) } else { (Termination::ClientAbort, false) }
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
    now: Instant,
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
        call_left: exchange.call_left(now),
        // There is no handshake to pass on in HTTP/2: the request goes without it, as to any server that does not know the upgrade.
        websocket: head.websocket && exchange.settings().is_none_or(|s| s.upstream.protocol == Protocol::Http1),
    }
}

// === impl Kept ===

impl Kept {
    /// Keeps what comes from now on of a body of this length, up to `max` bytes in all; nothing of one that is longer.
    fn allow(&mut self, max: u64, length: BodyLength) {
        let fits = !matches!(length, BodyLength::Exact(length) if length > max);
        self.max = usize::try_from(max).ok().filter(|_| fits).unwrap_or(0);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.taken += bytes.len() as u64;
        if self.bytes.len() + bytes.len() <= self.max {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.forget();
        }
    }

    /// Ready when the client is known to have left.
    fn poll_gone<D: Downstream>(&self, cx: &mut Context<'_>, down: &mut D) -> Poll<()> {
        if self.whole || D::SAYS_GONE { down.poll_gone(cx) } else { Poll::Pending }
    }

    /// Nothing will be sent again.
    fn forget(&mut self) {
        self.bytes = Vec::new();
        self.max = 0;
    }

    fn state(&self) -> Replay {
        match self.taken {
            0 => Replay::Nothing,
            taken if taken == self.bytes.len() as u64 => Replay::Kept,
            _ => Replay::Truncated,
        }
    }
}

#[cfg(test)]
mod tests;
