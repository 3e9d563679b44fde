//! What is written in which order, whatever fails on the way.

use std::io;

use super::*;
use crate::control::desk::Record;
use crate::control::fake::{FakeStore, lock};
use crate::core::roles::{Context, First, Roles};
use crate::state::fixture::service;
use crate::store::audit::Draft;
use crate::store::{Change, Table};

fn line(name: &str, revision: u64, verbs: &[&str]) -> Line {
    let wanted = service(name, 1, None);
    let context = Context { now: Duration::ZERO, wanted: &wanted, next_rollout: 1 };
    let roles = Roles { revision, ..Roles::first(First::NewService, None, &context).expect("a file").roles };
    let draft = |verb: &&str| Draft { verb: (*verb).to_owned(), ..Draft::default() };
    let drafts = verbs.iter().map(draft).collect();
    Line { service: Some((wanted.name.clone(), Record::Is(Box::new(roles)))), drafts, ..Line::default() }
}

fn said(change: &Change) -> String {
    let records = change.put.iter().filter(|(table, ..)| *table == Table::Services);
    let records = records.map(|(_, key, record)| {
        let roles: Roles = serde_json::from_slice(&record.bytes).expect("a record");
        format!("{key}={}", roles.revision)
    });
    let verbs = change.audit.iter().map(|draft| draft.verb.clone());
    records.chain(verbs).collect::<Vec<_>>().join(" ")
}

/// Commits what is next, and says what it was.
fn turn(queue: &mut Queue, due: bool, outcome: Outcome) -> Option<String> {
    let turn = queue.next(due)?;
    let said = said(&turn.change().expect("text"));
    queue.done(turn, outcome);
    Some(said)
}

fn full() -> Outcome {
    Err(Failed { full: true, why: "no space".to_owned() })
}

#[test]
fn an_abort_comes_after_the_step_it_overtook_and_is_what_the_store_ends_with() {
    let mut queue = Queue::default();
    let ((wrote, mut written), (owed, mut landed)) = (oneshot::channel(), oneshot::channel());
    queue.write(vec![line("web", 5, &["step"])], 1, wrote);
    queue.owe(line("web", 6, &["abort"]), owed);
    assert_eq!(turn(&mut queue, true, Ok(())).as_deref(), Some("web=5 step"));
    assert_eq!(written.try_recv(), Ok(Ok(())));
    assert_eq!(turn(&mut queue, false, Ok(())).as_deref(), Some("web=6 abort"));
    assert!(landed.try_recv().is_ok() && !queue.is_owing());
    assert_eq!(turn(&mut queue, true, Ok(())), None);
}

#[test]
fn what_is_owed_is_tried_until_it_lands_and_newer_records_replace_older_ones() {
    let mut queue = Queue::default();
    let (one, mut first) = oneshot::channel();
    queue.owe(line("web", 1, &["abort"]), one);
    assert_eq!(turn(&mut queue, false, full()).as_deref(), Some("web=1 abort"));
    assert_eq!(turn(&mut queue, false, Ok(())), None, "not before its time");
    let (two, mut second) = oneshot::channel();
    queue.owe(line("web", 2, &["trial"]), two);
    queue.owe(line("api", 1, &["abort"]), oneshot::channel().0);
    let name = Name::new("web").expect("a name");
    let (three, mut third) = oneshot::channel();
    queue.landed(&name, three);
    assert_eq!(turn(&mut queue, false, full()).as_deref(), Some("web=2 api=1 abort trial abort"));
    assert!(first.try_recv().is_err() && third.try_recv().is_err());
    assert_eq!(turn(&mut queue, true, Ok(())).as_deref(), Some("web=2 api=1 abort trial abort"));
    assert!(first.try_recv().is_ok() && second.try_recv().is_ok() && third.try_recv().is_ok());
    let (four, mut fourth) = oneshot::channel();
    queue.landed(&name, four);
    assert!(fourth.try_recv().is_ok(), "nothing is owed");
}

