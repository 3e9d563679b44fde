//! Draws and turns, each endpoint as often as its share says: exactly, however steep the weights, whoever is out, whoever still grows.
//!
//! A draw falls on an endpoint by the weights alone, which are added up beforehand; one that is out never takes it, one that still grows
//! only as often as it has grown. What is not taken is drawn again, and after a few times drawn among those that can take it, by the
//! shares they have at this moment. So the usual draw costs a few steps whatever the size of the pool, and no draw is a guess.

use super::{GROWN, Members};

/// Draws by weight alone until the shares of all are added up.
const DRAWS_MAX: usize = 4;
/// The same for a turn, each from what the one before left: with every one a fraction gets coarser.
const TURNS_MAX: usize = 2;
/// The golden ratio in 2^-64: its multiples spread evenly over the whole, however many there are.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Uniform bits from a seed (`SplitMix64`; Steele, Lea, Flood 2014).
pub(super) struct Bits(pub u64);

/// Where a draw falls.
struct Fall {
    endpoint: usize,
    /// Where within the endpoint's weight, in 2^-64.
    within: u128,
    weight: u64,
}

/// An eligible endpoint other than `but`, drawn by the shares.
pub(super) fn any(pool: &impl Members, bits: &mut Bits, but: Option<usize>) -> Option<usize> {
    for _ in 0..DRAWS_MAX {
        if let Ok(found) = taken(pool, &fall(pool, bits.next(), but)?) {
            return Some(found);
        }
    }
    among_eligible(pool, bits.next(), but)
}

/// The one whose turn it is: one after the other, or by the golden ratio where the weights differ, so that none has its turns in a row.
/// The turns of those that are out go around all others by their shares, likewise what those that still grow leave.
pub(super) fn in_turn(pool: &impl Members, cursor: u64) -> Option<usize> {
    let mut at = if pool.weights().is_some() {
        fall(pool, cursor.wrapping_mul(GOLDEN), None)?
    } else {
        let count = u64::try_from(pool.count()).ok().filter(|&count| count > 0)?;
        let (round, endpoint) = (cursor / count, cursor % count);
        let within = u128::from((round + endpoint).wrapping_mul(GOLDEN));
        Fall { endpoint: usize::try_from(endpoint).unwrap_or(0), within, weight: 1 }
    };
    for _ in 1..TURNS_MAX {
        match taken(pool, &at) {
            Ok(found) => return Some(found),
            Err(rest) => at = fall(pool, rest, None)?,
        }
    }
    taken(pool, &at).or_else(|rest| among_eligible(pool, rest, None).ok_or(rest)).ok()
}

/// The share of an endpoint: its weight as far as it has grown into it, in thousandths.
pub(super) fn share(pool: &impl Members, endpoint: usize) -> u64 {
    pool.weights().map_or(1, |weights| weights.of(endpoint)) * u64::from(pool.growth(endpoint))
}

/// Where the fraction `at` of 2^64 falls by weight alone, `but` left out.
fn fall(pool: &impl Members, at: u64, but: Option<usize>) -> Option<Fall> {
    let Some(weights) = pool.weights() else {
        let count = pool.count().checked_sub(usize::from(but.is_some())).filter(|&count| count > 0)?;
        let (endpoint, within) = scale(at, count as u64);
        let endpoint = usize::try_from(endpoint).unwrap_or(0);
        let endpoint = endpoint + usize::from(but.is_some_and(|but| endpoint >= but));
        return Some(Fall { endpoint, within: u128::from(within), weight: 1 });
    };
    let left_out = but.map_or(0, |but| weights.of(but));
    let total = weights.total().checked_sub(left_out).filter(|&total| total > 0)?;
    let (place, within) = scale(at, total);
    let place = place + but.filter(|&but| place >= weights.before(but)).map_or(0, |_| left_out);
    let endpoint = weights.find(place);
    let within = u128::from(place - weights.before(endpoint)) << 64 | u128::from(within);
    Some(Fall { endpoint, within, weight: weights.of(endpoint) })
}

/// The endpoint a draw fell on if it takes it, otherwise a fraction as good as new.
fn taken(pool: &impl Members, fall: &Fall) -> Result<usize, u64> {
    let endpoint = fall.endpoint;
    if !pool.is_eligible(endpoint) {
        return Err(fall.rest());
    }
    let grown = pool.growth(endpoint);
    if grown >= GROWN {
        return Ok(endpoint);
    }
    let (rest, limit) = (fall.rest(), u64::MAX / u64::from(GROWN) * u64::from(grown));
    let Some(beyond) = rest.checked_sub(limit) else { return Ok(endpoint) };
    let stretched = u128::from(beyond) * u128::from(GROWN) / u128::from(GROWN - grown);
    Err(u64::try_from(stretched).unwrap_or(u64::MAX))
}

/// The eligible endpoint other than `but` on which the fraction `at` of 2^64 falls by the shares of all such.
fn among_eligible(pool: &impl Members, at: u64, but: Option<usize>) -> Option<usize> {
    let eligible = || (0..pool.count()).filter(|&i| Some(i) != but && pool.is_eligible(i));
    let total = eligible().map(|i| share(pool, i)).sum();
    let (place, _) = scale(at, total);
    let (mut passed, mut last) = (0, None);
    // Shares may change in between: then it is the last.
    for endpoint in eligible() {
        passed += share(pool, endpoint);
        last = Some(endpoint);
        if place < passed {
            break;
        }
    }
    last
}

/// Maps a fraction of 2^64 to `0..whole`; and what is left of it.
fn scale(at: u64, whole: u64) -> (u64, u64) {
    let scaled = u128::from(at) * u128::from(whole);
    #[expect(clippy::cast_possible_truncation, reason = "the upper and the lower half of a product")]
    let halves = ((scaled >> 64) as u64, scaled as u64);
    halves
}

// === impl Bits ===

impl Bits {
    /// 64 of them.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

// === impl Fall ===

impl Fall {
    /// Where within the endpoint it fell, as a fraction of 2^64: uniform again, because where it fell was.
    fn rest(&self) -> u64 {
        u64::try_from(self.within / u128::from(self.weight.max(1))).unwrap_or(u64::MAX)
    }
}
