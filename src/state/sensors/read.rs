//! Increments of what workers counted, as the gate takes them.

use std::sync::atomic::{Ordering, fence};

use crate::core::gate::slots::{SLOTS, newest, tick_of};
use crate::core::gate::{Cell, Channel, Draws, Events, Exposures, InFlight, Tick, TickInput};

use super::counts::{Counts, Ring, Shard, Waits};
use super::waiting::Waiting;
use super::{Watch, What};

/// Reads one [`Watch`]. What was counted before its first look counts as well.
#[derive(Debug, Default)]
pub struct Reader {
    /// Of stable, then of every member.
    cells: Vec<Last>,
    drawn: [u64; 2],
    /// Increments of one series of one cell over all workers by slot: requests, and firsts of their session.
    sum: Sums,
    taken: Taken,
}

/// What was counted between two looks.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Exposures by channel and cell.
    pub exposures: Vec<Exposures>,
    /// Events by the tick their exposure was counted in; none of a watch that keeps sums only.
    pub events: Vec<Events>,
    /// What waits for a response head now.
    pub in_flight: Vec<InFlight>,
    /// Requests that ended well on stable and on the candidate.
    pub succeeded: [u32; 2],
    /// First draws of keys.
    pub draws: Draws,
    /// Distinct candidate sessions in this step.
    pub sessions: u32,
    /// Events of stable per series, each request counted.
    pub of_stable: Vec<u64>,
    /// Exposures of stable: attempts begun, and fully written.
    pub exposed: [u64; 2],
    /// Latencies of stable and of the candidate, where they were asked for.
    pub latencies: [Vec<(u16, u32)>; 2],
}

/// The last reading of one cell.
#[derive(Debug)]
struct Last {
    shards: Vec<LastShard>,
    waiting: Waiting,
}

/// The last reading of one shard.
#[derive(Debug)]
pub(super) struct LastShard {
    begun: u64,
    written: u64,
    succeeded: u64,
    events: Vec<LastRing>,
    firsts: Vec<LastRing>,
    pub(super) started: LastWaits,
    pub(super) ended: LastWaits,
    latencies: LastRing,
}

#[derive(Debug)]
pub(super) struct LastWaits {
    pub(super) all: LastRing,
    pub(super) left_out: Vec<LastRing>,
}

#[derive(Debug)]
pub(super) struct LastRing {
    total: u32,
    /// Increments that are in the sum and were in no slot yet; below zero if it is the other way around.
    owed: i32,
    slots: Box<[u32]>,
}

#[derive(Debug)]
struct Sums {
    by_slot: Box<[[u32; 2]; SLOTS]>,
    touched: Vec<usize>,
}

// === impl Reader ===

impl Reader {
    /// What was counted since the last look. `now` is the last complete tick. `timed`: latencies as well; once a second will do.
    pub fn take(&mut self, watch: &Watch, now: Tick, timed: bool) -> &Taken {
        let what = watch.what();
        self.taken.clear(what);
        let members = watch.members();
        self.cells.reserve(1 + members.len());
        let counts = std::iter::once(&watch.stable).chain(members.iter().map(|member| &member.counts));
        for (at, counts) in counts.enumerate() {
            if self.cells.len() <= at {
                self.cells.push(Last::new(counts));
            }
            let cell = if at == 0 { Cell::STABLE } else { Cell::candidate(u16::try_from(at - 1).unwrap_or(u16::MAX)) };
            let mut look = Look { what, cell, now, taken: &mut self.taken, sum: &mut self.sum };
            look.events(&mut self.cells[at], counts);
            look.rest(&mut self.cells[at], counts);
            if timed {
                look.latencies(&mut self.cells[at], counts);
            }
        }
        let drawn = watch.drawn();
        let [stable, candidate] = [0, 1].map(|at| narrow(drawn[at].wrapping_sub(self.drawn[at])));
        self.drawn = drawn;
        self.taken.draws = Draws { keys: stable.saturating_add(candidate), candidate };
        self.taken.sessions = watch.candidate_sessions();
        &self.taken
    }
}

// === impl Taken ===

impl Taken {
    /// The tick as the gate takes it; `base` has what is not counted.
    #[must_use]
    pub fn input<'a>(&'a self, base: TickInput<'a>) -> TickInput<'a> {
        TickInput {
            exposures: &self.exposures,
            events: &self.events,
            in_flight: &self.in_flight,
            succeeded: self.succeeded,
            sessions: self.sessions,
            draws: self.draws,
            latencies: crate::core::gate::Latencies { stable: &self.latencies[0], candidate: &self.latencies[1] },
            ..base
        }
    }

    fn clear(&mut self, what: &What) {
        self.exposures.clear();
        self.events.clear();
        self.in_flight.clear();
        self.succeeded = [0; 2];
        self.of_stable.clear();
        self.of_stable.resize(what.layout().series().len(), 0);
        self.exposed = [0; 2];
        self.latencies.iter_mut().for_each(Vec::clear);
    }
}

/// One look at one cell.
struct Look<'a> {
    what: &'a What,
    cell: Cell,
    now: Tick,
    taken: &'a mut Taken,
    sum: &'a mut Sums,
}

// === impl Look ===

