//! Route lookup: tables of 10, 1,000 and 10,000 routes; also how long indexing them takes, and normalising host and path.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion};
use tidegate::core::route::host::HostName;
use tidegate::core::route::path::{PathScratch, normalise};
use tidegate::core::route::predicate::Subject;
use tidegate::core::route::table::RouteTable;
use tidegate::core::route::{FieldMatch, HostMatch, Matcher, PathMatch, Route, Target, ValueMatch};

/// How many requests are looked up in turn, so that neither caches nor branch predictors know the next one.
const REQUESTS: usize = 4_096;

/// All benchmarks of this subject.
pub(crate) fn benches(criterion: &mut Criterion) {
    lookup(criterion);
    build(criterion);
    forms(criterion);
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_lookup");
    for size in [10, 1_000, 10_000] {
        let table = RouteTable::new(routes(size));
        let fields = vec![("accept", "*/*"), ("cookie", "a=1; session=abc"), ("region", "eu")];
        let requests = requests(size);
        let found = |(host, path): &(String, String)| {
            table.find_index(black_box(&Subject {
                host: host.as_bytes(),
                path: path.as_bytes(),
                method: b"GET",
                query: None,
                fields: &fields,
            }))
        };
        assert!(requests.iter().all(|r| found(r).is_some()), "every request has a route");
        let mut next = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                next = (next + 1) % REQUESTS;
                found(&requests[next])
            });
        });
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_build");
    group.sample_size(10);
    group.bench_function(BenchmarkId::from_parameter(10_000), |bench| {
        let routes = routes(10_000);
        bench.iter_batched(|| routes.clone(), RouteTable::new, BatchSize::LargeInput);
    });
    group.finish();
}

fn forms(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_forms");
    group.bench_function("host", |bench| bench.iter(|| HostName::new(black_box(b"Shop.Example.com:8080"))));
    let mut scratch = PathScratch::default();
    for (name, path) in [("path_as_is", "/api/v1/items/12345/reviews"), ("path_rewritten", "/api/./v1/%7eitems/../x")] {
        group.bench_function(name, |bench| {
            bench.iter(|| normalise(black_box(path.as_bytes()), &mut scratch).map(|n| n.matching.len()));
        });
    }
    group.finish();
}

/// Of every ten routes: five on a host of their own, one wildcard, two prefixes, one path with predicates and one expression at most
/// on the host all share.
fn routes(size: usize) -> Vec<Route<usize>> {
    const REGEXES_MAX: usize = 8;
    let shared = || HostMatch::Exact("shop.example.com".into());
    let mut regexes = 0;
    let mut routes: Vec<_> = (0..size - 1)
        .map(|i| {
            let prefix = PathMatch::Prefix(format!("/api/v{}/resource-{i}", i % 7).into());
            match i % 10 {
                0..=4 => {
                    route(HostMatch::Exact(format!("tenant-{i}.example.com")), PathMatch::Prefix(b"/".to_vec()), 0)
                }
                5 => route(HostMatch::Wildcard(format!(".region-{i}.example.net")), prefix, 0),
                6 | 7 => route(shared(), prefix, 0),
                8 => route(shared(), PathMatch::Exact(format!("/items/{i}/detail").into()), i % 3),
                _ if regexes < REGEXES_MAX => {
                    regexes += 1;
                    let regex = regex::bytes::Regex::new(&format!("^/old-{i}/[0-9]+$")).expect("a regex");
                    route(shared(), PathMatch::Regex(regex), 0)
                }
                _ => route(shared(), PathMatch::Exact(format!("/static/{i}.css").into()), 0),
            }
        })
        .collect();
    routes.push(route(HostMatch::Any, PathMatch::Prefix(b"/".to_vec()), 0));
    routes
}

fn route(host: HostMatch, path: PathMatch, predicates: usize) -> Route<usize> {
    let field = FieldMatch { name: "region".into(), value: ValueMatch::Exact(b"eu".to_vec()) };
    let matcher = Matcher {
        host,
        path,
        methods: Vec::new(),
        headers: vec![field; predicates],
        query: Vec::new(),
        cookies: Vec::new(),
    };
    Route { matcher, target: Target::Service(0), timeout: None, label: String::new() }
}

/// Requests to every kind of route, some of which fall through to the route for any host.
fn requests(size: usize) -> Vec<(String, String)> {
    let mut rng = fastrand::Rng::with_seed(7);
    let shared = "shop.example.com".to_owned();
    let one = |_| {
        let i = rng.usize(..size);
        match i % 10 {
            0..=4 => (format!("tenant-{i}.example.com"), format!("/page/{i}")),
            5 => (format!("a.region-{i}.example.net"), format!("/api/v{}/resource-{i}/x", i % 7)),
            6 | 7 => (shared.clone(), format!("/api/v{}/resource-{i}/reviews/5", i % 7)),
            8 => (shared.clone(), format!("/items/{i}/detail")),
            _ => (shared.clone(), format!("/old-{i}/5")),
        }
    };
    (0..REQUESTS).map(one).collect()
}
