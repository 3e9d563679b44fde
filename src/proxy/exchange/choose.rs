//! Which endpoint of a pool takes the next attempt: who may be chosen, by what, and who lets it in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::balance::ewma::Latency;
use crate::core::balance::weights::Weights;
use crate::core::balance::{Balance, Draw, GROWN, Members, growth, pick};
use crate::core::circuit::Limit;
use crate::core::id::Variant;
use crate::core::weight::Weight;
use crate::proxy::respond::Unusable;
use crate::state::conduct::Admission;
use crate::state::layout::Layout;
use crate::state::live::EndpointLive;

use super::Exchange;
use super::again::narrow;

/// Choices until only endpoints are left that let everybody in: each failed one means that another request was faster on a trial.
const ADMIT_TRIES_MAX: usize = 4;

/// A pool as one request sees it at this moment.
struct Seen<'a, E> {
    pool: &'a [Arc<EndpointLive>],
    layout: &'a Layout,
    slow_start: Duration,
    now: Instant,
    eligible: E,
}

impl Exchange {
    /// An endpoint of the current pool that was not tried, and under what it is let in. Only stable knows panic: below its threshold, and
    /// where nobody can be used at all, everyone that ever passed a probe is. The candidate's requests go to stable instead.
    pub(super) fn pick(&self, service: usize, now: Instant, random: &mut fastrand::Rng) -> Option<(usize, Admission)> {
        let (active, live) = self.routing.service(service);
        let (pool, first) = (self.pool(service), self.first(service));
        let (variant, tried) = (self.variant, &self.tried[..self.tried_len]);
        let untried = |i: usize| !tried.contains(&(variant, narrow(first + i)));
        let draw = random.u64(..);
        let cursor = if active.service.upstream.balance == Balance::RoundRobin { live.turn(variant) } else { 0 };
        let choose = |eligible: &dyn Fn(usize) -> bool| {
            let eligible = |i: usize| untried(i) && eligible(i);
            self.choose(service, cursor, draw, now, &eligible)
        };
        let threshold = active.service.outlier.panic_threshold;
        let stable = variant == Variant::Stable;
        let found = |(i, admission)| (first + i, admission);
        if !(stable && !self.on_warm && live.panic.is_on()) {
            // One that is leaving finishes what it has begun, and that is better than losing the request.
            let calmly = admitted(pool, || choose(&|i| pool[i].is_usable() && !pool[i].is_removed()))
                .or_else(|| choose(&|i| pool[i].conduct.is_in() && pool[i].is_ready()).and_then(|i| let_in(pool, i)));
            let calm = !stable || threshold == Weight::ZERO || pool.iter().any(|endpoint| endpoint.is_usable());
            if calmly.is_some() || calm {
                return calmly.map(found);
            }
        }
        let in_panic = choose(&|i| pool[i].ever_passed() && !pool[i].is_removed());
        let in_panic = in_panic.or_else(|| choose(&|i| pool[i].ever_passed()));
        in_panic.map(|i| found((i, pool[i].conduct.admit_regardless())))
    }

    /// The endpoints the next attempt may go to: of the variant, or of the stable before.
    pub(super) fn pool(&self, service: usize) -> &[Arc<EndpointLive>] {
        let live = &self.routing.live[service];
        if self.on_warm { &live.warm } else { live.pool(self.variant) }
    }

    /// The place of the first of them, as in [`crate::state::live::ServiceLive::endpoint`].
    pub(super) fn first(&self, service: usize) -> usize {
        if self.on_warm { self.routing.live[service].stable.len() } else { 0 }
    }

    fn choose(
        &self,
        service: usize,
        cursor: u64,
        random: u64,
        now: Instant,
        eligible: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let (active, live) = self.routing.service(service);
        let upstream = &active.service.upstream;
        let layout = if self.on_warm { live.warm_layout() } else { live.layout(self.variant) };
        let pool = self.pool(service);
        let hashed = self.hash.and_then(|hash| Some((hash.get(), layout.ring()?)));
        let seen = Seen { pool, layout, slow_start: upstream.slow_start, now, eligible };
        pick(upstream.balance, &seen, &Draw { random, cursor, hashed })
    }
}

/// The first choice that lets the request in.
fn admitted(pool: &[Arc<EndpointLive>], choose: impl Fn() -> Option<usize>) -> Option<(usize, Admission)> {
    for _ in 0..ADMIT_TRIES_MAX {
        let index = choose()?;
        if let found @ Some(_) = let_in(pool, index) {
            return found;
        }
    }
    None
}

fn let_in(pool: &[Arc<EndpointLive>], index: usize) -> Option<(usize, Admission)> {
    pool[index].conduct.admit().map(|admission| (index, admission))
}

/// Whether nobody of a pool can be used; stable may still be in panic.
pub(super) fn is_out(pool: &[Arc<EndpointLive>]) -> bool {
    !pool.iter().any(|endpoint| endpoint.is_usable())
}

/// Why nobody of a pool can be used, if that is so.
pub(super) fn why_out(pool: &[Arc<EndpointLive>]) -> Unusable {
    let why = |endpoint: &Arc<EndpointLive>| match (endpoint.conduct.is_drained(), endpoint.is_ready()) {
        (true, _) => Unusable::Drained,
        (false, false) => Unusable::Probes,
        (false, true) => Unusable::Ejected,
    };
    let mut all = pool.iter().map(why);
    let first = all.next().unwrap_or(Unusable::Probes);
    if all.all(|other| other == first) { first } else { Unusable::Several }
}

// === impl Seen ===

impl<E: Fn(usize) -> bool> Members for Seen<'_, E> {
    fn count(&self) -> usize {
        self.pool.len()
    }

    fn is_eligible(&self, endpoint: usize) -> bool {
        (self.eligible)(endpoint)
    }

    fn load(&self, endpoint: usize) -> u32 {
        self.pool[endpoint].in_flight()
    }

    fn total_load(&self) -> u64 {
        self.pool.first().map_or(0, |endpoint| u64::from(endpoint.pool.used(Limit::Requests)))
    }

    fn weights(&self) -> Option<&Weights> {
        self.layout.weights()
    }

    fn growth(&self, endpoint: usize) -> u32 {
        if self.slow_start.is_zero() {
            return GROWN;
        }
        self.pool[endpoint].conduct.age(self.now).map_or(GROWN, |age| growth(age, self.slow_start))
    }

    fn latency(&self, endpoint: usize) -> Latency {
        self.pool[endpoint].conduct.latency(self.now)
    }
}
