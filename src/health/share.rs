//! How services share the probes that may be under way: one whose endpoints hang keeps nobody else waiting.

use std::collections::{HashMap, VecDeque};

use super::PROBES_MAX;
use crate::core::id::Name;

/// Probes a service may have under way however many services there are.
const PROBES_PER_SERVICE_MIN: usize = 32;

/// Probes under way and held back, by service. What is held back is as bounded as the queue it comes from.
#[derive(Debug)]
pub(super) struct Shares<T> {
    by_service: HashMap<Name, Share<T>>,
}

#[derive(Debug)]
struct Share<T> {
    under_way: usize,
    /// First come, first served.
    held: VecDeque<T>,
}

/// How many probes of one of `services` may be under way.
pub(super) fn most(services: usize) -> usize {
    (PROBES_MAX / services.max(1)).max(PROBES_PER_SERVICE_MIN)
}

// === impl Shares ===

impl<T> Shares<T> {
    pub(super) fn new() -> Self {
        Self { by_service: HashMap::new() }
    }

    /// Whether `probe` of `service` may begin, of which `most` may be under way. If not, it is held back.
    pub(super) fn begin(&mut self, service: &Name, probe: T, most: usize) -> bool {
        let new = || Share { under_way: 0, held: VecDeque::new() };
        let share = self.by_service.entry(service.clone()).or_insert_with(new);
        if share.under_way >= most {
            share.held.push_back(probe);
            return false;
        }
        share.under_way += 1;
        true
    }

    /// A probe of `service` is over; one that was held back and has its turn now.
    pub(super) fn end(&mut self, service: &Name) -> Option<T> {
        let share = self.by_service.get_mut(service)?;
        share.under_way = share.under_way.saturating_sub(1);
        let next = share.held.pop_front();
        if next.is_none() && share.under_way == 0 {
            self.by_service.remove(service);
        }
        next
    }

    /// Everything held back: who may begin has to be decided anew.
    pub(super) fn release(&mut self) -> Vec<T> {
        self.by_service.values_mut().flat_map(|share| share.held.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        Name::new(name).expect("a name")
    }

    #[test]
    fn the_more_services_the_less_each_but_never_too_little() {
        assert_eq!([0, 1, 2, 8, 9, 1_000].map(most), [256, 256, 128, 32, 32, 32]);
    }

    #[test]
    fn one_service_at_its_share_leaves_the_others_theirs() {
        let (mut shares, a, b) = (Shares::new(), name("a"), name("b"));
        let begun: Vec<bool> = (1..=4).map(|probe| shares.begin(&a, probe, 2)).collect();
        assert_eq!(begun, [true, true, false, false]);
        assert!(shares.begin(&b, 9, 2));
        assert_eq!((shares.end(&b), shares.end(&a)), (None, Some(3)));
        assert!(shares.begin(&a, 3, 2), "the place that became free");
        assert_eq!(shares.end(&a), Some(4));
        assert!(shares.begin(&a, 4, 2) && !shares.begin(&a, 5, 2));
        assert_eq!(shares.release(), [5]);
        assert_eq!([shares.end(&a), shares.end(&a), shares.end(&a)], [None; 3]);
        assert!(shares.by_service.is_empty(), "nothing is kept of who has nothing");
    }
}
