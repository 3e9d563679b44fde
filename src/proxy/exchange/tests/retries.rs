//! What is tried again, by the rules of a service.

use proptest::prelude::*;

use super::*;
use crate::proxy::fixture::request;

const ALL: RetryOn = RetryOn { connect: true, stale: true, server_error: true, reset: true, timeout: true };

fn rules(attempts: u32) -> RetryRules {
    let budget = Weight::FULL;
    RetryRules { attempts, on: ALL, budget, ..RetryRules::default() }
}

fn world(attempts: u32) -> World {
    Setup { stable: 3, candidate: 3, retry: rules(attempts), ..Setup::default() }.build()
}

fn put() -> RequestHead {
    request("PUT", "/", "Content-Length: 3\r\n")
}

fn post() -> RequestHead {
    request("POST", "/", "Content-Length: 3\r\n")
}

/// A request that was sent on a connection.
fn under_way(world: &mut World, head: &RequestHead, reused: bool) -> (Exchange, Attempt) {
    let (mut exchange, attempt) = world.sent_off(head);
    exchange.connected(reused, world.now);
    exchange.sent(world.now);
    (exchange, attempt)
}

/// Failures, whether they are retried for a method that may be repeated and for one that may not, and under which rule.
#[test]
fn failures_are_retried_by_this_table() {
    type Rule = fn(&mut RetryOn) -> &mut bool;
    let (connect, reset, timeout): (Rule, Rule, Rule) =
        (|on| &mut on.connect, |on| &mut on.reset, |on| &mut on.timeout);
    for (failure, rule, put_too, post_too) in [
        (Failure::Connect, Some(connect), true, true),
        (Failure::ConnectTimeout, Some(connect), true, true),
        (CLOSED, Some(reset), true, false),
        (UNTAKEN, Some(reset), true, true),
        (Failure::Reset, Some(reset), true, false),
        (Failure::BadResponse, Some(reset), true, false),
        (Failure::HeadTimeout, Some(timeout), true, false),
        (Failure::Drained, None, false, false),
        (Failure::SessionLimit, Some(reset), true, false),
        (Failure::OutOfResources, None, false, false),
        (Failure::Full(Limit::Connections), None, false, false),
        (Failure::Full(Limit::Pending), None, false, false),
    ] {
        for (head, expected) in [(put(), put_too), (post(), post_too)] {
            for allowed in [true, false] {
                let mut retry = rules(1);
                if let Some(rule) = rule.filter(|_| !allowed) {
                    *rule(&mut retry.on) = false;
                }
                let setup = Setup { weight: Weight::ZERO, stable: 3, retry, ..Setup::default() };
                let case = format!("{failure:?} {} allowed={allowed}", String::from_utf8_lossy(head.get(head.method)));
                let mut world = setup.build();
                let (mut exchange, first) = world.sent_off(&head);
                let next = exchange.failed(failure, Replay::Kept, world.now, &mut world.random);
                assert_eq!(matches!(next, Next::Park { .. }), expected && allowed, "{case}: {next:?}");
                assert_eq!(world.bad(Variant::Stable), u64::from(failure.is_bad()), "{case}");
                if let Next::Park { .. } = next {
                    let second = attempt(world.waited(&mut exchange, next));
                    assert!(
                        second.address() != first.address() && second.number == 2,
                        "{case}: another endpoint first"
                    );
                }
            }
        }
    }
}

#[test]
fn server_errors_are_dropped_and_asked_for_again_elsewhere() {
    for (head, status, replay, again) in [
        (put(), 500, Replay::Kept, true),
        (put(), 599, Replay::Nothing, true),
        (put(), 503, Replay::Truncated, false),
        (put(), 499, Replay::Kept, false),
        (post(), 503, Replay::Kept, false),
    ] {
        let mut world = world(1);
        let (mut exchange, first) = under_way(&mut world, &head, false);
        let next = world.answer(&mut exchange, status, replay);
        assert_eq!(next.is_some(), again, "{status} {replay:?}");
        assert_eq!(world.bad(Variant::Candidate), u64::from(status >= 500));
        let Some(next) = next else { continue };
        let second = attempt(world.waited(&mut exchange, next));
        assert!(is_candidate(&second) && second.address() != first.address());
        exchange.sent(world.now);
        assert!(world.answer(&mut exchange, 500, replay).is_none(), "one extra attempt");
        drop((first, second));
        let seen = exchange.end(Termination::Complete, world.now);
        assert_eq!((seen.attempts, seen.status), (2, 500));
        assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (2, 1), "bad once per request");
        assert_eq!(world.sum(Variant::Candidate, |s| &s.retries[Reason::ServerError as usize]), 1);
        assert_eq!(world.in_flight(Variant::Candidate), 0);
    }
}

