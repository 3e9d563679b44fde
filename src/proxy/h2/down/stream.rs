//! One HTTP/2 stream as the client's side of one request.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;

use crate::clock::HttpDate;
use crate::proxy::body::{Fault, Fill, Sink, Source};
use crate::proxy::facts::ConnFacts;
use crate::proxy::forward::{Downstream, Raw};
use crate::proxy::h1::edit::ResponseEdits;
use crate::proxy::h2::body::{Inbound, Outbound};
use crate::proxy::headers::{BodyLength, HttpVersion, Known, RequestHead, ResponseHead, Trailers};
use crate::proxy::respond::Reply;
use crate::proxy::timer::Alarm;
use crate::telemetry::termination::Termination;

use super::Shared;
use super::head::{write_interim, write_reply, write_response};

/// A request and where its answer goes.
pub struct Stream {
    shared: Rc<Shared>,
    head: RequestHead,
    alarm: Alarm,
    arrived: Instant,
    inbound: Inbound,
    respond: SendResponse<Bytes>,
    /// `None` until the response head was handed over.
    outbound: Option<Outbound>,
}

// === impl Stream ===

impl Stream {
    /// A request whose head arrived just now.
    pub(super) fn new(
        shared: Rc<Shared>,
        head: RequestHead,
        arrived: Instant,
        inbound: Inbound,
        respond: SendResponse<Bytes>,
    ) -> Self {
        shared.began();
        let alarm = shared.worker.alarm();
        Self { shared, head, alarm, arrived, inbound, respond, outbound: None }
    }

    /// Answers a request that is none we take, or one we have no room for.
    pub(super) fn answer(
        respond: &mut SendResponse<Bytes>,
        reply: &Reply,
        date: &str,
        bodyless: bool,
    ) -> Option<Outbound> {
        let (text, end) = reply.body();
        let bodyless = bodyless || text.is_empty();
        let response = write_reply(reply, date.as_bytes());
        // It fails only when the client is gone already.
        let mut stream = respond.send_response(response, bodyless).ok()?;
        if !bodyless {
            stream.send_data([text, end].concat().into(), true).ok()?;
        }
        Some(Outbound::new(stream, BodyLength::None, false))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.ended(std::mem::take(&mut self.head));
    }
}

impl Downstream for Stream {
    const SAYS_GONE: bool = true;

    fn head(&self) -> &RequestHead {
        &self.head
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn facts(&self) -> &Rc<ConnFacts> {
        &self.shared.facts
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.outbound {
            Some(outbound) => outbound.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    fn interim(&mut self, head: &ResponseHead) {
        // It fails only when the client is gone, which shows at the next turn.
        let _ = self.respond.send_informational(write_interim(head));
    }

    fn respond(&mut self, head: &ResponseHead, set_cookie: Option<&[u8]>, last: bool) -> bool {
        let body = match head.body {
            BodyLength::UntilClose => BodyLength::Chunked,
            body => body,
        };
        let date = head.known(Known::Date).is_none().then(|| self.shared.worker.http_date());
        let edits = ResponseEdits {
            body,
            close: false,
            keep_alive_10: false,
            no_body_head: head.status == 304 || self.head.get(self.head.method) == b"HEAD",
            date: date.as_ref().map(HttpDate::as_bytes),
            set_cookie,
            extra: &[],
        };
        let sent = self.respond.send_response(write_response(head, &edits), body == BodyLength::None);
        let outbound = |stream| Outbound::new(stream, body, head.version == HttpVersion::Http2);
        self.outbound = sent.ok().map(|stream| outbound(stream).with_metadata(head.is_grpc()));
        last
    }

    fn reply(&mut self, reply: &Reply, last: bool) -> bool {
        let bodyless = self.head.get(self.head.method) == b"HEAD";
        let date = self.shared.worker.http_date();
        self.outbound = Self::answer(&mut self.respond, reply, &date, bodyless);
        last
    }

    fn cut(&mut self, why: Termination) {
        let reason = match why {
            Termination::ClientAbort | Termination::ClientIdle => Reason::CANCEL,
            _ => Reason::INTERNAL_ERROR,
        };
        match &mut self.outbound {
            Some(outbound) => outbound.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        None
    }
}

impl Source for Stream {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        self.inbound.poll_fill(cx)
    }

    fn chunk(&self) -> &[u8] {
        self.inbound.chunk()
    }

    fn consume(&mut self, n: usize) {
        self.inbound.consume(n);
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.inbound.trailers()
    }
}

impl Sink for Stream {
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        match &mut self.outbound {
            Some(outbound) => outbound.poll_send(cx, chunk),
            None => Poll::Ready(Err(Fault::Closed)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match &mut self.outbound {
            Some(outbound) => outbound.poll_flush(cx),
            // Interim heads go out with the connection's other frames.
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        match &mut self.outbound {
            Some(outbound) => outbound.poll_end(cx, trailers),
            None => Poll::Ready(Err(Fault::Closed)),
        }
    }
}
