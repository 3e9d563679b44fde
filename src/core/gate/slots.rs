//! Where a worker keeps what belongs to a tick: a ring of single ticks for a little more than the last three seconds, and one of seconds
//! for what is older.
//!
//! Both sides, the worker that counts and the reader that takes increments, use the same two functions, so no slot is ever reset: an
//! increment found in a slot belongs to the youngest tick that maps there. A whole second becomes one slot at once, and for the worker a
//! little later than for the gate: what the worker does not keep apart any more, the gate does not either.

use super::input::{TICKS_PER_SECOND, Tick};

/// Ticks after the end of a second during which its ticks are kept apart.
pub const FINE_TICKS: u64 = 60;
/// Ticks by which a worker's clock may run ahead of the reader's.
const AHEAD_TICKS: u64 = 3;
/// Ticks a reader may be late.
const LATE_TICKS: u64 = 40;
/// Slots for single ticks: some more than are kept apart, so that neither a worker whose clock runs ahead of the reader's nor a reader that
/// is late takes one tick for another.
const FINE_SLOTS: u64 = 128;
const _: () = assert!(FINE_SLOTS > FINE_TICKS + TICKS_PER_SECOND + 2 * AHEAD_TICKS + LATE_TICKS);
/// Slots for seconds; bounds how late an event may come.
const COARSE_SLOTS: u64 = 128;
/// Slots altogether.
pub const SLOTS: usize = 256;
const _: () = assert!(SLOTS as u64 == FINE_SLOTS + COARSE_SLOTS);
/// The latest an event can be attributed, in ticks after its request began: 124 s.
pub const LATE_MAX: u64 = (COARSE_SLOTS - 2) * TICKS_PER_SECOND - LATE_TICKS;

/// The slot of something that began in `began`, counted in `now`; `None` if it comes too late.
#[must_use]
pub fn slot(began: Tick, now: Tick) -> Option<usize> {
    let second = began / TICKS_PER_SECOND;
    let slot = if now < (second + 1) * TICKS_PER_SECOND - 1 + FINE_TICKS + AHEAD_TICKS {
        began % FINE_SLOTS
    } else if now - began <= LATE_MAX {
        FINE_SLOTS + second % COARSE_SLOTS
    } else {
        return None;
    };
    usize::try_from(slot).ok()
}

/// The slot of the second of `tick`.
#[must_use]
pub fn slot_of_second(tick: Tick) -> usize {
    usize::try_from(FINE_SLOTS + tick / TICKS_PER_SECOND % COARSE_SLOTS).unwrap_or(0)
}

/// Whether a single tick is kept in `slot`, and not a second.
#[must_use]
pub fn is_tick(slot: usize) -> bool {
    u64::try_from(slot).is_ok_and(|slot| slot < FINE_SLOTS)
}

/// The slot of the youngest tick a worker can be in when the reader is in `now`.
#[must_use]
pub fn newest(now: Tick) -> usize {
    usize::try_from((now + AHEAD_TICKS - 1) % FINE_SLOTS).unwrap_or(0)
}

/// The tick whose events `slot` holds at `now`; of a second its first tick.
#[must_use]
pub fn tick_of(slot: usize, now: Tick) -> Option<Tick> {
    let slot = u64::try_from(slot).ok()?;
    if slot < FINE_SLOTS {
        let newest = now + AHEAD_TICKS - 1;
        return newest.checked_sub((newest - slot % FINE_SLOTS) % FINE_SLOTS);
    }
    let second = now / TICKS_PER_SECOND;
    let back = (second + COARSE_SLOTS - (slot - FINE_SLOTS) % COARSE_SLOTS) % COARSE_SLOTS;
    Some(second.checked_sub(back)? * TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_reader_finds_the_tick_a_worker_meant(began in 0..100_000_u64, age in 0..LATE_MAX, lag in 0..=LATE_TICKS) {
            let counted = began + age;
            let slot = slot(began, counted).expect("in time");
            prop_assert!(slot < SLOTS);
            // The reader comes at the end of that tick or a while later, or its clock is up to two ticks behind.
            for reader in [counted + lag, counted.saturating_sub(lag.min(AHEAD_TICKS - 1))] {
                let found = tick_of(slot, reader);
                let (first, apart) = (began / TICKS_PER_SECOND * TICKS_PER_SECOND, (slot as u64) < FINE_SLOTS);
                prop_assert_eq!(found, Some(if apart { began } else { first }), "reader {}", reader);
                // Single ticks for at least three seconds; and never one slot for what the gate still keeps apart.
                prop_assert!(apart || (age > FINE_TICKS && first + TICKS_PER_SECOND - 1 + FINE_TICKS <= reader));
            }
        }
    }

    #[test]
    fn what_comes_too_late_has_no_slot() {
        assert_eq!(slot(0, LATE_MAX + 1), None);
        assert!(slot(0, LATE_MAX).is_some());
    }
}
