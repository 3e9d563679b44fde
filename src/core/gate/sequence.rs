//! Evidence for the whole candidate pool, and for the pool without one of its endpoints.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, Ratios};

/// Groups of candidate endpoints that are left out in turn. Pools up to this size leave out single endpoints.
pub const GROUPS_MAX: usize = 16;

/// The evidence of one test. What leaves out a group begins as a copy at its first event: before that, leaving it out would only have
/// raised the evidence, so the copy is on the safe side. Hence a healthy endpoint costs nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sequence {
    full: Evidence,
    without: BTreeMap<u8, Evidence>,
}

/// Which endpoints are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// All.
    Full,
    /// All but those of a group.
    Without(u8),
}

// === impl Sequence ===

impl Sequence {
    pub(super) fn new() -> Self {
        Self { full: Evidence::new(), without: BTreeMap::new() }
    }

    /// From here on the evidence without `group` is kept apart. Call it before the first event (or, for mirrored tests, the first
    /// exposure) of the group is scored.
    pub(super) fn split(&mut self, group: u8) {
        if !self.without.contains_key(&group) {
            self.without.insert(group, self.full.clone());
        }
    }

    /// Adds to every view what `score` makes of it.
    pub(super) fn add(&mut self, mut score: impl FnMut(View, &mut Ratios) -> bool) {
        let mut step = [0.0; super::evidence::ALTERNATIVES];
        if score(View::Full, &mut step) {
            self.full.add(&step);
        }
        for (group, evidence) in &mut self.without {
            let mut step = [0.0; super::evidence::ALTERNATIVES];
            if score(View::Without(*group), &mut step) {
                evidence.add(&step);
            }
        }
    }

    /// Harm may have begun now.
    pub(super) fn restart(&mut self) {
        self.full.restart();
        self.without.values_mut().for_each(Evidence::restart);
    }

    pub(super) fn full(&self) -> &Evidence {
        &self.full
    }

    /// The evidence in `view`.
    pub(super) fn view(&self, view: View) -> &Evidence {
        match view {
            View::Full => &self.full,
            View::Without(group) => self.without.get(&group).unwrap_or(&self.full),
        }
    }

    /// The groups that are kept apart.
    pub(super) fn groups(&self) -> impl Iterator<Item = u8> + '_ {
        self.without.keys().copied()
    }
}
