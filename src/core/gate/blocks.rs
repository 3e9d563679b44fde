//! Blocks of ticks with enough exposures on both sides, and a ring of past ones for what turns out bad late.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::input::{Cell, TICKS_PER_SECOND, Tick};
use super::sequence::GROUPS_MAX;
use super::slots::FINE_TICKS;
use crate::core::weight::Weight;

/// Longest time a request can still turn out bad after its beginning, in ticks: one hour.
pub const REACH_MAX: u32 = 72_000;

/// Exposures of one block, and what is remembered of its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) first: Tick,
    pub(super) last: Tick,
    pub(super) stable: u32,
    pub(super) candidate: u32,
    /// Of the candidate, per group of endpoints.
    pub(super) groups: [u32; GROUPS_MAX],
    /// Events of candidate and stable per series, until the block is old enough to say something about harmlessness.
    pub(super) tally: Vec<[u32; 2]>,
}

/// Events of one series in a block that is still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) stable: u32,
    pub(super) candidate: u32,
    pub(super) groups: [u32; GROUPS_MAX],
}

/// The blocks of one channel: one open, single ones for three seconds, older ones merged to a second each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    open: Block,
    counts: Vec<Count>,
    fine: VecDeque<Block>,
    coarse: VecDeque<Block>,
}

/// Where an event belongs.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// In the open block: it is scored when that is complete.
    Open,
    /// In a complete one; `settled` says whether it has been merged.
    Closed { block: &'a mut Block, settled: bool },
    /// Longer ago than anything is kept.
    Lost,
}

/// The group of a candidate endpoint.
pub(super) fn group_of(cell: Cell) -> Option<u8> {
    let group = usize::from(cell.endpoint()?) % GROUPS_MAX;
    u8::try_from(group).ok()
}

// === impl Block ===

impl Block {
    fn new(first: Tick, series: usize) -> Self {
        Self { first, last: first, stable: 0, candidate: 0, groups: [0; GROUPS_MAX], tally: vec![[0; 2]; series] }
    }

    fn expose(&mut self, cell: Cell, count: u32) {
        match group_of(cell) {
            None => self.stable = self.stable.saturating_add(count),
            Some(group) => {
                self.candidate = self.candidate.saturating_add(count);
                let group = &mut self.groups[usize::from(group)];
                *group = group.saturating_add(count);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.last = other.last;
        self.stable = self.stable.saturating_add(other.stable);
        self.candidate = self.candidate.saturating_add(other.candidate);
        for (mine, others) in self.groups.iter_mut().zip(other.groups) {
            *mine = mine.saturating_add(others);
        }
    }

    /// Exposures of the candidate without `group`.
    pub(super) fn without(&self, group: u8) -> u32 {
        self.candidate - self.groups[usize::from(group)]
    }
}

// === impl Ring ===

impl Ring {
    pub(super) fn new(series: usize) -> Self {
        Self {
            open: Block::new(0, series),
            counts: vec![Count::default(); series],
            fine: VecDeque::new(),
            coarse: VecDeque::new(),
        }
    }

    pub(super) fn expose(&mut self, cell: Cell, count: u32) {
        self.open.expose(cell, count);
    }

    /// Where something that began at `tick` belongs.
    pub(super) fn place(&mut self, tick: Tick) -> Place<'_> {
        if tick >= self.open.first {
            return Place::Open;
        }
        let (ring, settled) = match self.fine.front() {
            Some(oldest) if tick >= oldest.first => (&mut self.fine, false),
            _ => (&mut self.coarse, true),
        };
        let at = ring.partition_point(|block| block.last < tick);
        match ring.get_mut(at) {
            Some(block) if block.first <= tick => Place::Closed { block, settled },
            _ => Place::Lost,
        }
    }

    /// Counts events in the open block.
    pub(super) fn count(&mut self, series: usize, cell: Cell, count: u32) {
        let of = &mut self.counts[series];
        match group_of(cell) {
            None => of.stable = of.stable.saturating_add(count),
            Some(group) => {
                of.candidate = of.candidate.saturating_add(count);
                let group = &mut of.groups[usize::from(group)];
                *group = group.saturating_add(count);
            }
        }
    }

    /// Closes the open block at the end of `now` if it has enough of both sides: at least one candidate exposure, and of stable what the
    /// weight makes of one.
    pub(super) fn close(&mut self, now: Tick, weight: Weight) -> Option<(Block, Vec<Count>)> {
        let (share, rest) = (u64::from(weight.grains()), u64::from(Weight::FULL.grains() - weight.grains()));
        let enough = self.open.stable >= 1 && u64::from(self.open.stable) * share >= rest;
        if self.open.candidate >= 1 && enough { Some(self.seal(now)) } else { None }
    }

    /// Closes the open block before `now` as it is, if it began before: one block has one weight.
    pub(super) fn seal_before(&mut self, now: Tick) -> Option<(Block, Vec<Count>)> {
        if self.open.first < now { Some(self.seal(now - 1)) } else { None }
    }

    fn seal(&mut self, now: Tick) -> (Block, Vec<Count>) {
        let series = self.counts.len();
        let last = now.max(self.open.first);
        let mut block = std::mem::replace(&mut self.open, Block::new(last + 1, series));
        let counts = std::mem::replace(&mut self.counts, vec![Count::default(); series]);
        block.last = last;
        for (tally, count) in block.tally.iter_mut().zip(&counts) {
            *tally = [count.candidate, count.stable];
        }
        self.fine.push_back(block.clone());
        (block, counts)
    }

    /// Merges what is older than three seconds, forgets what is older than `reach`, and returns what was merged.
    pub(super) fn age(&mut self, now: Tick, reach: Tick) -> Vec<Block> {
        let mut settled = Vec::new();
        while self.fine.front().is_some_and(|block| block.last + FINE_TICKS < now) {
            let Some(block) = self.fine.pop_front() else { break };
            match self.coarse.back_mut() {
                Some(second) if block.last < second.first + TICKS_PER_SECOND => second.merge(&block),
                _ => self.coarse.push_back(Block { tally: Vec::new(), ..block.clone() }),
            }
            settled.push(block);
        }
        while self.coarse.front().is_some_and(|block| block.last + reach < now) {
            self.coarse.pop_front();
        }
        settled
    }

    /// Blocks that are kept; bounded by the ticks of three seconds and the seconds of the reach.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.fine.len() + self.coarse.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(percent: u16) -> Weight {
        Weight::from_grains(percent * 100).expect("a weight")
    }

