//! Refusals of HTTP/2, and calls of gRPC.

use super::*;
use crate::proxy::fixture::request;
use crate::proxy::headers::{Field, Span, Trailers};

const GRPC: &str = "Content-Type: application/grpc+proto\r\n";

#[test]
fn what_nobody_looked_at_is_sent_again_once_whatever_it_is() {
    for reused in [false, true] {
        for attempts in [0, 1] {
            let retry = RetryRules { attempts, ..RetryRules::default() };
            let mut world = Setup { candidate: 0, weight: Weight::ZERO, retry, ..Setup::default() }.build();
            let (mut exchange, first) = world.sent_off(&request("POST", "/", ""));
            exchange.connected(reused, world.now);
            let again = attempt(exchange.failed(Failure::Refused, Replay::Kept, world.now, &mut world.random));
            assert_eq!((again.number, again.address()), (1, first.address()));
            assert_eq!((world.bad(Variant::Stable), world.attempts(Variant::Stable)), (0, 1), "the same exposure");
            exchange.connected(reused, world.now);
            let reply = reply(exchange.failed(Failure::Refused, Replay::Kept, world.now, &mut world.random));
            assert_eq!(
                (reply.status, world.bad(Variant::Stable)),
                (502, 1),
                "with `reset` among `on` it goes elsewhere"
            );
        }
    }
    let on = RetryOn { reset: true, ..RetryOn::default() };
    let mut world =
        Setup { candidate: 3, retry: RetryRules { on, ..RetryRules::default() }, ..Setup::default() }.build();
    let (mut exchange, first) = world.sent_off(&request("POST", "/", ""));
    let _again = attempt(world.fail_with(&mut exchange, Failure::Refused, Replay::Kept));
    let second = attempt(world.fail_with(&mut exchange, Failure::Refused, Replay::Kept));
    assert!(second.number == 2 && second.address() != first.address());
    let mut world = Setup::default().build();
    let (mut exchange, _) = world.sent_off(&request("POST", "/", ""));
    let next = exchange.failed(Failure::Refused, Replay::Truncated, world.now, &mut world.random);
    assert_eq!(reply(next).status, 502, "what is not kept cannot be sent again");
}

/// An upstream that refuses everything is not sent everything twice.
#[test]
fn free_replays_of_refusals_stay_within_the_budget() {
    for attempts in [0, 1] {
        let retry = RetryRules { attempts, ..RetryRules::default() };
        let mut world = Setup { weight: Weight::ZERO, stable: 4, retry, ..Setup::default() }.build();
        let requests = 2_000_u64;
        for _ in 0..requests {
            world.later(1);
            let (mut exchange, _first) = world.sent_off(&request("POST", "/", ""));
            exchange.connected(true, world.now);
            let mut next = world.fail(&mut exchange, Failure::Refused);
            while let Next::Send(_again) = next {
                next = world.fail(&mut exchange, Failure::Refused);
            }
            exchange.end(reply(next).termination, world.now);
        }
        let replays = world.sum(Variant::Stable, |shard| &shard.stale_replays);
        assert!((100..=requests / 5 + 15).contains(&replays), "{replays}");
        assert_eq!(world.attempts(Variant::Stable), requests);
        assert_eq!(world.sum(Variant::Stable, |shard| &shard.retries_denied), requests - replays);
        assert_eq!(world.bad(Variant::Stable), requests, "no failure is hidden");
    }
}

