//! What the DNS said, as control takes it in: endpoints come and go, everything that was decided stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::endpoint::{Answer, Pool, Question};
use crate::core::id::Name;
use crate::core::membership::{Change, membership};
use crate::core::snapshot::{ActiveService, Snapshot};

use super::desk::Held;
use super::journal::{EVENTS_PER_RELOAD_MAX, Note, What};

/// What the DNS said since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Answers that are other ones than before.
    pub answers: BTreeMap<Question, Answer>,
    /// Names that began or ceased to fail.
    pub news: Vec<News>,
}

/// A name began or ceased to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The name.
    pub question: Question,
    /// What is wrong; absent: it is answered again.
    pub problem: Option<String>,
    /// Addresses in use.
    pub addresses: usize,
}

/// The answers in use.
pub(super) type Answers = BTreeMap<Question, Answer>;

/// What the data plane is told of `held`, its names by what is known. What is as it was `before` stays the very same value: workers keep
/// what they have prepared for a service by that.
pub(super) fn shown(held: &Held, answers: &Answers, before: Option<&ActiveService>) -> ActiveService {
    let known = |question: &Question| answers.get(question);
    let service = held.roles.in_service(&held.wanted);
    let service = service.resolved(&known).map_or(service, Arc::new);
    let same = before.filter(|before| before.service == service);
    let service = same.map_or(service, |before| Arc::clone(&before.service));
    let warm = held.roles.warm.as_ref().map(|warm| resolved(&warm.pool, answers));
    ActiveService::new(service, held.roles.running()).with_warm(warm)
}

/// `pool` by what is known.
fn resolved(pool: &Arc<Pool>, answers: &Answers) -> Arc<Pool> {
    let next = pool.resolved(&|question| answers.get(question));
    if next == **pool { Arc::clone(pool) } else { Arc::new(next) }
}

/// The next generation by what is known, and what is different about endpoints; `None` if nothing is.
pub(super) fn next_generation(snapshot: &Snapshot, answers: &Answers) -> Option<(Snapshot, Vec<(Name, Change)>)> {
    let known = |question: &Question| answers.get(question);
    let mut services = snapshot.services.clone();
    let mut changes = Vec::new();
    for active in &mut services {
        let service = active.service.resolved(&known).map_or_else(|| Arc::clone(&active.service), Arc::new);
        let warm = active.warm.as_ref().map(|pool| resolved(pool, answers));
        let pools = active.service.pools().chain(&active.warm).zip(service.pools().chain(&warm));
        let moved: Vec<_> = pools.filter_map(|(before, after)| membership(before, after)).collect();
        if !moved.is_empty() {
            changes.extend(moved.into_iter().map(|change| (service.name.clone(), change)));
            *active = ActiveService::new(service, active.running.clone()).with_warm(warm);
        }
    }
    (!changes.is_empty()).then(|| (snapshot.next(services), changes))
}

/// `news` as an event.
pub(super) fn note(news: News, generation: u64) -> Note {
    let News { question, problem, addresses } = news;
    let (what, detail) = match problem {
        None => (What::NameRecovered, format!("{question} is answered again: {}", in_use(addresses))),
        Some(why) => (What::NameFailed, format!("{question}: {why}; {}", in_use(addresses))),
    };
    Note { actor: ACTOR.to_owned(), what, service: None, change: None, detail: Some(detail), generation }
}

/// `changes` as events, bounded like those of a reload.
pub(super) fn notes(changes: &[(Name, Change)], generation: u64) -> Vec<Note> {
    let note = |service: Option<String>, detail: String| Note {
        actor: ACTOR.to_owned(),
        what: What::EndpointsResolved,
        service,
        change: None,
        detail: Some(detail),
        generation,
    };
    let shown = changes.iter().take(EVENTS_PER_RELOAD_MAX - 1);
    let mut notes: Vec<_> =
        shown.map(|(service, change)| note(Some(service.to_string()), change.to_string())).collect();
    if changes.len() > notes.len() {
        notes.push(note(None, format!("and {} more changes", changes.len() - notes.len())));
    }
    notes
}

const ACTOR: &str = "dns";

