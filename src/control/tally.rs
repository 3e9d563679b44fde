//! Counts of rollouts that ended since the process began, for metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::id::Name;
use crate::core::roles::Ended;
use crate::core::rollout::End;

/// Bounds of the buckets of how long rollouts take, in microseconds: from ten seconds to a week.
pub const LASTED_BOUNDS_US: [u64; 12] = [
    10_000_000,
    30_000_000,
    60_000_000,
    180_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
    7_200_000_000,
    21_600_000_000,
    43_200_000_000,
    86_400_000_000,
    604_800_000_000,
];

/// What is counted, by service, outcome and reason: both are words from fixed lists.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Key, Lasted>>);

type Key = (Name, &'static str, &'static str);

/// How many, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lasted {
    count: u64,
    buckets: [u64; LASTED_BOUNDS_US.len() + 1],
    sum_us: u64,
}

/// Rollouts of a service that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The service.
    pub service: Name,
    /// `succeeded`, `aborted`, `rolled_back` or `superseded`.
    pub outcome: &'static str,
    /// Why it was aborted; `none` for all others.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// From start to end, per bucket of [`LASTED_BOUNDS_US`], the last for all that is above. Nothing for `rolled_back`, which had ended before.
    pub buckets: [u64; LASTED_BOUNDS_US.len() + 1],
    /// All of it together, in microseconds.
    pub sum_us: u64,
}

// === impl Tally ===

impl Tally {
    /// Counts what has ended.
    pub(super) fn count(&self, over: &[(Name, Ended)]) {
        if over.is_empty() {
            return;
        }
        let mut all = self.locked();
        for (service, ended) in over {
            let reason = if let End::Aborted(reason) = &ended.end { reason.as_str() } else { "none" };
            let lasted = all.entry((service.clone(), ended.end.as_str(), reason)).or_default();
            lasted.count += 1;
            if ended.end != End::RolledBack {
                lasted.observe(ended.ended.saturating_sub(ended.began));
            }
        }
    }

    /// Forgets all services but these.
    pub(super) fn keep<'a>(&self, services: impl Iterator<Item = &'a Name>) {
        let kept: BTreeSet<&Name> = services.collect();
        self.locked().retain(|(service, ..), _| kept.contains(service));
    }

    pub(super) fn counted(&self) -> Vec<Counted> {
        let counted = |((service, outcome, reason), lasted): (&Key, &Lasted)| Counted {
            service: service.clone(),
            outcome,
            reason,
            count: lasted.count,
            buckets: lasted.buckets,
            sum_us: lasted.sum_us,
        };
        self.locked().iter().map(counted).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Lasted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Lasted ===

impl Lasted {
    fn observe(&mut self, lasted: Duration) {
        let us = u64::try_from(lasted.as_micros()).unwrap_or(u64::MAX);
        self.buckets[LASTED_BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}
