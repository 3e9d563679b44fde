//! `[services.*.health]`: how endpoints are probed.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::words::ProbeKind;
use super::super::{keys, units, words};
use super::{policy, services, syntax};
use crate::core::health::json::{Assertion, Path};
use crate::core::health::wanted::{Check, Deep, Expect, Health, Pace, ProbeHeader, ProbeTls, ProbeValue, Startup};
use crate::core::service::Secret;
use crate::core::weight::Weight;

/// Bounds of the pauses between probes; of one probe; of a startup.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const STARTUP: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
/// Results in a row.
const COUNT: RangeInclusive<u32> = 1..=100;
/// Most ranges, assertions and fields; longest expected text and field, in bytes.
const RANGES_MAX: usize = 16;
const ASSERTIONS_MAX: usize = 32;
const HEADERS_MAX: usize = 32;
const TEXT_MAX: usize = 4_096;
/// Longest path, or service name of gRPC, in bytes.
const PATH_MAX: usize = 2_048;
/// Fields the probe sets itself.
const OWN_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

const HTTP_PATH_FORM: &str = "a path to ask for, such as \"/ready\", may have a query and is visible ASCII without #";
const SERVICE_FORM: &str = "with kind = \"grpc\" a path is the name of a service, such as \"shop.Cart\"; leave it out to ask for the whole server";
const STATUS_FORM: &str = "a status or a range of them between 200 and 599, such as \"204\" or \"200-299\"";
const JSON_FORM: &str = "a table such as { \"$.status\" = \"healthy\" }";
const SCALAR_FORM: &str = "a string, a whole number, true or false";

/// How the endpoints of a service are probed.
pub(super) fn health(table: Option<&Table<'_>>) -> Health {
    let default = Health::default();
    let Some(table) = table else { return default };
    let kind = kind(table);
    let timeout = table.duration("timeout", TIMEOUT, default.timeout);
    let path = table.value("path");
    if let Some(value) = path.filter(|_| kind == ProbeKind::Tcp) {
        value.wrong("contradicts kind = \"tcp\", which only connects");
    }
    let readiness = match kind {
        ProbeKind::Tcp => Check::Tcp,
        kind => path.and_then(|value| check(value, kind)).unwrap_or_else(|| whole(kind)),
    };
    let inner = |key, section| table.table(key, section);
    let startup = inner("startup", &keys::STARTUP).map(|t| Startup {
        check: inner_check(&t, kind),
        timeout: t.duration("timeout", STARTUP, Duration::from_secs(300)),
    });
    let liveness = inner("liveness", &keys::LIVENESS).map(|t| inner_check(&t, kind));
    let deep = inner("deep", &keys::DEEP).map(|t| Deep {
        check: inner_check(&t, kind),
        interval: t.duration("interval", INTERVAL, Duration::from_secs(30)),
    });
    let asks = startup.is_some() || liveness.is_some() || deep.is_some();
    unused(table, kind, kind == ProbeKind::Http || asks, kind == ProbeKind::Http || deep.is_some());
    Health {
        readiness,
        startup,
        liveness,
        deep,
        pace: pace(table),
        timeout,
        expect: expect(table, timeout),
        host: table.value("host").and_then(|v| v.read(HOST_FORM, |text| syntax::authority(text).ok_or(HOST_FORM))),
        headers: headers(table),
        port: table.value("port").and_then(|v| v.integer(&(1..=65_535), "")).and_then(|port| port.try_into().ok()),
        tls: tls(table),
    }
}

const HOST_FORM: &str = "the host to send, such as \"web.internal\" or \"web.internal:8080\"";

/// What is written, else what the path says.
fn kind(table: &Table<'_>) -> ProbeKind {
    let kind = table.word("kind", &words::PROBE_KIND);
    if let Some(value) = table.value("kind").filter(|_| kind == Some(ProbeKind::Http) && !table.has("path")) {
        value.wrong("has no path to ask for; write one, such as path = \"/ready\"");
    }
    kind.unwrap_or(if table.has("path") { ProbeKind::Http } else { ProbeKind::Tcp })
}

