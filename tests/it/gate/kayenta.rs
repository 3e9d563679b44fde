//! Time series a rank test passes, as what they are: counts of requests.

use tidegate::core::gate::Cell;

use super::world::{BEGIN, World, bad, errors_only};

/// Index of the pair of values at which the candidate is condemned: failed requests of `exposed`, of the candidate and of stable.
fn condemned_at(weight: u16, exposed: [u32; 2], values: &[[u32; 2]]) -> Option<usize> {
    let mut world = World::new(errors_only(), 1, 1_000.0, 0.001);
    values.iter().enumerate().position(|(second, [candidate, stable])| {
        world.now = BEGIN + second as u64 * 20;
        let events = [bad(Cell::candidate(0), world.now, *candidate), bad(Cell::STABLE, world.now, *stable)];
        world.feed(weight, exposed, &events).outcome.is_harmful()
    })
}

/// kayenta#780, spinnaker#6278, kayenta#377, kayenta#799: a control of ten times 1 and an experiment that is seven times 100 are said to be
/// alike. Of as many requests on both sides that is a hundred times as many failures: whichever come first.
#[test]
fn kayenta_780_seven_times_a_hundred_against_one_is_harm_in_any_order() {
    let pairs = |hundreds: [bool; 10]| hundreds.map(|hundred| [if hundred { 100 } else { 1 }, 1]);
    let first: [bool; 10] = std::array::from_fn(|at| at < 7);
    let last: [bool; 10] = std::array::from_fn(|at| at >= 3);
    for exposed in [100, 200, 1_000, 10_000] {
        assert_eq!(condemned_at(5_000, [exposed; 2], &pairs(first)), Some(0), "of {exposed}");
        assert_eq!(condemned_at(5_000, [exposed; 2], &pairs(last)), Some(3), "of {exposed}");
        assert_eq!(condemned_at(5_000, [exposed; 2], &pairs([false; 10])), None, "of {exposed}");
    }
}

/// kayenta#426: some failures where there were none at all are too sparse for ranks. Of one percent of the traffic they are not.
#[test]
fn kayenta_426_sparse_failures_are_harm() {
    let pairs = [0, 1, 2, 1, 0, 0].map(|failed| [failed, 0]);
    assert_eq!(condemned_at(100, [10, 990], &pairs), Some(2));
    assert_eq!(condemned_at(100, [10, 990], &[[0, 0]; 6]), None);
}
