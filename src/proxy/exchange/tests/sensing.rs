//! What the gate is told of requests, while it watches.

use super::*;
use crate::core::gate::{Cell as GateCell, Channel, Draws, GateConfig, Unit};
use crate::core::health::Readiness;
use crate::proxy::fixture::request;
use crate::state::sensors::{Reader, Taken, Watch};

const BAD: u8 = 0;
/// The median.
const SLOW: u8 = 1;
const REFUSED: u8 = 4;
const STABLE: usize = 0;
const CANDIDATE: usize = 1;

/// A world whose every request is counted.
struct Watched {
    world: World,
}

/// Sums of what was counted, of stable and of the candidate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    begun: [u32; 2],
    written: [u32; 2],
    bad: [u32; 2],
    refused: [u32; 2],
    slow: [u32; 2],
    good: [u32; 2],
    waiting: [u32; 2],
    draws: Draws,
}

impl Watched {
    fn new(setup: Setup) -> Self {
        let mut world = setup.build();
        let config = GateConfig {
            alpha: 0.001,
            unit: Unit::Session,
            warmup: 0,
            reach: 1_220,
            metrics: GateConfig::default_metrics(),
        };
        let watch = Watch::rollout(&config, &[], 2, world.now);
        let (at, _) = world.routing.snapshot.service("web").expect("a service");
        let routing = Arc::get_mut(&mut world.routing).expect("nobody else has it");
        routing.live[at] = Arc::new(routing.live[at].watched(&watch));
        Self { world }
    }

    /// Everything that was counted until now.
    fn look(&self) -> (Sums, Taken) {
        let watch = self.world.web().watch.as_ref().expect("watched");
        let mut reader = Reader::default();
        let taken = reader.take(watch, watch.tick(self.world.now), true).clone();
        let mut sums = Sums { draws: taken.draws, good: taken.succeeded, ..Sums::default() };
        let side = |cell: GateCell| usize::from(cell != GateCell::STABLE);
        for e in &taken.exposures {
            let of = if e.channel == Channel::BEGUN { &mut sums.begun } else { &mut sums.written };
            of[side(e.cell)] += e.count;
        }
        for e in &taken.events {
            match e.series {
                BAD => sums.bad[side(e.cell)] += e.requests,
                SLOW => sums.slow[side(e.cell)] += e.requests,
                REFUSED => sums.refused[side(e.cell)] += e.requests,
                _ => {}
            }
        }
        for e in taken.in_flight.iter().filter(|e| e.series == SLOW) {
            sums.waiting[side(e.cell)] += e.requests;
        }
        (sums, taken)
    }

    fn sums(&self) -> Sums {
        self.look().0
    }

    /// Sends a request off, fully written.
    fn written(&mut self, head: &RequestHead) -> (Exchange, Attempt) {
        let (mut exchange, attempt) = self.world.sent_off(head);
        exchange.connected(false, self.world.now);
        exchange.sent(self.world.now);
        (exchange, attempt)
    }

    /// A request that is answered with `status` and ends so.
    fn answered(&mut self, head: &RequestHead, status: u16, end: Termination) {
        let (mut exchange, _attempt) = self.written(head);
        self.world.cookie(&mut exchange, &response(status, ""));
        exchange.end(end, self.world.now);
    }
}

#[test]
fn answers_are_bad_refused_good_or_neither() {
    for (status, end, bad, refused, good) in [
        (200, Termination::Complete, 0, 0, 1),
        (304, Termination::Complete, 0, 0, 1),
        (401, Termination::Complete, 0, 1, 0),
        (404, Termination::Complete, 0, 1, 0),
        (429, Termination::Complete, 0, 0, 0),
        (499, Termination::Complete, 0, 0, 0),
        (500, Termination::Complete, 1, 0, 0),
        (503, Termination::UpstreamTruncated, 1, 0, 0),
        (200, Termination::UpstreamTruncated, 1, 0, 0),
        (200, Termination::UpstreamIdle, 1, 0, 0),
        (200, Termination::ClientAbort, 0, 0, 0),
        (200, Termination::Drained, 0, 0, 0),
    ] {
        let mut watched = Watched::new(Setup::default());
        watched.answered(&get(""), status, end);
        let sums = watched.sums();
        assert_eq!((sums.begun, sums.written), ([0, 1], [0, 1]));
        assert_eq!((sums.bad, sums.refused, sums.good), ([0, bad], [0, refused], [0, good]), "{status} {end:?}");
        assert_eq!(sums.waiting, [0, 0]);
    }
}