#[test]
fn a_failure_of_the_candidate_counts_although_a_retry_saves_the_request() {
    let mut world = world(2);
    let (mut exchange, _first) = under_way(&mut world, &put(), false);
    let next = world.answer(&mut exchange, 502, Replay::Kept).expect("tried again");
    let _second = attempt(world.waited(&mut exchange, next));
    exchange.sent(world.now);
    assert!(world.answer(&mut exchange, 200, Replay::Kept).is_none());
    exchange.end(Termination::Complete, world.now);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (2, 1));
    assert_eq!(world.cells(Variant::Candidate), [(2, Assignment::Bucket, 1)], "answered once");
}

#[test]
fn after_a_byte_of_an_answer_nothing_is_tried_again() {
    for failure in [CLOSED, UNTAKEN, Failure::Refused, Failure::Reset, Failure::HeadTimeout] {
        let mut world = world(3);
        let (mut exchange, _first) = under_way(&mut world, &put(), true);
        exchange.informed();
        assert!(matches!(world.fail(&mut exchange, failure), Next::Reply(_)), "{failure:?}");
    }
    let mut world = world(3);
    let (mut exchange, _first) = under_way(&mut world, &put(), false);
    exchange.informed();
    assert!(world.answer(&mut exchange, 500, Replay::Nothing).is_none());
}

/// sozu#1442: a stale keep-alive connection gives 502. Here it costs one safe replay, which is no retry.
#[test]
fn sozu_1442_the_replay_of_a_dead_connection_is_outside_of_attempts_and_budget() {
    let retry = RetryRules { budget: Weight::ZERO, min_per_second: 0, ..rules(1) };
    let mut world = Setup { retry, ..Setup::default() }.build();
    let (mut exchange, first) = under_way(&mut world, &get(""), true);
    let again = attempt(world.fail(&mut exchange, CLOSED));
    assert_eq!((again.number, again.address(), again.may_reuse), (1, first.address(), false));
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 0), "the same exposure");

    let mut world = Setup { retry: rules(1), ..Setup::default() }.build();
    let (mut exchange, _first) = under_way(&mut world, &get(""), true);
    let _again = attempt(world.fail(&mut exchange, CLOSED));
    assert_eq!(attempt(world.fail(&mut exchange, CLOSED)).number, 2, "a replay leaves the attempts as they were");

    let stale = RetryRules { on: RetryOn { stale: false, reset: false, ..ALL }, ..rules(1) };
    let mut world = Setup { retry: stale, ..Setup::default() }.build();
    let (mut exchange, _first) = under_way(&mut world, &get(""), true);
    assert_eq!(reply(world.fail(&mut exchange, CLOSED)).status, 502, "switched off");
}

#[test]
fn after_an_abort_no_retry_begins_on_the_candidate_and_none_waits_for_it() {
    let mut world = world(2);
    let (mut exchange, _first) = under_way(&mut world, &put(), false);
    let Some(Next::Park { until }) = world.answer(&mut exchange, 500, Replay::Kept) else { panic!("not parked") };
    let early = exchange.unpark(world.now, &mut world.random);
    assert!(matches!(early, Next::Park { until: same } if same == until) || until == world.now, "woken too early");
    world.web().close_candidate();
    let next = attempt(exchange.unpark(world.now, &mut world.random));
    assert!(!is_candidate(&next), "at once, on stable");
    assert_eq!((world.attempts(Variant::Candidate), world.attempts(Variant::Stable)), (1, 1));
    assert!(world.answer(&mut exchange, 500, Replay::Kept).is_some());
    exchange.end(Termination::Complete, world.now);
    assert_eq!((world.bad(Variant::Candidate), world.bad(Variant::Stable)), (1, 0));
}

#[test]
fn waits_end_before_the_time_of_all_attempts_does() {
    let mut world =
        Setup { retry: RetryRules { backoff: Duration::from_secs(10), ..rules(1) }, ..Setup::default() }.build();
    let (mut parked, mut answered) = (0, 0);
    for _ in 0..200 {
        let (mut exchange, _first) = under_way(&mut world, &put(), false);
        let deadline = exchange.deadline().expect("sent");
        match exchange.failed(Failure::Reset, Replay::Kept, world.now, &mut world.random) {
            Next::Park { until } => {
                parked += 1;
                assert!(
                    until < world.now + Duration::from_secs(1)
                        && until >= world.now
                        && deadline <= world.now + Duration::from_secs(1)
                );
            }
            other => {
                answered += 1;
                assert_eq!(reply(other).termination, Termination::UpstreamReset);
            }
        }
    }
    assert!(parked > 0 && answered > parked, "{parked} waits, {answered} too long");
}

