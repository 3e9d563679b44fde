//! The only place that reads the clock. Everything else is told what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time since 1970, for logs and records only.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall-clock time as HTTP writes it (RFC 9110 section 5.6.7).
#[must_use]
pub fn http_date() -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + unix_time())
}
