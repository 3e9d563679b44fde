//! `[services.*]`: the two pools of a service and how they are reached.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::{keys, words};
use super::routes::KEYS_MAX;
use super::{endpoints, gate, health, outlier, pem, policy, retry, rollout, syntax};
use crate::core::balance::Balance;
use crate::core::circuit::PoolLimits;
use crate::core::endpoint::{Address, Place, Pool};
use crate::core::health::wanted::Health;
use crate::core::id::{Name, Version};
use crate::core::retry::RetryRules;
use crate::core::service::{HostMode, KeySource, Protocol, Service, Upstream, UpstreamTls};

/// Most services.
const SERVICES_MAX: usize = 10_000;
/// Bounds of the waits.
const CONNECT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3_600);

/// All services, in order of name.
pub(super) fn services(root: &Table<'_>) -> Vec<Arc<Service>> {
    let named = root.named_tables("services", &keys::SERVICE);
    if let Some(value) = root.value("services").filter(|_| named.len() > SERVICES_MAX) {
        value.wrong(format_args!("{} services; at most {SERVICES_MAX} are allowed", named.len()));
    }
    let mut services: Vec<_> = named.iter().filter_map(|(name, table)| service(*name, table)).map(Arc::new).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    endpoints::bound_names(root, services.iter().flat_map(|service| service.questions()));
    services
}

fn service(key: Value<'_, '_>, table: &Table<'_>) -> Option<Service> {
    let name = Name::new(key.key());
    if let Err(bad) = &name {
        table.wrong(bad);
    }
    let stable = table.required("stable", "a table with version and endpoints, the release in service");
    let stable = stable.and_then(|value| value.table(&keys::STABLE));
    let candidate = table.table("candidate", &keys::CANDIDATE);
    let pools = (
        stable.as_ref().and_then(|table| pool(table, &keys::STABLE_ENDPOINT)),
        candidate.as_ref().and_then(|table| pool(table, &keys::CANDIDATE_ENDPOINT)),
    );
    if let ((Some(a), Some(b)), Some(candidate)) = (&pools, &candidate)
        && a.version == b.version
        && let Some(value) = candidate.value("version")
    {
        value.refuse("the version of stable; a candidate is another version");
    }
    let upstream = upstream(table.table("upstream", &keys::UPSTREAM).as_ref());
    let health = health::health(table.table("health", &keys::HEALTH).as_ref());
    refuse_port(table, &health, &pools);
    let outlier = outlier::outlier(table.table("outlier", &keys::OUTLIER).as_ref());
    let affinity = policy::affinity(key.key(), table.table("affinity", &keys::AFFINITY).as_ref());
    let force = table.table("force", &keys::FORCE).map(|t| policy::force(&t, &affinity.cookie.name));
    let mut rollout = rollout::rollout(table.table("rollout", &keys::ROLLOUT).as_ref());
    gate::gate(table.table("gate", &keys::GATE).as_ref(), &upstream, health.deep.is_some(), &mut rollout.terms);
    Some(Service {
        name: name.ok()?,
        stable: Arc::new(pools.0?),
        candidate: pools.1.map(Arc::new),
        upstream,
        health: Arc::new(health),
        outlier,
        force,
        affinity,
        rollout: Arc::new(rollout),
    })
}

/// Notes a port to probe for endpoints that have none.
fn refuse_port(table: &Table<'_>, health: &Health, pools: &(Option<Pool>, Option<Pool>)) {
    let unix = |pool: &Pool| pool.declared.iter().any(|d| matches!(d.place, Place::Fixed(Address::Unix(_))));
    if health.port.is_some() && [&pools.0, &pools.1].into_iter().flatten().any(unix) {
        table.wrong("health.port contradicts endpoints that are unix sockets, which have no ports");
    }
}

fn pool(table: &Table<'_>, element: &'static keys::Section) -> Option<Pool> {
    let version = table.required("version", "the name of the release, such as \"v1\"");
    let version = version.and_then(|value| value.read("a version such as \"v1\"", Version::new));
    let digest = table.value("digest").and_then(|value| value.read(syntax::DIGEST_FORM, syntax::digest));
    let endpoints = table.required("endpoints", "a list such as [\"10.0.0.1:8080\"]");
    let declared = endpoints::endpoints(endpoints?, element);
    Some(Pool::new(version?, digest, declared))
}