#[test]
fn failures_are_bad_and_what_the_proxy_decided_is_not() {
    for (failure, bad) in [
        (CLOSED, 1),
        (Failure::BadResponse, 1),
        (Failure::HeadTimeout, 1),
        (Failure::Reset, 1),
        (Failure::Drained, 0),
        (Failure::OutOfResources, 0),
        (Failure::Full(Limit::Pending), 0),
    ] {
        let mut watched = Watched::new(Setup::default());
        let (mut exchange, _attempt) = watched.written(&get(""));
        assert_eq!(watched.sums().waiting, [0, 1]);
        let mut watched = Watched::new(Setup::default());
        let (mut other, _attempt) = watched.written(&get(""));
        let reply = reply(watched.world.fail(&mut other, failure));
        other.end(reply.termination, watched.world.now);
        let sums = watched.sums();
        assert_eq!((sums.begun, sums.bad, sums.waiting), ([0, 1], [0, bad], [0, 0]), "{failure:?}");
        exchange.end(Termination::Dropped, watched.world.now);
    }
}

#[test]
fn a_client_that_leaves_a_page_that_hangs_blames_it() {
    for (waited, bad) in [(900, 0), (1_000, 0), (1_100, 1)] {
        let mut watched = Watched::new(Setup::default());
        let (mut exchange, _attempt) = watched.written(&get(""));
        exchange.end(Termination::ClientAbort, watched.world.later(waited));
        assert_eq!(watched.sums().bad, [0, bad], "after {waited} ms");
        // While a connection is made, the page hangs as well.
        let mut watched = Watched::new(Setup::default());
        let (mut exchange, _attempt) = watched.world.sent_off(&get(""));
        exchange.end(Termination::ClientAbort, watched.world.later(waited));
        assert_eq!(watched.sums().bad, [0, bad], "unconnected after {waited} ms");
    }
    // It was still sending; it had its head; its answer was ours.
    let mut watched = Watched::new(Setup::default());
    let (mut exchange, _attempt) = watched.world.sent_off(&request("POST", "/", "Content-Length: 9\r\n"));
    exchange.connected(false, watched.world.now);
    exchange.end(Termination::ClientAbort, watched.world.later(5_000));
    let (mut exchange, _attempt) = watched.written(&get(""));
    watched.world.cookie(&mut exchange, &response(200, ""));
    exchange.end(Termination::ClientAbort, watched.world.later(5_000));
    let (mut exchange, _attempt) = watched.world.sent_off(&get(""));
    watched.world.later(5_000);
    reply(watched.world.fail(&mut exchange, Failure::Full(Limit::Connections)));
    exchange.end(Termination::ClientAbort, watched.world.now);
    assert_eq!(watched.sums().bad, [0, 0]);
}

#[test]
fn forced_requests_count_nothing() {
    let mut watched = Watched::new(Setup::default());
    for variant in ["stable", "candidate"] {
        watched.answered(&forced(variant), 500, Termination::Complete);
    }
    assert_eq!(watched.sums(), Sums::default());
}

#[test]
fn a_fallback_counts_for_the_candidate_alone() {
    let mut watched = Watched::new(Setup { candidate: 1, ..Setup::default() });
    let (mut exchange, _attempt) = watched.world.sent_off(&get(""));
    let _second = attempt(watched.world.fail(&mut exchange, Failure::Connect));
    exchange.connected(false, watched.world.now);
    exchange.sent(watched.world.now);
    watched.world.cookie(&mut exchange, &response(500, ""));
    exchange.end(Termination::Complete, watched.world.now);
    let sums = watched.sums();
    assert_eq!((sums.begun, sums.written, sums.bad, sums.good), ([0, 1], [0, 0], [0, 1], [0, 0]));
}

#[test]
fn a_pool_that_is_gone_is_charged_and_one_that_is_unknown_is_not() {
    for (readiness, begun, bad) in [(Readiness::Lost, [0, 1], [0, 1]), (Readiness::Unknown, [1, 0], [0, 0])] {
        let mut watched = Watched::new(Setup::default());
        for endpoint in watched.world.web().pool(Variant::Candidate) {
            endpoint.health.set_readiness(readiness);
        }
        watched.answered(&get(""), 200, Termination::Complete);
        let sums = watched.sums();
        assert_eq!((sums.begun, sums.bad), (begun, bad), "{readiness:?}");
    }
}

#[test]
fn retries_are_exposures_and_one_request_is_bad_once() {
    let on = RetryOn { connect: true, stale: true, server_error: true, reset: true, timeout: true };
    let retry = RetryRules { attempts: 2, on, budget: Weight::FULL, ..RetryRules::default() };
    let mut watched = Watched::new(Setup { candidate: 3, retry, ..Setup::default() });
    let (mut exchange, _attempt) = watched.written(&get(""));
    for _ in 0..2 {
        let next = watched.world.answer(&mut exchange, 503, Replay::Nothing).expect("again");
        let _attempt = attempt(watched.world.waited(&mut exchange, next));
        exchange.connected(false, watched.world.now);
        exchange.sent(watched.world.now);
    }
    assert!(watched.world.answer(&mut exchange, 200, Replay::Nothing).is_none());
    exchange.end(Termination::Complete, watched.world.now);
    let sums = watched.sums();
    assert_eq!((sums.begun, sums.written, sums.bad, sums.good), ([0, 3], [0, 3], [0, 1], [0, 0]));
}

