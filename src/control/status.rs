//! What is true now, as people and programs ask for it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;
use crate::core::circuit::Limit;
use crate::core::endpoint::{Address, Pool, Question, WEIGHT_MIN};
use crate::core::health::Probe;
use crate::core::id::{Name, Variant, Version};
use crate::core::snapshot::ActiveService;
use crate::core::weight::Weight;
use crate::state::conduct::{Conduct, Sparing, Stands};
use crate::state::current::Routing;
use crate::state::health::Probed;
use crate::state::live::{EndpointLive, Registry, ServiceLive};
use crate::state::names::{NameState, Names};
use crate::state::sensors::Watch;

use super::answer::as_text;
use super::journal::{Event, InForce, LastReload};
use super::rollouts::{GateStatus, QuarantineStatus, RolloutStatus, View, Views, WarmStatus};

/// Newest events shown in a status.
pub const EVENTS_SHOWN_MAX: usize = 32;

/// Everything at once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Status {
    /// The generation in force.
    pub generation: u64,
    /// The version of this program.
    pub version: &'static str,
    /// Seconds since the process began.
    pub uptime_seconds: u64,
    /// The file and how the last look at it ended.
    pub config: ConfigStatus,
    /// Listeners, in file order.
    pub listeners: Vec<ListenerStatus>,
    /// Services, in order of name.
    pub services: Vec<ServiceStatus>,
    /// Names endpoints are declared by, in order.
    pub names: Vec<NameStatus>,
    /// Endpoints that left the file and finish what is in flight.
    pub draining: Vec<DrainingStatus>,
    /// The newest events, oldest first.
    pub events: Vec<Event>,
}

/// A name that stands for endpoints.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NameStatus {
    /// The name; `srv:` before one of SRV records.
    pub name: String,
    /// `resolved`, `stale` (the last good answer is in use, newer ones were not good) or `unresolved`.
    pub state: &'static str,
    /// Addresses in use.
    pub addresses: usize,
    /// When the answer in use came, in milliseconds since 1970; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_at_ms: Option<u64>,
    /// Failures since then.
    pub failures: u32,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The file and how the last look at it ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConfigStatus {
    /// Its path.
    pub path: String,
    /// Sections of it only a restart applies.
    pub needs_restart: Vec<&'static str>,
    /// How the last look ended.
    pub last_reload: LastReload,
}

/// A listener.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Where the file wants it.
    pub listen: String,
    /// Where it is bound.
    pub bound: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// A service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Share of the candidate.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// The number of the rollout, as session cookies carry it.
    pub rollout: u64,
    /// How often this candidate was tried again.
    pub retry: u32,
    /// Grows with everything that is recorded about it.
    pub revision: u64,
    /// The latest rollout, running or over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<RolloutStatus>,
    /// What the gate thinks of the rollout it watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateStatus>,
    /// Where the file and what runs differ, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
    /// Versions that must not be tried again without a reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantineStatus>,
    /// The release in service.
    pub stable: PoolStatus,
    /// The release on trial.
    pub candidate: Option<PoolStatus>,
    /// The release before, kept to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmStatus>,
}

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything on stable.
    Idle,
    /// The candidate has a share.
    Splitting,
    /// The candidate was aborted.
    Aborted,
}

/// A pool.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PoolStatus {
    /// The release it serves.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub version: Version,
    /// Its digest, if the file gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// So few of its endpoints are usable that all that ever passed a probe are used; stable only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub panic: bool,
    /// How much of what it may have is in use.
    pub limits: LimitsStatus,
    /// Its endpoints, in file order.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint, or one of a pool or service, that left the file and finishes what is in flight.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DrainingStatus {
    /// The service it belongs to, or did.
    pub service: String,
    /// The version it serves.
    pub version: String,
    /// `stable` or `candidate`
    pub variant: &'static str,
    /// Where it is.
    pub address: String,
    /// Requests and upgraded streams in flight.
    pub in_flight: u32,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Why an endpoint that is ready takes no requests, or a single one, or should take none.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OutlierStatus {
    /// `ejected`; `trial`: a single request decides; or `spared`: it was to be ejected and takes requests all the same.
    pub state: &'static str,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it is tried again; absent where it is spared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// The limits of a pool.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct LimitsStatus {
    /// Connections, idle ones included.
    pub connections: LimitStatus,
    /// Requests that wait for a connection.
    pub pending: LimitStatus,
    /// Requests in flight.
    pub requests: LimitStatus,
}

/// One limit.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct LimitStatus {
    /// In use now.
    pub used: u32,
    /// Most there may be.
    pub max: u32,
    /// Requests refused at it.
    pub overflows: u64,
}

