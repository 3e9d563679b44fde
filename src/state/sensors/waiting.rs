//! Who waits for a response head: levels, out of what workers counted at either end.

use std::sync::atomic::{Ordering, fence};

use crate::core::gate::input::TICKS_PER_SECOND;
use crate::core::gate::layout::SERIES_MAX;
use crate::core::gate::slots::{FINE_TICKS, LATE_MAX, SLOTS, is_tick, newest, slot_of_second, tick_of};
use crate::core::gate::{Cell, InFlight, Tick};

use super::What;
use super::counts::Shard;
use super::read::{LastShard, signed};

/// Numbers of requests that wait: all, then those each latency series leaves out.
const NUMBERS_MAX: usize = 1 + SERIES_MAX;

/// Requests that wait for a response head, by the tick they were fully written in: single ones, and the first of a second.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// None until there is something to keep.
    slots: Box<[Level]>,
    /// Slots anybody waits in.
    used: Vec<usize>,
    /// Ticks before it are kept by the second.
    whole: Tick,
    /// Those that ceased to wait, and of which that they did has not been seen: which number, slot, how many.
    ended: Vec<(usize, usize, i32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// The tick, or the first of the second.
    tick: Tick,
    is_used: bool,
    numbers: [i32; NUMBERS_MAX],
}

// === impl Waiting ===

impl Waiting {
    /// Takes in who began and who ceased to wait. Whoever ceased is read first, so that nobody is seen to cease who was not seen to begin; and
    /// what is left out is always seen with those it is left out of.
    pub(super) fn follow(&mut self, shards: &[Shard], last: &mut [LastShard], now: Tick) {
        if !shards.first().is_some_and(|shard| shard.started.is_kept()) {
            return;
        }
        if self.slots.is_empty() {
            self.slots = vec![Level::default(); SLOTS].into_boxed_slice();
        }
        self.age(now);
        let (near, unmatched) = (newest(now), self.ended.len());
        let mut ended = std::mem::take(&mut self.ended);
        for (shard, seen) in shards.iter().zip(&mut *last) {
            for (at, (ring, seen)) in shard.ended.left_out.iter().zip(&mut seen.ended.left_out).enumerate() {
                seen.take(ring, near, |slot, more| ended.push((1 + at, slot, signed(more))));
            }
            seen.ended.all.take(&shard.ended.all, near, |slot, more| ended.push((0, slot, signed(more))));
        }
        fence(Ordering::Acquire);
        for (shard, seen) in shards.iter().zip(last) {
            seen.started.all.take(&shard.started.all, near, |slot, more| self.begin(0, slot, more, now));
            for (at, (ring, seen)) in shard.started.left_out.iter().zip(&mut seen.started.left_out).enumerate() {
                seen.take(ring, near, |slot, more| self.begin(1 + at, slot, more, now));
            }
        }
        let mut old = 0..unmatched;
        ended.retain_mut(|(number, slot, left)| {
            self.end(*number, *slot, left, now);
            // A machine may show an end before its beginning, but not for long.
            old.next().is_none() && *left > 0
        });
        self.ended = ended;
    }

    fn begin(&mut self, number: usize, slot: usize, more: u32, now: Tick) {
        if let Some(tick) = tick_of(slot, now) {
            self.add(slot, tick, number, signed(more));
        }
    }

    fn add(&mut self, slot: usize, tick: Tick, number: usize, more: i32) {
        let level = &mut self.slots[slot];
        if level.tick != tick {
            (level.tick, level.numbers) = (tick, [0; NUMBERS_MAX]);
        }
        level.numbers[number] += more;
        if !std::mem::replace(&mut level.is_used, true) {
            self.used.push(slot);
        }
    }

    /// Takes as many of `left` as are there out of those that wait: where the worker kept them, or by now by the second.
    fn end(&mut self, number: usize, slot: usize, left: &mut i32, now: Tick) {
        let Some(tick) = tick_of(slot, now) else { return };
        let second = tick / TICKS_PER_SECOND * TICKS_PER_SECOND;
        for (slot, tick) in [(slot, tick), (slot_of_second(tick), second)] {
            let level = &mut self.slots[slot];
            if level.is_used && level.tick == tick {
                let gone = level.numbers[number].min(*left);
                level.numbers[number] -= gone;
                *left -= gone;
            }
        }
    }

    /// Merges the ticks of seconds that are old, and forgets who waits longer than anything is kept.
    fn age(&mut self, now: Tick) {
        let whole = (now + 1).saturating_sub(FINE_TICKS) / TICKS_PER_SECOND * TICKS_PER_SECOND;
        let oldest = now.saturating_sub(LATE_MAX) / TICKS_PER_SECOND * TICKS_PER_SECOND;
        let merges = whole > self.whole;
        self.whole = whole;
        let used = std::mem::take(&mut self.used);
        for slot in used {
            let level = &mut self.slots[slot];
            let nobody = level.tick < oldest || level.numbers.iter().all(|number| *number == 0);
            if nobody {
                *level = Level::default();
            } else if merges && is_tick(slot) && level.tick < whole {
                let Level { tick, numbers, .. } = std::mem::take(level);
                let second = tick / TICKS_PER_SECOND * TICKS_PER_SECOND;
                for (number, count) in numbers.into_iter().enumerate().filter(|(_, count)| *count != 0) {
                    self.add(slot_of_second(tick), second, number, count);
                }
            } else {
                self.used.push(slot);
            }
        }
    }

    pub(super) fn tell(&self, what: &What, cell: Cell, into: &mut Vec<InFlight>) {
        for level in self.used.iter().map(|slot| &self.slots[*slot]) {
            for (place, series) in what.slow.iter().enumerate() {
                let waiting = [level.numbers[0], level.numbers[0] - level.numbers[1 + place]];
                let [requests, sessions] = waiting.map(|n| u32::try_from(n).unwrap_or(0));
                if requests > 0 || sessions > 0 {
                    into.push(InFlight { series: *series, cell, began: level.tick, requests, sessions });
                }
            }
        }
    }
}
