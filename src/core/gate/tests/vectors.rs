//! Golden vectors of the reference implementation: counts in, log evidence out.

use serde::Deserialize;

use crate::core::gate::evidence::{ALTERNATIVES, Evidence};
use crate::core::gate::family::{Ceiling, Family};

/// Written by the reference implementation with its own seed; every block is one tick, fed as it is.
const VECTORS: &str = include_str!("../vectors.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    alternatives: usize,
    top: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    test: String,
    r0: Option<f64>,
    floor: Option<f64>,
    first: Option<f64>,
    p: Option<f64>,
    restart_every: usize,
    blocks: Vec<Vec<u32>>,
    log_e: Vec<f64>,
}

fn t1(case: &Case, block: &[u32]) -> [f64; ALTERNATIVES] {
    let [n_c, n_s, s, b] = block else { panic!("{}: four counts", case.name) };
    let family = Family::worse(case.r0.expect("r0"), case.floor.expect("floor"), case.first.expect("first"));
    let mut step = [0.0; ALTERNATIVES];
    family.exposures(*n_c, *n_s, &mut step);
    if let Some(shape) = family.shape(*n_c, *n_s) {
        family.events(&shape, *s, *b, &mut step);
    }
    step
}

fn t2(case: &Case, block: &[u32]) -> [f64; ALTERNATIVES] {
    let [n, s] = block else { panic!("{}: two counts", case.name) };
    let mut step = [0.0; ALTERNATIVES];
    Ceiling::new(case.p.expect("p")).expect("a rate").score(*n, *s, &mut step);
    step
}

#[test]
fn the_evidence_is_that_of_the_reference_implementation() {
    let vectors: Vectors = serde_json::from_str(VECTORS).expect("vectors");
    assert_eq!((vectors.alternatives, vectors.top, vectors.cases.len()), (ALTERNATIVES, 1e4, 13));
    for case in &vectors.cases {
        let mut evidence = Evidence::new();
        assert_eq!(case.blocks.len(), case.log_e.len(), "{}", case.name);
        for (i, (block, expected)) in case.blocks.iter().zip(&case.log_e).enumerate() {
            if i > 0 && i % case.restart_every == 0 {
                evidence.restart();
            }
            let step = if case.test == "t1" { t1(case, block) } else { t2(case, block) };
            evidence.add(&step);
            let got = evidence.log_e();
            assert!((got - expected).abs() <= 1e-9, "{} block {i}: {got}, expected {expected}", case.name);
            assert!(got <= evidence.at_most() + 1e-9, "{} block {i}", case.name);
        }
    }
}
