//! When an attempt may be made again: which failures, how often, how much of the traffic, after which wait.

use std::time::Duration;

use super::weight::{GRAINS, Weight};

/// Most extra attempts per request that can be asked for.
pub const ATTEMPTS_MAX: u32 = 5;
/// Longest wait before a retry.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How far back a budget looks.
pub const BUDGET_WINDOW: Duration = Duration::from_secs(10);
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_secs(1);

/// The rules of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRules {
    /// Extra attempts per request; beside them a connection found dead is replayed, and one failed connect goes to another endpoint.
    pub attempts: u32,
    /// On what.
    pub on: RetryOn,
    /// Share of the requests that may be retried.
    pub budget: Weight,
    /// Retries per second that are allowed beside it.
    pub min_per_second: u32,
    /// Upper end of the first wait; each further one is twice as long.
    pub backoff: Duration,
    /// Largest request body kept for a retry, in bytes.
    pub max_body: u64,
}

/// Failures that may be retried. All but the first two only for idempotent methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection: nothing was sent.
    pub connect: bool,
    /// A connection that was open before died before any byte of a response.
    pub stale: bool,
    /// A response with status 5xx.
    pub server_error: bool,
    /// Closed or reset before a response head.
    pub reset: bool,
    /// No response head in time.
    pub timeout: bool,
}

/// Why an attempt is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// [`RetryOn::connect`]
    Connect,
    /// [`RetryOn::server_error`]
    ServerError,
    /// [`RetryOn::reset`]
    Reset,
    /// [`RetryOn::timeout`]
    Timeout,
}

/// How much of the traffic one worker may retry: a share of the requests of the last ten seconds, and a few in any case, so that
/// retries never multiply an outage. Its own part only: `workers` share the minimum.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// Requests and retries per second of the window, by second modulo its length.
    slices: [(u64, u32, u32); SLICES],
}

// === impl RetryRules ===

impl Default for RetryRules {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: RetryOn { connect: true, stale: true, ..RetryOn::default() },
            budget: Weight::FIFTH,
            min_per_second: 3,
            backoff: Duration::from_millis(25),
            max_body: 64 * 1024,
        }
    }
}

impl RetryRules {
    /// Whether a failure for `reason` may be retried at all. `repeatable`: sending the request twice means the same as sending it once,
    /// or nobody has seen any of it.
    #[must_use]
    pub fn allow(&self, reason: Reason, repeatable: bool) -> bool {
        match reason {
            Reason::Connect => self.on.connect,
            Reason::ServerError => self.on.server_error && repeatable,
            Reason::Reset => self.on.reset && repeatable,
            Reason::Timeout => self.on.timeout && repeatable,
        }
    }

    /// Whether anything may be retried after an endpoint has seen a request.
    #[must_use]
    pub fn retries_answers(&self) -> bool {
        self.attempts > 0 && (self.on.server_error || self.on.reset || self.on.timeout)
    }

    /// The wait before retry `n` (from one): full jitter, uniform between zero and an end that doubles (Brooker 2015).
    #[must_use]
    pub fn wait(&self, n: u32, random: u64) -> Duration {
        let end = self.backoff.saturating_mul(1 << (n.saturating_sub(1)).min(16)).min(BACKOFF_MAX);
        let nanos = (u128::from(random) * end.as_nanos()) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

// === impl Reason ===

impl Reason {
    /// All, in index order (`self as usize`).
    pub const ALL: [Self; 4] = [Self::Connect, Self::ServerError, Self::Reset, Self::Timeout];

    /// Its word in the file and the metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ServerError => "5xx",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
        }
    }
}

// === impl Budget ===

impl Budget {
    /// Notes that a request began; `now` on a monotonic clock with any origin.
    pub fn request(&mut self, now: Duration) {
        self.slice(now).1 += 1;
    }

    /// Takes one retry if there is one left. `workers` share `rules.min_per_second`.
    pub fn take(&mut self, now: Duration, rules: &RetryRules, workers: usize) -> bool {
        let second = now.as_secs();
        let recent = |slice: &&(u64, u32, u32)| second - slice.0.min(second) < SLICES as u64;
        let (requests, retries) =
            self.slices.iter().filter(recent).fold((0_u64, 0_u64), |(requests, retries), slice| {
                (requests + u64::from(slice.1), retries + u64::from(slice.2))
            });
        let share = requests * u64::from(rules.budget.grains()) / u64::from(GRAINS);
        let minimum = u64::from(rules.min_per_second) * BUDGET_WINDOW.as_secs();
        // Rounded up: with few retries and many workers every worker still has one.
        let allowed = share + minimum.div_ceil(workers.max(1) as u64);
        let left = retries < allowed;
        if left {
            self.slice(now).2 += 1;
        }
        left
    }

