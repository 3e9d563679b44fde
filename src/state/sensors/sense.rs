//! What one request counts: who decides what is good or bad tells it here, and each event is counted at most once.

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::core::gate::Tick;
use crate::core::gate::sessions::Waiting;
use crate::core::gate::slots::slot;
use crate::core::id::Variant;

use super::Watch;
use super::counts::Shard;
use super::limits::micros;

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
    /// A response head is waited for.
    waits: bool,
    /// It is counted among those in flight.
    in_flight: bool,
    /// The series it has an event of.
    said: u16,
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
    /// The request belongs to this session.
    pub fn identify(&mut self, session: u64) {
        self.session = session;
    }

    /// An attempt begins: an exposure.
    pub fn begin(&mut self, place: Place<'_>, now: Instant) {
        place.shard.begun.add(1);
        self.begun = place.watch.tick(now);
        if self.session != 0
            && let Some(sessions) = place.watch.sessions(place.variant)
        {
            sessions.expose(self.session);
        }
    }

    /// The attempt is fully written: its latency is being taken.
    pub fn write(&mut self, place: Place<'_>, now: Instant) {
        let Place { watch, shard, variant } = place;
        shard.written.add(1);
        self.written = watch.tick(now);
        self.waits = true;
        self.limits = watch.limits.newest();
        // An attempt that repeats a slow one has been counted for what it may become.
        self.in_flight = watch.what.slow_mask & self.said == 0 && !shard.started.is_empty();
        if !self.in_flight {
            return;
        }
        self.waiting = match watch.sessions(variant) {
            Some(sessions) if self.session != 0 => sessions.wait(self.session, watch.what.slow_mask),
            _ => {
                let mut alone = Waiting::default();
                alone.series = watch.what.slow_mask;
                alone
            }
        };
        let at = slot(self.written, self.written);
        count_waiting(place, &shard.started, self.waiting.series, at);
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
        if shard.started.is_empty() {
            return;
        }
        if std::mem::take(&mut self.in_flight) {
            count_waiting(place, &shard.ended, self.waiting.series, slot(self.written, watch.tick(now)));
            if let Some(sessions) = watch.sessions(variant) {
                sessions.done(self.session, std::mem::take(&mut self.waiting));
            }
            // Seen late at worst, never twice: no longer in flight first, an event then.
            fence(Ordering::Release);
        }
        for (at, series) in watch.what.slow.iter().enumerate() {
            if took > watch.limits.of(self.limits, at, variant) {
                self.event(place, 1 << series, self.written, now);
            }
        }
    }

    /// The upstream did something wrong.
    pub fn bad(&mut self, place: Place<'_>, now: Instant) {
        self.event(place, place.watch.what.bad, self.begun, now);
    }

    /// The upstream refused the request, with a status of the 4xx class.
    pub fn refused(&mut self, place: Place<'_>, now: Instant) {
        self.event(place, place.watch.what.refused, self.begun, now);
    }

    /// The request ended well.
    pub fn succeed(&mut self, place: Place<'_>, now: Instant) {
        place.shard.succeeded.add(1);
        self.event(place, place.watch.what.good, self.begun, now);
    }

    /// Counts an event of every series in `mask` it has none of yet.
    fn event(&mut self, place: Place<'_>, mask: u16, began: Tick, now: Instant) {
        let mut left = mask & !self.said;
        if left == 0 {
            return;
        }
        self.said |= left;
        let Place { watch, shard, variant } = place;
        let at = slot(began, watch.tick(now));
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

fn count_waiting(place: Place<'_>, rings: &[super::counts::Ring], by_session: u16, at: Option<usize>) {
    if let Some((all, per_series)) = rings.split_first() {
        all.add(at);
        for (ring, series) in per_series.iter().zip(&place.watch.what.slow) {
            if by_session & 1 << series != 0 {
                ring.add(at);
            }
        }
    }
}
