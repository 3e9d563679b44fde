//! `[services.*.upstream]`: how much may be busy, and what is tried again.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::Table;
use super::super::words::{self, RetriedOn};
use crate::core::circuit::PoolLimits;
use crate::core::retry::{ATTEMPTS_MAX, BACKOFF_MAX, RetryOn, RetryRules};
use crate::core::weight::Weight;

/// Bounds of a pool's limits; zero pending requests means that nobody waits.
const COUNT: RangeInclusive<u32> = 1..=1_000_000;
const PENDING: RangeInclusive<u32> = 0..=1_000_000;
/// Bounds of retries: per second, of the first wait, and of a body kept in memory.
const PER_SECOND: RangeInclusive<u32> = 0..=10_000;
const BACKOFF: RangeInclusive<Duration> = Duration::ZERO..=BACKOFF_MAX;
const BODY: RangeInclusive<u64> = 0..=16 * 1024 * 1024;

/// The limits of each pool.
pub(super) fn limits(table: &Table<'_>) -> PoolLimits {
    let default = PoolLimits::default();
    PoolLimits {
        max_connections: table.integer("max_connections", COUNT, default.max_connections),
        max_pending: table.integer("max_pending", PENDING, default.max_pending),
        max_requests: table.integer("max_requests", COUNT, default.max_requests),
    }
}

/// What is tried again, how often and when.
pub(super) fn rules(table: &Table<'_>) -> RetryRules {
    let default = RetryRules::default();
    let budget = table.value("budget").and_then(|v| v.read("a share such as \"20%\"", Weight::parse));
    RetryRules {
        attempts: table.integer("attempts", 0..=ATTEMPTS_MAX, default.attempts),
        on: on(table).unwrap_or(default.on),
        budget: budget.unwrap_or(default.budget),
        min_per_second: table.integer("min_per_second", PER_SECOND, default.min_per_second),
        backoff: table.duration("backoff", BACKOFF, default.backoff),
        max_body: table.size("max_body", BODY).unwrap_or(default.max_body),
    }
}

fn on(table: &Table<'_>) -> Option<RetryOn> {
    const FORM: &str = "a list such as [\"connect\", \"stale\", \"5xx\"]";
    let listed = table.value("on")?.list(FORM, 0..=5, |text| words::RETRY_ON.get(text));
    Some(RetryOn {
        connect: listed.contains(&RetriedOn::Connect),
        stale: listed.contains(&RetriedOn::Stale),
        server_error: listed.contains(&RetriedOn::ServerError),
        reset: listed.contains(&RetriedOn::Reset),
        timeout: listed.contains(&RetriedOn::Timeout),
    })
}
