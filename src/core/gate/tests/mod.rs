//! Tests of the gate as a whole.

mod vectors;

use super::{Gate, GateConfig, History, Layout, Outcome, TickInput, Unit};
use crate::core::weight::Weight;

#[test]
fn a_tick_before_the_first_is_not_one_of_the_far_future() {
    let metrics = GateConfig::default_metrics();
    let config = GateConfig { alpha: 0.001, unit: Unit::Session, warmup: 600, reach: 1_220, metrics };
    let history = History::new(&Layout::new(&config));
    let mut gate = Gate::new(config, &history, 100).expect("in range");
    for now in [99, 0, 100] {
        assert_eq!(gate.tick(&TickInput::quiet(now, Weight::HALF)).outcome, Outcome::Inconclusive);
        assert_eq!(gate.state().seen(), 0);
    }
}