    fn slice(&mut self, now: Duration) -> &mut (u64, u32, u32) {
        let second = now.as_secs();
        let index = usize::try_from(second % (SLICES as u64)).unwrap_or(0);
        let slice = &mut self.slices[index];
        if slice.0 != second {
            *slice = (second, 0, 0);
        }
        slice
    }
}

const _: () = assert!(BUDGET_WINDOW.as_secs() == SLICES as u64 * SLICE.as_secs());

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(budget: u16, min_per_second: u32) -> RetryRules {
        RetryRules {
            attempts: 1,
            on: RetryOn::default(),
            budget: Weight::from_grains(budget * 100).expect("a share"),
            min_per_second,
            backoff: Duration::from_millis(25),
            max_body: 65_536,
        }
    }

    fn taken(budget: &mut Budget, now: Duration, rules: &RetryRules, workers: usize) -> usize {
        (0..10_000).take_while(|_| budget.take(now, rules, workers)).count()
    }

    #[test]
    fn a_share_of_the_requests_and_a_minimum_may_be_retried() {
        let mut budget = Budget::default();
        let now = Duration::from_secs(100);
        for _ in 0..1_000 {
            budget.request(now);
        }
        assert_eq!(taken(&mut budget, now, &rules(20, 3), 1), 230);
        assert_eq!(taken(&mut budget, now + Duration::from_secs(9), &rules(20, 3), 1), 0);
        assert_eq!(
            taken(&mut budget, now + Duration::from_secs(10), &rules(20, 3), 1),
            30,
            "what is past is forgotten"
        );
        assert_eq!(taken(&mut Budget::default(), now, &rules(20, 0), 1), 0);
        assert_eq!(taken(&mut Budget::default(), now, &rules(0, 3), 4), 8, "a quarter, rounded up");
        assert_eq!(taken(&mut Budget::default(), Duration::ZERO, &rules(0, 1), 1), 10);
    }

    #[test]
    fn waits_are_spread_and_double_up_to_a_bound() {
        let rules = rules(20, 3);
        assert_eq!(rules.wait(1, 0), Duration::ZERO);
        assert_eq!(rules.wait(1, 1 << 63), Duration::from_micros(12_500));
        assert_eq!(rules.wait(3, 1 << 63), Duration::from_millis(50));
        assert_eq!(rules.wait(60, 1 << 63), BACKOFF_MAX / 2);
    }

    #[test]
    fn only_connect_failures_are_retried_whatever_the_method() {
        let on = RetryOn { connect: true, stale: true, server_error: true, reset: true, timeout: true };
        let (all, none) = (RetryRules { on, ..rules(20, 3) }, rules(20, 3));
        assert_eq!(Reason::ALL.map(|reason| all.allow(reason, true)), [true; 4]);
        assert_eq!(Reason::ALL.map(|reason| all.allow(reason, false)), [true, false, false, false]);
        assert_eq!(Reason::ALL.map(|reason| none.allow(reason, true)), [false; 4]);
        let usual = RetryRules::default();
        assert_eq!(Reason::ALL.map(|reason| usual.allow(reason, true)), [true, false, false, false]);
        assert_eq!((usual.retries_answers(), all.retries_answers()), (false, true));
        assert!(!RetryRules { attempts: 0, ..all }.retries_answers());
        assert!(Reason::ALL.iter().enumerate().all(|(i, reason)| *reason as usize == i));
    }

    proptest! {
        /// However requests and failures come: no more retries in any window than the rules allow.
        #[test]
        fn retries_stay_within_the_budget(steps in prop::collection::vec((0_u64..3_000, 0_u32..20), 1..80), share in 0_u16..50) {
            let rules = rules(share, 2);
            let (mut budget, mut now) = (Budget::default(), Duration::from_secs(5));
            let mut log: Vec<(Duration, u64, u64)> = Vec::new();
            for (wait, requests) in steps {
                now += Duration::from_millis(wait);
                let mut retries = 0;
                for _ in 0..requests {
                    budget.request(now);
                    retries += u64::from(budget.take(now, &rules, 1));
                }
                log.push((now, u64::from(requests), retries));
                let window = log.iter().filter(|(at, ..)| now.as_secs() - at.as_secs() < 10);
                let (requests, retries) = window.fold((0, 0), |(q, r), (_, requests, retries)| (q + requests, r + retries));
                // What was allowed by requests that have left the window since may still be in it.
                let before: u64 = log.iter().filter(|(at, ..)| now.as_secs() - at.as_secs() < 20).map(|(_, q, _)| q).sum();
                prop_assert!(retries <= before * u64::from(share) / 100 + 40, "{requests} {retries}");
            }
        }
    }
}
