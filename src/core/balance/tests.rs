//! Tests of the choice.

mod sim;

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;

use super::ewma::Ewma;
use super::*;

#[derive(Default)]
struct Pool {
    count: usize,
    out: Vec<usize>,
    load: Vec<u32>,
    weights: Option<Weights>,
    growth: Vec<u32>,
    latency: Vec<Latency>,
    /// How often an endpoint was looked at.
    looks: Cell<u64>,
}

impl Members for Pool {
    fn count(&self) -> usize {
        self.count
    }
    fn is_eligible(&self, endpoint: usize) -> bool {
        self.look();
        !self.out.contains(&endpoint)
    }
    fn load(&self, endpoint: usize) -> u32 {
        self.look();
        self.load.get(endpoint).copied().unwrap_or(0)
    }
    fn total_load(&self) -> u64 {
        self.load.iter().map(|&load| u64::from(load)).sum()
    }
    fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }
    fn growth(&self, endpoint: usize) -> u32 {
        self.look();
        self.growth.get(endpoint).copied().unwrap_or(GROWN)
    }
    fn latency(&self, endpoint: usize) -> Latency {
        self.latency.get(endpoint).copied().unwrap_or(Latency::Unknown)
    }
}

impl Pool {
    fn look(&self) {
        self.looks.set(self.looks.get() + 1);
    }
}

fn pool(count: usize) -> Pool {
    Pool { count, ..Pool::default() }
}

fn weighted(weights: &[u32]) -> Pool {
    Pool { weights: Weights::new(weights), ..pool(weights.len()) }
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
fn round_robin_visits_all_in_turn() {
    let turn = |cursor| pick(Balance::RoundRobin, &pool(3), &draw(0, cursor));
    assert_eq!([turn(0), turn(1), turn(2), turn(3)], [Some(0), Some(1), Some(2), Some(0)]);
}

/// Each of these ways, and a ring for requests without a key.
const WAYS: [Balance; 5] =
    [Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::RingHash, Balance::PeakEwma];

#[test]
fn the_share_of_neighbours_that_are_out_goes_to_all_others_alike() {
    for (count, out) in [(10, 2..7), (10, 5..10), (10, 0..9), (3, 1..2), (4, 1..3), (40, 1..38)] {
        let survivors = count - out.len();
        let pool = Pool { out: out.clone().collect(), ..pool(count) };
        for balance in WAYS {
            let hits = hits(balance, &pool, 2_000 * survivors as u64);
            let wanted: Vec<u64> = (0..count).map(|i| if out.contains(&i) { 0 } else { 2_000 }).collect();
            near(&hits, &wanted);
        }
    }
}

#[test]
fn weights_are_kept_by_every_way_of_choosing_however_steep() {
    let one_beside = |weight, others| [vec![weight], vec![1; others]].concat();
    for weights in [vec![1, 2, 7], vec![3, 1], one_beside(100, 9), one_beside(100, 49), one_beside(10, 9)] {
        let pool = weighted(&weights);
        for balance in WAYS {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            let wanted: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * 1_000).collect();
            near(&hits(balance, &pool, total * 1_000), &wanted);
        }
    }
    let pool = weighted(&[1, 2, 7]);
    let turns: Vec<_> = (0..10).filter_map(|c| pick(Balance::RoundRobin, &pool, &draw(0, c))).collect();
    assert!(turns.windows(5).all(|run| run.iter().any(|&i| i != 2)), "{turns:?}");
}

#[test]
fn weights_are_kept_among_those_that_are_left() {
    for (weights, out, wanted) in [
        (vec![100, 1, 2, 3, 4], vec![0], vec![0, 1_000, 2_000, 3_000, 4_000]),
        (vec![1, 1, 1, 1, 6], vec![1, 2, 3], vec![1_000, 0, 0, 0, 6_000]),
        (vec![5, 3, 2], vec![2], vec![5_000, 3_000, 0]),
    ] {
        let pool = Pool { out, ..weighted(&weights) };
        for balance in WAYS {
            near(&hits(balance, &pool, wanted.iter().sum()), &wanted);
        }
    }
}

#[test]
fn one_that_still_grows_gets_as_much_as_it_has_grown() {
    let grown = |growth: &[u32]| Pool { growth: growth.to_vec(), ..pool(growth.len()) };
    let strong = Pool { growth: vec![250, 1_000, 1_000], ..weighted(&[8, 1, 1]) };
    let with_one_out = Pool { out: vec![0], ..grown(&[1_000, 100, 1_000]) };
    for (pool, wanted) in [
        (grown(&[100, 1_000]), [1_000, 10_000, 0]),
        (grown(&[100, 200]), [5_000, 10_000, 0]),
        (grown(&[1_000, 500, 1_000]), [4_000, 2_000, 4_000]),
        (strong, [4_000, 2_000, 2_000]),
        (with_one_out, [0, 1_000, 10_000]),
    ] {
        for balance in WAYS {
            near(&hits(balance, &pool, wanted.iter().sum()), &wanted);
        }
    }
    let alike = grown(&[100; 4]);
    let ring = ring(4);
    let home =
        |pool: &Pool, key| pick(Balance::RingHash, pool, &Draw { random: 0, cursor: 0, hashed: Some((key, &ring)) });
    assert!(
        (0..1_000).map(hash_of).all(|key| home(&alike, key) == home(&pool(4), key)),
        "among equals all keys are home"
    );
}

