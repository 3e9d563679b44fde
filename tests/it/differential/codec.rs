//! Our own codec, driven as a connection drives it: over a wire, from a stream that may be split anywhere.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tidegate::config::settings::{Limits, Underscores};
use tidegate::proxy::body::{Fault, Fill};
use tidegate::proxy::h1::head::{
    HeadLimits, RESPONSE_FIELDS_MAX, RESPONSE_HEAD_MAX, ScanState, parse_request, parse_response, scan_head,
    scan_response_head,
};
use tidegate::proxy::h1::wire::Wire;
use tidegate::proxy::headers::{Field, HttpVersion, RequestHead, ResponseHead, Trailers};
use tidegate::proxy::io::Stream;

use super::message::{End, Pair, Request, Requests, Response, canonical};
use super::pipe::Pipe;

/// A request we accept, with what is needed to write it anew.
pub struct Accepted {
    pub head: RequestHead,
    pub body: Vec<u8>,
    pub trailers: Trailers,
}

/// An answer we accept.
#[derive(Default)]
pub struct Answer {
    pub head: ResponseHead,
    pub body: Vec<u8>,
    pub trailers: Trailers,
    pub complete: bool,
    /// Informational heads before it.
    pub interim: Vec<ResponseHead>,
    /// Whether nothing follows it.
    pub drained: bool,
}

/// The limits of a listener that says nothing about them.
#[must_use]
pub fn limits(underscores: Underscores) -> HeadLimits {
    HeadLimits::new(&Limits::default(), underscores)
}

/// Those of an upstream.
#[must_use]
pub fn upstream_limits() -> HeadLimits {
    HeadLimits {
        max_head: RESPONSE_HEAD_MAX,
        max_line: RESPONSE_HEAD_MAX,
        max_fields: RESPONSE_FIELDS_MAX,
        underscores: Underscores::Keep,
    }
}

/// Runs a future that never waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("waits although everything is there"),
    }
}

fn wire(pipe: Pipe, limits: HeadLimits) -> Wire {
    Wire::new(Stream::Dialled(Box::new(pipe)), limits)
}

/// The requests we see in `raw` when it arrives up to each of `cuts` in turn.
#[must_use]
pub fn requests(raw: &[u8], cuts: &[usize], limits: HeadLimits) -> (Requests, Vec<Accepted>) {
    let mut wire = wire(Pipe::split(raw, cuts), limits);
    let (mut messages, mut accepted) = (Vec::new(), Vec::new());
    let end = loop {
        let mut head = RequestHead::default();
        let len = match read_head(&mut wire, &limits) {
            Ok(len) => len,
            Err(end) => break end,
        };
        wire.input.split_head(len, &mut head.bytes);
        let raw_target = head.bytes.split(|byte| *byte == b' ').nth(1).unwrap_or_default().to_vec();
        if let Err(refusal) = parse_request(&mut head, len, &limits) {
            break End::Refused(refusal.status, refusal.cause.into());
        }
        wire.expect(head.body, limits, None);
        let mut message = request(&head, raw_target);
        let received = receive(&mut wire, &mut message.body);
        message.complete = received.is_ok();
        if message.complete {
            let trailers = wire.trailers().cloned().unwrap_or_default();
            message.trailers = Some(pairs(&trailers.bytes, &trailers.fields));
            accepted.push(Accepted { head, body: message.body.clone(), trailers });
        }
        let last = !message.keep_alive;
        messages.push(message);
        match received {
            Ok(()) if last => break End::Last,
            Ok(()) => {}
            Err(end) => break end,
        }
    };
    (Requests { messages, end }, accepted)
}

/// Waits for a head as [`tidegate::proxy::h1::connection`] does.
fn read_head(wire: &mut Wire, limits: &HeadLimits) -> Result<usize, End> {
    let mut scan = ScanState::default();
    if wire.input.bytes() == b"\r\n" {
        wire.input.clear();
        scan = ScanState::after_empty_line();
    }
    loop {
        if !wire.input.is_empty() {
            match scan_head(wire.input.bytes(), &mut scan, limits) {
                Ok(Some(len)) => return Ok(len),
                Ok(None) => {}
                Err(refusal) => return Err(End::Refused(refusal.status, refusal.cause.into())),
            }
        }
        if read(wire) == 0 {
            let between = matches!(wire.input.bytes(), b"" | b"\r\n");
            return Err(if between { End::Closed } else { End::Cut });
        }
    }
}

