//! What is counted, where, and who gets a cookie.

use super::*;
use crate::proxy::fixture::request;

fn half() -> Weight {
    Weight::parse("50%").expect("a weight")
}

/// A request that was answered with `head` and ended so.
fn answered(world: &mut World, request: &RequestHead, head: &ResponseHead, end: Termination) -> Option<Vec<u8>> {
    let (mut exchange, _attempt) = world.sent_off(request);
    exchange.connected(false, world.now);
    exchange.sent(world.now);
    let cookie = world.cookie(&mut exchange, head);
    exchange.end(end, world.now);
    cookie
}

#[test]
fn what_an_upstream_did_wrong_is_bad_once_and_what_others_did_is_not() {
    for (status, end, bad) in [
        (200, Termination::Complete, 0),
        (404, Termination::Complete, 0),
        (499, Termination::Complete, 0),
        (500, Termination::Complete, 1),
        (599, Termination::Complete, 1),
        (200, Termination::UpstreamTruncated, 1),
        (200, Termination::UpstreamIdle, 1),
        (503, Termination::UpstreamTruncated, 1),
        (200, Termination::ClientAbort, 0),
        (200, Termination::ClientIdle, 0),
        (200, Termination::Drained, 0),
    ] {
        let mut world = Setup::default().build();
        answered(&mut world, &get(""), &response(status, ""), end);
        assert_eq!(world.bad(Variant::Candidate), bad, "{status} {end:?}");
        assert_eq!(world.terminations(end), 1);
    }
}

#[test]
fn what_fails_before_a_response_head_is_bad_once() {
    for (failure, status, termination, bad) in [
        (CLOSED, 502, Termination::UpstreamReset, 1),
        (UNTAKEN, 502, Termination::UpstreamReset, 1),
        (Failure::BadResponse, 502, Termination::BadResponse, 1),
        (Failure::HeadTimeout, 504, Termination::ResponseTimeout, 1),
        (Failure::Drained, 503, Termination::Drained, 0),
    ] {
        let mut world = Setup::default().build();
        let (mut exchange, _attempt) = world.sent_off(&get(""));
        exchange.connected(false, world.now);
        let reply = reply(world.fail(&mut exchange, failure));
        assert_eq!((reply.status, reply.termination), (status, termination));
        exchange.end(reply.termination, world.now);
        assert_eq!(world.bad(Variant::Candidate), bad, "{failure:?}");
        assert_eq!(world.cells(Variant::Candidate), [(5, Assignment::Bucket, 1)]);
    }
}

#[test]
fn finished_requests_land_in_the_cell_of_their_class_and_assignment() {
    for (fields, status, class, assignment, variant) in [
        ("", 204, 2, Assignment::Bucket, Variant::Candidate),
        ("", 302, 3, Assignment::Bucket, Variant::Candidate),
        ("X-Canary: stable\r\n", 404, 4, Assignment::Forced, Variant::Stable),
        ("X-Canary: candidate\r\n", 500, 5, Assignment::Forced, Variant::Candidate),
    ] {
        let mut world = Setup::default().build();
        answered(&mut world, &get(fields), &response(status, ""), Termination::Complete);
        assert_eq!(world.cells(variant), [(class, assignment, 1)]);
        assert_eq!(world.cells(Variant::ALL[1 - variant as usize]), []);
    }
    let mut world = Setup::default().build();
    let (mut exchange, _attempt) = world.sent_off(&get(""));
    exchange.upgraded();
    exchange.end(Termination::TunnelIdle, world.now);
    assert_eq!(world.cells(Variant::Candidate), [(1, Assignment::Bucket, 1)]);
}

#[test]
fn a_session_that_stays_is_counted_as_sticky() {
    let mut world = Setup { weight: half(), new_sessions: true, ..Setup::default() }.build();
    for _ in 0..20 {
        let (mut exchange, first) = world.sent_off(&get(""));
        let cookie = world.cookie(&mut exchange, &response(200, "")).expect("a cookie");
        let pair = String::from_utf8(cookie).expect("text").split(';').next().expect("a pair").to_owned();
        let (mut again, second) = world.sent_off(&get(&format!("Cookie: {pair}\r\n")));
        assert_eq!(is_candidate(&first), is_candidate(&second));
        assert_eq!(world.cookie(&mut again, &response(200, "")), None, "it has its cookie");
        assert_eq!(again.end(Termination::Complete, world.now).assignment, Assignment::Sticky);
    }
}

#[test]
fn connections_are_counted_as_opened_or_reused() {
    let mut world = Setup::default().build();
    for reused in [true, false, true] {
        let (mut exchange, _attempt) = world.sent_off(&get(""));
        exchange.connected(reused, world.now);
        assert_eq!(exchange.end(Termination::Complete, world.now).reused, reused);
    }
    assert_eq!((world.sum(Variant::Candidate, |s| &s.reused), world.sum(Variant::Candidate, |s| &s.connects)), (2, 1));
}

