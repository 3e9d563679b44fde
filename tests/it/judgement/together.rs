//! All judges on a little of the bench's traffic: what must hold of any figures.

use super::study::judges::JUDGES;
use super::study::{Case, Cell, Plan, RATES, plot, report, rollout};

/// Indices into [`JUDGES`].
const GATE: usize = 0;
const FLAGGER: usize = 1;
const FLAGGER_FAST: usize = 2;
const ARGO: usize = 3;
const ARGO_FAST: usize = 4;
const KAYENTA: usize = 5;

fn cell(cells: &[Cell], case: Case, rate: f64) -> &Cell {
    cells.iter().find(|cell| cell.case == case && (cell.rate - rate).abs() < 0.5).expect("every cell")
}

#[test]
fn a_broken_candidate() {
    let ended = rollout::run(Case::Errors(1.0), 1_000.0, 3_600, 1);
    assert_eq!(ended, rollout::run(Case::Errors(1.0), 1_000.0, 3_600, 1));
    let at = ended.map(|ended| ended.at);
    assert!(at[GATE].is_some_and(|at| at <= 0.5), "{at:?}");
    let others = [(FLAGGER, 300.0), (FLAGGER_FAST, 10.0), (ARGO, 900.0), (ARGO_FAST, 10.0), (KAYENTA, 3_600.0)];
    for (judge, seconds) in others {
        assert_eq!(at[judge], Some(seconds), "{}", JUDGES[judge].name);
        // All of the candidate's fifty requests per second.
        let expected = seconds * 50.0;
        assert!((f64::from(ended[judge].failed) / expected - 1.0).abs() < 0.2, "{:?}", ended[judge]);
    }
}

#[test]
fn a_small_study() {
    let plan = Plan { seed: 1, healthy: 1, faulty: 1, seconds: 600 };
    let cells = plan.run();
    assert_eq!(cells.len(), Case::ALL.len() * RATES.len());
    for healthy in Case::ALL.into_iter().filter(|case| case.is_healthy()) {
        for rate in RATES {
            let figures = cell(&cells, healthy, rate).figures(GATE);
            assert!(figures.taken_back.abs() < 1e-9, "{} at {rate}/s: {figures:?}", healthy.title());
        }
    }
    // What both share condemns whoever looks at the candidate alone.
    assert!(cell(&cells, Case::Outage, 1_000.0).figures(FLAGGER_FAST).taken_back > 0.9);
    let hang = cell(&cells, Case::Hang, 1_000.0);
    assert!(hang.figures(GATE).median.is_some_and(|median| median < 2.0), "{:?}", hang.figures(GATE));
    let text = report::markdown(&plan, &cells, "a test");
    assert!(text.contains("| Tidegate |") && text.contains("took back 0 of 15"), "{text}");
    assert!(!text.contains("| – |"), "a cell without figures: {text}");
    let svg = plot::svg(&cells);
    assert_eq!(svg.matches("<circle").count(), JUDGES.len() + 7 * RATES.len() * JUDGES.len());
}
