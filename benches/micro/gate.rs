//! One tick of one gate with the five default tests and a pool of three endpoints: 1,000 requests per second at 5 %, healthy and failing.

use std::hint::black_box;

use criterion::Criterion;
use tidegate::core::gate::sessions::Sessions;
use tidegate::core::gate::{
    Cell, Channel, Events, Exposures, Gate, GateConfig, History, InFlight, Layout, TickInput, Unit,
};
use tidegate::core::weight::Weight;

/// All benchmarks of this subject.
pub(crate) fn benches(criterion: &mut Criterion) {
    tick(criterion, "gate_tick_healthy", false);
    tick(criterion, "gate_tick_slow", true);
    idle(criterion);
    sessions(criterion);
}

fn gate() -> Gate {
    let metrics = GateConfig::default_metrics();
    let config = GateConfig { alpha: 1e-3, unit: Unit::Session, warmup: 600, reach: 1_220, metrics };
    let history = History::new(&Layout::new(&config));
    Gate::new(config, &history, 0).expect("a sound configuration")
}

/// Fifty exposures, half of them above the median; with `slow` every candidate request is above all thresholds now and then.
fn tick(criterion: &mut Criterion, name: &str, slow: bool) {
    let weight = Weight::parse("5%").expect("a weight");
    let cells = [Cell::STABLE, Cell::candidate(0), Cell::candidate(1), Cell::candidate(2)];
    let counts = [47, 1, 1, 1];
    let exposures: Vec<Exposures> = [Channel::BEGUN, Channel::WRITTEN]
        .into_iter()
        .flat_map(|channel| cells.into_iter().zip(counts).map(move |(cell, count)| Exposures { channel, cell, count }))
        .collect();
    let (mut gate, mut now) = (gate(), 0);
    criterion.bench_function(name, |bench| {
        bench.iter(|| {
            now += 1;
            let event =
                |series, cell: usize, n| Events { series, cell: cells[cell], began: now, requests: n, sessions: n };
            let mut events = vec![event(1, 0, 23), event(1, 1 + (now % 3) as usize, 1), event(2, 0, 2)];
            if slow && now % 10 == 0 {
                events.extend((1..4).flat_map(|cell| (0..5).map(move |series| event(series, cell, 1))));
            }
            let in_flight =
                [0, 1].map(|i| InFlight { series: 3, cell: cells[i], began: now, requests: 3, sessions: 3 });
            let quiet = TickInput::quiet(now, weight);
            let input = TickInput {
                pool: 3,
                sessions: 100,
                exposures: &exposures,
                events: &events,
                in_flight: &in_flight,
                ..quiet
            };
            gate.tick(black_box(&input))
        });
    });
}

fn idle(criterion: &mut Criterion) {
    let (mut gate, mut now) = (gate(), 0);
    criterion.bench_function("gate_tick_idle", |bench| {
        bench.iter(|| {
            now += 1;
            gate.tick(black_box(&TickInput::quiet(now, Weight::FULL)))
        });
    });
}

/// What sessions cost on the request path: seen, waiting and done.
fn sessions(criterion: &mut Criterion) {
    let (sessions, mut key) = (Sessions::default(), 0_u64);
    criterion.bench_function("gate_session", |bench| {
        bench.iter(|| {
            key = key.wrapping_add(0x9e37_79b9);
            sessions.expose(black_box(key));
            let waiting = sessions.wait(key, 0b1110);
            sessions.done(key, waiting);
            waiting
        });
    });
}
