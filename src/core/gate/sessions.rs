//! Sets of sessions for the request path: one shared byte pair per slot, no lock, one atomic operation at most.
//!
//! State owns them, one [`Sessions`] per variant and step and one [`Draws`](KeySet) per rollout, behind an `Arc` that is swapped when a step
//! begins; workers share them, because the requests of one session come over several connections. Two sessions in one slot count as one:
//! power is lost, nothing else.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::layout::SERIES_MAX;

/// Slots of a set.
pub const SESSION_SLOTS: usize = 65_536;
const SEEN: u16 = 1 << 15;
const WAITING: u16 = 1 << 14;
const _: () = assert!(SERIES_MAX <= 14);

/// What the sessions of one variant have done in one step. 128 KiB.
#[derive(Debug)]
pub struct Sessions {
    slots: Box<[AtomicU16]>,
    distinct: AtomicU32,
}

/// Keys seen in a rollout. 8 KiB.
#[derive(Debug)]
pub struct KeySet {
    words: Box<[AtomicU64]>,
}

/// What a request that waits for its response head is counted under, until it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Bits of the series it is counted in flight for, by session.
    pub series: u16,
    first: bool,
}

// === impl Waiting ===

impl Waiting {
    /// A request no other of its session can wait beside, in flight for all of `series`.
    #[must_use]
    pub const fn alone(series: u16) -> Self {
        Self { series, first: false }
    }
}

// === impl Sessions ===

impl Default for Sessions {
    fn default() -> Self {
        Self { slots: (0..SESSION_SLOTS).map(|_| AtomicU16::new(0)).collect(), distinct: AtomicU32::new(0) }
    }
}

impl Sessions {
    /// A request of the session was exposed. Only the first of a step writes.
    pub fn expose(&self, key: u64) {
        let slot = self.slot(key);
        if slot.load(Ordering::Relaxed) & SEEN == 0 && slot.fetch_or(SEEN, Ordering::Relaxed) & SEEN == 0 {
            self.distinct.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether an event of `series` is the first of its session in this step.
    #[must_use]
    pub fn is_first(&self, key: u64, series: u8) -> bool {
        let bit = 1 << (u16::from(series) % 14);
        let slot = self.slot(key);
        slot.load(Ordering::Relaxed) & bit == 0 && slot.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// A request was fully written. `slow` are the bits of the latency series; the answer says for which of them it is to be counted in
    /// flight by session: those its session has no event of, and none while another request of it waits.
    #[must_use]
    pub fn wait(&self, key: u64, slow: u16) -> Waiting {
        let slot = self.slot(key);
        let before = slot.load(Ordering::Relaxed);
        if before & WAITING != 0 || slow & !before == 0 {
            return Waiting::default();
        }
        let before = slot.fetch_or(WAITING, Ordering::Relaxed);
        if before & WAITING == 0 { Waiting { series: slow & !before, first: true } } else { Waiting::default() }
    }

    /// The request has its response head, or never will. Call it before its latency is judged.
    pub fn done(&self, key: u64, waiting: Waiting) {
        if waiting.first {
            self.slot(key).fetch_and(!WAITING, Ordering::Relaxed);
        }
    }

    /// Distinct sessions exposed in this step.
    #[must_use]
    pub fn distinct(&self) -> u32 {
        self.distinct.load(Ordering::Relaxed)
    }

    fn slot(&self, key: u64) -> &AtomicU16 {
        // The low bits choose the bucket of the split: take others, or sessions of one variant crowd together.
        &self.slots[usize::from(high_bits(key))]
    }
}

// === impl KeySet ===

impl Default for KeySet {
    fn default() -> Self {
        Self { words: (0..SESSION_SLOTS / 64).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl KeySet {
    /// Whether the key was not in the set; it is from now on.
    #[must_use]
    pub fn insert(&self, key: u64) -> bool {
        let (word, bit) = (&self.words[usize::from(high_bits(key) >> 6)], 1 << (high_bits(key) & 63));
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// Sixteen bits of a key, after a mix: neither end of it can be trusted to be even.
fn high_bits(key: u64) -> u16 {
    let mixed = (key ^ (key >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u16::try_from(mixed >> 48).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_per_session_and_series() {
        let sessions = Sessions::default();
        assert!(
            sessions.is_first(1, 0) && !sessions.is_first(1, 0) && sessions.is_first(1, 13) && sessions.is_first(2, 0)
        );
        sessions.expose(1);
        sessions.expose(1);
        sessions.expose(2);
        assert_eq!(sessions.distinct(), 2);
    }

    #[test]
    fn of_one_session_one_request_waits_and_only_for_what_it_has_not_done() {
        let sessions = Sessions::default();
        let slow = 0b1110;
        assert!(sessions.is_first(9, 2));
        let first = sessions.wait(9, slow);
        assert_eq!((first.series, sessions.wait(9, slow).series), (0b1010, 0));
        sessions.done(9, Waiting::default());
        assert_eq!(sessions.wait(9, slow).series, 0);
        sessions.done(9, first);
        assert_eq!(sessions.wait(9, slow).series, 0b1010);
    }

    #[test]
    fn keys_spread_over_the_slots() {
        let (set, sessions) = (KeySet::default(), Sessions::default());
        let mut rng = fastrand::Rng::with_seed(3);
        // Of 10,000 keys in 65,536 slots 711 are expected to fall into a slot that is taken, give or take 27.
        let fresh = (0..10_000).filter(|_| set.insert(rng.u64(..))).count();
        assert!((9_150..9_430).contains(&fresh), "{fresh}");
        // Keys below a bucket, as the candidate's are, spread as well.
        (0..10_000_u64).for_each(|i| sessions.expose(i * 10_000));
        assert!(sessions.distinct() > 8_500, "{}", sessions.distinct());
    }
}
