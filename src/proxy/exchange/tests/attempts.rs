//! What comes after a failure.

use super::*;
use crate::proxy::fixture::request;

fn begin_reused(world: &mut World, head: &RequestHead) -> (Exchange, Attempt) {
    let (mut exchange, attempt) = world.sent_off(head);
    exchange.connected(true, world.now);
    (exchange, attempt)
}

#[test]
fn a_failed_connect_goes_to_another_endpoint_then_to_stable_then_gives_up() {
    for (failure, status, termination) in [
        (Failure::Connect, 502, Termination::ConnectFailed),
        (Failure::ConnectTimeout, 504, Termination::ConnectTimeout),
    ] {
        let mut world = Setup { stable: 3, candidate: 3, ..Setup::default() }.build();
        let (mut exchange, mut last) = world.sent_off(&get(""));
        let mut tried = vec![(last.number, last.address().clone(), is_candidate(&last))];
        let reply = loop {
            match world.fail(&mut exchange, failure) {
                Next::Send(next) => last = next,
                other => break reply(other),
            }
            tried.push((last.number, last.address().clone(), is_candidate(&last)));
        };
        assert_eq!(tried.iter().map(|t| (t.0, t.2)).collect::<Vec<_>>(), [(1, true), (2, true), (3, false)]);
        let addresses: std::collections::BTreeSet<_> = tried.iter().map(|t| t.1.clone()).collect();
        assert_eq!(addresses.len(), 3, "never the same endpoint twice");
        assert_eq!((reply.status, reply.termination), (status, termination));
        drop(last);
        let seen = exchange.end(reply.termination, world.now);
        assert_eq!((seen.assignment, seen.attempts, seen.status), (Assignment::Fallback, 3, status));
        assert_eq!((world.bad(Variant::Candidate), world.bad(Variant::Stable)), (1, 0));
        assert_eq!(world.sum(Variant::Candidate, |s| &s.connect_failures), 2);
        assert_eq!(world.sum(Variant::Candidate, |s| &s.retries[Reason::Connect as usize]), 1);
        assert_eq!((world.in_flight(Variant::Candidate), world.in_flight(Variant::Stable)), (0, 0));
    }
}

#[test]
fn what_stable_does_with_a_fallback_is_never_charged_to_it() {
    let mut world = Setup { candidate: 1, ..Setup::default() }.build();
    let (mut exchange, _) = world.sent_off(&get(""));
    let fallback = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(!is_candidate(&fallback));
    exchange.connected(false, world.now);
    exchange.sent(world.now);
    assert_eq!(world.cookie(&mut exchange, &response(503, "")), None);
    exchange.end(Termination::Complete, world.now);
    assert_eq!((world.bad(Variant::Candidate), world.bad(Variant::Stable)), (1, 0));
    assert_eq!(world.cells(Variant::Stable), [(5, Assignment::Fallback, 1)]);
    assert_eq!(world.cells(Variant::Candidate), []);
}

#[test]
fn a_forced_request_does_not_fall_back_and_is_never_charged() {
    let mut world = Setup::default().build();
    let (mut exchange, first) = world.sent_off(&forced("candidate"));
    let second = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(is_candidate(&first) && is_candidate(&second));
    assert_eq!(reply(world.fail(&mut exchange, Failure::Connect)).status, 502);
    exchange.end(Termination::ConnectFailed, world.now);
    for end in [Termination::Complete, Termination::UpstreamTruncated] {
        let (mut exchange, _) = world.sent_off(&forced("candidate"));
        world.cookie(&mut exchange, &response(500, ""));
        exchange.end(end, world.now);
    }
    assert_eq!((world.bad(Variant::Candidate), world.attempts(Variant::Stable)), (0, 0), "never counted by the gate");
}

#[test]
fn stable_has_nothing_to_fall_back_to() {
    let mut world = Setup { weight: Weight::ZERO, stable: 1, ..Setup::default() }.build();
    let (mut exchange, first) = world.sent_off(&get(""));
    let again = attempt(world.fail(&mut exchange, Failure::Connect));
    assert_eq!(again.address(), first.address(), "better the same again than none");
    assert_eq!(reply(world.fail(&mut exchange, Failure::Connect)).status, 502);
    let seen = exchange.end(Termination::ConnectFailed, world.now);
    assert_eq!((seen.assignment, world.bad(Variant::Stable)), (Assignment::Bucket, 1));
    assert_eq!(world.attempts(Variant::Candidate), 0);
}

