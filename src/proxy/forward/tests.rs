//! One attempt between two scripted sides. Deadlines are either far away or have passed already, so nothing waits.

mod mock;

use self::drive::INTERIMS_MAX;
use self::mock::{Client, Give, Half, Mood, Server};
use super::*;
use crate::config::settings::Limits;
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::proxy::fixture::{self, get, ip, listener, request};
use crate::state::fixture::{route, service};
use crate::state::live::Registry;

const FAR: Duration = Duration::from_secs(3_600);

/// Which waits are over before they begin.
#[derive(Clone, Copy)]
struct Waits {
    response: Duration,
    upstream_idle: Duration,
    client_idle: Duration,
    drain: Duration,
    grpc_idle: Duration,
}

struct World {
    worker: Rc<Worker>,
    registry: Arc<Registry>,
    facts: Rc<ConnFacts>,
}

const PATIENT: Waits = Waits { response: FAR, upstream_idle: FAR, client_idle: FAR, drain: FAR, grpc_idle: FAR };

fn world(waits: Waits) -> World {
    let mut web = service("web", 1, None);
    let upstream = &mut Arc::get_mut(&mut web).expect("nobody else has it").upstream;
    upstream.response_timeout = waits.response;
    upstream.body_idle = waits.upstream_idle;
    upstream.drain_timeout = waits.drain;
    let services = vec![ActiveService::new(web, Running::idle(0))];
    let snapshot = Snapshot::build(1, &[route("/", "web")], services).expect("a known service");
    let (worker, registry) = fixture::worker(snapshot);
    let limits = Limits { body_idle: waits.client_idle, grpc_idle: waits.grpc_idle, ..Limits::default() };
    let facts = Rc::new(ConnFacts::new(listener(&[], limits), Some(ip("192.0.2.7")), false));
    World { worker, registry, facts }
}

/// What was seen of an attempt.
struct Seen {
    /// `None`: it still waits.
    driven: Option<Driven>,
    client: Client,
    server: Server,
    volume: Volume,
    kept: Kept,
}

impl World {
    fn client(&self, head: RequestHead, gives: &[Give]) -> Client {
        let facts = Rc::clone(&self.facts);
        let alarm = self.worker.alarm();
        Client { half: Half::new(gives), head, facts, alarm, gone: false, interims: Vec::new(), answer: None }
    }

    fn get(&self) -> Client {
        self.client(get(""), &[Give::End])
    }

    fn upload(&self, gives: &[Give]) -> Client {
        self.client(request("PUT", "/", "Transfer-Encoding: chunked\r\n"), gives)
    }

    fn call(&self, gives: &[Give]) -> Client {
        let fields = "Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n";
        self.client(request("POST", "/", fields), gives)
    }

    /// An attempt that was answered `ago`, and what becomes of it when each side has this to say now.
    fn resume(&self, ago: Duration, client: Client, from_client: &[Give], from_server: &[Give]) -> String {
        self.answered(ago, client, &[(from_client, from_server)]).outcome()
    }

    /// An attempt that was answered `ago`, polled after each of the steps: what client and server have to say then. It waits before each.
    fn answered(&self, ago: Duration, mut client: Client, steps: &[(&[Give], &[Give])]) -> Seen {
        let mut exchange = self.worker.exchange(&client.head, &self.facts, clock::now());
        let next = self.worker.begin(&mut exchange, &client.head, &self.facts);
        let Next::Send(attempt) = next else { panic!("not sent") };
        let (mut kept, mut volume, mut server) = (Kept::default(), Volume::default(), Server::answering(&[200], &[]));
        let mut serving = Serving {
            worker: &self.worker,
            exchange: &mut exchange,
            kept: &mut kept,
            volume: &mut volume,
            last: false,
        };
        let began = clock::now().checked_sub(ago).expect("a clock that goes back so far");
        let mut drive = Drive::new(&mut serving, attempt.in_flight.endpoint(), began);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut polled = drive.poll(&mut cx, &mut client, &mut server);
        for (from_client, from_server) in steps {
            assert!(polled.is_pending(), "the answer goes on");
            client.half.gives.extend(*from_client);
            server.half.gives.extend(*from_server);
            polled = drive.poll(&mut cx, &mut client, &mut server);
        }
        let driven = match polled {
            Poll::Ready(driven) => Some(driven),
            Poll::Pending => None,
        };
        Seen { driven, client, server, volume, kept }
    }

