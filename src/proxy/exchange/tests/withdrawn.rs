//! What was decided while a connection was being made: an abort and a reload reach requests that have not sent anything yet.

use super::*;

#[test]
fn an_abort_during_the_dial_sends_the_request_to_stable() {
    for head in [get(""), forced("candidate")] {
        let mut world = Setup::default().build();
        let (mut exchange, first) = world.sent_off(&head);
        assert!(is_candidate(&first) && !exchange.is_withdrawn());
        world.web().close_candidate();
        exchange.connected(false, world.now);
        assert!(exchange.is_withdrawn());
        let next = attempt(world.fail(&mut exchange, Failure::Withdrawn));
        assert!(!is_candidate(&next) && !exchange.is_withdrawn());
        assert_eq!((world.bad(Variant::Candidate), world.bad(Variant::Stable)), (0, 0), "nobody failed");
    }
}

/// Endpoints beyond `left` leave the pool of stable, as a reload does it.
fn remove_but(world: &World, left: u16) {
    let names = world.routing.snapshot.services.iter().map(|active| active.service.name.clone());
    let previous: HashMap<Name, Arc<ServiceLive>> = names.zip(world.routing.live.iter().cloned()).collect();
    let after = Setup { stable: left, ..Setup::default() }.routing(&world.registry, &previous);
    world.registry.sweep(&after.live, world.now);
}

#[test]
fn a_retry_never_goes_to_an_endpoint_that_left() {
    for _ in 0..16 {
        let mut world = Setup { weight: Weight::ZERO, stable: 3, ..Setup::default() }.build();
        let (mut exchange, first) = world.sent_off(&get(""));
        remove_but(&world, 1);
        let stays = world.web().stable[0].key.address.clone();
        let next = world.fail(&mut exchange, Failure::Connect);
        if *first.address() != stays {
            assert_eq!(*attempt(next).address(), stays);
        }
    }
}

#[test]
fn a_connection_to_an_endpoint_that_left_is_used_only_if_there_is_no_other() {
    let mut world = Setup { weight: Weight::ZERO, ..Setup::default() }.build();
    let mut left = 0;
    for _ in 0..16 {
        let (mut exchange, first) = world.sent_off(&get(""));
        exchange.connected(false, world.now);
        remove_but(&world, 1);
        let leaving = first.in_flight.endpoint().is_removed();
        assert_eq!(exchange.is_withdrawn(), leaving);
        if leaving {
            left += 1;
            assert!(!attempt(world.fail(&mut exchange, Failure::Withdrawn)).in_flight.endpoint().is_removed());
        }
        remove_but(&world, 2);
    }
    assert!(left > 0, "both endpoints are drawn");
    let (exchange, _first) = world.sent_off(&get(""));
    world.registry.sweep(&[], world.now);
    assert!(!exchange.is_withdrawn(), "better a draining endpoint than no answer");
}

#[test]
fn a_process_out_of_descriptors_blames_nobody() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = world.sent_off(&get(""));
    let answer = reply(world.fail(&mut exchange, Failure::OutOfResources));
    assert_eq!((answer.status, answer.termination), (503, Termination::OutOfResources));
    assert_eq!((world.bad(Variant::Candidate), world.sum(Variant::Candidate, |s| &s.connect_failures)), (0, 0));
}

/// What `before` published, with the candidate promoted and what was stable kept warm.
fn promote(world: &mut World) {
    let before = Arc::clone(&world.routing);
    let mut services = before.snapshot.services.clone();
    let mut web = Service::clone(&services[1].service);
    let old = std::mem::replace(&mut web.stable, web.candidate.take().expect("a candidate"));
    services[1] = ActiveService::new(Arc::new(web), Running::idle(5)).with_warm(Some(old));
    let snapshot = before.snapshot.next(services);
    let live =
        vec![Arc::clone(&before.live[0]), world.registry.resolve_one(&snapshot.services[1], Some(&before.live[1]))];
    world.routing = Arc::new(Routing { snapshot, live });
}

