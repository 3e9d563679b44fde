//! One rollout, watched by all judges at once.

use std::collections::VecDeque;

use super::judges::{JUDGES, Kind};
use super::kayenta::{Kayenta, classify, fails};
use super::own::Own;
use super::polling::{Checks, Found, Polling};
use super::traffic::{CLASSES, Case, Counts, FAST_US, SECOND, Step, Traffic, latency_us};

/// Seconds between two scrapes of the metrics database; every interval and window of a judge is a multiple.
const SCRAPE: u64 = 5;
/// Requests without an answer end after this, in ticks: Envoy's default of 15 s for a route.
const TIMEOUT: u64 = 15 * SECOND;
/// Ticks are simulated one by one so long...
const FINE: u64 = 30 * SECOND;
/// ...then so many at once while the gate has not decided, and a whole second up to so many requests per second.
const COARSE: u64 = 10;
const RARE: f64 = 100.0;
/// A latency a histogram puts above the limit of a polled p99, in microseconds.
const SLOW_US: f64 = 500_000.0;

/// What became of a rollout under one judge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ended {
    /// Seconds until it was taken back.
    pub(crate) at: Option<f64>,
    /// The candidate's requests that failed or hung until then, or until the end.
    pub(crate) failed: u32,
}

/// What a metrics database counts of one variant.
#[derive(Clone, Copy, Debug, Default)]
struct Counter {
    requests: u64,
    errors: u64,
    slow: u64,
    latency_ms: f64,
}

/// What it counted at each scrape, the first at the beginning: the candidate and its baseline.
struct Database {
    now: [Counter; 2],
    scrapes: Vec<[Counter; 2]>,
}

/// A rollout on its way.
struct Rollout {
    own: Option<Own>,
    database: Database,
    /// Those of judges that poll.
    checks: [Checks; JUDGES.len()],
    ended: [Option<Ended>; JUDGES.len()],
    failed: u32,
    /// Hung requests of the candidate, by the tick they began in.
    waiting: VecDeque<(u64, u32)>,
}

/// Simulates one, for `seconds`, and says what each judge did.
pub(crate) fn run(case: Case, rate: f64, seconds: u64, seed: u64) -> [Ended; JUDGES.len()] {
    let mut traffic = Traffic::new(case, rate, seconds, seed);
    let mut rollout = Rollout::new(&traffic);
    let mut at = 0;
    while at < seconds * SECOND && rollout.ended.contains(&None) {
        let ticks = rollout.stride(case, rate, at);
        let step = traffic.step(at, ticks);
        at += ticks;
        rollout.take(at, &step);
        if at.is_multiple_of(SCRAPE * SECOND) {
            rollout.scrape(at / SECOND);
        }
    }
    let open = Ended { at: None, failed: rollout.failed };
    rollout.ended.map(|ended| ended.unwrap_or(open))
}

// === impl Rollout ===

impl Rollout {
    fn new(traffic: &Traffic) -> Self {
        let database = Database { now: Default::default(), scrapes: vec![Default::default()] };
        Self {
            own: Some(Own::new(traffic)),
            database,
            checks: [Checks::default(); JUDGES.len()],
            ended: [None; JUDGES.len()],
            failed: 0,
            waiting: VecDeque::new(),
        }
    }

    /// How many ticks to draw at once: as few as whoever has not decided can tell apart.
    fn stride(&self, case: Case, rate: f64, at: u64) -> u64 {
        match () {
            () if self.own.is_none() && at.is_multiple_of(SCRAPE * SECOND) => SCRAPE * SECOND,
            () if self.own.is_some() && !case.is_healthy() && at < FINE => 1,
            () if rate <= RARE && at.is_multiple_of(SECOND) => SECOND,
            () if at.is_multiple_of(COARSE) => COARSE,
            () => 1,
        }
    }

