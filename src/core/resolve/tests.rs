//! Answers, failures and empty answers in every order.

use super::*;

const BOUNDS: Bounds = Bounds { min: Duration::from_secs(1), max: Duration::from_secs(300) };

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|ip| ip.parse().expect("ip")).collect()
}

fn records(texts: &[&str], ttl: u64) -> Found<IpAddr> {
    Found::Records(ips(texts), Duration::from_secs(ttl))
}

fn failed<T>() -> Found<T> {
    Found::Failed("timed out".to_owned())
}

fn learn(resolving: &mut Resolving, heard: Heard) -> Learned {
    resolving.learn(heard, BOUNDS, 0)
}

fn host(texts: &[&str]) -> Answer {
    Answer::Host(ips(texts).into_iter().collect())
}

fn target(priority: u16, weight: u16, port: u16, host: &str) -> Target {
    Target { priority, weight, port, host: host.into() }
}

#[test]
fn both_families_are_one_answer_and_another_order_is_the_same() {
    let mut name = Resolving::default();
    let first = learn(&mut name, Heard::Host([records(&["10.0.0.2", "10.0.0.1"], 60), records(&["fd00::1"], 30)]));
    let expected = Learned {
        changed: Some(host(&["10.0.0.1", "10.0.0.2", "fd00::1"])),
        problem: None,
        again: Duration::from_secs(30),
    };
    assert_eq!(first, expected);
    let second = learn(&mut name, Heard::Host([records(&["10.0.0.1", "10.0.0.2"], 60), records(&["fd00::1"], 30)]));
    assert_eq!(second.changed, None);
    let third = learn(&mut name, Heard::Host([records(&["10.0.0.1"], 60), Found::Nothing]));
    assert_eq!(third.changed, Some(host(&["10.0.0.1"])), "one family went while the other stays");
}

#[test]
fn failures_and_empty_answers_keep_what_was_good() {
    let mut name = Resolving::default();
    learn(&mut name, Heard::Host([records(&["10.0.0.1"], 60), records(&["fd00::1"], 60)]));
    for (n, found) in (1..).zip([[failed(), failed()], [Found::Nothing, Found::Nothing], [Found::Nothing, failed()]]) {
        let learned = learn(&mut name, Heard::Host(found));
        assert_eq!((learned.changed, name.failures()), (None, n));
        assert!(learned.problem.is_some());
        assert_eq!(name.answer(), Some(&host(&["10.0.0.1", "fd00::1"])));
    }
    let partial = learn(&mut name, Heard::Host([records(&["10.0.0.2"], 60), failed()]));
    assert_eq!(partial.changed, Some(host(&["10.0.0.2", "fd00::1"])), "a family that fails keeps its own");
    assert_eq!((partial.problem.as_deref(), name.failures()), (Some("timed out"), 0));
}

#[test]
fn a_name_that_never_was_answered_has_no_answer() {
    let mut name = Resolving::default();
    let learned = learn(&mut name, Heard::Host([Found::Nothing, Found::Nothing]));
    assert_eq!((learned.changed, name.answer()), (None, None));
    assert_eq!(learned.problem.as_deref(), Some("it has no addresses"));
}

#[test]
fn pauses_follow_the_ttl_within_bounds_and_grow_with_failures() {
    let again = |ttl, random| {
        let heard = Heard::Host([records(&["10.0.0.1"], ttl), Found::Nothing]);
        Resolving::default().learn(heard, BOUNDS, random).again
    };
    assert_eq!(again(0, u32::MAX), Duration::from_secs(1));
    assert_eq!(again(60, 0), Duration::from_secs(60));
    let spread = again(60, u32::MAX);
    assert!(spread >= Duration::from_secs(54) && spread < Duration::from_millis(54_001), "{spread:?}");
    assert_eq!(again(86_400, 0), Duration::from_secs(300));
    let mut name = Resolving::default();
    let pauses: Vec<u64> = (0..8)
        .map(|_| {
            let again = name.learn(Heard::Host([failed(), failed()]), BOUNDS, u32::MAX).again;
            u64::try_from(again.as_millis()).expect("short") + 1
        })
        .collect();
    assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    let mut first = Resolving::default();
    assert_eq!(first.learn(Heard::Host([failed(), failed()]), BOUNDS, 0).again, Duration::from_millis(500));
}

#[test]
fn records_are_bounded_and_that_is_said() {
    let many: Vec<IpAddr> = (0..300_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into())).collect();
    let mut name = Resolving::default();
    let heard = Heard::Host([Found::Records(many, Duration::from_secs(9)), Found::Nothing]);
    let learned = learn(&mut name, heard);
    assert_eq!(learned.changed.map(|answer| answer.len()), Some(RECORDS_MAX));
    assert_eq!(learned.problem.as_deref(), Some("300 addresses; the first 256 are used"));
}

#[test]
fn only_the_lowest_priority_is_used_and_a_dot_is_nobody() {
    let all = [target(20, 0, 1, "c"), target(10, 5, 1, "b"), target(10, 1, 1, "a"), target(0, 0, 0, "")];
    assert_eq!(used(&all), [target(10, 1, 1, "a"), target(10, 5, 1, "b")]);
    assert_eq!(used(&all[3..]), []);
}

#[test]
fn weights_keep_their_proportions() {
    assert_eq!([0, 1, 100].map(|w| scaled(w, 100)), [1, 1, 100]);
    assert_eq!([0, 1, 1_000, 32_768, 65_535].map(|w| scaled(w, 65_535)), [1, 1, 2, 51, 100]);
    assert_eq!(scaled(0, 0), 1);
}

#[test]
fn srv_targets_are_resolved_each_and_one_that_fails_keeps_its_own() {
    let mut name = Resolving::default();
    let targets = || Found::Records(vec![target(1, 3, 80, "a"), target(1, 1, 81, "b")], Duration::from_secs(60));
    let hosts = |a, b| [("a".into(), [a, Found::Nothing]), ("b".into(), [b, Found::Nothing])].into();
    let at = |text: &str, weight| (text.parse::<SocketAddr>().expect("address"), weight);
    let first = learn(&mut name, Heard::Srv(targets(), hosts(records(&["10.0.0.1"], 20), records(&["10.0.0.2"], 90))));
    let both = Answer::Srv([at("10.0.0.1:80", 3), at("10.0.0.2:81", 1)].into());
    assert_eq!((first.changed, first.again), (Some(both.clone()), Duration::from_secs(20)));
    let second = learn(&mut name, Heard::Srv(targets(), hosts(failed(), records(&["10.0.0.3"], 90))));
    assert_eq!(second.changed, Some(Answer::Srv([at("10.0.0.1:80", 3), at("10.0.0.3:81", 1)].into())));
    assert_eq!(second.problem.as_deref(), Some("target a: timed out"));
    for heard in [Heard::Srv(Found::Nothing, BTreeMap::new()), Heard::Srv(failed(), BTreeMap::new())] {
        assert_eq!(learn(&mut name, heard).changed, None);
    }
    let fewer = Heard::Srv(
        Found::Records(vec![target(1, 1, 81, "b")], Duration::from_secs(60)),
        [("b".into(), [failed(), failed()])].into(),
    );
    assert_eq!(learn(&mut name, fewer).changed, Some(Answer::Srv([at("10.0.0.3:81", 1)].into())), "a left");
}
