//! Way up: written, then true. Way back: true, and overtakes.

use super::*;
use crate::core::roles::{HISTORY_MAX, MEMORIES_MAX, StartWith, VERSIONS_MAX, Verb};
use crate::core::rollout::{Counts, Facts, Verdict as Seen};
use crate::state::fixture;

const NOW: Duration = Duration::from_secs(1_000);
const TICK: Duration = Duration::from_millis(50);

fn open(services: &[Arc<Service>]) -> Desk {
    Desk::open(Stored::default(), services, NOW).expect("opens").0
}

/// `web` with v1, and v2 waiting for a start command.
fn web() -> Desk {
    open(&[fixture::service("web", 1, Some(("v2", 1)))])
}

fn ask(desk: &mut Desk, verb: Verb) -> Decision {
    desk.ask(0, &Ask { reason: Some("a test".into()), ..Ask::of(verb, "ci") }, NOW).expect("allowed")
}

fn start() -> Verb {
    let version = Version::new("v2").expect("a version");
    Verb::Start(StartWith { version, digest: None, endpoints: Vec::new(), terms: None, supersede: false })
}

fn up(decision: Decision) -> Proposal {
    match decision {
        Decision::Up(proposal) => proposal,
        other => panic!("not a way up: {other:?}"),
    }
}

fn done(decision: Decision) -> Deeds {
    match decision {
        Decision::Done(deeds) => deeds,
        other => panic!("not true at once: {other:?}"),
    }
}

fn tick(desk: &mut Desk, verdict: Seen) -> Decision {
    let facts = Facts {
        ready: true,
        counts: Counts::default(),
        verdict,
        alarm: false,
        stable_degraded: false,
        sample_ratio: false,
        endpoint: false,
    };
    desk.on(0, Event::Tick(facts), TICK, NOW)
}

fn roles_of(entry: &Entry) -> Option<&Roles> {
    if let Record::Is(roles) = &entry.record { Some(roles) } else { None }
}

fn weight(desk: &Desk) -> Weight {
    desk.services()[0].roles.weight()
}

/// Writes and takes in that it landed.
fn land(desk: &mut Desk, proposal: Proposal) -> Written {
    assert!(!desk.write(proposal).is_empty());
    desk.written(true)
}

fn rolling() -> Desk {
    let mut desk = web();
    let started = up(ask(&mut desk, start()));
    land(&mut desk, started);
    let stepped = up(tick(&mut desk, Seen::Open));
    land(&mut desk, stepped);
    assert_eq!(weight(&desk), Weight::of_percent(5));
    desk
}

#[test]
fn a_step_is_true_once_it_is_written_and_not_before() {
    let mut desk = web();
    let started = up(ask(&mut desk, start()));
    assert!(desk.write(started).iter().any(|entry| entry.notes[0].verb == "start"));
    assert_eq!(desk.services()[0].roles.active().expect("one").rollout.phase(), "paused");
    assert!(matches!(desk.written(true), Written::True { .. }));
    let stepped = up(tick(&mut desk, Seen::Open));
    desk.write(stepped);
    assert!(matches!(tick(&mut desk, Seen::Open), Decision::Nothing), "decided once");
    assert_eq!(weight(&desk), Weight::ZERO);
    let Written::True { deeds, overtaken } = desk.written(true) else { panic!("landed") };
    assert_eq!((weight(&desk), overtaken.len(), deeds.publish.len()), (Weight::of_percent(5), 0, 1));
    assert!(deeds.gate.iter().any(|(_, work)| *work == GateWork::Step(0)));
}

#[test]
fn what_the_store_refuses_has_not_happened_and_is_decided_again() {
    let mut desk = rolling();
    let before = desk.services()[0].roles.clone();
    let promoted = up(ask(&mut desk, Verb::Promote { full: false, force: false }));
    desk.write(promoted);
    let Written::Refused { as_is } = desk.written(false) else { panic!("it did not land") };
    let records: Vec<_> = as_is.iter().map(|entry| (roles_of(entry), entry.notes.len())).collect();
    assert_eq!(records, [(Some(&before), 1)], "whatever the disk has, this is true");
    let undone = &as_is[0].notes[0];
    assert_eq!((undone.actor.as_str(), undone.verb), ("store", "undo"));
    assert!(undone.from.contains("at 25%") && undone.to.contains("at 5%"), "{undone:?}");
    assert!(!desk.is_writing());
    assert_eq!(desk.services()[0].roles, before);
    let again = up(ask(&mut desk, Verb::Promote { full: false, force: false }));
    assert!(matches!(land(&mut desk, again), Written::True { .. }));
    assert_eq!(weight(&desk), Weight::of_percent(25));
    let promoted = up(ask(&mut desk, Verb::Promote { full: true, force: true }));
    let Written::True { deeds, .. } = land(&mut desk, promoted) else { panic!("landed") };
    assert_eq!(
        deeds.said[0].weights,
        (Weight::of_percent(25), Weight::FULL),
        "everything, although no candidate is left"
    );
}

