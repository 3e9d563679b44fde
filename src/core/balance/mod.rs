//! Which endpoint of a pool takes a request.

mod draw;
pub mod ewma;
pub mod ring;
pub mod weights;

use std::time::Duration;

use self::draw::Bits;
use self::ewma::Latency;
use self::ring::Ring;
use self::weights::Weights;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two drawn at random (power of two choices; Mitzenmacher 2001).
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// By hash of a key, moved on from endpoints that carry too much (bounded loads; Mirrokni, Thorup, Zadimoghaddam 2018).
    RingHash,
    /// Of two drawn at random the one with the smaller product of latency and load (peak EWMA; Finagle).
    PeakEwma,
}

/// How far an endpoint in full service has grown into its weight, in thousandths.
pub const GROWN: u32 = 1_000;
/// How far it has at the beginning of its slow start.
pub const GROWN_MIN: u32 = 100;
/// An endpoint may carry this many percent of the average load before a hashed request moves on.
const LOAD_BOUND_PERCENT: u64 = 125;
/// Points of a ring until a key goes to an endpoint that does not get all of its keys yet.
const RIPE_POINTS_MAX: usize = 1_024;

/// A pool as it is at this moment; endpoints by index.
pub trait Members {
    /// How many endpoints there are.
    fn count(&self) -> usize;
    /// Whether one may be taken.
    fn is_eligible(&self, endpoint: usize) -> bool;
    /// Requests in flight on one.
    fn load(&self, endpoint: usize) -> u32;
    /// Requests in flight on all, whether they may be taken or not.
    fn total_load(&self) -> u64;
    /// What each is configured to get; `None` when all get the same.
    fn weights(&self) -> Option<&Weights>;
    /// How far one has grown into its weight, [`GROWN_MIN`] to [`GROWN`].
    fn growth(&self, endpoint: usize) -> u32;
    /// What is known of how long one takes to answer.
    fn latency(&self, endpoint: usize) -> Latency;
}

/// A pool of equals, by what is asked of each.
#[derive(Clone, Copy, Debug)]
pub struct Equals<E, L> {
    /// How many there are.
    pub count: usize,
    /// Whether one may be taken.
    pub eligible: E,
    /// Requests in flight.
    pub load: L,
}

/// What a choice is made from beside the pool.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// 64 uniform bits.
    pub random: u64,
    /// Whose turn it is ([`Balance::RoundRobin`]).
    pub cursor: u64,
    /// Hash of the request's key, and the ring it falls on ([`Balance::RingHash`]); without it the draw is random.
    pub hashed: Option<(u64, &'a Ring)>,
}

/// Chooses an endpoint; `None` when none is eligible.
pub fn pick(balance: Balance, pool: &impl Members, draw: &Draw<'_>) -> Option<usize> {
    let count = pool.count();
    let mut bits = Bits(draw.random);
    match (count, balance) {
        (0, _) => None,
        (1, _) => pool.is_eligible(0).then_some(0),
        (_, Balance::RoundRobin) => draw::in_turn(pool, draw.cursor),
        (_, Balance::Random) => draw::any(pool, &mut bits, None),
        (_, Balance::RingHash) => match draw.hashed {
            Some((hash, ring)) => hashed(pool, hash, ring),
            None => draw::any(pool, &mut bits, None),
        },
        (_, Balance::LeastRequest) => better_of_two(pool, &mut bits, |_, _| (1.0, 1.0)),
        (_, Balance::PeakEwma) => better_of_two(pool, &mut bits, |first, second| latencies(pool, first, second)),
    }
}

/// How far an endpoint that has been in service for `age` has grown in a slow start that takes `slow_start`.
#[must_use]
pub fn growth(age: Duration, slow_start: Duration) -> u32 {
    if age >= slow_start {
        return GROWN;
    }
    let grown = u128::from(GROWN) * age.as_micros() / slow_start.as_micros().max(1);
    u32::try_from(grown).unwrap_or(GROWN).clamp(GROWN_MIN, GROWN)
}

/// Two different endpoints are drawn by their shares, so that two are always compared, by the product of their latency and what they would
/// carry with the request. The second takes it only if it is the better one although its larger share does not count for it and its
/// smaller one counts against it: where nobody is busy the shares of the draw remain, and where all are, nobody carries more for its share
/// than another.
fn better_of_two(
    pool: &impl Members,
    bits: &mut Bits,
    latencies: impl Fn(usize, usize) -> (f64, f64),
) -> Option<usize> {
    let first = draw::any(pool, bits, None)?;
    let Some(second) = draw::any(pool, bits, Some(first)) else { return Some(first) };
    let load = |i: usize| f64::from(pool.load(i));
    let ratio = ratio(draw::share(pool, first), draw::share(pool, second));
    let (of_first, of_second) = latencies(first, second);
    let cost = of_first * (load(first) + 1.0);
    Some(if of_second * (load(second) * ratio + ratio.max(1.0)) < cost { second } else { first })
}

