//! What is rendered compiles to the same settings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{compile, files};
use crate::config::render;
use crate::config::settings::{
    AccessLog, Admin, CertificateFiles, Dns, Http2, Limits, ListenAddress, Listener, ListenerTls, Log, LogFormat,
    LogLevel, Role, Runtime, Settings, State, Token, TokenDigest, TokenSource, Underscores,
};
use crate::core::balance::Balance;
use crate::core::circuit::PoolLimits;
use crate::core::endpoint::{Address, Declared, Place, Pool};
use crate::core::health::wanted::Health;
use crate::core::id::{Name, Version};
use crate::core::retry::{RetryOn, RetryRules};
use crate::core::route::path::pattern;
use crate::core::route::{FieldMatch, HostMatch, Matcher, PathMatch, Route, Target, ValueMatch};
use crate::core::service::{
    Affinity, AffinityCookie, Force, HostMode, KeySource, OnIncrease, PemFile, Protocol, SaltMode, SameSite, Secret,
    Service, Upstream, UpstreamTls,
};
use crate::core::weight::{GRAINS, Split, Weight};

fn name() -> impl Strategy<Value = Name> {
    "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,12}".prop_map(|text| Name::new(&text).expect("a name"))
}

fn ms(low: u64, high: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (low..=high).prop_map(Duration::from_millis),
        (low.div_ceil(60_000)..=high / 60_000).prop_map(|m| Duration::from_secs(m * 60))
    ]
}

fn wait() -> impl Strategy<Value = Duration> {
    ms(1, 600_000)
}

fn pem(name: &str) -> PemFile {
    let path = files().join(name);
    let bytes = std::fs::read(&path).expect("file");
    PemFile { path: path.display().to_string(), pem: bytes.into() }
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<std::net::IpAddr>(), 0_u8..=32).prop_map(|(ip, len)| IpNet::new(ip, len).expect("a network").trunc())
}

fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    btree_set(network(), 0..4).prop_map(|set| set.into_iter().collect())
}