#[test]
fn with_timeouts_retried_every_attempt_has_its_share_of_the_time() {
    let mut world = world(1);
    let (mut exchange, _first) = under_way(&mut world, &put(), false);
    let began = world.now;
    assert_eq!(exchange.deadline(), Some(began + Duration::from_millis(500)), "half of a second");
    world.later(499);
    assert!(exchange.overdue(Replay::Kept, began + Duration::from_secs(1), &mut world.random), "all time is over");
    world.later(1);
    assert!(exchange.overdue(Replay::Kept, world.now, &mut world.random));
    let _second = attempt(world.fail_with(&mut exchange, Failure::HeadTimeout, Replay::Kept));
    exchange.sent(world.now);
    assert_eq!(exchange.deadline(), Some(began + Duration::from_secs(1)), "the last one has all that is left");
    world.later(1_000);
    assert!(exchange.overdue(Replay::Kept, world.now, &mut world.random));
    assert_eq!(reply(world.fail(&mut exchange, Failure::HeadTimeout)).status, 504);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (2, 1));

    // Without a budget the share is none: the answer may still come.
    let retry = RetryRules { budget: Weight::ZERO, min_per_second: 0, ..rules(1) };
    let mut world = Setup { retry, ..Setup::default() }.build();
    let (mut exchange, _first) = under_way(&mut world, &put(), false);
    let half = world.later(500);
    assert!(!exchange.overdue(Replay::Kept, half, &mut world.random));
    assert_eq!(exchange.deadline(), Some(half + Duration::from_millis(500)));
    let (posted, _first) = under_way(&mut world, &post(), false);
    assert_eq!(posted.deadline(), Some(world.now + Duration::from_secs(1)), "a POST is not asked for again");
}

#[test]
fn an_outage_is_not_multiplied() {
    let retry = RetryRules { budget: Weight::FIFTH, min_per_second: 3, ..rules(3) };
    let mut world = Setup { weight: Weight::ZERO, stable: 4, retry, ..Setup::default() }.build();
    let requests = 2_000_u64;
    for at in 0..requests {
        world.later(1);
        let failure =
            [Failure::Connect, CLOSED, Failure::Reset, Failure::BadResponse][usize::try_from(at % 4).expect("small")];
        let (mut exchange, _first) = world.sent_off(&get(""));
        let mut next = exchange.failed(failure, Replay::Nothing, world.now, &mut world.random);
        while let Next::Park { until } = next {
            let _again = attempt(exchange.unpark(until, &mut world.random));
            next = exchange.failed(failure, Replay::Nothing, until, &mut world.random);
        }
        exchange.end(reply(next).termination, world.now);
    }
    let attempts = world.attempts(Variant::Stable);
    // A fifth, and half (one of two workers) of three per second of the window.
    assert!(attempts > requests && attempts <= requests + requests / 5 + 15, "{attempts}");
    assert!(world.sum(Variant::Stable, |s| &s.retries_denied) >= requests - attempts / 5);
}

#[test]
fn a_pool_takes_so_many_requests_and_no_more() {
    let limits = PoolLimits { max_requests: 2, ..PoolLimits::default() };
    let mut world = Setup { limits, ..Setup::default() }.build();
    let (_one, first) = world.sent_off(&get(""));
    let (_two, _second) = world.sent_off(&get(""));
    let (mut third, next) = world.begin(&get(""));
    assert_eq!(reply(next), Reply::of(Termination::RequestLimit));
    third.end(Termination::RequestLimit, world.now);
    let pool = Arc::clone(&world.web().candidate[0].pool);
    assert_eq!((pool.used(Limit::Requests), pool.overflows(Limit::Requests)), (2, 1));
    assert_eq!(
        (world.attempts(Variant::Candidate), world.bad(Variant::Candidate)),
        (2, 0),
        "nobody is exposed or charged"
    );
    drop(first);
    assert!(matches!(world.begin(&get("")).1, Next::Send(_)), "there is room again");
    assert!(matches!(world.begin(&forced("stable")).1, Next::Send(_)), "the other pool has its own");
}

