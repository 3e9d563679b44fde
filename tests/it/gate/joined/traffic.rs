//! Requests of a service: Poisson arrivals, split by the weight in force, thinned into answers with a latency each, errors, refusals, hangs.

use tidegate::core::gate::history::Second;
use tidegate::core::gate::sketch::bucket_of;
use tidegate::core::gate::{
    Cell, Channel, Event, Events, Exposures, Gate, History, InFlight, Layout, Measure, Thresholds, Tick,
};

use super::super::poisson::Poisson;

/// Latencies a healthy version answers with, in microseconds, and their shares.
const LATENCIES: [(f64, f64); 10] = [
    (4_000.0, 0.05),
    (6_000.0, 0.1),
    (9_000.0, 0.2),
    (14_000.0, 0.25),
    (20_000.0, 0.2),
    (30_000.0, 0.1),
    (45_000.0, 0.06),
    (68_000.0, 0.025),
    (100_000.0, 0.01),
    (150_000.0, 0.005),
];
const TICKS_PER_SECOND: u64 = 20;

/// What a version does with its requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conduct {
    /// Share that fails at once.
    pub(super) errors: f64,
    /// Share that gets a 4xx.
    pub(super) refused: f64,
    /// How many times as long answers take.
    pub(super) slow: f64,
    /// Nothing is ever answered.
    pub(super) hangs: bool,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weather {
    /// Requests per second for the service.
    pub(super) rps: f64,
    pub(super) candidate: Conduct,
    pub(super) stable: Conduct,
}

/// Where the gate counts what.
pub(super) struct Indices {
    errors: u8,
    refused: u8,
    slow: Vec<u8>,
}

/// The tables of one version's requests.
struct Side {
    cell: Cell,
    conduct: Conduct,
    errors: Poisson,
    refused: Poisson,
    answers: Vec<Poisson>,
}

/// What began, and what became known.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) exposures: Vec<Exposures>,
    pub(super) events: Vec<Events>,
    pub(super) in_flight: Vec<InFlight>,
    /// Begun, failed and answered well on the candidate.
    pub(super) candidate: [u32; 3],
    pub(super) succeeded: [u32; 2],
}

/// The requests of a service.
pub(super) struct Traffic {
    rng: fastrand::Rng,
    drawn_for: Option<(Weather, f64, u64)>,
    sides: Vec<Side>,
    /// Candidate requests that hang, by the tick they began in.
    hanging: Vec<(Tick, u32)>,
    /// Stable's latencies since they were handed in.
    pub(super) latencies: Vec<(u16, u32)>,
}

// === impl Conduct ===

impl Conduct {
    pub(super) const WELL: Self = Self { errors: 0.001, refused: 0.01, slow: 1.0, hangs: false };
}

// === impl Weather ===

impl Weather {
    pub(super) const fn fair(rps: f64) -> Self {
        Self { rps, candidate: Conduct::WELL, stable: Conduct::WELL }
    }
}

// === impl Indices ===

impl Indices {
    pub(super) fn of(layout: &Layout) -> Self {
        let index = |wanted| {
            let found = layout.series().iter().position(|series| wanted == (series.measure, series.event));
            u8::try_from(found.expect("a default metric")).expect("few")
        };
        let slow = layout.slow().map(|series| u8::try_from(series).expect("few")).collect();
        let (errors, refused) = (index((Measure::Errors, Event::Bad)), index((Measure::ClientErrors, Event::Bad)));
        Self { errors, refused, slow }
    }
}

// === impl Side ===

impl Side {
    /// `mean` requests are expected.
    fn new(cell: Cell, conduct: Conduct, mean: f64) -> Self {
        let well = mean * (1.0 - conduct.errors - conduct.refused).max(0.0);
        let answers = LATENCIES.iter().map(|(_, share)| Poisson::new(well * share)).collect();
        let [errors, refused] = [conduct.errors, conduct.refused].map(|share| Poisson::new(mean * share));
        Self { cell, conduct, errors, refused, answers }
    }

    fn is_candidate(&self) -> bool {
        self.cell != Cell::STABLE
    }
}

// === impl Traffic ===