/// A rollback: after it nothing begins on `v2` by what was published until now.
fn roll_back(world: &World) {
    let v2 = crate::core::id::Version::new("v2").expect("a version");
    world.registry.shut(&Name::new("web").expect("a name"), &v2, world.routing.snapshot.generation + 1);
}

fn version(attempt: &Attempt) -> String {
    attempt.in_flight.endpoint().key.version.to_string()
}

fn retried() -> Setup {
    let on = RetryOn { connect: true, stale: true, server_error: true, reset: true, timeout: true };
    let retry = RetryRules { attempts: 2, on, budget: Weight::FULL, ..RetryRules::default() };
    Setup { retry, ..Setup::default() }
}

#[test]
fn after_a_rollback_a_request_that_waits_goes_to_the_stable_before() {
    let mut world = retried().build();
    promote(&mut world);
    let (mut exchange, first) = world.sent_off(&get(""));
    assert_eq!((version(&first), is_candidate(&first)), ("v2".to_owned(), false));
    let parked = exchange.failed(Failure::Connect, Replay::Nothing, world.now, &mut world.random);
    assert!(matches!(parked, Next::Park { .. }) && !exchange.is_shut_out());
    roll_back(&world);
    assert!(exchange.is_shut_out(), "it need not wait for its time");
    let next = attempt(exchange.unpark(world.now, &mut world.random));
    assert_eq!(version(&next), "v1");
    assert!(!exchange.is_shut_out() && exchange.endpoint().is_some_and(|e| e.key.version.as_str() == "v1"));
    let tried: Vec<_> = exchange.failed_attempts().map(|failed| failed.endpoint.port()).collect();
    assert_eq!(tried, [first.address().port()], "who was tried first is remembered");
    // The old stable fails, too: tried again there, and nowhere else.
    for _ in 0..2 {
        match world.fail(&mut exchange, Failure::Connect) {
            Next::Send(attempt) => assert_eq!(version(&attempt), "v1"),
            other => drop(reply(other)),
        }
    }
}

#[test]
fn after_a_rollback_nobody_who_began_with_the_candidate_begins_on_it() {
    let mut world = retried().build();
    let (mut parked, first) = world.sent_off(&get(""));
    let (mut dialling, _second) = world.sent_off(&get(""));
    assert!(is_candidate(&first));
    let next = parked.failed(Failure::Connect, Replay::Nothing, world.now, &mut world.random);
    assert!(matches!(next, Next::Park { .. }));
    promote(&mut world);
    assert!(!parked.is_shut_out() && !dialling.is_withdrawn(), "a promotion shuts nobody out");
    roll_back(&world);
    dialling.connected(false, world.now);
    assert!(dialling.is_withdrawn());
    let next = attempt(world.fail(&mut dialling, Failure::Withdrawn));
    assert_eq!(version(&next), "v1");
    assert_eq!(version(&attempt(parked.unpark(world.now, &mut world.random))), "v1");
}

#[test]
fn a_rollback_is_no_matter_to_requests_of_later_snapshots() {
    let mut world = retried().build();
    let generation = world.routing.snapshot.generation;
    let v2 = crate::core::id::Version::new("v2").expect("a version");
    world.registry.shut(&Name::new("web").expect("a name"), &v2, generation);
    let (exchange, first) = world.sent_off(&get(""));
    assert!(is_candidate(&first) && !exchange.is_shut_out(), "it is tried again");
}

/// What may be sent again is not sent to a candidate that was aborted meanwhile, even if stable has nobody.
#[test]
fn a_replay_after_an_abort_is_answered_if_stable_has_nobody() {
    let mut world = Setup::default().build();
    let (mut exchange, _first) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    world.web().close_candidate();
    for endpoint in &world.web().stable {
        endpoint.health.set_readiness(crate::core::health::Readiness::Unknown);
    }
    let answer = reply(world.fail(&mut exchange, CLOSED));
    assert_eq!(answer.status, 503);
}