    /// Takes the requests that began before tick `at`, the end of the step.
    fn take(&mut self, at: u64, step: &Step) {
        self.failed += step.candidate.errors + step.candidate.hung;
        if step.candidate.hung > 0 {
            self.waiting.push_back((at - 1, step.candidate.hung));
        }
        let due = self.waiting.partition_point(|(began, _)| began + TIMEOUT < at);
        let over: Vec<(u64, u32)> = self.waiting.drain(..due).collect();
        let timed_out: u32 = over.iter().map(|(_, count)| count).sum();
        let [candidate, baseline] = &mut self.database.now;
        candidate.add(&step.candidate, step.factors[0], timed_out);
        baseline.add(&step.baseline, step.factors[1], 0);
        if let Some(own) = &mut self.own
            && own.feed(at - 1, step, &over, self.waiting.make_contiguous())
        {
            self.own = None;
            let gate = JUDGES.iter().position(|judge| matches!(judge.kind, Kind::Gate));
            self.end(gate.expect("the gate is one of them"), at as f64 / SECOND as f64);
        }
    }

    /// The metrics database scrapes at `second`, and whose interval is over looks at it.
    fn scrape(&mut self, second: u64) {
        self.database.scrapes.push(self.database.now);
        for (index, judge) in JUDGES.iter().enumerate() {
            if self.ended[index].is_some() {
                continue;
            }
            let fails = match judge.kind {
                Kind::Polling(polling) if second.is_multiple_of(polling.interval) => {
                    self.checks[index].add(&polling, self.database.found(&polling))
                }
                Kind::Kayenta(kayenta) if second.is_multiple_of(kayenta.interval) => self.database.condemned(&kayenta),
                _ => false,
            };
            if fails {
                self.end(index, second as f64);
            }
        }
    }

    fn end(&mut self, judge: usize, at: f64) {
        self.ended[judge] = Some(Ended { at: Some(at), failed: self.failed });
    }
}

// === impl Database ===

impl Database {
    /// The candidate in the window of `polling`.
    fn found(&self, polling: &Polling) -> Found {
        let back = (polling.window / SCRAPE) as usize;
        let now = self.scrapes[self.scrapes.len() - 1][0];
        let then = self.scrapes[(self.scrapes.len() - 1).saturating_sub(back)][0];
        Found { requests: now.requests - then.requests, errors: now.errors - then.errors, slow: now.slow - then.slow }
    }

    /// Whether Kayenta's judgement of everything so far is against the candidate: share of errors, and mean latency.
    fn condemned(&self, kayenta: &Kayenta) -> bool {
        let step = (kayenta.step / SCRAPE) as usize;
        let series = |side: usize, of: fn(Counter, Counter) -> f64| -> Vec<f64> {
            let points: Vec<Counter> = self.scrapes.iter().step_by(step).map(|scrape| scrape[side]).collect();
            points.windows(2).map(|pair| of(pair[1], pair[0])).collect()
        };
        // Without requests both are NaN.
        let errors = |now: Counter, then: Counter| {
            (now.errors - then.errors) as f64 / (now.requests - then.requests) as f64 * 100.0
        };
        let latency =
            |now: Counter, then: Counter| (now.latency_ms - then.latency_ms) / (now.requests - then.requests) as f64;
        let classes =
            [errors as fn(Counter, Counter) -> f64, latency].map(|of| classify(&series(0, of), &series(1, of)));
        fails(&classes)
    }
}

// === impl Counter ===

impl Counter {
    /// Adds requests that ended, `timed_out` of them without an answer.
    fn add(&mut self, counts: &Counts, factor: f64, timed_out: u32) {
        let fast = counts.errors + counts.refused;
        self.requests += u64::from(counts.answered() + fast + timed_out);
        self.errors += u64::from(counts.errors + timed_out);
        self.slow += u64::from(timed_out);
        self.latency_ms += f64::from(fast) * FAST_US as f64 / 1_000.0;
        self.latency_ms += f64::from(timed_out) * (TIMEOUT / SECOND) as f64 * 1_000.0;
        for class in 0..CLASSES {
            let (us, count) = (latency_us(class) * factor, counts.classes[class]);
            self.slow += if us > SLOW_US { u64::from(count) } else { 0 };
            self.latency_ms += us / 1_000.0 * f64::from(count);
        }
    }
}
