//! The requests of one simulated rollout: Poisson arrivals, thinned into answers, errors and refusals, with a latency each.
//!
//! A service that answers 0.1 % of its requests with 5xx and 1 % with 4xx, and half of them within 60 ms, 99 % within 0.3 s. So its p99 when
//! twice as slow is above the 500 ms of Flagger's example, and its errors when healthy are well below all thresholds.

use std::sync::LazyLock;

use super::super::poisson::Poisson;

/// Share of the requests that go to the candidate, and as many to a baseline of its size.
const SHARE: f64 = 0.05;
/// Errors of a healthy version.
pub(crate) const ERRORS: f64 = 0.001;
/// 4xx of any version.
const REFUSED: f64 = 0.01;
/// Latencies are log-normal: their median in microseconds and the standard deviation of their logarithm...
pub(crate) const MEDIAN_US: f64 = 60_000.0;
const SIGMA: f64 = 0.7;
/// ...in so many classes, each a point on a grid of so many standard deviations.
pub(crate) const CLASSES: usize = 16;
const GRID: f64 = 0.35;
const FIRST: f64 = -1.75;
/// How long errors and refusals take, in microseconds.
pub(crate) const FAST_US: u64 = 10_000;
/// In bursts: share of requests that are their errors, and how many one has on average.
const BURSTS: f64 = 0.004;
const BURST: f64 = 10.0;
/// Both variants in a shared outage.
const OUTAGE: f64 = 0.5;
/// Slow spells: how likely one begins in a slot of so many seconds, and the factor it has at most.
const SPELL_SECONDS: u64 = 10;
const SPELL: f64 = 0.02;
const SPELL_MAX: f64 = 5.0;

/// Ticks in a second, as the gate counts them.
pub(crate) const SECOND: u64 = 20;

static LATENCIES_US: LazyLock<[f64; CLASSES]> =
    LazyLock::new(|| std::array::from_fn(|class| MEDIAN_US * (SIGMA * (FIRST + GRID * class as f64)).exp()));

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Case {
    /// Both variants alike, always the same.
    Steady,
    /// Both alike; some errors come in bursts, each of one client.
    Bursty,
    /// Both alike; an hour of a day over which traffic, errors and latency rise and fall.
    Drift,
    /// Both alike; for one to ten minutes half of all requests fail.
    Outage,
    /// Both alike; spells in which both are up to five times as slow.
    Noisy,
    /// The candidate fails this share.
    Errors(f64),
    /// The candidate takes twice as long.
    Slow,
    /// The candidate never answers.
    Hang,
}

/// What the requests of one variant's share became that began in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Answered 5xx...
    pub(crate) errors: u32,
    /// ...of so many clients.
    pub(crate) clients: u32,
    /// Answered 4xx.
    pub(crate) refused: u32,
    /// Answered well, by class of latency.
    pub(crate) classes: [u32; CLASSES],
    /// Not answered.
    pub(crate) hung: u32,
}

/// Some ticks of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Step {
    pub(crate) candidate: Counts,
    /// As many requests of stable as the candidate gets.
    pub(crate) baseline: Counts,
    /// The rest of stable.
    pub(crate) rest: Counts,
    /// What the latencies of classes are multiplied with: the candidate's and stable's.
    pub(crate) factors: [f64; 2],
}

/// The source of the requests of one rollout.
pub(crate) struct Traffic {
    case: Case,
    rate: f64,
    rng: fastrand::Rng,
    /// When the outage is, in seconds.
    outage: [f64; 2],
    /// The hour of the day it begins at.
    hour: f64,
    /// What slow spells make of latencies, per slot.
    spells: Vec<f64>,
    drawn_for: Option<(Level, u64)>,
    /// Candidate, baseline, rest.
    tables: [Tables; 3],
}

/// What holds at a moment for both variants, but for the candidate's fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Of the usual rate.
    traffic: f64,
    /// Share of errors.
    errors: f64,
    /// Share of requests that are errors in bursts.
    bursts: f64,
    /// Of the usual latency.
    slow: f64,
}