#[test]
fn an_abort_overtakes_a_step_that_is_being_written() {
    let mut desk = rolling();
    let promoted = up(ask(&mut desk, Verb::Promote { full: false, force: false }));
    desk.write(promoted);
    let deeds = done(ask(&mut desk, Verb::Abort));
    assert_eq!((deeds.close.len(), deeds.publish.len(), deeds.owed.len()), (1, 1, 1));
    let said: Vec<_> = deeds.owed[0].notes.iter().map(|note| (note.actor.as_str(), note.verb)).collect();
    assert_eq!(said, [("ci", "overtaken"), ("ci", "abort")]);
    assert!(deeds.owed[0].notes[0].from.contains("at 25%"), "{:?}", deeds.owed[0].notes);
    assert_eq!(deeds.said.iter().map(|said| said.note.verb).collect::<Vec<_>>(), ["overtaken", "abort"]);
    let Written::True { deeds, overtaken } = desk.written(true) else { panic!("landed") };
    assert_eq!((overtaken.len(), deeds.publish.len(), weight(&desk)), (1, 0, Weight::ZERO));
    assert_eq!(desk.services()[0].roles.current.as_ref().expect("it").rollout.phase(), "aborted");
}

#[test]
fn harm_overtakes_too_and_needs_nobody() {
    let mut desk = rolling();
    let promoted = up(ask(&mut desk, Verb::Promote { full: false, force: false }));
    desk.write(promoted);
    let deeds = done(tick(&mut desk, Seen::Harmful { metric: "error-rate".into() }));
    assert_eq!((deeds.said[0].note.verb, deeds.said[1].note.actor.as_str()), ("overtaken", "gate/error-rate"));
    assert_eq!(deeds.said[1].weights, (Weight::of_percent(5), Weight::ZERO));
    assert!(matches!(desk.written(true), Written::True { overtaken, .. } if overtaken.len() == 1));
    assert_eq!(weight(&desk), Weight::ZERO);
}

/// What does not run yet cannot be aborted, and must not run after the abort was answered.
#[test]
fn an_abort_while_a_start_is_being_written_drops_the_start_and_corrects_the_store() {
    let mut desk = open(&[fixture::service("web", 1, None)]);
    let declared = fixture::service("x", 1, None).stable.declared.clone();
    let Verb::Start(with) = start() else { unreachable!() };
    let begun = up(ask(&mut desk, Verb::Start(StartWith { endpoints: declared, ..with })));
    let next = desk.next_rollout();
    desk.write(begun);
    let deeds = done(ask(&mut desk, Verb::Abort));
    let (said, owed) = (&deeds.said[0].note, &deeds.owed[0].notes);
    assert_eq!((said.actor.as_str(), said.verb, said.rollout), ("ci", "abort", next - 1), "it is told");
    assert!(owed == std::slice::from_ref(said) && said.from.contains("v2") && said.to.contains("idle"), "{owed:?}");
    assert!(deeds.publish.is_empty() && roles_of(&deeds.owed[0]).expect("a record").current.is_none());
    assert!(matches!(desk.written(true), Written::True { overtaken, .. } if overtaken.len() == 1));
    assert!(desk.services()[0].roles.current.is_none());
    assert!(matches!(ask(&mut desk, Verb::Abort), Decision::Nothing), "nothing is left to drop");
    assert_eq!(desk.next_rollout(), next, "the number is not used again");
}

