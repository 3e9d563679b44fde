//! One attempt in both directions: what moves, what waits, what has timed out.

use std::task::{Context, Poll};
use std::time::Instant;

use crate::proxy::body::{Broken, Fault, Fill, Pump, WaitsFor};
use crate::proxy::exchange::{Failure, Verdict};
use crate::proxy::facts::ConnFacts;
use crate::proxy::headers::ResponseHead;
use crate::proxy::respond::Reply;
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use super::{Downstream, HeadFault, Outcome, SKIP_MAX, Serving, Upstream};

/// Both directions of one attempt, as one future without tasks or channels.
pub(super) struct Drive<'a, 'b> {
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
    /// When the attempt began, until the first turn.
    begun: Option<Instant>,
}

pub(super) enum Driven {
    Upgraded,
    /// `clean`: the upstream connection is between messages.
    Over {
        outcome: Outcome,
        clean: bool,
    },
}

/// Most interim responses passed for one request.
pub(super) const INTERIMS_MAX: u32 = 8;

impl<'a, 'b> Drive<'a, 'b> {
    /// An attempt on `endpoint` whose request head is buffered.
    pub(super) fn new(serving: &'a mut Serving<'b>, endpoint: &'a EndpointLive, now: Instant) -> Self {
        Self {
            serving,
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
            begun: Some(now),
        }
    }
}

