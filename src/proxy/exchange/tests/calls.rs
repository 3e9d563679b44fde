//! Refusals of HTTP/2, and calls of gRPC.

use super::*;
use crate::proxy::fixture::request;
use crate::proxy::headers::{Field, Span, Trailers};

const GRPC: &str = "Content-Type: application/grpc+proto\r\n";

#[test]
fn what_nobody_looked_at_is_sent_again_whatever_it_is_but_not_for_ever() {
    for reused in [false, true] {
        let mut world = Setup { candidate: 0, weight: Weight::ZERO, ..Setup::default() }.build();
        let (mut exchange, mut last) = world.sent_off(&request("POST", "/", ""));
        for _ in 0..REFUSALS_MAX {
            exchange.connected(reused, world.now);
            let next = exchange.failed(Failure::Refused, Replay::Kept, world.now, &mut world.random);
            last = attempt(next);
        }
        assert_eq!((last.number, world.bad(Variant::Stable), world.attempts(Variant::Stable)), (1, 0, 1));
        let reply = reply(exchange.failed(Failure::Refused, Replay::Kept, world.now, &mut world.random));
        assert_eq!((reply.status, world.bad(Variant::Stable)), (502, 1));
    }
    let mut world = Setup::default().build();
    let (mut exchange, _) = world.sent_off(&request("POST", "/", ""));
    let next = exchange.failed(Failure::Refused, Replay::Truncated, world.now, &mut world.random);
    assert_eq!(reply(next).status, 502, "what is not kept cannot be sent again");
}

#[test]
fn a_reset_stream_is_not_a_stale_connection() {
    let mut world = Setup::default().build();
    let (mut exchange, _) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    assert_eq!(reply(world.fail(&mut exchange, Failure::Reset)).termination, Termination::UpstreamReset);
    assert_eq!(world.bad(Variant::Candidate), 1);
}

fn trailers(name: &str, value: &str) -> Trailers {
    let bytes = [name, value].concat().into_bytes();
    let (middle, end) = (u32::try_from(name.len()).unwrap(), u32::try_from(bytes.len()).unwrap());
    let (name, value) = (Span { start: 0, end: middle }, Span { start: middle, end });
    Trailers { fields: vec![Field { known: Known::of(name.of(&bytes)), name, value }], bytes }
}

#[test]
fn a_call_is_judged_by_its_status_wherever_it_stands() {
    for (status, bad) in [("0", 0), ("5", 0), ("16", 0), ("2", 1), ("4", 1), ("14", 1), ("13", 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _) = world.sent_off(&get(GRPC));
        world.cookie(&mut exchange, &response(200, GRPC));
        assert_eq!(world.bad(Variant::Candidate), 0);
        exchange.trailers(Some(&trailers("grpc-status", status)), world.now);
        exchange.end(Termination::Complete, world.now);
        assert_eq!(world.bad(Variant::Candidate), bad, "{status} in the trailers");

        let (mut exchange, _) = world.sent_off(&get(GRPC));
        world.cookie(&mut exchange, &response(200, &format!("{GRPC}grpc-status: {status}\r\n")));
        exchange.trailers(Some(&Trailers::default()), world.now);
        exchange.end(Termination::Complete, world.now);
        assert_eq!(world.bad(Variant::Candidate), 2 * bad, "{status} in the head");
    }
    for (head, found, bad) in [(GRPC, "x-other", 1), ("", "grpc-status", 0), (GRPC, "GRPC-Status", 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _) = world.sent_off(&get(GRPC));
        world.cookie(&mut exchange, &response(200, head));
        exchange.trailers(Some(&trailers(found, "2")), world.now);
        assert_eq!(world.bad(Variant::Candidate), bad, "{head:?} {found}");
    }
}

#[test]
fn a_call_takes_no_longer_than_its_client_allows() {
    let mut world = Setup::default().build();
    let second = Duration::from_secs(1);
    let call = |timeout: &str| get(&format!("{GRPC}grpc-timeout: {timeout}\r\n"));
    let (mut exchange, _) = world.sent_off(&call("100m"));
    let until = world.now + second / 10;
    assert_eq!(exchange.deadline(), Some(until), "from the beginning");
    exchange.sent(world.now);
    assert_eq!(exchange.deadline(), Some(until), "sooner than the response timeout");
    world.cookie(&mut exchange, &response(200, GRPC));
    assert_eq!(exchange.deadline(), Some(until), "and to the end");
    let (mut exchange, _) = world.sent_off(&call("1H"));
    exchange.sent(world.now);
    assert_eq!(exchange.deadline(), Some(world.now + second), "the response timeout is sooner");
    let (exchange, _) = world.sent_off(&get("grpc-timeout: 100m\r\n"));
    assert_eq!(exchange.deadline(), None, "no call");

    let (mut exchange, _) = world.sent_off(&call("100m"));
    let late = exchange.failed(Failure::ConnectTimeout, Replay::Nothing, until, &mut world.random);
    let reply = exchange.worded(reply(late));
    assert_eq!((reply.status, reply.grpc, reply.termination), (200, Some("4"), Termination::ResponseTimeout));
}

#[test]
fn only_calls_are_answered_as_calls() {
    let world = Setup { routes: vec![route("/a", "web")], ..Setup::default() };
    let mut world = world.build();
    for (fields, status, grpc) in [(GRPC, 200, Some("12")), ("Content-Type: text/plain\r\n", 404, None)] {
        let (mut exchange, next) = world.begin(&get(fields));
        let worded = exchange.worded(reply(next));
        assert_eq!((worded.status, worded.grpc), (status, grpc));
        assert_eq!(exchange.end(worded.termination, world.now).status, status);
    }
}
