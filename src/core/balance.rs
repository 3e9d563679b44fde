//! Which endpoint of a pool takes a request.

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two drawn at random (power of two choices; Mitzenmacher 2001).
    LeastRequest,
    /// One after the other.
    RoundRobin,
}

/// Chooses among `count` endpoints.
///
/// `cursor` is the worker's turn counter, `random` are 64 uniform bits, `eligible` says which endpoints may be taken and
/// `load` how many requests each has in flight. Returns an index below `count`, or `None` when no endpoint is eligible.
pub fn pick(
    balance: Balance,
    count: usize,
    cursor: u64,
    random: u64,
    eligible: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> u32,
) -> Option<usize> {
    match (count, balance) {
        (0, _) => None,
        (1, _) => eligible(0).then_some(0),
        (_, Balance::RoundRobin) => next_eligible(count, wrap(cursor, count), &eligible),
        (_, Balance::LeastRequest) => {
            let (high, low) = (random >> 32, random & 0xffff_ffff);
            let first = next_eligible(count, scale(high, count), &eligible)?;
            // The second draw leaves out the first, so two endpoints are always compared with each other.
            let second = (first + 1 + scale(low, count - 1)) % count;
            let second = next_eligible(count, second, |i| i != first && eligible(i)).unwrap_or(first);
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// Maps 32 uniform bits to `0..count`.
fn scale(bits: u64, count: usize) -> usize {
    let scaled = (u128::from(bits) * count as u128) >> 32;
    usize::try_from(scaled).unwrap_or(0)
}

fn wrap(cursor: u64, count: usize) -> usize {
    usize::try_from(cursor % count as u64).unwrap_or(0)
}

fn next_eligible(count: usize, from: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
    (from..count).chain(0..from).find(|&i| eligible(i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_robin_visits_all_in_turn_and_skips_the_ineligible() {
        let turn = |cursor| pick(Balance::RoundRobin, 3, cursor, 0, |i| i != 1, |_| 0);
        assert_eq!([turn(0), turn(1), turn(2), turn(3)], [Some(0), Some(2), Some(2), Some(0)]);
    }

    #[test]
    fn least_request_of_two_takes_the_less_loaded_whatever_the_draw() {
        for random in [0, u64::MAX, 1 << 63, 0x7fff_ffff_ffff_ffff] {
            assert_eq!(pick(Balance::LeastRequest, 2, 0, random, |_| true, |i| [9, 1][i]), Some(1));
        }
    }

    #[test]
    fn least_request_spreads_evenly_without_load() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut hits = [0_u32; 5];
        for _ in 0..10_000 {
            let i = pick(Balance::LeastRequest, 5, 0, rng.u64(..), |_| true, |_| 0).expect("all eligible");
            hits[i] += 1;
        }
        assert!(hits.iter().all(|&h| (1_800..2_200).contains(&h)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_picked_is_eligible(count in 0_usize..9, mask: u16, cursor: u64, random: u64, round_robin: bool) {
            let balance = if round_robin { Balance::RoundRobin } else { Balance::LeastRequest };
            let eligible = |i: usize| mask >> i & 1 == 1;
            let picked = pick(balance, count, cursor, random, eligible, |i| u32::try_from(i).expect("small"));
            prop_assert_eq!(picked.is_some(), (0..count).any(eligible));
            prop_assert!(picked.is_none_or(eligible));
        }
    }
}
