//! The origin's view: requests we accepted, written as we write them to an upstream, all on one connection.

use std::future::poll_fn;

use fastrand::Rng;
use tidegate::core::route::path::{PathScratch, normalise};
use tidegate::proxy::edits::RequestEdits;
use tidegate::proxy::h1::edit::write_request;
use tidegate::proxy::h1::wire::Wire;
use tidegate::proxy::headers::{BodyLength, Trailers};
use tidegate::proxy::io::Stream;

use super::codec::{Accepted, limits, now};
use super::message::{Pair, Request, Requests, canonical, shown};
use super::oracle;
use super::pipe::Pipe;
use super::random::random_of;
use super::tolerated::{escaped, is_uri};

/// A reader of what is written, and its name.
pub type Origin = (&'static str, fn(&[u8]) -> Requests);

/// Origins that are not ours.
pub const ORIGINS: &[Origin] = &[("hyper", oracle::hyper::requests), ("pingora", oracle::pingora::requests)];
const OURSELVES: Origin = ("we", |written| super::codec::requests(written, &[], limits(super::KEEP)).0);
/// Edits tried on one input.
const EDITS: usize = 4;
/// What stands for the endpoint when a client names no host.
const ENDPOINT: &[u8] = b"origin:80";
/// Fields with rules of their own; everything else goes through as it came.
const SPECIAL: &[&str] = &[
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
const SPECIAL_PREFIXES: &[&str] = &["x-forwarded-", "x-tidegate-"];
/// Of those, the ones no upstream may ever get.
const NEVER: &[&str] =
    &["http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"];
/// Trailers that go through.
const TRAILERS: &[&str] = &["server-timing", "content-digest", "repr-digest", "digest", "content-md5", "etag"];
const TRAILER_PREFIXES: &[&str] = &["grpc-", "x-checksum-", "x-amz-checksum-"];

/// Checks requests that are written with many edits, by reading them again ourselves: without the others this is quick.
///
/// # Panics
/// We read something else than we accepted.
pub fn check_edits(raw: &[u8]) {
    let mut random = random_of(raw);
    let (_, accepted) = super::codec::requests(raw, &[], limits(super::KEEP));
    for _ in 0..EDITS {
        check(&accepted, &[], &mut random);
    }
}

/// Checks that origins read `accepted` as what was accepted.
///
/// # Panics
/// An origin sees something else.
pub fn check(accepted: &[Accepted], origins: &[Origin], random: &mut Rng) {
    let mut expected = Vec::new();
    let mut wire = Wire::new(Stream::Dialled(Box::new(Pipe::taking(takes(random)))), limits(super::KEEP));
    for request in accepted {
        expected.extend(send(&mut wire, request, random));
    }
    let Stream::Dialled(pipe) = &wire.io else { unreachable!("as it was made") };
    let written = &pipe.as_any().downcast_ref::<Pipe>().expect("a pipe").output[..];
    for (who, read) in [OURSELVES].iter().chain(origins) {
        let seen = read(written);
        let complete = seen.messages.iter().filter(|message| message.complete).count();
        // A reader ends at a target that is no URI to it: `Rule::HyperTargets`, `Rule::PingoraTargets`.
        let excused = expected.get(complete).is_some_and(|next| *who != "we" && !is_uri(&next.target));
        let text = shown(written);
        assert!(complete == expected.len() || excused, "{who}: {complete} requests in {text}\n{seen:?}");
        for (wanted, found) in expected.iter().zip(&seen.messages) {
            assert_same(who, wanted, found, written);
        }
    }
}

/// Sizes that writes take.
pub fn takes(random: &mut Rng) -> Vec<usize> {
    (0..random.usize(0..4)).map(|_| random.usize(1..200)).collect()
}

/// Writes `request`; what an origin has to see, `None` when its path is refused.
fn send(wire: &mut Wire, request: &Accepted, random: &mut Rng) -> Option<Request> {
    let head = &request.head;
    let mut scratch = PathScratch::default();
    let path = head.get(head.path);
    let forwarded = normalise(path, &mut scratch).ok()?.forwarded;
    let host = if head.authority.is_empty() { ENDPOINT } else { head.get(head.authority) };
    let strip_cookie = pick(head.cookies().map(|(name, _)| name).filter(|name| !name.is_empty()), random);
    let plain = head.fields.iter().map(|field| head.get(field.name)).filter(|name| !is_special(name));
    let strip_header = pick(plain, random);
    let edits = RequestEdits {
        target: (forwarded != path).then_some(forwarded),
        host,
        client_ip: [&b"192.0.2.1"[..], b"2001:db8::1", b""][random.usize(..3)],
        proto: b"https",
        trusted: random.bool(),
        request_id: b"id-1",
        strip_header,
        strip_cookie,
        body: head.body,
        call_left: None,
        websocket: head.websocket,
    };
    write_request(&mut wire.out, head, &edits);
    wire.announce(edits.body);
    send_body(wire, &request.body, Some(&request.trailers), random);
    let query = head.query.map(|query| [b"?", head.get(query)].concat()).unwrap_or_default();
    let chunked = head.body == BodyLength::Chunked;
    let mut fields: Vec<Pair> =
        canonical(head.fields.iter().map(|field| (head.get(field.name), head.get(field.value))));
    let nominated = nominated(&fields);
    let cookies = cookies(&fields, strip_cookie).filter(|_| !nominated.iter().any(|name| name == b"cookie"));
    fields.retain(|(name, _)| !is_special(name) && !nominated.contains(name));
    fields.retain(|(name, _)| strip_header.is_none_or(|strip| !strip.eq_ignore_ascii_case(name)));
    fields.extend(cookies.map(|cookies| (b"cookie".to_vec(), cookies)));
    fields.push((b"host".to_vec(), host.to_vec()));
    match head.body {
        BodyLength::Chunked => fields.push((b"transfer-encoding".to_vec(), b"chunked".to_vec())),
        BodyLength::Exact(length) => fields.push((b"content-length".to_vec(), length.to_string().into())),
        _ => {}
    }
    Some(Request {
        method: head.get(head.method).to_vec(),
        target: [forwarded, &query].concat(),
        minor: 1,
        fields: canonical(fields),
        body: request.body.clone(),
        trailers: Some(if chunked { trailers(&request.trailers) } else { Vec::new() }),
        ..Request::default()
    })
}

/// Sends a body in pieces.
pub fn send_body(wire: &mut Wire, mut body: &[u8], trailers: Option<&Trailers>, random: &mut Rng) {
    while !body.is_empty() {
        let piece = &body[..random.usize(1..=body.len())];
        let taken = now(poll_fn(|cx| wire.poll_send(cx, piece))).expect("as announced");
        body = &body[taken..];
        if random.u8(..4) == 0 {
            now(poll_fn(|cx| wire.poll_flush(cx))).expect("a pipe takes everything");
        }
    }
    now(poll_fn(|cx| wire.poll_end(cx, trailers))).expect("as announced");
}

fn assert_same(who: &str, wanted: &Request, found: &Request, written: &[u8]) {
    let view = |message: &Request| {
        let keep = |(name, value): &Pair| {
            let own = name.starts_with(b"x-forwarded-") || matches!(&name[..], b"forwarded" | b"x-request-id");
            let empty = name == b"content-length" && value == b"0";
            let hop = matches!(&name[..], b"connection" | b"te" | b"upgrade" | b"trailer" | b"expect");
            let key = name.starts_with(b"sec-websocket-") && is_special(name);
            !(own || empty || hop || key)
        };
        let mut fields: Vec<Pair> = message.fields.iter().filter(|pair| keep(pair)).cloned().collect();
        for (name, value) in &mut fields {
            if name == b"cookie" {
                *value = pairs_of(value, None);
            }
        }
        (fields, message.body.clone())
    };
    let text = shown(written);
    let target = &found.target;
    let escaped = who == "pingora" && *target == escaped(&wanted.target);
    assert_eq!(wanted.method, found.method, "{who}: method in {text}");
    assert!(*target == wanted.target || escaped, "{who}: target {} in {text}", shown(target));
    assert_eq!(view(wanted), view(found), "{who}: fields or body in {text}");
    assert!(found.trailers.is_none() || found.trailers == wanted.trailers, "{who}: trailers in {text}");
    for name in NEVER {
        assert!(values(found, name).is_empty(), "{who}: {name} in {text}");
    }
    assert!(!found.fields.iter().any(|(name, _)| name.starts_with(b"x-tidegate-")), "{who}: ours in {text}");
    for name in ["host", "x-request-id", "x-forwarded-proto", "forwarded"] {
        assert_eq!(values(found, name).len(), 1, "{who}: {name} in {text}");
    }
    let connection = values(found, "connection");
    let upgrade = values(found, "upgrade");
    let websocket = connection == [b"upgrade"] && upgrade == [b"websocket"];
    let trailers = connection == [b"te"] && values(found, "te") == [b"trailers"] && upgrade.is_empty();
    let neither = connection.is_empty() && upgrade.is_empty() && values(found, "te").is_empty();
    assert!(websocket || trailers || neither, "{who}: what concerns one hop in {text}");
}

fn values<'a>(message: &'a Request, name: &str) -> Vec<&'a [u8]> {
    message.fields.iter().filter(|(found, _)| found == name.as_bytes()).map(|(_, value)| &value[..]).collect()
}