/// The latencies by which two are compared, in microseconds. One of which nothing is known is taken to be as fast as the other; but once it
/// was asked, further requests had better wait for its first answer (Finagle).
fn latencies(pool: &impl Members, first: usize, second: usize) -> (f64, f64) {
    let either = [first, second].map(|i| pool.latency(i));
    let [of_first, of_second] = either.map(|latency| match latency {
        Latency::Recent(us) => Some(f64::from(us)),
        Latency::Unknown | Latency::Awaited => None,
    });
    let guess = |latency, other: Option<f64>| {
        let penalty = if latency == Latency::Awaited { f64::from(ewma::PENALTY_US) } else { 0.0 };
        other.unwrap_or(1.0) + penalty
    };
    (of_first.unwrap_or_else(|| guess(either[0], of_second)), of_second.unwrap_or_else(|| guess(either[1], of_first)))
}

#[expect(clippy::cast_precision_loss, reason = "shares are far below 2^52")]
fn ratio(of: u64, to: u64) -> f64 {
    if of == to { 1.0 } else { of as f64 / to.max(1) as f64 }
}

/// The endpoint of the ring behind `hash`, or the next one along it that does not carry too much already.
fn hashed(pool: &impl Members, hash: u64, ring: &Ring) -> Option<usize> {
    let home = ring.walk(hash).find(|&i| i < pool.count() && pool.is_eligible(i))?;
    if is_calm(pool, home) { Some(home) } else { along(pool, hash, ring) }
}

/// Whether an endpoint that has grown up carries no more than it may, seen from all requests in flight: if some endpoints are out, what
/// they still carry counts as well.
fn is_calm(pool: &impl Members, endpoint: usize) -> bool {
    let of = |weights: &Weights| (weights.of(endpoint), weights.total());
    let (weight, total) = pool.weights().map_or((1, pool.count() as u64), of);
    pool.growth(endpoint) >= GROWN && u64::from(pool.load(endpoint)) < bound(pool.total_load() + 1, weight, total)
}

/// The same by those that are eligible alone, along the ring. An endpoint that still grows gets the more of its keys the further it has
/// grown: the same ones each time, and further ones later.
fn along(pool: &impl Members, hash: u64, ring: &Ring) -> Option<usize> {
    let eligible = |i: usize| i < pool.count() && pool.is_eligible(i);
    let (mut load, mut share, mut most) = (1_u64, 0_u64, GROWN_MIN);
    for i in (0..pool.count()).filter(|&i| eligible(i)) {
        load += u64::from(pool.load(i));
        share += draw::share(pool, i);
        most = most.max(pool.growth(i));
    }
    let fraction = u128::from(Bits(hash).next());
    let is_ripe = |i: usize| fraction * u128::from(most) < u128::from(pool.growth(i)) << 64;
    let bounded = |i: usize| u64::from(pool.load(i)) < bound(load, draw::share(pool, i), share);
    let mut unripe = None;
    for (point, i) in ring.walk(hash).enumerate().filter(|&(_, i)| eligible(i) && bounded(i)) {
        if is_ripe(i) {
            return Some(i);
        }
        unripe = unripe.or(Some(i));
        if point >= RIPE_POINTS_MAX {
            break;
        }
    }
    unripe.or_else(|| ring.walk(hash).find(|&i| eligible(i)))
}

/// What one with `share` of `shares` may carry when all carry `load`.
fn bound(load: u64, share: u64, shares: u64) -> u64 {
    (load * share * LOAD_BOUND_PERCENT).div_ceil(shares.max(1) * 100)
}

impl<E: Fn(usize) -> bool, L: Fn(usize) -> u32> Members for Equals<E, L> {
    fn count(&self) -> usize {
        self.count
    }

    fn is_eligible(&self, endpoint: usize) -> bool {
        (self.eligible)(endpoint)
    }

    fn load(&self, endpoint: usize) -> u32 {
        (self.load)(endpoint)
    }

    fn total_load(&self) -> u64 {
        (0..self.count).map(|i| u64::from(self.load(i))).sum()
    }

    fn weights(&self) -> Option<&Weights> {
        None
    }

    fn growth(&self, _endpoint: usize) -> u32 {
        GROWN
    }

    fn latency(&self, _endpoint: usize) -> Latency {
        Latency::Unknown
    }
}

#[cfg(test)]
mod tests;
