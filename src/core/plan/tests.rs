//! Every row of the table "File and running state" that can happen, and what holds for all plans.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::balance::Balance;
use crate::core::endpoint::Endpoint;
use crate::core::service::{
    Affinity, AffinityCookie, HostMode, KeySource, OnIncrease, Protocol, SaltMode, SameSite, Upstream,
};

/// A pool written as `VERSION[@DIGEST][=PORT,PORT]`.
fn pool(text: &str) -> Arc<Pool> {
    let (text, ports) = text.split_once('=').unwrap_or((text, "80"));
    let (version, digest) = text.split_once('@').map_or((text, None), |(v, d)| (v, Some(d.to_owned())));
    let endpoint = |port: &str| Endpoint { address: SocketAddr::from(([10, 0, 0, 1], port.parse().expect("a port"))) };
    let version = Version::new(version).expect("a version");
    Arc::new(Pool { version, digest, endpoints: ports.split(',').map(endpoint).collect() })
}

fn upstream() -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        protocol: Protocol::Http1,
        tls: None,
        host: HostMode::Preserve,
        connect_timeout: second,
        response_timeout: second,
        body_idle: second,
        keepalive_idle: second,
        balance: Balance::LeastRequest,
        drain_timeout: second,
        websocket_drain: second,
    }
}

/// A service written as `NAME STABLE [CANDIDATE]`.
fn service(text: &str) -> Arc<Service> {
    let words: Vec<&str> = text.split(' ').collect();
    Arc::new(Service {
        name: Name::new(words[0]).expect("a name"),
        stable: pool(words[1]),
        candidate: words.get(2).map(|c| pool(c)),
        upstream: upstream(),
        health: std::sync::Arc::default(),
        force: None,
        rollout: Arc::default(),
        affinity: Affinity {
            key: vec![KeySource::OwnCookie],
            cookie: AffinityCookie { name: "a".into(), max_age: Duration::from_secs(1), same_site: SameSite::Lax },
            salt: SaltMode::Rollout,
            on_increase: OnIncrease::Move,
            secret: None,
        },
    })
}

fn at(percent: u16) -> Running {
    let weight = Weight::from_grains(percent * 100).expect("a weight");
    Running { weight, aborted: false, retry: 2, rollout: 7 }
}

fn decide(running: &str, wanted: &str) -> Result<Plan, Vec<Refusal>> {
    plan(&[(service(running), at(25))], &[service(wanted)], 40)
}

#[test]
fn what_changes_and_what_becomes_of_the_weight() {
    let begun = Running::idle(40);
    for (running, wanted, changes, state) in [
        ("web A", "web A", &[][..], at(25)),
        ("web A B", "web A B", &[], at(25)),
        ("web A=1,2 B=3,4", "web A=2,1 B=4,3", &[], at(25)),
        ("web A", "web A B", &["candidate B added at 0%"], begun.clone()),
        ("web A B", "web A C", &["candidate B superseded by C, at 0%; all traffic to stable"], begun.clone()),
        ("web A B", "web A", &["candidate B removed, all traffic to stable"], Running::idle(7)),
        ("web A B", "web X B", &["stable changed from A to X"], at(25)),
        ("web A", "web X", &["stable changed from A to X"], at(25)),
        (
            "web A=1,2 B",
            "web A=2,3 B=80,81",
            &["version A: added 10.0.0.1:3, removed 10.0.0.1:1", "version B: added 10.0.0.1:81"],
            at(25),
        ),
        ("web A=1,2", "web A=1 B", &["version A: removed 10.0.0.1:2", "candidate B added at 0%"], begun),
        ("web A", "web A@d", &["version A has a digest now"], at(25)),
        ("web A@d B", "web A B", &[], at(25)),
    ] {
        let plan = decide(running, wanted).expect(wanted);
        let said: Vec<String> = plan.changes.iter().map(|c| c.change.to_string()).collect();
        assert_eq!(said, changes, "{running} -> {wanted}");
        assert_eq!(plan.services[0].1, state, "{running} -> {wanted}");
        let began = u64::from(state.rollout == 40);
        assert_eq!(plan.next_rollout, 40 + began);
    }
}

