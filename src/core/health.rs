//! The probing of one endpoint as a state machine: results in, effects and the time of the next probe out.

pub mod json;
pub mod judge;
pub mod wanted;

use std::time::{Duration, Instant};

use self::wanted::{Pace, Startup};

/// What is asked of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// Has it come up? Has to pass once before readiness is asked.
    Startup,
    /// Can it take traffic?
    Readiness,
    /// Is it alive at all? Reported only.
    Liveness,
    /// Is everything behind it well? Counted for the gate only.
    Deep,
}

/// What is known about whether an endpoint can take traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Readiness {
    /// Nothing was decided yet.
    #[default]
    Unknown,
    /// It was never ready and is not.
    NotReady,
    /// It takes traffic.
    Ready,
    /// It was ready once and is not any more.
    Lost,
}

/// What a result means for the rest of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was `from` and is `to`.
    Became {
        /// What was known before.
        from: Readiness,
        /// What is known now.
        to: Readiness,
    },
    /// Its liveness probes began to pass or to fail. Moves no traffic.
    Liveness {
        /// Whether they pass.
        alive: bool,
    },
}

/// The probing of one endpoint. Kept through reloads for as long as the endpoint is probed.
#[derive(Clone, Debug)]
pub struct Probing {
    readiness: Readiness,
    /// Since when it is probed.
    began: Instant,
    /// The startup probe has not passed yet.
    starting: bool,
    /// One pass is enough while nothing is known: the endpoint is as old as this process, so that waiting for more would only delay it.
    at_boot: bool,
    streak: Streak,
    alive: Option<bool>,
    alive_streak: Streak,
    /// The next pause is drawn from the whole interval, so that endpoints that began together do not stay together.
    spread: bool,
}

/// Equal results in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    passed: bool,
    count: u32,
}

/// Longest time over which the first probes of endpoints that appear together are spread.
pub const FIRST_SPREAD_MAX: Duration = Duration::from_secs(1);
/// By how much each of them lengthens that time.
const FIRST_SPREAD_EACH: Duration = Duration::from_millis(1);

/// How long the first probe of one of `count` endpoints that appear together waits; `random` are 32 uniform bits.
#[must_use]
pub fn first_wait(count: usize, random: u32) -> Duration {
    let spread = FIRST_SPREAD_EACH.saturating_mul(u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX));
    spread.min(FIRST_SPREAD_MAX).mul_f64(fraction(random))
}

/// `base`, longer or shorter by at most `jitter` (a share of it); `random` are 32 uniform bits.
#[must_use]
pub fn jittered(base: Duration, jitter: f64, random: u32) -> Duration {
    base.mul_f64((1.0 + jitter * (2.0 * fraction(random) - 1.0)).max(0.0))
}

/// Probes begin together at multiples of this: one that wakes a sleeping process on its own costs several times as much.
pub const STEP: Duration = Duration::from_millis(50);

/// When a probe begins that is due `pause` after `now`: at the nearest multiple of [`STEP`], but at once for pauses too short for it.
/// Both count from any one instant.
#[must_use]
pub fn in_step(now: Duration, pause: Duration) -> Duration {
    let due = now + pause;
    if pause < STEP {
        return due;
    }
    // Less than a step, so that it fits.
    let past = Duration::from_nanos(u64::try_from(due.as_nanos() % STEP.as_nanos()).unwrap_or(0));
    let before = due.saturating_sub(past);
    if past < STEP / 2 { before } else { before + STEP }
}