#[test]
fn a_later_write_takes_along_what_is_owed_of_its_services_and_fails_without_it() {
    let mut queue = Queue::default();
    queue.owe(line("web", 1, &["abort"]), oneshot::channel().0);
    queue.owe(line("api", 1, &["abort"]), oneshot::channel().0);
    assert!(turn(&mut queue, true, full()).is_some());
    for (outcome, owing) in [(full(), true), (Ok(()), true)] {
        let (reply, mut answer) = oneshot::channel();
        queue.write(vec![line("web", 2, &["retry"])], 1, reply);
        assert_eq!(turn(&mut queue, false, outcome.clone()).as_deref(), Some("web=2 abort retry"));
        assert_eq!((answer.try_recv(), queue.is_owing()), (Ok(outcome), owing));
    }
    assert_eq!(turn(&mut queue, true, Ok(())).as_deref(), Some("api=1 abort"));
    assert!(!queue.is_owing());
}

#[tokio::test]
async fn the_thread_tries_again_and_ends_when_nothing_is_owed() {
    let store = Arc::new(FakeStore::default());
    *lock(&store.fails) = Some(io::ErrorKind::StorageFull);
    let ledger = Ledger::start(Arc::new(Arc::clone(&store)), 1).expect("a thread");
    let landed = ledger.owe(line("web", 1, &["abort"]));
    let refused = ledger.write(vec![line("api", 1, &["start"])], 7).await.expect("answered");
    assert!(matches!(&refused, Err(failed) if failed.full), "{refused:?}");
    assert_eq!(store.verbs(), Vec::<String>::new());
    *lock(&store.fails) = None;
    landed.await.expect("landed");
    assert_eq!(store.verbs(), ["abort"]);
    let stored = load(&Arc::clone(&store)).expect("understood");
    assert_eq!((stored.roles.len(), stored.next_rollout), (1, 7));
    drop(ledger);
    assert_eq!(Arc::strong_count(&store), 1, "the thread let go");
}

#[tokio::test]
async fn what_is_owed_at_the_end_gets_one_more_try() {
    let store = Arc::new(FakeStore::default());
    *lock(&store.fails) = Some(io::ErrorKind::Other);
    let ledger = Ledger::start(Arc::new(Arc::clone(&store)), 1).expect("a thread");
    let landed = ledger.owe(line("web", 1, &["abort"]));
    store.tried(0).await;
    *lock(&store.fails) = None;
    drop(ledger);
    landed.await.expect("landed");
    assert_eq!(store.verbs(), ["abort"]);
}

#[tokio::test]
async fn a_disk_that_goes_on_failing_does_not_hold_up_the_end() {
    let store = Arc::new(FakeStore::default());
    *lock(&store.fails) = Some(io::ErrorKind::Other);
    let ledger = Ledger::start(Arc::new(Arc::clone(&store)), 1).expect("a thread");
    let landed = ledger.owe(line("web", 1, &["abort"]));
    store.tried(0).await;
    drop(ledger);
    assert_eq!(Arc::strong_count(&store), 1, "the thread let go");
    landed.await.expect_err("it never landed");
    let tries = *store.tries.borrow();
    assert!((2..=3).contains(&tries), "{tries}");
}

#[test]
fn what_is_owed_while_the_disk_hangs_is_bounded_by_the_services() {
    let mut queue = Queue::default();
    queue.owe(line("web", 1, &["a"]), oneshot::channel().0);
    queue.write(vec![line("web", 2, &["b"])], 1, oneshot::channel().0);
    for revision in 3..100 {
        queue.owe(line("web", revision, &[]), oneshot::channel().0);
        queue.owe(line("api", revision, &[]), oneshot::channel().0);
    }
    assert_eq!(format!("{queue:?}").matches("Owe(").count(), 3);
    let turns: Vec<_> = std::iter::from_fn(|| turn(&mut queue, true, Ok(()))).collect();
    assert_eq!(turns, ["web=1 a", "web=2 b", "web=99 api=99"]);
}

#[test]
fn a_record_of_another_form_is_refused_with_what_to_do() {
    let store = Arc::new(FakeStore::default());
    let mut change = records::change(&[line("web", 1, &[])], 1).expect("text");
    change.put[0].2.version += 1;
    store.commit(&change).expect("kept");
    let bad = load(&store).expect_err("not understood").to_string();
    assert!(bad.contains("\"web\"") && bad.contains("run the version that wrote it"), "{bad}");
}

