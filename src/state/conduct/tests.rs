//! Tests of what requests say of an endpoint.

use proptest::prelude::*;

use super::*;
use crate::clock;

const FAULT: Fault = Fault::Status(500);

fn conduct() -> Conduct {
    Conduct::new(2, clock::now())
}

fn ejection() -> Ejection {
    Ejection { cause: Cause::Streak(5), fault: Some(FAULT), at: Duration::ZERO, lasting: Duration::from_secs(30) }
}

#[test]
fn outcomes_of_all_workers_add_up_and_a_success_ends_the_streak() {
    let conduct = conduct();
    let admission = conduct.admit().expect("in");
    for worker in [0, 1, 1] {
        conduct.blame(admission, worker, FAULT);
    }
    assert_eq!((conduct.outcomes(), conduct.last_fault()), ((3, 3), Some(FAULT)));
    assert_eq!([conduct.take_streak(), conduct.take_streak()], [3, 3], "it goes on");
    conduct.blame(admission, 0, FAULT);
    conduct.credit(admission, 0);
    assert_eq!([conduct.take_streak(), conduct.take_streak()], [4, 0], "a success right behind it does not hide it");
    assert_eq!(conduct.outcomes(), (5, 4));
    conduct.give_back(admission);
    assert_eq!((conduct.outcomes(), conduct.standing()), ((5, 4), Stands::In));
}

#[test]
fn a_trial_lets_one_request_in_at_a_time() {
    let conduct = conduct();
    let before = conduct.admit().expect("in");
    conduct.eject(ejection());
    assert!(!conduct.is_open() && conduct.admit().is_none() && conduct.standing() == Stands::Ejected);
    conduct.blame(before, 0, FAULT);
    assert_eq!(conduct.outcomes(), (0, 0), "what began before the ejection is answered for");
    conduct.open_trial();
    assert!(conduct.is_open() && !conduct.is_in());
    let one = conduct.admit().expect("the one");
    assert!(one.is_trial() && conduct.admit().is_none() && !conduct.is_open());
    conduct.give_back(one);
    let other = conduct.admit().expect("it said nothing: another one may");
    conduct.credit(other, 0);
    assert_eq!(
        (conduct.outcomes(), conduct.admit()),
        ((1, 0), None),
        "until control has decided nobody else is let in"
    );
    conduct.restore(clock::now());
    assert!(conduct.is_in() && conduct.ejection().is_none());
    conduct.blame(other, 0, FAULT);
    conduct.blame(before, 0, FAULT);
    assert_eq!(conduct.outcomes(), (1, 0), "what began earlier says nothing now");
}

#[test]
fn a_trial_that_was_decided_meanwhile_is_not_given_back() {
    let conduct = conduct();
    conduct.eject(ejection());
    conduct.open_trial();
    let slow = conduct.admit().expect("the one");
    conduct.open_trial();
    let second = conduct.admit().expect("the slow one does not keep others off for ever");
    conduct.blame(slow, 0, FAULT);
    assert_eq!(conduct.outcomes(), (1, 1), "it still counts");
    conduct.eject(ejection());
    conduct.give_back(second);
    assert!(!conduct.is_open());
}

#[test]
fn in_panic_everybody_is_let_in_and_nothing_counts() {
    let conduct = conduct();
    conduct.eject(ejection());
    let admission = conduct.admit_regardless();
    conduct.credit(admission, 0);
    conduct.blame(admission, 0, FAULT);
    conduct.give_back(admission);
    assert_eq!((conduct.outcomes(), conduct.standing()), ((0, 0), Stands::Ejected));
    conduct.open_trial();
    assert!(conduct.admit_regardless().is_trial(), "the trial is not passed over");
    assert!(!conduct.admit_regardless().is_trial());
}

#[test]
fn a_drained_endpoint_is_closed_until_undrained() {
    let (conduct, now) = (conduct(), clock::now());
    assert!(conduct.drain(now, Duration::from_millis(77)) && !conduct.drain(now, Duration::ZERO));
    assert!(!conduct.is_open() && !conduct.is_in() && conduct.is_drained());
    assert_eq!(conduct.drained_since_ms(), Some(77));
    assert!(conduct.drained_at().is_some_and(|at| at <= now && now - at < Duration::from_millis(2)));
    assert!(conduct.undrain(now) && !conduct.undrain(now) && conduct.is_open());
    assert_eq!((conduct.drained_at(), conduct.drained_since_ms()), (None, None));
}

