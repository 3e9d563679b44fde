//! What is true now, for a person: services first, then where traffic comes in, the file, what happened lately. Pure.

use std::fmt::Write;

use super::limits::limits;
use super::model::{Config, Draining, Endpoint, Event, NameState, Pool, Service, Status};
use super::rollouts::rollouts;
use crate::cli::failure::one_error;
use crate::cli::text::{Align, Cell, Paint, Tone, ago, clean, count, span, table};
use crate::core::weight::{GRAINS, Weight};

/// Newest events shown.
const EVENTS_SHOWN_MAX: usize = 10;
/// Names shown.
const NAMES_SHOWN_MAX: usize = 20;
/// Most characters of an event's detail that are shown.
const DETAIL_CHARS_MAX: usize = 100;

/// The whole status; `now_ms` is milliseconds since 1970.
pub(super) fn render(status: &Status, address: &str, now_ms: u64, paint: Paint) -> String {
    let blocks = [
        headline(status, address, paint),
        services(&status.services, now_ms, paint),
        rollouts(&status.services, paint),
        limits(&status.services, paint),
        names(&status.names, now_ms, paint),
        draining(&status.draining, now_ms, paint),
        listeners(status, paint),
        config(&status.config, now_ms, paint),
        events(&status.events, now_ms, paint),
    ];
    blocks.into_iter().filter(|block| !block.is_empty()).collect::<Vec<_>>().join("\n")
}

fn headline(status: &Status, address: &str, paint: Paint) -> String {
    let name = format!("tidegate {}", clean(&status.version));
    let rest = format!(", generation {}, up {}, at {address}", status.generation, span(status.uptime_seconds));
    format!("{}{rest}\n", paint.paint(Tone::Strong, &name))
}

fn services(services: &[Service], now_ms: u64, paint: Paint) -> String {
    let columns = [
        ("SERVICE", Align::Left),
        ("STATE", Align::Left),
        ("VERSION", Align::Left),
        ("", Align::Left),
        ("WEIGHT", Align::Right),
        ("ENDPOINT", Align::Left),
        ("IN FLIGHT", Align::Right),
        ("HEALTH", Align::Left),
    ];
    let rows: Vec<_> = services.iter().flat_map(|each| service(each, now_ms)).collect();
    table(paint, &columns, &rows)
}

fn service(service: &Service, now_ms: u64) -> Vec<Vec<Cell>> {
    let tone = match service.state.as_str() {
        "aborted" => Tone::Bad,
        "idle" => Tone::Plain,
        _ => Tone::Notable,
    };
    let share = if service.candidate.is_some() { rest_of(&service.weight) } else { "100%".to_owned() };
    let mut rows = pool(&service.stable, "stable", &share, Tone::Plain, now_ms);
    if let Some(candidate) = &service.candidate {
        rows.extend(pool(candidate, "candidate", &service.weight, tone, now_ms));
    }
    if let Some(first) = rows.first_mut() {
        first[0] = Cell::new(Tone::Strong, &service.name);
        first[1] = Cell::new(tone, &service.state);
    }
    rows
}

/// A row per endpoint; version and weight in the first.
fn pool(pool: &Pool, variant: &str, weight: &str, tone: Tone, now_ms: u64) -> Vec<Vec<Cell>> {
    let none = || Cell::plain("");
    let endpoint = |at: usize| match pool.endpoints.get(at) {
        Some(endpoint) => {
            let in_flight = Cell::plain(endpoint.in_flight.to_string());
            [Cell::plain(&endpoint.address), in_flight, health(endpoint, now_ms)]
        }
        None => [Cell::new(Tone::Bad, "none"), none(), none()],
    };
    let head = |at: usize| match at {
        0 if pool.panic => {
            let variant = Cell::new(Tone::Bad, format!("{variant}, in panic"));
            [Cell::plain(&pool.version), variant, Cell::new(tone, weight)]
        }
        0 => [Cell::plain(&pool.version), Cell::new(Tone::Faint, variant), Cell::new(tone, weight)],
        _ => [none(), none(), none()],
    };
    (0..pool.endpoints.len().max(1))
        .map(|at| [none(), none()].into_iter().chain(head(at)).chain(endpoint(at)).collect())
        .collect()
}

