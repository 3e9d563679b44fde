//! `/metrics`: reads the counters of all workers and fills the families of the catalog.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::rollouts::{Detections, RolloutStatus};
use crate::control::tally::{Counted, LASTED_BOUNDS_US};
use crate::core::assign::Assignment;
use crate::core::circuit::Limit;
use crate::core::health::Probe;
use crate::core::id::{Name, Variant};
use crate::core::outlier::{Bound, Cause};
use crate::core::retry::Reason;
use crate::state::conduct::Stands;
use crate::state::counters::{
    DURATION_BOUNDS_US, EndpointShard, HTTP2_CODES, Histogram, ProcessCounters, STATUS_CLASSES,
};
use crate::state::current::Routing;
use crate::state::live::{EndpointLive, Registry};
use crate::state::names::NameCounts;
use crate::state::sensors::{Opinion, Watch};
use crate::telemetry::catalog;
use crate::telemetry::metrics::{Distribution, Families};
use crate::telemetry::process::ProcessStats;
use crate::telemetry::sink::SinkStats;
use crate::telemetry::termination::Termination;

/// What is known outside the counters of the workers.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the program.
    pub version: &'static str,
    /// When the process started, since 1970.
    pub started: Duration,
    /// Worker threads.
    pub workers: usize,
    /// Loads of the configuration.
    pub reloads: Reloads,
    /// Rollouts that ended.
    pub ended: Vec<Counted>,
    /// Candidates the gate has taken back.
    pub detections: Vec<(Name, Detections)>,
    /// The latest rollouts, by service in order of name.
    pub rollouts: Vec<(Name, Option<RolloutStatus>)>,
    /// How the names of endpoints stand.
    pub names: NameCounts,
    /// What the writer of the access log lost.
    pub access_log: SinkStats,
    /// Lines of the process log lost.
    pub log_dropped: u64,
    /// Resources of the process.
    pub process: ProcessStats,
}

/// Loads of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Reloads that took effect; the load at the start is not one.
    pub succeeded: u64,
    /// Reloads that were refused.
    pub failed: u64,
    /// Whether the last load (the one at the start included) took effect.
    pub last_successful: bool,
    /// When that was, since 1970.
    pub last_at: Duration,
}

/// A counter of an endpoint and how a shard gives it.
type EndpointCounter = (catalog::Counter<4>, fn(&EndpointShard) -> u64);
/// A counter of the process and how a shard gives it.
type WorkerCounter = (catalog::Counter<0>, fn(&crate::state::counters::WorkerShard) -> u64);
/// A gauge of the process and how a shard gives it.
type WorkerGauge = (catalog::Gauge<0>, fn(&crate::state::counters::WorkerShard) -> u64);

const ENDPOINT_COUNTERS: [EndpointCounter; 7] = [
    (catalog::ATTEMPTS, |s| s.attempts.get()),
    (catalog::BAD_ATTEMPTS, |s| s.bad.get()),
    (catalog::RETRIES_DENIED, |s| s.retries_denied.get()),
    (catalog::STALE_REPLAYS, |s| s.stale_replays.get()),
    (catalog::UPSTREAM_CONNECTS, |s| s.connects.get()),
    (catalog::UPSTREAM_CONNECT_FAILURES, |s| s.connect_failures.get()),
    (catalog::UPSTREAM_REUSES, |s| s.reused.get()),
];

const WORKER_COUNTERS: [WorkerCounter; 4] = [
    (catalog::CONNECTIONS_ACCEPTED, |s| s.accepted.get()),
    (catalog::CONNECTIONS_SHED, |s| s.shed.get()),
    (catalog::CONNECTIONS_HTTP2, |s| s.http2.get()),
    (catalog::TLS_FAILURES, |s| s.tls_failures.get()),
];

const WORKER_GAUGES: [WorkerGauge; 5] = [
    (catalog::CONNECTIONS_OPEN, |s| s.open.get()),
    (catalog::TUNNELS_OPEN, |s| s.tunnels.get()),
    (catalog::UPSTREAM_IDLE, |s| s.idle.get()),
    (catalog::UPSTREAM_SESSIONS, |s| s.sessions.get()),
    (catalog::UPSTREAM_STREAMS, |s| s.streams.get()),
];

