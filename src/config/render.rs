//! Settings as a file: every default written out. Secrets and PEM contents are left out; their origins are named.

mod health;
mod outlier;
mod retry;
mod rollout;

use std::fmt::{Display, Write};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::file::join;
use super::settings::{
    AccessLog, Admin, Dns, Http2, Limits, Listener, ListenerTls, Log, Runtime, Settings, Token, TokenSource,
};
use super::units::{show_duration, show_size};
use super::words;
use crate::core::endpoint::{Declared, Pool, WEIGHT_MIN};
use crate::core::id::Name;
use crate::core::route::{FieldMatch, HostMatch, PathMatch, Route, Target, ValueMatch};
use crate::core::service::{Affinity, Force, HostMode, KeySource, Service, Upstream, UpstreamTls};

/// The effective settings as TOML that compiles to the same settings again, given the same files and environment.
#[must_use]
pub fn render(settings: &Settings) -> String {
    let mut out = Out(String::new());
    admin(&mut out, &settings.admin);
    out.header("[state]");
    out.path("dir", &settings.state.dir);
    runtime(&mut out, &settings.runtime);
    log(&mut out, &settings.log);
    for each in &settings.listeners {
        listener(&mut out, each);
    }
    for each in &settings.routes {
        route(&mut out, each);
    }
    for each in &settings.services {
        service(&mut out, each);
    }
    out.0.trim_start().to_owned()
}

/// TOML text under construction.
struct Out(String);

fn admin(out: &mut Out, admin: &Admin) {
    out.header("[admin]");
    out.text("listen", &admin.listen);
    if let Some(address) = &admin.probe_listen {
        out.text("probe_listen", address);
    }
    if !admin.tokens.is_empty() {
        let token = |token: &Token| {
            let source = match &token.source {
                TokenSource::Env(name) => format!("env = {}", quote(name)),
                TokenSource::File(path) => format!("file = {}", quote(path.display())),
            };
            format!("{{ name = {}, role = {}, {source} }}", quote(&token.name), quote(token.role.as_str()))
        };
        out.raw("tokens", list(admin.tokens.iter().map(token)));
    }
    out.raw("require_reason", admin.require_reason);
}

fn runtime(out: &mut Out, runtime: &Runtime) {
    out.header("[runtime]");
    out.raw("workers", runtime.workers);
    out.duration("drain_timeout", runtime.drain_timeout);
    out.duration("accept_grace", runtime.accept_grace);
    out.duration("idle_grace", runtime.idle_grace);
    let Dns { servers, timeout, min_ttl, max_ttl } = &runtime.dns;
    out.header("[runtime.dns]");
    if !servers.is_empty() {
        out.raw("servers", list(servers.iter().map(quote)));
    }
    out.duration("timeout", *timeout);
    out.duration("min_ttl", *min_ttl);
    out.duration("max_ttl", *max_ttl);
}

fn log(out: &mut Out, log: &Log) {
    out.header("[log]");
    out.text("level", log.level.as_str());
    if let Some(format) = log.format {
        out.text("format", format.as_str());
    }
    let AccessLog { enabled, path, format, sample } = &log.access;
    out.header("[log.access]");
    out.raw("enabled", enabled);
    match path {
        Some(path) => out.path("path", path),
        None => out.text("path", "-"),
    }
    out.text("format", format.as_str());
    out.text("sample", sample);
}

fn listener(out: &mut Out, listener: &Listener) {
    out.header("[[listeners]]");
    out.text("name", &listener.name);
    out.text("listen", &listener.listen);
    if let Some(ListenerTls { certificates }) = &listener.tls {
        let pair = |files: &super::settings::CertificateFiles| {
            format!("{{ cert = {}, key = {} }}", quote(&files.cert.path), quote(&files.key.path))
        };
        out.raw("tls", format_args!("{{ certificates = {} }}", list(certificates.iter().map(pair))));
    }
    out.raw("trusted_proxies", networks(&listener.trusted_proxies));
    out.text("underscores", words::UNDERSCORES.word(listener.underscores));
    limits(out, &listener.limits);
}