fn pick<'a>(names: impl Iterator<Item = &'a [u8]>, random: &mut Rng) -> Option<&'a [u8]> {
    let names: Vec<_> = names.collect();
    (!names.is_empty() && random.bool()).then(|| names[random.usize(..names.len())])
}

/// Whether fields of this name have rules of their own.
pub fn is_special(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    SPECIAL.iter().any(|special| special.as_bytes() == name)
        || SPECIAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The names `Connection` nominates.
pub fn nominated(fields: &[Pair]) -> Vec<Vec<u8>> {
    let values = fields.iter().filter(|(name, _)| name == b"connection").map(|(_, value)| value);
    values.flat_map(|value| value.split(|b| *b == b',')).map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
}

/// All cookies as one value; `None` when none is left.
fn cookies(fields: &[Pair], strip: Option<&[u8]>) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = fields.iter().filter(|(name, _)| name == b"cookie").map(|(_, value)| &value[..]).collect();
    let stays = strip.is_none() && values.len() == 1;
    let joined = pairs_of(&values.join(&b"; "[..]), strip);
    (stays || !joined.is_empty()).then_some(joined)
}

/// The pairs of a cookie value with one way of white space between them.
fn pairs_of(value: &[u8], strip: Option<&[u8]>) -> Vec<u8> {
    let name = |pair: &[u8]| pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii().to_vec();
    let pairs = value.split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty());
    let kept = pairs.filter(|pair| strip.is_none_or(|strip| !pair.contains(&b'=') || name(pair) != strip));
    kept.collect::<Vec<_>>().join(&b"; "[..])
}

/// The trailers that go through.
pub fn trailers(trailers: &Trailers) -> Vec<Pair> {
    let bytes = &trailers.bytes;
    let mut all = canonical(trailers.fields.iter().map(|field| (field.name.of(bytes), field.value.of(bytes))));
    all.retain(|(name, _)| {
        TRAILERS.iter().any(|known| known.as_bytes() == name)
            || TRAILER_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
    });
    all
}
