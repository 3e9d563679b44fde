//! The text of `/metrics` for a small state, read back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::core::balance::Balance;
use crate::core::circuit::PoolLimits;
use crate::core::endpoint::{Address, Endpoint, Pool};
use crate::core::health::Readiness;
use crate::core::id::{Name, Version};
use crate::core::retry::RetryRules;
use crate::core::rollout::wanted::Terms;
use crate::core::service::{
    Affinity, AffinityCookie, HostMode, KeySource, OnIncrease, Protocol, SaltMode, SameSite, Service, Upstream,
};
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::core::weight::Weight;
use crate::state::live::{InFlight, ServiceLive};
use crate::state::sensors::Glance;

/// Samples by name and labels, with the families they belong to.
struct Scrape {
    samples: BTreeMap<String, f64>,
    kinds: BTreeMap<String, String>,
    helps: BTreeSet<String>,
}

// === impl Scrape ===

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self { samples: BTreeMap::new(), kinds: BTreeMap::new(), helps: BTreeSet::new() };
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, _) = help.split_once(' ').expect("a help text");
                assert!(scrape.helps.insert(name.to_owned()), "{name} twice");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(scrape.helps.contains(name), "{name}: HELP before TYPE");
                assert!(scrape.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let family = family_of(&scrape.kinds, series);
                assert!(scrape.kinds.contains_key(&family), "{series}: no TYPE before");
                assert!(
                    scrape.samples.insert(series.to_owned(), value.parse().expect("a number")).is_none(),
                    "{series}"
                );
            }
        }
        scrape
    }

    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    fn whole(&self, series: &str) -> String {
        self.value(series).to_string()
    }
}

fn family_of(kinds: &BTreeMap<String, String>, series: &str) -> String {
    let name = series.split('{').next().expect("a name");
    let stripped = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    match stripped.filter(|s| kinds.get(*s).is_some_and(|kind| kind == "histogram")) {
        Some(histogram) => histogram.to_owned(),
        None => name.to_owned(),
    }
}

fn pool(version: &str, addresses: &[&str]) -> Arc<Pool> {
    let endpoint = |a: &&str| Endpoint::new(a.parse::<Address>().expect("address"));
    let endpoints = addresses.iter().map(endpoint).collect();
    Arc::new(Pool::fixed(Version::new(version).expect("version"), None, endpoints))
}

fn service(stable: &[&str], candidate: Option<&[&str]>) -> Service {
    Service {
        name: Name::new("web").expect("name"),
        stable: pool("v1", stable),
        candidate: candidate.map(|addresses| pool("v2", addresses)),
        upstream: Upstream {
            protocol: Protocol::Http1,
            tls: None,
            host: HostMode::Preserve,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(60),
            body_idle: Duration::from_secs(60),
            keepalive_idle: Duration::from_secs(30),
            limits: PoolLimits::default(),
            retry: RetryRules::default(),
            balance: Balance::LeastRequest,
            hash_key: Vec::new(),
            slow_start: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            websocket_drain: Duration::from_secs(300),
        },
        health: Arc::default(),
        outlier: crate::core::outlier::OutlierRules::default(),
        force: None,
        rollout: Arc::default(),
        affinity: Affinity {
            key: vec![KeySource::OwnCookie],
            cookie: AffinityCookie {
                name: "tidegate_web".into(),
                max_age: Duration::from_secs(86_400),
                same_site: SameSite::Lax,
            },
            salt: SaltMode::Rollout,
            on_increase: OnIncrease::Move,
            secret: None,
        },
    }
}

fn routing(registry: &Registry, generation: u64, service: Service, previous: &[Arc<ServiceLive>]) -> Routing {
    let running = Running { weight: Weight::parse("5%").expect("weight"), ..Running::idle(1) };
    let services = vec![ActiveService::new(Arc::new(service), running)];
    let snapshot = Snapshot::build(generation, &[], services).expect("no routes");
    let previous: HashMap<Name, Arc<ServiceLive>> =
        previous.iter().map(|live| (Name::new("web").expect("name"), Arc::clone(live))).collect();
    let mut live = registry.resolve(&snapshot, &previous);
    let watch = Watch::rollout(&Terms::default().gate, &[], 2, crate::clock::now());
    watch.show(Glance { log_e: 3.5, bound: 6.9, opinion: Opinion::Clean });
    live[0] = Arc::new(live[0].watched(&watch));
    Routing { snapshot, live }
}

fn rollout() -> RolloutStatus {
    RolloutStatus {
        id: 7,
        version: Version::new("v2").expect("version"),
        phase: "paused",
        reason: Some("approval".to_owned()),
        step: 1,
        steps: 3,
        weight: Weight::HALF,
        by_hand: false,
        origin: "file",
        hold_left_ms: None,
        pending: false,
        started_at_ms: 1,
        ended_at_ms: None,
    }
}