    #[test]
    fn a_block_waits_for_both_sides() {
        let mut ring = Ring::new(1);
        ring.expose(Cell::candidate(0), 1);
        ring.expose(Cell::STABLE, 18);
        assert_eq!(ring.close(3, weight(5)), None);
        ring.expose(Cell::STABLE, 1);
        let (block, _) = ring.close(4, weight(5)).expect("19 to 1");
        assert_eq!((block.first, block.last, block.stable, block.candidate), (0, 4, 19, 1));
        // Above one half a single stable exposure is enough; nothing at all never is.
        ring.expose(Cell::candidate(1), 30);
        assert_eq!(ring.close(5, weight(100)), None);
        ring.expose(Cell::STABLE, 1);
        assert!(ring.close(6, weight(90)).is_some());
    }

    #[test]
    fn events_find_the_block_they_began_in_until_it_is_forgotten() {
        let mut ring = Ring::new(1);
        for now in 0..2_000 {
            ring.expose(Cell::STABLE, 19);
            ring.expose(Cell::candidate(0), u32::try_from(now).expect("small") % 7 + 1);
            ring.close(now, weight(5)).expect("enough");
            ring.age(now, 1_200);
            assert!(ring.len() <= 61 + 61, "{}", ring.len());
        }
        let mut at = |tick| match ring.place(tick) {
            Place::Open => (9, 9),
            Place::Closed { block, settled } => {
                assert!(block.first <= tick && tick <= block.last);
                (u64::from(settled), block.last - block.first + 1)
            }
            Place::Lost => (7, 7),
        };
        assert_eq!((at(2_000), at(1_999), at(1_939)), ((9, 9), (0, 1), (0, 1)));
        assert_eq!((at(1_938), at(1_000)), ((1, 20 - 1), (1, 20)));
        assert_eq!((at(700), at(0)), ((7, 7), (7, 7)));
    }

    #[test]
    fn merging_adds_exposures() {
        let mut ring = Ring::new(1);
        for now in 0..200 {
            ring.expose(Cell::STABLE, 3);
            ring.expose(Cell::candidate(17), 1);
            let _ = ring.seal_before(now + 1);
            ring.age(now, 1_200);
        }
        let Place::Closed { block, settled: true } = ring.place(45) else { panic!("merged") };
        assert_eq!((block.first, block.last, block.stable, block.groups[1]), (40, 59, 60, 20));
    }
}