/// What is asked without a path.
fn whole(kind: ProbeKind) -> Check {
    match kind {
        ProbeKind::Http => Check::Http("/".to_owned()),
        ProbeKind::Tcp => Check::Tcp,
        ProbeKind::Grpc => Check::Grpc(String::new()),
    }
}

/// The probe of a table within `health`: over HTTP where readiness only connects.
fn inner_check(table: &Table<'_>, kind: ProbeKind) -> Check {
    if kind == ProbeKind::Grpc {
        return table.value("path").and_then(|value| check(value, kind)).unwrap_or_else(|| whole(kind));
    }
    let path = table.required("path", "the path to ask for, such as \"/health\"");
    path.and_then(|value| check(value, ProbeKind::Http)).unwrap_or_else(|| whole(ProbeKind::Http))
}

fn check(value: Value<'_, '_>, kind: ProbeKind) -> Option<Check> {
    let visible = |text: &str| text.len() <= PATH_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    if kind == ProbeKind::Grpc {
        let name = |text: &str| if visible(text) && !text.is_empty() { Ok(text.to_owned()) } else { Err(SERVICE_FORM) };
        return value.read(SERVICE_FORM, name).map(Check::Grpc);
    }
    // What the HTTP client takes apart is only asked to be a path.
    let path = |text: &str| {
        let fits = text.starts_with('/') && visible(text) && !text.contains('#');
        if fits && text.parse::<hyper::Uri>().is_ok() { Ok(text.to_owned()) } else { Err(HTTP_PATH_FORM) }
    };
    value.read(HTTP_PATH_FORM, path).map(Check::Http)
}

/// Refuses keys that no probe would look at.
fn unused(table: &Table<'_>, kind: ProbeKind, requests: bool, bodies: bool) {
    let refuse = |keys: &[&str], why: &str| {
        keys.iter().filter_map(|key| table.value(key)).for_each(|value| value.wrong(why));
    };
    if kind == ProbeKind::Grpc {
        refuse(
            &["expect_status", "expect_body", "expect_json"],
            "has no use with kind = \"grpc\", which passes on SERVING",
        );
        return;
    }
    if !requests {
        refuse(&["expect_status", "host", "headers"], "has no use: without a path probes only connect");
    }
    if !bodies {
        refuse(&["expect_body", "expect_json"], "has no use: neither readiness nor deep asks for a path");
    }
}

fn pace(table: &Table<'_>) -> Pace {
    let default = Pace::default();
    let interval = table.duration("interval", INTERVAL, default.interval);
    let fast_interval = table.duration("fast_interval", INTERVAL, default.fast_interval.min(interval));
    if let Some(value) = table.value("fast_interval").filter(|_| fast_interval > interval) {
        value.refuse(format_args!("longer than interval ({})", units::show_duration(interval)));
    }
    let jitter = table.value("jitter").and_then(|v| v.read("a share such as \"10%\"", Weight::parse));
    Pace {
        interval,
        fast_interval,
        jitter: jitter.unwrap_or(default.jitter),
        rise: table.integer("rise", COUNT, default.rise),
        fall: table.integer("fall", COUNT, default.fall),
    }
}

fn expect(table: &Table<'_>, timeout: Duration) -> Expect {
    let default = Expect::default();
    let status = table.value("expect_status");
    let status = status.map(|v| v.list("a list such as [\"200-299\", \"401\"]", 1..=RANGES_MAX, status_range));
    let body = table.value("expect_body").and_then(|v| {
        v.read("a text", |text| match text.len() {
            0..=TEXT_MAX => Ok(text.to_owned()),
            _ => Err(format!("a text of at most {TEXT_MAX} bytes")),
        })
    });
    let max_latency = table.duration("max_latency", Duration::ZERO..=*TIMEOUT.end(), default.max_latency);
    if let Some(value) = table.value("max_latency").filter(|_| max_latency > timeout) {
        value.refuse(format_args!("longer than timeout ({})", units::show_duration(timeout)));
    }
    Expect {
        status: status.unwrap_or(default.status),
        body: body.unwrap_or_default(),
        json: assertions(table),
        max_latency,
    }
}

