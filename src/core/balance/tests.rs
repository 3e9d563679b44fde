//! Tests of the choice.

use std::time::Duration;

use proptest::prelude::*;

use super::ewma::Ewma;
use super::*;

#[derive(Default)]
struct Pool {
    count: usize,
    out: Vec<usize>,
    load: Vec<u32>,
    shares: Vec<u32>,
    latency: Vec<f32>,
}

impl Members for Pool {
    fn count(&self) -> usize {
        self.count
    }
    fn is_eligible(&self, endpoint: usize) -> bool {
        !self.out.contains(&endpoint)
    }
    fn load(&self, endpoint: usize) -> u32 {
        self.load.get(endpoint).copied().unwrap_or(0)
    }
    fn shares(&self) -> Option<&dyn Shares> {
        (!self.shares.is_empty()).then_some(self)
    }
    fn latency(&self, endpoint: usize) -> f32 {
        self.latency.get(endpoint).copied().unwrap_or(0.0)
    }
}

impl Shares for Pool {
    fn of(&self, endpoint: usize) -> u32 {
        self.shares[endpoint]
    }
    fn max(&self) -> u32 {
        self.shares.iter().copied().max().unwrap_or(1)
    }
}

fn pool(count: usize) -> Pool {
    Pool { count, ..Pool::default() }
}

fn draw(random: u64, cursor: u64) -> Draw<'static> {
    Draw { random, cursor, hashed: None }
}

/// How often each endpoint is chosen.
fn hits(balance: Balance, pool: &Pool, times: u64) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut hits = vec![0; pool.count];
    for cursor in 0..times {
        hits[pick(balance, pool, &draw(rng.u64(..), cursor)).expect("eligible")] += 1;
    }
    hits
}

fn near(hits: &[u64], wanted: &[u64]) {
    let close = |(hit, wanted): (&u64, &u64)| hit.abs_diff(*wanted) <= wanted / 10;
    assert!(hits.iter().zip(wanted).all(close), "{hits:?}, wanted {wanted:?}");
}

#[test]
fn round_robin_visits_all_in_turn_and_skips_the_ineligible() {
    let pool = Pool { out: vec![1], ..pool(3) };
    let turn = |cursor| pick(Balance::RoundRobin, &pool, &draw(0, cursor));
    assert_eq!([turn(0), turn(1), turn(2), turn(3)], [Some(0), Some(2), Some(2), Some(0)]);
}

#[test]
fn shares_are_kept_by_every_way_of_choosing() {
    let pool = Pool { shares: vec![1_000, 2_000, 7_000], ..pool(3) };
    for balance in [Balance::RoundRobin, Balance::Random] {
        near(&hits(balance, &pool, 10_000), &[1_000, 2_000, 7_000]);
    }
    let turns: Vec<_> = (0..10).filter_map(|c| pick(Balance::RoundRobin, &pool, &draw(0, c))).collect();
    assert!(turns.windows(5).all(|run| run.iter().any(|&i| i != 2)), "{turns:?}");
}

#[test]
fn least_request_of_two_takes_the_less_loaded_for_its_share_whatever_the_draw() {
    for random in [0, u64::MAX, 1 << 63, 0x7fff_ffff_ffff_ffff] {
        let busy = Pool { load: vec![9, 1], ..pool(2) };
        assert_eq!(pick(Balance::LeastRequest, &busy, &draw(random, 0)), Some(1));
        let strong = Pool { load: vec![9, 1], shares: vec![10_000, 1_000], ..pool(2) };
        assert_eq!(pick(Balance::LeastRequest, &strong, &draw(random, 0)), Some(0));
    }
}

#[test]
fn without_load_all_get_the_same() {
    for balance in [Balance::LeastRequest, Balance::Random, Balance::PeakEwma] {
        near(&hits(balance, &pool(5), 10_000), &[2_000; 5]);
    }
}

#[test]
fn peak_ewma_prefers_the_fast_one_unless_it_is_busy() {
    for random in [0, u64::MAX, 1 << 63, 0x7fff_ffff_ffff_ffff] {
        let pool = Pool { latency: vec![100.0, 1_000.0], load: vec![3, 3], ..pool(2) };
        assert_eq!(pick(Balance::PeakEwma, &pool, &draw(random, 0)), Some(0));
        let busy = Pool { load: vec![99, 3], ..pool };
        assert_eq!(pick(Balance::PeakEwma, &busy, &draw(random, 0)), Some(1));
    }
}

/// linkerd's load-biaser: what fails fast would otherwise attract everything.
#[test]
fn linkerd_fast_failures_do_not_attract() {
    let slow = Ewma::default().observe(0, Some(50_000.0));
    let failing = (1..20).fold(Ewma::default(), |ewma, ms| ewma.observe(ms, None));
    assert!(failing.at(20) > slow.at(20));
    assert!(failing.at(200_000) < 1.0, "and is tried again in time");
    assert_eq!(Ewma::from_bits(slow.to_bits()), slow);
}

