//! Where a request goes first.

use super::*;
use crate::core::balance::Balance;
use crate::core::route::Target;
use crate::core::service::KeySource;
use crate::core::weight::Split;
use crate::proxy::fixture::{raw_request, request};

fn weight(text: &str) -> Weight {
    Weight::parse(text).expect("a weight")
}

#[test]
fn a_request_goes_to_the_variant_its_bucket_says() {
    for (weight, candidate) in [(Weight::ZERO, false), (Weight::FULL, true)] {
        let mut world = Setup { weight, ..Setup::default() }.build();
        let (exchange, attempt) = world.sent_off(&get(""));
        assert_eq!((is_candidate(&attempt), attempt.number, attempt.may_reuse), (candidate, 1, true));
        assert_eq!(attempt.address(), &attempt.in_flight.endpoint().key.address);
        assert_eq!(
            (exchange.route_label(), exchange.client()),
            (Some("routes[0]"), Some(world.facts.peer.expect("a peer")))
        );
        assert!(!exchange.is_shut_out() && exchange.target().is_none());
    }
}

#[test]
fn no_route_is_404_and_counts_nothing_at_any_endpoint() {
    let mut world = Setup { routes: vec![route("/shop", "web")], ..Setup::default() }.build();
    let (mut exchange, next) = world.begin(&get(""));
    assert_eq!(reply(next), Reply::of(Termination::NoRoute));
    assert_eq!((exchange.service().is_none(), exchange.route_label()), (true, None));
    let seen = exchange.end(Termination::NoRoute, world.now);
    assert_eq!((seen.status, seen.attempts, exchange.endpoint().is_none()), (404, 0, true));
    assert_eq!(world.terminations(Termination::NoRoute), 1);
    for variant in Variant::ALL {
        assert_eq!((world.attempts(variant), world.cells(variant)), (0, vec![]));
    }
}

#[test]
fn a_host_or_path_that_cannot_be_normalised_is_400_and_closes() {
    let bad_host = raw_request(b"GET / HTTP/1.1\r\nHost: a..test\r\n\r\n");
    // The codec refuses such a path itself; the policy does not rely on it.
    let mut bad_path = request("GET", "/1234", "");
    let at = bad_path.path.range();
    bad_path.bytes[at].copy_from_slice(b"/a%00");
    for head in [bad_host, bad_path] {
        let mut world = Setup::default().build();
        let (mut exchange, next) = world.begin(&head);
        let reply = reply(next);
        assert_eq!((reply.status, reply.close, reply.termination), (400, true, Termination::BadRequest), "{reply:?}");
        assert_eq!(exchange.end(reply.termination, world.now).status, 400);
    }
}

#[test]
fn a_body_announced_too_large_is_413_before_anything_is_exposed() {
    let limits = Limits { max_body: Some(10), ..Limits::default() };
    let mut world = Setup::default().build();
    world.facts = ConnFacts::new(listener(&[], limits), world.facts.peer, false);
    let (mut exchange, next) = world.begin(&request("POST", "/", "Content-Length: 11\r\n"));
    let reply = reply(next);
    assert_eq!((reply.status, reply.close), (413, true));
    assert_eq!(exchange.end(reply.termination, world.now).status, 413);
    assert_eq!(world.attempts(Variant::Candidate) + world.attempts(Variant::Stable), 0);
    for fields in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        world.sent_off(&request("POST", "/", fields));
    }
}

#[test]
fn an_attempt_counts_as_exposure_when_it_begins_and_is_in_flight_until_dropped() {
    let mut world = Setup::default().build();
    let (exchange, attempt) = world.sent_off(&get(""));
    assert_eq!((world.attempts(Variant::Candidate), world.in_flight(Variant::Candidate)), (1, 1));
    assert_eq!((world.attempts(Variant::Stable), world.in_flight(Variant::Stable)), (0, 0));
    let endpoint = Arc::clone(attempt.in_flight.endpoint());
    assert_eq!((endpoint.counters.of(WORKER).attempts.get(), endpoint.counters.of(0).attempts.get()), (1, 0));
    drop(attempt);
    assert_eq!((world.attempts(Variant::Candidate), world.in_flight(Variant::Candidate)), (1, 0));
    drop(exchange);
}

