//! Which variant and which endpoint: the bucket of a key, the assignment, and the pick among 2, 8 and 64 endpoints.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use tidegate::core::assign::{Openness, Salt, Wish, assign};
use tidegate::core::balance::{Balance, Draw, Equals, pick};
use tidegate::core::id::{Name, Version};
use tidegate::core::service::SaltMode;
use tidegate::core::weight::Weight;

/// All benchmarks of this subject.
pub(crate) fn benches(criterion: &mut Criterion) {
    assignment(criterion);
    picks(criterion);
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
