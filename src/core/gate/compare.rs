//! Scores blocks and late events with every test of a channel.

use serde::{Deserialize, Serialize};

use super::blocks::{Block, Count, group_of};
use super::evidence::{ALTERNATIVES, Evidence, Ratios};
use super::family::{Family, Shape};
use super::input::{Cell, Exposures};
use super::layout::{Channel, Event, Kind, Layout};
use super::numeric::{float, log_sum};
use super::sequence::{GROUPS_MAX, Sequence, View};

/// The evidence of all tests of a service, in the order of its layout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Tests {
    sequences: Vec<Sequence>,
    /// Evidence that the candidate is not much worse, per series of [`Layout::non_inferior`].
    harmless: Vec<Evidence>,
}

/// Shapes of one block under one family, per view, made when they are asked for.
struct Shapes<'a> {
    family: &'a Family,
    block: &'a Block,
    made: Vec<(View, Option<Shape>)>,
}

// === impl Tests ===

impl Tests {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            sequences: layout.tests.iter().map(|_| Sequence::new()).collect(),
            harmless: layout.non_inferior.iter().map(|_| Evidence::new()).collect(),
        }
    }

    /// Whether this is the evidence of as many tests as `layout` has.
    pub(super) fn fits(&self, layout: &Layout) -> bool {
        self.sequences.len() == layout.tests.len() && self.harmless.len() == layout.non_inferior.len()
    }

    pub(super) fn restart(&mut self) {
        self.sequences.iter_mut().for_each(Sequence::restart);
    }

    pub(super) fn of(&self, test: usize) -> &Sequence {
        &self.sequences[test]
    }

    pub(super) fn harmless(&self) -> &[Evidence] {
        &self.harmless
    }

    /// Scores a block that has just been completed. `apart` keeps endpoints apart.
    pub(super) fn block(&mut self, layout: &Layout, channel: Channel, block: &Block, counts: &[Count], apart: bool) {
        for (index, (of, family)) in layout.families.iter().enumerate() {
            if *of != channel {
                continue;
            }
            let mut shapes = Shapes::new(family, block);
            for (test, sequence) in layout.tests.iter().zip(&mut self.sequences) {
                if !matches!(test.kind, Kind::Compare(f) if f == index) {
                    continue;
                }
                let count = &counts[test.series];
                if apart {
                    let good = layout.series()[test.series].event == Event::Good;
                    split(sequence, if good { &block.groups } else { &count.groups });
                }
                if count.candidate == 0 && count.stable == 0 && !family.has_floor() {
                    continue;
                }
                sequence.add(|view, step| score_block(&mut shapes, count, view, step));
            }
        }
    }

    /// Scores `events` of a complete block.
    pub(super) fn late(&mut self, layout: &Layout, series: usize, cell: Cell, block: &Block, events: u32, apart: bool) {
        let group = group_of(cell);
        for (test, sequence) in layout.tests.iter().zip(&mut self.sequences) {
            let Kind::Compare(family) = test.kind else { continue };
            if test.series != series {
                continue;
            }
            if let (true, Some(group)) = (apart, group) {
                sequence.split(group);
            }
            let mut shapes = Shapes::new(&layout.families[family].1, block);
            sequence.add(|view, step| {
                let mine = view != View::Without(group.unwrap_or(u8::MAX));
                let Some(shape) = shapes.of(view).filter(|_| mine) else { return false };
                let (s, b) = if group.is_some() { (events, 0) } else { (0, events) };
                shapes.family.events(&shape, s, b, step);
                true
            });
        }
    }

    /// Scores exposures with the ceilings of their channel: those need no blocks.
    pub(super) fn exposures(&mut self, layout: &Layout, exposures: Exposures) {
        let Some(group) = group_of(exposures.cell) else { return };
        for (test, sequence) in layout.tests.iter().zip(&mut self.sequences) {
            let Kind::Ceiling(ceiling) = &test.kind else { continue };
            if layout.series()[test.series].channel == exposures.channel {
                sequence.add(|view, step| {
                    ceiling.score(exposures.count, 0, step);
                    view != View::Without(group)
                });
            }
        }
    }

    /// Scores events with the ceilings of their series.
    pub(super) fn events(&mut self, layout: &Layout, series: usize, cell: Cell, events: u32, apart: bool) {
        let Some(group) = group_of(cell) else { return };
        for (test, sequence) in layout.tests.iter().zip(&mut self.sequences) {
            let Kind::Ceiling(ceiling) = &test.kind else { continue };
            if test.series == series {
                if apart {
                    sequence.split(group);
                }
                sequence.add(|view, step| {
                    ceiling.score(0, events, step);
                    view != View::Without(group)
                });
            }
        }
    }

    /// Scores a block whose events are known by and large as evidence that the candidate is not much worse.
    pub(super) fn settle(&mut self, layout: &Layout, channel: Channel, block: &Block) {
        for (series, evidence) in layout.non_inferior.iter().zip(&mut self.harmless) {
            if layout.series()[*series].channel != channel {
                continue;
            }
            let Some(shape) = layout.non_inferior_family.shape(block.candidate, block.stable) else { continue };
            let mut step = [0.0; ALTERNATIVES];
            let [candidate, stable] = block.tally.get(*series).copied().unwrap_or_default();
            layout.non_inferior_family.events(&shape, candidate, stable, &mut step);
            layout.non_inferior_family.exposures(block.candidate, block.stable, &mut step);
            evidence.add(&step);
        }
    }

    /// Scores an event that comes after its block was settled.
    pub(super) fn unsettle(&mut self, layout: &Layout, series: usize, cell: Cell, block: &Block, events: u32) {
        for (of, evidence) in layout.non_inferior.iter().zip(&mut self.harmless) {
            let Some(shape) = layout.non_inferior_family.shape(block.candidate, block.stable) else { continue };
            if *of == series {
                let mut step = [0.0; ALTERNATIVES];
                let (s, b) = if cell == Cell::STABLE { (0, events) } else { (events, 0) };
                layout.non_inferior_family.events(&shape, s, b, &mut step);
                evidence.add(&step);
            }
        }
    }

    /// The evidence of all tests together, in `view`: their mean.
    pub(super) fn log_e(&self, view: View) -> f64 {
        let all: Vec<f64> = self.sequences.iter().map(|s| s.view(view).log_e()).collect();
        log_sum(&all) - float(all.len() as u64).ln()
    }

    /// Something [`log_e`](Self::log_e) of the full view is never above.
    pub(super) fn at_most(&self) -> f64 {
        self.sequences.iter().map(|s| s.full().at_most()).fold(f64::NEG_INFINITY, f64::max)
    }

    /// The group without which there is least evidence, and how much that is.
    pub(super) fn worst(&self) -> Option<(u8, f64)> {
        let groups: std::collections::BTreeSet<u8> = self.sequences.iter().flat_map(Sequence::groups).collect();
        let each = groups.into_iter().map(|group| (group, self.log_e(View::Without(group))));
        each.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The test with the most evidence.
    pub(super) fn largest(&self) -> Option<usize> {
        let all = self.sequences.iter().map(|s| s.full().log_e()).enumerate();
        all.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(test, _)| test)
    }
}