fn listen() -> impl Strategy<Value = ListenAddress> {
    prop_oneof![
        any::<SocketAddr>().prop_map(|mut a| {
            if let SocketAddr::V6(v6) = &mut a {
                v6.set_flowinfo(0);
                v6.set_scope_id(0);
            }
            ListenAddress::Tcp(a)
        }),
        "/[a-z ]{1,20}\"?".prop_map(|p| ListenAddress::Unix(p.into())),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let times = (wait(), wait(), wait(), wait(), wait(), wait(), wait());
    let counts = (1_u32..=1_000_000, 1_u32..=1_000_000, 1_usize..=1_000);
    let sizes = (65_536_usize..=1 << 20, 256_usize..=65_536, option::of(0_u64..=1 << 40));
    (times, counts, sizes, http2()).prop_map(|(t, c, s, h2)| Limits {
        head_timeout: t.0,
        keepalive_idle: t.1,
        max_requests: c.0,
        max_age: t.2,
        body_idle: t.3,
        tls_handshake: t.4,
        max_connections: c.1,
        max_head: s.0,
        max_fields: c.2,
        max_line: s.1,
        max_body: s.2,
        websocket_idle: t.5,
        grpc_idle: t.6,
        h2,
    })
}

fn http2() -> impl Strategy<Value = Http2> {
    let counts = (1_u32..=10_000, 1_u32..=1_000, 1_u32..=100_000, 1_u32..=100_000, 1_u32..=1_000_000_000);
    let sizes = (1_024_u32..=65_535, 65_535_u32..=64 << 20, 1_024_u32..=1 << 20);
    (any::<bool>(), counts, sizes).prop_map(|(enabled, c, s)| Http2 {
        enabled,
        max_streams: c.0,
        stream_window: s.0,
        connection_window: s.1,
        max_header_list: s.2,
        max_fields: c.1,
        max_requests: c.4,
        max_pending_resets: c.2,
        max_error_resets: c.3,
    })
}

fn listeners() -> impl Strategy<Value = Vec<Listener>> {
    let tls = select(vec![None, Some(vec!["a"]), Some(vec!["b", "a"])]);
    let tls = tls.prop_map(|names| {
        let files = |n: &&str| CertificateFiles { cert: pem(&format!("{n}.pem")), key: pem(&format!("{n}.key")) };
        names.map(|names| ListenerTls { certificates: names.iter().map(files).collect() })
    });
    let underscores = select(vec![Underscores::Drop, Underscores::Keep, Underscores::Reject]);
    let one = (name(), listen(), tls, networks(), underscores, limits());
    vec(one, 1..4).prop_map(|all| {
        let build = |(i, (name, listen, tls, trusted_proxies, underscores, limits))| {
            let name = Name::new(&format!("{name}-{i}")).expect("a name");
            let listen = match listen {
                ListenAddress::Tcp(mut a) => {
                    a.set_port(1_000 + u16::try_from(i).expect("few"));
                    ListenAddress::Tcp(a)
                }
                ListenAddress::Unix(path) => ListenAddress::Unix(format!("{}{i}", path.display()).into()),
            };
            Listener { name, listen, tls, trusted_proxies, underscores, limits }
        };
        all.into_iter().enumerate().map(build).collect()
    })
}

fn admin() -> impl Strategy<Value = Admin> {
    let tcp = |text: &str| ListenAddress::Tcp(text.parse().expect("address"));
    let unix = ListenAddress::Unix("/run/tide \\ gate.sock".into());
    let listen = select(vec![tcp("127.0.0.1:9900"), tcp("[::1]:1"), unix, tcp("0.0.0.0:9900")]);
    let probe_listen = option::of(select(vec![tcp("0.0.0.0:9901"), ListenAddress::Unix("/run/probe.sock".into())]));
    let role = || select(vec![Role::Viewer, Role::Operator, Role::Admin]);
    let tokens = (btree_set(name(), 2), role(), role(), 0..3_usize).prop_map(|(names, first, second, count)| {
        let key = pem("affinity.key");
        let sources = [
            (first, TokenDigest::of(b"0123456789abcdef"), TokenSource::Env("GOOD_SECRET".to_owned())),
            (second, TokenDigest::of(key.pem.trim_ascii_end()), TokenSource::File(key.path.into())),
        ];
        let all = names.into_iter().zip(sources);
        all.map(|(name, (role, digest, source))| Token { name, role, digest, source }).take(count).collect::<Vec<_>>()
    });
    (listen, probe_listen, tokens, any::<bool>()).prop_map(move |(listen, probe_listen, tokens, require_reason)| {
        let open = listen.is_remote() && tokens.is_empty();
        Admin { listen: if open { Admin::default().listen } else { listen }, probe_listen, tokens, require_reason }
    })
}

fn process() -> impl Strategy<Value = (Admin, State, Runtime, Log)> {
    let format = || select(vec![LogFormat::Text, LogFormat::Json]);
    let access = (any::<bool>(), option::of("/[a-z\"\\\\ ]{1,9}"), format(), 0..=GRAINS);
    let level = select(vec![LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]);
    let runtime = (1_usize..=1_024, ms(30_000, 60_000), ms(0, 30_000), ms(0, 86_400_000), dns());
    (admin(), "/[a-z']{1,9}", runtime, level, option::of(format()), access).prop_map(
        |(admin, dir, r, level, format, a)| {
            let (workers, drain_timeout, accept_grace, idle_grace, dns) = r;
            let runtime = Runtime { workers, drain_timeout, accept_grace, idle_grace, dns };
            let sample = Weight::from_grains(a.3).expect("in range");
            let access = AccessLog { enabled: a.0, path: a.1.map(Into::into), format: a.2, sample };
            (admin, State { dir: dir.into() }, runtime, Log { level, format, access })
        },
    )
}

fn regex() -> impl Strategy<Value = regex::bytes::Regex> {
    select(vec!["^/v[0-9]+/", "\"'\\\\", "", "a|b\\d{2,3}"]).prop_map(|r| regex::bytes::Regex::new(r).expect("regex"))
}

fn predicates(names: &'static str) -> impl Strategy<Value = Vec<FieldMatch>> {
    let value = prop_oneof![
        "([a-z\"'\\\\ü]{1,5})?".prop_map(|v| ValueMatch::Exact(v.into_bytes())),
        "[a-z=\"]{1,5}".prop_map(|v| ValueMatch::Prefix(v.into_bytes())),
        regex().prop_map(ValueMatch::Regex),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    vec((names, value), 0..3).prop_map(|all| {
        let mut all: Vec<FieldMatch> = all.into_iter().map(|(name, value)| FieldMatch { name, value }).collect();
        all.dedup();
        all
    })
}

fn keys(own: bool) -> impl Strategy<Value = Vec<KeySource>> {
    let first = if own { KeySource::OwnCookie } else { KeySource::Cookie("own".into()) };
    btree_set("[a-z]{1,5}", 1..4).prop_map(move |names| {
        let mut keys = vec![first.clone(), KeySource::ClientIp];
        for name in names {
            keys.extend([
                KeySource::Cookie(format!("A{name}")),
                KeySource::Header(name.clone()),
                KeySource::Query(format!("{name} ü\"")),
            ]);
        }
        keys
    })
}

fn routes(services: Vec<Name>) -> impl Strategy<Value = Vec<Route<Name>>> {
    let host = prop_oneof![
        "[a-z]{1,5}(\\.[a-z0-9_]{1,5}){0,2}".prop_map(HostMatch::Exact),
        Just(HostMatch::Exact("[::1]".into())),
        "(\\.[a-z]{1,5}){1,3}".prop_map(HostMatch::Wildcard),
        Just(HostMatch::Any),
    ];
    let path = || "(/[a-zA-Z0-9_~{}\"'-]{0,4}(%2F)?){1,3}".prop_map(|path| pattern(&path).expect("a path"));
    let path = prop_oneof![
        path().prop_map(PathMatch::Exact),
        path().prop_map(PathMatch::Prefix),
        regex().prop_map(PathMatch::Regex)
    ];
    let methods = btree_set(select(vec!["GET", "M-SEARCH", "POST"]), 0..3);
    let methods = methods.prop_map(|m| m.into_iter().map(str::to_owned).collect());
    let matcher =
        (host, path, methods, predicates("[a-z-]{1,8}"), predicates("[a-z ü\"]{1,8}"), predicates("[a-zA-Z]{1,8}"));
    let matcher = matcher.prop_map(|(host, path, methods, headers, query, cookies)| Matcher {
        host,
        path,
        methods,
        headers,
        query,
        cookies,
    });
    let count = services.len();
    let split = (0..=GRAINS, prop_oneof![Just(Vec::new()), keys(false)]);
    let target = (any::<bool>(), 0..count, split).prop_map(move |(whole, at, (grains, key))| {
        if whole || count == 1 {
            return Target::Service(services[at].clone());
        }
        let weight = |grains| Weight::from_grains(grains).expect("in range");
        let parts =
            vec![(weight(grains), services[at].clone()), (weight(GRAINS - grains), services[(at + 1) % count].clone())];
        Target::Split { split: Split::new(parts).expect("adds up"), key }
    });
    vec((matcher, target, option::of(wait())), 1..8).prop_map(|all| {
        let mut routes: Vec<Route<Name>> = Vec::new();
        for (matcher, target, timeout) in all {
            if routes.iter().all(|r| r.matcher != matcher) {
                routes.push(Route { matcher, target, timeout, label: format!("routes[{}]", routes.len()) });
            }
        }
        routes
    })
}

fn place() -> impl Strategy<Value = Place> {
    let name = "(_[a-z]{1,4}\\.)?[a-z]([a-z0-9-]{0,4}[a-z0-9])?(\\.internal)?\\.?";
    prop_oneof![
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|at| Place::Fixed(Address::from(at))),
        (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(|at| Place::Fixed(Address::from(at))),
        "/[a-z ]{1,20}\"?".prop_map(|path| Place::Fixed(Address::Unix(path.into()))),
        (name, 1..=u16::MAX).prop_map(|(name, port)| Place::Host(name.into(), port)),
        name.prop_map(|name| Place::Srv(name.into())),
    ]
}

fn dns() -> impl Strategy<Value = Dns> {
    let server = (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(SocketAddr::from);
    (btree_set(server, 0..3), 10_u64..=30_000, 10_u64..9_000, ms(9_000, 86_400_000)).prop_map(
        |(servers, timeout, min_ttl, max_ttl)| {
            let [timeout, min_ttl] = [timeout, min_ttl].map(Duration::from_millis);
            Dns { servers: servers.into_iter().collect(), timeout, min_ttl, max_ttl }
        },
    )
}

fn pool(version: String) -> impl Strategy<Value = Arc<Pool>> {
    (option::of("sha256:[0-9a-f]{8}"), btree_map(place(), 1_u32..=100, 1..5)).prop_map(move |(digest, at)| {
        let weight = |place: &Place, weight| if matches!(place, Place::Srv(_)) { 1 } else { weight };
        let declared = at.into_iter().map(|(place, w)| Declared { weight: weight(&place, w), place });
        let declared = declared.collect();
        Arc::new(Pool::new(Version::new(&version).expect("a version"), digest, declared))
    })
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let host = prop_oneof![
        Just(HostMode::Preserve),
        Just(HostMode::Endpoint),
        "[a-z]{2,4}\\.internal(:80)?".prop_map(HostMode::Name)
    ];
    let tls = (0..4_u8, "[a-z]{1,5}\\.internal").prop_map(|(kind, sni)| match kind {
        0 => None,
        1 => Some(UpstreamTls { ca: None, client: None, sni, insecure: true }),
        2 => Some(UpstreamTls { ca: Some(pem("a.pem")), client: None, sni, insecure: false }),
        _ => Some(UpstreamTls { ca: None, client: Some((pem("b.pem"), pem("b.key"))), sni, insecure: false }),
    });
    let plain = select(vec![Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::PeakEwma]);
    let balance = prop_oneof![
        plain.prop_map(|balance| (balance, Vec::new())),
        keys(true).prop_map(|keys| (Balance::RingHash, keys)),
    ];
    let balance = (balance, ms(0, 3_600_000));
    let waits = (wait(), wait(), wait(), wait(), ms(0, 9_000), ms(0, 86_400_000));
    let protocol = select(vec![Protocol::Http1, Protocol::Http2]);
    (protocol, tls, host, balance, waits, pool_limits(), retry()).prop_map(
        |(protocol, tls, host, balance, w, limits, retry)| Upstream {
            limits,
            retry,
            protocol,
            tls,
            host,
            connect_timeout: w.0,
            response_timeout: w.1,
            body_idle: w.2,
            keepalive_idle: w.3,
            balance: balance.0.0,
            hash_key: balance.0.1,
            slow_start: balance.1,
            drain_timeout: w.4,
            websocket_drain: w.5,
        },
    )
}

fn pool_limits() -> impl Strategy<Value = PoolLimits> {
    (1_u32..=1_000_000, 0_u32..=1_000_000, 1_u32..=1_000_000).prop_map(
        |(max_connections, max_pending, max_requests)| PoolLimits { max_connections, max_pending, max_requests },
    )
}

fn retry() -> impl Strategy<Value = RetryRules> {
    let on = any::<[bool; 5]>().prop_map(|[connect, stale, server_error, reset, timeout]| RetryOn {
        connect,
        stale,
        server_error,
        reset,
        timeout,
    });
    (on, 0_u32..=5, 0..=GRAINS, 0_u32..=10_000, ms(0, 10_000), 0_u64..=16 << 20).prop_map(
        |(on, attempts, budget, min_per_second, backoff, max_body)| RetryRules {
            attempts,
            on,
            budget: Weight::from_grains(budget).expect("a share"),
            min_per_second,
            backoff,
            max_body,
        },
    )
}

fn force() -> impl Strategy<Value = Force> {
    (0..3_u8, networks(), any::<bool>(), any::<bool>()).prop_map(|(kind, allow_from, secret, keep_candidate)| Force {
        header: (kind != 1).then(|| "x-canary".to_owned()),
        cookie: (kind != 0).then(|| "Canary".to_owned()),
        allow_from,
        secret: secret.then(|| Secret(Arc::from(&b"0123456789abcdef"[..]), Arc::from("GOOD_SECRET"))),
        keep_candidate,
    })
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let same_site = select(vec![SameSite::Strict, SameSite::Lax, SameSite::None]);
    let cookie = ("[a-z]{3,9}", 1_u64..9_600 * 3_600, same_site).prop_map(|(name, age, same_site)| AffinityCookie {
        name,
        max_age: Duration::from_secs(age),
        same_site,
    });
    (keys(true), cookie, any::<bool>(), 0..3_u8).prop_map(|(key, cookie, rollout, sessions)| {
        let file = pem("affinity.key");
        let secret = Secret(Arc::from(file.pem.trim_ascii_end()), Arc::from(file.path));
        Affinity {
            key,
            cookie,
            salt: if rollout { SaltMode::Rollout } else { SaltMode::Static },
            on_increase: if sessions == 0 { OnIncrease::Move } else { OnIncrease::NewSessions },
            secret: (sessions == 2).then_some(secret),
        }
    })
}

#[path = "health.rs"]
mod probing;
#[path = "rollout.rs"]
mod rolling;

#[path = "outlier.rs"]
mod outliers;

fn service(name: Name) -> impl Strategy<Value = Arc<Service>> {
    let pools = (pool("registry/web:v1+a".into()), option::of(pool("v2".into())));
    let upstream = upstream().prop_flat_map(|upstream| (rolling::wanted(&upstream), Just(upstream))).boxed();
    let rules = (probing::health(), outliers::rules()).boxed();
    (pools.boxed(), upstream, rules, option::of(force()).boxed(), affinity().boxed()).prop_map(
        move |((stable, candidate), (rollout, upstream), (mut health, outlier), force, affinity)| {
            let unix = |pool: &Pool| pool.declared.iter().any(|d| matches!(d.place, Place::Fixed(Address::Unix(_))));
            if std::iter::once(&stable).chain(&candidate).any(|pool| unix(pool)) {
                health.port = None;
            }
            let health: Arc<Health> = Arc::new(health);
            Arc::new(Service {
                name: name.clone(),
                stable,
                candidate,
                upstream,
                health,
                outlier,
                force,
                affinity,
                rollout,
            })
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let services = btree_set(name(), 1..4).prop_flat_map(|names| {
        let names: Vec<Name> = names.into_iter().collect();
        (routes(names.clone()), names.into_iter().map(service).collect::<Vec<_>>())
    });
    (process(), listeners(), services).prop_map(|((admin, state, runtime, log), listeners, (routes, services))| {
        Settings { admin, state, runtime, log, listeners, routes, services }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rendered_settings_compile_to_themselves_without_secrets(settings in settings()) {
        let text = render(&settings);
        prop_assert!(!text.contains("PRIVATE KEY") && !text.contains("0123456789abcdef"));
        match compile(&text) {
            Ok(again) => prop_assert_eq!(again, settings, "{}", text),
            Err(errors) => prop_assert!(false, "{errors}\n{text}"),
        }
    }
}

#[test]
fn rendering_reads_well() {
    let text = render(&compile(super::MINIMAL).expect("valid"));
    assert!(text.starts_with("[admin]\nlisten = \"127.0.0.1:9900\"\nrequire_reason = false\n\n[state]\n"), "{text}");
    assert!(
        text.contains(
            "\n[[routes]]\npath_prefix = \"/\"\nservice = \"web\"\n\n[services.web.stable]\nversion = \"v1\"\n"
        ),
        "{text}"
    );
}
