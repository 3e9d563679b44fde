//! The gate: deciding from live requests whether the candidate is harmful.
//!
//! Integers in, verdict out: no clock, no I/O, no randomness. It is a sequential test: it may look after every request and still keeps one
//! promise, **the probability of a false rollback over a whole rollout, all metrics and all looks, is at most `alpha`**.
//!
//! # How to use it
//!
//! ```text
//! workers                              control, every 50 ms                          this module
//! count exposures and events    ->     sum workers (and proxies: Ledger), subtract -> Gate::tick(&TickInput) -> Verdict
//! compare latencies with               publish when it changed                     <- Gate::thresholds()
//! Thresholds, ask Sessions             persist                                     <- Gate::state(), Gate::restore
//! at a session's event                 answer, notify, audit                       <- Gate::report()
//!                                      every second, rollout or not                -> History::record
//! ```
//!
//! [`input`] says what to count and how; [`Layout`] names the counters; [`slots`] says where a worker keeps what belongs to a tick.
//! A verdict is a set of levels; [`step::step_end`] decides whether a step is over.
//!
//! # Why it is right
//!
//! Every test multiplies likelihood ratios whose expectation is at most one while the candidate is as good as allowed
//! ([`family`]), mixes them over alternatives and over moments at which harm may have begun ([`evidence`]), and the metrics among
//! themselves. Such a product reaches `1/alpha` with probability at most `alpha`, however often one looks (Ville 1939).

mod blocks;
mod compare;
pub mod config;
pub mod evidence;
pub mod family;
mod hang;
pub mod history;
pub mod input;
pub mod latency;
pub mod layout;
pub mod ledger;
pub mod numeric;
pub mod report;
pub mod rules;
pub mod sample_ratio;
mod second;
mod sequence;
pub mod sessions;
pub mod sketch;
pub mod slots;
mod state;
pub mod step;
mod tick;
pub mod verdict;
mod watch;

#[cfg(test)]
mod tests;

pub use blocks::REACH_MAX;
pub use config::{BadConfig, GateConfig, Measure, Method, Metric, Unit};
pub use history::History;
pub use input::{Cell, Draws, Events, Exposures, InFlight, Latencies, TICK_US, Tick, TickInput};
pub use latency::{Limit, Thresholds};
pub use layout::{Channel, Event, Layout, Series};
pub use report::Report;
pub use sequence::GROUPS_MAX;
pub use state::{BadState, STATE_VERSION, State};
pub use step::StepFacts;
pub use verdict::{Outcome, Paused, Reason, Verdict};
pub use watch::{TRIAL_GRAINS, TRIAL_TICKS};

/// Harm may begin at any time: the evidence begins anew every so many ticks (10 s), beside what it has.
const RESTART_TICKS: Tick = 200;
/// After an increase of the weight to twice or more, latencies are compared with ten times their thresholds for so many ticks (10 s).
const WARMUP_INCREASE_TICKS: Tick = 200;
/// A step with fewer distinct candidate sessions counts requests...
const SESSIONS_MIN: u32 = 20;
/// ...from so many ticks on (10 s): a step whose sessions are only just arriving is not one with few sessions.
const FALLBACK_TICKS: Tick = 200;
/// How long a flagged endpoint may go on failing before the rollout stands still, in ticks (30 s).
const FLAG_TICKS: Tick = 600;
/// Candidate endpoints whose totals are kept apart; further ones share them.
const ENDPOINTS_MAX: u16 = 256;
/// From this size of the pool on no single endpoint can condemn the version.
const POOL_MIN: u16 = 3;
/// Requests of the step below which nothing is called clean.
const CLEAN_MIN: u64 = 50;
/// Evidence in nats above which nothing is called clean: ten to one.
const DOUBT: f64 = std::f64::consts::LN_10;

/// The gate of one rollout of one service.
#[derive(Clone, Debug)]
pub struct Gate {
    config: GateConfig,
    layout: Layout,
    /// The tick of its own tick zero.
    epoch: Tick,
    state: State,
}

// === impl Gate ===

impl Gate {
    /// A gate for a rollout that begins now. `first` is the first tick it will be given: what began before is not scored. `history` is what
    /// stable did before; of other metrics it counts as empty.
    ///
    /// # Errors
    /// What is out of range in `config`.
    pub fn new(config: GateConfig, history: &History, first: Tick) -> Result<Self, BadConfig> {
        config.check()?;
        let layout = Layout::new(&config);
        let empty = History::new(&layout);
        let history = if history.fits(&layout) { history } else { &empty };
        let state = State::new(&config, &layout, history, first);
        Ok(Self { config, layout, epoch: first, state })
    }

    /// A gate that goes on from `state`, with the plan's pinned `config`. `next` is the next tick it will be given, by any clock: no time has
    /// passed for it, and what began before `next` and was not reported is not scored. Given the tick that would have come next, it is the
    /// same gate.
    ///
    /// # Errors
    /// [`BadState`] if the state is not of such a gate; treat it as lost evidence, begin anew, say so.
    pub fn restore(config: GateConfig, mut state: State, next: Tick) -> Result<Self, BadState> {
        let layout = Layout::new(&config);
        state.check(&config, &layout)?;
        let own = state.now.map_or(0, |now| now + 1);
        // Ticks are counted modulo 2^64: the clock may be younger than the rollout.
        let epoch = next.wrapping_sub(own);
        let second = input::TICKS_PER_SECOND;
        state.phase = (next % second + second - own % second) % second;
        Ok(Self { config, layout, epoch, state })
    }

    /// What it remembers; exact: a gate restored from it goes on as this one would.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What it was configured with.
    #[must_use]
    pub fn config(&self) -> &GateConfig {
        &self.config
    }

    /// What is counted.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What latencies are to be compared with from now on; compare it with what was published last.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        self.state.past.current()
    }

    /// What the candidate did in the current step.
    #[must_use]
    pub fn step(&self) -> StepFacts {
        self.state.step.facts
    }

    /// What it has seen and concluded, unabridged.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::new(self)
    }

    /// Evidence of harm, all metrics together, in nats.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.state.tests.log_e(sequence::View::Full)
    }

    /// The bound of the evidence, in nats.
    #[must_use]
    pub fn bound(&self) -> f64 {
        -self.config.alpha.ln()
    }
}
