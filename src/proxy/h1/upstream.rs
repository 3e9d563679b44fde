//! The upstream side of HTTP/1.1: one attempt on one connection.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::config::settings::Underscores;
use crate::proxy::edits::RequestEdits;
use crate::proxy::forward::{HeadFault, Raw, Upstream};
use crate::proxy::headers::{RequestHead, ResponseHead};
use crate::proxy::idle::Link;
use crate::proxy::worker::Worker;
use crate::state::live::EndpointLive;
use crate::state::pool::Connection;

use super::edit::write_request;
use super::head::{HeadLimits, RESPONSE_FIELDS_MAX, RESPONSE_HEAD_MAX, ScanState, parse_response, scan_response_head};
use super::wire::{Wire, Wired};

/// Bounds of the trailers of a response.
const TRAILERS: HeadLimits = HeadLimits {
    max_head: RESPONSE_HEAD_MAX,
    max_line: RESPONSE_HEAD_MAX,
    max_fields: RESPONSE_FIELDS_MAX,
    underscores: Underscores::Keep,
};

/// One attempt.
pub struct H1Upstream {
    wire: Wire,
    opened: Instant,
    room: Connection,
    dial_tag: u64,
    head: ResponseHead,
    scan: ScanState,
    head_request: bool,
    /// A final head was read.
    answered: bool,
}

// === impl H1Upstream ===

impl H1Upstream {
    /// An attempt over `link`, which carries nothing at this moment.
    #[must_use]
    pub fn new(link: Link, worker: &Worker) -> Self {
        let Link { io, opened, room, dial_tag } = link;
        let (mut wire, mut head) = (Wire::new(io, TRAILERS), ResponseHead::default());
        let mut buffers = worker.buffers();
        wire.input.attach(&mut buffers);
        wire.out = buffers.take();
        head.bytes = buffers.take();
        head.fields = buffers.take_fields();
        Self { wire, opened, room, dial_tag, head, scan: ScanState::default(), head_request: false, answered: false }
    }

    fn give_back(&mut self, worker: &Worker) {
        let mut buffers = worker.buffers();
        self.wire.input.detach(&mut buffers);
        buffers.give(std::mem::take(&mut self.wire.out));
        buffers.give(std::mem::take(&mut self.head.bytes));
        buffers.give_fields(std::mem::take(&mut self.head.fields));
    }
}

impl Upstream for H1Upstream {
    const MAY_REFUSE: bool = false;

    fn begin(&mut self, head: &RequestHead, edits: &RequestEdits<'_>) {
        self.head_request = head.get(head.method) == b"HEAD";
        write_request(&mut self.wire.out, head, edits);
        self.wire.announce(edits.body);
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HeadFault>> {
        loop {
            let bytes = self.wire.input.bytes();
            let seen = !bytes.is_empty();
            let found = if seen { scan_response_head(bytes, &mut self.scan) } else { Ok(None) };
            match found {
                Err(bad) => return Poll::Ready(Err(HeadFault::Malformed(bad.cause))),
                Ok(Some(len)) => {
                    self.scan = ScanState::default();
                    self.wire.input.split_head(len, &mut self.head.bytes);
                    if let Err(bad) = parse_response(&mut self.head, len, self.head_request) {
                        return Poll::Ready(Err(HeadFault::Malformed(bad.cause)));
                    }
                    if self.head.status >= 200 {
                        self.answered = true;
                        self.wire.expect(self.head.body, TRAILERS, None);
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => match ready!(self.wire.poll_read(cx)) {
                    Ok(n) if n > 0 => {}
                    _ if seen => return Poll::Ready(Err(HeadFault::Malformed("closed within a response head"))),
                    _ => return Poll::Ready(Err(HeadFault::Closed)),
                },
            }
        }
    }

    fn head(&self) -> &ResponseHead {
        &self.head
    }

    fn accepted(&self) -> bool {
        self.wire.sent > 0
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        // A tunnel writes from where it reads, and has no more heads.
        self.wire.out = Vec::new();
        self.head.bytes = Vec::new();
        Some(Raw { ahead: &mut self.wire.input, io: &mut self.wire.io })
    }

    fn finish(mut self, worker: &Worker, endpoint: &EndpointLive, idle_max: Duration, clean: bool) {
        // Bytes behind a response belong to no request (response splitting): nobody may ever read them as an answer.
        let reusable =
            clean && self.answered && self.head.keep_alive && self.wire.is_drained() && self.wire.is_written();
        self.give_back(worker);
        if reusable && !worker.is_draining() {
            let link = Link { io: self.wire.io, opened: self.opened, room: self.room, dial_tag: self.dial_tag };
            worker.give_back(endpoint, link, idle_max);
        }
    }
}

impl Wired for H1Upstream {
    fn wire(&self) -> &Wire {
        &self.wire
    }

    fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