    /// Polls one attempt twice: the second time finds what the first has set off.
    fn drive(&self, client: Client, server: Server) -> Seen {
        self.drive_with(client, server, Kept { max: 64, ..Kept::default() }, false)
    }

    fn drive_with(&self, mut client: Client, mut server: Server, mut kept: Kept, removed: bool) -> Seen {
        let mut exchange = self.worker.exchange(&client.head, &self.facts, clock::now());
        let next = self.worker.begin(&mut exchange, &client.head, &self.facts);
        let Next::Send(attempt) = next else { panic!("not sent") };
        if removed {
            self.registry.sweep(&[], clock::now());
        }
        let mut volume = Volume::default();
        let mut serving = Serving {
            worker: &self.worker,
            exchange: &mut exchange,
            kept: &mut kept,
            volume: &mut volume,
            last: false,
        };
        let mut drive = Drive::new(&mut serving, attempt.in_flight.endpoint(), clock::now());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut polled = drive.poll(&mut cx, &mut client, &mut server);
        if polled.is_pending() {
            polled = drive.poll(&mut cx, &mut client, &mut server);
        }
        let driven = match polled {
            Poll::Ready(driven) => Some(driven),
            Poll::Pending => None,
        };
        Seen { driven, client, server, volume, kept }
    }
}

impl Seen {
    /// In words: the outcome, and whether the upstream connection is between messages.
    fn outcome(&self) -> String {
        let Some(driven) = &self.driven else { return "waits".into() };
        let Driven::Over { outcome, clean } = driven else { return "upgraded".into() };
        let outcome = match outcome {
            Outcome::Complete(reusable) => format!("complete reusable={reusable}"),
            Outcome::Failed(failure) => format!("failed {failure:?}"),
            Outcome::BadBody(reply) => format!("bad body {}", reply.status),
            Outcome::Cut(termination) => format!("cut {termination:?}"),
            Outcome::Tunnelled(_) => "tunnelled".into(),
            Outcome::Again(_) => "again".into(),
        };
        if *clean { format!("{outcome} clean") } else { outcome }
    }
}

#[test]
fn a_plain_request_is_answered_and_both_connections_go_on() {
    let world = world(PATIENT);
    let body = [Give::Data(b"hello "), Give::Data(b"you"), Give::End];
    let seen = world.drive(world.upload(&[Give::Data(b"up"), Give::End]), Server::answering(&[200], &body));
    assert_eq!(seen.outcome(), "complete reusable=true clean");
    assert_eq!((&seen.client.half.got[..], &seen.server.half.got[..]), (&b"hello you"[..], &b"up"[..]));
    assert_eq!((seen.volume.up, seen.volume.down, seen.client.answer), (2, 9, Some((200, false, false))));
    assert!(seen.client.half.ended && seen.server.half.ended);
}

#[test]
fn every_wait_has_the_deadline_of_whoever_it_waits_for() {
    let up = |mood| Server { half: Half { mood, ..Half::new(&[]) }, ..Server::answering(&[], &[]) };
    let answer = |gives: &[Give]| Server::answering(&[200], gives);
    let none = Duration::ZERO;
    let slow_head = world(Waits { response: none, ..PATIENT });
    assert_eq!(slow_head.drive(slow_head.get(), up(Mood::Takes)).outcome(), "failed HeadTimeout");
    assert_eq!(slow_head.drive(slow_head.upload(&[]), up(Mood::Takes)).outcome(), "waits", "an upload takes its time");
    assert_eq!(slow_head.drive(slow_head.get(), answer(&[])).outcome(), "waits", "a body takes its time");
    let client = world(Waits { client_idle: none, ..PATIENT });
    assert_eq!(client.drive(client.upload(&[]), up(Mood::Takes)).outcome(), "bad body 408");
    assert_eq!(client.drive(client.get(), up(Mood::Takes)).outcome(), "waits", "nobody waits for the client");
    assert_eq!(client.drive(client.get(), answer(&[])).outcome(), "waits");
    let stuck = Client { half: Half { mood: Mood::Stuck, ..Half::new(&[Give::End]) }, ..client.get() };
    assert_eq!(client.drive(stuck, answer(&[Give::Data(b"x")])).outcome(), "cut ClientIdle");
    let upstream = world(Waits { upstream_idle: none, ..PATIENT });
    assert_eq!(upstream.drive(upstream.get(), answer(&[])).outcome(), "cut UpstreamIdle");
    assert_eq!(upstream.drive(upstream.get(), up(Mood::Takes)).outcome(), "waits", "a head has a deadline of its own");
    let upload = upstream.upload(&[Give::Data(b"x"), Give::End]);
    assert_eq!(upstream.drive(upload, up(Mood::Stuck)).outcome(), "failed HeadTimeout");
}