fn upstream(table: Option<&Table<'_>>) -> Upstream {
    let default = Upstream {
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
    };
    let Some(table) = table else { return default };
    let balance = table.word("balance", &words::BALANCE).unwrap_or(default.balance);
    Upstream {
        protocol: table.word("protocol", &words::PROTOCOL).unwrap_or(default.protocol),
        tls: table.table("tls", &keys::UPSTREAM_TLS).and_then(|tls| upstream_tls(&tls)),
        host: table.value("host").and_then(host_mode).unwrap_or(default.host),
        connect_timeout: table.duration("connect_timeout", CONNECT, default.connect_timeout),
        response_timeout: table.duration("response_timeout", WAIT, default.response_timeout),
        body_idle: table.duration("body_idle", WAIT, default.body_idle),
        keepalive_idle: table.duration("keepalive_idle", WAIT, default.keepalive_idle),
        limits: retry::limits(table),
        retry: table.table("retry", &keys::RETRY).map_or(default.retry, |table| retry::rules(&table)),
        balance,
        hash_key: hash_key(table, balance),
        slow_start: table.duration("slow_start", SLOW_START, default.slow_start),
        drain_timeout: table.duration("drain_timeout", DRAIN, default.drain_timeout),
        websocket_drain: table.duration("websocket_drain", DRAIN, default.websocket_drain),
    }
}

/// What requests are hashed by: needed for the ring, of no use without it.
fn hash_key(table: &Table<'_>, balance: Balance) -> Vec<KeySource> {
    const FORM: &str = "a list such as [\"cookie:session\", \"header:x-user\", \"client_ip\"]";
    let Some(value) = table.value("hash_key") else {
        if let Some(value) = table.value("balance").filter(|_| balance == Balance::RingHash) {
            value.wrong(format_args!("needs hash_key, {FORM}: what requests are hashed by"));
        }
        return Vec::new();
    };
    if balance != Balance::RingHash {
        value.wrong("has no use without balance = \"ring_hash\", which hashes requests by it");
        return Vec::new();
    }
    value.list(FORM, 1..=KEYS_MAX, syntax::key_source)
}

fn host_mode(value: Value<'_, '_>) -> Option<HostMode> {
    const FORM: &str =
        "\"preserve\", \"endpoint\", or the host to send, such as \"web.internal\" or \"web.internal:8080\"";
    value.read(FORM, |text| match text {
        "preserve" => Ok(HostMode::Preserve),
        "endpoint" => Ok(HostMode::Endpoint),
        name => syntax::authority(name).map(HostMode::Name).ok_or(FORM),
    })
}

/// TLS as a client; the section is that of the table's place.
pub(super) fn upstream_tls(table: &Table<'_>) -> Option<UpstreamTls> {
    let ca = table.value("ca").map(pem::roots);
    let client = client_certificate(table);
    let sni = table.required("sni", "TLS needs the name to ask for and to verify");
    let sni = sni.and_then(|value| value.read(SNI_FORM, server_name));
    let insecure = table.boolean("insecure", false);
    if let Some(value) = table.value("insecure").filter(|_| insecure && ca.is_some()) {
        value.wrong("contradicts ca; either certificates are verified against it or not at all");
    }
    Some(UpstreamTls { ca: ca.flatten(), client, sni: sni?, insecure })
}

const SNI_FORM: &str = "a server name is a DNS name such as \"web.internal\", or an IP address";

fn server_name(text: &str) -> Result<String, &'static str> {
    rustls_pki_types::ServerName::try_from(text).map(|_| text.to_owned()).map_err(|_| SNI_FORM)
}

fn client_certificate(table: &Table<'_>) -> Option<(crate::core::service::PemFile, crate::core::service::PemFile)> {
    match (table.value("cert"), table.value("key")) {
        (None, None) => None,
        (Some(cert), None) => {
            cert.wrong("has no key; cert and key come together");
            None
        }
        (None, Some(key)) => {
            key.wrong("has no cert; cert and key come together");
            None
        }
        both => pem::pair(both.0, both.1),
    }
}
