//! Endpoints that stay in a pool although they left the file: whoever replaces all endpoints at once wants to be served meanwhile.

use std::sync::Arc;

use crate::core::health::Readiness;
use crate::core::id::Variant;
use crate::core::snapshot::ActiveService;

use super::{EndpointLive, ServiceLive};

/// Adds to the new `pool` of `variant` those of the pool before that stay, and says how many they are.
///
/// While nobody of the new pool takes requests, all that are ready stay, also until the names of the new ones are resolved. That is not
/// bounded in time, because a bound would turn a mistake in the file into an outage; they go when they fail themselves. From the first one
/// that takes requests on they stay until as many do as they are, so that one replacement need not carry what ten did, but no longer than
/// it takes the probes to decide about the others: one that never comes up must not keep the old ones for ever.
///
/// Where one of the new pool takes requests all along, whoever left goes at once. A candidate keeps only those of its own version; for
/// another one stable serves.
pub(super) fn keep_last_ready(
    active: &ActiveService,
    variant: Variant,
    pool: &mut Vec<Arc<EndpointLive>>,
    before: Option<&Arc<ServiceLive>>,
) -> usize {
    let Some(before) = before.filter(|_| active.pool(variant).is_some()) else { return 0 };
    let version = active.version(variant);
    let same_release = |endpoint: &EndpointLive| variant == Variant::Stable || version == Some(&endpoint.key.version);
    let serves =
        |endpoint: &EndpointLive| endpoint.is_ready() && !endpoint.conduct.is_drained() && same_release(endpoint);
    let serving = pool.iter().filter(|endpoint| takes_requests(endpoint)).count();
    let old = before.pool(variant);
    // Those that were kept before are the last ones. Where there is a replacement already, only they may stay.
    let first = if serving == 0 { 0 } else { old.len() - before.kept(variant) };
    let new = |endpoint: &Arc<EndpointLive>| pool.iter().any(|new| new.key == endpoint.key);
    let left: Vec<_> = old[first..].iter().filter(|endpoint| serves(endpoint) && !new(endpoint)).cloned().collect();
    let wanted = pool.len().min(left.len());
    if serving > 0 && (serving >= wanted || !pool.iter().any(|endpoint| is_undecided(endpoint))) {
        return 0;
    }
    let kept = left.len();
    pool.extend(left);
    kept
}

fn takes_requests(endpoint: &EndpointLive) -> bool {
    endpoint.is_ready() && endpoint.conduct.is_in()
}

/// Whether its probes may still find that it takes requests.
fn is_undecided(endpoint: &EndpointLive) -> bool {
    endpoint.health.readiness() == Readiness::Unknown && !endpoint.conduct.is_drained()
}
