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
