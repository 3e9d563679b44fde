//! Fixed thresholds.

use super::study::polling::{Checks, Found, Polling, Silence};

const POLLING: Polling = Polling {
    interval: 60,
    window: 60,
    success_min: 0.99,
    slow_max: Some(0.01),
    failures: 2,
    passes: Some(3),
    silence: Silence::Fails,
};

fn found(requests: u64, errors: u64, slow: u64) -> Found {
    Found { requests, errors, slow }
}

#[test]
fn thresholds_are_still_good() {
    assert!(!POLLING.fails(found(300, 3, 3)));
    assert!(POLLING.fails(found(300, 4, 0)));
    assert!(POLLING.fails(found(300, 0, 4)));
    let errors_only = Polling { slow_max: None, success_min: 0.95, ..POLLING };
    assert!(!errors_only.fails(found(100, 5, 100)));
    assert!(errors_only.fails(found(100, 6, 0)));
}

#[test]
fn one_error_of_few_requests_is_many() {
    assert!(POLLING.fails(found(15, 1, 0)));
}

#[test]
fn silence_is_what_it_is_said_to_be() {
    assert!(POLLING.fails(Found::default()));
    assert!(!Polling { silence: Silence::Passes, ..POLLING }.fails(Found::default()));
}

#[test]
fn failed_checks_add_up_until_enough_have_passed() {
    let (good, bad) = (found(100, 0, 0), found(100, 50, 0));
    let run = |polling: &Polling, checks: &[Found]| {
        let mut sofar = Checks::default();
        checks.iter().position(|found| sofar.add(polling, *found))
    };
    assert_eq!(run(&POLLING, &[bad, good, good, bad]), Some(3));
    assert_eq!(run(&POLLING, &[bad, good, good, good, bad, bad]), None);
    assert_eq!(run(&Polling { passes: None, ..POLLING }, &[bad, good, good, good, bad, bad]), Some(4));
}