#[test]
fn once_the_answer_has_begun_either_side_keeps_the_other_alive() {
    let (half, data) = (FAR / 2, [Give::Data(b"x")]);
    let world = world(Waits { upstream_idle: half, client_idle: half, ..PATIENT });
    assert_eq!(world.resume(FAR, world.upload(&[]), &[], &data), "waits", "the client only listens");
    assert_eq!(world.resume(FAR, world.upload(&[]), &data, &[]), "waits", "the upstream only listens");
    assert_eq!(world.resume(FAR, world.upload(&[]), &[], &[]), "cut ClientIdle");
    assert_eq!(world.resume(FAR, world.upload(&[Give::End]), &[], &[]), "cut UpstreamIdle");
}

#[test]
fn a_call_may_be_silent_for_longer_than_a_body() {
    let none = Duration::ZERO;
    let quiet = world(Waits { upstream_idle: none, client_idle: none, ..PATIENT });
    for gives in [&[][..], &[Give::End]] {
        assert_eq!(quiet.resume(FAR / 2, quiet.call(gives), &[], &[]), "waits");
    }
    let call = quiet.call(&[]);
    assert_eq!(
        quiet.drive(call, Server::answering(&[], &[])).outcome(),
        "bad body 408",
        "before its answer it may not"
    );
    let short = world(Waits { grpc_idle: FAR / 4, ..PATIENT });
    assert_eq!(short.resume(FAR / 2, short.call(&[]), &[], &[]), "cut ClientIdle");
    assert_eq!(short.resume(FAR / 2, short.call(&[Give::End]), &[], &[]), "cut UpstreamIdle");
    assert_eq!(short.resume(FAR / 2, short.call(&[Give::End]), &[], &[Give::Data(b"x")]), "waits");
}

#[test]
fn an_endpoint_that_left_is_given_its_drain_time() {
    for (drain, answered, outcome) in [
        (FAR, false, "waits"),
        (Duration::ZERO, false, "failed Drained"),
        (FAR, true, "waits"),
        (Duration::ZERO, true, "cut Drained"),
    ] {
        let world = world(Waits { drain, ..PATIENT });
        let statuses: &[u16] = if answered { &[200] } else { &[] };
        let seen = world.drive_with(world.get(), Server::answering(statuses, &[]), Kept::default(), true);
        assert_eq!(seen.outcome(), outcome, "{drain:?} answered: {answered}");
    }
}

#[test]
fn an_answer_that_comes_before_the_upload_is_over_ends_both_connections() {
    let world = world(PATIENT);
    let seen = world.drive(world.upload(&[Give::Data(b"a")]), Server::answering(&[413], &[Give::End]));
    assert_eq!((seen.outcome(), seen.client.answer), ("complete reusable=false".into(), Some((413, false, true))));
    let broken =
        Server { half: Half { mood: Mood::Broken, ..Half::new(&[Give::End]) }, ..Server::answering(&[413], &[]) };
    let seen = world.drive(world.upload(&[Give::Data(b"a")]), broken);
    assert_eq!((seen.outcome(), seen.client.answer), ("complete reusable=false".into(), Some((413, false, true))));
}