#[test]
fn durations_are_recorded_once_per_request() {
    let mut world = Setup::default().build();
    let (mut exchange, _attempt) = world.sent_off(&get(""));
    exchange.sent(world.later(100));
    world.later(30);
    world.cookie(&mut exchange, &response(200, ""));
    exchange.end(Termination::Complete, world.later(20));
    assert_eq!(world.sum(Variant::Candidate, |s| &s.upstream.sum_us), 30_000);
    assert_eq!(world.sum(Variant::Candidate, |s| &s.duration.sum_us), 150_000);
    drop(exchange);
    assert_eq!(world.sum(Variant::Candidate, |s| &s.duration.sum_us), 150_000);
    assert_eq!(world.terminations(Termination::Dropped), 0, "what has ended is not counted again");
}

#[test]
fn an_answer_before_the_request_was_sent_is_no_upstream_time() {
    let mut world = Setup::default().build();
    let (mut exchange, _attempt) = world.sent_off(&request("POST", "/", "Content-Length: 9\r\n"));
    world.later(30);
    world.cookie(&mut exchange, &response(200, ""));
    assert_eq!(exchange.upstream_time(), None);
}

#[test]
fn a_dropped_exchange_counts_itself() {
    let mut world = Setup::default().build();
    drop(world.sent_off(&get("")));
    assert_eq!(world.terminations(Termination::Dropped), 1);
    assert_eq!(world.cells(Variant::Candidate), [(0, Assignment::Bucket, 1)]);
    assert_eq!((world.in_flight(Variant::Candidate), world.bad(Variant::Candidate)), (0, 0));
}

#[test]
fn a_client_that_left_while_a_retry_ran_saw_no_status() {
    let mut world = Setup { candidate: 1, ..Setup::default() }.build();
    let (mut exchange, _first) = world.sent_off(&get(""));
    let _fallback = attempt(world.fail(&mut exchange, Failure::Connect));
    assert_eq!(exchange.end(Termination::ClientAbort, world.now).status, 0);
    assert_eq!(world.cells(Variant::Stable), [(0, Assignment::Fallback, 1)]);
}

#[test]
fn an_answer_decided_outside_is_noted() {
    let mut world = Setup::default().build();
    let (mut exchange, _attempt) = world.sent_off(&request("POST", "/", "Transfer-Encoding: chunked\r\n"));
    exchange.worded(Reply::of(Termination::BodyTooLarge));
    assert_eq!(exchange.end(Termination::BodyTooLarge, world.now).status, 413);
    assert_eq!((world.cells(Variant::Candidate), world.bad(Variant::Candidate)), (vec![(4, Assignment::Bucket, 1)], 0));
}

// === cookies ===

#[test]
fn a_cookie_is_issued_only_while_a_split_is_in_force() {
    for (weight, aborted, issued) in
        [(Weight::ZERO, false, false), (half(), false, true), (half(), true, false), (Weight::FULL, false, false)]
    {
        let mut world = Setup { weight, aborted, ..Setup::default() }.build();
        let cookie = answered(&mut world, &get(""), &response(200, ""), Termination::Complete);
        assert_eq!(cookie.is_some(), issued, "{weight} aborted: {aborted}");
    }
}

#[test]
fn no_cookie_goes_where_it_would_reach_others_or_do_no_good() {
    for (status, fields, issued) in [
        (200, "", true),
        (404, "", true),
        (200, "Cache-Control: private, max-age=60\r\n", true),
        (200, "Cache-Control: no-store\r\n", true),
        (304, "", false),
        (101, "", false),
        (200, "Cache-Control: public\r\n", false),
        (200, "Cache-Control: no-transform\r\ncache-control: max-age=60\r\n", false),
        (200, "Cache-Control: s-maxage=60\r\n", false),
    ] {
        let mut world = Setup { weight: half(), ..Setup::default() }.build();
        let cookie = answered(&mut world, &get(""), &response(status, fields), Termination::Complete);
        assert_eq!(cookie.is_some(), issued, "{status} {fields:?}");
    }
}

#[test]
fn forced_requests_fallbacks_and_known_clients_get_no_cookie() {
    let mut world = Setup { weight: half(), candidate: 1, ..Setup::default() }.build();
    for fields in ["X-Canary: candidate\r\n", "X-Canary: stable\r\n", "Cookie: tidegate_web=0123456789abcdef\r\n"] {
        assert_eq!(answered(&mut world, &get(fields), &response(200, ""), Termination::Complete), None, "{fields:?}");
    }
    let (mut exchange, _first) = loop {
        let (exchange, attempt) = world.sent_off(&get(""));
        if is_candidate(&attempt) {
            break (exchange, attempt);
        }
    };
    let _fallback = attempt(world.fail(&mut exchange, Failure::Connect));
    assert_eq!(world.cookie(&mut exchange, &response(200, "")), None, "it has not seen the candidate");
}

#[test]
fn the_cookie_is_secure_where_the_connection_is() {
    for secure in [false, true] {
        let mut world = Setup { weight: half(), ..Setup::default() }.build();
        world.facts.secure = secure;
        let cookie = answered(&mut world, &get(""), &response(200, ""), Termination::Complete).expect("a cookie");
        let text = String::from_utf8(cookie).expect("text");
        assert_eq!(text.ends_with("; Secure"), secure, "{text}");
        assert!(text.starts_with("tidegate_web="), "{text}");
    }
}