/// All metrics as text. Endpoints out of service keep their series until nobody uses them any more. Counters that are still zero are
/// shown, so that a rate sees their first increase.
///
/// # Errors
/// Those of the encoder; none for what the catalog describes.
pub fn gather(
    routing: &Routing,
    registry: &Registry,
    process: &ProcessCounters,
    facts: &Facts,
) -> Result<String, prometheus::Error> {
    let mut families = Families::new();
    let mut endpoints = registry.endpoints();
    endpoints.sort_unstable_by(|a, b| (&a.key, a.variant).cmp(&(&b.key, b.variant)));
    for live in &endpoints {
        endpoint(&mut families, live);
    }
    services(&mut families, routing);
    rollouts(&mut families, facts);
    workers(&mut families, process, facts);
    config(&mut families, facts.reloads);
    names(&mut families, facts.names);
    own_process(&mut families, facts);
    families.render()
}

fn endpoint(families: &mut Families, live: &EndpointLive) {
    let address = live.key.address.to_string();
    let (service, version, variant) = (live.key.service.as_str(), live.key.version.as_str(), live.variant.as_str());
    let labels = [service, version, variant, &address];
    for (class, class_name) in STATUS_CLASSES.into_iter().enumerate() {
        for (index, assignment) in Assignment::ALL.into_iter().enumerate() {
            let labels = [service, version, variant, &address, class_name, assignment.as_str()];
            let count = live.counters.sum(|shard| shard.requests[class][index].get());
            families.counter(catalog::REQUESTS, labels, count);
        }
    }
    for (metric, read) in ENDPOINT_COUNTERS {
        families.counter(metric, labels, live.counters.sum(read));
    }
    for (index, reason) in Reason::ALL.into_iter().enumerate() {
        let labels = [service, version, variant, &address, reason.as_str()];
        families.counter(catalog::RETRIES, labels, live.counters.sum(|shard| shard.retries[index].get()));
    }
    if live.is_in_role() {
        families.gauge(catalog::IN_FLIGHT, labels, u64::from(live.in_flight()));
    }
    probes(families, live, labels);
    histogram(families, catalog::REQUEST_DURATION, labels, live, |shard| &shard.duration);
    histogram(families, catalog::UPSTREAM_DURATION, labels, live, |shard| &shard.upstream);
}

fn probes(families: &mut Families, live: &EndpointLive, labels: [&str; 4]) {
    // What it is now belongs to the role it has now; what was counted stays where it was counted.
    if live.is_in_role() {
        families.gauge(catalog::ENDPOINT_READY, labels, u64::from(live.is_ready()));
        if let Some(alive) = live.health.alive() {
            families.gauge(catalog::ENDPOINT_ALIVE, labels, u64::from(alive));
        }
        families.gauge(catalog::ENDPOINT_EJECTED, labels, u64::from(live.conduct.standing() != Stands::In));
        families.gauge(catalog::ENDPOINT_DRAINED, labels, u64::from(live.conduct.is_drained()));
    }
    let [service, version, variant, address] = labels;
    for (cause, count) in Cause::WORDS.into_iter().zip(&live.ejections) {
        families.counter(catalog::EJECTIONS, [service, version, variant, address, cause], count.get());
    }
    for (bound, count) in Bound::WORDS.into_iter().zip(&live.spared) {
        families.counter(catalog::EJECTIONS_SPARED, [service, version, variant, address, bound], count.get());
    }
    for probe in Probe::ALL {
        let (passed, failed) = live.probes.results(probe);
        // Readiness is asked of all, so its series begin at zero.
        if probe == Probe::Readiness || passed + failed > 0 {
            for (result, count) in [("passed", passed), ("failed", failed)] {
                let labels = [service, version, variant, address, probe.as_str(), result];
                families.counter(catalog::PROBES, labels, count);
            }
        }
    }
    let durations = &live.probes.duration;
    let counts: [u64; DURATION_BOUNDS_US.len() + 1] = std::array::from_fn(|bucket| durations.buckets[bucket].get());
    let distribution = Distribution { bounds_us: &DURATION_BOUNDS_US, counts: &counts, sum_us: durations.sum_us.get() };
    families.histogram(catalog::PROBE_DURATION, labels, distribution);
}