fn limits(out: &mut Out, limits: &Limits) {
    out.header("[listeners.limits]");
    out.duration("head_timeout", limits.head_timeout);
    out.duration("keepalive_idle", limits.keepalive_idle);
    out.raw("max_requests", limits.max_requests);
    out.duration("max_age", limits.max_age);
    out.duration("body_idle", limits.body_idle);
    out.duration("tls_handshake", limits.tls_handshake);
    out.raw("max_connections", limits.max_connections);
    out.text("max_head", show_size(limits.max_head as u64));
    out.raw("max_fields", limits.max_fields);
    out.text("max_line", show_size(limits.max_line as u64));
    if let Some(bytes) = limits.max_body {
        out.text("max_body", show_size(bytes));
    }
    out.duration("websocket_idle", limits.websocket_idle);
    out.duration("grpc_idle", limits.grpc_idle);
    let Http2 { enabled, max_streams, max_fields, max_pending_resets, max_error_resets, .. } = limits.h2;
    out.header("[listeners.limits.h2]");
    out.raw("enabled", enabled);
    out.raw("max_streams", max_streams);
    out.text("stream_window", show_size(limits.h2.stream_window.into()));
    out.text("connection_window", show_size(limits.h2.connection_window.into()));
    out.text("max_header_list", show_size(limits.h2.max_header_list.into()));
    out.raw("max_fields", max_fields);
    out.raw("max_requests", limits.h2.max_requests);
    out.raw("max_pending_resets", max_pending_resets);
    out.raw("max_error_resets", max_error_resets);
}

fn route(out: &mut Out, route: &Route<Name>) {
    out.header("[[routes]]");
    match &route.matcher.host {
        HostMatch::Exact(host) => out.text("host", host),
        HostMatch::Wildcard(below) => out.text("host", format_args!("*{below}")),
        HostMatch::Any => {}
    }
    match &route.matcher.path {
        PathMatch::Exact(path) => out.text("path", String::from_utf8_lossy(path)),
        PathMatch::Prefix(path) => out.text("path_prefix", String::from_utf8_lossy(path)),
        PathMatch::Regex(regex) => out.text("path_regex", regex.as_str()),
    }
    if !route.matcher.methods.is_empty() {
        out.raw("methods", list(route.matcher.methods.iter().map(quote)));
    }
    let matcher = &route.matcher;
    for (key, predicates) in [("headers", &matcher.headers), ("query", &matcher.query), ("cookies", &matcher.cookies)] {
        if !predicates.is_empty() {
            out.raw(key, list(predicates.iter().map(predicate)));
        }
    }
    match &route.target {
        Target::Service(name) => out.text("service", name),
        Target::Split { split, key } => {
            let part =
                |(weight, name): &(_, Name)| format!("{{ service = {}, weight = {} }}", quote(name), quote(weight));
            out.raw("services", list(split.parts().iter().map(part)));
            if !key.is_empty() {
                out.raw("affinity", format_args!("{{ key = {} }}", keys(key)));
            }
        }
    }
    if let Some(timeout) = route.timeout {
        out.duration("timeout", timeout);
    }
}

fn predicate(predicate: &FieldMatch) -> String {
    let condition = match &predicate.value {
        ValueMatch::Exact(value) => format!("exact = {}", quote(String::from_utf8_lossy(value))),
        ValueMatch::Prefix(value) => format!("prefix = {}", quote(String::from_utf8_lossy(value))),
        ValueMatch::Regex(regex) => format!("regex = {}", quote(regex.as_str())),
        ValueMatch::Present(present) => format!("present = {present}"),
    };
    format!("{{ name = {}, {condition} }}", quote(&predicate.name))
}

fn service(out: &mut Out, service: &Service) {
    let path = join("services", service.name.as_str());
    for (variant, pool) in [("stable", Some(&service.stable)), ("candidate", service.candidate.as_ref())] {
        let Some(pool) = pool else { continue };
        // What names stand for at the moment is not of the file.
        let Pool { version, digest, declared, endpoints: _ } = &**pool;
        out.header(&format!("[{path}.{variant}]"));
        out.text("version", version);
        if let Some(digest) = digest {
            out.text("digest", digest);
        }
        out.raw("endpoints", list(declared.iter().map(endpoint)));
    }
    upstream(out, &path, &service.upstream);
    health::health(out, &path, &service.health);
    outlier::outlier(out, &path, &service.outlier);
    if let Some(each) = &service.force {
        force(out, &path, each);
    }
    affinity(out, &path, &service.affinity);
    rollout::rollout(out, &path, &service.rollout);
    rollout::gate(out, &path, &service.rollout);
}

