//! Every way endpoints can be probed, for the round trip of settings.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{ms, pem};
use crate::core::health::json::{Assertion, Path, Scalar};
use crate::core::health::wanted::{Check, Deep, Expect, Health, Pace, ProbeHeader, ProbeTls, ProbeValue, Startup};
use crate::core::service::{Secret, UpstreamTls};
use crate::core::weight::{GRAINS, Weight};

fn pace() -> impl Strategy<Value = Pace> {
    ((10_u64..3_600_000, 0_u64..3_600_000), 0..=GRAINS, 1_u32..=100, 1_u32..=100).prop_map(
        |(times, jitter, rise, fall)| Pace {
            interval: Duration::from_millis(times.0),
            fast_interval: Duration::from_millis(times.1.clamp(10, times.0)),
            jitter: Weight::from_grains(jitter).expect("in range"),
            rise,
            fall,
        },
    )
}

fn http() -> impl Strategy<Value = Check> {
    "/[a-z%0-9]{0,4}(\\?[a-z=&]{0,4})?".prop_map(Check::Http)
}

fn grpc() -> impl Strategy<Value = Check> {
    "([a-z.A-Z]{1,8})?".prop_map(Check::Grpc)
}

type Checks = (Check, Option<Startup>, Option<Check>, Option<Deep>);

fn checks() -> impl Strategy<Value = Checks> {
    let with = |readiness: BoxedStrategy<Check>, inner: BoxedStrategy<Check>| {
        let startup = (inner.clone(), ms(1, 86_400_000)).prop_map(|(check, timeout)| Startup { check, timeout });
        let deep = (inner.clone(), ms(10, 3_600_000)).prop_map(|(check, interval)| Deep { check, interval });
        (readiness, option::of(startup), option::of(inner), option::of(deep))
    };
    prop_oneof![
        with(http().boxed(), http().boxed()),
        with(grpc().boxed(), grpc().boxed()),
        with(Just(Check::Tcp).boxed(), http().boxed()),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    let status = btree_map(200_u16..=599, 0_u16..200, 1..4);
    let status = status.prop_map(|m| m.into_iter().map(|(low, more)| (low, (low + more).min(599))).collect());
    let value = prop_oneof![
        "[a-z \"\\\\ü]{0,5}".prop_map(Scalar::Text),
        any::<i64>().prop_map(Scalar::Number),
        any::<bool>().prop_map(Scalar::Bool)
    ];
    let json = btree_map("\\$(\\.[a-z]{1,3}|\\[[0-9]\\]){0,3}", value, 0..4).prop_map(|all| {
        let one = |(path, value): (String, _)| Assertion { path: Path::parse(&path).expect("a path"), value };
        all.into_iter().map(one).collect()
    });
    (status, "[a-z \"\\\\ü]{0,6}", json, 0_u64..60_000).prop_map(|(status, body, json, latency)| Expect {
        status,
        body,
        json,
        max_latency: Duration::from_millis(latency),
    })
}

fn headers() -> impl Strategy<Value = Vec<ProbeHeader>> {
    let value = prop_oneof![
        "([a-z\"\\\\=]{1,4} [a-z]{1,4})?".prop_map(ProbeValue::Written),
        Just(ProbeValue::Env(Secret(Arc::from(&b"0123456789abcdef"[..]), Arc::from("GOOD_SECRET")))),
    ];
    vec(("x-[a-z]{1,5}", value), 0..3)
        .prop_map(|all| all.into_iter().map(|(name, value)| ProbeHeader { name, value }).collect())
}

fn tls() -> impl Strategy<Value = ProbeTls> {
    (0..4_u8, "[a-z]{1,5}\\.internal").prop_map(|(kind, sni)| match kind {
        0 => ProbeTls::Upstream,
        1 => ProbeTls::Off,
        2 => ProbeTls::Own(UpstreamTls { ca: Some(pem("a.pem")), client: None, sni, insecure: false }),
        _ => ProbeTls::Own(UpstreamTls { ca: None, client: Some((pem("b.pem"), pem("b.key"))), sni, insecure: true }),
    })
}

/// Everything that can be written; what would have no use is at its default.
pub(super) fn health() -> impl Strategy<Value = Health> {
    let host = option::of("[a-z]{2,4}\\.internal(:80)?");
    (checks(), pace(), ms(1, 60_000), expect(), (host, headers(), option::of(1_u16..)), tls()).prop_map(
        |((readiness, startup, liveness, deep), pace, timeout, mut expect, (host, headers, port), tls)| {
            expect.max_latency = expect.max_latency.min(timeout);
            let default = Expect::default();
            let is_http = matches!(readiness, Check::Http(_));
            let is_grpc = matches!(readiness, Check::Grpc(_));
            let asks = !is_grpc && (is_http || startup.is_some() || liveness.is_some() || deep.is_some());
            if !asks {
                expect.status = default.status;
            }
            if is_grpc || !(is_http || deep.is_some()) {
                (expect.body, expect.json) = (default.body, default.json);
            }
            let sends = is_grpc || asks;
            let (host, headers) = if sends { (host, headers) } else { (None, Vec::new()) };
            Health { readiness, startup, liveness, deep, pace, timeout, expect, host, headers, port, tls }
        },
    )
}