#[derive(Clone, Debug)]
struct Tables {
    errors: Poisson,
    bursts: Poisson,
    refused: Poisson,
    classes: [Poisson; CLASSES],
    hung: Poisson,
}

// === impl Case ===

impl Case {
    pub(crate) const ALL: [Self; 12] = [
        Self::Steady,
        Self::Bursty,
        Self::Drift,
        Self::Outage,
        Self::Noisy,
        Self::Errors(1.0),
        Self::Errors(0.5),
        Self::Errors(0.1),
        Self::Errors(0.05),
        Self::Errors(0.01),
        Self::Slow,
        Self::Hang,
    ];

    pub(crate) fn is_healthy(self) -> bool {
        !matches!(self, Self::Errors(_) | Self::Slow | Self::Hang)
    }

    /// For tables.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Steady => "steady".into(),
            Self::Bursty => "bursts of errors".into(),
            Self::Drift => "daily drift".into(),
            Self::Outage => "shared outage".into(),
            Self::Noisy => "noisy latency".into(),
            Self::Errors(share) => format!("{:.0} % errors", share * 100.0),
            Self::Slow => "+100 % latency".into(),
            Self::Hang => "hang".into(),
        }
    }
}

// === impl Counts ===

impl Counts {
    pub(crate) fn requests(&self) -> u32 {
        self.errors + self.refused + self.hung + self.answered()
    }

    pub(crate) fn answered(&self) -> u32 {
        self.classes.iter().sum()
    }
}

// === impl Step ===

impl Step {
    /// Everything stable got.
    pub(crate) fn stable(&self) -> Counts {
        let (a, b) = (&self.baseline, &self.rest);
        Counts {
            errors: a.errors + b.errors,
            clients: a.clients + b.clients,
            refused: a.refused + b.refused,
            classes: std::array::from_fn(|i| a.classes[i] + b.classes[i]),
            hung: a.hung + b.hung,
        }
    }
}

// === impl Traffic ===

impl Traffic {
    pub(crate) fn new(case: Case, rate: f64, seconds: u64, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let begin = seconds as f64 * (0.1 + 0.6 * rng.f64());
        let outage = [begin, begin + 60.0 + 540.0 * rng.f64()];
        let hour = 24.0 * rng.f64();
        let (mut spells, mut left, mut factor) = (Vec::new(), 0, 1.0);
        for _ in 0..seconds.div_ceil(SPELL_SECONDS) {
            if left == 0 {
                let begins = rng.f64() < SPELL;
                left = if begins { rng.u32(1..=6) } else { 1 };
                factor = if begins { 1.0 + (SPELL_MAX - 1.0) * rng.f64() } else { 1.0 };
            }
            spells.push(factor);
            left -= 1;
        }
        let none = || Poisson::new(0.0);
        let tables = std::array::from_fn(|_| Tables {
            errors: none(),
            bursts: none(),
            refused: none(),
            classes: std::array::from_fn(|_| none()),
            hung: none(),
        });
        Self { case, rate, rng, outage, hour, spells, drawn_for: None, tables }
    }

    /// What stable does at `at` seconds.
    pub(crate) fn level(&self, at: u64) -> Level {
        let usual = Level { traffic: 1.0, errors: ERRORS, bursts: 0.0, slow: 1.0 };
        let seconds = at as f64;
        match self.case {
            Case::Bursty => Level { bursts: BURSTS, ..usual },
            Case::Drift => {
                let minute = (seconds / 60.0).floor();
                let height = 0.5 + 0.5 * ((self.hour + minute / 60.0) / 24.0 * std::f64::consts::TAU).sin();
                Level {
                    traffic: 0.4 + 1.2 * height,
                    errors: ERRORS + 0.006 * height,
                    bursts: 0.0,
                    slow: 1.0 + 0.3 * height,
                }
            }
            Case::Outage if (self.outage[0]..self.outage[1]).contains(&seconds) => Level { errors: OUTAGE, ..usual },
            Case::Noisy => {
                let slot = (at / SPELL_SECONDS) as usize;
                Level { slow: self.spells.get(slot).copied().unwrap_or(1.0), ..usual }
            }
            _ => usual,
        }
    }

