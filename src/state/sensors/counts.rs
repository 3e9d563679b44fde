//! Where workers count what becomes of one variant, or of one endpoint of it: a shard per worker, written by it alone, never reset.
//!
//! No lock and no read-modify-write. What a reader must not see before something else has a fence between; on most machines that costs
//! nothing.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::core::gate::sketch::{BUCKETS, bucket_of};
use crate::core::gate::slots::SLOTS;
use crate::state::counters::Cell;

use super::what::What;

/// The counts of stable, or of one endpoint of the candidate.
#[derive(Debug)]
pub struct Counts {
    shards: Box<[Shard]>,
}

/// How much of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Sums only: the history of a stable nobody is compared with.
    Sums,
    /// Everything by the tick it began in.
    Ticks,
}

/// What one worker counted.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// Attempts begun.
    pub(super) begun: Cell,
    /// Attempts fully written.
    pub(super) written: Cell,
    /// Requests that ended well.
    pub(super) succeeded: Cell,
    /// Events per series, each request counted, by the tick their exposure was counted in.
    pub(super) events: Box<[Ring]>,
    /// Those that were the first of their session.
    pub(super) firsts: Box<[Ring]>,
    /// Requests whose response head was waited for, by the tick they were fully written in.
    pub(super) started: Waits,
    /// Those of them that wait no longer.
    pub(super) ended: Waits,
    /// Latencies by bucket of a sketch; empty where nobody asks for them.
    pub(super) latencies: Ring,
}

/// Requests that began or ceased to wait; nothing is kept where no latency is compared.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) all: Ring,
    /// Per latency series those that do not count for their session: few, and most requests touch none of these.
    pub(super) left_out: Box<[Ring]>,
}

/// Counts by slot ([`crate::core::gate::slots`], or the bucket of a latency), and how many there are: while that stays the same, no slot has changed.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) total: AtomicU32,
    pub(super) slots: Box<[AtomicU32]>,
}

// === impl Counts ===

impl Counts {
    pub(super) fn new(what: &What, workers: usize, depth: Depth, latencies: bool) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| Shard::new(what, depth, latencies)).collect() }
    }

    /// The shard only worker `index` writes.
    #[must_use]
    pub fn of(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }
}

// === impl Shard ===

impl Shard {
    fn new(what: &What, depth: Depth, latencies: bool) -> Self {
        let slots = if depth == Depth::Ticks { SLOTS } else { 0 };
        let rings = |count: usize| (0..count).map(|_| Ring::new(slots)).collect::<Box<[_]>>();
        let series = what.layout().series().len();
        Self {
            begun: Cell::default(),
            written: Cell::default(),
            succeeded: Cell::default(),
            events: rings(series),
            firsts: rings(series),
            started: Waits::new(what, slots),
            ended: Waits::new(what, slots),
            latencies: Ring::new(if latencies { BUCKETS } else { 0 }),
        }
    }

    /// Counts a latency, in microseconds.
    pub(super) fn latency(&self, us: u64) {
        self.latencies.add(Some(usize::from(bucket_of(us))));
    }
}

// === impl Waits ===

impl Waits {
    fn new(what: &What, slots: usize) -> Self {
        let slots = if what.slow.is_empty() { 0 } else { slots };
        Self { all: Ring::new(slots), left_out: what.slow.iter().map(|_| Ring::new(slots)).collect() }
    }

    /// Whether anything is kept.
    pub(super) fn is_kept(&self) -> bool {
        !self.all.slots.is_empty()
    }

    /// Counts one of those the series in `mask` do not count for their session.
    pub(super) fn leave_out(&self, mask: u16, what: &What, slot: Option<usize>) {
        for (ring, series) in self.left_out.iter().zip(&what.slow) {
            if mask & 1 << series != 0 {
                ring.add(slot);
            }
        }
    }
}

// === impl Ring ===

impl Ring {
    fn new(slots: usize) -> Self {
        Self { total: AtomicU32::new(0), slots: (0..slots).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Counts one more; only its one writer may call this. Without a slot, or where none are kept, only the sum grows.
    pub(super) fn add(&self, slot: Option<usize>) {
        if let Some(count) = slot.and_then(|slot| self.slots.get(slot)) {
            bump(count);
            // Whoever sees the sum sees the slot.
            fence(Ordering::Release);
        }
        bump(&self.total);
    }
}

fn bump(count: &AtomicU32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
