//! From HTTP/2 to HTTP/1.1: what a frame can carry and a line cannot. A request is refused, on its own stream or with its connection, or
//! the upstream sees it as exactly one request in canonical form.

mod bodies;
mod fields;
mod pseudo;
mod responses;

use super::{SMUGGLED, shape};
use crate::harness::h2_raw::{DATA, END_STREAM, End, Pair, RawH2};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;

/// One request on a stream, and what comes of it.
struct Case {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// DATA frames; `None`: the stream ends with the head.
    body: Option<Vec<Vec<u8>>>,
    trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    want: Want,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Want {
    /// 4xx, or the reset of malformed messages (RFC 9113 section 8.1.1); nothing reaches the upstream.
    Refused,
    /// The same, but its beginning may have reached the upstream before the end was seen to be wrong.
    RefusedLate,
    /// The same, and the upstream may have seen this whole request before more payload came than it announces. None of that is passed on.
    Overrun(String, String),
    /// 200, and this is what the upstream sees: head, and body with trailers.
    Passes(String, String),
}

// === impl Case ===

impl Case {
    fn new(fields: &[Pair<'_>], want: Want) -> Self {
        let fields = fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        Self { fields, body: None, trailers: None, want }
    }

    fn refused(fields: &[Pair<'_>]) -> Self {
        Self::new(fields, Want::Refused)
    }

    /// A GET with these fields behind its pseudo-header fields.
    fn refused_with(fields: &[Pair<'_>]) -> Self {
        Self::refused(&[&GET[..], fields].concat())
    }

    fn passes(fields: &[Pair<'_>], head: &str, body: &str) -> Self {
        Self::new(fields, Want::Passes(head.to_owned(), body.to_owned()))
    }

    fn body(mut self, pieces: &[&str]) -> Self {
        self.body = Some(pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect());
        self
    }

    fn trailers(mut self, fields: &[Pair<'_>]) -> Self {
        self.trailers = Some(fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect());
        self
    }

    fn late(mut self) -> Self {
        self.want = Want::RefusedLate;
        self
    }

    fn overrun(mut self, head: &str, body: &str) -> Self {
        self.want = Want::Overrun(head.to_owned(), body.to_owned());
        self
    }

    fn shown(&self) -> String {
        let field = |(name, value): &(Vec<u8>, Vec<u8>)| {
            format!("{}: {}", name.escape_ascii(), value[..value.len().min(80)].escape_ascii())
        };
        let fields: Vec<_> = self.fields.iter().take(12).map(field).collect();
        let trailers: Vec<_> = self.trailers.iter().flatten().map(field).collect();
        let body = self.body.iter().flatten().map(|piece| piece.escape_ascii().to_string()).collect::<Vec<_>>();
        format!("{} | {body:?} | {}", fields.join(", "), trailers.join(", "))
    }

    async fn send(&self, client: &mut RawH2, stream: u32) {
        let fields = pairs(&self.fields);
        client.head(stream, &fields, self.body.is_none() && self.trailers.is_none()).await;
        let pieces = self.body.as_deref().unwrap_or_default();
        for (number, piece) in pieces.iter().enumerate() {
            let last = number + 1 == pieces.len() && self.trailers.is_none();
            client.frame(DATA, if last { END_STREAM } else { 0 }, stream, piece).await;
        }
        if let Some(trailers) = &self.trailers {
            client.head(stream, &pairs(trailers), true).await;
        }
    }
}

const GET: [Pair<'static>; 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")];
const POST: [Pair<'static>; 4] =
    [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")];

fn pairs(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<Pair<'_>> {
    fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect()
}

/// A GET with one pseudo-header field replaced.
fn with(name: &str, value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let replaced = |(known, old): &Pair<'_>| {
        (known.to_vec(), if *known == name.as_bytes() { value.to_vec() } else { old.to_vec() })
    };
    GET.iter().map(replaced).collect()
}

/// Plays every case on a connection of its own with a request in front and a probe behind.
async fn run(cases: &[Case]) {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let (mut whole, mut late) = (0, false);
    let mut wrong = Vec::new();
    for case in cases {
        let mut client = RawH2::connect(&proxy.address()).await;
        case.send(&mut client, 1).await;
        let end = client.end(1).await;
        let refused = matches!(end, End::Response(400..=499, _) | End::Reset(PROTOCOL_ERROR))
            || matches!(end, End::Gone(PROTOCOL_ERROR | COMPRESSION_ERROR));
        let connection_gone = matches!(end, End::Gone(_) | End::Closed);
        let mut expected = Vec::new();
        match (&case.want, &end) {
            (Want::Passes(head, body), End::Response(200, _)) => expected.push((head.clone(), body.clone())),
            (Want::Refused | Want::RefusedLate | Want::Overrun(..), _) if refused => {}
            (want, end) => wrong.push(format!("{end:?} instead of {want:?}: {}", case.shown())),
        }
        if !connection_gone {
            client
                .head(
                    3,
                    &[(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/probe")],
                    true,
                )
                .await;
            let probe = client.end(3).await;
            assert_eq!(probe, End::Response(200, b"v1".to_vec()), "the probe behind {}", case.shown());
            expected.push(("GET /probe HTTP/1.1\nhost: a".into(), String::new()));
        }
        whole += expected.len();
        late |= matches!(case.want, Want::RefusedLate | Want::Overrun(..));
        let requests = upstream.requests();
        let mut seen: Vec<_> = requests.iter().filter(|r| r.complete).map(|r| shape(r, &case.shown())).collect();
        if let Want::Overrun(head, body) = &case.want {
            seen.retain(|request| *request != (head.clone(), body.clone()));
        }
        if seen != expected {
            wrong.push(format!("the upstream saw {seen:?}, not {expected:?}: {}", case.shown()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(upstream.violations(), Vec::<String>::new());
    if !late {
        assert_eq!(upstream.arrived(), whole, "heads reached the upstream that were no part of a whole request");
    }
}

/// The preface of HTTP/2 changes the protocol for good: text behind it is no request.
#[tokio::test]
async fn text_behind_the_preface_is_no_request() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let mut client = RawH2::connect(&proxy.address()).await;
    client.send(SMUGGLED.as_bytes()).await;
    assert!(matches!(client.end(1).await, End::Gone(_) | End::Closed));
    assert_eq!(upstream.arrived(), 0);
}