fn read(wire: &mut Wire) -> usize {
    now(poll_fn(|cx| wire.poll_read(cx))).expect("a pipe never fails")
}

/// Reads a body to its end.
fn receive(wire: &mut Wire, body: &mut Vec<u8>) -> Result<(), End> {
    loop {
        match now(poll_fn(|cx| wire.poll_fill(cx))) {
            Ok(Fill::Data) => {
                // Whoever sends on takes what fits, not what is there.
                let taken = wire.chunk().len().div_ceil(2);
                body.extend_from_slice(&wire.chunk()[..taken]);
                wire.consume(taken);
            }
            Ok(Fill::End) => return Ok(()),
            Err(Fault::Closed) => return Err(End::Cut),
            Err(Fault::Malformed(cause)) => return Err(End::Refused(400, cause.into())),
            Err(fault) => panic!("{fault:?}"),
        }
    }
}

fn request(head: &RequestHead, raw_target: Vec<u8>) -> Request {
    Request {
        method: head.get(head.method).to_vec(),
        raw_target,
        target: head.get(head.target).to_vec(),
        minor: minor(head.version),
        fields: pairs(&head.bytes, &head.fields),
        trailers: Some(Vec::new()),
        keep_alive: head.keep_alive,
        ..Request::default()
    }
}

/// The answer we see in `raw` to a request of this method.
///
/// # Errors
/// Why there is none.
pub fn answer(method: &str, raw: &[u8], cuts: &[usize]) -> Result<Answer, End> {
    let mut wire = wire(Pipe::split(raw, cuts), upstream_limits());
    let mut answer = Answer::default();
    loop {
        let len = read_response_head(&mut wire)?;
        wire.input.split_head(len, &mut answer.head.bytes);
        parse_response(&mut answer.head, len, method == "HEAD").map_err(|bad| End::Refused(502, bad.cause.into()))?;
        if answer.head.status >= 200 || answer.head.status == 101 {
            break;
        }
        answer.interim.push(std::mem::take(&mut answer.head));
    }
    if answer.head.status == 101 {
        answer.complete = true;
        return Ok(answer);
    }
    wire.expect(answer.head.body, upstream_limits(), None);
    answer.complete = match receive(&mut wire, &mut answer.body) {
        Ok(()) => true,
        Err(End::Cut) => false,
        Err(end) => return Err(end),
    };
    answer.trailers = wire.trailers().cloned().unwrap_or_default();
    answer.drained = wire.is_drained() && read(&mut wire) == 0;
    Ok(answer)
}

/// Waits for a head as [`tidegate::proxy::h1::upstream`] does.
fn read_response_head(wire: &mut Wire) -> Result<usize, End> {
    let mut scan = ScanState::default();
    loop {
        if !wire.input.is_empty() {
            match scan_response_head(wire.input.bytes(), &mut scan) {
                Ok(Some(len)) => return Ok(len),
                Ok(None) => {}
                Err(bad) => return Err(End::Refused(502, bad.cause.into())),
            }
        }
        if read(wire) == 0 {
            return Err(if wire.input.is_empty() { End::Closed } else { End::Cut });
        }
    }
}

// === impl Answer ===

impl Answer {
    /// It, in the form that is compared.
    #[must_use]
    pub fn message(&self) -> Response {
        let head = &self.head;
        Response {
            status: head.status,
            reason: Some(head.get(head.reason).to_vec()),
            minor: minor(head.version),
            fields: pairs(&head.bytes, &head.fields),
            body: self.body.clone(),
            trailers: Some(pairs(&self.trailers.bytes, &self.trailers.fields)),
            complete: self.complete,
            interim: Some(self.interim.iter().map(|head| (head.status, pairs(&head.bytes, &head.fields))).collect()),
        }
    }
}

fn pairs(bytes: &[u8], fields: &[Field]) -> Vec<Pair> {
    canonical(fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes))))
}

fn minor(version: HttpVersion) -> u8 {
    u8::from(version == HttpVersion::Http11)
}
