//! What requests say of their endpoint, who is let in, and who is chosen.

use super::*;
use crate::core::balance::Balance;
use crate::core::balance::ewma::Latency;
use crate::core::health::Readiness;
use crate::core::outlier::Cause;
use crate::core::outlier::fault::Fault;
use crate::core::service::KeySource;
use crate::state::conduct::{Conduct, Ejection, Stands};

fn on_stable(stable: u16) -> World {
    Setup { weight: Weight::ZERO, stable, ..Setup::default() }.build()
}

fn conduct(world: &World, endpoint: usize) -> &Conduct {
    &world.web().stable[endpoint].conduct
}

fn eject(conduct: &Conduct) {
    conduct.eject(Ejection { cause: Cause::Trial, fault: None, at: Duration::ZERO, lasting: Duration::from_secs(30) });
}

/// Ended and failed, over all endpoints of stable.
fn outcomes(world: &World) -> (u64, u64) {
    let all = world.web().stable.iter().map(|endpoint| endpoint.conduct.outcomes());
    all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[test]
fn failures_are_the_endpoints_and_what_clients_do_is_not() {
    for (failure, fault) in [
        (Failure::Connect, Some(Fault::Connect)),
        (Failure::ConnectTimeout, Some(Fault::ConnectTimeout)),
        (CLOSED, Some(Fault::Reset)),
        (Failure::Reset, Some(Fault::Reset)),
        (Failure::BadResponse, Some(Fault::Malformed)),
        (Failure::HeadTimeout, Some(Fault::HeadTimeout)),
        (Failure::Drained, None),
        (Failure::OutOfResources, None),
        (Failure::SessionLimit, None),
    ] {
        let mut world = on_stable(1);
        let (mut exchange, _) = world.sent_off(&get(""));
        exchange.connected(false, world.now);
        world.fail(&mut exchange, failure);
        exchange.end(Termination::ClientAbort, world.now);
        let expected = u64::from(fault.is_some());
        assert_eq!((outcomes(&world), conduct(&world, 0).last_fault()), ((expected, expected), fault), "{failure:?}");
    }
    let mut world = on_stable(1);
    let (mut exchange, _) = world.sent_off(&get(""));
    exchange.end(Termination::ClientAbort, world.now);
    assert_eq!(outcomes(&world), (0, 0), "a client that leaves before the request was sent says nothing");
}

/// An endpoint that takes requests and never answers shows in clients that give up, if they were patient.
#[test]
fn a_client_that_leaves_after_a_long_wait_speaks_against_the_endpoint() {
    for (patience, waited, head, fault) in [
        (Some(1_000), 1_000, false, None),
        (Some(1_000), 1_001, false, Some(Fault::Abandoned)),
        (Some(1_000), 60_000, true, None),
        (Some(6_000), 5_000, false, None),
        (None, 3_600_000, false, None),
    ] {
        let mut world = on_stable(1);
        world.web().stable[0].pool.set_patience(patience.map(Duration::from_millis));
        let (mut exchange, _) = world.sent_off(&get(""));
        exchange.connected(false, world.later(5_000));
        exchange.sent(world.later(5_000));
        if head {
            exchange.response(&response(200, ""), Replay::Truncated, world.now, &mut world.random);
        }
        exchange.end(Termination::ClientAbort, world.later(waited));
        let expected = (u64::from(fault.is_some() || head), u64::from(fault.is_some()));
        assert_eq!((outcomes(&world), conduct(&world, 0).last_fault()), (expected, fault), "{patience:?} {waited}");
        assert_eq!(world.bad(Variant::Stable), 0, "the gate does not count what clients do");
    }
    // One that has only closed its side is not waited for; its answer may still come and says nothing more.
    let mut world = on_stable(1);
    let (mut exchange, _) = world.sent_off(&get(""));
    assert_eq!(exchange.doubt(), None);
    exchange.sent(world.now);
    assert_eq!(exchange.doubt(), Some(world.now + world.web().stable[0].pool.patience()));
    exchange.doubted(world.later(10_000));
    assert_eq!((exchange.doubt(), outcomes(&world)), (None, (1, 1)));
    exchange.response(&response(200, ""), Replay::Truncated, world.now, &mut world.random);
    exchange.end(Termination::Complete, world.now);
    assert_eq!(outcomes(&world), (1, 1));
    // A trial does not pass from one user to the next for ever.
    let mut world = on_stable(1);
    eject(conduct(&world, 0));
    conduct(&world, 0).open_trial();
    let (mut exchange, _) = world.sent_off(&get(""));
    exchange.sent(world.now);
    exchange.end(Termination::ClientAbort, world.later(60_000));
    assert_eq!(conduct(&world, 0).outcomes(), (1, 1));
}

#[test]
fn peak_ewma_learns_from_clients_that_leave() {
    let mut world = balanced(Balance::PeakEwma, Vec::new(), Duration::ZERO);
    let (mut exchange, sent) = world.sent_off(&get(""));
    exchange.sent(world.now);
    exchange.end(Termination::ClientAbort, world.later(800));
    let conduct = &sent.in_flight.endpoint().conduct;
    let latency = |now| match conduct.latency(now) {
        Latency::Recent(us) => us,
        other => panic!("{other:?}"),
    };
    assert!((latency(world.now) - 800_000.0).abs() < 1_000.0, "{}", latency(world.now));
    conduct.observe_wait(Duration::from_millis(100), world.now);
    assert!(latency(world.now) > 799_000.0, "at least so long says nothing of one that takes longer");
}

#[test]
fn a_response_is_judged_by_its_status_and_its_end() {
    for (status, end, expected) in [
        (200, Termination::Complete, (1, 0)),
        (404, Termination::Complete, (1, 0)),
        (500, Termination::Complete, (1, 1)),
        (503, Termination::ClientAbort, (1, 1)),
        (200, Termination::ClientAbort, (1, 0)),
        (200, Termination::UpstreamTruncated, (1, 1)),
        (200, Termination::UpstreamIdle, (1, 1)),
        (101, Termination::UpstreamTruncated, (1, 0)),
    ] {
        let mut world = on_stable(1);
        let (mut exchange, _) = world.sent_off(&get(""));
        exchange.response(&response(status, ""), Replay::Truncated, world.now, &mut world.random);
        exchange.end(end, world.now);
        assert_eq!(outcomes(&world), expected, "{status} {end:?}");
    }
}

#[test]
fn a_stale_connection_is_nobodys_fault_and_every_attempt_counts_once() {
    let mut world = on_stable(1);
    let (mut exchange, _) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    let _again = attempt(world.fail(&mut exchange, CLOSED));
    assert_eq!(outcomes(&world), (0, 0));
    exchange.response(&response(200, ""), Replay::Truncated, world.now, &mut world.random);
    exchange.end(Termination::Complete, world.now);
    assert_eq!(outcomes(&world), (1, 0));
    let mut world = on_stable(2);
    let (mut exchange, _) = world.sent_off(&get(""));
    let _second = attempt(world.fail(&mut exchange, Failure::Connect));
    exchange.response(&response(200, ""), Replay::Truncated, world.now, &mut world.random);
    exchange.end(Termination::Complete, world.now);
    assert_eq!(outcomes(&world), (2, 1));
}

#[test]
fn an_ejected_endpoint_gets_nothing_and_a_trial_gets_one() {
    let mut world = on_stable(2);
    eject(conduct(&world, 0));
    let kept = world.web().stable[1].key.address.clone();
    for _ in 0..16 {
        assert_eq!(*world.sent_off(&get("")).1.address(), kept);
    }
    conduct(&world, 0).open_trial();
    let mut on_trial = Vec::new();
    for _ in 0..64 {
        let (exchange, sent) = world.sent_off(&get(""));
        if *sent.address() != kept {
            on_trial.push((exchange, sent));
        }
    }
    assert_eq!(on_trial.len(), 1);
    // Its client leaves: the next one is on trial.
    on_trial.clear();
    assert!(conduct(&world, 0).is_open());
    let (mut exchange, _sent) = loop {
        let (exchange, sent) = world.sent_off(&get(""));
        if *sent.address() != kept {
            break (exchange, sent);
        }
    };
    exchange.response(&response(200, ""), Replay::Truncated, world.now, &mut world.random);
    assert_eq!(conduct(&world, 0).outcomes(), (1, 0), "the head decides, however long the body takes");
}

#[test]
fn a_candidate_whose_endpoints_are_ejected_is_charged_and_a_drained_one_is_not() {
    let mut world = Setup::default().build();
    for endpoint in &world.web().candidate {
        eject(&endpoint.conduct);
    }
    let (mut exchange, sent) = world.sent_off(&get(""));
    assert!(!is_candidate(&sent));
    assert_eq!(exchange.end(Termination::Complete, world.now).assignment, Assignment::Fallback);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 1));
    let mut world = Setup::default().build();
    for endpoint in &world.web().candidate {
        endpoint.conduct.drain(world.now, Duration::ZERO);
    }
    let (mut exchange, sent) = world.sent_off(&get(""));
    assert!(!is_candidate(&sent));
    assert_eq!(exchange.end(Termination::Complete, world.now).assignment, Assignment::Bucket);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (0, 0));
}

