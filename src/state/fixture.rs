//! Services and snapshots for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::core::endpoint::{Endpoint, Pool};
use crate::core::health::Readiness;
use crate::core::id::{Name, Version};
use crate::core::route::{HostMatch, Matcher, PathMatch, Route, Target};
use crate::core::service::{Affinity, AffinityCookie, KeySource, OnIncrease, SaltMode, SameSite, Service, Upstream};
use crate::core::snapshot::{ActiveService, Running, Snapshot};

use super::live::ServiceLive;

/// A service with `stable` endpoints of version `v1` and, if given, a candidate version with its number of endpoints.
pub(crate) fn service(name: &str, stable: u16, candidate: Option<(&str, u16)>) -> Arc<Service> {
    let second = Duration::from_secs(1);
    Arc::new(Service {
        name: Name::new(name).expect("name"),
        stable: pool("v1", 8_000, stable),
        candidate: candidate.map(|(version, count)| pool(version, 9_000, count)),
        upstream: Upstream::in_seconds(),
        health: Arc::default(),
        outlier: crate::core::outlier::OutlierRules::default(),
        force: None,
        rollout: Arc::default(),
        affinity: Affinity {
            key: vec![KeySource::OwnCookie],
            cookie: AffinityCookie { name: format!("tidegate_{name}"), max_age: second, same_site: SameSite::Lax },
            salt: SaltMode::Rollout,
            on_increase: OnIncrease::Move,
            secret: None,
        },
    })
}

/// A service with `count` endpoints of version `v1` from `port` on.
pub(crate) fn service_at(name: &str, port: u16, count: u16) -> Arc<Service> {
    let service = Service::clone(&service(name, 1, None));
    Arc::new(Service { stable: pool("v1", port, count), ..service })
}

/// Says of every endpoint that it is ready, as probes would.
pub(crate) fn all_ready(live: &[Arc<ServiceLive>]) {
    for endpoint in live.iter().flat_map(|service| service.stable.iter().chain(&service.candidate)) {
        endpoint.health.set_readiness(Readiness::Ready);
    }
}

/// A route that sends every path below `prefix` to `service`.
pub(crate) fn route(prefix: &str, service: &str) -> Route<Name> {
    Route {
        matcher: Matcher {
            host: HostMatch::Any,
            path: PathMatch::Prefix(prefix.as_bytes().to_vec()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
        },
        target: Target::Service(Name::new(service).expect("name")),
        timeout: None,
        label: "routes[0]".to_owned(),
    }
}

/// A snapshot of generation 1 without routes.
pub(crate) fn snapshot(services: Vec<(Arc<Service>, Running)>) -> Snapshot {
    let services = services.into_iter().map(|(service, running)| ActiveService::new(service, running)).collect();
    Snapshot::build(1, &[], services).expect("no routes, no unknown service")
}

fn pool(version: &str, port: u16, count: u16) -> Arc<Pool> {
    let endpoint = |i: u16| Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port + i)));
    Arc::new(Pool::fixed(Version::new(version).expect("version"), None, (0..count).map(endpoint).collect()))
}