#[test]
fn refusals_name_the_service_the_versions_and_the_way_out() {
    for (running, wanted, sentence) in [
        (
            "web A B",
            "web A A",
            "services.web: stable and candidate are both version A; give the candidate a version of its own, or remove \
             [services.web.candidate]",
        ),
        (
            "web A B",
            "web B",
            "services.web: B cannot be made stable here, it is the running candidate (at 25%); put stable back to A in the \
             file and give it all traffic with `tidegate weight web 100%`",
        ),
        (
            "web A B",
            "web B A",
            "services.web: B cannot be made stable here, it is the running candidate (at 25%); put stable back to A in the \
             file and give it all traffic with `tidegate weight web 100%`",
        ),
        (
            "web A B",
            "web X C",
            "services.web: stable and candidate both change, from stable A with candidate B to stable X with candidate C, so \
             no version known to work would be left; change one of them, reload, then the other",
        ),
        (
            "web A",
            "web X C",
            "services.web: stable and candidate both change, from stable A alone to stable X with candidate C, so no \
             version known to work would be left; change one of them, reload, then the other",
        ),
        (
            "web A@d1 B",
            "web A@d2 B",
            "services.web: version A runs with digest d1, but the file says d2; a version never changes its content, so \
             give the new build a new version",
        ),
    ] {
        let refusals = decide(running, wanted).expect_err(wanted);
        let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        assert_eq!(said, [sentence], "{running} -> {wanted}");
    }
    let both = decide("web A B", "web X").expect_err("the candidate goes and stable changes");
    assert!(matches!(both[0].reason, Reason::BothChanged { .. }));
    for (state, hint) in [(Running { aborted: true, ..at(0) }, "it was aborted"), (at(100), "all traffic already")] {
        let refusals = plan(&[(service("web A B"), state)], &[service("web B")], 1).expect_err("is the candidate");
        assert!(refusals[0].to_string().contains(hint), "{}", refusals[0]);
    }
}

#[test]
fn all_refusals_come_at_once() {
    let running = [(service("a A B@1"), at(1)), (service("b A"), at(0)), (service("c A B"), at(1))];
    let wanted = [service("d A A"), service("c B"), service("b A=1"), service("a A@2 B@2")];
    let refusals = plan(&running, &wanted, 1).expect_err("three");
    let services: Vec<&str> = refusals.iter().map(|r| r.service.as_str()).collect();
    assert_eq!(services, ["a", "c", "d"]);
    let wanted = [service("a A@2 A@2")];
    let refusals = plan(&[(service("a A@1 B"), at(1))], &wanted, 1).expect_err("two of one service");
    assert!(matches!(refusals[0].reason, Reason::CandidateIsStable { .. }));
    assert!(matches!(refusals[1].reason, Reason::DigestChanged { .. }), "{refusals:?}");
}

#[test]
fn services_come_and_go() {
    let aborted = Running { aborted: true, ..at(0) };
    let running = [(service("old A B"), at(5)), (service("older A B"), aborted), (service("kept A"), at(0))];
    let wanted = [service("web A B"), service("kept A"), service("plain A")];
    let plan = plan(&running, &wanted, 3).expect("accepted");
    let said: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "services.old: removed, candidate B aborted",
            "services.older: removed",
            "services.plain: added with stable A",
            "services.web: added with stable A and candidate B at 0%",
        ]
    );
    let names: Vec<_> = plan.services.iter().map(|(s, r)| (s.name.as_str(), r.rollout)).collect();
    assert_eq!(names, [("kept", 7), ("plain", 0), ("web", 3)]);
    assert_eq!(plan.next_rollout, 4);
}

#[test]
fn an_aborted_candidate_stays_aborted_while_it_is_listed() {
    let aborted = Running { aborted: true, ..at(0) };
    let listed = plan(&[(service("web A B"), aborted.clone())], &[service("web A B=1,2")], 9).expect("accepted");
    assert_eq!(listed.services[0].1, aborted);
    let other = plan(&[(service("web A B"), aborted)], &[service("web A C")], 9).expect("accepted");
    assert_eq!(other.services[0].1, Running::idle(9));
}

#[test]
fn a_digest_that_is_no_longer_written_is_not_forgotten() {
    let without = decide("web A@d=1 B", "web A=2 B").expect("accepted");
    let refusals = plan(&without.services, &[service("web A@e=2 B")], 1).expect_err("another digest");
    assert!(matches!(refusals[0].reason, Reason::DigestChanged { .. }));
    assert!(plan(&without.services, &[service("web A@d=2 B")], 1).expect("the same digest").changes.is_empty());
}

#[test]
fn one_mistake_is_told_once() {
    let refusals = decide("web A B", "web X X").expect_err("candidate is stable");
    assert_eq!(refusals.len(), 1, "{refusals:?}");
}

