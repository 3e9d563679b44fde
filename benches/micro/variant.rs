//! Which variant and which endpoint: the bucket of a key, the assignment, and the pick among 2, 8 and 64 endpoints, and among up to 1,000
//! of different weights.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use tidegate::core::assign::{Openness, Salt, Wish, assign};
use tidegate::core::balance::ewma::Latency;
use tidegate::core::balance::ring::Ring;
use tidegate::core::balance::weights::Weights;
use tidegate::core::balance::{Balance, Draw, Equals, GROWN, Members, pick};
use tidegate::core::id::{Name, Version};
use tidegate::core::service::SaltMode;
use tidegate::core::weight::Weight;

/// All benchmarks of this subject.
pub(crate) fn benches(criterion: &mut Criterion) {
    assignment(criterion);
    picks(criterion);
    uneven(criterion);
}

/// A pool of endpoints of different weights, one in ten of which is out.
struct Uneven {
    weights: Weights,
    count: usize,
}

impl Members for Uneven {
    fn count(&self) -> usize {
        self.count
    }
    fn is_eligible(&self, endpoint: usize) -> bool {
        endpoint % 10 != 9
    }
    fn load(&self, endpoint: usize) -> u32 {
        u32::try_from(endpoint % 5).unwrap_or(0)
    }
    fn total_load(&self) -> u64 {
        2 * self.count as u64
    }
    fn weights(&self) -> Option<&Weights> {
        Some(&self.weights)
    }
    fn growth(&self, _endpoint: usize) -> u32 {
        GROWN
    }
    fn latency(&self, _endpoint: usize) -> Latency {
        Latency::Unknown
    }
}

fn assignment(criterion: &mut Criterion) {
    let (name, version) = (Name::new("web").expect("a name"), Version::new("v2").expect("a version"));
    let salt = Salt::of_service(SaltMode::Rollout, &name, Some(&version), 0);
    let weight = Weight::parse("5%").expect("a weight");
    let open = Openness { weight, open: true, open_to_force: false, exists: true };
    let mut key = 0_u128;
    criterion.bench_function("assign", |bench| {
        bench.iter(|| {
            key = key.wrapping_add(1);
            let wish = Wish { bucket: salt.bucket(black_box(&key.to_be_bytes())), ..Wish::default() };
            assign(black_box(open), wish)
        });
    });
}

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (name, balance) in [("least_request", Balance::LeastRequest), ("round_robin", Balance::RoundRobin)] {
        for count in [2_usize, 8, 64] {
            let loads: Vec<u32> = (0..64).map(|i| i * 7 % 5).collect();
            let mut rng = fastrand::Rng::with_seed(7);
            let mut cursor = 0;
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| {
                    cursor += 1;
                    let pool = Equals { count: black_box(count), eligible: |i| i % 9 != 8, load: |i: usize| loads[i] };
                    pick(balance, &pool, &Draw { random: rng.u64(..), cursor, hashed: None })
                });
            });
        }
    }
    group.finish();
}

fn uneven(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick_uneven");
    let ways = [
        ("least_request", Balance::LeastRequest),
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("ring_hash", Balance::RingHash),
        ("peak_ewma", Balance::PeakEwma),
    ];
    for count in [10_usize, 1_000] {
        let weights: Vec<u32> = (1..=100).cycle().step_by(7).take(count).collect();
        let named: Vec<_> = weights.iter().enumerate().map(|(i, weight)| (format!("10.0.0.1:{i}"), *weight)).collect();
        let ring = Ring::new(&named);
        let pool = Uneven { weights: Weights::new(&weights).expect("different weights"), count };
        for (name, balance) in ways {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut cursor = 0;
            group.bench_function(BenchmarkId::new(name, count), |bench| {
                bench.iter(|| {
                    cursor += 1;
                    let hashed = Some((rng.u64(..), &ring));
                    pick(balance, black_box(&pool), &Draw { random: rng.u64(..), cursor, hashed })
                });
            });
        }
    }
    group.finish();
}