impl Drive<'_, '_> {
    pub(super) fn poll<D: Downstream, U: Upstream>(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut D,
        up: &mut U,
    ) -> Poll<Driven> {
        // The first turn follows the beginning of the attempt at once.
        let now = match self.begun.take() {
            Some(now) => now,
            None => self.serving.worker.tick(),
        };
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
        loop {
            let (deadline, outcome) = self.deadline(down.facts());
            // Whoever has closed its side may wait for its answer, or not: the request goes on, but what it says of the endpoint is decided.
            let doubt = if down.is_half_closed() { self.serving.exchange.doubt() } else { None };
            let soonest = [deadline, doubt].into_iter().flatten().min();
            std::task::ready!(down.alarm().poll_until(cx, soonest, now));
            if doubt.is_some_and(|at| at <= now) {
                self.serving.exchange.doubted(now);
                continue;
            }
            if !matches!(outcome, Outcome::Failed(Failure::HeadTimeout)) || self.serving.is_overdue(now) {
                return over(outcome);
            }
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
                if let Some(waits) = turn.waits {
                    self.upload_waits = waits;
                } else {
                    self.serving.kept.whole = true;
                    self.serving.exchange.sent(now);
                }
                None
            }
            Err(Broken::Sink(_)) => self.stop_upload(now),
            // The response has begun: it is finished, whatever the client leaves out of its request (RFC 9112 section 9.3).
            Err(Broken::Source(fault)) if self.download.is_some() && !matches!(fault, Fault::Io(_)) => {
                self.stop_upload(now)
            }
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
            Fault::TrailersTooLarge => Outcome::BadBody(Reply::refused(431, "the trailers are too large")),
            Fault::Closed | Fault::Limit | Fault::Io(_) => Outcome::Cut(Termination::ClientAbort),
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
        // An interim response that did not fit must not wait for the final one.
        if self.interims > 0 && matches!(down.poll_flush(cx), Poll::Ready(Err(_))) {
            return over(Outcome::Cut(Termination::ClientAbort));
        }
        loop {
            let failure = match std::task::ready!(up.poll_head(cx)) {
                Err(HeadFault::Refused) => Failure::Refused,
                Err(HeadFault::Reset) => Failure::Reset,
                Err(HeadFault::Limit) => Failure::SessionLimit,
                Err(HeadFault::Unsendable) => {
                    let reply = Reply::refused(414, "the target is too long for the protocol of the upstream");
                    return over(Outcome::BadBody(reply));
                }
                Err(HeadFault::Closed) => Failure::Closed { accepted: up.accepted() },
                Err(HeadFault::Malformed(cause)) => {
                    tracing::debug!(endpoint = %self.endpoint.key, cause, "malformed response");
                    Failure::BadResponse
                }
                Ok(()) if up.head().status == 101 && down.head().websocket && self.upload == Pump::Done => {
                    self.serving.respond(up.head(), now);
                    down.respond(up.head(), None, true);
                    return Poll::Ready(Driven::Upgraded);
                }
                Ok(()) if up.head().status >= 200 => {
                    return match self.serving.respond(up.head(), now) {
                        Verdict::Pass(cookie) => {
                            self.pass(down, up.head(), cookie, now);
                            Poll::Pending
                        }
                        Verdict::Discard(next) => {
                            let clean = self.upload == Pump::Done && !self.upload_broken && skip_response(cx, up);
                            Poll::Ready(Driven::Over { outcome: Outcome::Again(next), clean })
                        }
                    };
                }
                Ok(()) if up.head().status == 101 || self.interims == INTERIMS_MAX => Failure::BadResponse,
                Ok(()) => {
                    self.interims += 1;
                    self.serving.exchange.informed();
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

    fn pass<D: Downstream>(&mut self, down: &mut D, head: &ResponseHead, cookie: Option<Vec<u8>>, now: Instant) {
        // A connection whose request is still arriving cannot tell where the next one begins.
        self.last |= self.serving.last || self.upload != Pump::Done;
        self.last = down.respond(head, cookie.as_deref(), self.last);
        if let Some(cookie) = cookie {
            self.serving.worker.give_cookie(cookie);
        }
        if self.replayed == self.serving.kept.bytes.len() {
            self.serving.kept.forget();
            self.replayed = 0;
        }
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
            Err(Broken::Source(Fault::Limit)) => return over(Outcome::Cut(Termination::SessionLimit)),
            Err(Broken::Source(_)) => return over(Outcome::Cut(Termination::UpstreamTruncated)),
            Err(Broken::Sink(_)) => return over(Outcome::Cut(Termination::ClientAbort)),
        };
        self.serving.volume.down += turn.moved;
        if turn.moved > 0 {
            self.download_moved = now;
        }
        if let Some(waits) = turn.waits {
            self.download_waits = waits;
            return Poll::Pending;
        }
        self.serving.exchange.trailers(up.trailers(), now);
        let clean = self.upload == Pump::Done && !self.upload_broken;
        Poll::Ready(Driven::Over { outcome: Outcome::Complete(!self.last), clean })
    }

    /// The next deadline, and what it means when it passes.
    fn deadline(&self, facts: &ConnFacts) -> (Option<Instant>, Outcome) {
        let exchange = &*self.serving.exchange;
        let Some(settings) = exchange.settings() else { return (None, Outcome::Cut(Termination::Dropped)) };
        let (limits, upstream) = (&facts.listener.limits, &settings.upstream);
        let waiting = self.download.is_none();
        // Once the response has begun both directions are one conversation: whoever only listens is no less there.
        let moved = if waiting { self.upload_moved } else { self.upload_moved.max(self.download_moved) };
        let (client_idle, upstream_idle) = if exchange.is_call() && !waiting {
            (limits.grpc_idle, limits.grpc_idle)
        } else {
            (limits.body_idle, upstream.body_idle)
        };
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
                WaitsFor::Source => sooner(Some(moved + client_idle), Termination::ClientIdle),
                WaitsFor::Sink => sooner(Some(moved + upstream_idle), Termination::UpstreamIdle),
            }
        }
        if !waiting {
            match self.download_waits {
                WaitsFor::Source => sooner(Some(moved + upstream_idle), Termination::UpstreamIdle),
                WaitsFor::Sink => sooner(Some(moved + client_idle), Termination::ClientIdle),
            }
        }
        sooner(
            self.serving.worker.leaving_at(self.endpoint).map(|at| at + upstream.drain_timeout),
            Termination::Drained,
        );
        let outcome = match soonest.1 {
            why if !waiting => Outcome::Cut(why),
            Termination::ClientIdle => Outcome::BadBody(Reply::of(Termination::ClientIdle)),
            Termination::Drained => Outcome::Failed(Failure::Drained),
            _ => Outcome::Failed(Failure::HeadTimeout),
        };
        (soonest.0, outcome)
    }
}

/// Skips what has arrived of a response nobody gets. Whether that was all of it, so that its connection can be used again.
fn skip_response<U: Upstream>(cx: &mut Context<'_>, up: &mut U) -> bool {
    let mut skipped = 0;
    while skipped < SKIP_MAX {
        match up.poll_fill(cx) {
            Poll::Ready(Ok(Fill::End)) => return true,
            Poll::Ready(Ok(Fill::Data)) => {
                let n = up.chunk().len();
                up.consume(n);
                skipped += n;
            }
            Poll::Ready(Err(_)) | Poll::Pending => return false,
        }
    }
    false
}

fn over(outcome: Outcome) -> Poll<Driven> {
    Poll::Ready(Driven::Over { outcome, clean: false })
}