/// CI that repeats the abort of a rollout that is over has nothing to say about the next one.
#[test]
fn an_abort_of_another_rollout_overtakes_nothing() {
    let mut desk = rolling();
    let over = desk.services()[0].roles.active().expect("runs").id;
    done(ask(&mut desk, Verb::Abort));
    let declared = fixture::service("x", 1, None).stable.declared.clone();
    let version = Version::new("v7").expect("a version");
    let with = StartWith { version, digest: None, endpoints: declared, terms: None, supersede: false };
    let begun = up(ask(&mut desk, Verb::Start(with)));
    desk.write(begun);
    let abort = |rollout| Ask { rollout: Some(rollout), ..Ask::of(Verb::Abort, "ci") };
    let nothing = desk.ask(0, &abort(over), NOW).expect("never refused");
    assert!(matches!(nothing, Decision::Nothing), "{nothing:?}");
    assert_eq!(desk.ask(0, &abort(over + 7), NOW).err(), Some(Refused::NoSuchRollout(over + 7)));
    let Written::True { overtaken, .. } = desk.written(true) else { panic!("landed") };
    assert!(overtaken.is_empty() && desk.services()[0].roles.active().is_some_and(|current| current.id > over));
    // The one that is being written is aborted by its number, although it does not run yet.
    done(ask(&mut desk, Verb::Abort));
    let again = up(ask(&mut desk, Verb::Retry(None)));
    let id = desk.next_rollout() - 1;
    desk.write(again);
    done(desk.ask(0, &abort(id), NOW).expect("never refused"));
    assert!(matches!(desk.written(true), Written::True { overtaken, .. } if overtaken.len() == 1));
}

#[test]
fn a_file_is_all_or_nothing_and_is_decided_anew_when_something_overtook_it() {
    let mut desk = rolling();
    let files = [fixture::service("api", 1, None), fixture::service("web", 2, Some(("v3", 1)))];
    let Filed { proposal, changes } = desk.file(&files, NOW).expect("accepted");
    assert_eq!(changes.len(), 3, "{changes:?}");
    desk.write(proposal);
    done(ask(&mut desk, Verb::Abort));
    let Written::Overtaken { as_is } = desk.written(true) else { panic!("overtaken") };
    assert_eq!(desk.services().len(), 1, "nothing of it is true");
    let corrected: Vec<_> = as_is.iter().map(|e| (e.service.as_str(), roles_of(e).is_some())).collect();
    assert_eq!(corrected, [("api", false), ("web", true)], "and the store is told so");
    let said: Vec<Vec<_>> = as_is.iter().map(|e| e.notes.iter().map(|note| note.verb).collect()).collect();
    assert_eq!(said, [vec!["overtaken"], vec![]], "and the audit; of web the abort has said it");
    let again = desk.file(&files, NOW).expect("accepted").proposal;
    let Written::True { deeds, .. } = land(&mut desk, again) else { panic!("landed") };
    assert_eq!((desk.services().len(), deeds.publish.len()), (2, 2));
    assert_eq!(desk.services()[1].roles.candidate().expect("v3").version.as_str(), "v3");
}

#[test]
fn refusals_come_all_at_once_and_name_their_service() {
    let mut desk = open(&[fixture::service("api", 1, None), fixture::service("web", 1, None)]);
    let same = |name| fixture::service(name, 1, Some(("v1", 1)));
    let refusals = desk.file(&[same("web"), same("api"), same("new")], NOW).expect_err("refused");
    let first: Vec<_> = refusals.iter().filter_map(|refusal| refusal.split(':').next()).collect();
    assert_eq!(first, ["services.api", "services.new", "services.web"]);
    assert!(Desk::open(Stored::default(), &[same("web")], NOW).is_err(), "at the start, too");
}

#[test]
fn the_store_wins_at_the_start_and_who_is_gone_is_remembered() {
    let desk = rolling();
    let roles = desk.services()[0].roles.clone();
    let gone = Roles { service: Name::new("gone").expect("a name"), ..roles.clone() };
    let stored = [roles, gone].map(|roles| (roles.service.clone(), roles)).into();
    let file = [fixture::service("web", 1, Some(("v9", 1)))];
    let stored = Stored { roles: stored, next_rollout: 1, ..Stored::default() };
    let (mut desk, deeds) = Desk::open(stored, &file, NOW).expect("opens");
    assert_eq!(
        (weight(&desk), desk.services()[0].roles.candidate().expect("v2").version.as_str()),
        (Weight::of_percent(5), "v2")
    );
    assert!(desk.next_rollout() > 1, "numbers in use are not used again");
    let owed: Vec<_> = deeds.owed.iter().map(|entry| (entry.service.as_str(), roles_of(entry).is_some())).collect();
    assert!(owed.contains(&("gone", false)), "{owed:?}");
    assert!(deeds.gate.iter().any(|(_, work)| matches!(work, GateWork::Begin(_))), "it is watched again");
    // Its rollout was aborted: back in the file, the candidate waits.
    let back = [fixture::service("gone", 1, Some(("v2", 1))), Arc::clone(&file[0])];
    let Filed { proposal, changes } = desk.file(&back, NOW).expect("accepted");
    assert!(changes[1].contains("v2 is quarantined since rollout"), "{changes:?}");
    land(&mut desk, proposal);
    let gone = &desk.services()[0].roles;
    assert!(gone.active().is_none() && gone.history.len() == 1 && desk.memories.is_empty());
}