/// An endpoint.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EndpointStatus {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub address: Address,
    /// Its share among the endpoints of its pool.
    pub weight: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// `unknown`, `ready` or `not_ready`.
    pub health: &'static str,
    /// Absent while its own requests do not speak against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier: Option<OutlierStatus>,
    /// Since when it is drained by command, in milliseconds since 1970; absent while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained_since_ms: Option<u64>,
    /// It left the file and stays only until another endpoint of its pool is ready.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// The last probe that decides about traffic; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeStatus>,
    /// Whether its liveness probes pass; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
    /// The last liveness probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeStatus>,
    /// The last deep probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<ProbeStatus>,
}

/// The result of a probe.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProbeStatus {
    /// `startup`, `readiness`, `liveness` or `deep`.
    pub probe: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// The status code, where one came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Until the answer or the failure.
    pub latency_ms: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
}

// === impl State ===

impl State {
    /// What `active` is doing; `open` is the switch of its candidate.
    #[must_use]
    pub fn of(active: &ActiveService, open: bool) -> Self {
        let running = &active.running;
        match active.service.candidate {
            Some(_) if running.aborted || !open => Self::Aborted,
            Some(_) if running.weight > Weight::ZERO => Self::Splitting,
            _ => Self::Idle,
        }
    }
}

// === impl ServiceStatus ===

impl ServiceStatus {
    /// The status of `active`.
    #[must_use]
    pub(super) fn of(active: &ActiveService, live: &ServiceLive, view: Option<&View>) -> Self {
        let (state, now) = (State::of(active, live.is_candidate_open()), clock::now());
        let endpoints = |variant| endpoints(active, live, variant);
        let limits = |variant| LimitsStatus::of(active, live, variant);
        Self {
            name: active.service.name.to_string(),
            state,
            // A thrown switch is what requests go by, also in the moment before the snapshot says so.
            weight: if state == State::Aborted { Weight::ZERO } else { active.running.weight },
            rollout: active.running.rollout,
            retry: active.running.retry,
            revision: view.map_or(0, |view| view.revision),
            progress: view.and_then(|view| view.rollout(now)),
            gate: live.watch.as_deref().and_then(Watch::glance).map(GateStatus::of),
            differences: view.map(|view| view.differences.clone()).unwrap_or_default(),
            quarantined: view.map(|view| view.quarantined.clone()).unwrap_or_default(),
            stable: PoolStatus {
                version: active.service.stable.version.clone(),
                digest: active.service.stable.digest.clone(),
                panic: live.panic.is_on(),
                limits: limits(Variant::Stable),
                endpoints: endpoints(Variant::Stable),
            },
            candidate: active.service.candidate.as_ref().map(|candidate| PoolStatus {
                version: candidate.version.clone(),
                digest: candidate.digest.clone(),
                panic: false,
                limits: limits(Variant::Candidate),
                endpoints: endpoints(Variant::Candidate),
            }),
            warm: active.warm.as_ref().map(|warm| WarmStatus {
                version: warm.version.clone(),
                left_ms: view.and_then(|view| view.warm_left_ms(now)).unwrap_or_default(),
                endpoints: weighed(&live.warm, Some(warm)),
            }),
        }
    }
}

/// The endpoints of `variant`.
#[must_use]
pub fn endpoints(active: &ActiveService, live: &ServiceLive, variant: Variant) -> Vec<EndpointStatus> {
    weighed(live.pool(variant), active.pool(variant))
}

/// `endpoints` in the order of `pool`, then those that stay although they left it.
fn weighed(endpoints: &[Arc<EndpointLive>], pool: Option<&Arc<Pool>>) -> Vec<EndpointStatus> {
    let weights = pool.into_iter().flat_map(|pool| &pool.endpoints).map(|endpoint| Some(endpoint.weight));
    let endpoints = endpoints.iter().zip(weights.chain(std::iter::repeat(None)));
    endpoints.map(|(endpoint, weight)| EndpointStatus::of(endpoint, weight)).collect()
}

// === impl LimitsStatus ===

impl LimitsStatus {
    fn of(active: &ActiveService, live: &ServiceLive, variant: Variant) -> Self {
        let pool = live.pool(variant).first().map(|endpoint| &endpoint.pool);
        let limit = |limit| LimitStatus {
            used: pool.map_or(0, |pool| pool.used(limit)),
            max: active.service.upstream.limits.of(limit),
            overflows: pool.map_or(0, |pool| pool.overflows(limit)),
        };
        Self {
            connections: limit(Limit::Connections),
            pending: limit(Limit::Pending),
            requests: limit(Limit::Requests),
        }
    }
}

