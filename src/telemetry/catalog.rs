//! The one table of all metrics: name, type, labels, help. A metric that is not here cannot be rendered.
//!
//! Label values come from the configuration (service, version, endpoint, ...) or from fixed lists, never from requests.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations into cumulative buckets.
    Histogram,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full name, with its unit.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels, in the order values are given.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// A counter with `N` labels, by its index in [`ALL`].
#[derive(Clone, Copy, Debug)]
pub struct Counter<const N: usize>(usize);

/// A gauge with `N` labels, by its index in [`ALL`].
#[derive(Clone, Copy, Debug)]
pub struct Gauge<const N: usize>(usize);

/// A histogram with `N` labels, by its index in [`ALL`].
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const N: usize>(usize);

/// Makes of each row a typed constant and an [`Entry`] of [`ALL`], so that neither can be without the other and a wrong number of
/// label values does not compile.
macro_rules! catalog {
    ($($kind:ident $constant:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "the variants are the names of the constants")]
        enum Row { $($constant),* }

        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $constant: $kind<{ <[&str]>::len(&[$($label),*]) }> = $kind(Row::$constant as usize);
        )*

        /// Every metric, in the order it is rendered.
        pub const ALL: &[Entry] = &[
            $(Entry { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),*
        ];
    };
}