#[test]
fn keys_come_to_one_that_grows_little_by_little_and_stay() {
    let ring = ring(4);
    let home = |pool: &Pool, key| {
        let draw = Draw { random: key, cursor: key, hashed: Some((hash_of(key), &ring)) };
        pick(Balance::RingHash, pool, &draw).expect("eligible")
    };
    let at_last: Vec<u64> = (0..8_000).filter(|&key| home(&pool(4), key) == 2).collect();
    let mut before = Vec::new();
    for growth in [100, 300, 700, 1_000] {
        let pool = Pool { growth: vec![1_000, 1_000, growth, 1_000], ..pool(4) };
        let come: Vec<u64> = at_last.iter().copied().filter(|&key| home(&pool, key) == 2).collect();
        let wanted = at_last.len() as u64 * u64::from(growth) / 1_000;
        near(&[come.len() as u64], &[wanted]);
        assert!(before.iter().all(|key| come.contains(key)));
        before = come;
    }
    assert!(
        (0..8_000).filter(|key| !at_last.contains(key)).all(|key| {
            home(&Pool { growth: vec![1_000, 1_000, 100, 1_000], ..pool(4) }, key) == home(&pool(4), key)
        })
    );
}

/// Requests end in the order in which they began; `busy` are in flight at any time.
fn hits_under_load(balance: Balance, mut pool: Pool, busy: usize, times: u64) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut under_way = std::collections::VecDeque::new();
    let mut hits = vec![0; pool.count];
    (pool.load, pool.latency) = (vec![0; pool.count], vec![Latency::Recent(1_000.0); pool.count]);
    for cursor in 0..times {
        let taken = pick(balance, &pool, &draw(rng.u64(..), cursor)).expect("eligible");
        hits[taken] += 1;
        pool.load[taken] += 1;
        under_way.push_back(taken);
        if under_way.len() > busy {
            pool.load[under_way.pop_front().expect("some")] -= 1;
        }
    }
    hits
}

#[test]
fn shares_are_kept_under_load_too() {
    for balance in [Balance::LeastRequest, Balance::PeakEwma] {
        for busy in [1, 2, 4, 16, 200] {
            let steep = hits_under_load(balance, weighted(&[&[100][..], &[1; 9]].concat()), busy, 20_000);
            let part = steep[0] * 100 / 20_000;
            assert!((80..=97).contains(&part), "{balance:?}, {busy} in flight: {steep:?}");
            let young = Pool { growth: vec![100, 1_000], ..pool(2) };
            let young = hits_under_load(balance, young, busy, 20_000);
            let part = young[0] * 100 / 20_000;
            assert!((5..=15).contains(&part), "{balance:?}, {busy} in flight: {young:?}");
        }
    }
}

#[test]
fn least_request_of_two_takes_the_less_loaded_for_its_share_whatever_the_draw() {
    for random in [0, u64::MAX, 1 << 63, 0x7fff_ffff_ffff_ffff] {
        let busy = Pool { load: vec![9, 1], ..pool(2) };
        assert_eq!(pick(Balance::LeastRequest, &busy, &draw(random, 0)), Some(1));
        let strong = Pool { load: vec![9, 1], ..weighted(&[10, 1]) };
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
        let pool =
            Pool { latency: vec![Latency::Recent(100.0), Latency::Recent(1_000.0)], load: vec![3, 3], ..pool(2) };
        assert_eq!(pick(Balance::PeakEwma, &pool, &draw(random, 0)), Some(0));
        let busy = Pool { load: vec![99, 3], ..pool };
        assert_eq!(pick(Balance::PeakEwma, &busy, &draw(random, 0)), Some(1));
    }
}

#[test]
fn peak_ewma_takes_one_nobody_knows_for_as_fast_as_the_other_but_asks_it_once() {
    use Latency::{Awaited, Recent, Unknown};
    let second = |load: [u32; 2], latency: [Latency; 2]| {
        let pool = Pool { load: load.to_vec(), latency: latency.to_vec(), ..pool(2) };
        hits(Balance::PeakEwma, &pool, 1_000)[1]
    };
    assert!((400..600).contains(&second([0, 0], [Recent(5_000.0), Unknown])), "as fast as the other");
    assert_eq!(second([1, 0], [Recent(5_000.0), Unknown]), 1_000, "and less busy");
    assert_eq!(second([9, 1], [Recent(5_000.0), Awaited]), 0, "its first answer is still to come");
    assert_eq!(second([2, 1], [Awaited, Awaited]), 1_000, "of two nobody knows the less busy one");
    assert_eq!(second([1, 0], [Awaited, Unknown]), 1_000);
    assert_eq!(second([0, 3], [Unknown, Unknown]), 0);
}

