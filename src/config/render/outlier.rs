//! `[services.*.outlier]` as text.

use super::Out;
use crate::core::outlier::OutlierRules;

pub(super) fn outlier(out: &mut Out, path: &str, rules: &OutlierRules) {
    out.header(&format!("[{path}.outlier]"));
    out.raw("consecutive_failures", rules.consecutive_failures);
    out.duration("window", rules.window);
    out.raw("min_requests", rules.min_requests);
    out.text("min_success", rules.min_success);
    out.duration("ejection", rules.ejection);
    out.duration("max_ejection_time", rules.max_ejection_time);
    out.text("max_ejected", rules.max_ejected);
    out.text("panic_threshold", rules.panic_threshold);
}