fn histogram(
    families: &mut Families,
    metric: catalog::Histogram<4>,
    labels: [&str; 4],
    live: &EndpointLive,
    read: fn(&EndpointShard) -> &Histogram,
) {
    let counts: [u64; DURATION_BOUNDS_US.len() + 1] =
        std::array::from_fn(|bucket| live.counters.sum(|shard| read(shard).buckets[bucket].get()));
    let sum_us = live.counters.sum(|shard| read(shard).sum_us.get());
    families.histogram(metric, labels, Distribution { bounds_us: &DURATION_BOUNDS_US, counts: &counts, sum_us });
}

fn services(families: &mut Families, routing: &Routing) {
    for (active, live) in routing.snapshot.services.iter().zip(&routing.live) {
        let name = active.service.name.as_str();
        let open = live.candidate_open.load(Ordering::Acquire) && active.version(Variant::Candidate).is_some();
        families.gauge_f64(catalog::CANDIDATE_WEIGHT, [name], active.running.weight.fraction());
        families.gauge(catalog::CANDIDATE_OPEN, [name], u64::from(open));
        if let Some(glance) = live.watch.as_deref().and_then(Watch::glance) {
            families.gauge_f64(catalog::GATE_EVIDENCE, [name], glance.log_e);
            families.gauge_f64(catalog::GATE_BOUND, [name], glance.bound);
            for opinion in Opinion::ALL {
                let labels = [name, opinion.as_str()];
                families.gauge(catalog::GATE_OPINION, labels, u64::from(opinion == glance.opinion));
            }
        }
        families.gauge(catalog::PANIC, [name], u64::from(live.panic.is_on()));
        families.counter(catalog::PANICS, [name], live.panic.began.get());
        for variant in Variant::ALL {
            let Some(pool) = live.pool(variant).first().map(|endpoint| &endpoint.pool) else { continue };
            for limit in Limit::ALL {
                let labels = [name, variant.as_str(), limit.as_str()];
                families.gauge(catalog::POOL_USE, labels, pool.used(limit).into());
                families.gauge(catalog::POOL_LIMIT, labels, active.service.upstream.limits.of(limit).into());
                families.counter(catalog::POOL_OVERFLOWS, labels, pool.overflows(limit));
            }
        }
    }
    families.gauge(catalog::GENERATION, [], routing.snapshot.generation);
}

/// What a rollout can be in.
const PHASES: [&str; 10] = [
    "idle",
    "verifying",
    "progressing",
    "baking",
    "trial",
    "paused",
    "succeeded",
    "aborted",
    "rolled_back",
    "superseded",
];

fn rollouts(families: &mut Families, facts: &Facts) {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    for (service, rollout) in &facts.rollouts {
        let (service, now) = (service.as_str(), rollout.as_ref().map_or(PHASES[0], |rollout| rollout.phase));
        for phase in PHASES {
            families.gauge(catalog::ROLLOUT_PHASE, [service, phase], u64::from(phase == now));
        }
        let step = rollout.as_ref().and_then(RolloutStatus::step_in_force);
        families.gauge(catalog::ROLLOUT_STEP, [service], step.map_or(0, |step| number(step) + 1));
        families.gauge(catalog::ROLLOUT_STEPS, [service], rollout.as_ref().map_or(0, |rollout| number(rollout.steps)));
        families.gauge(catalog::ROLLOUT_ID, [service], rollout.as_ref().map_or(0, |rollout| rollout.id));
    }
    for (service, detections) in &facts.detections {
        families.counter(catalog::GATE_DETECTIONS, [service.as_str()], detections.count);
        families.counter_seconds(catalog::GATE_DETECTION_SECONDS, [service.as_str()], detections.took);
    }
    for counted in &facts.ended {
        let labels = [counted.service.as_str(), counted.outcome, counted.reason];
        families.counter(catalog::ROLLOUTS_ENDED, labels, counted.count);
        if counted.buckets.iter().any(|count| *count > 0) {
            let Counted { buckets, sum_us, .. } = counted;
            let observed = Distribution { bounds_us: &LASTED_BOUNDS_US, counts: buckets, sum_us: *sum_us };
            families.histogram(catalog::ROLLOUT_DURATION, labels, observed);
        }
    }
}