fn status_range(text: &str) -> Result<(u16, u16), &'static str> {
    let code = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|code| digits && (200..=599).contains(code)).ok_or(STATUS_FORM)
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (code(low)?, code(high)?) {
        (low, high) if low <= high => Ok((low, high)),
        _ => Err(STATUS_FORM),
    }
}

fn assertions(table: &Table<'_>) -> Vec<Assertion> {
    let entries = table.entries("expect_json", JSON_FORM);
    if let Some(value) = table.value("expect_json").filter(|_| entries.len() > ASSERTIONS_MAX) {
        value.wrong(format_args!("{} assertions; at most {ASSERTIONS_MAX} are allowed", entries.len()));
    }
    let assertion = |(name, value): (&str, Value<'_, '_>)| {
        let path = Path::parse(name).map_err(|form| value.wrong(format_args!("{name:?}: {form}"))).ok();
        let scalar = value.scalar();
        if scalar.is_none() {
            value.wrong(format_args!("{name:?} has to be {SCALAR_FORM}"));
        }
        Some(Assertion { path: path?, value: scalar? })
    };
    entries.into_iter().filter_map(assertion).collect()
}

fn headers(table: &Table<'_>) -> Vec<ProbeHeader> {
    let Some(tables) = table.tables("headers", &keys::HEALTH_HEADER) else { return Vec::new() };
    if let Some(value) = table.value("headers").filter(|_| tables.len() > HEADERS_MAX) {
        value.wrong(format_args!("{} fields; at most {HEADERS_MAX} are allowed", tables.len()));
    }
    tables.iter().filter_map(header).collect()
}

fn header(table: &Table<'_>) -> Option<ProbeHeader> {
    let name = table.required("name", "the name of the field");
    let name = name.and_then(|v| {
        v.read(syntax::HEADER_FORM, |text| match syntax::header_name(text) {
            Ok(name) if name == "host" => Err("write it as host = \"...\" beside headers"),
            Ok(name) if OWN_HEADERS.contains(&name.as_str()) => Err("the probe sets this field itself"),
            other => other,
        })
    });
    let value = match (table.value("value"), table.value("env")) {
        (Some(value), None) => written(value).map(ProbeValue::Written),
        (None, Some(env)) => from_env(env).map(ProbeValue::Env),
        (Some(_), Some(env)) => {
            env.wrong("contradicts value; write one of them");
            None
        }
        (None, None) => {
            table.wrong("has no value; write value = \"...\", or env = \"NAME\" for a value from the environment");
            None
        }
    };
    Some(ProbeHeader { name: name?, value: value? })
}

fn written(value: Value<'_, '_>) -> Option<String> {
    let text = value.hidden_text("a text")?;
    if is_field_value(text) {
        return Some(text.to_owned());
    }
    // It may be a credential.
    value.wrong(format_args!("not {FIELD_FORM} (what is written is not shown)"));
    None
}

fn from_env(value: Value<'_, '_>) -> Option<Secret> {
    let (name, text) = policy::variable(value)?;
    if is_field_value(&text) {
        return Some(Secret(Arc::from(text.into_bytes()), Arc::from(name)));
    }
    value.refuse(format_args!("what is in this environment variable is not {FIELD_FORM}"));
    None
}

const FIELD_FORM: &str = "visible ASCII and spaces within, at most 4096 bytes";

fn is_field_value(text: &str) -> bool {
    let inner = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    inner && text.len() <= TEXT_MAX && text.trim_matches(' ').len() == text.len()
}

/// `false`, or a table.
fn tls(table: &Table<'_>) -> ProbeTls {
    let Some(value) = table.value("tls") else { return ProbeTls::Upstream };
    match value.as_boolean() {
        Some(false) => ProbeTls::Off,
        Some(true) => {
            value.refuse("false, or a table as in upstream.tls; leave it out to probe as upstream.tls says");
            ProbeTls::Upstream
        }
        None => {
            let tls = value.table(&keys::HEALTH_TLS).and_then(|table| services::upstream_tls(&table));
            tls.map_or(ProbeTls::Upstream, ProbeTls::Own)
        }
    }
}