#[test]
fn a_fixed_split_sends_a_key_always_to_the_same_service() {
    let name = |name| Name::new(name).expect("a name");
    let parts = vec![(weight("50%"), name("web")), (weight("50%"), name("other"))];
    let split = Split::new(parts).expect("adds up");
    let key = vec![KeySource::Header("x-user".into())];
    let target = Target::Split { split, key };
    let mut world = Setup { routes: vec![Route { target, ..route("/", "web") }], ..Setup::default() }.build();
    let mut served = HashMap::new();
    for user in 0..200 {
        let head = get(&format!("X-User: {user}\r\n"));
        let service = |exchange: &Exchange| exchange.service().expect("a service").service.name.to_string();
        let first = service(&world.sent_off(&head).0);
        assert_eq!(first, service(&world.sent_off(&head).0), "user {user}");
        *served.entry(first).or_insert(0) += 1;
    }
    assert!(served["web"] > 70 && served["other"] > 70, "{served:?}");
}

#[test]
fn dot_segments_are_resolved_in_what_the_upstream_is_asked_for() {
    let mut world = Setup::default().build();
    let (exchange, _) = world.sent_off(&request("GET", "/a/../b%41?q=%41", ""));
    assert_eq!(exchange.target(), Some(&b"/b%41"[..]));
}

#[test]
fn force_chooses_the_variant_at_any_weight_and_is_noted() {
    for weight in [Weight::ZERO, Weight::FULL] {
        let mut world = Setup { weight, ..Setup::default() }.build();
        for (word, candidate) in [("candidate", true), ("stable", false)] {
            let (mut exchange, attempt) = world.sent_off(&forced(word));
            assert_eq!(is_candidate(&attempt), candidate);
            assert_eq!(exchange.end(Termination::Complete, world.now).assignment, Assignment::Forced);
            assert_eq!(exchange.stripped(), (None, None), "the upstream may see an allowed header");
        }
        let (exchange, _) = world.sent_off(&forced("nonsense"));
        assert_eq!(exchange.stripped(), (Some("x-canary"), None));
    }
}

#[test]
fn an_aborted_candidate_gets_nothing_but_what_keep_candidate_allows() {
    for (keep_candidate, published) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut world = Setup { keep_candidate, aborted: published, ..Setup::default() }.build();
        world.web().close_candidate();
        assert!(!is_candidate(&world.sent_off(&get("")).1));
        assert_eq!(is_candidate(&world.sent_off(&forced("candidate")).1), keep_candidate, "published: {published}");
    }
}

#[test]
fn the_route_has_the_last_word_on_the_timeout() {
    let timed = Route { timeout: Some(Duration::from_millis(300)), ..route("/", "web") };
    for (routes, ms) in [(vec![route("/", "web")], 1_000), (vec![timed], 300)] {
        let mut world = Setup { routes, ..Setup::default() }.build();
        let (mut exchange, _attempt) = world.sent_off(&get(""));
        exchange.connected(false, world.now);
        exchange.sent(world.now);
        assert_eq!(exchange.deadline(), Some(world.now + Duration::from_millis(ms)));
    }
}

#[test]
fn requests_of_one_round_robin_pool_take_turns() {
    let mut world = Setup::default().build();
    let routing = Arc::get_mut(&mut world.routing).expect("nobody else has it");
    let web = &mut routing.snapshot.services[1];
    assert_eq!(web.service.name.as_str(), "web");
    let mut settings = (*web.service).clone();
    settings.upstream.balance = Balance::RoundRobin;
    web.service = Arc::new(settings);
    let addresses: Vec<_> = (0..4).filter_map(|_| world.sent_off(&get("")).1.address().port()).collect();
    assert_eq!(addresses, [9_000, 9_001, 9_000, 9_001]);
}
