//! What its own requests say of an endpoint and what was decided about it, shared by all workers and by both variants it may serve.
//!
//! Workers count outcomes and let the one request of a trial in; control alone ejects, opens trials, restores and drains. Neither locks.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::core::balance::ewma::{Ewma, Latency};
use crate::core::outlier::fault::Fault;
use crate::core::outlier::{Bound, Cause};

use super::counters::Cell;

/// States of an endpoint in the lower bits of its word; the even ones admit requests. The bits above count ejections and restorations:
/// what began under one of them says nothing under the next.
const IN: u32 = 0;
const EJECTED: u32 = 1;
const TRIAL: u32 = 2;
const TRYING: u32 = 3;
const STATE: u32 = 3;
const ERA: u32 = 4;
/// Times a latency is written again because another worker wrote meanwhile.
const LATENCY_TRIES_MAX: u32 = 4;

/// How an endpoint fares with its own requests. Kept by its identity (service, version, address): reloads and promotions change nothing.
#[derive(Debug)]
pub struct Conduct {
    began: Instant,
    word: AtomicU32,
    /// Failures since the last success.
    streak: AtomicU32,
    /// The longest streak since control looked last: a success right behind it must not hide it.
    longest: AtomicU32,
    /// What failed last ([`Fault::to_bits`]).
    last_fault: AtomicU32,
    /// Recent latency ([`Ewma::to_bits`]).
    latency: AtomicU64,
    /// Attempts whose answer is awaited; counted only where latency is ([`Conduct::asked`]).
    awaited: AtomicU32,
    /// Milliseconds since `began` at which it came into service; zero: it was there from the beginning.
    since: AtomicU64,
    /// Milliseconds since `began`, plus one, at which it was drained; zero while it is not.
    drained_at: AtomicU64,
    /// The same in milliseconds since 1970, for people.
    drained_since: AtomicU64,
    outcomes: Box<[Outcomes]>,
    ejection: ArcSwapOption<Ejection>,
    sparing: ArcSwapOption<Sparing>,
}

/// What one worker counted.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Outcomes {
    ended: Cell,
    failed: Cell,
}

/// Under which decision an attempt began: it counts only while that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    word: NonZeroU32,
    /// Whether it is among those whose answer is awaited.
    awaited: bool,
}

/// Why and how long an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// What failed last.
    pub fault: Option<Fault>,
    /// When, since 1970.
    pub at: Duration,
    /// For how long.
    pub lasting: Duration,
}

/// Why an endpoint that fails takes requests all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sparing {
    /// Why it was to be ejected.
    pub cause: Cause,
    /// What failed last.
    pub fault: Option<Fault>,
    /// Why it was not.
    pub bound: Bound,
    /// Since when, since 1970.
    pub at: Duration,
}

/// What is decided about an endpoint, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It takes requests.
    In,
    /// It takes none.
    Ejected,
    /// It takes a single one.
    Trial,
}

// === impl Conduct ===

impl Conduct {
    /// Nothing is known yet. `began` is the origin of all its times.
    #[must_use]
    pub fn new(workers: usize, began: Instant) -> Self {
        Self {
            began,
            word: AtomicU32::new(ERA | IN),
            streak: AtomicU32::default(),
            longest: AtomicU32::default(),
            last_fault: AtomicU32::default(),
            latency: AtomicU64::default(),
            awaited: AtomicU32::default(),
            since: AtomicU64::default(),
            drained_at: AtomicU64::default(),
            drained_since: AtomicU64::default(),
            outcomes: (0..workers.max(1)).map(|_| Outcomes::default()).collect(),
            ejection: ArcSwapOption::empty(),
            sparing: ArcSwapOption::empty(),
        }
    }

    // --- for workers ---