/// The state of an endpoint, with the last result of whatever is not well.
fn health(endpoint: &Endpoint, now_ms: u64) -> Cell {
    let tone = match endpoint.health.as_str() {
        "ready" if endpoint.outlier.is_some() => Tone::Bad,
        "ready" if endpoint.drained_since_ms.is_some() => Tone::Notable,
        "ready" if endpoint.alive == Some(false) || endpoint.leaving => Tone::Notable,
        "ready" | "" => Tone::Plain,
        "unknown" => Tone::Notable,
        _ => Tone::Bad,
    };
    let mut text = endpoint.health.replace('_', " ");
    if let Some(since) = endpoint.drained_since_ms {
        // Writing into a String does not fail; so below.
        let _ = write!(text, ", drained {}", ago(now_ms, since));
    }
    if let Some(outlier) = &endpoint.outlier {
        let left = outlier.until_ms.saturating_sub(now_ms).div_ceil(1_000);
        let then = if outlier.state == "ejected" { format!(" for another {}", span(left)) } else { String::new() };
        let _ = write!(text, ", {}{then}: {}", outlier.state, short(&outlier.reason));
    }
    if endpoint.leaving {
        text.push_str(", leaves when another is ready");
    }
    for probe in [&endpoint.probe, &endpoint.liveness, &endpoint.deep].into_iter().flatten().filter(|p| !p.passed) {
        let body = probe.body.as_ref().map(|body| format!(", body: {body}"));
        let reason = format!("{}{}", probe.error.as_deref().unwrap_or_default(), body.unwrap_or_default());
        let when = ago(now_ms, probe.at_ms);
        let _ = write!(text, "; {} failed {when} after {} ms: {}", probe.probe, probe.latency_ms, short(&reason));
    }
    Cell::new(tone, text)
}

/// Names with anything wrong about them; the others are their endpoints.
fn names(names: &[NameState], now_ms: u64, paint: Paint) -> String {
    let columns = [
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("ADDRESSES", Align::Right),
        ("ANSWERED", Align::Right),
        ("", Align::Left),
    ];
    let row = |name: &NameState| {
        let tone = if name.state == "unresolved" { Tone::Bad } else { Tone::Notable };
        let answered = name.answered_at_ms.map_or_else(|| "never".to_owned(), |at| ago(now_ms, at));
        vec![
            Cell::plain(&name.name),
            Cell::new(tone, &name.state),
            Cell::plain(name.addresses.to_string()),
            Cell::plain(answered),
            Cell::plain(short(name.problem.as_deref().unwrap_or_default())),
        ]
    };
    let wrong = names.iter().filter(|name| name.state != "resolved" || name.problem.is_some());
    let rows: Vec<_> = wrong.take(NAMES_SHOWN_MAX).map(row).collect();
    table(paint, &columns, &rows)
}

/// What left the file and finishes what is in flight.
fn draining(draining: &[Draining], now_ms: u64, paint: Paint) -> String {
    if draining.is_empty() {
        return String::new();
    }
    let columns = [
        ("DRAINING", Align::Left),
        ("VERSION", Align::Left),
        ("ENDPOINT", Align::Left),
        ("IN FLIGHT", Align::Right),
        ("SINCE", Align::Left),
    ];
    let row = |each: &Draining| {
        let since = ago(now_ms, each.since_ms);
        let cells = [&each.service, &each.version, &each.address].map(Cell::plain);
        cells.into_iter().chain([Cell::plain(each.in_flight.to_string()), Cell::plain(since)]).collect()
    };
    table(paint, &columns, &draining.iter().map(row).collect::<Vec<_>>())
}

/// What the candidate's weight leaves to stable.
fn rest_of(weight: &str) -> String {
    let rest = Weight::parse(weight).ok().and_then(|w| Weight::from_grains(GRAINS - w.grains()).ok());
    rest.map_or_else(|| "?".to_owned(), |rest| rest.to_string())
}

fn listeners(status: &Status, paint: Paint) -> String {
    let columns = [("LISTENER", Align::Left), ("ADDRESS", Align::Left), ("", Align::Left)];
    let row = |l: &super::model::Listener| {
        let bound = if l.bound.is_empty() { &l.listen } else { &l.bound };
        vec![Cell::plain(&l.name), Cell::plain(bound), Cell::new(Tone::Faint, if l.tls { "TLS" } else { "" })]
    };
    let rows: Vec<_> = status.listeners.iter().map(row).collect();
    table(paint, &columns, &rows)
}