#[test]
fn a_body_is_kept_only_for_what_can_be_tried_again() {
    let usual = Setup::default;
    let never = || Setup { retry: RetryRules { on: RetryOn::default(), ..rules(1) }, ..Setup::default() };
    let all = || Setup { retry: RetryRules { max_body: 9, ..rules(1) }, ..Setup::default() };
    for (setup, head, reused, may_refuse, max) in [
        (usual(), put(), false, false, 0),
        (usual(), put(), true, false, 65_536),
        (usual(), post(), true, false, 65_536),
        (usual(), post(), false, true, 65_536),
        (never(), put(), true, false, 0),
        (all(), put(), false, false, 9),
        (all(), post(), false, false, 0),
    ] {
        let mut world = setup.build();
        let (exchange, _first) = under_way(&mut world, &head, reused);
        assert_eq!(exchange.replay_max(may_refuse), max);
    }
}

#[test]
fn all_failed_attempts_are_told_in_order() {
    let mut world = world(5);
    let (mut exchange, first) = under_way(&mut world, &put(), false);
    let first = first.address().clone();
    let next = world.answer(&mut exchange, 503, Replay::Kept).expect("tried again");
    let second = attempt(world.waited(&mut exchange, next)).address().clone();
    exchange.connected(true, world.now);
    for failure in [Failure::Reset, Failure::Reset, CLOSED, Failure::Refused] {
        attempt(world.fail_with(&mut exchange, failure, Replay::Kept));
        exchange.connected(true, world.now);
    }
    while let Next::Send(_) = world.fail_with(&mut exchange, Failure::Reset, Replay::Kept) {}
    let told: Vec<_> = exchange.failed_attempts().map(|failed| (failed.endpoint, failed.how)).collect();
    assert_eq!(told[..2], [(&first, How::Status(503)), (&second, How::Word("reset"))]);
    let words: Vec<_> = told[1..].iter().map(|(_, how)| *how).collect();
    let expected = ["reset", "reset", "closed", "refused", "reset", "reset", "reset"].map(How::Word);
    assert_eq!(words, expected, "six attempts and two replays");
    assert!(told.len() <= FAILED_SHOWN_MAX);
}

proptest! {
    /// traefik#1104, #8990: a POST is never sent twice once anybody may have read it. Whatever fails: so many attempts and no more, none on
    /// an aborted candidate, at most one bad per request.
    #[test]
    fn traefik_1104_8990_no_request_is_repeated_that_must_not_be(
        attempts in 0_u32..=5,
        is_post: bool,
        failures in prop::collection::vec((0_usize..9, any::<bool>(), any::<bool>()), 1..24),
        abort_at in 0_usize..24,
    ) {
        let mut world = world(attempts);
        let head = if is_post { post() } else { put() };
        let (mut exchange, mut current) = world.sent_off(&head);
        let (mut begun, mut seen, mut replays) = (1, 0, 0);
        for (at, (kind, reused, kept)) in failures.into_iter().enumerate() {
            if at == abort_at {
                world.web().close_candidate();
            }
            let on_candidate = world.attempts(Variant::Candidate);
            let failure = [
                Failure::Connect, Failure::ConnectTimeout, CLOSED, UNTAKEN, Failure::Refused, Failure::Reset,
                Failure::BadResponse, Failure::HeadTimeout, Failure::Full(Limit::Pending),
            ][kind];
            if !failure.is_connect() {
                exchange.connected(reused, world.now);
                exchange.sent(world.now);
            }
            seen += u32::from(!failure.is_untouched() && failure.is_bad());
            let replay = if kept { Replay::Kept } else { Replay::Truncated };
            let next = world.fail_with(&mut exchange, failure, replay);
            if at >= abort_at {
                prop_assert_eq!(world.attempts(Variant::Candidate), on_candidate, "an attempt on an aborted candidate");
            }
            let Next::Send(next) = next else { break };
            prop_assert!(!is_post || seen == 0, "a POST was sent again after {failure:?}");
            prop_assert!(kept, "sent again without its body after {failure:?}");
            if next.number > current.number { begun += 1 } else { replays += 1 }
            current = next;
        }
        prop_assert!(begun <= 1 + attempts + 2, "{begun} attempts: one failover, one fallback to stable");
        prop_assert!(replays <= REPLAYS_MAX, "{replays} replays");
        prop_assert!(world.bad(Variant::Candidate) + world.bad(Variant::Stable) <= 1);
        drop(current);
        exchange.end(Termination::UpstreamReset, world.now);
        prop_assert_eq!(world.in_flight(Variant::Candidate) + world.in_flight(Variant::Stable), 0);
    }
}
