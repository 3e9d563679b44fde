//! Every key of the file, by section: the one place that lists them.
//!
//! A reader asserts that the key it asks for is listed here; a test asserts that every key listed here is in
//! `config/reference.toml` and the other way round.

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Section {
    /// Its path with `*` for a name of the author's choice and `[]` for an element.
    pub(super) path: &'static str,
    /// Keys that are read.
    pub(super) keys: &'static [&'static str],
    /// Keys of the design that this version does not support yet.
    pub(super) later: &'static [&'static str],
}

const fn section(path: &'static str, keys: &'static [&'static str], later: &'static [&'static str]) -> Section {
    Section { path, keys, later }
}

pub(super) static ROOT: Section = section(
    "",
    &["admin", "state", "runtime", "log", "listeners", "routes", "services"],
    &["synthetic", "hooks", "notifications", "cluster"],
);
pub(super) static ADMIN: Section = section("admin", &["listen", "probe_listen", "tokens", "require_reason"], &[]);
pub(super) static TOKEN: Section = section("admin.tokens[]", &["name", "role", "env", "file"], &[]);
pub(super) static STATE: Section = section("state", &["dir"], &[]);
pub(super) static RUNTIME: Section =
    section("runtime", &["workers", "drain_timeout", "accept_grace", "idle_grace", "dns"], &[]);
pub(super) static DNS: Section = section("runtime.dns", &["servers", "timeout", "min_ttl", "max_ttl"], &[]);
pub(super) static LOG: Section = section("log", &["level", "format", "access"], &[]);
pub(super) static ACCESS: Section = section("log.access", &["enabled", "path", "format", "sample"], &[]);

pub(super) static LISTENER: Section = section(
    "listeners[]",
    &["name", "listen", "tls", "trusted_proxies", "underscores", "limits"],
    &["proxy_protocol_from"],
);
pub(super) static LISTENER_TLS: Section = section("listeners[].tls", &["certificates"], &["client_ca"]);
pub(super) static CERTIFICATE: Section = section("listeners[].tls.certificates[]", &["cert", "key"], &[]);
pub(super) static LIMITS: Section = section(
    "listeners[].limits",
    &[
        "head_timeout",
        "keepalive_idle",
        "max_requests",
        "max_age",
        "body_idle",
        "tls_handshake",
        "max_connections",
        "max_head",
        "max_fields",
        "max_line",
        "max_body",
        "websocket_idle",
        "grpc_idle",
        "h2",
    ],
    &["max_connections_per_client"],
);
pub(super) static HTTP2: Section = section(
    "listeners[].limits.h2",
    &[
        "enabled",
        "max_streams",
        "stream_window",
        "connection_window",
        "max_header_list",
        "max_fields",
        "max_requests",
        "max_pending_resets",
        "max_error_resets",
    ],
    &[],
);

pub(super) static ROUTE: Section = section(
    "routes[]",
    &[
        "host",
        "path",
        "path_prefix",
        "path_regex",
        "methods",
        "headers",
        "query",
        "cookies",
        "service",
        "services",
        "affinity",
        "timeout",
    ],
    &["respond", "redirect", "rewrite", "request_headers", "response_headers", "rate_limit"],
);
const PREDICATE: &[&str] = &["name", "exact", "prefix", "regex", "present"];
pub(super) static ROUTE_HEADER: Section = section("routes[].headers[]", PREDICATE, &[]);
pub(super) static ROUTE_QUERY: Section = section("routes[].query[]", PREDICATE, &[]);
pub(super) static ROUTE_COOKIE: Section = section("routes[].cookies[]", PREDICATE, &[]);
pub(super) static ROUTE_SERVICE: Section = section("routes[].services[]", &["service", "weight"], &[]);
pub(super) static ROUTE_AFFINITY: Section = section("routes[].affinity", &["key"], &[]);

pub(super) static SERVICE: Section = section(
    "services.*",
    &["stable", "candidate", "upstream", "health", "outlier", "force", "affinity", "rollout", "gate"],
    &[],
);
pub(super) static OUTLIER: Section = section(
    "services.*.outlier",
    &[
        "consecutive_failures",
        "window",
        "min_requests",
        "min_success",
        "ejection",
        "max_ejection_time",
        "max_ejected",
        "panic_threshold",
    ],
    &[],
);
pub(super) static HEALTH: Section = section(
    "services.*.health",
    &[
        "kind",
        "path",
        "interval",
        "timeout",
        "rise",
        "fall",
        "jitter",
        "fast_interval",
        "expect_status",
        "expect_body",
        "expect_json",
        "max_latency",
        "host",
        "headers",
        "port",
        "tls",
        "startup",
        "liveness",
        "deep",
    ],
    &[],
);
pub(super) static HEALTH_HEADER: Section = section("services.*.health.headers[]", &["name", "value", "env"], &[]);
pub(super) static HEALTH_TLS: Section =
    section("services.*.health.tls", &["ca", "cert", "key", "sni", "insecure"], &[]);
pub(super) static STARTUP: Section = section("services.*.health.startup", &["path", "timeout"], &[]);
pub(super) static LIVENESS: Section = section("services.*.health.liveness", &["path"], &[]);
pub(super) static DEEP: Section = section("services.*.health.deep", &["path", "interval"], &[]);
const POOL: &[&str] = &["version", "digest", "endpoints"];
pub(super) static STABLE: Section = section("services.*.stable", POOL, &[]);
pub(super) static CANDIDATE: Section = section("services.*.candidate", POOL, &[]);
const ENDPOINT: &[&str] = &["address", "weight"];
pub(super) static STABLE_ENDPOINT: Section = section("services.*.stable.endpoints[]", ENDPOINT, &[]);
pub(super) static CANDIDATE_ENDPOINT: Section = section("services.*.candidate.endpoints[]", ENDPOINT, &[]);
pub(super) static UPSTREAM: Section = section(
    "services.*.upstream",
    &[
        "protocol",
        "tls",
        "host",
        "connect_timeout",
        "response_timeout",
        "body_idle",
        "keepalive_idle",
        "max_connections",
        "max_pending",
        "max_requests",
        "balance",
        "hash_key",
        "slow_start",
        "drain_timeout",
        "websocket_drain",
        "retry",
    ],
    &[],
);
pub(super) static RETRY: Section =
    section("services.*.upstream.retry", &["attempts", "on", "budget", "min_per_second", "backoff", "max_body"], &[]);
pub(super) static UPSTREAM_TLS: Section =
    section("services.*.upstream.tls", &["ca", "cert", "key", "sni", "insecure"], &[]);
pub(super) static FORCE: Section =
    section("services.*.force", &["header", "cookie", "allow_from", "secret_env", "keep_candidate"], &[]);
pub(super) static AFFINITY: Section =
    section("services.*.affinity", &["key", "cookie", "salt", "on_increase", "secret_file"], &[]);
pub(super) static AFFINITY_COOKIE: Section =
    section("services.*.affinity.cookie", &["name", "max_age", "same_site"], &[]);

pub(super) static ROLLOUT: Section = section(
    "services.*.rollout",
    &[
        "strategy",
        "start",
        "steps",
        "ramp",
        "progress_deadline",
        "on_deadline",
        "keep_stable",
        "on_restart",
        "on_empty_store",
        "max_failed_requests",
    ],
    &["max_step", "fallback"],
);
/// The plan of one rollout, in a command. What says when rollouts begin has no place in it.
pub(super) static PLAN: Section = Section {
    path: "services.*.rollout",
    keys: &[
        "strategy",
        "steps",
        "ramp",
        "progress_deadline",
        "on_deadline",
        "keep_stable",
        "on_restart",
        "max_failed_requests",
    ],
    later: &["max_step", "fallback"],
};
/// What a command holds that is compiled here.
pub(super) static COMMAND: Section = Section { path: "", keys: &["plan"], later: &[] };
pub(super) static STEP: Section =
    section("services.*.rollout.steps[]", &["weight", "hold", "min_requests", "approval"], &["synthetic", "mirror"]);
pub(super) static RAMP: Section = section("services.*.rollout.ramp", &["from", "to", "factor", "every"], &[]);
pub(super) static GATE: Section = section(
    "services.*.gate",
    &[
        "mode",
        "alpha",
        "unit",
        "warmup",
        "max_extend",
        "on_low_traffic",
        "on_stable_degraded",
        "on_sample_ratio",
        "metrics",
    ],
    &[],
);
pub(super) static GATE_METRIC: Section = section(
    "services.*.gate.metrics[]",
    &[
        "name",
        "method",
        "max_ratio",
        "ignore_below",
        "max_rate",
        "quantiles",
        "max_increase",
        "min_increase",
        "max",
        "window",
        "for",
        "min_requests",
        "max_increase_points",
        "min_rate",
        "min_throughput_ratio",
        "baseline",
    ],
    &["match", "good", "bad_header", "good_header", "query", "min_ratio", "source"],
);

/// All sections.
#[cfg(test)]
pub(super) static ALL: &[&Section] = &[
    &ROOT,
    &ADMIN,
    &TOKEN,
    &STATE,
    &RUNTIME,
    &DNS,
    &LOG,
    &ACCESS,
    &LISTENER,
    &LISTENER_TLS,
    &CERTIFICATE,
    &LIMITS,
    &HTTP2,
    &ROUTE,
    &ROUTE_HEADER,
    &ROUTE_QUERY,
    &ROUTE_COOKIE,
    &ROUTE_SERVICE,
    &ROUTE_AFFINITY,
    &SERVICE,
    &STABLE,
    &CANDIDATE,
    &STABLE_ENDPOINT,
    &CANDIDATE_ENDPOINT,
    &UPSTREAM,
    &UPSTREAM_TLS,
    &RETRY,
    &HEALTH,
    &HEALTH_HEADER,
    &HEALTH_TLS,
    &STARTUP,
    &LIVENESS,
    &DEEP,
    &OUTLIER,
    &FORCE,
    &AFFINITY,
    &AFFINITY_COOKIE,
    &ROLLOUT,
    &STEP,
    &RAMP,
    &GATE,
    &GATE_METRIC,
];

/// Most words that are compared with a wrong one, and most that a message lists.
const SUGGEST_FROM_MAX: usize = 256;
const LISTED_MAX: usize = 16;

// === impl Section ===

impl Section {
    /// What is wrong with `key`, which this section does not read.
    pub(super) fn refusal(&self, key: &str) -> String {
        if self.later.contains(&key) {
            return "not supported by this version".to_owned();
        }
        match closest(key, self.keys.iter().copied()) {
            Some(known) => format!("unknown key; did you mean \"{known}\"?"),
            None => format!("unknown key; allowed are {}", list(self.keys.iter().copied())),
        }
    }
}

/// The word of `known` that is at most two typing mistakes away from `word` (one in short words).
pub(super) fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_").into_bytes();
    let word = plain(word);
    let allowed = if word.len() < 5 { 1 } else { 2 };
    known
        .take(SUGGEST_FROM_MAX)
        .filter(|k| k.len().abs_diff(word.len()) <= allowed)
        .map(|k| (distance(&word, &plain(k)), k))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `known` as a list for people, cut when it is long.
pub(super) fn list<'k>(known: impl ExactSizeIterator<Item = &'k str>) -> String {
    let count = known.len();
    let mut shown: Vec<&str> = known.take(LISTED_MAX).collect();
    let more = format!("{} more", count.saturating_sub(LISTED_MAX));
    if count > LISTED_MAX {
        shown.push(&more);
    }
    shown.join(", ")
}

/// Insertions, deletions, replacements and swaps of neighbours between `a` and `b` (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_recognised_and_other_words_are_not() {
        let known = ["listen", "listeners", "dir", "connect_timeout"];
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("listner", Some("listen")),
            ("litsen", Some("listen")),
            ("Connect-Timeout", Some("connect_timeout")),
            ("dri", Some("dir")),
            ("door", None),
            ("", None),
            ("workers", None),
        ] {
            assert_eq!(closest(word, known.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn refusals_suggest_or_list_or_say_that_it_comes_later() {
        assert_eq!(ADMIN.refusal("lsiten"), "unknown key; did you mean \"listen\"?");
        assert_eq!(LOG.refusal("zzz"), "unknown key; allowed are level, format, access");
        assert_eq!(ROLLOUT.refusal("fallback"), "not supported by this version");
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(list(["a", "b"].into_iter()), "a, b");
        assert!(list(vec!["x"; 20].into_iter()).ends_with("x, 4 more"));
    }

    #[test]
    fn no_key_is_both_read_and_for_later() {
        for section in ALL {
            assert!(section.keys.iter().all(|key| !section.later.contains(key)), "{}", section.path);
        }
    }
}