#[test]
fn what_the_audit_is_owed_is_bounded_and_says_how_much_was_left_out() {
    let mut queue = Queue::default();
    let more = 40;
    for revision in 0..DRAFTS_OWED_MAX as u64 + more {
        queue.owe(line("web", revision, &[&format!("v{revision}")]), oneshot::channel().0);
        assert!(turn(&mut queue, false, full()).is_some());
    }
    let turn = queue.next(true).expect("owed");
    let audit = turn.change().expect("text").audit;
    assert_eq!(audit.len(), DRAFTS_OWED_MAX + 1);
    let (first, last) = (&audit[0], &audit[DRAFTS_OWED_MAX]);
    let newest = format!("v{}", DRAFTS_OWED_MAX as u64 + more - 1);
    assert_eq!((first.verb.as_str(), last.verb.as_str()), ("v0", newest.as_str()));
    assert!(last.reason.as_deref().is_some_and(|reason| reason.starts_with("and 40 more")), "{last:?}");
    // A write of the same service takes it along.
    queue.done(turn, full());
    let (reply, _answer) = oneshot::channel();
    queue.write(vec![line("web", 1_000, &["x", "y"])], 1, reply);
    let audit = queue.next(false).expect("a write").change().expect("text").audit;
    let verbs: Vec<_> = audit[DRAFTS_OWED_MAX..].iter().map(|draft| draft.verb.as_str()).collect();
    assert_eq!(verbs, [newest.as_str(), "x", "y"], "nothing of what is written is left out");
}

#[test]
fn those_who_wait_for_what_is_owed_are_bounded_and_those_who_are_gone_are_forgotten() {
    let mut queue = Queue::default();
    queue.owe(line("web", 1, &["abort"]), oneshot::channel().0);
    let name = Name::new("web").expect("a name");
    for _ in 0..10_000 {
        queue.landed(&name, oneshot::channel().0);
    }
    assert!(format!("{queue:?}").matches("Sender").count() <= 2, "they are gone");
    let mut waiting: Vec<_> = (0..2_000)
        .map(|_| {
            let (reply, answer) = oneshot::channel();
            queue.landed(&name, reply);
            answer
        })
        .collect();
    assert!(waiting[1_999].try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    assert_eq!(waiting[0].try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert!(turn(&mut queue, true, Ok(())).is_some());
    assert_eq!(waiting[0].try_recv(), Ok(()));
}

#[tokio::test]
async fn a_store_that_panics_has_failed_and_is_tried_again() {
    let store = Arc::new(FakeStore::default());
    store.panics.store(true, std::sync::atomic::Ordering::Relaxed);
    let ledger = Ledger::start(Arc::new(Arc::clone(&store)), 1).expect("a thread");
    let refused = ledger.write(vec![line("api", 1, &["start"])], 7).await.expect("answered");
    assert!(refused.is_err_and(|failed| failed.why.contains("a defect") && !failed.full));
    let tries = *store.tries.borrow();
    let landed = ledger.owe(line("web", 1, &["abort"]));
    store.tried(tries).await;
    store.panics.store(false, std::sync::atomic::Ordering::Relaxed);
    landed.await.expect("landed");
    assert!(!ledger.has_ended());
    assert_eq!(store.verbs(), ["abort"]);
}

#[tokio::test]
async fn a_thread_that_is_gone_is_answered_for_at_once() {
    let store = Arc::new(FakeStore::default());
    let ledger = Ledger::start(Arc::new(Arc::clone(&store)), 1).expect("a thread");
    store.gate.shut();
    let (first, owed) = (ledger.write(vec![line("api", 1, &["start"])], 7), ledger.owe(line("web", 1, &["abort"])));
    store.tried(0).await;
    // As if its own code had panicked.
    drop(Ended(Arc::clone(&ledger.0)));
    assert!(ledger.has_ended());
    let refused = ledger.write(vec![line("api", 1, &["start"])], 7).await.expect("answered");
    assert!(refused.is_err_and(|failed| failed == Failed::ended()));
    owed.await.expect_err("it never lands");
    ledger.owe(line("web", 1, &["abort"])).await.expect_err("nor does this");
    store.gate.open();
    first.await.expect("it was under way").expect("written");
}
