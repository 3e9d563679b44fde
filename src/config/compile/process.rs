//! The sections about the process: `[state]`, `[runtime]`, `[log]`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::super::file::Table;
use super::super::settings::{AccessLog, Dns, Log, LogFormat, LogLevel, Runtime, State};
use super::super::{keys, units, words};
use crate::core::weight::Weight;

/// Where state is kept unless the file or the environment says otherwise.
const STATE_DIR_DEFAULT: &str = "./tidegate-state";
/// Says where state is kept and wins over the file (systemd sets it).
const STATE_DIR_VARIABLE: &str = "STATE_DIRECTORY";
const DIR_FORM: &str = "a folder such as \"./tidegate-state\"";
/// Number of workers.
const WORKERS: RangeInclusive<u32> = 1..=1_024;
/// Time allowed for stopping.
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(24 * 3_600);
/// DNS servers; bounds of the wait for one, and of how long answers are used.
const SERVERS_MAX: usize = 8;
const DNS_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
const TTL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3_600);
const SERVER_FORM: &str =
    "a DNS server is an IP address, such as \"10.0.0.53\", or IP:port, such as \"127.0.0.1:5353\"";
/// What a share looks like.
const SHARE_FORM: &str = "a weight is a share such as \"5%\" or \"0.01%\"";

pub(super) fn state(root: &Table<'_>) -> State {
    let table = root.table("state", &keys::STATE);
    let written = table.as_ref().and_then(|t| t.value("dir")).and_then(|value| {
        let folder =
            |text: &'_ str| if text.is_empty() || text.contains('\0') { Err(DIR_FORM) } else { Ok(text.to_owned()) };
        value.read(DIR_FORM, folder)
    });
    // systemd separates several by colons; the first is ours.
    let variable = (root.context().env)(STATE_DIR_VARIABLE);
    let variable = variable.as_deref().and_then(|dirs| dirs.split(':').next()).filter(|dir| !dir.is_empty());
    let dir = match variable {
        Some(dir) => PathBuf::from(dir),
        None => root.context().resolve(written.as_deref().unwrap_or(STATE_DIR_DEFAULT)),
    };
    State { dir }
}

pub(super) fn runtime(root: &Table<'_>) -> Runtime {
    let defaults = Runtime {
        workers: available_workers(),
        drain_timeout: Duration::from_secs(30),
        accept_grace: Duration::ZERO,
        idle_grace: Duration::from_secs(5),
        dns: Dns::default(),
    };
    let Some(table) = root.table("runtime", &keys::RUNTIME) else { return defaults };
    let runtime = Runtime {
        workers: workers(&table).unwrap_or(defaults.workers),
        drain_timeout: table.duration("drain_timeout", GRACE, defaults.drain_timeout),
        accept_grace: table.duration("accept_grace", GRACE, defaults.accept_grace),
        idle_grace: table.duration("idle_grace", GRACE, defaults.idle_grace),
        dns: table.table("dns", &keys::DNS).map_or(defaults.dns, |table| dns(&table)),
    };
    if let Some(value) = table.value("accept_grace").filter(|_| runtime.accept_grace > runtime.drain_timeout) {
        value.refuse(format_args!(
            "longer than drain_timeout (\"{}\"), at which the process ends",
            units::show_duration(runtime.drain_timeout)
        ));
    }
    runtime
}

fn dns(table: &Table<'_>) -> Dns {
    let defaults = Dns::default();
    let server = |text: &str| match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        // The port of the DNS (RFC 1035 section 4.2).
        _ => text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).map_err(|_| SERVER_FORM),
    };
    let dns = Dns {
        servers: table.value("servers").map(|list| list.list(SERVER_FORM, 1..=SERVERS_MAX, server)).unwrap_or_default(),
        timeout: table.duration("timeout", DNS_TIMEOUT, defaults.timeout),
        min_ttl: table.duration("min_ttl", TTL, defaults.min_ttl),
        max_ttl: table.duration("max_ttl", TTL, defaults.max_ttl),
    };
    if let Some(value) = table.value("min_ttl").or(table.value("max_ttl")).filter(|_| dns.min_ttl > dns.max_ttl) {
        value.refuse(format_args!(
            "min_ttl (\"{}\") is longer than max_ttl (\"{}\")",
            units::show_duration(dns.min_ttl),
            units::show_duration(dns.max_ttl)
        ));
    }
    dns
}

fn workers(table: &Table<'_>) -> Option<usize> {
    let value = table.value("workers")?;
    if value.is_text("auto") {
        return Some(available_workers());
    }
    value.integer(&WORKERS, "\"auto\" or ").and_then(|n| usize::try_from(n).ok())
}

fn available_workers() -> usize {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    count.min(usize::try_from(*WORKERS.end()).unwrap_or(count))
}

pub(super) fn log(root: &Table<'_>) -> Log {
    let table = root.table("log", &keys::LOG);
    let access = table.as_ref().and_then(|t| t.table("access", &keys::ACCESS));
    Log {
        level: table.as_ref().and_then(|t| t.word("level", &words::LEVEL)).unwrap_or(LogLevel::Info),
        format: table.as_ref().and_then(|t| t.word("format", &words::FORMAT)),
        access: access_log(access.as_ref()),
    }
}

fn access_log(table: Option<&Table<'_>>) -> AccessLog {
    let defaults = AccessLog { enabled: false, path: None, format: LogFormat::Json, sample: Weight::FULL };
    let Some(table) = table else { return defaults };
    let file = |text: &str| match text {
        "" => Err("a file, or \"-\" for standard output"),
        "-" => Ok(None),
        path => Ok(Some(table.context().resolve(path))),
    };
    let path = table.value("path").and_then(|v| v.read("a file, or \"-\" for standard output", file)).flatten();
    let sample = table.value("sample").and_then(|v| v.read(SHARE_FORM, Weight::parse));
    AccessLog {
        enabled: table.boolean("enabled", defaults.enabled),
        path,
        format: table.word("format", &words::FORMAT).unwrap_or(defaults.format),
        sample: sample.unwrap_or(defaults.sample),
    }
}
