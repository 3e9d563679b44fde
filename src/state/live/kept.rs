//! Endpoints that stay in a pool although they left the file: whoever replaces all endpoints at once wants to be served meanwhile.

use std::sync::Arc;

use crate::core::endpoint::EndpointKey;
use crate::core::health::Readiness;
use crate::core::id::{Variant, Version};
use crate::core::snapshot::ActiveService;

use super::{EndpointLive, ServiceLive};

/// Those that left the new `pool` of `variant` and stay.
///
/// While nobody of the new pool takes requests, all that are ready stay, also until the names of the new ones are resolved. That is not
/// bounded in time, because a bound would turn a mistake in the file into an outage; they go when they fail themselves. From the first one
/// that takes requests on they stay until as many do as they are, so that one replacement need not carry what ten did, but no longer than
/// it takes the probes to decide about the others: one that never comes up must not keep the old ones for ever.
///
/// Where one of the new pool takes requests all along, whoever left goes at once. A pool keeps only those of its own version, whatever
/// role that had before: another version has a pool of its own.
pub(super) fn that_left(
    active: &ActiveService,
    variant: Variant,
    pool: &[Arc<EndpointLive>],
    before: Option<&Arc<ServiceLive>>,
) -> Vec<EndpointKey> {
    let old = active.version(variant).zip(before).and_then(|(version, before)| pool_of(before, version));
    let Some((old, kept)) = old.filter(|_| active.pool(variant).is_some()) else { return Vec::new() };
    let serves = |endpoint: &EndpointLive| endpoint.is_ready() && !endpoint.conduct.is_drained();
    let serving = pool.iter().filter(|endpoint| takes_requests(endpoint)).count();
    // Those that were kept before are the last ones. Where there is a replacement already, only they may stay.
    let first = if serving == 0 { 0 } else { old.len() - kept };
    let new = |endpoint: &EndpointLive| pool.iter().any(|new| new.key == endpoint.key);
    let left: Vec<_> = old[first..].iter().filter(|endpoint| serves(endpoint) && !new(endpoint)).collect();
    let wanted = pool.len().min(left.len());
    if serving > 0 && (serving >= wanted || !pool.iter().any(|endpoint| is_undecided(endpoint))) {
        return Vec::new();
    }
    left.into_iter().map(|endpoint| endpoint.key.clone()).collect()
}

/// The endpoints of `version`, and how many of them, the last ones, had left their pool already.
fn pool_of<'a>(before: &'a ServiceLive, version: &Version) -> Option<(&'a [Arc<EndpointLive>], usize)> {
    let variants = Variant::ALL.map(|variant| (before.pool(variant), before.kept(variant)));
    let mut pools = variants.into_iter().chain([(&before.warm[..], 0)]);
    pools.find(|(pool, _)| pool.first().is_some_and(|endpoint| endpoint.key.version == *version))
}

fn takes_requests(endpoint: &EndpointLive) -> bool {
    endpoint.is_ready() && endpoint.conduct.is_in()
}

/// Whether its probes may still find that it takes requests.
fn is_undecided(endpoint: &EndpointLive) -> bool {
    endpoint.health.readiness() == Readiness::Unknown && !endpoint.conduct.is_drained()
}