fn aborted() -> Counted {
    let service = Name::new("web").expect("name");
    let mut buckets = [0; LASTED_BOUNDS_US.len() + 1];
    (buckets[0], buckets[2]) = (1, 2);
    Counted { service, outcome: "aborted", reason: "harmful", count: 3, buckets, sum_us: 95_000_000 }
}

#[test]
fn rollouts_have_their_phase_step_and_ends() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    let phases = |service: &str| -> Vec<&str> {
        let is = |phase: &&str| {
            scrape.value(&format!("tidegate_rollout_phase{{service=\"{service}\",phase=\"{phase}\"}}")) > 0.5
        };
        PHASES.into_iter().filter(is).collect()
    };
    assert_eq!((phases("web"), phases("api")), (vec!["paused"], vec!["idle"]));
    let web = |name: &str| scrape.whole(&format!("tidegate_rollout_{name}{{service=\"web\"}}"));
    assert_eq!((web("step"), web("steps"), web("id")), ("2".to_owned(), "3".to_owned(), "7".to_owned()));
    assert_eq!(scrape.whole("tidegate_rollout_step{service=\"api\"}"), "0");
    let labels = "service=\"web\",outcome=\"aborted\",reason=\"harmful\"";
    assert_eq!(scrape.whole(&format!("tidegate_rollouts_ended_total{{{labels}}}")), "3");
    let took = |end: &str| scrape.whole(&format!("tidegate_rollout_duration_seconds_{end}"));
    assert_eq!(took(&format!("bucket{{{labels},le=\"10\"}}")), "1");
    assert_eq!(took(&format!("bucket{{{labels},le=\"60\"}}")), "3");
    assert_eq!(took(&format!("sum{{{labels}}}")), "95");
    let over = RolloutStatus { ended_at_ms: Some(2), ..rollout() };
    let by_hand = RolloutStatus { by_hand: true, ..rollout() };
    assert_eq!((rollout().step_in_force(), over.step_in_force(), by_hand.step_in_force()), (Some(1), None, None));
}

fn facts() -> Facts {
    Facts {
        version: "0.1.0",
        started: Duration::from_millis(1_700_000_000_500),
        workers: 2,
        reloads: Reloads {
            succeeded: 4,
            failed: 1,
            last_successful: false,
            last_at: Duration::from_secs(1_700_000_100),
        },
        ended: vec![aborted()],
        detections: vec![(Name::new("web").expect("name"), Detections { count: 2, took: Duration::from_millis(350) })],
        rollouts: vec![(Name::new("api").expect("name"), None), (Name::new("web").expect("name"), Some(rollout()))],
        names: NameCounts { resolved: 3, stale: 2, unresolved: 1, answers: 70, failures: 8 },
        access_log: SinkStats { lines_lost: 5, write_errors: 2 },
        log_dropped: 9,
        process: ProcessStats {
            cpu: Some(Duration::from_millis(1_500)),
            resident: Some(1 << 24),
            virtual_memory: Some(1 << 30),
            threads: Some(6),
            open_fds: Some(40),
            max_fds: Some(65_536),
        },
    }
}

const STABLE: &str = r#"service="web",version="v1",variant="stable",endpoint="10.0.0.1:8080""#;
const CANDIDATE: &str = r#"service="web",version="v2",variant="candidate",endpoint="[::1]:8080""#;

/// Two workers, one endpoint each way, some traffic.
fn small_state() -> (Registry, Routing, ProcessCounters, InFlight) {
    let registry = Registry::new(2, crate::clock::now());
    let routing = routing(&registry, 42, service(&["10.0.0.1:8080"], Some(&["[::1]:8080"])), &[]);
    let stable = Arc::clone(&routing.live[0].stable[0]);
    stable.health.set_alive(Some(true));
    routing.live[0].candidate[0].health.set_readiness(Readiness::Ready);
    for (worker, us) in [(0, 200), (0, 900), (1, 900), (1, 70_000_000)] {
        let shard = stable.counters.of(worker);
        shard.attempts.add(1);
        shard.requests[2][Assignment::Bucket as usize].add(1);
        shard.duration.record(Duration::from_micros(us));
        shard.upstream.record(Duration::from_micros(us / 2));
    }
    let candidate = routing.live[0].candidate[0].counters.of(1);
    candidate.requests[5][Assignment::Forced as usize].add(3);
    for (cell, n) in [
        (&candidate.attempts, 11),
        (&candidate.bad, 12),
        (&candidate.retries[0], 13),
        (&candidate.stale_replays, 14),
        (&candidate.connects, 15),
        (&candidate.connect_failures, 16),
        (&candidate.reused, 17),
        (&candidate.retries_denied, 18),
    ] {
        cell.add(n);
    }
    stable.pool.overflowed(Limit::Pending);
    stable.pool.overflowed(Limit::Pending);
    let process = ProcessCounters::new(2);
    for worker in 0..2 {
        let shard = process.of(worker);
        for (cell, n) in [
            (&shard.accepted, 10),
            (&shard.open, 3),
            (&shard.shed, 2),
            (&shard.http2, 5),
            (shard.http2_resets.of(8), 3),
            (shard.http2_goaways.of(11), 1),
            (shard.http2_goaways.of(0xff), 2),
            (&shard.tls_failures, 4),
            (&shard.tunnels, 1),
            (&shard.idle, 6),
            (&shard.sessions, 5),
            (&shard.streams, 9),
            (&shard.log_dropped, 7),
            (&shard.terminations[Termination::NoRoute as usize], 8),
        ] {
            cell.add(n);
        }
    }
    (registry, routing, process, InFlight::begin(stable, &PoolLimits::default()).expect("below its limit"))
}

