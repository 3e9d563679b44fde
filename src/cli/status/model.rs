//! `/v1/status` as the command line reads it. What another version adds is left out, what it lacks is empty.

use serde::Deserialize;

/// Everything at once.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    /// The generation in force.
    pub(super) generation: u64,
    /// The version of the program that answers.
    pub(super) version: String,
    /// Seconds since the process began.
    pub(super) uptime_seconds: u64,
    /// The file and how the last look at it ended.
    pub(super) config: Config,
    /// Listeners, in file order.
    pub(super) listeners: Vec<Listener>,
    /// Services, in order of name.
    pub(super) services: Vec<Service>,
    /// Names endpoints are declared by, in order.
    pub(super) names: Vec<NameState>,
    /// Endpoints that left the file and finish what is in flight.
    pub(super) draining: Vec<Draining>,
    /// The newest events, oldest first.
    pub(super) events: Vec<Event>,
}

/// A name that stands for endpoints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NameState {
    /// The name.
    pub(super) name: String,
    /// `resolved`, `stale`, `unresolved`
    pub(super) state: String,
    /// Addresses in use.
    pub(super) addresses: u64,
    /// When the answer in use came, in milliseconds since 1970.
    pub(super) answered_at_ms: Option<u64>,
    /// What is wrong.
    pub(super) problem: Option<String>,
}

/// The file and how the last look at it ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    /// Its path.
    pub(super) path: String,
    /// Keys of it only a restart applies.
    pub(super) needs_restart: Vec<String>,
    /// How the last look ended.
    pub(super) last_reload: Option<LastReload>,
}

/// How the last look at the file ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastReload {
    /// Whether the file is in force.
    pub(super) ok: bool,
    /// `applied`, `unchanged`, `refused`
    pub(super) outcome: String,
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    /// Who asked.
    pub(super) actor: String,
    /// The generation in force after it.
    pub(super) generation: u64,
    /// Everything that is wrong with the file.
    pub(super) errors: Vec<serde_json::Value>,
}

/// A listener.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listener {
    /// Its name.
    pub(super) name: String,
    /// Where the file wants it.
    pub(super) listen: String,
    /// Where it is bound.
    pub(super) bound: String,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
}

/// A service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    /// Its name.
    pub(super) name: String,
    /// `idle`, `splitting`, `aborted`
    pub(super) state: String,
    /// Share of the candidate: `5%`.
    pub(super) weight: String,
    /// The release in service.
    pub(super) stable: Pool,
    /// The release on trial.
    pub(super) candidate: Option<Pool>,
    /// The latest rollout.
    pub(super) progress: Option<Progress>,
    /// What the gate thinks of it.
    pub(super) gate: Option<Gate>,
    /// Where the file and what runs differ.
    pub(super) differences: Vec<String>,
    /// The release before, kept to go back to.
    pub(super) warm: Option<Warm>,
}

/// What a gate thinks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Gate {
    /// Evidence of harm, in nats.
    pub(super) log_evidence: f64,
    /// From where on the candidate is taken back.
    pub(super) bound: f64,
    /// `unknown`, `inconclusive`, `clean`, `harmful`
    pub(super) opinion: String,
}

/// A rollout, running or over; also as a list of rollouts and the answer to a verb have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct Progress {
    /// Its number.
    pub(in crate::cli) id: u64,
    /// What is tried.
    pub(in crate::cli) version: String,
    /// Where it is.
    pub(in crate::cli) phase: String,
    /// Why it is paused or was aborted.
    pub(in crate::cli) reason: Option<String>,
    /// Its step, from zero.
    pub(in crate::cli) step: u64,
    /// How many there are.
    pub(in crate::cli) steps: u64,
    /// Share of the candidate: `5%`.
    pub(in crate::cli) weight: String,
    /// The highest it had, of one that is over.
    pub(in crate::cli) highest: Option<String>,
    /// No step is in force.
    pub(in crate::cli) by_hand: bool,
    /// What is left of the hold, in milliseconds.
    pub(in crate::cli) hold_left_ms: Option<u64>,
}

/// The release of before the last promotion.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Warm {
    /// Its version.
    pub(super) version: String,
    /// How much longer it is kept, in milliseconds.
    pub(super) left_ms: u64,
}

/// A pool.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    /// The release it serves.
    pub(super) version: String,
    /// All that ever passed a probe are used.
    pub(super) panic: bool,
    /// How much of what it may have is in use.
    pub(super) limits: Limits,
    /// Its endpoints, in file order.
    pub(super) endpoints: Vec<Endpoint>,
}

/// The limits of a pool.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    /// Connections, idle ones included.
    pub(super) connections: Limit,
    /// Requests that wait for a connection.
    pub(super) pending: Limit,
    /// Requests in flight.
    pub(super) requests: Limit,
}

/// One limit.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limit {
    /// In use now.
    pub(super) used: u64,
    /// Most there may be.
    pub(super) max: u64,
    /// Requests refused at it.
    pub(super) overflows: u64,
}

/// An endpoint.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Endpoint {
    /// Where it is.
    pub(super) address: String,
    /// Requests in flight.
    pub(super) in_flight: u64,
    /// `unknown`, `ready`, `not_ready`
    pub(super) health: String,
    /// Why it is left alone, if it is.
    pub(super) outlier: Option<Outlier>,
    /// Since when it is drained, in milliseconds since 1970.
    pub(super) drained_since_ms: Option<u64>,
    /// It stays only until another endpoint is ready.
    pub(super) leaving: bool,
    /// The last probe that decides about traffic.
    pub(super) probe: Option<LastProbe>,
    /// Whether its liveness probes pass.
    pub(super) alive: Option<bool>,
    /// The last liveness probe.
    pub(super) liveness: Option<LastProbe>,
    /// The last deep probe.
    pub(super) deep: Option<LastProbe>,
}

/// An ejection.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Outlier {
    /// `ejected`, `trial`, `spared`
    pub(super) state: String,
    /// Why.
    pub(super) reason: String,
    /// When it is tried again, in milliseconds since 1970.
    pub(super) until_ms: u64,
}

/// An endpoint that left the file and finishes what is in flight.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Draining {
    /// The service.
    pub(super) service: String,
    /// The version.
    pub(super) version: String,
    /// Where it is.
    pub(super) address: String,
    /// Requests in flight.
    pub(super) in_flight: u64,
    /// Since when, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

/// The result of a probe.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastProbe {
    /// `startup`, `readiness`, `liveness`, `deep`
    pub(super) probe: String,
    /// Whether it passed.
    pub(super) passed: bool,
    /// Until the answer or the failure.
    pub(super) latency_ms: u64,
    /// Why it failed.
    pub(super) error: Option<String>,
    /// The beginning of the body.
    pub(super) body: Option<String>,
    /// When it ended, in milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// Something that happened.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    /// Who caused it.
    pub(super) actor: String,
    /// What it was.
    pub(super) what: String,
    /// The service, if it is about one.
    pub(super) service: Option<String>,
    /// What was in force.
    pub(super) from: Option<String>,
    /// What is in force.
    pub(super) to: Option<String>,
    /// The reason given, or what changed.
    pub(super) detail: Option<String>,
    /// The generation in force after it.
    pub(super) generation: u64,
}
