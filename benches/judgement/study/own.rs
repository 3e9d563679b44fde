//! This project's gate, fed with the simulated requests as the proxy feeds it.

use tidegate::core::gate::history::Second;
use tidegate::core::gate::sketch::bucket_of;
use tidegate::core::gate::{
    Cell, Channel, Event, Events, Exposures, Gate, GateConfig, History, InFlight, Layout, Measure, Tick, TickInput,
    Unit,
};
use tidegate::core::weight::Weight;

use super::traffic::{CLASSES, Counts, FAST_US, SECOND, Step, Traffic, latency_us};

/// Where ticks begin: not at zero, where mistakes in arithmetic hide.
const BEGIN: Tick = 12_340;
/// Seconds of stable's past that the gate knows.
const PAST: u64 = 600;

/// The gate of one rollout.
pub(crate) struct Own {
    gate: Gate,
    weight: Weight,
    /// Indices of series: errors, client errors, latencies.
    errors: u8,
    refused: u8,
    slow: Vec<u8>,
    /// Stable's latencies since they were handed in last.
    latencies: Vec<(u16, u32)>,
    second: u64,
}

// === impl Own ===

impl Own {
    /// A gate that has seen stable for ten minutes.
    pub(crate) fn new(traffic: &Traffic) -> Self {
        let metrics = GateConfig::default_metrics();
        // A candidate endpoint warms up for 30 s; requests end within a minute and a connect timeout.
        let config = GateConfig { alpha: 0.001, unit: Unit::Session, warmup: 600, reach: 1_220, metrics };
        let layout = Layout::new(&config);
        let index = |wanted| {
            let found = layout.series().iter().position(|series| wanted == (series.measure, series.event));
            u8::try_from(found.expect("a default metric")).expect("few")
        };
        let errors = index((Measure::Errors, Event::Bad));
        let refused = index((Measure::ClientErrors, Event::Bad));
        let slow = layout.slow().map(|series| u8::try_from(series).expect("few")).collect();
        let history = past(&layout, usize::from(errors), traffic);
        let gate = Gate::new(config, &history, BEGIN).expect("the default configuration");
        let weight = Weight::parse("5%").expect("a weight");
        Self { gate, weight, errors, refused, slow, latencies: Vec::new(), second: 0 }
    }

    /// Takes what began in the ticks that end with tick `last` (from zero), candidate requests that `ended` by running into their timeout and
    /// those that wait for an answer, each with the tick it began in. Says whether the candidate is taken back.
    pub(crate) fn feed(&mut self, last: u64, step: &Step, ended: &[(u64, u32)], waiting: &[(u64, u32)]) -> bool {
        let now = BEGIN + last;
        let stable = step.stable();
        let candidate = Cell::candidate(0);
        let mut exposures = Vec::with_capacity(4);
        let mut events = Vec::with_capacity(10);
        for (cell, counts, factor) in
            [(candidate, &step.candidate, step.factors[0]), (Cell::STABLE, &stable, step.factors[1])]
        {
            let count = counts.requests();
            exposures.extend([Channel::BEGUN, Channel::WRITTEN].map(|channel| Exposures { channel, cell, count }));
            self.events(&mut events, cell, counts, factor, now);
        }
        let hung = |began: u64, requests| Events {
            series: self.errors,
            cell: candidate,
            began: BEGIN + began,
            requests,
            sessions: requests,
        };
        events.extend(ended.iter().map(|(began, requests)| hung(*began, *requests)));
        let timed_out =
            |series: u8| ended.iter().map(move |(began, requests)| Events { series, ..hung(*began, *requests) });
        events.extend(self.slow.iter().flat_map(|series| timed_out(*series)));
        let in_flight: Vec<InFlight> = self.slow.iter().flat_map(|series| in_flight(*series, waiting)).collect();
        self.collect(&stable, step.factors[1]);
        let ends_second = (last + 1) / SECOND > self.second;
        let input = TickInput {
            hold: 600,
            exposures: &exposures,
            events: &events,
            in_flight: &in_flight,
            succeeded: [stable.answered(), step.candidate.answered()],
            sessions: 1_000,
            latencies: tidegate::core::gate::Latencies {
                stable: if ends_second { &self.latencies } else { &[] },
                candidate: &[],
            },
            ..TickInput::quiet(now, self.weight)
        };
        let harmful = self.gate.tick(&input).outcome.is_harmful();
        if ends_second {
            self.second = (last + 1) / SECOND;
            self.latencies.clear();
        }
        harmful
    }

    fn events(&self, events: &mut Vec<Events>, cell: Cell, counts: &Counts, factor: f64, began: Tick) {
        let event = |series, requests, sessions| Events { series, cell, began, requests, sessions };
        if counts.errors > 0 {
            events.push(event(self.errors, counts.errors, counts.clients));
        }
        if counts.refused > 0 {
            events.push(event(self.refused, counts.refused, counts.refused));
        }
        let thresholds = self.gate.thresholds();
        for series in &self.slow {
            let limit = thresholds.of(usize::from(*series));
            let limit = if cell == Cell::STABLE { limit.stable_us } else { limit.candidate_us };
            let above = |class: &usize| (latency_us(*class) * factor) as u64 > limit;
            let mut slow: u32 = (0..CLASSES).filter(above).map(|class| counts.classes[class]).sum();
            slow += if FAST_US > limit { counts.errors + counts.refused } else { 0 };
            if slow > 0 {
                events.push(event(*series, slow, slow));
            }
        }
    }

    fn collect(&mut self, stable: &Counts, factor: f64) {
        let fast = stable.errors + stable.refused;
        let well = (0..CLASSES).map(|class| (bucket_of((latency_us(class) * factor) as u64), stable.classes[class]));
        let all = std::iter::once((bucket_of(FAST_US), fast)).chain(well);
        self.latencies.extend(all.filter(|(_, count)| *count > 0));
    }
}

fn in_flight(series: u8, waiting: &[(u64, u32)]) -> impl Iterator<Item = InFlight> + '_ {
    let cell = Cell::candidate(0);
    waiting.iter().map(move |(began, requests)| InFlight {
        series,
        cell,
        began: BEGIN + began,
        requests: *requests,
        sessions: *requests,
    })
}

/// Ten minutes of stable as it is at the beginning, without noise.
fn past(layout: &Layout, errors: usize, traffic: &Traffic) -> History {
    let (classes, level, requests) = traffic.stable_per_second(0);
    let mut history = History::new(layout);
    for second in 1..=PAST {
        // What a rate adds up to in this second.
        let of = |rate: f64| ((rate * second as f64).floor() - (rate * (second - 1) as f64).floor()) as u64;
        let mut events = vec![0; layout.series().len()];
        events[errors] = of(requests * level.errors());
        let latencies: Vec<(u16, u32)> = (0..CLASSES)
            .map(|class| (bucket_of((latency_us(class) * level.slow()) as u64), of(classes[class]) as u32))
            .collect();
        let exposed = of(requests);
        history.record(&Second {
            exposed: &vec![exposed; layout.channels()],
            events: &events,
            succeeded: exposed - events[errors].min(exposed),
            latencies: &latencies,
        });
    }
    history
}