/// linkerd's load-biaser: what fails fast would otherwise attract everything.
#[test]
fn linkerd_fast_failures_do_not_attract() {
    let slow = Ewma::default().observe(0, Some(50_000.0));
    let failing = (1..20).fold(Ewma::default(), |ewma, ms| ewma.observe(ms, None));
    assert!(recent(failing, 20, false) > recent(slow, 20, false));
    assert!(recent(failing, 200_000, false) < 1.0, "and is tried again in time");
    assert_eq!(Ewma::from_bits(slow.to_bits()), slow);
}

fn recent(average: Ewma, ms: u32, awaited: bool) -> f32 {
    match average.at(ms, awaited) {
        Latency::Recent(us) => us,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_average_jumps_up_at_once_and_comes_down_slowly() {
    let none = Ewma::default();
    assert_eq!([none.at(9, false), none.at(9, true)], [Latency::Unknown, Latency::Awaited]);
    assert!(recent(none.observe(9, Some(0.0)), 9, false) > 0.0, "the fastest answer is one");
    let calm = (0..1_000).fold(none, |ewma, n| ewma.observe(n * 100, Some(1_000.0)));
    assert!((900.0..1_001.0).contains(&recent(calm, 100_000, false)));
    let peak = calm.observe(100_000, Some(80_000.0));
    assert!(recent(peak, 100_000, false) > 79_999.0);
    let after = peak.observe(101_000, Some(1_000.0));
    assert!((70_000.0..75_000.0).contains(&recent(after, 101_000, false)), "{after:?}");
    assert!(recent(peak, 99_990, false) >= recent(peak, 100_000, false), "a clock a little behind changes nothing");
    assert!(recent(peak, 200_000, true) > 79_999.0, "it does not fade while an answer is awaited");
    assert!(recent(peak, 200_000, false) < 10.0);
}

fn ring(count: usize) -> Ring {
    Ring::new(&(0..count).map(|n| (format!("10.0.0.{n}:80"), 1)).collect::<Vec<_>>())
}

fn hash_of(key: u64) -> u64 {
    Bits(key).next()
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
    let at = |age: u32| growth(age * second, 10 * second);
    assert_eq!([at(0), at(1), at(5), at(10), at(99)], [100, 100, 500, 1_000, 1_000]);
    assert_eq!(growth(Duration::ZERO, Duration::ZERO), 1_000);
}

/// What a choice costs does not grow with the pool, unless most of it is out.
#[test]
fn a_choice_looks_at_a_few_endpoints_of_many() {
    const TIMES: u64 = 2_000;
    let ring = ring(1_000);
    let steep: Vec<u32> = [&[100; 10][..], &[1; 990]].concat();
    for (weights, out, most) in [(None, 0, 12), (Some(&steep), 0, 12), (None, 50, 40), (Some(&steep), 50, 40)] {
        let pool = Pool {
            out: (0..out).map(|i| i * 20).collect(),
            load: vec![10; 1_000],
            ..weights.map_or_else(|| pool(1_000), |weights| weighted(weights))
        };
        for balance in WAYS {
            pool.looks.set(0);
            hits(balance, &pool, TIMES);
            assert!(pool.looks.get() <= most * TIMES, "{balance:?}, {out} out: {}", pool.looks.get() / TIMES);
        }
        let pool = Pool { weights: None, looks: Cell::new(0), ..pool };
        for key in 0..TIMES {
            let draw = Draw { random: 0, cursor: 0, hashed: Some((hash_of(key), &ring)) };
            assert!(pick(Balance::RingHash, &pool, &draw).is_some());
        }
        assert!(pool.looks.get() <= most * TIMES, "ring, {out} out: {}", pool.looks.get() / TIMES);
    }
}

proptest! {
    #[test]
    fn whatever_is_picked_is_eligible(count in 0_usize..9, mask: u16, cursor: u64, random: u64, way in 0_usize..5, uneven: bool, keyed: bool) {
        let out: Vec<usize> = (0..count).filter(|i| mask >> i & 1 == 0).collect();
        let weights: Vec<u32> = (1..=100).step_by(11).take(count).collect();
        let growth = if uneven { vec![100, 1_000, 500] } else { Vec::new() };
        let pool = Pool { out: out.clone(), growth, ..if uneven { weighted(&weights) } else { pool(count) } };
        let ring = ring(count);
        let draw = Draw { random, cursor, hashed: keyed.then_some((random, &ring)) };
        let picked = pick(WAYS[way], &pool, &draw);
        prop_assert_eq!(picked.is_some(), out.len() < count);
        prop_assert!(picked.is_none_or(|i| i < count && !out.contains(&i)));
    }
}