/// `random` as a number between 0 and 1.
fn fraction(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

// === impl Probing ===

impl Probing {
    /// Begins at `now` with nothing known. `at_boot`: the endpoint is there since the process began.
    #[must_use]
    pub fn new(has_startup: bool, at_boot: bool, now: Instant) -> Self {
        Self {
            readiness: Readiness::Unknown,
            began: now,
            starting: has_startup,
            at_boot,
            streak: Streak::default(),
            alive: None,
            alive_streak: Streak::default(),
            spread: true,
        }
    }

    /// What is known.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// Whether its liveness probes pass; `None` before the first.
    #[must_use]
    pub fn alive(&self) -> Option<bool> {
        self.alive
    }

    /// Which of the two probes that decide about traffic comes next.
    #[must_use]
    pub fn deciding(&self) -> Probe {
        if self.starting { Probe::Startup } else { Probe::Readiness }
    }

    /// Whether `probe` has a turn by now. Before it has come up nothing else is asked of an endpoint, and how all behind it is only of one
    /// that was ready once: what a boot looks like is nobody's fault.
    #[must_use]
    pub fn asks(&self, probe: Probe) -> bool {
        match probe {
            Probe::Startup => self.starting,
            Probe::Readiness | Probe::Liveness => !self.starting,
            Probe::Deep => !self.starting && matches!(self.readiness, Readiness::Ready | Readiness::Lost),
        }
    }

    /// Goes on under other settings: a startup probe that is gone is not waited for, a new one is not asked of who is up already.
    pub fn adopt(&mut self, has_startup: bool, has_liveness: bool) {
        self.starting &= has_startup;
        if !has_liveness {
            (self.alive, self.alive_streak) = (None, Streak::default());
        }
    }

    /// Takes the result of a probe. Deep probes decide nothing here; so does a result of a probe that is not asked any more.
    pub fn result(
        &mut self,
        probe: Probe,
        passed: bool,
        pace: &Pace,
        startup: Option<&Startup>,
        now: Instant,
    ) -> Option<Effect> {
        match probe {
            Probe::Startup if self.starting => self.started(passed, startup, now),
            Probe::Readiness if !self.starting => self.ready(passed, pace),
            Probe::Liveness => self.lively(passed, pace),
            Probe::Startup | Probe::Readiness | Probe::Deep => None,
        }
    }

    /// How long to wait before the next startup or readiness probe; `random` are 32 uniform bits.
    pub fn wait(&mut self, pace: &Pace, random: u32) -> Duration {
        if self.is_undecided() {
            // A startup probe that has just passed is followed by readiness at once.
            let at_once = !self.starting && self.readiness == Readiness::Unknown && self.streak.count == 0;
            let base = if at_once { Duration::ZERO } else { pace.fast_interval };
            return jittered(base, pace.jitter.fraction(), random);
        }
        if std::mem::take(&mut self.spread) {
            return pace.interval.mul_f64(fraction(random));
        }
        jittered(pace.interval, pace.jitter.fraction(), random)
    }

    /// Whether it is unknown or on the way to a change.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        match self.readiness {
            Readiness::Unknown => true,
            Readiness::Ready => self.streak.count > 0 && !self.streak.passed,
            Readiness::NotReady | Readiness::Lost => !self.starting && self.streak.count > 0 && self.streak.passed,
        }
    }

    fn started(&mut self, passed: bool, startup: Option<&Startup>, now: Instant) -> Option<Effect> {
        if passed {
            self.starting = false;
            self.streak = Streak::default();
            return None;
        }
        let patience = startup.map_or(Duration::ZERO, |startup| startup.timeout);
        let over = now.saturating_duration_since(self.began) >= patience;
        (over && self.readiness == Readiness::Unknown).then(|| self.settle(Readiness::NotReady))
    }

    fn ready(&mut self, passed: bool, pace: &Pace) -> Option<Effect> {
        let streak = self.streak.take(passed);
        let rise = if self.at_boot && self.readiness == Readiness::Unknown { 1 } else { pace.rise };
        match self.readiness {
            Readiness::Ready if !passed && streak >= pace.fall => Some(self.settle(Readiness::Lost)),
            Readiness::Unknown if !passed && streak >= pace.fall => Some(self.settle(Readiness::NotReady)),
            Readiness::Unknown | Readiness::NotReady | Readiness::Lost if passed && streak >= rise => {
                Some(self.settle(Readiness::Ready))
            }
            _ => None,
        }
    }

    fn lively(&mut self, passed: bool, pace: &Pace) -> Option<Effect> {
        let streak = self.alive_streak.take(passed);
        let needed = match self.alive {
            None => 1,
            Some(_) if passed => pace.rise,
            Some(_) => pace.fall,
        };
        if self.alive == Some(passed) || streak < needed {
            return None;
        }
        self.alive = Some(passed);
        Some(Effect::Liveness { alive: passed })
    }

    fn settle(&mut self, to: Readiness) -> Effect {
        let from = std::mem::replace(&mut self.readiness, to);
        Effect::Became { from, to }
    }
}

// === impl Streak ===

impl Streak {
    /// Counts a result; how many equal ones came in a row.
    fn take(&mut self, passed: bool) -> u32 {
        self.count = if self.passed == passed { self.count.saturating_add(1) } else { 1 };
        self.passed = passed;
        self.count
    }
}

// === impl Probe ===

impl Probe {
    /// All, in index order.
    pub const ALL: [Self; 4] = [Self::Startup, Self::Readiness, Self::Liveness, Self::Deep];

    /// The word used in the API, the metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
            Self::Deep => "deep",
        }
    }

    /// Whether the expectations about body and latency apply to it; the others pass on their status.
    #[must_use]
    pub const fn is_strict(self) -> bool {
        matches!(self, Self::Readiness | Self::Deep)
    }
}

// === impl Readiness ===

impl Readiness {
    /// The one numbered `number`; [`Readiness::Unknown`] for any other number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::NotReady,
            2 => Self::Ready,
            3 => Self::Lost,
            _ => Self::Unknown,
        }
    }

    /// The word used in the API. That an endpoint was ready once is the business of the gate alone.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::NotReady | Self::Lost => "not_ready",
        }
    }
}

#[cfg(test)]
mod tests;