fn in_use(addresses: usize) -> String {
    match addresses {
        0 => "no address is known".to_owned(),
        1 => "1 address is in use".to_owned(),
        n => format!("{n} addresses are in use"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Bench};
    use super::*;
    use crate::core::endpoint::{Address, Declared, Endpoint, Place};
    use crate::core::health::Readiness;
    use crate::core::id::Version;
    use crate::core::service::Service;
    use crate::core::weight::Weight;
    use crate::state::fixture::service;

    fn host(name: &str, port: u16) -> Declared {
        Declared { place: Place::Host(name.into(), port), weight: 1 }
    }

    fn pool(version: &str, declared: Vec<Declared>) -> Arc<Pool> {
        Arc::new(Pool::new(Version::new(version).expect("version"), None, declared))
    }

    fn web(stable: Vec<Declared>) -> Arc<Service> {
        let candidate = Some(pool("v2", vec![host("canary", 81)]));
        Arc::new(Service { stable: pool("v1", stable), candidate, ..Service::clone(&service("web", 1, None)) })
    }

    fn answers(names: &[(&str, &[&str])]) -> Resolution {
        let answer = |ips: &[&str]| Answer::Host(ips.iter().map(|ip| ip.parse().expect("ip")).collect());
        let answers = names.iter().map(|(name, ips)| (Question::Host((*name).into()), answer(ips))).collect();
        Resolution { answers, news: Vec::new() }
    }

    fn stable(bench: &Bench) -> Vec<String> {
        bench.current.load().live[0].stable.iter().map(|e| e.key.address.to_string()).collect()
    }

    #[tokio::test]
    async fn names_begin_empty_fill_in_and_keep_endpoints_by_identity() {
        let bench = fake::start(fake::settings(vec![web(vec![host("web", 80)])])).await;
        assert_eq!(stable(&bench), Vec::<String>::new());
        bench.plane.take_calls();
        bench.handle.resolved(answers(&[("web", &["10.0.0.1", "10.0.0.2"]), ("elsewhere", &["10.0.0.9"])])).await;
        assert_eq!(stable(&bench), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(bench.plane.take_calls(), ["settled"], "workers let go of what left");
        let before = bench.current.load();
        let generation = before.snapshot.generation;
        before.live[0].stable.iter().for_each(|e| e.health.set_readiness(Readiness::Ready));
        bench.handle.resolved(answers(&[("web", &["10.0.0.1", "10.0.0.2"])])).await;
        assert_eq!(bench.current.load().snapshot.generation, generation, "the same answer changes nothing");
        bench.handle.resolved(answers(&[("web", &["10.0.0.2", "10.0.0.3"])])).await;
        assert_eq!(stable(&bench), ["10.0.0.2:80", "10.0.0.3:80"]);
        let after = bench.current.load();
        assert!(Arc::ptr_eq(&after.live[0].stable[0], &before.live[0].stable[1]));
        assert!(before.live[0].stable[0].is_removed() && after.snapshot.generation == generation + 1);
        let event = bench.handle.events(1).pop().expect("an event");
        assert_eq!((event.what.as_str(), event.service.as_deref()), ("endpoints_resolved", Some("web")));
        assert_eq!(event.detail.as_deref(), Some("version v1: added 10.0.0.3:80, removed 10.0.0.1:80"));
    }

    #[tokio::test]
    async fn a_reload_keeps_what_is_known_of_names_that_stay_and_forgets_the_others() {
        let bench = fake::start(fake::settings(vec![web(vec![host("web", 80)])])).await;
        bench.handle.resolved(answers(&[("web", &["10.0.0.1"]), ("canary", &["10.0.1.1"])])).await;
        bench.write(fake::settings(vec![web(vec![host("web", 81), host("other", 80)])]));
        bench.handle.reload("test").await.expect("applied");
        assert_eq!(stable(&bench), ["10.0.0.1:81"]);
        bench.write(fake::settings(vec![web(vec![host("other", 80), host("fixed", 1)])]));
        bench.handle.reload("test").await.expect("applied");
        bench.write(fake::settings(vec![web(vec![host("web", 80)])]));
        let answer = bench.handle.reload("test").await.expect("applied");
        assert_eq!(stable(&bench), Vec::<String>::new(), "asked anew");
        assert_eq!(answer.changes, ["services.web: version v1: names added web:80, removed fixed:1 other:80"]);
        let candidate = &bench.current.load().live[0].candidate;
        assert_eq!(candidate[0].key.address.to_string(), "10.0.1.1:81");
    }

    #[tokio::test]
    async fn an_abort_outlives_what_names_say() {
        let bench = fake::start(fake::settings(vec![web(vec![host("web", 80)])])).await;
        let before = bench.current.load();
        bench.handle.set_weight("web", Weight::parse("50%").expect("weight"), "test", None).await.expect("set");
        bench.handle.abort("web", "test", None).await.expect("aborted");
        bench.handle.resolved(answers(&[("canary", &["10.0.1.1"])])).await;
        assert!(!bench.is_open("web") && !before.live[0].is_candidate_open());
        assert_eq!(bench.current.load().live[0].candidate.len(), 1);
    }

    #[tokio::test]
    async fn ready_endpoints_stay_until_the_names_that_replace_them_are_answered_and_ready() {
        let fixed = Declared { place: Place::Fixed(Address::from(([10, 0, 0, 9], 80))), weight: 1 };
        let bench = fake::start(fake::settings(vec![web(vec![fixed])])).await;
        bench.current.load().live[0].stable[0].health.set_readiness(Readiness::Ready);
        bench.write(fake::settings(vec![web(vec![host("web", 80)])]));
        bench.handle.reload("test").await.expect("applied");
        assert_eq!(stable(&bench), ["10.0.0.9:80"]);
        bench.handle.resolved(answers(&[("web", &["10.0.0.1"])])).await;
        assert_eq!(stable(&bench), ["10.0.0.1:80", "10.0.0.9:80"]);
    }

    #[test]
    fn long_lists_of_changes_are_cut() {
        let pool = |weight| {
            let endpoint = Endpoint { address: Address::from(([10, 0, 0, 1], 80)), weight };
            Pool::fixed(Version::new("v1").expect("version"), None, vec![endpoint])
        };
        let change = || (Name::new("web").expect("name"), membership(&pool(1), &pool(2)).expect("a change"));
        let notes = notes(&(0..100).map(|_| change()).collect::<Vec<_>>(), 1);
        assert_eq!((notes.len(), notes[63].detail.as_deref()), (64, Some("and 37 more changes")));
    }
}