#[test]
fn every_family_of_the_catalog_is_there_with_help_and_type() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    let expected: BTreeMap<_, _> = catalog::ALL.iter().map(|e| (e.name.into(), e.kind.as_str().into())).collect();
    assert_eq!(scrape.kinds, expected);
    assert_eq!(scrape.helps, expected.into_keys().collect());
}

#[test]
fn what_the_gate_thinks_and_has_found_is_told() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    let of = |name: &str, labels: &str| scrape.samples[&format!("tidegate_gate_{name}{{service=\"web\"{labels}}}")];
    let found =
        [of("log_evidence", ""), of("bound", ""), of("detections_total", ""), of("detection_seconds_total", "")];
    assert!(found.iter().zip([3.5, 6.9, 2.0, 0.35]).all(|(found, wanted)| (found - wanted).abs() < 1e-9), "{found:?}");
    assert_eq!(["clean", "harmful"].map(|o| of("opinion", &format!(",opinion=\"{o}\"")) > 0.5), [true, false]);
}

#[test]
fn endpoint_counters_are_summed_over_workers_and_not_mixed_up() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    let of = |name: &str, labels: &str| scrape.whole(&format!("tidegate_{name}{{{labels}}}"));
    for (name, stable, candidate) in [
        ("attempts_total", "4", "11"),
        ("bad_attempts_total", "0", "12"),
        ("retries_denied_total", "0", "18"),
        ("stale_replays_total", "0", "14"),
        ("upstream_connects_total", "0", "15"),
        ("upstream_connect_failures_total", "0", "16"),
        ("upstream_reuses_total", "0", "17"),
        ("in_flight_requests", "1", "0"),
        ("endpoint_ready", "0", "1"),
    ] {
        assert_eq!((of(name, STABLE).as_str(), of(name, CANDIDATE).as_str()), (stable, candidate), "{name}");
    }
    let retries = |reason| of("retries_total", &format!(r#"{CANDIDATE},reason="{reason}""#));
    assert_eq!((retries("connect").as_str(), retries("5xx").as_str()), ("13", "0"));
    let pool = |name, limit| of(name, &format!(r#"service="web",variant="stable",limit="{limit}""#));
    assert_eq!(["connections", "pending", "requests"].map(|limit| pool("pool_use", limit)), ["0", "0", "1"]);
    assert_eq!(["connections", "pending", "requests"].map(|l| pool("pool_limit", l)), ["1024", "256", "10000"]);
    assert_eq!(pool("pool_overflows_total", "pending"), "2");
    let requests = |labels: &str, class: &str, assignment: &str| {
        of("requests_total", &format!(r#"{labels},status_class="{class}",assignment="{assignment}""#))
    };
    assert_eq!(requests(STABLE, "2xx", "bucket"), "4");
    assert_eq!(requests(CANDIDATE, "5xx", "forced"), "3");
    assert_eq!(requests(CANDIDATE, "none", "fallback"), "0");
}

#[test]
fn histograms_are_cumulative_and_their_infinite_bucket_equals_the_count() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    for name in ["tidegate_request_duration_seconds", "tidegate_upstream_response_duration_seconds"] {
        for labels in [STABLE, CANDIDATE] {
            let bucket = |le: &str| scrape.value(&format!("{name}_bucket{{{labels},le=\"{le}\"}}"));
            let mut counts: Vec<f64> = DURATION_BOUNDS_US.iter().map(|&us| bucket(&bound(us))).collect();
            counts.push(bucket("+Inf"));
            assert!(counts.is_sorted(), "{name}: {counts:?}");
            let count = scrape.whole(&format!("{name}_count{{{labels}}}"));
            assert_eq!(counts.last().map(ToString::to_string), Some(count));
        }
    }
    let bucket = |le: &str| scrape.whole(&format!("tidegate_request_duration_seconds_bucket{{{STABLE},le=\"{le}\"}}"));
    assert_eq!(
        [bucket("0.00025"), bucket("0.0005"), bucket("0.001"), bucket("60"), bucket("+Inf")],
        ["1", "1", "3", "3", "4"]
    );
    assert_eq!(scrape.whole(&format!("tidegate_request_duration_seconds_sum{{{STABLE}}}")), "70.002");
}

#[expect(clippy::cast_precision_loss, reason = "bounds are small")]
fn bound(us: u64) -> String {
    (us as f64 / 1e6).to_string()
}

#[test]
fn services_workers_configuration_and_process_are_reported() {
    let (registry, routing, process, _in_flight) = small_state();
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    for (series, value) in [
        ("tidegate_candidate_weight_ratio{service=\"web\"}", "0.05"),
        ("tidegate_candidate_open{service=\"web\"}", "1"),
        ("tidegate_generation", "42"),
        ("tidegate_terminations_total{code=\"PR\",cause=\"no route\"}", "16"),
        ("tidegate_terminations_total{code=\"--\",cause=\"complete\"}", "0"),
        ("tidegate_connections_accepted_total", "20"),
        ("tidegate_connections_open", "6"),
        ("tidegate_connections_shed_total", "4"),
        ("tidegate_connections_http2_total", "10"),
        ("tidegate_http2_resets_sent_total{code=\"CANCEL\"}", "6"),
        ("tidegate_http2_goaways_sent_total{code=\"ENHANCE_YOUR_CALM\"}", "2"),
        ("tidegate_http2_goaways_sent_total{code=\"other\"}", "4"),
        ("tidegate_tls_handshake_failures_total", "8"),
        ("tidegate_tunnels_open", "2"),
        ("tidegate_upstream_idle_connections", "12"),
        ("tidegate_upstream_h2_sessions", "10"),
        ("tidegate_upstream_h2_streams", "18"),
        ("tidegate_dns_names{state=\"stale\"}", "2"),
        ("tidegate_dns_names{state=\"unresolved\"}", "1"),
        ("tidegate_dns_lookups_total{result=\"success\"}", "70"),
        ("tidegate_dns_lookups_total{result=\"failure\"}", "8"),
        ("tidegate_config_reloads_total{result=\"success\"}", "4"),
        ("tidegate_config_reloads_total{result=\"failure\"}", "1"),
        ("tidegate_config_last_reload_successful", "0"),
        ("tidegate_config_last_reload_timestamp_seconds", "1700000100"),
        ("tidegate_access_log_dropped_lines_total", "19"),
        ("tidegate_access_log_write_errors_total", "2"),
        ("tidegate_log_dropped_lines_total", "9"),
        ("tidegate_build_info{version=\"0.1.0\"}", "1"),
        ("tidegate_workers", "2"),
        ("process_cpu_seconds_total", "1.5"),
        ("process_open_fds", "40"),
        ("process_max_fds", "65536"),
        ("process_virtual_memory_bytes", "1073741824"),
        ("process_resident_memory_bytes", "16777216"),
        ("process_threads", "6"),
        ("process_start_time_seconds", "1700000000.5"),
    ] {
        assert_eq!(scrape.whole(series), value, "{series}");
    }
    routing.live[0].candidate_open.store(false, Ordering::Release);
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts()).expect("renders"));
    assert_eq!(scrape.whole("tidegate_candidate_open{service=\"web\"}"), "0");
}

#[test]
fn what_the_system_does_not_say_is_left_out() {
    let (registry, routing, process, _in_flight) = small_state();
    let facts = Facts { process: ProcessStats::default(), ..facts() };
    let scrape = Scrape::parse(&gather(&routing, &registry, &process, &facts).expect("renders"));
    assert!(!scrape.kinds.contains_key("process_open_fds"));
    assert!(!scrape.kinds.contains_key("process_cpu_seconds_total"));
}

#[test]
fn removed_endpoints_keep_their_series_until_nobody_uses_them() {
    let (registry, before, process, in_flight) = small_state();
    let after = routing(&registry, 43, service(&["10.0.0.9:8080"], None), &before.live);
    drop(before);
    registry.sweep(&after.live, crate::clock::now());
    let series = |endpoint: &str| format!("tidegate_attempts_total{{{endpoint}}}");
    let scrape = Scrape::parse(&gather(&after, &registry, &process, &facts()).expect("renders"));
    assert_eq!(scrape.whole(&series(STABLE)), "4");
    assert!(!scrape.samples.contains_key(&series(CANDIDATE)), "nobody used it");
    drop(in_flight);
    registry.sweep(&after.live, crate::clock::now());
    let scrape = Scrape::parse(&gather(&after, &registry, &process, &facts()).expect("renders"));
    assert!(!scrape.samples.contains_key(&series(STABLE)));
    assert_eq!(scrape.whole("tidegate_generation"), "43");
}