catalog! {
    // Requests and attempts, per endpoint.
    Counter REQUESTS "tidegate_requests_total"
        ["service", "version", "variant", "endpoint", "status_class", "assignment"]
        "Requests finally answered by an endpoint.";
    Histogram REQUEST_DURATION "tidegate_request_duration_seconds" ["service", "version", "variant", "endpoint"]
        "From the first byte of a request to the last byte of its response.";
    Histogram UPSTREAM_DURATION "tidegate_upstream_response_duration_seconds" ["service", "version", "variant", "endpoint"]
        "From the request fully written to an endpoint to its response head.";
    Counter ATTEMPTS "tidegate_attempts_total" ["service", "version", "variant", "endpoint"]
        "Attempts begun on an endpoint, and requests charged to it because none of the candidate was ready any more.";
    Counter BAD_ATTEMPTS "tidegate_bad_attempts_total" ["service", "version", "variant", "endpoint"]
        "Attempts that count against their version.";
    Counter RETRIES "tidegate_retries_total" ["service", "version", "variant", "endpoint", "reason"]
        "Attempts that repeated a failed attempt of the same request, by how that one failed.";
    Counter RETRIES_DENIED "tidegate_retries_denied_total" ["service", "version", "variant", "endpoint"]
        "Failed attempts that were not repeated because the retry budget of the service was spent.";
    Counter STALE_REPLAYS "tidegate_stale_replays_total" ["service", "version", "variant", "endpoint"]
        "Attempts replayed because a kept connection had died, or a server refused to look at them.";
    Gauge IN_FLIGHT "tidegate_in_flight_requests" ["service", "version", "variant", "endpoint"]
        "Requests in flight on an endpoint.";
    Counter UPSTREAM_CONNECTS "tidegate_upstream_connects_total" ["service", "version", "variant", "endpoint"]
        "Connections opened to an endpoint.";
    Counter UPSTREAM_CONNECT_FAILURES "tidegate_upstream_connect_failures_total"
        ["service", "version", "variant", "endpoint"]
        "Connections to an endpoint that could not be opened.";
    Counter UPSTREAM_REUSES "tidegate_upstream_reuses_total" ["service", "version", "variant", "endpoint"]
        "Attempts sent on a connection that was already open.";
    Gauge ENDPOINT_READY "tidegate_endpoint_ready" ["service", "version", "variant", "endpoint"]
        "Whether an endpoint takes requests (1) or not (0), by its probes.";
    Gauge ENDPOINT_ALIVE "tidegate_endpoint_alive" ["service", "version", "variant", "endpoint"]
        "Whether the liveness probes of an endpoint pass (1) or fail (0); only where there are any.";
    Gauge ENDPOINT_EJECTED "tidegate_endpoint_ejected" ["service", "version", "variant", "endpoint"]
        "Whether an endpoint is ejected or on trial after an ejection (1) or not (0), by its own requests.";
    Counter EJECTIONS "tidegate_ejections_total" ["service", "version", "variant", "endpoint", "cause"]
        "Ejections of an endpoint, by cause: failures in a row, success_rate, the trial that failed, or the gate.";
    Counter EJECTIONS_SPARED "tidegate_ejections_spared_total" ["service", "version", "variant", "endpoint", "bound"]
        "Ejections that were due and not carried out: the endpoint was the last of its pool, or max_ejected was reached.";
    Gauge ENDPOINT_DRAINED "tidegate_endpoint_drained" ["service", "version", "variant", "endpoint"]
        "Whether an endpoint is drained by command (1) or not (0).";
    Counter PROBES "tidegate_probes_total" ["service", "version", "variant", "endpoint", "probe", "result"]
        "Probes of an endpoint, by what was asked and whether it passed.";
    Histogram PROBE_DURATION "tidegate_probe_duration_seconds" ["service", "version", "variant", "endpoint"]
        "From the beginning of a probe to its answer or failure.";
    Gauge POOL_USE "tidegate_pool_use" ["service", "variant", "limit"]
        "How much of what a pool may have is in use: connections, pending, requests.";
    Gauge POOL_LIMIT "tidegate_pool_limit" ["service", "variant", "limit"]
        "How much of it a pool may have.";
    Counter POOL_OVERFLOWS "tidegate_pool_overflows_total" ["service", "variant", "limit"]
        "Requests refused because a pool was at its limit.";
    Gauge UPSTREAM_IDLE "tidegate_upstream_idle_connections" []
        "Idle connections to endpoints kept for reuse.";
    Gauge UPSTREAM_SESSIONS "tidegate_upstream_h2_sessions" []
        "HTTP/2 connections to endpoints open.";
    Gauge UPSTREAM_STREAMS "tidegate_upstream_h2_streams" []
        "Requests on them at this moment.";
    // Decisions, per service.
    Gauge CANDIDATE_WEIGHT "tidegate_candidate_weight_ratio" ["service"]
        "Share of the requests assigned to the candidate, 0 to 1.";
    Gauge CANDIDATE_OPEN "tidegate_candidate_open" ["service"]
        "Whether the candidate may receive requests (1) or not (0).";
    Gauge PANIC "tidegate_panic" ["service"]
        "Whether so few endpoints of stable are usable that all that ever passed a probe are used (1) or not (0).";
    Counter PANICS "tidegate_panics_total" ["service"]
        "Times this began.";
    Gauge ROLLOUT_PHASE "tidegate_rollout_phase" ["service", "phase"]
        "Whether the latest rollout is in this phase (1) or not (0); idle without any.";
    Gauge ROLLOUT_STEP "tidegate_rollout_step" ["service"]
        "The step of the latest rollout, from 1; 0 without one, while it verifies, and at a weight set by hand.";
    Gauge ROLLOUT_STEPS "tidegate_rollout_steps" ["service"]
        "How many steps its plan has.";
    Gauge ROLLOUT_ID "tidegate_rollout_id" ["service"]
        "Its number; 0 without any.";
    Counter ROLLOUTS_ENDED "tidegate_rollouts_ended_total" ["service", "outcome", "reason"]
        "Rollouts that ended, by how and, of those aborted, why; one that is rolled back after its end is counted as that, too.";
    Histogram ROLLOUT_DURATION "tidegate_rollout_duration_seconds" ["service", "outcome", "reason"]
        "From the start of a rollout to its end.";
    Gauge GATE_EVIDENCE "tidegate_gate_log_evidence" ["service"]
        "Evidence that the candidate does harm, in nats, while a rollout is watched.";
    Gauge GATE_BOUND "tidegate_gate_bound" ["service"]
        "The evidence from which on it is taken back, in nats.";
    Gauge GATE_OPINION "tidegate_gate_opinion" ["service", "opinion"]
        "Whether this is what the gate thinks of the candidate (1) or not (0): unknown, inconclusive, clean or harmful.";
    Counter GATE_DETECTIONS "tidegate_gate_detections_total" ["service"]
        "Candidates the gate has taken back.";
    Counter GATE_DETECTION_SECONDS "tidegate_gate_detection_seconds_total" ["service"]
        "The times from their first sign of harm to the verdict, added up.";
    Gauge GENERATION "tidegate_generation" []
        "Generation of the routing state in force.";
    // The client's side.
    Counter TERMINATIONS "tidegate_terminations_total" ["code", "cause"]
        "Requests the proxy answered or ended itself, by termination code of the access log.";
    Counter CONNECTIONS_ACCEPTED "tidegate_connections_accepted_total" []
        "Client connections accepted.";
    Gauge CONNECTIONS_OPEN "tidegate_connections_open" []
        "Client connections open.";
    Counter CONNECTIONS_SHED "tidegate_connections_shed_total" []
        "Client connections closed at once because a listener was at its limit.";
    Counter CONNECTIONS_HTTP2 "tidegate_connections_http2_total" []
        "Client connections that speak HTTP/2.";
    Counter HTTP2_RESETS "tidegate_http2_resets_sent_total" ["code"]
        "Streams of clients the proxy reset, by error code of HTTP/2.";
    Counter HTTP2_GOAWAYS "tidegate_http2_goaways_sent_total" ["code"]
        "Client connections the proxy ended with GOAWAY, by error code of HTTP/2.";
    Counter TLS_FAILURES "tidegate_tls_handshake_failures_total" []
        "TLS handshakes with clients that failed.";
    Gauge TUNNELS_OPEN "tidegate_tunnels_open" []
        "Upgraded streams (WebSocket) open.";
    // Configuration.
    Counter CONFIG_RELOADS "tidegate_config_reloads_total" ["result"]
        "Reloads of the configuration, by result: success or failure.";
    Gauge CONFIG_LAST_RELOAD_SUCCESSFUL "tidegate_config_last_reload_successful" []
        "Whether the last load of the configuration succeeded (1) or was refused (0).";
    Gauge CONFIG_LAST_RELOAD_TIME "tidegate_config_last_reload_timestamp_seconds" []
        "When the configuration was last loaded or refused, in seconds since 1970.";
    Gauge DNS_NAMES "tidegate_dns_names" ["state"]
        "Names endpoints are declared by: resolved, stale (the last good answer is in use, newer ones were not good) or unresolved.";
    Counter DNS_LOOKUPS "tidegate_dns_lookups_total" ["result"]
        "Times the DNS was asked for a name, by result: success or failure, which empty answers are.";
    // Logs.
    Counter ACCESS_LOG_DROPPED "tidegate_access_log_dropped_lines_total" []
        "Lines of the access log lost because its writer was behind or could not write.";
    Counter ACCESS_LOG_WRITE_ERRORS "tidegate_access_log_write_errors_total" []
        "Failed attempts to write or reopen the access log.";
    Counter LOG_DROPPED "tidegate_log_dropped_lines_total" []
        "Lines of the process log lost because its writer was behind or could not write.";
    // The process.
    Gauge BUILD_INFO "tidegate_build_info" ["version"]
        "Always 1; the version that runs.";
    Gauge WORKERS "tidegate_workers" []
        "Worker threads.";
    Counter PROCESS_CPU "process_cpu_seconds_total" []
        "User and system CPU time spent, in seconds.";
    Gauge PROCESS_OPEN_FDS "process_open_fds" []
        "Open file descriptors.";
    Gauge PROCESS_MAX_FDS "process_max_fds" []
        "Most file descriptors the process may open.";
    Gauge PROCESS_VIRTUAL_MEMORY "process_virtual_memory_bytes" []
        "Virtual memory, in bytes.";
    Gauge PROCESS_RESIDENT_MEMORY "process_resident_memory_bytes" []
        "Resident memory, in bytes.";
    Gauge PROCESS_THREADS "process_threads" []
        "Operating system threads.";
    Gauge PROCESS_START_TIME "process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
}

