//! `[services.*.upstream]` as TOML: limits and retries.

use super::{Out, list, quote};
use crate::config::units::show_size;
use crate::config::words::{self, RetriedOn};
use crate::core::circuit::PoolLimits;
use crate::core::retry::{RetryOn, RetryRules};

pub(super) fn limits(out: &mut Out, limits: &PoolLimits) {
    let PoolLimits { max_connections, max_pending, max_requests } = limits;
    out.raw("max_connections", max_connections);
    out.raw("max_pending", max_pending);
    out.raw("max_requests", max_requests);
}

/// The table at `path`.
pub(super) fn rules(out: &mut Out, path: &str, rules: &RetryRules) {
    let RetryRules { attempts, on, budget, min_per_second, backoff, max_body } = rules;
    out.header(&format!("[{path}]"));
    out.raw("attempts", attempts);
    out.raw("on", list(reasons(on)));
    out.text("budget", budget);
    out.raw("min_per_second", min_per_second);
    out.duration("backoff", *backoff);
    out.text("max_body", show_size(*max_body));
}

fn reasons(on: &RetryOn) -> impl Iterator<Item = String> {
    let RetryOn { connect, stale, server_error, reset, timeout } = *on;
    let all = [
        (connect, RetriedOn::Connect),
        (stale, RetriedOn::Stale),
        (server_error, RetriedOn::ServerError),
        (reset, RetriedOn::Reset),
        (timeout, RetriedOn::Timeout),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, reason)| quote(words::RETRY_ON.word(reason)))
}