#[test]
fn stable_in_panic_uses_all_that_ever_passed_and_nobody_is_judged() {
    let mut world = on_stable(4);
    for (endpoint, readiness) in [(0, Readiness::Lost), (1, Readiness::Lost), (2, Readiness::NotReady)] {
        world.web().stable[endpoint].health.set_readiness(readiness);
    }
    eject(conduct(&world, 3));
    // Nobody can be used: without waiting for the tick.
    let ports = |world: &mut World| {
        let ports = (0..64).map(|_| world.sent_off(&get("")).1.address().port().unwrap_or(0));
        ports.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(ports(&mut world), [8_000, 8_001, 8_003]);
    assert_eq!((outcomes(&world), conduct(&world, 3).standing()), ((0, 0), Stands::Ejected));
    // One can, but the tick said that it is too few.
    world.web().stable[0].health.set_readiness(Readiness::Ready);
    assert_eq!(ports(&mut world), [8_000]);
    assert!(world.web().panic.set(true));
    assert_eq!(ports(&mut world), [8_000, 8_001, 8_003]);
    // Not for what was drained.
    world.web().stable[1].conduct.drain(world.now, Duration::ZERO);
    assert_eq!(ports(&mut world), [8_000, 8_003]);
}

#[test]
fn a_drain_during_the_dial_sends_the_request_elsewhere() {
    let mut world = on_stable(2);
    let (mut exchange, first) = world.sent_off(&get(""));
    first.in_flight.endpoint().conduct.drain(world.now, Duration::ZERO);
    exchange.connected(false, world.now);
    assert!(exchange.is_withdrawn());
    assert_ne!(attempt(world.fail(&mut exchange, Failure::Withdrawn)).address(), first.address());
    assert_eq!(outcomes(&world), (0, 0));
}

/// Changes how endpoints of `web` are chosen.
fn balanced(balance: Balance, hash_key: Vec<KeySource>, slow_start: Duration) -> World {
    let mut world = on_stable(4);
    let mut web = crate::core::service::Service::clone(&world.routing.snapshot.service("web").expect("web").1.service);
    (web.upstream.balance, web.upstream.hash_key, web.upstream.slow_start) = (balance, hash_key, slow_start);
    let active = ActiveService::new(Arc::new(web), Running::idle(5));
    let snapshot = Snapshot::build(1, &[route("/", "web")], vec![active]).expect("known");
    let live = world.registry.resolve(&snapshot, &HashMap::new());
    all_ready(&live);
    world.routing = Arc::new(Routing { snapshot, live });
    world
}

#[test]
fn a_key_keeps_its_endpoint_and_a_request_without_one_goes_anywhere() {
    let keys = vec![KeySource::Header("x-user".into()), KeySource::OwnCookie];
    let mut world = balanced(Balance::RingHash, keys, Duration::ZERO);
    let port = |world: &mut World, fields: &str| world.sent_off(&get(fields)).1.address().port().unwrap_or(0);
    for user in 0..32 {
        for fields in [format!("X-User: {user}\r\n"), format!("Cookie: tidegate_web=0123456789abcdef{user:x}\r\n")] {
            let first = port(&mut world, &fields);
            assert!((0..4).all(|_| port(&mut world, &fields) == first), "{fields}");
        }
    }
    let anywhere: std::collections::BTreeSet<_> = (0..64).map(|_| port(&mut world, "")).collect();
    assert_eq!(anywhere.len(), 4);
    // When one goes, the others keep theirs.
    let before: Vec<u16> = (0..64).map(|user| port(&mut world, &format!("X-User: {user}\r\n"))).collect();
    eject(conduct(&world, 2));
    let gone = world.web().stable[2].key.address.port().unwrap_or(0);
    for (user, before) in before.into_iter().enumerate() {
        let after = port(&mut world, &format!("X-User: {user}\r\n"));
        assert!(after != gone && (before == gone || before == after), "user {user}");
    }
}

#[test]
fn peak_ewma_learns_from_heads_and_failures() {
    let mut world = balanced(Balance::PeakEwma, Vec::new(), Duration::ZERO);
    let answer = |world: &mut World| {
        let (mut exchange, sent) = world.sent_off(&get(""));
        let at = world.web().stable.iter().position(|e| e.key.address == *sent.address()).expect("one of them");
        exchange.sent(world.now);
        let took = if at == 0 { 50 } else { 1 };
        exchange.response(
            &response(200, ""),
            Replay::Truncated,
            world.now + Duration::from_millis(took),
            &mut world.random,
        );
        exchange.end(Termination::Complete, world.now);
        at
    };
    let learned = (0..32).map(|_| answer(&mut world)).count();
    assert_eq!(learned, 32);
    let slow = (0..1_000).filter(|_| answer(&mut world) == 0).count();
    assert_eq!(slow, 0, "two are compared, and the slow one always loses");
    // linkerd's load biaser: failing fast must not attract.
    let mut world = balanced(Balance::PeakEwma, Vec::new(), Duration::ZERO);
    let mut failed = 0;
    for _ in 0..1_000 {
        let (mut exchange, sent) = world.sent_off(&get(""));
        let status = if sent.address().port().unwrap_or(0) == 8_000 { 500 } else { 200 };
        failed += u32::from(status == 500);
        exchange.response(&response(status, ""), Replay::Truncated, world.now, &mut world.random);
        exchange.end(Termination::Complete, world.now);
    }
    assert!(failed <= 2, "{failed}");
}

/// A SIGSTOP: the kernel goes on accepting, nobody answers.
#[test]
fn peak_ewma_leaves_alone_what_hangs_and_asks_what_is_new_once() {
    for known in [true, false] {
        let mut world = balanced(Balance::PeakEwma, Vec::new(), Duration::ZERO);
        let stuck_at = world.web().stable[0].key.address.clone();
        let five = Duration::from_millis(5);
        if known {
            for endpoint in &world.web().stable {
                endpoint.conduct.observe_latency(Some(five), world.now);
            }
        }
        let mut stuck = Vec::new();
        let minutes = |world: &mut World, stuck: &mut Vec<Exchange>| {
            for _ in 0..12_000 {
                world.later(10);
                let (mut exchange, sent) = world.sent_off(&get(""));
                exchange.sent(world.now);
                if *sent.address() == stuck_at {
                    stuck.push(exchange);
                    continue;
                }
                exchange.response(&response(200, ""), Replay::Truncated, world.now + five, &mut world.random);
                exchange.end(Termination::Complete, world.now + five);
            }
        };
        minutes(&mut world, &mut stuck);
        assert_eq!(stuck.len(), 1, "one of them finds out");
        // Once its client has gone it is tried again.
        for mut exchange in stuck.drain(..) {
            exchange.end(Termination::ClientAbort, world.now);
        }
        minutes(&mut world, &mut stuck);
        assert_eq!(stuck.len(), 1);
    }
}

#[test]
fn a_long_answer_does_not_keep_an_old_latency() {
    let mut world = balanced(Balance::PeakEwma, Vec::new(), Duration::ZERO);
    let (mut exchange, sent) = world.sent_off(&get(""));
    let conduct = Arc::clone(&sent.in_flight.endpoint().conduct);
    assert_eq!(conduct.latency(world.now), Latency::Awaited);
    let head_at = world.later(50);
    exchange.response(&response(200, ""), Replay::Truncated, head_at, &mut world.random);
    let fresh = conduct.latency(world.now);
    assert!(matches!(fresh, Latency::Recent(us) if us > 49_000.0), "{fresh:?}");
    let later = world.later(60_000);
    assert!(matches!(conduct.latency(later), Latency::Recent(us) if us < 1_000.0), "its body is still on the way");
    // A dead connection is replaced within the attempt, which counts once.
    let (mut exchange, _sent) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    let again = attempt(world.fail(&mut exchange, CLOSED));
    let conduct = Arc::clone(&again.in_flight.endpoint().conduct);
    exchange.end(Termination::ClientAbort, world.now);
    assert_ne!(conduct.latency(world.now), Latency::Awaited);
}

#[test]
fn an_endpoint_new_in_service_grows_into_its_share() {
    let slow_start = Duration::from_secs(10);
    for balance in [Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::PeakEwma] {
        let mut world = balanced(balance, Vec::new(), slow_start);
        world.web().stable[0].conduct.enter_service(world.now);
        let mut share = |after: u64| {
            world.later(after);
            (0..4_000).filter(|_| world.sent_off(&get("")).1.address().port().unwrap_or(0) == 8_000).count()
        };
        // One of 4 with a tenth, half and all of the others' share: 129, 571 and 1,000 of 4,000.
        let (new, half, full) = (share(0), share(5_000), share(5_000));
        assert!(
            new < 260 && (280..=760).contains(&half) && (850..=1_150).contains(&full),
            "{balance:?} {new} {half} {full}"
        );
    }
}