// === impl Kind ===

impl Kind {
    /// The word of the exposition format and of the documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

// === impl Counter, Gauge, Histogram ===

impl<const N: usize> Counter<N> {
    /// Its index in [`ALL`].
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

impl<const N: usize> Gauge<N> {
    /// Its index in [`ALL`].
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

impl<const N: usize> Histogram<N> {
    /// Its index in [`ALL`].
    pub(super) const fn index(self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_identifier(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }

    #[test]
    fn names_follow_the_conventions() {
        for entry in ALL {
            let Entry { name, kind, labels, help } = *entry;
            assert!(is_identifier(name), "{name}");
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                kind == Kind::Counter,
                "{name}: counters, and only they, end in _total"
            );
            assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name}: durations are in seconds");
            for reserved in ["_bucket", "_count", "_sum", "_info_total", "_milliseconds", "_ms", "_percent"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            assert!(labels.iter().all(|l| is_identifier(l) && *l != "le" && *l != "quantile"), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: help is a sentence");
        }
    }

    #[test]
    fn names_are_distinct_and_labels_too() {
        let mut names: Vec<_> = ALL.iter().map(|e| e.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for entry in ALL {
            let mut labels = entry.labels.to_vec();
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), entry.labels.len(), "{}", entry.name);
        }
    }

    #[test]
    fn constants_point_at_their_row() {
        assert_eq!(ALL[REQUESTS.index()].name, "tidegate_requests_total");
        assert_eq!(ALL[IN_FLIGHT.index()].name, "tidegate_in_flight_requests");
        assert_eq!(ALL[PROCESS_START_TIME.index()].name, "process_start_time_seconds");
        assert_eq!(PROCESS_START_TIME.index() + 1, ALL.len());
    }
}
