//! What the control loop hands the gate every tick.
//!
//! # What to count
//!
//! [`Layout::series`](super::Layout::series) says which events exist, [`Layout::channels`](super::Layout::channels) on how many channels
//! exposures are counted. Every number is an increment since the tick before, except [`InFlight`], which is a level. Increments of several
//! workers, and of several proxies, are simply listed one after the other or added up; [`Ledger`](super::ledger::Ledger) makes increments of
//! cumulative counters. With several proxies `now` lags as far behind as the slowest report does.
//!
//! Exposures count when they happen: [`Channel::BEGUN`] when an attempt begins, [`Channel::WRITTEN`] when its request is fully written. An
//! event carries the tick its exposure was counted in, so that it is scored with the exposures beside it, however late it comes.
//!
//! A reader takes events first and levels in flight second, a worker lowers the level first and counts the event second: then a
//! request is seen late at worst, never twice.

use serde::{Deserialize, Serialize};

use super::layout::Channel;
use crate::core::weight::Weight;

/// Numbers ticks of [`TICK_US`] since any beginning; one per service, never decreasing.
pub type Tick = u64;
/// Length of a tick, in microseconds.
pub const TICK_US: u64 = 50_000;
/// Ticks in a second.
pub const TICKS_PER_SECOND: u64 = 20;

/// Who was exposed: stable, or an endpoint of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell(u16);

/// Exposures during the tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposures {
    /// Of what.
    pub channel: Channel,
    /// Of whom.
    pub cell: Cell,
    /// How many more.
    pub count: u32,
}

/// Events that became known during the tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Index into [`Layout::series`](super::Layout::series).
    pub series: u8,
    /// Whose.
    pub cell: Cell,
    /// The tick in which their exposure was counted.
    pub began: Tick,
    /// How many more, each request counted.
    pub requests: u32,
    /// How many of them were the first of their session in this step and series. A request without a session is one of its own.
    pub sessions: u32,
}

/// Requests whose latency is being taken and that are waiting for a response head now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Index of a latency series.
    pub series: u8,
    /// On whom.
    pub cell: Cell,
    /// The tick they were fully written in. [`FINE_TICKS`](super::slots::FINE_TICKS) after the end of their second it may be the first
    /// tick of it.
    pub began: Tick,
    /// How many, each request counted.
    pub requests: u32,
    /// How many, leaving out those whose session has an event of the series in this step or another request counted here.
    pub sessions: u32,
}

/// Latencies taken since the last time they were handed in, as buckets of [`Sketch`](super::sketch::Sketch) and counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latencies<'a> {
    /// Of stable.
    pub stable: &'a [(u16, u32)],
    /// Of the candidate; only read by threshold rules.
    pub candidate: &'a [(u16, u32)],
}

/// One tick of one service.
#[derive(Clone, Copy, Debug)]
pub struct TickInput<'a> {
    /// The last complete tick. Ticks in which nothing happened may be left out.
    pub now: Tick,
    /// The candidate's weight during the tick.
    pub weight: Weight,
    /// Counts the steps of the rollout: a change begins low-traffic figures and sessions anew.
    pub step: u32,
    /// How long the current step is held, in ticks: what has to stay clear that long resumes.
    pub hold: u32,
    /// Endpoints in the candidate's pool, ready or not: from three on no single one can condemn the version.
    pub pool: u16,
    /// Exposures during the tick.
    pub exposures: &'a [Exposures],
    /// Events that became known during the tick.
    pub events: &'a [Events],
    /// What is in flight at its end.
    pub in_flight: &'a [InFlight],
    /// Requests that ended well on stable and on the candidate.
    pub succeeded: [u32; 2],
    /// Distinct candidate sessions seen since the step began.
    pub sessions: u32,
    /// Keys drawn for the first time in this rollout: how many, and how many of them went to the candidate. Forced, sticky and fallback
    /// assignments are no draws.
    pub draws: Draws,
    /// Latencies; to be handed in once a second.
    pub latencies: Latencies<'a>,
    /// A source of a metric failed: a query without an answer. Never harm, never passed.
    pub failed: bool,
}

/// First draws of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draws {
    /// All.
    pub keys: u32,
    /// Those that fell to the candidate.
    pub candidate: u32,
}

// === impl Cell ===

impl Cell {
    /// The stable pool.
    pub const STABLE: Self = Self(0);

    /// An endpoint of the candidate, by the index control gave it when it first joined the rollout.
    #[must_use]
    pub const fn candidate(index: u16) -> Self {
        Self(index.saturating_add(1))
    }

    /// The index of a candidate endpoint.
    #[must_use]
    pub const fn endpoint(self) -> Option<u16> {
        self.0.checked_sub(1)
    }
}

// === impl TickInput ===

impl TickInput<'_> {
    /// A tick in which nothing happened.
    #[must_use]
    pub fn quiet(now: Tick, weight: Weight) -> Self {
        Self {
            now,
            weight,
            step: 0,
            hold: 0,
            pool: 1,
            exposures: &[],
            events: &[],
            in_flight: &[],
            succeeded: [0; 2],
            sessions: 0,
            draws: Draws::default(),
            latencies: Latencies::default(),
            failed: false,
        }
    }
}
