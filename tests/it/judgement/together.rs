//! All judges on a little of the bench's traffic: what must hold of any figures.

use super::study::judges::JUDGES;
use super::study::{Case, Cell, Plan, RATES, plot, report};

/// Indices into [`JUDGES`].
const GATE: usize = 0;
const FLAGGER: usize = 1;
const FLAGGER_FAST: usize = 2;
const ARGO: usize = 3;
const KAYENTA: usize = 5;

fn cell(cells: &[Cell], case: Case, rate: f64) -> &Cell {
    cells.iter().find(|cell| cell.case == case && (cell.rate - rate).abs() < 0.5).expect("every cell")
}

#[test]
fn a_small_study() {
    let plan = Plan { seed: 1, healthy: 2, faulty: 2, seconds: 3_600 };
    let cells = plan.run();
    assert_eq!(cells.len(), Case::ALL.len() * RATES.len());
    // Whatever the number of threads: the same seed, the same figures.
    assert_eq!(cells, plan.run());
    let broken = cell(&cells, Case::Errors(1.0), 1_000.0);
    let medians: Vec<Option<f64>> = (0..JUDGES.len()).map(|judge| broken.figures(judge).median).collect();
    assert!(medians[GATE].is_some_and(|median| median <= 0.5), "{medians:?}");
    assert_eq!(medians[FLAGGER], Some(300.0));
    assert_eq!(medians[FLAGGER_FAST], Some(10.0));
    assert_eq!(medians[ARGO], Some(900.0));
    assert_eq!(medians[KAYENTA], Some(3_600.0));
    // Five requests per second, every one an error: failed are 0.25 per second.
    let rare = cell(&cells, Case::Errors(1.0), 5.0).figures(FLAGGER);
    assert!((50..110).contains(&rare.failed), "{rare:?}");
    for healthy in Case::ALL.into_iter().filter(|case| case.is_healthy()) {
        for rate in RATES {
            let figures = cell(&cells, healthy, rate).figures(GATE);
            assert!(figures.taken_back.abs() < 1e-9, "{} at {rate}/s: {figures:?}", healthy.title());
        }
    }
    // What both share condemns whoever looks at the candidate alone.
    assert!(cell(&cells, Case::Outage, 1_000.0).figures(FLAGGER_FAST).taken_back > 0.9);
    let text = report::markdown(&plan, &cells, "a test");
    assert!(text.contains("| Tidegate |") && text.contains("| Kayenta, fast |"), "{text}");
    assert!(!text.contains("| – |"), "a cell without figures: {text}");
    let svg = plot::svg(&cells);
    assert_eq!(svg.matches("<circle").count(), JUDGES.len() + 7 * RATES.len() * JUDGES.len());
}