/// Nobody has seen a request without a connection: one endpoint that is down costs nobody anything, also where nothing else is retried.
#[test]
fn a_failed_connect_goes_to_another_endpoint_although_no_attempt_is_left() {
    let on = |connect| RetryOn { connect, server_error: true, ..RetryOn::default() };
    let stable = |attempts, connect, stable| {
        let retry = RetryRules { attempts, on: on(connect), ..RetryRules::default() };
        Setup { weight: Weight::ZERO, stable, retry, ..Setup::default() }.build()
    };
    let mut world = stable(0, true, 3);
    let (mut exchange, first) = world.sent_off(&request("POST", "/", ""));
    let second = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(second.address() != first.address() && second.number == 2);
    assert_eq!(reply(world.fail(&mut exchange, Failure::ConnectTimeout)).status, 504, "once");
    assert_eq!((world.attempts(Variant::Stable), world.bad(Variant::Stable)), (2, 1));
    assert_eq!(world.sum(Variant::Stable, |s| &s.retries[Reason::Connect as usize]), 1);

    // The one attempt went to a 5xx, and its endpoint is down.
    let mut world = stable(1, true, 3);
    let (mut exchange, _first) = world.sent_off(&get(""));
    let next = world.answer(&mut exchange, 500, Replay::Nothing).expect("tried again");
    let _second = attempt(world.waited(&mut exchange, next));
    assert_eq!(attempt(world.fail(&mut exchange, Failure::Connect)).number, 3);
    assert_eq!(reply(world.fail(&mut exchange, Failure::Connect)).status, 502);

    for (mut world, why) in [(stable(0, false, 3), "switched off"), (stable(0, true, 1), "no other endpoint")] {
        let (mut exchange, _first) = world.sent_off(&get(""));
        assert_eq!(reply(world.fail(&mut exchange, Failure::Connect)).status, 502, "{why}");
    }
}

/// All endpoints down: failovers are within the budget like retries.
#[test]
fn failovers_do_not_multiply_an_outage() {
    let retry = RetryRules { attempts: 0, ..RetryRules::default() };
    let mut world = Setup { weight: Weight::ZERO, stable: 4, retry, ..Setup::default() }.build();
    let requests = 2_000_u64;
    for _ in 0..requests {
        world.later(1);
        let (mut exchange, _first) = world.sent_off(&get(""));
        let mut next = world.fail(&mut exchange, Failure::Connect);
        while let Next::Send(_again) = next {
            next = world.fail(&mut exchange, Failure::Connect);
        }
        exchange.end(reply(next).termination, world.now);
    }
    let attempts = world.attempts(Variant::Stable);
    assert!((requests + 100..=requests + requests / 5 + 15).contains(&attempts), "{attempts}");
}

/// A reused connection that died before any response byte: who may be sent once more.
#[test]
fn stale_connections_are_replayed_by_this_table() {
    use Replay::{Kept, Nothing, Truncated};
    let (get, post) = ("GET", "POST");
    for (method, reused, failure, kept, replayed) in [
        (get, true, CLOSED, Nothing, true),
        (get, true, UNTAKEN, Nothing, true),
        (get, true, CLOSED, Kept, true),
        (get, true, CLOSED, Truncated, false),
        (get, true, UNTAKEN, Truncated, false),
        (post, true, CLOSED, Nothing, false),
        (post, true, CLOSED, Kept, false),
        (post, true, UNTAKEN, Nothing, true),
        (post, true, UNTAKEN, Kept, true),
        (post, true, UNTAKEN, Truncated, false),
        (get, false, UNTAKEN, Nothing, false),
        (get, false, CLOSED, Nothing, false),
        (get, true, Failure::BadResponse, Nothing, false),
        (get, true, Failure::HeadTimeout, Nothing, false),
        (get, true, Failure::Drained, Nothing, false),
    ] {
        let case = format!("{method} reused={reused} {failure:?} {kept:?}");
        let mut world = Setup::default().build();
        let (mut exchange, first) = world.sent_off(&request(method, "/", "Content-Length: 3\r\n"));
        exchange.connected(reused, world.now);
        let next = exchange.failed(failure, kept, world.now, &mut world.random);
        assert_eq!(matches!(next, Next::Send(_)), replayed, "{case}");
        if let Next::Send(again) = next {
            assert_eq!((again.address(), again.number, again.may_reuse), (first.address(), 1, false), "{case}");
            assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 0), "{case}");
            assert_eq!(world.sum(Variant::Candidate, |s| &s.stale_replays), 1, "{case}");
            assert_eq!(world.sum(Variant::Candidate, |s| &s.retries[Reason::Reset as usize]), 0, "{case}");
        }
    }
}

#[test]
fn every_idempotent_method_is_known_and_no_other() {
    for (method, idempotent) in [
        ("GET", true),
        ("HEAD", true),
        ("OPTIONS", true),
        ("PUT", true),
        ("DELETE", true),
        ("TRACE", true),
        ("POST", false),
        ("PATCH", false),
        ("get", false),
        ("PURGE", false),
    ] {
        assert_eq!(is_idempotent(method.as_bytes()), idempotent, "{method}");
    }
}