#[test]
fn the_average_jumps_up_at_once_and_comes_down_slowly() {
    let calm = (0..1_000).fold(Ewma::default(), |ewma, n| ewma.observe(n * 100, Some(1_000.0)));
    assert!((900.0..1_001.0).contains(&calm.at(100_000)));
    let peak = calm.observe(100_000, Some(80_000.0));
    assert!(peak.at(100_000) > 79_999.0);
    let after = peak.observe(101_000, Some(1_000.0));
    assert!((70_000.0..75_000.0).contains(&after.at(101_000)), "{after:?}");
    assert!(peak.at(99_990) >= peak.at(100_000), "a clock a little behind changes nothing");
}

fn ring(count: usize) -> Ring {
    Ring::new(&(0..count).map(|n| (format!("10.0.0.{n}:80"), 1)).collect::<Vec<_>>())
}

fn hash_of(key: u64) -> u64 {
    let mut bits = Bits(key);
    u64::from(bits.next()) << 32 | u64::from(bits.next())
}

#[test]
fn a_key_stays_and_only_the_share_of_one_that_goes_moves() {
    let (all, ring) = (pool(10), ring(10));
    let without = Pool { out: vec![3], ..pool(10) };
    let (mut moved, mut hits) = (0, [0_u32; 10]);
    for key in 0..10_000 {
        let draw = Draw { random: key, cursor: key, hashed: Some((hash_of(key), &ring)) };
        let home = pick(Balance::RingHash, &all, &draw).expect("eligible");
        let other = pick(Balance::RingHash, &without, &draw).expect("eligible");
        hits[home] += 1;
        moved += u32::from(home != other);
        assert!(home == other || home == 3);
    }
    assert_eq!(moved, hits[3]);
    assert!(hits.iter().all(|h| (700..1_350).contains(h)), "{hits:?}");
}

#[test]
fn a_hot_key_spills_over_to_the_next_on_the_ring() {
    let ring = ring(4);
    let draw = Draw { random: 0, cursor: 0, hashed: Some((hash_of(1), &ring)) };
    let mut pool = Pool { load: vec![0; 4], ..pool(4) };
    for n in 1..=400 {
        let taken = pick(Balance::RingHash, &pool, &draw).expect("eligible");
        pool.load[taken] += 1;
        let bound = (n * 125_u32).div_ceil(400);
        assert!(pool.load.iter().all(|load| *load <= bound), "{:?} after {n}", pool.load);
    }
}

#[test]
fn rings_are_the_same_whatever_the_order_and_bounded_whatever_the_weights() {
    let names: Vec<_> = (0..5_000).map(|n| (format!("h{n}"), 100)).collect();
    let big = Ring::new(&names);
    assert!(big.walk(0).count() <= 66_000);
    let few = [("a".to_owned(), 1), ("b".to_owned(), 3)];
    let turned = [few[1].clone(), few[0].clone()];
    let (one, other) = (Ring::new(&few), Ring::new(&turned));
    assert!(
        (0..100).map(hash_of).all(|h| one.walk(h).next() != other.walk(h).next()),
        "index 0 of one is 1 of the other"
    );
    let b = one.walk(0).filter(|&i| i == 1).count();
    assert_eq!(b, 480);
}

#[test]
fn slow_start_grows_from_a_tenth_to_the_full_share() {
    let second = Duration::from_secs(1);
    let at = |age: u32| share(2, age * second, 10 * second);
    assert_eq!([at(0), at(5), at(10), at(99)], [200, 1_000, 2_000, 2_000]);
    assert_eq!(share(1, Duration::ZERO, Duration::ZERO), 1_000);
}

proptest! {
    #[test]
    fn whatever_is_picked_is_eligible(count in 0_usize..9, mask: u16, cursor: u64, random: u64, way in 0_usize..5, shares: bool) {
        let way = [Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::RingHash, Balance::PeakEwma][way];
        let out: Vec<usize> = (0..count).filter(|i| mask >> i & 1 == 0).collect();
        let shares = if shares { (0..count).map(|i| 100 * (u32::try_from(i).expect("small") + 1)).collect() } else { Vec::new() };
        let pool = Pool { out: out.clone(), shares, ..pool(count) };
        let ring = ring(count);
        let draw = Draw { random, cursor, hashed: Some((random, &ring)) };
        let picked = pick(way, &pool, &draw);
        prop_assert_eq!(picked.is_some(), out.len() < count);
        prop_assert!(picked.is_none_or(|i| i < count && !out.contains(&i)));
    }
}
