//! Increments from cumulative counters: of workers, and of other proxies that may restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sources a ledger follows: proxies, or pushers of a business metric.
pub const SOURCES_MAX: usize = 256;

/// The last reading of every source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    sources: BTreeMap<u64, Source>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    boot: u64,
    readings: Vec<u64>,
}

/// Why a reading was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are [`SOURCES_MAX`] others.
    TooManySources,
    /// A counter went backwards within one boot: an older reading, or no cumulative counter.
    Backwards,
}

// === impl Ledger ===

impl Ledger {
    /// Adds to `increments` what `source` counted since its last reading. A source seen for the first time, or with another `boot` id,
    /// counts from zero. The same reading twice adds nothing. Both slices are indexed alike; a longer reading is welcome.
    ///
    /// # Errors
    /// Says why nothing was taken.
    pub fn take(&mut self, source: u64, boot: u64, readings: &[u64], increments: &mut [u64]) -> Result<(), Refused> {
        if !self.sources.contains_key(&source) && self.sources.len() >= SOURCES_MAX {
            return Err(Refused::TooManySources);
        }
        let last = self.sources.entry(source).or_default();
        if last.boot != boot {
            *last = Source { boot, readings: Vec::new() };
        }
        if readings.iter().zip(&last.readings).any(|(now, before)| now < before) {
            return Err(Refused::Backwards);
        }
        for (i, now) in readings.iter().enumerate() {
            if let Some(increment) = increments.get_mut(i) {
                *increment += now - last.readings.get(i).copied().unwrap_or(0);
            }
        }
        last.readings.clear();
        last.readings.extend_from_slice(readings);
        Ok(())
    }

    /// Takes a first reading of what counted before there was anything to watch.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn skip(&mut self, source: u64, boot: u64, readings: &[u64]) -> Result<(), Refused> {
        self.take(source, boot, readings, &mut [])
    }

    /// Forgets a source that is gone.
    pub fn forget(&mut self, source: u64) {
        self.sources.remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_restart_counts_from_zero_and_a_step_back_is_refused() {
        let (mut ledger, mut sum) = (Ledger::default(), [0; 2]);
        ledger.take(1, 7, &[5, 3], &mut sum).expect("first");
        ledger.take(1, 7, &[5, 3], &mut sum).expect("the same again");
        assert_eq!(ledger.take(1, 7, &[4, 9], &mut sum), Err(Refused::Backwards));
        ledger.take(1, 8, &[2, 0], &mut sum).expect("a new boot");
        assert_eq!(sum, [7, 3]);
        for source in 2..=SOURCES_MAX as u64 {
            ledger.skip(source, 0, &[100]).expect("room");
        }
        assert_eq!(ledger.take(1_000, 0, &[1], &mut sum), Err(Refused::TooManySources));
        ledger.forget(2);
        assert_eq!(ledger.take(1_000, 0, &[1], &mut sum), Ok(()));
        assert_eq!(sum, [8, 3]);
    }

    proptest! {
        #[test]
        fn sources_add_whatever_the_order_of_their_reports(steps in prop::collection::vec((0..4_u64, 0..100_u64), 1..60), turn in 1..60_usize) {
            let total = |order: &[(u64, u64)]| {
                let (mut ledger, mut sum, mut counters) = (Ledger::default(), [0], [0_u64; 4]);
                for (source, more) in order {
                    let counter = &mut counters[usize::try_from(*source).expect("small")];
                    *counter += more;
                    ledger.take(*source, 1, &[*counter], &mut sum).expect("forwards");
                }
                sum[0]
            };
            let mut turned = steps.clone();
            turned.rotate_left(turn % steps.len());
            prop_assert_eq!(total(&steps), total(&turned));
        }
    }
}
