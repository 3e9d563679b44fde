//! `[services.*.outlier]`: when an endpoint is left alone because its requests fail.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::Table;
use super::super::units;
use crate::core::outlier::OutlierRules;
use crate::core::weight::Weight;

/// Failures in a row, and requests in the window; zero failures switch the rule off.
const FAILURES: RangeInclusive<u32> = 0..=1_000;
const REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
/// The window is looked at in tenths, so it has some.
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
const EJECTION: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3_600);

/// The outlier rules of a service.
pub(super) fn outlier(table: Option<&Table<'_>>) -> OutlierRules {
    let default = OutlierRules::default();
    let Some(table) = table else { return default };
    let share = |key: &str, default: Weight| {
        table.value(key).and_then(|v| v.read("a share such as \"50%\"", Weight::parse)).unwrap_or(default)
    };
    let ejection = table.duration("ejection", EJECTION, default.ejection);
    let max_ejection_time = table.duration("max_ejection_time", EJECTION, default.max_ejection_time.max(ejection));
    if let Some(value) = table.value("max_ejection_time").filter(|_| max_ejection_time < ejection) {
        value.refuse(format_args!("shorter than ejection ({})", units::show_duration(ejection)));
    }
    OutlierRules {
        consecutive_failures: table.integer("consecutive_failures", FAILURES, default.consecutive_failures),
        window: table.duration("window", WINDOW, default.window),
        min_requests: table.integer("min_requests", REQUESTS, default.min_requests),
        min_success: share("min_success", default.min_success),
        ejection,
        max_ejection_time,
        max_ejected: share("max_ejected", default.max_ejected),
        panic_threshold: share("panic_threshold", default.panic_threshold),
    }
}
