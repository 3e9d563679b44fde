//! Where users of other tools were hurt; each test carries the name of the report it answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::core::balance::{Balance, Draw, Equals, pick};
use crate::core::endpoint::{Endpoint, Pool};
use crate::core::service::{Affinity, AffinityCookie, KeySource, OnIncrease, SameSite, Service, Upstream};
use crate::core::snapshot::{ActiveService, Running};

/// A service with so many endpoints in each pool and its candidate at `weight`.
fn service(stable: u16, candidate: u16, weight: Weight) -> ActiveService {
    let second = Duration::from_secs(1);
    let pool = |version: &str, count: u16| {
        let endpoint = |i: u16| Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 1_000 + i)));
        let version = Version::new(version).expect("a version");
        Arc::new(Pool::fixed(version, None, (0..count).map(endpoint).collect()))
    };
    let service = Service {
        name: Name::new("web").expect("a name"),
        stable: pool("v1", stable),
        candidate: Some(pool("v2", candidate)),
        upstream: Upstream::in_seconds(),
        health: std::sync::Arc::default(),
        outlier: crate::core::outlier::OutlierRules::default(),
        force: None,
        rollout: Arc::default(),
        affinity: Affinity {
            key: vec![KeySource::OwnCookie],
            cookie: AffinityCookie { name: "id".into(), max_age: second, same_site: SameSite::Lax },
            salt: SaltMode::Rollout,
            on_increase: OnIncrease::Move,
            secret: None,
        },
    };
    ActiveService::new(Arc::new(service), Running { weight, ..Running::idle(1) })
}

fn weight(text: &str) -> Weight {
    Weight::parse(text).expect("a weight")
}

fn variant(service: &ActiveService, key: &[u8]) -> Variant {
    let wish = Wish { bucket: service.salt.bucket(key), ..Wish::default() };
    assign(service.openness(true), wish).0
}

/// Whether `hits` of `count` lie within three standard deviations of `weight`.
fn within_3_sigma(hits: usize, count: u32, weight: Weight) -> bool {
    let (n, p) = (f64::from(count), weight.fraction());
    let hits = f64::from(u32::try_from(hits).expect("small"));
    (hits - n * p).abs() <= 3.0 * (n * p * (1.0 - p)).sqrt()
}

/// Integer weights over uneven pools sent all to the canary: here the variant is drawn first, so pool sizes do not matter.
#[test]
fn traefik_9436_uneven_pools_change_nothing_about_the_share() {
    const REQUESTS: u32 = 40_000;
    let mut draws = BTreeSet::new();
    for (stable, candidate) in [(1, 9), (9, 1), (4, 4)] {
        let service = service(stable, candidate, weight("5%"));
        let mut rng = fastrand::Rng::with_seed(9_436);
        let mut hits = [vec![0_usize; usize::from(stable)], vec![0; usize::from(candidate)]];
        let mut drawn = Vec::new();
        for request in 0..REQUESTS {
            let variant = variant(&service, &request.to_be_bytes());
            let count = service.pool(variant).expect("both pools").endpoints.len();
            let pool = Equals { count, eligible: |_| true, load: |_| 0 };
            let draw = Draw { random: rng.u64(..), cursor: 0, hashed: None };
            let endpoint = pick(Balance::LeastRequest, &pool, &draw).expect("eligible");
            hits[variant as usize][endpoint] += 1;
            drawn.push(variant == Variant::Candidate);
        }
        let total: usize = hits[1].iter().sum();
        assert!(within_3_sigma(total, REQUESTS, weight("5%")), "{stable} and {candidate} endpoints: {total}");
        for pool in &hits {
            let fair = pool.iter().sum::<usize>() / pool.len();
            assert!(pool.iter().all(|hits| hits.abs_diff(fair) < fair / 4), "{pool:?}");
        }
        draws.insert(drawn);
    }
    assert_eq!(draws.len(), 1, "every request has the same variant whatever the pools");
}

/// Sticky cookies took everyone to the candidate within a second: here who comes back changes nothing.
#[test]
fn flagger_1647_shares_hold_over_five_steps_and_nobody_moves_back() {
    const USERS: u32 = 10_000;
    const VISITS: u32 = 5;
    let mut moved: BTreeSet<u32> = BTreeSet::new();
    for step in ["0%", "5%", "25%", "50%", "100%"].map(weight) {
        let service = service(3, 1, step);
        for _ in 0..VISITS {
            let key = |user: u32| format!("user-{user}");
            let on_candidate = |user: &u32| variant(&service, key(*user).as_bytes()) == Variant::Candidate;
            let now: BTreeSet<u32> = (0..USERS).filter(on_candidate).collect();
            assert!(moved.is_subset(&now), "somebody moved back at {step}");
            assert!(within_3_sigma(now.len(), USERS, step), "{} of {USERS} at {step}", now.len());
            moved = now;
        }
    }
    assert_eq!(moved.len(), USERS as usize);
}

/// One percent was the finest step: here it is 0.01 %.
#[test]
fn flagger_164_the_finest_share_is_kept() {
    const REQUESTS: u32 = 1_000_000;
    for step in ["0.01%", "1%", "5%", "50%"].map(weight) {
        let service = service(3, 1, step);
        let hits = (0..REQUESTS).filter(|r| variant(&service, &r.to_be_bytes()) == Variant::Candidate).count();
        assert!(within_3_sigma(hits, REQUESTS, step), "{hits} of {REQUESTS} at {step}");
    }
}
