//! Everything the gate remembers of one rollout: plain data, to be persisted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::blocks::Ring;
use super::compare::Tests;
use super::config::{GateConfig, Unit};
use super::hang::Ahead;
use super::history::{Baseline, History};
use super::input::{TICKS_PER_SECOND, Tick};
use super::latency::{Estimate, Past, Thresholds, Window};
use super::layout::Layout;
use super::rules::{Breach, Sample, Watched};
use super::sample_ratio::SampleRatio;
use super::step::StepFacts;
use super::watch::{Degraded, Trial, Watch};

/// Version of [`State`]; another one is not restored.
pub const STATE_VERSION: u32 = 1;

/// What a gate remembers. Exact in any serde format: what is a float is kept as its bits. Ticks count from the rollout's beginning,
/// so a process that restarts with another clock goes on where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub(super) version: u32,
    /// Of the first tick, within its second.
    pub(super) phase: Tick,
    /// The tick seen last; none before the first.
    pub(super) now: Option<Tick>,
    pub(super) weight: u16,
    pub(super) next_restart: Tick,
    pub(super) tests: Tests,
    pub(super) rings: Vec<Ring>,
    pub(super) past: Past,
    pub(super) estimates: Vec<Option<Estimate>>,
    pub(super) window: Window,
    pub(super) window_at: Tick,
    pub(super) baseline: Baseline,
    pub(super) ahead: Ahead,
    pub(super) totals: Totals,
    pub(super) endpoints: BTreeMap<u16, EndpointTotals>,
    pub(super) warm_at: Tick,
    pub(super) step: Step,
    pub(super) degraded: Degraded,
    pub(super) alone: Option<Watch>,
    pub(super) trial: Trial,
    pub(super) sample_ratio: SampleRatio,
    pub(super) rules: Vec<Watched>,
    pub(super) breaches: Vec<Option<Breach>>,
    pub(super) second: Second,
    pub(super) failed_at: Option<Tick>,
    pub(super) flag: Option<Flag>,
    pub(super) unscored: u64,
}

/// Counts since the rollout began: candidate first, stable second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Per channel.
    pub(super) exposed: Vec<[u64; 2]>,
    /// Per series, in the unit in force when they became known.
    pub(super) events: Vec<[u64; 2]>,
}

/// Counts of one candidate endpoint since the rollout began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointTotals {
    pub(super) exposed: Vec<u64>,
    pub(super) events: Vec<u64>,
    /// When it was last seen to do something wrong.
    pub(super) bad_at: Tick,
}

/// The step the rollout is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) number: u32,
    pub(super) since: Tick,
    pub(super) facts: StepFacts,
    pub(super) unit: Unit,
}

/// What threshold rules are given once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Second {
    pub(super) number: Tick,
    pub(super) ticks: u64,
    /// As in [`Sample`]: stable first, candidate second, per channel and per series.
    pub(super) exposed: Vec<[u64; 2]>,
    pub(super) events: Vec<[u64; 2]>,
    pub(super) rest: Sample,
}

/// The endpoint that carries the case against the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flag {
    pub(super) endpoint: u16,
    pub(super) since: Tick,
}

/// Why a state is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadState {
    /// It was written by another version of this program.
    Version(u32),
    /// It is of a gate with other metrics.
    OtherMetrics,
}

// === impl State ===

impl State {
    pub(super) fn new(config: &GateConfig, layout: &Layout, history: &History, first: Tick) -> Self {
        let series = layout.series().len();
        let baseline = history.baseline();
        let estimates = estimates(layout, history.window());
        let thresholds = Thresholds::new(config, layout, &estimates, false);
        let rules = config.metrics.len();
        Self {
            version: STATE_VERSION,
            phase: first % TICKS_PER_SECOND,
            now: None,
            weight: 0,
            next_restart: super::RESTART_TICKS,
            tests: Tests::new(layout),
            rings: vec![Ring::new(series); layout.channels()],
            past: Past::new(thresholds),
            estimates,
            window: history.window().clone(),
            window_at: 0,
            degraded: Degraded::new(config, layout, &baseline),
            baseline,
            ahead: Ahead::default(),
            totals: Totals { exposed: vec![[0; 2]; layout.channels()], events: vec![[0; 2]; series] },
            endpoints: BTreeMap::new(),
            warm_at: 0,
            step: Step { number: 0, since: 0, facts: StepFacts::default(), unit: config.unit },
            alone: None,
            trial: Trial::default(),
            sample_ratio: SampleRatio::new(),
            rules: vec![Watched::default(); rules],
            breaches: vec![None; rules],
            second: Second::new(layout, 0),
            failed_at: None,
            flag: None,
            unscored: 0,
        }
    }

    pub(super) fn check(&self, config: &GateConfig, layout: &Layout) -> Result<(), BadState> {
        if self.version != STATE_VERSION {
            return Err(BadState::Version(self.version));
        }
        let (channels, series, metrics) = (layout.channels(), layout.series().len(), config.metrics.len());
        let of_endpoint = |totals: &EndpointTotals| totals.exposed.len() == channels && totals.events.len() == series;
        let fits = self.tests.fits(layout)
            && self.rings.len() == channels
            && (self.totals.exposed.len(), self.totals.events.len()) == (channels, series)
            && (self.second.exposed.len(), self.second.events.len()) == (channels, series)
            && self.endpoints.values().all(of_endpoint)
            && self.estimates.len() == series
            && (self.rules.len(), self.breaches.len()) == (metrics, metrics);
        if fits { Ok(()) } else { Err(BadState::OtherMetrics) }
    }

    /// The tick seen last, in ticks since the rollout began.
    pub(super) fn seen(&self) -> Tick {
        self.now.unwrap_or(0)
    }
}

/// Stable's quantiles per series; none for what is no latency.
pub(super) fn estimates(layout: &Layout, window: &Window) -> Vec<Option<Estimate>> {
    let of = |series: &super::layout::Series| match series.event {
        super::layout::Event::Slower(q) => window.estimate(q),
        _ => None,
    };
    layout.series().iter().map(of).collect()
}

// === impl Second ===

impl Second {
    pub(super) fn new(layout: &Layout, number: Tick) -> Self {
        Self {
            number,
            ticks: 0,
            exposed: vec![[0; 2]; layout.channels()],
            events: vec![[0; 2]; layout.series().len()],
            rest: Sample::default(),
        }
    }
}

// === impl BadState ===

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(found) => {
                write!(f, "evidence of version {found}, this program reads version {STATE_VERSION}")
            }
            Self::OtherMetrics => f.write_str("evidence of other metrics than the rollout's plan has"),
        }
    }
}

impl std::error::Error for BadState {}
