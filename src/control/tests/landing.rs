//! What lands in the store with the effect of a command, and what does not.

use std::io;
use std::sync::Arc;

use super::super::fake::{self, Bench, lock, start};
use super::percent;
use crate::control::answer::{Mark, Refused};
use crate::control::landing::Landing;
use crate::core::roles::{Ask, Verb};
use crate::store::keep::Keep;
use crate::store::{Record, Table};

fn landing(key: &str) -> Landing {
    Landing { table: Table::Idempotency, key: key.to_owned(), record: Record { version: 1, bytes: vec![1] } }
}

fn weight(text: &str) -> Ask {
    Ask::of(Verb::Weight(percent(text)), "ci")
}

fn landed(bench: &Bench) -> Vec<String> {
    bench.store.all(Table::Idempotency).expect("read").into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn a_key_lands_with_what_is_written_for_its_command() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.obey_landing(None, "web", weight("5%"), Some(landing("a"))).await.expect("set");
    assert_eq!(landed(&bench), ["a"]);
    // What changes nothing, or is refused, writes nothing.
    bench.handle.obey_landing(None, "web", weight("5%"), Some(landing("b"))).await.expect("set already");
    bench.handle.obey_landing(None, "api", weight("5%"), Some(landing("c"))).await.expect_err("no candidate");
    bench
        .handle
        .obey_landing(Some(Mark { generation: 99, revision: None }), "web", weight("6%"), Some(landing("d")))
        .await
        .expect_err("stale");
    assert_eq!(landed(&bench), ["a"]);
}

#[tokio::test]
async fn a_key_is_not_in_a_store_that_did_not_take_its_command() {
    let bench = start(fake::web_and_api()).await;
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        *lock(&bench.store.fails) = Some(kind);
        let refused =
            bench.handle.obey_landing(None, "web", weight("5%"), Some(landing("a"))).await.expect_err("refused");
        assert!(matches!(refused, Refused::Store { .. }), "{refused}");
        *lock(&bench.store.fails) = None;
        bench.handle.obey("web", weight("0%")).await.expect("written");
        assert_eq!(landed(&bench), [""; 0], "{kind}");
    }
}

#[tokio::test]
async fn a_key_that_may_have_been_written_by_a_failing_disk_is_taken_out_again() {
    let bench = start(fake::web_and_api()).await;
    // As if the disk had taken it and said that it had not.
    let Landing { table, key, record } = landing("a");
    let change = crate::store::Change { put: vec![(table, key, record)], ..crate::store::Change::default() };
    bench.store.commit(&change).expect("taken");
    *lock(&bench.store.fails) = Some(io::ErrorKind::Other);
    bench.handle.obey_landing(None, "web", weight("5%"), Some(landing("a"))).await.expect_err("refused");
    *lock(&bench.store.fails) = None;
    for _ in 0..200 {
        if landed(&bench).is_empty() {
            return;
        }
        let before = *bench.store.tries.borrow();
        let tried = Arc::clone(&bench.store);
        tokio::time::timeout(std::time::Duration::from_secs(10), async move { tried.tried(before).await })
            .await
            .expect("tries");
    }
    panic!("{:?}", landed(&bench));
}