    /// Whether a request may be let in. Two relaxed loads.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Relaxed) & EJECTED == 0 && !self.is_drained()
    }

    /// Whether requests are let in freely: neither ejected nor on trial nor drained.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.word.load(Ordering::Relaxed) & STATE == IN && !self.is_drained()
    }

    /// Lets a request in; `None`: it is ejected, or another one is on trial already.
    #[must_use]
    pub fn admit(&self) -> Option<Admission> {
        let word = self.word.load(Ordering::Relaxed);
        match word & STATE {
            IN => Some(Admission::under(word)),
            TRIAL => {
                let trying = word | TRYING;
                let taken = self.word.compare_exchange(word, trying, Ordering::AcqRel, Ordering::Relaxed);
                taken.is_ok().then(|| Admission::under(trying))
            }
            _ => None,
        }
    }

    /// Lets a request in whatever was decided; what becomes of it says nothing.
    #[must_use]
    pub fn admit_regardless(&self) -> Admission {
        self.admit().unwrap_or_else(|| Admission::under(self.word.load(Ordering::Relaxed) & !STATE | EJECTED))
    }

    /// The attempt says that the endpoint works.
    pub fn credit(&self, admission: Admission, worker: usize) {
        let admission = self.answered(admission);
        if self.stands(admission) {
            self.outcomes[worker].ended.add(1);
            if self.streak.load(Ordering::Relaxed) != 0 {
                self.streak.store(0, Ordering::Relaxed);
            }
        }
    }

    /// The attempt failed and the endpoint is to blame.
    pub fn blame(&self, admission: Admission, worker: usize, fault: Fault) {
        let admission = self.answered(admission);
        if self.stands(admission) {
            let outcomes = &self.outcomes[worker];
            self.last_fault.store(fault.to_bits(), Ordering::Relaxed);
            outcomes.failed.add(1);
            fence(Ordering::Release);
            outcomes.ended.add(1);
            let streak = self.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            self.longest.fetch_max(streak, Ordering::Relaxed);
        }
    }

    /// The attempt says nothing about the endpoint: where it was on trial, another one may be.
    pub fn give_back(&self, admission: Admission) {
        let admission = self.answered(admission);
        if admission.is_trial() {
            let trial = admission.word() & !STATE | TRIAL;
            // If it fails, the trial was decided meanwhile.
            let _ = self.word.compare_exchange(admission.word(), trial, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Takes down how long a response took; `None`: the attempt failed.
    pub fn observe_latency(&self, latency: Option<Duration>, now: Instant) {
        let now_ms = self.wrapping_ms(now);
        let micros = latency.map(|latency| latency.as_secs_f32() * 1e6);
        let mut kept = self.latency.load(Ordering::Relaxed);
        for _ in 0..LATENCY_TRIES_MAX {
            let next = Ewma::from_bits(kept).observe(now_ms, micros).to_bits();
            match self.latency.compare_exchange_weak(kept, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => kept = other,
            }
        }
    }

    /// Takes down that a response has taken at least so long and did not come.
    pub fn observe_wait(&self, waited: Duration, now: Instant) {
        let known = match self.latency(now) {
            Latency::Recent(us) => us,
            Latency::Unknown | Latency::Awaited => 0.0,
        };
        if waited.as_secs_f32() * 1e6 > known {
            self.observe_latency(Some(waited), now);
        }
    }

    /// What is known of how long it takes to answer. On trial it is nothing: who is tried is not put off for what others wait for.
    #[must_use]
    pub fn latency(&self, now: Instant) -> Latency {
        let awaited = self.awaited.load(Ordering::Relaxed) > 0 && self.word.load(Ordering::Relaxed) & STATE == IN;
        Ewma::from_bits(self.latency.load(Ordering::Relaxed)).at(self.wrapping_ms(now), awaited)
    }

    /// The attempt is under way and its answer awaited, until [`Conduct::answered`] or what else ends the attempt.
    #[must_use]
    pub fn asked(&self, admission: Admission) -> Admission {
        if !admission.awaited {
            self.awaited.fetch_add(1, Ordering::Relaxed);
        }
        Admission { awaited: true, ..admission }
    }

    /// The answer to the attempt began.
    pub fn answered(&self, admission: Admission) -> Admission {
        if admission.awaited {
            self.awaited.fetch_sub(1, Ordering::Relaxed);
        }
        Admission { awaited: false, ..admission }
    }

    /// How long it is in service; `None`: from the beginning.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        (since != 0).then(|| now.saturating_duration_since(self.began + Duration::from_millis(since)))
    }

    /// Whether it was drained. One relaxed load.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained_at.load(Ordering::Relaxed) != 0
    }

    /// When it was drained.
    #[must_use]
    pub fn drained_at(&self) -> Option<Instant> {
        let at = self.drained_at.load(Ordering::Acquire);
        (at != 0).then(|| self.began + Duration::from_millis(at - 1))
    }

    fn stands(&self, admission: Admission) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        match admission.word() & STATE {
            IN => word == admission.word(),
            TRYING => word & !STATE == admission.word() & !STATE && word & TRIAL != 0,
            _ => false,
        }
    }

    // --- for control ---

    /// Attempts that ended and say something, and how many of them failed.
    #[must_use]
    pub fn outcomes(&self) -> (u64, u64) {
        let sum = |read: fn(&Outcomes) -> u64| self.outcomes.iter().map(read).fold(0, u64::wrapping_add);
        // A failure must never be seen as an end alone: a trial would count as passed.
        let ended = sum(|o| o.ended.get());
        fence(Ordering::Acquire);
        (ended, sum(|o| o.failed.get()))
    }

    /// The most failures in a row since it was asked last, those that go on included.
    #[must_use]
    pub fn take_streak(&self) -> u32 {
        let streak = self.streak.load(Ordering::Relaxed);
        if self.longest.load(Ordering::Relaxed) == 0 {
            return streak;
        }
        self.longest.swap(0, Ordering::Relaxed).max(streak)
    }

    /// What failed last.
    #[must_use]
    pub fn last_fault(&self) -> Option<Fault> {
        Fault::from_bits(self.last_fault.load(Ordering::Relaxed))
    }

    /// What is decided about it.
    #[must_use]
    pub fn standing(&self) -> Stands {
        match self.word.load(Ordering::Relaxed) & STATE {
            IN => Stands::In,
            EJECTED => Stands::Ejected,
            _ => Stands::Trial,
        }
    }

    /// The ejection it is in, or on trial after.
    #[must_use]
    pub fn ejection(&self) -> Option<Arc<Ejection>> {
        self.ejection.load_full()
    }

    /// Why it is spared, while it is.
    #[must_use]
    pub fn sparing(&self) -> Option<Arc<Sparing>> {
        self.sparing.load_full()
    }

    /// It fails and takes requests all the same; `None`: not any more.
    pub fn spare(&self, sparing: Option<Sparing>) {
        self.sparing.store(sparing.map(Arc::new));
    }

    /// Lets no requests in from now on.
    pub fn eject(&self, ejection: Ejection) {
        self.spare(None);
        self.ejection.store(Some(Arc::new(ejection)));
        self.next_era(EJECTED);
    }

    /// Lets a single request in.
    pub fn open_trial(&self) {
        // How slow it was is forgotten: otherwise it would not be tried for want of speed.
        self.latency.store(0, Ordering::Relaxed);
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word & !STATE | TRIAL, Ordering::Release);
    }

    /// Lets requests in again, little by little where there is a slow start.
    pub fn restore(&self, now: Instant) {
        self.enter_service(now);
        self.next_era(IN);
        self.ejection.store(None);
    }

    /// It begins to take requests now.
    pub fn enter_service(&self, now: Instant) {
        self.since.store(self.ms(now).max(1), Ordering::Relaxed);
    }

    /// Drained at `now`, which people call `unix` (since 1970). Whether it was not before.
    pub fn drain(&self, now: Instant, unix: Duration) -> bool {
        if self.is_drained() {
            return false;
        }
        self.drained_since.store(u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.drained_at.store(self.ms(now) + 1, Ordering::Release);
        true
    }

    /// Not drained any more. Whether it was.
    pub fn undrain(&self, now: Instant) -> bool {
        if !self.is_drained() {
            return false;
        }
        self.enter_service(now);
        self.drained_at.store(0, Ordering::Release);
        true
    }

    /// It was gone, and with it what was decided by hand.
    pub fn forget_drain(&self) {
        self.drained_at.store(0, Ordering::Release);
    }

    /// Since when it is drained, in milliseconds since 1970.
    #[must_use]
    pub fn drained_since_ms(&self) -> Option<u64> {
        self.is_drained().then(|| self.drained_since.load(Ordering::Relaxed))
    }

    /// Nothing was decided about it: it is new to whoever decides.
    pub fn reset_standing(&self) {
        self.spare(None);
        if self.standing() != Stands::In {
            self.next_era(IN);
            self.ejection.store(None);
        }
    }

    fn next_era(&self, state: u32) {
        let word = self.word.load(Ordering::Relaxed);
        let era = (word & !STATE).wrapping_add(ERA).max(ERA);
        self.word.store(era | state, Ordering::Release);
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn wrapping_ms(&self, now: Instant) -> u32 {
        u32::try_from(self.ms(now) & u64::from(u32::MAX)).unwrap_or(0)
    }
}

// === impl Ejection ===

/// `5 failures in a row, last: status 503`
impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Some(fault) => write!(f, "{}, last: {fault}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}

// === impl Sparing ===

/// `failing, kept as the last of its pool: 5 failures in a row, last: status 503`
impl fmt::Display for Sparing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failing, {}: {}", self.bound, self.cause)?;
        self.fault.map_or(Ok(()), |fault| write!(f, ", last: {fault}"))
    }
}

// === impl Admission ===

impl Admission {
    /// Whether it is the one request of a trial.
    #[must_use]
    pub const fn is_trial(self) -> bool {
        self.word.get() & STATE == TRYING
    }

    /// The era counts from one and passes over zero, so that a word is never zero; if it were, its attempts would not count.
    fn under(word: u32) -> Self {
        Self { word: NonZeroU32::new(word).unwrap_or(NonZeroU32::MIN), awaited: false }
    }

    const fn word(self) -> u32 {
        self.word.get()
    }
}

#[cfg(test)]
mod tests;