impl Traffic {
    pub(super) fn new(seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, drawn_for: None, sides: Vec::new(), hanging: Vec::new(), latencies: Vec::new() }
    }

    /// What begins in the `ticks` that end with `now`, with the candidate's `share`.
    pub(super) fn draw(
        &mut self,
        weather: Weather,
        share: f64,
        ticks: u64,
        now: Tick,
        (indices, gate): (&Indices, &Gate),
    ) -> Counted {
        if self.drawn_for != Some((weather, share, ticks)) {
            let mean = weather.rps * ticks as f64 / TICKS_PER_SECOND as f64;
            self.sides = vec![
                Side::new(Cell::candidate(0), weather.candidate, mean * share),
                Side::new(Cell::STABLE, weather.stable, mean * (1.0 - share)),
            ];
            self.drawn_for = Some((weather, share, ticks));
        }
        let (mut counted, thresholds) = (Counted::default(), gate.thresholds());
        for side in &self.sides {
            let errors = side.errors.draw(&mut self.rng);
            let refused = side.refused.draw(&mut self.rng);
            let answers: Vec<u32> = side.answers.iter().map(|class| class.draw(&mut self.rng)).collect();
            let well: u32 = answers.iter().sum();
            let begun = errors + refused + well;
            for channel in [Channel::BEGUN, Channel::WRITTEN] {
                counted.exposures.push(Exposures { channel, cell: side.cell, count: begun });
            }
            if side.conduct.hangs {
                self.hanging.push((now, begun));
                counted.candidate[0] = begun;
                continue;
            }
            counted.event(indices.errors, side.cell, now, errors);
            counted.event(indices.refused, side.cell, now, refused);
            for series in &indices.slow {
                let slow = slower(&answers, side, thresholds, *series);
                counted.event(*series, side.cell, now, slow);
            }
            if side.is_candidate() {
                counted.candidate = [begun, errors, well];
                counted.succeeded[1] = well;
            } else {
                counted.succeeded[0] = well;
                let took = LATENCIES.iter().zip(&answers).filter(|(_, count)| **count > 0);
                self.latencies.extend(took.map(|((us, _), n)| (bucket_of((us * side.conduct.slow) as u64), *n)));
            }
        }
        for (began, requests) in self.hanging.iter().copied().filter(|(_, requests)| *requests > 0) {
            let cell = Cell::candidate(0);
            let flight = |series: &u8| InFlight { series: *series, cell, began, requests, sessions: requests };
            counted.in_flight.extend(indices.slow.iter().map(flight));
        }
        counted
    }
}

fn slower(answers: &[u32], side: &Side, thresholds: Thresholds, series: u8) -> u32 {
    let limit = thresholds.of(usize::from(series));
    let limit = if side.is_candidate() { limit.candidate_us } else { limit.stable_us };
    let above = |us: f64| (us * side.conduct.slow) as u64 > limit;
    LATENCIES.iter().zip(answers).filter(|((us, _), _)| above(*us)).map(|(_, count)| count).sum()
}

// === impl Counted ===

impl Counted {
    fn event(&mut self, series: u8, cell: Cell, began: Tick, requests: u32) {
        if requests > 0 {
            self.events.push(Events { series, cell, began, requests, sessions: requests });
        }
    }
}

/// Ten minutes of stable under `weather`, without noise.
pub(super) fn past(layout: &Layout, weather: Weather) -> History {
    let (mut history, indices) = (History::new(layout), Indices::of(layout));
    // Ten seconds at a time: only sums of them count.
    for part in 1..=60_u64 {
        let of = |rate: f64| ((rate * part as f64).floor() - (rate * (part - 1) as f64).floor()) as u64;
        let requests = weather.rps * 10.0;
        let mut events = vec![0; layout.series().len()];
        events[usize::from(indices.errors)] = of(requests * weather.stable.errors);
        events[usize::from(indices.refused)] = of(requests * weather.stable.refused);
        let latencies = LATENCIES.map(|(us, share)| {
            (bucket_of((us * weather.stable.slow) as u64), u32::try_from(of(requests * share)).expect("few"))
        });
        let exposed = of(requests);
        history.record(&Second {
            exposed: &vec![exposed; layout.channels()],
            events: &events,
            succeeded: exposed - events[usize::from(indices.errors)].min(exposed),
            latencies: &latencies,
        });
        for _ in 1..10 {
            history.record(&Second {
                exposed: &vec![0; layout.channels()],
                events: &vec![0; layout.series().len()],
                succeeded: 0,
                latencies: &[],
            });
        }
    }
    history
}