// === impl EndpointStatus ===

impl EndpointStatus {
    fn of(endpoint: &EndpointLive, weight: Option<u32>) -> Self {
        let health = &endpoint.health;
        let last = |probe| health.last(probe).map(|probed| ProbeStatus::of(&probed));
        Self {
            address: endpoint.key.address.clone(),
            weight: weight.unwrap_or(WEIGHT_MIN),
            in_flight: endpoint.in_flight(),
            health: health.readiness().as_str(),
            outlier: OutlierStatus::of(&endpoint.conduct),
            drained_since_ms: endpoint.conduct.drained_since_ms(),
            leaving: weight.is_none(),
            probe: health.last_deciding().map(|probed| ProbeStatus::of(&probed)),
            alive: health.alive(),
            liveness: last(Probe::Liveness),
            deep: last(Probe::Deep),
        }
    }
}

// === impl OutlierStatus ===

impl OutlierStatus {
    fn of(conduct: &Conduct) -> Option<Self> {
        let state = match conduct.standing() {
            Stands::In => return conduct.sparing().map(|sparing| Self::spared(&sparing)),
            Stands::Ejected => "ejected",
            Stands::Trial => "trial",
        };
        let ejection = conduct.ejection()?;
        let (since_ms, until_ms) = (ms(ejection.at), Some(ms(ejection.at + ejection.lasting)));
        Some(Self { state, reason: ejection.to_string(), since_ms, until_ms })
    }

    fn spared(sparing: &Sparing) -> Self {
        Self { state: "spared", reason: sparing.to_string(), since_ms: ms(sparing.at), until_ms: None }
    }
}

// === impl ProbeStatus ===

impl ProbeStatus {
    fn of(probed: &Probed) -> Self {
        Self {
            probe: probed.probe.as_str(),
            passed: probed.passed(),
            status: probed.status,
            latency_ms: ms(probed.latency),
            error: probed.error.clone(),
            body: probed.body.clone(),
            at_ms: ms(probed.at),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === lists ===

/// Every endpoint that left the snapshot and still has something in flight, the longest first.
#[must_use]
pub fn draining(registry: &Registry) -> Vec<DrainingStatus> {
    let (now, unix) = (clock::now(), clock::unix_time());
    let left = registry.endpoints().into_iter();
    let left = left.filter(|endpoint| endpoint.is_removed() && endpoint.is_in_role() && endpoint.in_flight() > 0);
    let mut all: Vec<DrainingStatus> = left
        .map(|endpoint| DrainingStatus {
            service: endpoint.key.service.to_string(),
            version: endpoint.key.version.to_string(),
            variant: endpoint.variant.as_str(),
            address: endpoint.address_text.to_string(),
            in_flight: endpoint.in_flight(),
            since_ms: ms(unix.saturating_sub(
                registry.leaving_at(&endpoint).map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
            )),
        })
        .collect();
    all.sort_by(|a, b| (a.since_ms, &a.service, &a.address).cmp(&(b.since_ms, &b.service, &b.address)));
    all
}

/// Every service of `routing`.
#[must_use]
pub(super) fn services(routing: &Routing, views: &Views) -> Vec<ServiceStatus> {
    let of = |(active, live): (&ActiveService, &Arc<ServiceLive>)| {
        ServiceStatus::of(active, live, views.of(&active.service.name).as_deref())
    };
    routing.snapshot.services.iter().zip(&routing.live).map(of).collect()
}

/// Every name endpoints are declared by.
#[must_use]
pub fn names_of(names: &Names) -> Vec<NameStatus> {
    let ms = |at: std::time::Duration| u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    let status = |(question, state): (Question, NameState)| NameStatus {
        name: question.to_string(),
        state: state.as_str(),
        addresses: state.addresses,
        answered_at_ms: state.answered_at.map(ms),
        failures: state.failures,
        problem: state.problem,
    };
    names.all().into_iter().map(status).collect()
}

/// The names of every service of `routing`.
#[must_use]
pub fn names(routing: &Routing) -> Vec<Name> {
    routing.snapshot.services.iter().map(|active| active.service.name.clone()).collect()
}

/// Every listener in force.
#[must_use]
pub fn listeners(in_force: &InForce) -> Vec<ListenerStatus> {
    let bound = in_force.addresses.iter().map(Some).chain(std::iter::repeat(None));
    let listeners = in_force.settings.listeners.iter().zip(bound);
    listeners
        .map(|(listener, bound)| ListenerStatus {
            name: listener.name.to_string(),
            listen: listener.listen.to_string(),
            bound: bound.unwrap_or(&listener.listen).to_string(),
            tls: listener.tls.is_some(),
        })
        .collect()
}