fn split(sequence: &mut Sequence, groups: &[u32; GROUPS_MAX]) {
    for (group, _) in (0_u8..).zip(groups).filter(|(_, count)| **count > 0) {
        sequence.split(group);
    }
}

fn score_block(shapes: &mut Shapes<'_>, count: &Count, view: View, step: &mut Ratios) -> bool {
    let (events, exposed) = match view {
        View::Full => (count.candidate, shapes.block.candidate),
        View::Without(g) => (count.candidate - count.groups[usize::from(g)], shapes.block.without(g)),
    };
    shapes.family.exposures(exposed, shapes.block.stable, step);
    if (events > 0 || count.stable > 0)
        && let Some(shape) = shapes.of(view)
    {
        shapes.family.events(&shape, events, count.stable, step);
    }
    true
}

// === impl Shapes ===

impl<'a> Shapes<'a> {
    fn new(family: &'a Family, block: &'a Block) -> Self {
        Self { family, block, made: Vec::new() }
    }

    fn of(&mut self, view: View) -> Option<Shape> {
        if let Some((_, shape)) = self.made.iter().find(|(made, _)| *made == view) {
            return *shape;
        }
        let candidate = match view {
            View::Full => self.block.candidate,
            View::Without(group) => self.block.without(group),
        };
        let shape = self.family.shape(candidate, self.block.stable);
        self.made.push((view, shape));
        shape
    }
}
