//! What we accept from upstreams, everybody reads alike; and what we write to clients, everybody reads as what we accepted.

use fastrand::Rng;
use tidegate::proxy::h1::edit::{ResponseEdits, write_interim, write_response};
use tidegate::proxy::h1::wire::Wire;
use tidegate::proxy::headers::{BodyLength, Known};
use tidegate::proxy::io::Stream;

use super::codec::{self, Answer, limits};
use super::message::{Pair, Response, shown};
use super::oracle;
use super::origin::{nominated, send_body, takes, trailers};
use super::pipe::Pipe;
use super::random::{cuts, random_of};
use super::tolerated::{self, Oracle};

const METHODS: &[&str] = &["GET", "HEAD", "POST", "OPTIONS"];
/// Fields that do not go through, or not as they came.
const SPECIAL: &[&str] = &[
    "connection",
    "content-length",
    "date",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Checks the answer to one request. The first line of `input` is the method of the request, if it is one.
///
/// # Panics
/// Two readers see different messages.
pub fn check(input: &[u8]) {
    let mut random = random_of(input);
    let (method, raw) = split(input);
    let ours = codec::answer(method, raw, &[]);
    let message = ours.as_ref().map(Answer::message);
    for cuts in cuts(raw, &mut random) {
        let split = codec::answer(method, raw, &cuts);
        assert_eq!(split.as_ref().map(Answer::message), message, "split at {cuts:?}");
    }
    let (Ok(ours), Ok(message)) = (&ours, message) else { return };
    compare(Oracle::Hyper, &message, oracle::hyper::response(method, raw));
    compare(Oracle::Pingora, &message, oracle::pingora::response(method, raw));
    if ours.complete && message.status != 101 {
        client_view(method, ours, &message, &mut random);
    }
}

/// The method, and what is answered to it.
fn split(input: &[u8]) -> (&'static str, &[u8]) {
    for method in METHODS {
        if let Some(rest) = input.strip_prefix(method.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n")) {
            return (method, rest);
        }
    }
    ("GET", input)
}

fn compare(who: Oracle, ours: &Response, theirs: Result<Response, String>) {
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(_) if tolerated::length_refusal(who, &ours.fields).is_some() => return,
        Err(error) => panic!("{who:?} refuses: {error}\nours: {ours:?}"),
    };
    let what = if ours.status != theirs.status {
        "status"
    } else if !same_reason(ours, &theirs) {
        "reason"
    } else if ours.minor != theirs.minor {
        "version"
    } else if ours.fields != theirs.fields {
        "field"
    } else if theirs.interim.is_some() && ours.interim != theirs.interim {
        "interim response"
    } else if ours.complete != theirs.complete {
        "end"
    } else if !same_body(ours, &theirs) {
        "body"
    } else if theirs.trailers.is_some() && ours.complete && ours.trailers != theirs.trailers {
        "trailer"
    } else {
        return;
    };
    panic!("{who:?} sees another {what}\nours: {ours:?}\ntheirs: {theirs:?}");
}

/// The reason phrase means nothing (RFC 9112 section 4): the others leave it out when it is not ASCII, and put the usual one for none.
fn same_reason(ours: &Response, theirs: &Response) -> bool {
    let reason = ours.reason.as_deref().unwrap_or_default();
    reason.is_empty() || !reason.is_ascii() || theirs.reason.as_deref().is_none_or(|other| other == reason)
}

fn same_body(ours: &Response, theirs: &Response) -> bool {
    let common = ours.body.len().min(theirs.body.len());
    ours.body[..common] == theirs.body[..common] && (!ours.complete || ours.body.len() == theirs.body.len())
}

/// Writes `answer` as [`tidegate::proxy::h1::connection`] does, and reads it as a client.
fn client_view(method: &str, answer: &Answer, accepted: &Response, random: &mut Rng) {
    let old = random.bool();
    let body = match answer.head.body {
        BodyLength::UntilClose | BodyLength::Chunked if old => BodyLength::UntilClose,
        BodyLength::UntilClose => BodyLength::Chunked,
        body => body,
    };
    let edits = ResponseEdits {
        body,
        close: random.bool(),
        keep_alive_10: false,
        no_body_head: answer.head.status == 304 || method == "HEAD",
        date: answer.head.known(Known::Date).is_none().then_some(b"Sun, 06 Nov 1994 08:49:37 GMT"),
        set_cookie: None,
        extra: &[],
    };
    let mut wire = Wire::new(Stream::Dialled(Box::new(Pipe::taking(takes(random)))), limits(super::KEEP));
    for interim in answer.interim.iter().filter(|_| !old) {
        write_interim(&mut wire.out, interim);
    }
    write_response(&mut wire.out, &answer.head, &edits);
    wire.announce(body);
    send_body(&mut wire, &answer.body, Some(&answer.trailers), random);
    let Stream::Dialled(pipe) = &wire.io else { unreachable!("as it was made") };
    let written = &pipe.as_any().downcast_ref::<Pipe>().expect("a pipe").output[..];
    let text = shown(written);
    let ours = codec::answer(method, written, &[]).unwrap_or_else(|end| panic!("we refuse {text}: {end:?}"));
    assert!(ours.complete && ours.drained, "one whole response: {text}");
    let end_to_end = end_to_end(&accepted.fields);
    let kept_trailers = if body == BodyLength::Chunked { trailers(&answer.trailers) } else { Vec::new() };
    let hyper = oracle::hyper::response(method, written);
    let pingora = oracle::pingora::response(method, written);
    for (who, seen) in [("we", Ok(ours.message())), ("hyper", hyper), ("pingora", pingora)] {
        let seen = seen.unwrap_or_else(|error| panic!("{who} refuse {text}: {error}"));
        assert!(seen.complete, "{who}: cut: {text}");
        assert_eq!((seen.status, &seen.body), (accepted.status, &accepted.body), "{who}: {text}");
        assert_eq!(self::end_to_end(&seen.fields), end_to_end, "{who}: {text}");
        assert!(seen.trailers.is_none_or(|found| found == kept_trailers), "{who}: trailers: {text}");
        let dates = seen.fields.iter().filter(|(name, _)| name == b"date").count();
        assert!(dates >= 1, "{who}: no Date: {text}");
        if let (Some(found), false) = (&seen.interim, old) {
            assert_eq!(found.len(), answer.interim.len(), "{who}: interim: {text}");
        }
    }
}

/// The fields that go through.
fn end_to_end(fields: &[Pair]) -> Vec<Pair> {
    let nominated = nominated(fields);
    let through = |name: &Vec<u8>| {
        !SPECIAL.iter().any(|special| special.as_bytes() == name)
            && !name.starts_with(b"x-tidegate-")
            && !nominated.contains(name)
    };
    fields.iter().filter(|(name, _)| through(name)).cloned().collect()
}