    /// Stable's requests per second at `at`, per class of latency, and what it adds up to.
    pub(crate) fn stable_per_second(&self, at: u64) -> ([f64; CLASSES], Level, f64) {
        let level = self.level(at);
        let requests = self.rate * level.traffic * (1.0 - SHARE);
        let well = requests * (1.0 - level.errors - level.bursts - REFUSED);
        (std::array::from_fn(|class| well * share_of(class)), level, requests)
    }

    /// The requests of `ticks` ticks from tick `at` on; they lie in one second, or begin with one.
    pub(crate) fn step(&mut self, at: u64, ticks: u64) -> Step {
        let level = self.level(at / SECOND);
        if self.drawn_for != Some((level, ticks)) {
            self.prepare(level, ticks);
            self.drawn_for = Some((level, ticks));
        }
        let [candidate, baseline, rest] = std::array::from_fn(|i| self.tables[i].draw(&mut self.rng));
        let doubled = if self.case == Case::Slow { 2.0 } else { 1.0 };
        Step { candidate, baseline, rest, factors: [level.slow * doubled, level.slow] }
    }

    fn prepare(&mut self, level: Level, ticks: u64) {
        let all = self.rate * level.traffic * ticks as f64 / SECOND as f64;
        let stable = |mean| Tables::new(mean, level.errors, level.bursts);
        let candidate = match self.case {
            Case::Errors(share) => Tables::new(all * SHARE, share, level.bursts),
            Case::Hang => Tables { hung: Poisson::new(all * SHARE), ..Tables::new(0.0, 0.0, 0.0) },
            _ => stable(all * SHARE),
        };
        self.tables = [candidate, stable(all * SHARE), stable(all * (1.0 - 2.0 * SHARE))];
    }
}

// === impl Level ===

impl Level {
    pub(crate) fn errors(&self) -> f64 {
        self.errors + self.bursts
    }

    pub(crate) fn slow(&self) -> f64 {
        self.slow
    }
}

// === impl Tables ===

impl Tables {
    fn new(requests: f64, errors: f64, bursts: f64) -> Self {
        let refused = REFUSED * (1.0 - errors);
        let well = requests * (1.0 - errors - bursts - refused).max(0.0);
        Self {
            errors: Poisson::new(requests * errors),
            bursts: Poisson::new(requests * bursts / BURST),
            refused: Poisson::new(requests * refused),
            classes: std::array::from_fn(|class| Poisson::new(well * share_of(class))),
            hung: Poisson::new(0.0),
        }
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> Counts {
        let single = self.errors.draw(rng);
        let bursts = self.bursts.draw(rng);
        // Geometric sizes, at least one.
        let sizes = (0..bursts).map(|_| 1 + ((1.0 - rng.f64()).ln() / (1.0 - 1.0 / BURST).ln()) as u32);
        let errors = single + sizes.sum::<u32>();
        Counts {
            errors,
            clients: single + bursts,
            refused: self.refused.draw(rng),
            classes: std::array::from_fn(|class| self.classes[class].draw(rng)),
            hung: self.hung.draw(rng),
        }
    }
}

/// The latency of a class, in microseconds.
pub(crate) fn latency_us(class: usize) -> f64 {
    LATENCIES_US[class]
}

/// The share of answers in a class.
pub(crate) fn share_of(class: usize) -> f64 {
    let middle = FIRST + GRID * class as f64;
    let low = if class == 0 { 0.0 } else { normal(middle - GRID / 2.0) };
    let high = if class + 1 == CLASSES { 1.0 } else { normal(middle + GRID / 2.0) };
    high - low
}

/// The distribution function of the standard normal distribution, by Simpson's rule.
pub(crate) fn normal(z: f64) -> f64 {
    const STEPS: u32 = 200;
    let width = z / f64::from(STEPS);
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let inner: f64 = (1..STEPS).map(|n| f64::from(2 + n % 2 * 2) * density(f64::from(n) * width)).sum();
    0.5 + width / 3.0 * (density(0.0) + inner + density(z))
}