#[test]
fn a_request_is_replayed_once() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = begin_reused(&mut world, &get(""));
    let _again = attempt(world.fail(&mut exchange, CLOSED));
    exchange.connected(false, world.now);
    assert_eq!(reply(world.fail(&mut exchange, CLOSED)).termination, Termination::UpstreamReset);
    let seen = exchange.end(Termination::UpstreamReset, world.now);
    assert_eq!((seen.attempts, seen.reused), (1, false));
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 1), "one exposure, one bad");
}

#[test]
fn a_replay_that_cannot_connect_goes_elsewhere() {
    let mut world = Setup::default().build();
    let (mut exchange, first) = begin_reused(&mut world, &get(""));
    let _again = attempt(world.fail(&mut exchange, CLOSED));
    let second = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(is_candidate(&second) && second.address() != first.address() && second.number == 2);
    let third = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(!is_candidate(&third));
    let seen = exchange.end(Termination::ClientAbort, world.now);
    assert!(!seen.reused, "the last attempt never had a connection");
}

#[test]
fn an_abort_between_attempts_keeps_every_retry_off_the_candidate() {
    for (head, keep_candidate, stays) in [
        (get(""), false, false),
        (get(""), true, false),
        (forced("candidate"), false, false),
        (forced("candidate"), true, true),
    ] {
        let mut world = Setup { keep_candidate, ..Setup::default() }.build();
        let (mut exchange, _first) = world.sent_off(&head);
        assert!(!exchange.is_shut_out());
        world.web().close_candidate();
        assert_eq!(exchange.is_shut_out(), !stays);
        let next = attempt(world.fail(&mut exchange, Failure::Connect));
        assert_eq!(is_candidate(&next), stays, "keep_candidate: {keep_candidate}");
        assert_eq!(world.attempts(Variant::Candidate), if stays { 2 } else { 1 });
        assert!(!exchange.is_shut_out(), "stable is never shut out");
    }
}

#[test]
fn an_abort_stops_the_replay_of_a_stale_connection_too() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = begin_reused(&mut world, &get(""));
    world.web().close_candidate();
    let next = world.fail(&mut exchange, CLOSED);
    assert!(!is_candidate(&attempt(next)), "what could be sent again can be sent to stable");
    exchange.connected(false, world.now);
    world.cookie(&mut exchange, &response(500, ""));
    assert_eq!(exchange.end(Termination::Complete, world.now).assignment, Assignment::Fallback);
    assert_eq!((world.attempts(Variant::Candidate), world.sum(Variant::Candidate, |s| &s.stale_replays)), (1, 0));
    assert_eq!((world.bad(Variant::Candidate), world.bad(Variant::Stable)), (0, 0));
}

#[test]
fn an_abort_reaches_requests_that_began_before_a_reload() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = world.sent_off(&get(""));
    let (old, name) = (Arc::clone(&world.routing), Name::new("web").expect("a name"));
    let previous = HashMap::from([(name, Arc::clone(world.web()))]);
    world.routing = Setup { stable: 1, candidate: 1, ..Setup::default() }.routing(&world.registry, &previous);
    world.web().close_candidate();
    assert!(exchange.is_shut_out());
    let next = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(!is_candidate(&next));
    assert!(Arc::ptr_eq(&exchange.routing, &old), "a request keeps the snapshot it began with");
}

#[test]
fn a_snapshot_published_meanwhile_changes_nothing_for_a_request() {
    let mut world = Setup { candidate: 3, ..Setup::default() }.build();
    let (mut exchange, first) = world.sent_off(&get(""));
    let name = Name::new("web").expect("a name");
    let previous = HashMap::from([(name, Arc::clone(world.web()))]);
    world.routing = Setup { weight: Weight::ZERO, ..Setup::default() }.routing(&world.registry, &previous);
    let second = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(is_candidate(&second) && second.address() != first.address());
    assert!(!is_candidate(&world.sent_off(&get("")).1), "those that begin now see the new one");
}

#[test]
fn the_deadline_begins_when_the_request_is_sent_and_is_shared_by_all_attempts() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = begin_reused(&mut world, &get(""));
    assert_eq!(exchange.deadline(), None, "uploading takes as long as it takes");
    let sent = world.later(400);
    exchange.sent(sent);
    let deadline = sent + Duration::from_secs(1);
    assert_eq!(exchange.deadline(), Some(deadline));
    world.later(300);
    let _again = attempt(world.fail(&mut exchange, CLOSED));
    assert_eq!(exchange.deadline(), Some(deadline));
    exchange.connected(false, world.later(10));
    let sent_again = world.later(10);
    exchange.sent(sent_again);
    assert_eq!(exchange.deadline(), Some(deadline));
    world.later(50);
    world.cookie(&mut exchange, &response(200, ""));
    assert_eq!(exchange.deadline(), None, "a running body is never cut by it");
    let seen = exchange.end(Termination::Complete, world.later(1_000));
    assert_eq!(exchange.upstream_time(), Some(Duration::from_millis(50)));
    assert_eq!(
        (exchange.connect_time(), seen.duration),
        (Some(Duration::from_millis(10)), Duration::from_millis(1_770))
    );
}