fn config(config: &Config, now_ms: u64, paint: Paint) -> String {
    let label = |name: &str| {
        format!("{}{}  ", paint.paint(Tone::Strong, name), " ".repeat("RESTART".len().saturating_sub(name.len())))
    };
    let mut text = format!("{}{}\n", label("CONFIG"), clean(&config.path));
    if let Some(reload) = &config.last_reload {
        let (who, when) = (clean(&reload.actor), ago(now_ms, reload.at_ms));
        let line = if reload.ok {
            format!("{} {when} by {who} (generation {})", clean(&reload.outcome), reload.generation)
        } else {
            let errors = count(reload.errors.len() as u64, "error");
            let still = format!("generation {} still serves", reload.generation);
            format!("{} {when} by {who}: {errors}; {still}", paint.paint(Tone::Bad, "REFUSED"))
        };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}{line}", label("RELOAD"));
        for error in &reload.errors {
            let _ = writeln!(text, "         {}", paint.paint(Tone::Bad, &clean(&one_error(error))));
        }
    }
    if !config.needs_restart.is_empty() {
        let keys = config.needs_restart.join(", ");
        let line = format!("needed to apply {}", clean(&keys));
        let _ = writeln!(text, "{}{}", label("RESTART"), paint.paint(Tone::Notable, &line));
    }
    text
}

fn events(events: &[Event], now_ms: u64, paint: Paint) -> String {
    let columns = [
        ("WHEN", Align::Right),
        ("EVENT", Align::Left),
        ("SERVICE", Align::Left),
        ("CHANGE", Align::Left),
        ("BY", Align::Left),
        ("GENERATION", Align::Right),
        ("", Align::Left),
    ];
    let newest = &events[events.len().saturating_sub(EVENTS_SHOWN_MAX)..];
    let rows: Vec<_> = newest.iter().map(|event| event_row(event, now_ms)).collect();
    table(paint, &columns, &rows)
}

fn event_row(event: &Event, now_ms: u64) -> Vec<Cell> {
    let change = match (&event.from, &event.to) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (None, Some(one)) | (Some(one), None) => one.clone(),
        (None, None) => String::new(),
    };
    let tone = match event.what.as_str() {
        "abort" | "rollback" | "store_failed" | "reload_refused" | "endpoint_not_ready" | "endpoint_not_alive"
        | "endpoint_ejected" | "panic" => Tone::Bad,
        "weight" | "pause" | "trial" | "overtaken" | "supersede" | "endpoint_drained" => Tone::Notable,
        _ => Tone::Plain,
    };
    vec![
        Cell::new(Tone::Faint, ago(now_ms, event.at_ms)),
        Cell::new(tone, event.what.replace('_', " ")),
        Cell::plain(event.service.as_deref().unwrap_or_default()),
        Cell::plain(change),
        Cell::plain(&event.actor),
        Cell::plain(event.generation.to_string()),
        Cell::new(Tone::Faint, short(event.detail.as_deref().unwrap_or_default())),
    ]
}

