//! The figures in words, and the page they are written into.

use super::page::replace;
use super::study::Figures;
use super::study::report::{outcome, share};
use super::study::traffic::Case;

fn figures_of(taken_back: f64, median: Option<f64>, p95: Option<f64>) -> Figures {
    Figures { taken_back, median, p95, failed: 12_345 }
}

#[test]
fn an_outcome_names_what_it_knows() {
    let fault = Case::Errors(0.5);
    assert_eq!(outcome(fault, figures_of(1.0, Some(0.15), Some(62.0))), "0.15 s (62 s), 12,345");
    assert_eq!(outcome(fault, figures_of(0.97, Some(8.0), Some(300.0))), "8.0 s (5 min), 12,345; 3.0 % missed");
    assert_eq!(outcome(Case::Slow, figures_of(0.2, None, None)), "80 % missed");
    assert_eq!(outcome(Case::Hang, figures_of(0.0, None, None)), "missed, 12,345");
}

#[test]
fn shares_tell_few_from_none() {
    assert_eq!([0.0, 0.005, 0.5, 1.0].map(share), ["0", "0.5", "50", "100"]);
}

#[test]
fn only_what_stands_between_the_markers_is_replaced() {
    let page = "a\n<!-- x -->\nold\n<!-- /x -->\nz\n";
    assert_eq!(replace(page, "x", "new\n").unwrap(), "a\n<!-- x -->\nnew\n<!-- /x -->\nz\n");
    assert!(replace("a\nz\n", "x", "new").is_err());
    assert!(replace(page, "y", "new").is_err());
    assert!(replace(&format!("{page}{page}"), "x", "new").is_err());
}