#[test]
fn a_kept_connection_that_had_died_is_neutral() {
    let mut watched = Watched::new(Setup::default());
    let (mut exchange, _attempt) = watched.world.sent_off(&get(""));
    exchange.connected(true, watched.world.now);
    exchange.sent(watched.world.now);
    let _second = attempt(watched.world.fail(&mut exchange, CLOSED));
    exchange.connected(false, watched.world.now);
    exchange.sent(watched.world.now);
    watched.world.cookie(&mut exchange, &response(200, ""));
    exchange.end(Termination::Complete, watched.world.now);
    let sums = watched.sums();
    assert_eq!((sums.begun, sums.written), ([0, 1], [0, 1]), "the replay is the same exposure");
    assert_eq!((sums.bad, sums.good, sums.waiting), ([0, 0], [0, 1], [0, 0]));
}

#[test]
fn what_an_abort_sends_to_stable_counts_for_nobody() {
    let on = RetryOn { connect: true, stale: true, server_error: true, reset: true, timeout: true };
    let retry = RetryRules { attempts: 1, on, budget: Weight::FULL, ..RetryRules::default() };
    let mut watched = Watched::new(Setup { retry, ..Setup::default() });
    let (mut exchange, _attempt) = watched.written(&get(""));
    let next = watched.world.answer(&mut exchange, 503, Replay::Nothing).expect("again");
    watched.world.web().close_candidate();
    let second = attempt(watched.world.waited(&mut exchange, next));
    assert!(!is_candidate(&second));
    exchange.connected(false, watched.world.now);
    exchange.sent(watched.world.now);
    watched.world.cookie(&mut exchange, &response(404, ""));
    exchange.end(Termination::UpstreamTruncated, watched.world.now);
    let bad = Sums { begun: [0, 1], written: [0, 1], bad: [0, 1], ..Sums::default() };
    assert_eq!(watched.sums(), Sums { draws: watched.sums().draws, ..bad });
}

#[test]
fn what_is_dropped_waits_no_longer() {
    let mut watched = Watched::new(Setup::default());
    let (exchange, attempt) = watched.written(&get(""));
    assert_eq!(watched.sums().waiting, [0, 1]);
    drop((exchange, attempt));
    let sums = watched.sums();
    assert_eq!((sums.begun, sums.bad, sums.waiting), ([0, 1], [0, 0], [0, 0]));
}

#[test]
fn of_a_session_the_first_bad_event_counts_and_its_key_is_drawn_once() {
    let half = Weight::parse("50%").expect("a weight");
    let mut watched = Watched::new(Setup { weight: half, ..Setup::default() });
    for _ in 0..5 {
        for user in 0..8 {
            let head = get(&format!("Cookie: tidegate_web=0123456789abcde{user}\r\n"));
            watched.answered(&head, 500, Termination::Complete);
        }
    }
    let (sums, taken) = watched.look();
    let sessions: u32 = taken.events.iter().filter(|e| e.series == BAD).map(|e| e.sessions).sum();
    assert_eq!((sums.bad[STABLE] + sums.bad[CANDIDATE], sessions), (40, 8));
    let candidates = sums.bad[CANDIDATE] / 5;
    assert_eq!(sums.draws, Draws { keys: 8, candidate: candidates });
    assert!(candidates > 0 && taken.sessions == candidates);
}

#[test]
fn waiting_ends_with_the_head_and_begins_when_the_request_is_written() {
    let mut watched = Watched::new(Setup { weight: Weight::ZERO, ..Setup::default() });
    let (mut exchange, _attempt) = watched.world.sent_off(&request("POST", "/", "Content-Length: 9\r\n"));
    exchange.connected(false, watched.world.now);
    assert_eq!((watched.sums().waiting, watched.sums().written), ([0, 0], [0, 0]));
    exchange.sent(watched.world.now);
    assert_eq!(watched.sums().waiting, [1, 0]);
    watched.world.cookie(&mut exchange, &response(200, ""));
    assert_eq!(watched.sums().waiting, [0, 0]);
    exchange.end(Termination::Complete, watched.world.now);
    // An answer before the request was written is none of a latency.
    let (mut early, _attempt) = watched.world.sent_off(&request("POST", "/", "Content-Length: 9\r\n"));
    early.connected(false, watched.world.now);
    watched.world.cookie(&mut early, &response(200, ""));
    early.sent(watched.world.now);
    early.end(Termination::Complete, watched.world.now);
    let sums = watched.sums();
    assert_eq!((sums.begun, sums.written, sums.waiting), ([2, 0], [1, 0], [0, 0]));
}