#[test]
fn a_bad_request_body_is_answered_only_while_nothing_was() {
    let world = world(PATIENT);
    for (give, early) in [
        (Give::Malformed, "bad body 400"),
        (Give::TooLarge, "bad body 413"),
        (Give::TrailersTooLarge, "bad body 431"),
        (Give::Closed, "cut ClientAbort"),
    ] {
        let seen = world.drive(world.upload(&[Give::Data(b"a"), give]), Server::answering(&[], &[]));
        assert_eq!(seen.outcome(), early, "{give:?}");
        // The first poll passes the answer, the second finds the fault.
        let mut client = world.upload(&[]);
        client.half.gives.clear();
        let seen = world.answered(Duration::ZERO, client, &[(&[give], &[]), (&[], &[Give::End])]);
        assert_eq!(seen.outcome(), "complete reusable=false", "{give:?}");
    }
}

#[test]
fn failures_before_a_head_are_told_apart() {
    let world = world(PATIENT);
    for (fault, accepted, outcome) in [
        (HeadFault::Closed, true, "failed Closed { accepted: true }"),
        (HeadFault::Closed, false, "failed Closed { accepted: false }"),
        (HeadFault::Malformed("x"), true, "failed BadResponse"),
    ] {
        assert_eq!(world.drive(world.get(), Server::failing(fault, accepted)).outcome(), outcome);
    }
}

#[test]
fn failures_within_a_response_cut_it() {
    let world = world(PATIENT);
    for give in [Give::Closed, Give::Malformed] {
        let seen = world.drive(world.get(), Server::answering(&[200], &[Give::Data(b"x"), give]));
        assert_eq!(seen.outcome(), "cut UpstreamTruncated");
    }
    let broken = Client { half: Half { mood: Mood::Broken, ..Half::new(&[Give::End]) }, ..world.get() };
    assert_eq!(world.drive(broken, Server::answering(&[200], &[Give::Data(b"x")])).outcome(), "cut ClientAbort");
    let gone = Client { gone: true, ..world.get() };
    assert_eq!(world.drive(gone, Server::answering(&[], &[])).outcome(), "cut ClientAbort");
}

#[test]
fn so_many_interim_heads_are_passed_and_no_switch_nobody_asked_for() {
    let world = world(PATIENT);
    let most = usize::try_from(INTERIMS_MAX).expect("small");
    let mut statuses = vec![103; most];
    statuses.push(200);
    let seen = world.drive(world.get(), Server::answering(&statuses, &[Give::End]));
    assert_eq!((seen.outcome(), seen.client.interims.len()), ("complete reusable=true clean".into(), most));
    statuses.insert(0, 103);
    assert_eq!(world.drive(world.get(), Server::answering(&statuses, &[])).outcome(), "failed BadResponse");
    assert_eq!(world.drive(world.get(), Server::answering(&[101], &[])).outcome(), "failed BadResponse");
}

#[test]
fn what_was_kept_of_a_body_is_sent_again_first() {
    let world = world(PATIENT);
    let kept = Kept { bytes: b"kept ".to_vec(), taken: 5, ..Kept::default() };
    let client = world.upload(&[Give::Data(b"rest"), Give::End]);
    let seen = world.drive_with(client, Server::answering(&[200], &[Give::End]), kept, false);
    assert_eq!((seen.outcome(), &seen.server.half.got[..]), ("complete reusable=true clean".into(), &b"kept rest"[..]));
    assert_eq!(
        (seen.volume.up, seen.kept.state()),
        (4, Replay::Truncated),
        "counted when it came, not when sent again"
    );
}

#[test]
fn a_body_is_kept_whole_or_not_at_all() {
    let mut kept = Kept { max: 8, ..Kept::default() };
    assert_eq!(kept.state(), Replay::Nothing);
    kept.push(b"1234");
    kept.push(b"5678");
    assert_eq!((kept.state(), &kept.bytes[..]), (Replay::Kept, &b"12345678"[..]));
    kept.push(b"9");
    assert_eq!((kept.state(), kept.bytes.capacity()), (Replay::Truncated, 0));
    kept.push(b"");
    assert_eq!(kept.state(), Replay::Truncated);
}
