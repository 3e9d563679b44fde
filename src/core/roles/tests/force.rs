//! What is written down of a forced promotion, and of a trial under a person's pause.

use super::*;
use crate::core::rollout::TRIAL_WEIGHT;

/// A phase, and one that is in it.
type Begun = (&'static str, fn() -> Run);

/// One on trial that is baking.
fn baking() -> Run {
    let mut run = Run::stable("v1");
    run.verb(start("v2=90")).expect("started");
    run.tick(1);
    for _ in 0..2 {
        run.verb(Verb::Promote { full: false, force: false }).expect("the next step");
    }
    assert_eq!((run.phase(), run.runs()), ("baking", ("v1", Some("v2"), 100)));
    run
}

/// A tick at which the gate asks for a trial.
fn alarm(run: &mut Run) {
    let facts = Facts {
        ready: true,
        counts: run.counts,
        verdict: Verdict::Open,
        alarm: true,
        stable_degraded: false,
        sample_ratio: false,
        endpoint: false,
    };
    run.now += SECOND;
    run.effects = run.roles.on(Event::Tick(facts), SECOND, run.now);
}

fn note(run: &Run) -> &Note {
    let found = run.effects.iter().find_map(|effect| if let Effect::Record(note) = effect { Some(note) } else { None });
    found.expect("recorded")
}

/// argo#995, argo#1774: always possible, never unaccounted for.
#[test]
fn argo_995_a_forced_promotion_is_audited_with_who_and_why() {
    let stages: [Begun; 5] = [
        ("verifying", || {
            let mut run = Run::stable("v1");
            run.verb(start("v2=90")).expect("started");
            run
        }),
        ("progressing", || {
            let mut run = Run::stable("v1");
            run.verb(start("v2=90")).expect("started");
            run.tick(1);
            run
        }),
        ("paused", || {
            let mut run = baking();
            run.verb(Verb::Pause).expect("paused");
            run
        }),
        ("baking", baking),
        ("trial", || {
            let mut run = baking();
            alarm(&mut run);
            run
        }),
    ];
    for (phase, begin) in stages {
        let mut run = begin();
        assert_eq!(run.phase(), phase);
        let before = run.roles.clone();
        let force = Verb::Promote { full: true, force: true };
        assert_eq!(run.verb(force.clone()), Err(Refused::NeedsReason("force")), "{phase}");
        assert_eq!(run.ask(&Ask { reason: Some(" ".into()), ..asking(force) }), Err(Refused::NeedsReason("force")));
        // A step is not forced: from 5 % that would be everything.
        let next = Verb::Promote { full: false, force: true };
        assert_eq!(run.ask(&reasoned(next)), Err(Refused::OnlyFullIsForced), "{phase}");
        assert_eq!(run.roles, before, "refused, and nothing changed");
        assert_eq!(run.ask(&reasoned(Verb::Promote { full: true, force: true })), Ok(false), "{phase}");
        let said = note(&run);
        assert_eq!((said.actor.as_str(), said.verb, said.rollout), ("ci", "promote", 2), "{phase}");
        assert_eq!(said.reason.as_deref(), Some("the database was down"));
        assert!(said.from.contains("stable v1") && said.to.contains("stable v2"), "{said:?}");
        assert_eq!((run.phase(), run.runs()), ("succeeded", ("v2", None, 0)));
        assert!(run.roles.warm.is_some(), "and can be taken back");
    }
}

/// flagger#1801. The weight comes down before the disk is asked, and the audit says that it was a trial, although it reads "paused".
#[test]
fn flagger_1801_a_trial_under_a_person_s_pause_waits_for_no_disk() {
    for pause in [false, true] {
        let mut run = baking();
        if pause {
            run.verb(Verb::Pause).expect("paused");
        }
        alarm(&mut run);
        assert_eq!(run.phase(), if pause { "paused" } else { "trial" });
        assert_eq!(run.roles.weight(), TRIAL_WEIGHT);
        assert_eq!(run.effects[0], Effect::Publish, "{:?}", run.effects);
        assert_eq!((note(&run).actor.as_str(), note(&run).verb), ("gate", "trial"));
    }
}