#[test]
fn those_who_left_first_are_forgotten_first() {
    let mut desk = open(&[]);
    for n in 0..=MEMORIES_MAX {
        let name = format!("s{}", MEMORIES_MAX - n);
        let here = desk.file(&[fixture::service(&name, 1, None)], NOW).expect("accepted").proposal;
        land(&mut desk, here);
        let gone = desk.file(&[], NOW + Duration::from_secs(n as u64)).expect("accepted").proposal;
        let Written::True { deeds, .. } = land(&mut desk, gone) else { panic!("landed") };
        let gone: Vec<_> = deeds.owed.iter().map(|entry| (entry.service.as_str(), &entry.record)).collect();
        match gone.as_slice() {
            [] => assert!(n < MEMORIES_MAX),
            [(service, Record::Gone)] => assert_eq!((*service, n), (format!("s{MEMORIES_MAX}").as_str(), MEMORIES_MAX)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(desk.memories.len(), MEMORIES_MAX);
}

#[test]
fn a_service_at_rest_costs_nothing_and_a_checkpoint_is_only_of_others() {
    let mut desk = open(&[fixture::service("web", 1, None)]);
    assert!(matches!(tick(&mut desk, Seen::Harmful { metric: "x".into() }), Decision::Nothing));
    assert!(desk.checkpoint(0).is_none());
    assert!(rolling().checkpoint(0).is_some());
}

/// `count` services with a rollout each, which remember as much as they may.
fn crowd(count: usize) -> Desk {
    let mut desk = web();
    let proposal = up(ask(&mut desk, start()));
    land(&mut desk, proposal);
    let mut record = serde_json::to_value(&desk.services()[0].roles).expect("text");
    let known = record["versions"][0].clone();
    for n in record["versions"].as_array().map_or(0, Vec::len)..VERSIONS_MAX {
        let mut known = known.clone();
        known["version"] = format!("old-{n}").into();
        record["versions"].as_array_mut().expect("a list").push(known);
    }
    let ended = serde_json::json!({"id": 1, "version": "old-200", "end": "Succeeded", "origin": "Command", "steps": 3, "step": 2,
        "highest": Weight::FULL, "began": {"secs": 1, "nanos": 0}, "ended": {"secs": 2, "nanos": 0}});
    record["history"] = vec![ended; HISTORY_MAX].into();
    let names: Vec<String> = (0..count).map(|n| format!("s{n:04}")).collect();
    let services: Vec<_> = names.iter().map(|name| fixture::service(name, 1, Some(("v2", 1)))).collect();
    let mut stored = Stored::default();
    for service in &services {
        record["service"] = service.name.to_string().into();
        stored.roles.insert(service.name.clone(), serde_json::from_value(record.clone()).expect("a record"));
    }
    Desk::open(stored, &services, NOW).expect("opens").0
}

/// It is taken in at every tick, of every service that has a rollout.
#[test]
fn time_that_passes_copies_nothing_large() {
    let mut desk = crowd(2);
    let large = |desk: &Desk| {
        let roles = &desk.services()[1].roles;
        let current = roles.active().expect("a rollout");
        (Arc::clone(&roles.versions), Arc::clone(&roles.history), Arc::clone(&current.terms))
    };
    let before = large(&desk);
    let facts = Facts {
        ready: false,
        counts: Counts::default(),
        verdict: Seen::Open,
        alarm: false,
        stable_degraded: false,
        sample_ratio: false,
        endpoint: false,
    };
    assert!(matches!(desk.on(1, Event::Tick(facts), TICK, NOW), Decision::Nothing));
    let after = large(&desk);
    assert_eq!((after.0.len(), after.1.len()), (VERSIONS_MAX, HISTORY_MAX));
    assert!(Arc::ptr_eq(&before.0, &after.0) && Arc::ptr_eq(&before.1, &after.1) && Arc::ptr_eq(&before.2, &after.2));
}