/// A connection that has never answered did not die while it was idle.
#[test]
fn a_shared_session_that_has_not_answered_yet_is_no_stale_connection() {
    let mut world = Setup::default().build();
    let (mut exchange, _) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    exchange.unproven();
    assert_eq!(reply(world.fail(&mut exchange, CLOSED)).termination, Termination::UpstreamReset);
    assert_eq!(world.bad(Variant::Candidate), 1);
    assert_eq!(world.sum(Variant::Candidate, |shard| &shard.reused), 1, "although it was open already");
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
fn time_that_was_spent_here_is_not_left_to_the_endpoint() {
    let mut world = Setup::default().build();
    let (exchange, _attempt) = world.sent_off(&get(&format!("{GRPC}grpc-timeout: 100m\r\n")));
    let began = world.now;
    let at = |micros: u64| exchange.call_left(began + Duration::from_micros(micros)).map(|left| left.as_micros());
    assert_eq!([at(0), at(999), at(1_000), at(60_000)], [None, None, Some(99_000), Some(40_000)]);
    assert_eq!(at(200_000), Some(0));
    let (exchange, _attempt) = world.sent_off(&get(GRPC));
    assert_eq!(exchange.call_left(began + Duration::from_secs(1)), None, "it has all the time there is");
}

#[test]
fn the_silence_of_a_call_speaks_against_nobody() {
    for (fields, bad) in [(GRPC, 0), ("", 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _attempt) = world.sent_off(&get(fields));
        exchange.connected(true, world.now);
        exchange.sent(world.now);
        world.cookie(&mut exchange, &response(200, fields));
        exchange.end(Termination::UpstreamIdle, world.now);
        assert_eq!(world.bad(Variant::Candidate), bad, "{fields}");
        assert_eq!(world.terminations(Termination::UpstreamIdle), 1);
    }
}

/// Clients give a call up at its deadline by themselves, mostly before the proxy notices.
#[test]
fn a_client_that_leaves_at_its_deadline_was_let_down() {
    let call = || get(&format!("{GRPC}grpc-timeout: 400m\r\n"));
    for (left_after, bad) in [(0, 0), (200, 0), (370, 0), (376, 1), (400, 1), (450, 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _attempt) = world.sent_off(&call());
        exchange.connected(true, world.now);
        exchange.sent(world.now);
        let at = world.later(left_after);
        exchange.end(Termination::ClientAbort, at);
        assert_eq!(world.bad(Variant::Candidate), bad, "after {left_after} ms of 400");
        let how: Vec<How> = exchange.failed_attempts().map(|failed| failed.how).collect();
        assert_eq!(how, vec![How::Word("timeout"); usize::try_from(bad).unwrap()], "after {left_after} ms of 400");
    }
    // A long time is rounded more coarsely, a short one is not all slack.
    for (timeout, left_after, bad) in [("100S", 98_000, 0), ("100S", 98_500, 1), ("16m", 13, 0), ("16m", 14, 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _attempt) = world.sent_off(&get(&format!("{GRPC}grpc-timeout: {timeout}\r\n")));
        exchange.connected(true, world.now);
        let at = world.later(left_after);
        exchange.end(Termination::ClientAbort, at);
        assert_eq!(world.bad(Variant::Candidate), bad, "{left_after} ms of {timeout}");
    }
}

#[test]
fn who_leaves_at_the_deadline_blames_nobody_who_answered_or_was_not_asked() {
    let call = || get(&format!("{GRPC}grpc-timeout: 400m\r\n"));
    let mut world = Setup::default().build();
    let (mut exchange, _attempt) = world.sent_off(&call());
    let at = world.later(400);
    exchange.end(Termination::ClientAbort, at);
    assert_eq!(world.bad(Variant::Candidate), 0, "no connection was free");

    for (left_after, bad) in [(200, 0), (400, 1)] {
        let mut world = Setup::default().build();
        let (mut exchange, _attempt) = world.sent_off(&call());
        let at = world.later(left_after);
        exchange.left_dialling(at);
        exchange.end(Termination::ClientAbort, at);
        assert_eq!(world.bad(Variant::Candidate), bad, "no connection after {left_after} ms");
    }

    let (mut exchange, _attempt) = world.sent_off(&call());
    exchange.connected(true, world.now);
    exchange.sent(world.now);
    world.cookie(&mut exchange, &response(200, GRPC));
    let at = world.later(400);
    exchange.end(Termination::ClientAbort, at);
    assert_eq!(world.bad(Variant::Candidate), 0, "the call was on its way");

    let (mut exchange, _attempt) = world.sent_off(&get("grpc-timeout: 400m\r\n"));
    exchange.connected(true, world.now);
    exchange.sent(world.now);
    let at = world.later(400);
    exchange.end(Termination::ClientAbort, at);
    assert_eq!(world.bad(Variant::Candidate), 0, "no call");
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