#[test]
fn latency_jumps_up_and_failures_are_a_penalty() {
    let (conduct, now) = (conduct(), clock::now());
    let later = now + Duration::from_secs(60);
    let recent = |at: Instant| match conduct.latency(at) {
        Latency::Recent(us) => us,
        other => panic!("{other:?}"),
    };
    assert_eq!(conduct.latency(now), Latency::Unknown);
    conduct.observe_latency(Some(Duration::from_millis(20)), now);
    assert!((recent(now) - 20_000.0).abs() < 1.0);
    conduct.observe_latency(None, now);
    assert!(recent(now) > 1_000_000.0 && recent(later) < 20_000.0, "it fades");
    conduct.open_trial();
    assert_eq!(conduct.latency(now), Latency::Unknown, "a trial is not put off for slowness");
}

#[test]
fn nothing_fades_while_an_answer_is_awaited() {
    type End = fn(&Conduct, Admission);
    let ends: [End; 4] = [
        |conduct, admission| {
            let _ = conduct.answered(admission);
        },
        |conduct, admission| conduct.credit(admission, 0),
        |conduct, admission| conduct.blame(admission, 1, FAULT),
        |conduct, admission| conduct.give_back(admission),
    ];
    for end in ends {
        let (conduct, now) = (conduct(), clock::now());
        let later = now + Duration::from_secs(600);
        let admit = || conduct.asked(conduct.admit().expect("in"));
        let first = admit();
        assert_eq!((conduct.latency(now), conduct.asked(first)), (Latency::Awaited, first), "counted once");
        conduct.observe_latency(Some(Duration::from_millis(20)), now);
        let fresh = conduct.latency(now);
        assert_eq!(conduct.latency(later), fresh);
        let second = admit();
        end(&conduct, conduct.answered(first));
        assert_eq!(conduct.latency(later), fresh, "the second one is still awaited");
        end(&conduct, second);
        assert_ne!(conduct.latency(later), fresh);
    }
    // Those that wait since before an ejection do not put off the trial.
    let (conduct, now) = (conduct(), clock::now());
    let _hangs = conduct.asked(conduct.admit().expect("in"));
    conduct.eject(ejection());
    conduct.open_trial();
    assert_eq!(conduct.latency(now), Latency::Unknown);
}

#[test]
fn slow_start_begins_when_it_comes_into_service() {
    let (conduct, now) = (conduct(), clock::now());
    assert_eq!(conduct.age(now), None);
    conduct.enter_service(now);
    let age = conduct.age(now + Duration::from_secs(3)).expect("an age");
    assert!(age.abs_diff(Duration::from_secs(3)) < Duration::from_millis(2), "{age:?}");
}

proptest! {
    /// Whatever happens in whatever order: between two decisions of control at most one request is on trial.
    #[test]
    fn never_two_on_trial(steps in proptest::collection::vec((0_u8..6, 0_usize..8), 0..200)) {
        let conduct = conduct();
        let mut held: Vec<Admission> = Vec::new();
        let mut trying = 0;
        for (step, at) in steps {
            match step {
                0 | 1 => if let Some(admission) = conduct.admit() {
                    trying += u32::from(admission.is_trial());
                    held.push(admission);
                },
                2 if !held.is_empty() => {
                    let admission = held.swap_remove(at % held.len());
                    let was = conduct.standing() == Stands::Trial && !conduct.is_open();
                    conduct.give_back(admission);
                    trying -= u32::from(was && conduct.is_open());
                }
                3 => { conduct.eject(ejection()); trying = 0; }
                4 if conduct.standing() == Stands::Ejected => { conduct.open_trial(); trying = 0; }
                5 => { conduct.restore(clock::now()); trying = 0; }
                _ => {}
            }
            prop_assert!(trying <= 1);
            prop_assert_eq!(trying == 1, conduct.standing() == Stands::Trial && !conduct.is_open());
        }
    }
}
