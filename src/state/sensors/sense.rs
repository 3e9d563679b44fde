//! What one request counts: who decides what is good or bad tells it here, and each event is counted at most once.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::core::gate::sessions::Waiting;
use crate::core::gate::slots::{FINE_TICKS, slot};
use crate::core::gate::{TICK_US, Tick};
use crate::core::id::Variant;

use super::Watch;
use super::counts::Shard;
use super::limits::micros;

/// Whatever took less is kept apart from other ticks, in microseconds.
const APART_US: u64 = FINE_TICKS * TICK_US;

/// What is remembered of one request, for the gate alone.
#[derive(Debug, Default)]
pub struct Sense {
    /// Its session; zero: it has none, and is one of its own.
    session: u64,
    /// When its last attempt began.
    begun: Tick,
    /// When that was fully written.
    written: Tick,
    /// The thresholds it is compared with.
    limits: u32,
    /// What it is counted in flight for.
    waiting: Waiting,
    /// The series it has an event of.
    said: u16,
    /// No other request can be of its session yet.
    is_first: bool,
    /// Its last exposure was fully written once.
    was_written: bool,
    /// A response head is waited for.
    waits: bool,
    /// It is counted among those in flight.
    in_flight: bool,
}

/// Where a request counts: what is watched, and the shard of its worker for whoever it went to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What is watched.
    pub watch: &'a Watch,
    /// The shard.
    pub shard: &'a Shard,
    /// Whose it is.
    pub variant: Variant,
}

// === impl Sense ===

impl Sense {
    /// The request belongs to this session; `is_first` if that begins with it.
    pub fn identify(&mut self, session: u64, is_first: bool) {
        (self.session, self.is_first) = (session, is_first);
    }

    /// An attempt begins in `tick`: an exposure.
    pub fn begin(&mut self, place: Place<'_>, tick: Tick) {
        place.shard.begun.add(1);
        self.was_written = false;
        self.begun = tick;
        if self.session != 0
            && let Some(sessions) = place.watch.sessions(place.variant)
        {
            sessions.expose(self.session);
        }
    }

    /// The attempt is fully written in `tick`: its latency is being taken. One that goes on over another connection is written again, and is still the
    /// same exposure.
    pub fn write(&mut self, place: Place<'_>, tick: Tick) {
        let Place { watch, shard, variant } = place;
        if !std::mem::replace(&mut self.was_written, true) {
            shard.written.add(1);
        }
        self.waits = true;
        if !shard.started.is_kept() {
            return;
        }
        self.written = tick;
        self.limits = watch.limits.newest();
        // An attempt that repeats a slow one has been counted for what it may become.
        self.in_flight = watch.what.slow_mask & self.said == 0;
        if !self.in_flight {
            return;
        }
        // The first of its session waits alone.
        let shared = self.session != 0 && !self.is_first;
        self.waiting = match watch.sessions(variant).filter(|_| shared) {
            Some(sessions) => sessions.wait(self.session, watch.what.slow_mask),
            None => Waiting::alone(watch.what.slow_mask),
        };
        let at = slot(self.written, self.written);
        let left_out = watch.what.slow_mask & !self.waiting.series;
        // Left out first: what waits is seen late at worst, never too often.
        if left_out != 0 {
            shard.started.leave_out(left_out, &watch.what, at);
        }
        shard.started.all.add(at);
    }

    /// Whether a response head is waited for.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// The response head is not waited for any more, after so long (in a queue and since it was written). `answered`: because it came.
    pub fn leave(&mut self, place: Place<'_>, took: Duration, answered: bool, now: Instant) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        let Place { watch, shard, variant } = place;
        let took = micros(took);
        if answered {
            shard.latency(took);
        }
        if !shard.started.is_kept() {
            return;
        }
        // Nobody has to ask what time it is for what is kept apart anyway.
        let at = if took < APART_US { slot(self.written, self.written) } else { slot(self.written, watch.tick(now)) };
        if std::mem::take(&mut self.in_flight) {
            self.cease(place, at);
        }
        for (series, limit) in watch.what.slow.iter().zip(watch.limits.of(self.limits)) {
            if took > limit[variant as usize].load(Ordering::Relaxed) {
                self.event(place, 1 << series, at);
            }
        }
    }

    fn cease(&mut self, place: Place<'_>, at: Option<usize>) {
        let Place { watch, shard, variant } = place;
        let waiting = std::mem::take(&mut self.waiting);
        let left_out = watch.what.slow_mask & !waiting.series;
        shard.ended.all.add(at);
        if left_out != 0 {
            shard.ended.leave_out(left_out, &watch.what, at);
        }
        if let Some(sessions) = watch.sessions(variant) {
            sessions.done(self.session, waiting);
        }
        // Seen late at worst, never twice: no longer in flight first, an event then.
        fence(Ordering::Release);
    }

    /// The upstream did something wrong.
    pub fn bad(&mut self, place: Place<'_>, now: Instant) {
        self.begun_event(place, place.watch.what.bad, now);
    }

    /// The upstream refused the request, with a status of the 4xx class.
    pub fn refused(&mut self, place: Place<'_>, now: Instant) {
        self.begun_event(place, place.watch.what.refused, now);
    }

    /// The request ended well.
    pub fn succeed(&mut self, place: Place<'_>, now: Instant) {
        place.shard.succeeded.add(1);
        self.begun_event(place, place.watch.what.good, now);
    }

    /// Counts an event where the attempt began.
    fn begun_event(&mut self, place: Place<'_>, mask: u16, now: Instant) {
        if mask & !self.said != 0 {
            self.event(place, mask, slot(self.begun, place.watch.tick(now)));
        }
    }

    /// Counts an event of every series in `mask` it has none of yet.
    fn event(&mut self, place: Place<'_>, mask: u16, at: Option<usize>) {
        let mut left = mask & !self.said;
        self.said |= left;
        let Place { watch, shard, variant } = place;
        let sessions = watch.sessions(variant).filter(|_| self.session != 0);
        while left != 0 {
            let series = left.trailing_zeros() as usize;
            left &= left - 1;
            shard.events[series].add(at);
            // At most SERIES_MAX, which is far below.
            let number = u8::try_from(series).unwrap_or(u8::MAX);
            if sessions.is_none_or(|sessions| sessions.is_first(self.session, number)) {
                shard.firsts[series].add(at);
            }
        }
    }
}
