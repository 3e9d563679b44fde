//! Only ready endpoints are chosen, and whose fault it is when there is none.

use super::*;
use crate::core::health::Readiness;
use crate::core::outlier::Cause;
use crate::state::conduct::Ejection;
use crate::state::live::EndpointLive;

fn set(world: &World, variant: Variant, readiness: Readiness) {
    for endpoint in world.web().pool(variant) {
        endpoint.health.set_readiness(readiness);
    }
}

#[test]
fn without_a_ready_stable_endpoint_the_answer_comes_at_once() {
    for readiness in [Readiness::Unknown, Readiness::NotReady] {
        let mut world = Setup { weight: Weight::ZERO, ..Setup::default() }.build();
        set(&world, Variant::Stable, readiness);
        let (mut exchange, next) = world.begin(&get(""));
        let reply = reply(next);
        assert_eq!((reply.status, reply.termination, reply.close), (503, Termination::NotReady, false));
        exchange.end(reply.termination, world.now);
        assert_eq!((world.attempts(Variant::Stable), world.bad(Variant::Stable)), (0, 0));
        assert_eq!(world.terminations(Termination::NotReady), 1);
    }
}

#[test]
fn the_answer_says_why_nobody_can_be_used() {
    let mut world = Setup { weight: Weight::ZERO, stable: 2, ..Setup::default() }.build();
    set(&world, Variant::Stable, Readiness::NotReady);
    let [a, b] = [0, 1].map(|i| Arc::clone(&world.web().stable[i]));
    let mut told = || {
        let (mut exchange, next) = world.begin(&get(""));
        let reply = reply(next);
        exchange.end(reply.termination, world.now);
        reply.detail
    };
    assert!(told().contains("probes fail"), "{}", told());
    let drain = |endpoint: &EndpointLive| endpoint.conduct.drain(crate::clock::now(), Duration::from_secs(1));
    drain(&a);
    assert!(told().contains("drained, ejected or not ready"), "{}", told());
    drain(&b);
    assert!(told().contains("all are drained"), "{}", told());
    // Of stable ejected ones serve in panic.
    let mut world = Setup::default().build();
    let ejection = Ejection { cause: Cause::Trial, fault: None, at: Duration::ZERO, lasting: Duration::from_secs(30) };
    world.web().candidate.iter().for_each(|endpoint| endpoint.conduct.eject(ejection));
    let (_exchange, next) = world.begin(&forced("candidate"));
    assert!(reply(next).detail.contains("requests failed"));
}

#[test]
fn only_the_ready_of_several_is_chosen() {
    let mut world = Setup { weight: Weight::ZERO, stable: 4, ..Setup::default() }.build();
    set(&world, Variant::Stable, Readiness::Lost);
    let ready = Arc::clone(&world.web().stable[2]);
    ready.health.set_readiness(Readiness::Ready);
    for _ in 0..32 {
        assert_eq!(world.sent_off(&get("")).1.address(), &ready.key.address);
    }
    // It fails, and there is nobody else to try: it is tried once more.
    let (mut exchange, _) = world.sent_off(&get(""));
    assert_eq!(attempt(world.fail(&mut exchange, Failure::Connect)).address(), &ready.key.address);
    assert_eq!(reply(world.fail(&mut exchange, Failure::Connect)).termination, Termination::ConnectFailed);
}

/// argo#3372: a release is never routed to before its probe passed.
#[test]
fn an_unknown_candidate_has_no_share_and_nothing_is_charged() {
    for readiness in [Readiness::Unknown, Readiness::NotReady] {
        for new_sessions in [false, true] {
            let mut world = Setup { new_sessions, ..Setup::default() }.build();
            set(&world, Variant::Candidate, readiness);
            let (mut exchange, sent) = world.sent_off(&get(""));
            assert!(!is_candidate(&sent));
            assert_eq!(world.cookie(&mut exchange, &response(200, "")), None, "no session begins");
            let seen = exchange.end(Termination::Complete, world.now);
            assert_eq!((seen.assignment, seen.attempts), (Assignment::Bucket, 1));
            assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (0, 0));
            assert_eq!((world.attempts(Variant::Stable), world.bad(Variant::Stable)), (1, 0));
        }
    }
}

#[test]
fn a_candidate_that_was_ready_once_is_charged_with_one_exposure_and_one_bad() {
    let mut world = Setup::default().build();
    set(&world, Variant::Candidate, Readiness::Lost);
    let (mut exchange, sent) = world.sent_off(&get(""));
    assert!(!is_candidate(&sent));
    world.cookie(&mut exchange, &response(503, ""));
    let seen = exchange.end(Termination::Complete, world.now);
    assert_eq!((seen.assignment, seen.attempts), (Assignment::Fallback, 1));
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 1));
    assert_eq!(world.bad(Variant::Stable), 0, "a fallback never counts against stable");
    // With stable down as well it is still charged once.
    set(&world, Variant::Stable, Readiness::NotReady);
    let (mut exchange, next) = world.begin(&get(""));
    assert_eq!(reply(next).termination, Termination::NotReady);
    exchange.end(Termination::NotReady, world.now);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (2, 2));
}

#[test]
fn a_failed_attempt_and_a_pool_that_is_lost_meanwhile_are_one_exposure() {
    let mut world = Setup::default().build();
    let (mut exchange, sent) = world.sent_off(&get(""));
    assert!(is_candidate(&sent));
    set(&world, Variant::Candidate, Readiness::Lost);
    let next = attempt(world.fail(&mut exchange, Failure::Connect));
    assert!(!is_candidate(&next));
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (1, 1));
}

#[test]
fn whoever_forces_an_unready_candidate_is_told() {
    let mut world = Setup::default().build();
    set(&world, Variant::Candidate, Readiness::Lost);
    let (_exchange, next) = world.begin(&forced("candidate"));
    assert_eq!(reply(next).termination, Termination::NotReady);
    assert_eq!((world.attempts(Variant::Candidate), world.bad(Variant::Candidate)), (0, 0));
}

#[test]
fn a_replay_prefers_an_endpoint_that_is_ready() {
    let mut world = Setup { weight: Weight::ZERO, stable: 2, ..Setup::default() }.build();
    let (mut exchange, first) = world.sent_off(&get(""));
    exchange.connected(true, world.now);
    first.in_flight.endpoint().health.set_readiness(Readiness::Lost);
    assert_ne!(attempt(world.fail(&mut exchange, CLOSED)).address(), first.address());
}
