//! What the demo does not let pass. That it lets an honest proxy pass is shown with the real one (`tests/it/demo.rs`).

use super::*;
use crate::cli::demo::stats::Sample;
use crate::core::id::Variant::{self, Candidate, Stable};

/// A request: the step it began in, and how it ended.
type Seen = (usize, Result<Variant, &'static str>);

/// The end of a rollout: its phase, and who took it back.
fn course(phase: &str, by: Option<&str>) -> Course {
    let event = |actor: &str| Event { at_ms: 1_400, actor: actor.to_owned(), ..Event::default() };
    Course {
        rollout: Rollout { phase: phase.to_owned(), ..Rollout::default() },
        spoiled: by.map(|_| Spoiled { after: Duration::from_secs(7), at_ms: 1_000 }),
        taken_back: by.map(event),
        evidence: None,
    }
}

/// What was seen before the candidate failed, and from then on.
fn stats(before: &[Seen], then: Option<&[Seen]>) -> Stats {
    let mut stats = Stats::new(PHASES, 1);
    let record = |stats: &mut Stats, (began, outcome): &Seen| {
        let outcome = outcome.map_err(str::to_owned);
        stats.record(&Sample { user: 0, began: *began, outcome, latency: Duration::from_millis(1) });
    };
    for seen in before {
        record(&mut stats, seen);
    }
    if let Some(then) = then {
        stats.spoil();
        for seen in then {
            record(&mut stats, seen);
        }
    }
    stats
}

const UP: [Seen; 2] = [(BEFORE, Ok(Stable)), (2, Ok(Candidate))];
const BACK: [Seen; 2] = [(2, Err("status 500")), (AFTER, Ok(Stable))];

#[test]
fn a_fault_the_gate_catches_is_proven_and_everything_else_is_named() {
    let judged =
        |course: &Course, before: &[Seen], then: &[Seen]| problems(Fault::Errors, course, &stats(before, Some(then)));
    let caught = course("aborted", Some("gate/error-rate"));
    assert_eq!(judged(&caught, &UP, &BACK), Vec::<String>::new());
    assert_eq!(caught.caught_after(), Some(Duration::from_millis(400)));
    let with = |seen: Seen| [&BACK[..], &[seen]].concat();
    for (course, before, then, named) in [
        (&course("succeeded", Some("gate/latency")), UP.to_vec(), BACK.to_vec(), "of a v2 that fails is succeeded"),
        (
            &course("aborted", Some("token ci")),
            UP.to_vec(),
            BACK.to_vec(),
            "not the gate that took v2 back, but \"token ci\"",
        ),
        (&caught, UP.to_vec(), with((AFTER, Ok(Candidate))), "1 requests reached v2 after it was taken back"),
        (&caught, UP.to_vec(), with((AFTER, Err("timeout"))), "1 requests failed after the end"),
        (&caught, UP.to_vec(), vec![BACK[0]], "no request was answered after the end"),
        (&caught, [&UP[..], &[(1, Err("reset"))]].concat(), BACK.to_vec(), "1 requests failed while v2 was healthy"),
        (&caught, [&UP[..], &[(2, Ok(Stable))]].concat(), BACK.to_vec(), "moved back from v2 to v1 1 times"),
        (&caught, vec![(BEFORE, Ok(Candidate))], BACK.to_vec(), "1 requests reached v2 before its rollout"),
    ] {
        let problems = judged(course, &before, &then);
        assert!(problems.len() == 1 && problems[0].contains(named), "{named}: {problems:?}");
    }
    let early = Course { spoiled: None, ..caught };
    assert!(judged(&early, &UP, &BACK)[0].contains("was over before v2 failed"));
}

#[test]
fn a_healthy_candidate_has_to_be_promoted_without_a_single_failure() {
    let promoted = course("succeeded", None);
    let judged = |course: &Course, seen: &[Seen]| problems(Fault::None, course, &stats(seen, None));
    let all = [&UP[..], &[(AFTER, Ok(Candidate))]].concat();
    assert_eq!(judged(&promoted, &all), Vec::<String>::new());
    for (course, more, named) in [
        (&course("paused", None), None, "the rollout of a healthy v2 is paused"),
        (
            &promoted,
            Some((3, Err("status 502"))),
            "1 requests failed while v2 was healthy; of all failures: status 502 (1)",
        ),
        (&promoted, Some((AFTER, Ok(Stable))), "1 requests still reached v1 after v2 was promoted"),
    ] {
        let seen = all.iter().copied().chain(more).collect::<Vec<_>>();
        let problems = judged(course, &seen);
        assert!(problems.iter().any(|problem| problem.contains(named)), "{named}: {problems:?}");
    }
}

#[test]
fn the_steps_fill_the_time_there_is() {
    let script = Script::new(Fault::None, Duration::from_secs(20));
    assert_eq!((script.hold, script.margin), (Duration::from_secs(4), Duration::from_secs(2)));
    assert_eq!(script.length(), Duration::from_secs(20));
    assert_eq!((BEFORE..PHASES).map(name).collect::<Vec<_>>(), ["before", "5%", "25%", "50%", "100%", "after"]);
}
