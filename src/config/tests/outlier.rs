//! Every set of outlier rules, for the round trip of settings.

use proptest::prelude::*;

use super::ms;
use crate::core::outlier::OutlierRules;
use crate::core::weight::{GRAINS, Weight};

pub(super) fn rules() -> impl Strategy<Value = OutlierRules> {
    let counts = (0_u32..=1_000, 1_u32..=1_000_000);
    let times = (ms(100, 3_600_000), ms(10, 86_400_000), ms(10, 86_400_000));
    let share = || (0..=GRAINS).prop_map(|grains| Weight::from_grains(grains).expect("in range"));
    (counts, times, (share(), share(), share())).prop_map(|(counts, times, shares)| OutlierRules {
        consecutive_failures: counts.0,
        window: times.0,
        min_requests: counts.1,
        min_success: shares.0,
        ejection: times.1.min(times.2),
        max_ejection_time: times.1.max(times.2),
        max_ejected: shares.1,
        panic_threshold: shares.2,
    })
}