/// The first line, cut where it grows too long.
fn short(detail: &str) -> String {
    let mut lines = detail.lines();
    let first = lines.next().unwrap_or_default();
    let mut text: String = first.chars().take(DETAIL_CHARS_MAX).collect();
    if text.len() < first.len() {
        text.push_str("...");
    }
    match lines.count() {
        0 => text,
        more => format!("{text} (and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(status: serde_json::Value) -> String {
        let status = serde_json::from_value(status).expect("a status");
        render(&status, "http://127.0.0.1:9900", 1_000_000_000, Paint(false))
    }

    fn pool(version: &str, endpoints: &[(&str, u32)]) -> serde_json::Value {
        let endpoints: Vec<_> = endpoints.iter().map(|(a, n)| json!({"address": a, "in_flight": n})).collect();
        json!({"version": version, "endpoints": endpoints})
    }

    #[test]
    fn a_split_an_abort_and_a_lone_service() {
        let failed = json!({"probe": "readiness", "passed": false, "latency_ms": 12, "error": "status 503 instead of 200-299",
            "body": "no database", "at_ms": 999_996_000});
        let mut probed = pool("v7", &[("10.0.2.1:80", 0), ("10.0.2.2:80", 0), ("10.0.2.3:80", 0)]);
        for (at, health, probe) in
            [(0, "not_ready", failed), (1, "unknown", json!(null)), (2, "ready", json!({"passed": true}))]
        {
            probed["endpoints"][at]["health"] = json!(health);
            probed["endpoints"][at]["probe"] = probe;
        }
        probed["endpoints"][2]["leaving"] = json!(true);
        let mut split = pool("v1", &[("10.0.0.1:8080", 31), ("10.0.0.2:8080", 2)]);
        split["panic"] = json!(true);
        for (at, health) in [(0, "ready"), (1, "ready")] {
            split["endpoints"][at]["health"] = json!(health);
        }
        split["endpoints"][0]["outlier"] =
            json!({"state": "ejected", "reason": "5 failures in a row, last: status 503", "until_ms": 1_000_018_000});
        split["endpoints"][1]["drained_since_ms"] = json!(999_940_000);
        let status = json!({
            "generation": 12, "version": "0.1.0", "uptime_seconds": 11_520,
            "config": {"path": "/etc/tidegate.toml", "needs_restart": [], "last_reload":
                {"ok": true, "outcome": "applied", "at_ms": 999_700_000, "actor": "file", "generation": 11, "errors": []}},
            "listeners": [{"name": "public", "listen": "0.0.0.0:0", "bound": "0.0.0.0:8443", "tls": true}],
            "services": [
                {"name": "api", "state": "idle", "weight": "0%", "stable": probed, "candidate": null},
                {"name": "shop", "state": "aborted", "weight": "0%", "stable": pool("v3", &[("10.0.3.1:80", 1)]),
                 "candidate": pool("v4", &[("10.0.3.2:80", 0)])},
                {"name": "web", "state": "splitting", "weight": "5.5%",
                 "stable": split, "candidate": pool("v2", &[("10.0.1.1:8080", 4)])},
            ],
            "draining": [{"service": "web", "version": "v0", "address": "10.0.9.1:80", "in_flight": 2, "since_ms": 999_990_000}],
            "events": [
                {"seq": 1, "at_ms": 999_000_000, "actor": "start", "what": "start", "generation": 1},
                {"seq": 2, "at_ms": 999_999_500, "actor": "127.0.0.1", "what": "abort", "service": "shop", "from": "50%", "to": "0%",
                 "detail": "errors on cart", "generation": 12},
            ],
        });
        insta::assert_snapshot!(shown(status), @r"
        tidegate 0.1.0, generation 12, up 3h 12m, at http://127.0.0.1:9900

        SERVICE  STATE      VERSION                    WEIGHT  ENDPOINT       IN FLIGHT  HEALTH
        api      idle       v7       stable              100%  10.0.2.1:80            0  not ready; readiness failed 4s ago after 12 ms: status 503 instead of 200-299, body: no database
                                                               10.0.2.2:80            0  unknown
                                                               10.0.2.3:80            0  ready, leaves when another is ready
        shop     aborted    v3       stable              100%  10.0.3.1:80            1
                            v4       candidate             0%  10.0.3.2:80            0
        web      splitting  v1       stable, in panic   94.5%  10.0.0.1:8080         31  ready, ejected for another 18s: 5 failures in a row, last: status 503
                                                               10.0.0.2:8080          2  ready, drained 1m ago
                            v2       candidate           5.5%  10.0.1.1:8080          4

        DRAINING  VERSION  ENDPOINT     IN FLIGHT  SINCE
        web       v0       10.0.9.1:80          2  10s ago

        LISTENER  ADDRESS
        public    0.0.0.0:8443  TLS

        CONFIG   /etc/tidegate.toml
        RELOAD   applied 5m ago by file (generation 11)

               WHEN  EVENT  SERVICE  CHANGE     BY         GENERATION
        16m 40s ago  start                      start               1
                now  abort  shop     50% -> 0%  127.0.0.1          12  errors on cart
        ");
    }

    #[test]
    fn a_refused_file_shows_every_error_and_what_still_serves() {
        let errors: Vec<_> =
            (1..=3).map(|line| json!({"file": "t.toml", "line": line, "key": "a.b", "message": "no"})).collect();
        let status = json!({
            "generation": 4, "version": "0.1.0", "services": [],
            "config": {"path": "t.toml", "needs_restart": ["[admin]", "[runtime]"], "last_reload":
                {"ok": false, "outcome": "refused", "at_ms": 999_990_000, "actor": "file", "generation": 4, "errors": errors}},
            "events": [{"at_ms": 999_990_000, "actor": "file", "what": "reload_refused", "detail": "t.toml:1: a.b: no\nx\ny", "generation": 4}],
        });
        insta::assert_snapshot!(shown(status), @r"
        tidegate 0.1.0, generation 4, up 0s, at http://127.0.0.1:9900

        CONFIG   t.toml
        RELOAD   REFUSED 10s ago by file: 3 errors; generation 4 still serves
                 t.toml:1: a.b: no
                 t.toml:2: a.b: no
                 t.toml:3: a.b: no
        RESTART  needed to apply [admin], [runtime]

           WHEN  EVENT           SERVICE  CHANGE  BY    GENERATION
        10s ago  reload refused                   file           4  t.toml:1: a.b: no (and 2 more)
        ");
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_far_as_it_goes() {
        let text =
            shown(json!({"generation": 3, "services": [{"name": "web", "weight": "many", "candidate": {}}], "new": 1}));
        assert!(text.contains("generation 3") && text.contains("web") && text.contains('?'), "{text}");
    }

    #[test]
    fn text_from_the_api_cannot_steer_the_terminal() {
        let evil = "\u{1b}]0;x\u{7}";
        let text = shown(json!({
            "version": evil, "config": {"path": evil, "needs_restart": [evil], "last_reload": {"ok": false, "actor": evil, "errors": [evil]}},
            "listeners": [{"name": evil, "bound": evil}],
            "services": [{"name": evil, "state": evil, "weight": evil, "stable": pool(evil, &[(evil, 0)])},
                {"name": evil, "stable": {"limits": {"pending": {"used": 1, "max": 1}}}}],
            "names": [{"name": evil, "state": evil, "problem": evil}],
            "events": [{"actor": evil, "what": evil, "service": evil, "from": evil, "to": evil, "detail": evil}],
        }));
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }

    #[test]
    fn names_are_shown_when_something_is_wrong_with_them() {
        let status = json!({"generation": 4, "version": "0.1.0", "config": {"path": "t.toml"}, "names": [
            {"name": "a.internal", "state": "resolved", "addresses": 2, "answered_at_ms": 999_990_000},
            {"name": "b.internal", "state": "stale", "addresses": 2, "answered_at_ms": 999_990_000, "problem": "timed out"},
            {"name": "srv:_a._tcp.c", "state": "unresolved", "addresses": 0, "problem": "it has no SRV records"},
        ]});
        insta::assert_snapshot!(shown(status), @r"
        tidegate 0.1.0, generation 4, up 0s, at http://127.0.0.1:9900

        NAME           STATE       ADDRESSES  ANSWERED
        b.internal     stale               2   10s ago  timed out
        srv:_a._tcp.c  unresolved          0     never  it has no SRV records

        CONFIG   t.toml
        ");
    }

    #[test]
    fn events_and_details_are_bounded() {
        let event = |i: usize| json!({"what": format!("e{i}"), "detail": "x".repeat(DETAIL_CHARS_MAX + 1)});
        let text = shown(json!({"events": (0..EVENTS_SHOWN_MAX + 5).map(event).collect::<Vec<_>>()}));
        assert!(!text.contains("e4 ") && text.contains("e5 ") && text.contains("e14 "), "{text}");
        assert!(text.contains(&format!(" {}...\n", "x".repeat(DETAIL_CHARS_MAX))), "{text}");
    }

    #[test]
    fn colour_marks_what_needs_a_look() {
        let status = json!({"services": [{"name": "web", "state": "aborted", "stable": pool("v1", &[]), "candidate": pool("v2", &[])}]});
        let status = serde_json::from_value(status).expect("a status");
        let text = render(&status, "x", 0, Paint(true));
        assert!(text.contains("\u{1b}[31maborted\u{1b}[0m"), "{text:?}");
    }
}