fn workers(families: &mut Families, process: &ProcessCounters, facts: &Facts) {
    for (metric, read) in WORKER_COUNTERS {
        families.counter(metric, [], process.sum(read));
    }
    for (metric, read) in WORKER_GAUGES {
        families.gauge(metric, [], process.sum(read));
    }
    for (code, name) in (0..).zip(HTTP2_CODES) {
        families.counter(catalog::HTTP2_RESETS, [name], process.sum(|shard| shard.http2_resets.of(code).get()));
        families.counter(catalog::HTTP2_GOAWAYS, [name], process.sum(|shard| shard.http2_goaways.of(code).get()));
    }
    for (index, cause) in Termination::ALL.into_iter().enumerate() {
        let count = process.sum(|shard| shard.terminations[index].get());
        families.counter(catalog::TERMINATIONS, [cause.code(), cause.words()], count);
    }
    let dropped = process.sum(|shard| shard.log_dropped.get());
    families.counter(catalog::ACCESS_LOG_DROPPED, [], dropped.saturating_add(facts.access_log.lines_lost));
    families.counter(catalog::ACCESS_LOG_WRITE_ERRORS, [], facts.access_log.write_errors);
    families.counter(catalog::LOG_DROPPED, [], facts.log_dropped);
}

fn config(families: &mut Families, reloads: Reloads) {
    families.counter(catalog::CONFIG_RELOADS, ["success"], reloads.succeeded);
    families.counter(catalog::CONFIG_RELOADS, ["failure"], reloads.failed);
    families.gauge(catalog::CONFIG_LAST_RELOAD_SUCCESSFUL, [], u64::from(reloads.last_successful));
    families.gauge_f64(catalog::CONFIG_LAST_RELOAD_TIME, [], reloads.last_at.as_secs_f64());
}

fn names(families: &mut Families, names: NameCounts) {
    for (state, count) in [("resolved", names.resolved), ("stale", names.stale), ("unresolved", names.unresolved)] {
        families.gauge(catalog::DNS_NAMES, [state], count);
    }
    families.counter(catalog::DNS_LOOKUPS, ["success"], names.answers);
    families.counter(catalog::DNS_LOOKUPS, ["failure"], names.failures);
}

fn own_process(families: &mut Families, facts: &Facts) {
    families.gauge(catalog::BUILD_INFO, [facts.version], 1);
    families.gauge(catalog::WORKERS, [], u64::try_from(facts.workers).unwrap_or(u64::MAX));
    families.gauge_f64(catalog::PROCESS_START_TIME, [], facts.started.as_secs_f64());
    if let Some(cpu) = facts.process.cpu {
        families.counter_seconds(catalog::PROCESS_CPU, [], cpu);
    }
    for (metric, value) in [
        (catalog::PROCESS_OPEN_FDS, facts.process.open_fds),
        (catalog::PROCESS_MAX_FDS, facts.process.max_fds),
        (catalog::PROCESS_VIRTUAL_MEMORY, facts.process.virtual_memory),
        (catalog::PROCESS_RESIDENT_MEMORY, facts.process.resident),
        (catalog::PROCESS_THREADS, facts.process.threads),
    ] {
        if let Some(value) = value {
            families.gauge(metric, [], value);
        }
    }
}

/// Every termination cause has its counter.
const _: () = assert!(Termination::ALL.len() <= crate::state::counters::TERMINATIONS_MAX);

#[cfg(test)]
mod tests;
