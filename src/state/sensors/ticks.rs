//! In which tick it is, without a division for every request.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::core::gate::{TICK_US, Tick};

use super::Watch;

/// The tick a worker saw last: most looks find it going on.
#[derive(Debug, Default)]
pub struct Ticks(Cell<Option<Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Where ticks are counted from.
    origin: Instant,
    from: Instant,
    until: Instant,
    tick: Tick,
}

// === impl Ticks ===

impl Ticks {
    /// The tick of `watch` it is at `now`.
    #[must_use]
    pub fn at(&self, watch: &Watch, now: Instant) -> Tick {
        match self.0.get() {
            Some(known) if known.from <= now && now < known.until && known.origin == watch.began => known.tick,
            _ => self.find(watch, now),
        }
    }

    #[cold]
    fn find(&self, watch: &Watch, now: Instant) -> Tick {
        let (origin, tick) = (watch.began, watch.tick(now));
        let begins = |tick: Tick| origin.checked_add(Duration::from_micros(tick.saturating_mul(TICK_US)));
        let span = begins(tick).zip(begins(tick + 1));
        self.0.set(span.map(|(from, until)| Known { origin, from, until, tick }));
        tick
    }
}