#[test]
fn settings_name_the_tables_and_leave_the_pools_alone() {
    let before = service("web A@d=1,2 B");
    let mut after = Service::clone(&service("web A=2,1 B"));
    after.upstream.protocol = Protocol::Http2;
    after.affinity.salt = SaltMode::Static;
    let plan = plan(&[(Arc::clone(&before), at(25))], &[Arc::new(after.clone())], 9).expect("accepted");
    assert_eq!(plan.changes[0].to_string(), "services.web: upstream, affinity changed");
    let (service, state) = &plan.services[0];
    assert!(Arc::ptr_eq(&service.stable, &before.stable), "same endpoints, and the digest is not forgotten");
    assert_eq!((&service.upstream, state), (&after.upstream, &at(25)));
}

#[test]
fn what_did_not_change_is_the_very_same_value() {
    let before = service("web A=1,2 B");
    let plan = plan(&[(Arc::clone(&before), at(25))], &[service("web A=2,1 B")], 9).expect("accepted");
    assert!(Arc::ptr_eq(&plan.services[0].0, &before));
}

fn pools() -> impl Strategy<Value = String> {
    let digest = prop_oneof![2 => Just(""), 1 => Just("@d"), 1 => Just("@e")];
    ("[A-C]", digest, "[1-3](,[4-6])?").prop_map(|(version, digest, ports)| format!("{version}{digest}={ports}"))
}

fn services() -> impl Strategy<Value = Vec<Arc<Service>>> {
    let one = (pools(), proptest::option::of(pools()), any::<bool>());
    proptest::collection::btree_map("[a-c]", one, 0..4).prop_map(|services| {
        let build = |(name, (stable, candidate, robin)): (String, (String, Option<String>, bool))| {
            let mut service = Service::clone(&service(&format!("{name} {stable}")));
            service.candidate = candidate.map(|c| pool(&c));
            service.upstream.balance = if robin { Balance::RoundRobin } else { Balance::LeastRequest };
            Arc::new(service)
        };
        services.into_iter().map(build).collect()
    })
}

fn running() -> impl Strategy<Value = Vec<(Arc<Service>, Running)>> {
    let ran = services().prop_map(|all| all.into_iter().filter(|s| refuse_new(s).is_none()).collect::<Vec<_>>());
    (ran, 0..=100_u16, any::<bool>()).prop_map(|(services, percent, aborted)| {
        let state = |s: &Arc<Service>| if s.candidate.is_some() { Running { aborted, ..at(percent) } } else { at(0) };
        services.into_iter().map(|s| (Arc::clone(&s), state(&s))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_same_file_again_changes_nothing(running in running(), wanted in services()) {
        if let Ok(first) = plan(&running, &wanted, 40) {
            let second = plan(&first.services, &wanted, first.next_rollout).expect("accepted before");
            prop_assert_eq!(&second.changes, &[]);
            prop_assert_eq!(second, Plan { changes: Vec::new(), ..first });
        }
    }

    #[test]
    fn order_makes_no_difference(running in running(), wanted in services()) {
        let mut turned: Vec<_> = wanted.iter().map(|s| {
            let mut service = Service::clone(s);
            let mut stable = Pool::clone(&service.stable);
            stable.endpoints.reverse();
            service.stable = Arc::new(stable);
            Arc::new(service)
        }).collect();
        turned.reverse();
        let backwards: Vec<_> = running.iter().rev().cloned().collect();
        match (plan(&running, &wanted, 1), plan(&backwards, &turned, 1)) {
            (Ok(a), Ok(b)) => {
                prop_assert_eq!(a.changes, b.changes);
                let states = |p: Vec<(Arc<Service>, Running)>| p.into_iter().map(|s| (s.0.name.clone(), s.1)).collect::<Vec<_>>();
                prop_assert_eq!(states(a.services), states(b.services));
            }
            (a, b) => prop_assert_eq!(a.err(), b.err()),
        }
    }

    #[test]
    fn a_weight_is_kept_by_the_version_that_had_it_or_by_none(running in running(), wanted in services()) {
        if let Ok(plan) = plan(&running, &wanted, 40) {
            prop_assert_eq!(plan.services.len(), wanted.len());
            for (service, state) in &plan.services {
                let before = running.iter().find(|(s, _)| s.name == service.name);
                let kept = before.is_some_and(|(s, _)| candidate_of(s) == candidate_of(service));
                if kept {
                    prop_assert_eq!(Some(state), before.map(|(_, state)| state));
                } else {
                    prop_assert_eq!((state.weight, state.aborted, state.retry), (Weight::ZERO, false, 0));
                }
            }
        }
    }
}
