//! What is kept of rollouts that are over.

use super::super::fake::{self, open_with, settings, start};
use super::super::past::{Past, key};
use super::percent;
use crate::control::answer::Refused;
use crate::core::id::{Name, Version};
use crate::core::roles::{Ask, HISTORY_MAX, StartWith, Verb};
use crate::state::fixture::service;
use crate::store::Table;
use crate::store::keep::Keep;

fn begin(version: &str) -> Ask {
    let place = crate::config::place("127.0.0.1:9001").expect("a place");
    let endpoints = vec![crate::core::endpoint::Declared { place, weight: crate::core::endpoint::WEIGHT_MIN }];
    let version = Version::new(version).expect("version");
    let with = StartWith { version, digest: None, endpoints, terms: None, supersede: true };
    Ask::of(Verb::Start(with), "ci")
}

#[tokio::test]
async fn the_store_keeps_what_the_history_has_and_no_more() {
    let bench = start(settings(vec![service("web", 1, None), service("web-b", 1, None)])).await;
    bench.handle.obey("web-b", begin("v1-0")).await.expect("begun");
    bench.handle.abort("web-b", "ci", None).await.expect("aborted");
    let first = bench.handle.rollout("web-b", None).expect("known").expect("a rollout").1.status.id;
    for n in 0..HISTORY_MAX + 3 {
        bench.handle.obey("web", begin(&format!("v1-{n}"))).await.expect("begun");
    }
    let (name, other) = (Name::new("web").expect("name"), Name::new("web-b").expect("name"));
    let history = bench.handle.history("web").expect("known");
    let ids: Vec<u64> = history.iter().map(|ended| ended.id).collect();
    assert_eq!((ids.len(), history[0].by.as_str(), history[0].phase), (HISTORY_MAX, "ci", "superseded"));
    let kept = bench.store.all(Table::Rollouts).expect("read").into_iter().map(|(key, _)| key);
    let mut expected: Vec<String> = ids.iter().rev().map(|id| key(&name, *id)).collect();
    expected.insert(0, key(&other, first));
    expected.sort_unstable();
    assert_eq!(kept.collect::<Vec<_>>(), expected);
    let (oldest, gone) = (ids[HISTORY_MAX - 1], ids[HISTORY_MAX - 1] - 1);
    let past = Past::load(&bench.store, &name, oldest).expect("read").expect("kept");
    let detail = bench.handle.rollout("web", Some(oldest)).expect("known").expect("in the history").1.with_past(past);
    assert_eq!((detail.status.phase, detail.plan.len(), detail.legs[0].verb.as_str()), ("superseded", 3, "start"));
    assert!(bench.handle.rollout("web", Some(gone)).expect("known").is_none());
    assert!(matches!(bench.handle.rollout("api", None), Err(Refused::UnknownService { .. })));
    // A service that leaves the file leaves its own behind, with the one that ended with it.
    bench.write(settings(vec![service("web-b", 1, None)]));
    bench.handle.reload("test").await.expect("applied");
    let kept: Vec<_> = bench.store.all(Table::Rollouts).expect("read").into_iter().map(|(key, _)| key).collect();
    expected.retain(|kept| *kept != key(&name, oldest));
    expected.push(key(&name, ids[0] + 1));
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn ends_are_counted_with_why_and_how_long_they_took() {
    let bench = start(fake::web_and_api()).await;
    bench.handle.set_weight("web", percent("5%"), "ci", None).await.expect("set");
    bench.handle.abort("web", "ci", None).await.expect("aborted");
    bench.handle.abort("web", "ci", None).await.expect("aborted already");
    let counted = bench.handle.tally();
    let words: Vec<_> = counted.iter().map(|c| (c.service.as_str(), c.outcome, c.reason, c.count)).collect();
    assert_eq!(words, [("web", "aborted", "manual", 1)]);
    assert_eq!(counted[0].buckets.iter().sum::<u64>(), 1);
    assert_eq!(bench.handle.latest_rollouts()[1].1.as_ref().map(|rollout| rollout.phase), Some("aborted"));
}

#[tokio::test]
async fn what_is_kept_outlives_the_process() {
    let first = start(fake::web_and_api()).await;
    first.handle.set_weight("web", percent("5%"), "ci", None).await.expect("set");
    first.handle.abort("web", "ci", Some("slow".to_owned())).await.expect("aborted");
    let (again, _control) = open_with(fake::web_and_api(), std::sync::Arc::clone(&first.store)).await.expect("opens");
    let (name, detail) = again.handle.rollout("web", None).expect("known").expect("a rollout");
    assert_eq!(
        (detail.status.phase, detail.ended_by.as_deref(), detail.why.as_deref()),
        ("aborted", Some("ci"), Some("slow"))
    );
    assert_eq!(detail.legs.iter().map(|leg| leg.verb.as_str()).collect::<Vec<_>>(), ["add", "weight"]);
    let past = Past::load(&again.store, &name, detail.status.id).expect("read").expect("kept");
    assert_eq!(past.trail.legs[1].verb, "weight");
}
