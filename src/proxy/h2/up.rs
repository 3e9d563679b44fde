//! The upstream side of HTTP/2: one attempt as one stream of a session.
//!
//! pingora-core dials and does TLS with ALPN; the sessions are ours, directly on the client of the `h2` crate. pingora's own drop interim
//! responses, cannot be driven by polling, and cannot be closed when their endpoint leaves.

mod head;
mod keeper;
pub mod session;
pub mod sessions;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::Reason;
use h2::client::ResponseFuture;

use crate::config::settings::Underscores;
use crate::proxy::body::{Fault, Fill, Sink, Source};
use crate::proxy::edits::RequestEdits;
use crate::proxy::forward::{HeadFault, Raw, Upstream};
use crate::proxy::h1::head::{RESPONSE_FIELDS_MAX, RESPONSE_HEAD_MAX};
use crate::proxy::headers::{BodyLength, HttpVersion, RequestHead, ResponseHead, Trailers};
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;

use self::session::Lease;
use super::body::{Bounds, Inbound, Outbound, is_our_limit};

/// Bounds of the body of a response.
const BODY: Bounds =
    Bounds { payload: None, fields: RESPONSE_FIELDS_MAX, size: RESPONSE_HEAD_MAX, underscores: Underscores::Keep };

/// One attempt.
pub struct H2Upstream {
    request: Option<Outbound>,
    response: Option<ResponseFuture>,
    body: Option<Inbound>,
    head: ResponseHead,
    head_request: bool,
    /// No interim response comes any more.
    interim_over: bool,
    /// Why the request was not even begun.
    unsent: Option<HeadFault>,
    /// What the session had written before.
    written_before: u64,
    lease: Lease,
}

// === impl H2Upstream ===

impl H2Upstream {
    /// An attempt on a stream of its own.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self {
            request: None,
            response: None,
            body: None,
            head: ResponseHead::default(),
            head_request: false,
            interim_over: false,
            unsent: None,
            written_before: lease.written(),
            lease,
        }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HeadFault>> {
        if let Some(fault) = self.unsent {
            return Poll::Ready(Err(fault));
        }
        let Some(response) = &mut self.response else { return Poll::Ready(Err(HeadFault::Closed)) };
        if !self.interim_over {
            if let Some(interim) = ready!(response.poll_informational(cx)) {
                let interim = interim.map_err(|error| head_fault(&error))?;
                self.lease.answered();
                let read = head::response(&mut self.head, interim.status(), interim.headers(), true, false);
                return Poll::Ready(read.map_err(HeadFault::Malformed));
            }
            self.interim_over = true;
        }
        let (parts, stream) = ready!(Pin::new(response).poll(cx)).map_err(|error| head_fault(&error))?.into_parts();
        self.lease.answered();
        let ended = stream.is_end_stream();
        let read = head::response(&mut self.head, parts.status, &parts.headers, ended, self.head_request);
        read.map_err(HeadFault::Malformed)?;
        self.body = Some(Inbound::new(stream, self.head.body, BODY));
        Poll::Ready(Ok(()))
    }
}

/// What an error instead of a response head means.
fn head_fault(error: &h2::Error) -> HeadFault {
    // Beyond the last stream the peer has taken on, or refused by it: nothing has looked at the request (RFC 9113 section 8.7).
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (refused || error.is_go_away()) {
        return HeadFault::Refused;
    }
    if is_our_limit(error) {
        return HeadFault::Limit;
    }
    if error.is_library() {
        return HeadFault::Malformed("frames or fields that are not HTTP/2");
    }
    if error.is_reset() { HeadFault::Reset } else { HeadFault::Closed }
}

impl Upstream for H2Upstream {
    const MAY_REFUSE: bool = true;

    fn begin(&mut self, head: &RequestHead, edits: &RequestEdits<'_>) {
        self.head_request = head.get(head.method) == b"HEAD";
        let Some(request) = head::request(head, edits, self.lease.is_secure()) else {
            self.unsent = Some(HeadFault::Unsendable);
            return;
        };
        match self.lease.send.send_request(request, edits.body == BodyLength::None) {
            Ok((response, stream)) => {
                self.response = Some(response);
                let trailers = head.version == HttpVersion::Http2;
                self.request = Some(Outbound::new(stream, edits.body, trailers));
            }
            // The session ended since the stream was leased: nothing was sent.
            Err(_) => self.unsent = Some(HeadFault::Refused),
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HeadFault>> {
        self.poll_response(cx)
    }

    fn head(&self) -> &ResponseHead {
        &self.head
    }

    fn accepted(&self) -> bool {
        self.lease.written() > self.written_before
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        None
    }

    fn finish(mut self, _: &Worker, _: &EndpointLive, _: Duration, clean: bool) {
        // The session goes on without this stream.
        if let Some(request) = self.request.as_mut().filter(|_| !clean) {
            request.reset(Reason::CANCEL);
        }
    }
}

impl Source for H2Upstream {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Err(Fault::Closed)) };
        let fill = ready!(body.poll_fill(cx))?;
        self.lease.answered();
        Poll::Ready(Ok(fill))
    }

    fn chunk(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], Source::chunk)
    }

    fn consume(&mut self, n: usize) {
        if let Some(body) = &mut self.body {
            body.consume(n);
        }
    }

    fn trailers(&self) -> Option<&Trailers> {
        self.body.as_ref().and_then(Source::trailers)
    }
}

impl Sink for H2Upstream {
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        match &mut self.request {
            Some(request) => request.poll_send(cx, chunk),
            None => Poll::Ready(Err(Fault::Closed)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match &mut self.request {
            Some(request) => request.poll_flush(cx),
            None => Poll::Ready(Err(Fault::Closed)),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        match &mut self.request {
            Some(request) => request.poll_end(cx, trailers),
            None => Poll::Ready(Err(Fault::Closed)),
        }
    }
}

#[cfg(test)]
mod tests;