impl Look<'_> {
    /// Events first: then nothing that has ended is still seen in flight.
    fn events(&mut self, last: &mut Last, counts: &Counts) {
        let (stable, near) = (self.cell == Cell::STABLE, newest(self.now));
        for series in 0..self.what.layout().series().len() {
            let mut requests = 0;
            for (shard, last) in counts.shards().iter().zip(&mut last.shards) {
                let sum = &mut *self.sum;
                last.firsts[series].take(&shard.firsts[series], near, |slot, more| sum.add(slot, 1, more));
                requests += last.events[series].take(&shard.events[series], near, |slot, more| sum.add(slot, 0, more));
            }
            if stable {
                self.taken.of_stable[series] += u64::from(requests);
            }
            let (cell, now, number) = (self.cell, self.now, u8::try_from(series).unwrap_or(u8::MAX));
            let events = &mut self.taken.events;
            self.sum.drain(|slot, [requests, sessions]| {
                let Some(began) = tick_of(slot, now) else { return };
                events.push(Events { series: number, cell, began, requests, sessions });
            });
        }
        fence(Ordering::Acquire);
    }

    /// What is in flight, and exposures: whatever an event that was seen belongs to is seen as well.
    fn rest(&mut self, last: &mut Last, counts: &Counts) {
        let (mut exposed, mut succeeded) = ([0_u64; 2], 0_u64);
        last.waiting.follow(counts.shards(), &mut last.shards, self.now);
        for (shard, seen) in counts.shards().iter().zip(&mut last.shards) {
            let [begun, written, well] = [shard.begun.get(), shard.written.get(), shard.succeeded.get()];
            exposed[0] += begun.wrapping_sub(seen.begun);
            exposed[1] += written.wrapping_sub(seen.written);
            succeeded += well.wrapping_sub(seen.succeeded);
            (seen.begun, seen.written, seen.succeeded) = (begun, written, well);
        }
        let side = usize::from(self.cell != Cell::STABLE);
        self.taken.succeeded[side] = self.taken.succeeded[side].saturating_add(narrow(succeeded));
        if self.cell == Cell::STABLE {
            self.taken.exposed = exposed;
        }
        for (channel, count) in [Channel::BEGUN, Channel::WRITTEN].into_iter().zip(exposed) {
            if count > 0 {
                self.taken.exposures.push(Exposures { channel, cell: self.cell, count: narrow(count) });
            }
        }
        last.waiting.tell(self.what, self.cell, &mut self.taken.in_flight);
    }

    fn latencies(&mut self, last: &mut Last, counts: &Counts) {
        let into = &mut self.taken.latencies[usize::from(self.cell != Cell::STABLE)];
        for (shard, seen) in counts.shards().iter().zip(&mut last.shards) {
            seen.latencies.take(&shard.latencies, 0, |bucket, more| {
                into.push((u16::try_from(bucket).unwrap_or(u16::MAX), more));
            });
        }
    }
}

// === impl Last ===

impl Last {
    fn new(counts: &Counts) -> Self {
        Self { shards: counts.shards().iter().map(LastShard::new).collect(), waiting: Waiting::default() }
    }
}

// === impl LastShard ===

impl LastShard {
    fn new(shard: &Shard) -> Self {
        let rings = |rings: &[Ring]| rings.iter().map(LastRing::new).collect();
        Self {
            begun: 0,
            written: 0,
            succeeded: 0,
            events: rings(&shard.events),
            firsts: rings(&shard.firsts),
            started: LastWaits::new(&shard.started),
            ended: LastWaits::new(&shard.ended),
            latencies: LastRing::new(&shard.latencies),
        }
    }
}

// === impl LastWaits ===

impl LastWaits {
    fn new(waits: &Waits) -> Self {
        Self { all: LastRing::new(&waits.all), left_out: waits.left_out.iter().map(LastRing::new).collect() }
    }
}

// === impl LastRing ===

impl LastRing {
    fn new(ring: &Ring) -> Self {
        Self { total: 0, owed: 0, slots: vec![0; ring.slots.len()].into_boxed_slice() }
    }

    /// Gives `each` slot that changed its increment; returns that of the sum. It is looked from the slot `near` downwards and no further than
    /// there is something to find: most changes are a few ticks old.
    pub(super) fn take(&mut self, ring: &Ring, near: usize, mut each: impl FnMut(usize, u32)) -> u32 {
        let total = ring.total.load(Ordering::Acquire);
        let more = total.wrapping_sub(std::mem::replace(&mut self.total, total));
        if more == 0 {
            return 0;
        }
        self.owed = self.owed.saturating_add(signed(more));
        let middle = (near + 1).min(self.slots.len());
        for slot in (0..middle).rev().chain((middle..self.slots.len()).rev()) {
            if self.owed <= 0 {
                return more;
            }
            let (count, seen) = (ring.slots[slot].load(Ordering::Relaxed), &mut self.slots[slot]);
            if count != *seen {
                let found = count.wrapping_sub(std::mem::replace(seen, count));
                self.owed = self.owed.saturating_sub(signed(found));
                each(slot, found);
            }
        }
        // What is in no slot came too late for any.
        self.owed = self.owed.min(0);
        more
    }
}

// === impl Sums ===

impl Default for Sums {
    fn default() -> Self {
        Self { by_slot: Box::new([[0; 2]; SLOTS]), touched: Vec::new() }
    }
}

impl Sums {
    fn add(&mut self, slot: usize, at: usize, more: u32) {
        if self.by_slot[slot] == [0; 2] {
            self.touched.push(slot);
        }
        self.by_slot[slot][at] = self.by_slot[slot][at].wrapping_add(more);
    }

    fn drain(&mut self, mut each: impl FnMut(usize, [u32; 2])) {
        for slot in self.touched.drain(..) {
            each(slot, std::mem::take(&mut self.by_slot[slot]));
        }
    }
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn signed(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
