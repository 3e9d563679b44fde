//! Which endpoint of a pool takes a request.

pub mod ewma;
pub mod ring;

use self::ring::Ring;

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

/// Weight of an endpoint in full service, times its configured weight.
pub const FULL_SHARE: u32 = 1_000;
/// Least share an endpoint gets during its slow start.
pub const SLOW_SHARE_MIN: u32 = 100;
/// Draws until an endpoint with a small share is taken anyway.
const DRAWS_MAX: usize = 8;
/// An endpoint may carry this many percent of the average load before a hashed request moves on.
const LOAD_BOUND_PERCENT: u64 = 125;

/// A pool as it is at this moment; endpoints by index.
pub trait Members {
    /// How many endpoints there are.
    fn count(&self) -> usize;
    /// Whether one may be taken.
    fn is_eligible(&self, endpoint: usize) -> bool;
    /// Requests in flight.
    fn load(&self, endpoint: usize) -> u32;
    /// Share in thousandths of one with weight 1 ([`FULL_SHARE`]); `None` when all have the same.
    fn shares(&self) -> Option<&dyn Shares>;
    /// Recent latency, in microseconds.
    fn latency(&self, endpoint: usize) -> f32;
}

/// Endpoints that do not get the same share: weights, slow start.
pub trait Shares {
    /// The share of one, above zero.
    fn of(&self, endpoint: usize) -> u32;
    /// The largest share any of them can have.
    fn max(&self) -> u32;
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
        (_, Balance::RoundRobin) => next_eligible(pool, turn(pool, draw.cursor)),
        (_, Balance::Random) => next_eligible(pool, drawn(pool, &mut bits)),
        (_, Balance::RingHash) => match draw.hashed {
            Some((hash, ring)) => hashed(pool, hash, ring),
            None => next_eligible(pool, drawn(pool, &mut bits)),
        },
        (_, Balance::LeastRequest) => better_of_two(pool, &mut bits, |_, load| load),
        (_, Balance::PeakEwma) => {
            better_of_two(pool, &mut bits, |i, load| (f64::from(pool.latency(i)) + 1.0) * (load + 1.0))
        }
    }
}

/// The share of an endpoint that has been in service for `age` of a slow start that takes `slow_start`.
#[must_use]
pub fn share(weight: u32, age: std::time::Duration, slow_start: std::time::Duration) -> u32 {
    let full = weight.saturating_mul(FULL_SHARE);
    if age >= slow_start {
        return full;
    }
    let grown = u128::from(full) * age.as_micros() / slow_start.as_micros().max(1);
    u32::try_from(grown).unwrap_or(full).max(weight.saturating_mul(SLOW_SHARE_MIN))
}

/// Two different endpoints are drawn by their shares, so that two are always compared; the one with the smaller cost for its load per
/// share wins, the first if both cost the same: where nobody is busy the shares of the draw remain.
fn better_of_two(pool: &impl Members, bits: &mut Bits, cost: impl Fn(usize, f64) -> f64) -> Option<usize> {
    let first = next_eligible(pool, drawn(pool, bits))?;
    let second = another(pool, first, bits);
    let cost = |i: usize| {
        let load = f64::from(pool.load(i));
        match pool.shares() {
            Some(shares) => cost(i, load * f64::from(FULL_SHARE) / f64::from(shares.of(i).max(1))),
            None => cost(i, load),
        }
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

/// An eligible endpoint other than `first`, if there is one.
fn another(pool: &impl Members, first: usize, bits: &mut Bits) -> usize {
    let count = pool.count();
    if pool.shares().is_some() {
        for _ in 0..DRAWS_MAX {
            let second = drawn(pool, bits);
            if second != first && pool.is_eligible(second) {
                return second;
            }
        }
    }
    let second = (first + 1 + scale(bits.next(), count - 1)) % count;
    (second..count).chain(0..second).find(|&i| i != first && pool.is_eligible(i)).unwrap_or(first)
}

/// Draws an endpoint, each as often as its share says.
fn drawn(pool: &impl Members, bits: &mut Bits) -> usize {
    let mut endpoint = scale(bits.next(), pool.count());
    let Some(shares) = pool.shares() else { return endpoint };
    for _ in 1..DRAWS_MAX {
        let threshold = u64::from(shares.of(endpoint)) << 32;
        if u64::from(bits.next()) * u64::from(shares.max()) < threshold {
            break;
        }
        endpoint = scale(bits.next(), pool.count());
    }
    endpoint
}

/// Whose turn it is. With unequal shares a golden-ratio sequence over their sum: no endpoint gets its turns in a row.
fn turn(pool: &impl Members, cursor: u64) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let count = pool.count();
    let Some(shares) = pool.shares() else { return usize::try_from(cursor % count as u64).unwrap_or(0) };
    let total: u64 = (0..count).map(|i| u64::from(shares.of(i))).sum();
    let at = (u128::from(cursor.wrapping_mul(GOLDEN)) * u128::from(total)) >> 64;
    let mut passed = 0;
    let found = (0..count).find(|&i| {
        passed += u128::from(shares.of(i));
        at < passed
    });
    found.unwrap_or(0)
}

/// The endpoint of the ring behind `hash`, or the next one along it that does not carry too much already.
fn hashed(pool: &impl Members, hash: u64, ring: &Ring) -> Option<usize> {
    let eligible = |i: usize| i < pool.count() && pool.is_eligible(i);
    let (mut load, mut share) = (1_u64, 0_u64);
    let share_of = |i: usize| pool.shares().map_or(u64::from(FULL_SHARE), |shares| u64::from(shares.of(i)));
    for i in (0..pool.count()).filter(|&i| eligible(i)) {
        load += u64::from(pool.load(i));
        share += share_of(i);
    }
    let bounded = |i: usize| {
        let bound = (load * share_of(i) * LOAD_BOUND_PERCENT).div_ceil(share.max(1) * 100);
        eligible(i) && u64::from(pool.load(i)) < bound
    };
    ring.walk(hash).find(|&i| bounded(i)).or_else(|| ring.walk(hash).find(|&i| eligible(i)))
}

fn next_eligible(pool: &impl Members, from: usize) -> Option<usize> {
    (from..pool.count()).chain(0..from).find(|&i| pool.is_eligible(i))
}

/// Maps 32 uniform bits to `0..count`.
fn scale(bits: u32, count: usize) -> usize {
    let scaled = (u128::from(bits) * count as u128) >> 32;
    usize::try_from(scaled).unwrap_or(0)
}

/// Uniform bits from a seed (`SplitMix64`; Steele, Lea, Flood 2014).
struct Bits(u64);

impl Bits {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)
    }
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

    fn shares(&self) -> Option<&dyn Shares> {
        None
    }

    fn latency(&self, _endpoint: usize) -> f32 {
        0.0
    }
}

#[cfg(test)]
mod tests;
