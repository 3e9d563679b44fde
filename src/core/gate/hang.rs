//! Requests in flight past their threshold are bad at that moment, and not once more when they end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::{Cell, TICK_US, TICKS_PER_SECOND, Tick};
use super::latency::{Limit, Past};
use super::slots::FINE_TICKS;

/// What was scored from in flight and has not ended yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: Key,
    count: u32,
}

/// Requests of one series, on one cell, fully written in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) series: u8,
    pub(super) cell: Cell,
    pub(super) slot: Tick,
}

/// The slot a tick belongs to: itself for three seconds, then the first of its second.
pub(super) fn slot_of(tick: Tick, epoch_phase: Tick, now: Tick) -> (Tick, Tick) {
    let first = (tick + epoch_phase) / TICKS_PER_SECOND * TICKS_PER_SECOND;
    let last = (first + TICKS_PER_SECOND - 1).saturating_sub(epoch_phase);
    if last + FINE_TICKS <= now { (first.saturating_sub(epoch_phase), last) } else { (tick, tick) }
}

/// Whether what was fully written at the end of `last` has waited longer than its threshold at the end of `now`.
pub(super) fn is_past(limit: Limit, cell: Cell, last: Tick, now: Tick) -> bool {
    let threshold = if cell == Cell::STABLE { limit.stable_us } else { limit.candidate_us };
    now.saturating_sub(last).saturating_mul(TICK_US) >= threshold
}

/// The limit that applies to `series` for what was fully written in `first..=last`.
pub(super) fn limit(past: &Past, series: u8, first: Tick, last: Tick) -> Limit {
    past.highest(first, last).of(usize::from(series))
}

// === impl Ahead ===

impl Ahead {
    /// Takes `ended` (events of latency series that became known) and `waiting` (past their threshold and still in flight), and returns
    /// what is to be scored now. Something of one key that both ended and waits is counted once.
    pub(super) fn settle(
        &mut self,
        mut ended: BTreeMap<Key, u32>,
        mut waiting: BTreeMap<Key, u32>,
        rekey: impl Fn(Tick) -> Tick,
        oldest: Tick,
    ) -> Vec<(Key, u32)> {
        let mut ahead: BTreeMap<Key, u32> = BTreeMap::new();
        for Entry { key, count } in self.entries.drain(..) {
            if key.slot >= oldest {
                *ahead.entry(Key { slot: rekey(key.slot), ..key }).or_default() += count;
            }
        }
        let mut score = Vec::new();
        let keys: Vec<Key> = ahead.keys().chain(waiting.keys()).chain(ended.keys()).copied().collect();
        for key in keys {
            let (was, done) = (ahead.remove(&key).unwrap_or(0), ended.remove(&key).unwrap_or(0));
            let still = waiting.remove(&key).unwrap_or(0);
            if was == 0 && done == 0 && still == 0 {
                continue;
            }
            let fresh = (done + still).saturating_sub(was);
            let left = (was + fresh).saturating_sub(done);
            if fresh > 0 {
                score.push((key, fresh));
            }
            if left > 0 {
                self.entries.push(Entry { key, count: left });
            }
        }
        score
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(slot: Tick) -> Key {
        Key { series: 1, cell: Cell::candidate(0), slot }
    }

    fn map(slot: Tick, count: u32) -> BTreeMap<Key, u32> {
        if count == 0 { BTreeMap::new() } else { BTreeMap::from([(key(slot), count)]) }
    }

    #[test]
    fn what_hangs_is_scored_once() {
        let mut ahead = Ahead::default();
        let mut settle = |ended, waiting| {
            let scored = ahead.settle(map(5, ended), map(5, waiting), |t| t, 0);
            scored.iter().map(|(_, n)| n).sum::<u32>()
        };
        assert_eq!(settle(0, 0), 0);
        assert_eq!(settle(0, 3), 3);
        assert_eq!(settle(0, 3), 0);
        // One of them ends, one more passes the threshold.
        assert_eq!(settle(1, 3), 1);
        assert_eq!(settle(3, 0), 0);
        // What ends without having been seen in flight past its threshold counts as well.
        assert_eq!(settle(2, 0), 2);
    }

    #[test]
    fn seconds_replace_ticks_when_they_are_old() {
        // Tick 45 in phase 7: the second from 33 to 52; single until 60 ticks after its end.
        assert_eq!(slot_of(45, 7, 52 + 59), (45, 45));
        assert_eq!(slot_of(45, 7, 52 + 60), (33, 52));
        assert_eq!(slot_of(3, 7, 1_000), (0, 12));
    }

    proptest! {
        #[test]
        fn in_the_end_every_slow_request_is_scored_exactly_once(
            // Per request: when it passes its threshold, and how much later it ends.
            requests in prop::collection::vec((0..30_u64, 0..30_u64), 0..60)
        ) {
            let mut ahead = Ahead::default();
            let mut scored = 0;
            for now in 0..100 {
                let ended = requests.iter().filter(|(past, more)| past + more == now).count();
                let waiting = requests.iter().filter(|(past, more)| *past <= now && past + more > now).count();
                let count = |n: usize| u32::try_from(n).expect("small");
                let fresh = ahead.settle(map(1, count(ended)), map(1, count(waiting)), |t| t, 0);
                scored += fresh.iter().map(|(_, n)| *n as usize).sum::<usize>();
                // Never late: whatever has passed its threshold is scored.
                prop_assert_eq!(scored, requests.iter().filter(|(past, _)| *past <= now).count());
            }
            prop_assert!(ahead.entries.is_empty());
        }
    }
}