fn endpoint(declared: &Declared) -> String {
    let Declared { place, weight } = declared;
    match *weight {
        WEIGHT_MIN => quote(place),
        _ => format!("{{ address = {}, weight = {weight} }}", quote(place)),
    }
}

fn upstream(out: &mut Out, path: &str, upstream: &Upstream) {
    out.header(&format!("[{path}.upstream]"));
    out.text("protocol", words::PROTOCOL.word(upstream.protocol));
    match &upstream.host {
        HostMode::Preserve => out.text("host", "preserve"),
        HostMode::Endpoint => out.text("host", "endpoint"),
        HostMode::Name(name) => out.text("host", name),
    }
    out.duration("connect_timeout", upstream.connect_timeout);
    out.duration("response_timeout", upstream.response_timeout);
    out.duration("body_idle", upstream.body_idle);
    out.duration("keepalive_idle", upstream.keepalive_idle);
    retry::limits(out, &upstream.limits);
    out.text("balance", words::BALANCE.word(upstream.balance));
    if !upstream.hash_key.is_empty() {
        out.raw("hash_key", keys(&upstream.hash_key));
    }
    out.duration("slow_start", upstream.slow_start);
    out.duration("drain_timeout", upstream.drain_timeout);
    out.duration("websocket_drain", upstream.websocket_drain);
    retry::rules(out, &format!("{path}.upstream.retry"), &upstream.retry);
    if let Some(each) = &upstream.tls {
        out.header(&format!("[{path}.upstream.tls]"));
        tls(out, each);
    }
}

fn tls(out: &mut Out, tls: &UpstreamTls) {
    let UpstreamTls { ca, client, sni, insecure } = tls;
    if let Some(ca) = ca {
        out.text("ca", &ca.path);
    }
    if let Some((cert, key)) = client {
        out.text("cert", &cert.path);
        out.text("key", &key.path);
    }
    out.text("sni", sni);
    out.raw("insecure", insecure);
}

fn force(out: &mut Out, path: &str, force: &Force) {
    out.header(&format!("[{path}.force]"));
    if let Some(header) = &force.header {
        out.text("header", header);
    }
    if let Some(cookie) = &force.cookie {
        out.text("cookie", cookie);
    }
    if !force.allow_from.is_empty() {
        out.raw("allow_from", networks(&force.allow_from));
    }
    if let Some(secret) = &force.secret {
        out.text("secret_env", &secret.1);
    }
    out.raw("keep_candidate", force.keep_candidate);
}

fn affinity(out: &mut Out, path: &str, affinity: &Affinity) {
    out.header(&format!("[{path}.affinity]"));
    out.raw("key", keys(&affinity.key));
    let cookie = &affinity.cookie;
    out.raw(
        "cookie",
        format_args!(
            "{{ name = {}, max_age = {}, same_site = {} }}",
            quote(&cookie.name),
            quote(show_duration(cookie.max_age)),
            quote(words::SAME_SITE.word(cookie.same_site))
        ),
    );
    out.text("salt", words::SALT.word(affinity.salt));
    out.text("on_increase", words::ON_INCREASE.word(affinity.on_increase));
    if let Some(secret) = &affinity.secret {
        out.text("secret_file", &secret.1);
    }
}

fn keys(keys: &[KeySource]) -> String {
    list(keys.iter().map(|key| match key {
        KeySource::OwnCookie => quote("cookie"),
        KeySource::ClientIp => quote("client_ip"),
        KeySource::Cookie(name) => quote(format_args!("cookie:{name}")),
        KeySource::Header(name) => quote(format_args!("header:{name}")),
        KeySource::Query(name) => quote(format_args!("query:{name}")),
    }))
}

fn networks(networks: &[IpNet]) -> String {
    list(networks.iter().map(quote))
}

fn list(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(", "))
}

/// A TOML string.
fn quote(text: impl Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

// === impl Out ===

impl Out {
    fn header(&mut self, header: &str) {
        self.line(format_args!("\n{header}"));
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn text(&mut self, key: &str, value: impl Display) {
        self.raw(key, quote(value));
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.text(key, show_duration(value));
    }

    fn path(&mut self, key: &str, path: &Path) {
        self.text(key, path.display());
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}
