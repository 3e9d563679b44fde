//! `[services.*.health]` as text: a default kind is left out, everything else is written.

use super::super::words::{self, ProbeKind};
use super::{Out, list, quote, show_duration, tls};
use crate::core::health::json::Scalar;
use crate::core::health::judge::range;
use crate::core::health::wanted::{Check, Health, ProbeHeader, ProbeTls, ProbeValue};

pub(super) fn health(out: &mut Out, path: &str, health: &Health) {
    out.header(&format!("[{path}.health]"));
    let (kind, asked) = kind(&health.readiness);
    out.text("kind", words::PROBE_KIND.word(kind));
    if let Some(asked) = asked {
        out.text("path", asked);
    }
    let pace = &health.pace;
    out.duration("interval", pace.interval);
    out.duration("timeout", health.timeout);
    out.raw("rise", pace.rise);
    out.raw("fall", pace.fall);
    out.text("jitter", pace.jitter);
    out.duration("fast_interval", pace.fast_interval);
    expect(out, health, kind);
    if let Some(host) = &health.host {
        out.text("host", host);
    }
    if !health.headers.is_empty() {
        out.raw("headers", list(health.headers.iter().map(header)));
    }
    if let Some(port) = health.port {
        out.raw("port", port);
    }
    probes(out, health);
    match &health.tls {
        ProbeTls::Upstream => {}
        ProbeTls::Off => out.raw("tls", false),
        ProbeTls::Own(own) => {
            out.header(&format!("[{path}.health.tls]"));
            tls(out, own);
        }
    }
}

fn kind(check: &Check) -> (ProbeKind, Option<&str>) {
    match check {
        Check::Tcp => (ProbeKind::Tcp, None),
        Check::Http(path) => (ProbeKind::Http, Some(path)),
        Check::Grpc(service) => (ProbeKind::Grpc, Some(service.as_str()).filter(|s| !s.is_empty())),
    }
}

/// What would have no use is left out: it is refused where it is written.
fn expect(out: &mut Out, health: &Health, kind: ProbeKind) {
    let expect = &health.expect;
    let asks = health.startup.is_some() || health.liveness.is_some() || health.deep.is_some();
    if kind == ProbeKind::Http || (kind == ProbeKind::Tcp && asks) {
        out.raw("expect_status", list(expect.status.iter().map(|r| quote(range(r)))));
    }
    if !expect.body.is_empty() {
        out.text("expect_body", &expect.body);
    }
    if !expect.json.is_empty() {
        let one = |a: &crate::core::health::json::Assertion| {
            let value = match &a.value {
                Scalar::Text(text) => quote(text),
                other => other.to_string(),
            };
            format!("{} = {value}", quote(&a.path))
        };
        let all: Vec<_> = expect.json.iter().map(one).collect();
        out.raw("expect_json", format_args!("{{ {} }}", all.join(", ")));
    }
    out.duration("max_latency", expect.max_latency);
}

fn header(header: &ProbeHeader) -> String {
    let name = quote(&header.name);
    match &header.value {
        ProbeValue::Written(value) => format!("{{ name = {name}, value = {} }}", quote(value)),
        ProbeValue::Env(secret) => format!("{{ name = {name}, env = {} }}", quote(&secret.1)),
    }
}

fn probes(out: &mut Out, health: &Health) {
    let path = |check: &Check| kind(check).1.map(|path| format!("path = {}", quote(path)));
    let table = |parts: [Option<String>; 2]| {
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
    };
    let time = |key: &str, value| Some(format!("{key} = {}", quote(show_duration(value))));
    if let Some(startup) = &health.startup {
        out.raw("startup", table([path(&startup.check), time("timeout", startup.timeout)]));
    }
    if let Some(liveness) = &health.liveness {
        out.raw("liveness", table([path(liveness), None]));
    }
    if let Some(deep) = &health.deep {
        out.raw("deep", table([path(&deep.check), time("interval", deep.interval)]));
    }
}
