//! Keys over the end of a process, and a store that fails.

use std::io;

use super::*;
use crate::control::fake::{FakeStore, lock as held};
use crate::control::status::State;
use crate::core::id::{Name, Version};
use crate::core::weight::Weight;

const HOUR: Duration = Duration::from_secs(3_600);

fn present() -> Present {
    Arc::new(|service| match service {
        "web" => Ok(Applied {
            service: Name::new("web").expect("name"),
            generation: 9,
            weight: Weight::HALF,
            state: State::Splitting,
            stable: Version::new("v1").expect("version"),
            candidate: None,
            revision: 3,
            rollout: None,
            begins: false,
        }),
        other => Err(Refused::UnknownService { service: other.to_owned(), known: Vec::new() }),
    })
}

fn load(store: &Arc<FakeStore>, now: Duration) -> Kept {
    Kept::load(Arc::new(Arc::clone(store)), now, present()).expect("read")
}

fn marker(n: usize, began: Duration, service: &str) -> Marker {
    let key = Key { caller: "token ci".to_owned(), key: format!("key-{n}") };
    Marker {
        key,
        request: Fingerprint([u8::try_from(n % 251).expect("a byte"); 32]),
        began,
        service: service.to_owned(),
    }
}

fn answer(n: usize) -> Answer {
    Answer {
        status: 201,
        content_type: Some("application/json".to_owned()),
        etag: Some("\"3\"".to_owned()),
        body: Bytes::from(format!("{{\"n\":{n}}}")),
    }
}

async fn carried_out(kept: &Kept, marker: &Marker, n: usize) {
    assert_eq!(kept.begin(&marker.key, marker.request, marker.began), Begun::New);
    kept.finish(&marker.key, answer(n), Some(marker)).await;
}

fn land(store: &Arc<FakeStore>, marker: &Marker) {
    let Landing { table, key, record } = marker.landing().expect("text");
    store.commit(&Change { put: vec![(table, key, record)], ..Change::default() }).expect("taken");
}

fn stored(store: &Arc<FakeStore>) -> usize {
    store.all(Table::Idempotency).expect("read").len()
}

#[tokio::test]
async fn an_answer_outlives_the_process_for_a_day() {
    let store = Arc::<FakeStore>::default();
    let one = marker(1, HOUR, "web");
    carried_out(&load(&store, HOUR), &one, 1).await;
    let again = load(&store, 2 * HOUR);
    assert_eq!(again.begin(&one.key, one.request, 2 * HOUR), Begun::Known(answer(1)));
    assert_eq!(again.begin(&one.key, Fingerprint([9; 32]), 2 * HOUR), Begun::Other);
    let late = load(&store, 25 * HOUR);
    assert_eq!(late.begin(&one.key, Fingerprint([9; 32]), 25 * HOUR), Begun::New, "its day is over");
    let two = marker(2, 25 * HOUR, "web");
    carried_out(&late, &two, 2).await;
    assert_eq!(stored(&store), 2, "the key that was taken anew is not let go");
}

#[tokio::test]
async fn a_command_that_landed_without_its_answer_is_answered_with_what_is_true_now() {
    let store = Arc::<FakeStore>::default();
    let (one, gone) = (marker(1, HOUR, "web"), marker(2, HOUR, "nope"));
    land(&store, &one);
    land(&store, &gone);
    let again = load(&store, HOUR);
    let Begun::Known(now) = again.begin(&one.key, one.request, HOUR) else { panic!("carried out already") };
    let body: serde_json::Value = serde_json::from_slice(&now.body).expect("JSON");
    assert_eq!((now.status, now.etag.as_deref(), &body["weight"]), (200, Some("\"9-3\""), &"50%".into()));
    assert_eq!(again.begin(&one.key, Fingerprint([9; 32]), HOUR), Begun::Other);
    let Begun::Known(now) = again.begin(&gone.key, gone.request, HOUR) else { panic!("carried out already") };
    assert_eq!((now.status, now.content_type.as_deref()), (404, Some(MEDIA_TYPE)));
}

#[tokio::test]
async fn the_store_has_as_many_keys_as_there_may_be() {
    let store = Arc::<FakeStore>::default();
    for n in 0..KEYS_MAX + 5 {
        land(&store, &marker(n, HOUR + Duration::from_secs(n as u64), "web"));
    }
    let kept = load(&store, HOUR);
    let (newest, oldest) = (marker(KEYS_MAX + 4, HOUR, "web"), marker(0, HOUR, "web"));
    assert!(matches!(kept.begin(&newest.key, newest.request, HOUR), Begun::Known(_)));
    // What is lost counts as over, so there is room.
    carried_out(&kept, &marker(KEYS_MAX + 9, 2 * HOUR, "web"), 1).await;
    assert_eq!(stored(&store), KEYS_MAX);
    assert_eq!(load(&store, HOUR).begin(&oldest.key, oldest.request, HOUR), Begun::New);
}

#[tokio::test]
async fn a_store_that_fails_costs_the_answer_its_life_after_the_process_and_nothing_else() {
    let store = Arc::<FakeStore>::default();
    let kept = load(&store, HOUR);
    *held(&store.fails) = Some(io::ErrorKind::StorageFull);
    let one = marker(1, HOUR, "web");
    carried_out(&kept, &one, 1).await;
    assert_eq!(kept.begin(&one.key, one.request, HOUR), Begun::Known(answer(1)));
    assert_eq!(stored(&store), 0);
    *held(&store.fails) = None;
    // One that hangs is not waited for.
    store.gate.shut();
    let two = marker(2, HOUR, "web");
    let begun = tokio::time::Instant::now();
    carried_out(&kept, &two, 2).await;
    assert!(begun.elapsed() < 10 * KEPT_WITHIN);
    store.gate.open();
    let three = marker(3, HOUR, "web");
    carried_out(&kept, &three, 3).await;
    assert_eq!(stored(&store), 2, "the second landed later");
}

#[test]
fn records_that_are_not_understood_are_in_nobodys_way() {
    let store = Arc::<FakeStore>::default();
    let one = marker(1, HOUR, "web");
    let Landing { table, key, record } = one.landing().expect("text");
    let put = vec![
        (table, key.clone(), Record { version: 99, ..record }),
        (table, "x".to_owned(), Record { version: VERSION, bytes: b"{".to_vec() }),
    ];
    store.commit(&Change { put, ..Change::default() }).expect("taken");
    assert_eq!(load(&store, HOUR).begin(&one.key, one.request, HOUR), Begun::New);
}

#[test]
fn what_is_not_written_down_is_not_remembered_either() {
    assert_eq!(service_of("/v1/services/web/weight"), Some("web"));
    assert_eq!(service_of("/v1/services/web/rollouts/current/promote"), Some("web"));
    assert_eq!(service_of("/v1/services/web/endpoints/127.0.0.1:80/drain"), None);
    assert_eq!(service_of("/v1/config:reload"), None);
}
