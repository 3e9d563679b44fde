//! What stable did in the last ten minutes, kept for every service whether a rollout runs or not.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::latency::Window;
use super::layout::Layout;
use super::numeric::wilson;
use super::sketch::Sketch;

/// Slots of the history; with their length the ten minutes.
const SLOTS: usize = 60;
const SLOT_SECONDS: u32 = 10;
/// Seconds the history covers.
pub const HISTORY_SECONDS: u32 = 600;

/// Stable's recent past. Feed it once a second; a new version in the stable role begins with an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    current: Slot,
    /// Newest first.
    slots: VecDeque<Slot>,
    window: Window,
}

/// What stable did in a second: increments, every request counted.
#[derive(Clone, Copy, Debug)]
pub struct Second<'a> {
    /// Exposures per channel of the layout.
    pub exposed: &'a [u64],
    /// Events per series of the layout.
    pub events: &'a [u64],
    /// Requests that ended well.
    pub succeeded: u64,
    /// Latencies, as buckets of a sketch and counts.
    pub latencies: &'a [(u16, u32)],
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    seconds: u32,
    exposed: Vec<u64>,
    events: Vec<u64>,
    succeeded: u64,
}

/// The history as it stood when a rollout began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Baseline {
    exposed: Vec<u64>,
    events: Vec<u64>,
    pub(super) succeeded: u64,
    pub(super) seconds: u32,
    pub(super) latencies: Sketch,
}

// === impl Slot ===

impl Slot {
    fn new(layout: &Layout) -> Self {
        Self { exposed: vec![0; layout.channels()], events: vec![0; layout.series().len()], ..Self::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.succeeded += other.succeeded;
        self.exposed.iter_mut().zip(&other.exposed).for_each(|(a, b)| *a += b);
        self.events.iter_mut().zip(&other.events).for_each(|(a, b)| *a += b);
    }
}

// === impl History ===

impl History {
    /// An empty one. Other metrics need another one.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { current: Slot::new(layout), slots: VecDeque::new(), window: Window::default() }
    }

    /// Adds a second.
    pub fn record(&mut self, second: &Second<'_>) {
        let slot = &mut self.current;
        slot.seconds += 1;
        slot.succeeded += second.succeeded;
        slot.exposed.iter_mut().zip(second.exposed).for_each(|(a, b)| *a += b);
        slot.events.iter_mut().zip(second.events).for_each(|(a, b)| *a += b);
        self.window.add(second.latencies, 1);
        if slot.seconds >= SLOT_SECONDS {
            let empty =
                Slot { exposed: vec![0; slot.exposed.len()], events: vec![0; slot.events.len()], ..Slot::default() };
            self.slots.push_front(std::mem::replace(slot, empty));
            self.slots.truncate(SLOTS);
        }
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Whether it is of a gate with this layout.
    #[must_use]
    pub fn fits(&self, layout: &Layout) -> bool {
        let (channels, series) = (layout.channels(), layout.series().len());
        let fits = |slot: &Slot| slot.exposed.len() == channels && slot.events.len() == series;
        fits(&self.current) && self.slots.iter().all(fits)
    }

    pub(super) fn baseline(&self) -> Baseline {
        let mut sum = self.current.clone();
        self.slots.iter().for_each(|slot| sum.merge(slot));
        let Slot { seconds, exposed, events, succeeded } = sum;
        Baseline { exposed, events, succeeded, seconds, latencies: self.window.last(HISTORY_SECONDS) }
    }
}

// === impl Baseline ===

impl Baseline {
    /// Stable's events and exposures of a series.
    pub(super) fn counts(&self, layout: &Layout, series: usize) -> (u64, u64) {
        let channel = layout.series()[series].channel.index();
        let at = |counts: &[u64], i: usize| counts.get(i).copied().unwrap_or(0);
        (at(&self.events, series), at(&self.exposed, channel))
    }

    /// The highest rate of a series that stable's history makes plausible: 1 without any.
    pub(super) fn upper(&self, layout: &Layout, series: usize) -> f64 {
        let (events, exposed) = self.counts(layout, series);
        wilson(events, exposed).1
    }
}
