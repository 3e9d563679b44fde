//! `[[listeners]]`: where clients connect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::file::Table;
use super::super::settings::{
    Admin, CertificateFiles, Http2, Limits, ListenAddress, Listener, ListenerTls, Underscores,
};
use super::super::{keys, units, words};
use super::{is_any_port, listen_address, pem, refuse_repeated, syntax};
use crate::core::id::Name;

/// Most listeners, certificates of one listener, and networks in a list.
const LISTENERS_MAX: usize = 256;
const CERTIFICATES_MAX: usize = 1_000;
pub(super) const NETWORKS_MAX: usize = 1_000;

const NAME_DEFAULT: &str = "public";
const ADDRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// Bounds of the limits.
const MOMENT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(600);
const SILENCE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3_600);
const AGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3_600);
const REQUESTS: RangeInclusive<u32> = 1..=1_000_000;
/// Streams have half of 31 bits to be numbered with.
const HTTP2_REQUESTS: RangeInclusive<u32> = 1..=1_000_000_000;
const CONNECTIONS: RangeInclusive<u32> = 1..=1_000_000;
const HEAD: RangeInclusive<u64> = 1_024..=1 << 20;
const LINE: RangeInclusive<u64> = 256..=64 * 1_024;
const FIELDS: RangeInclusive<u32> = 1..=1_000;
const BODY: RangeInclusive<u64> = 0..=1 << 40;
const STREAMS: RangeInclusive<u32> = 1..=10_000;
const STREAM_WINDOW: RangeInclusive<u64> = 1_024..=16 << 20;
/// No less than every connection begins with (RFC 9113 section 6.9.2).
const CONNECTION_WINDOW: RangeInclusive<u64> = 65_535..=64 << 20;
const RESETS: RangeInclusive<u32> = 1..=100_000;

/// All listeners; none of them is where `admin` listens.
pub(super) fn listeners(root: &Table<'_>, admin: &Admin) -> Vec<Listener> {
    let Some(value) = root.value("listeners") else { return default_listener() };
    let Some(tables) = root.tables("listeners", &keys::LISTENER) else { return Vec::new() };
    if tables.is_empty() {
        value.wrong("an empty list; leave it out for one listener on 0.0.0.0:8080");
    }
    if tables.len() > LISTENERS_MAX {
        value.wrong(format_args!("{} listeners; at most {LISTENERS_MAX} are allowed", tables.len()));
    }
    let listeners: Vec<Listener> = tables.iter().filter_map(listener).collect();
    if listeners.len() == tables.len() {
        let both = || listeners.iter().zip(&tables);
        refuse_repeated(both().map(|(l, t)| (&l.name, t)), "name", "each listener has a name of its own");
        refuse_repeated(both().map(|(l, t)| (&l.listen, t)), "listen", "each listener has an address of its own");
        let own = std::iter::once((&admin.listen, "the address of the admin API"));
        let own = own.chain(admin.probe_listen.iter().map(|address| (address, "admin.probe_listen")));
        for (taken, what) in own.filter(|(address, _)| !is_any_port(address)) {
            for (_, table) in both().filter(|(l, _)| l.listen == *taken) {
                table.wrong(format_args!("listens on {taken}, which is {what}"));
            }
        }
    }
    listeners
}

fn default_listener() -> Vec<Listener> {
    let listener = |name| Listener {
        name,
        listen: ListenAddress::Tcp(ADDRESS_DEFAULT),
        tls: None,
        trusted_proxies: Vec::new(),
        underscores: Underscores::Drop,
        limits: Limits::default(),
    };
    Name::new(NAME_DEFAULT).map(listener).into_iter().collect()
}

fn listener(table: &Table<'_>) -> Option<Listener> {
    let networks = table
        .value("trusted_proxies")
        .map(|value| value.list("a list of networks such as [\"10.0.0.0/8\"]", 0..=NETWORKS_MAX, syntax::network));
    let tls = table.table("tls", &keys::LISTENER_TLS);
    let limits = table.table("limits", &keys::LIMITS);
    let name = match table.value("name") {
        None => Name::new(NAME_DEFAULT).ok(),
        Some(value) => value.read("a name such as \"public\"", Name::new),
    };
    let default = ListenAddress::Tcp(ADDRESS_DEFAULT);
    let listen = if table.has("listen") { listen_address(table, "listen") } else { Some(default) };
    let underscores = table.word("underscores", &words::UNDERSCORES);
    Some(Listener {
        tls: tls.map(|t| ListenerTls { certificates: certificates(&t) }),
        trusted_proxies: networks.unwrap_or_default(),
        underscores: underscores.unwrap_or(Underscores::Drop),
        limits: limits.map_or_else(Limits::default, |t| read_limits(&t)),
        name: name?,
        listen: listen?,
    })
}

fn certificates(tls: &Table<'_>) -> Vec<CertificateFiles> {
    const FORM: &str = "a list such as [{ cert = \"site.pem\", key = \"site.key\" }]";
    let Some(value) = tls.required("certificates", FORM) else { return Vec::new() };
    let Some(tables) = tls.tables("certificates", &keys::CERTIFICATE) else { return Vec::new() };
    if tables.is_empty() {
        value.wrong(format_args!("an empty list; {FORM}"));
    }
    if tables.len() > CERTIFICATES_MAX {
        value.wrong(format_args!("{} certificates; at most {CERTIFICATES_MAX} are allowed", tables.len()));
    }
    let files: Vec<_> = tables.iter().filter_map(certificate).collect();
    if files.len() == tables.len() {
        let paths = files.iter().zip(&tables).map(|(files, table)| (&files.cert.path, table));
        refuse_repeated(paths, "cert", "listed twice");
    }
    files
}

fn certificate(table: &Table<'_>) -> Option<CertificateFiles> {
    let cert = table.required("cert", "the file with the certificate chain in PEM, leaf first");
    let key = table.required("key", "the file with the private key in PEM");
    let (cert, key) = pem::pair(cert, key)?;
    Some(CertificateFiles { cert, key })
}

fn read_limits(table: &Table<'_>) -> Limits {
    let default = Limits::default();
    let size = |key: &str, range, default: usize| {
        table.size(key, range).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
    };
    let fields = u32::try_from(default.max_fields).unwrap_or(u32::MAX);
    let limits = Limits {
        head_timeout: table.duration("head_timeout", MOMENT, default.head_timeout),
        keepalive_idle: table.duration("keepalive_idle", SILENCE, default.keepalive_idle),
        max_requests: table.integer("max_requests", REQUESTS, default.max_requests),
        max_age: table.duration("max_age", AGE, default.max_age),
        body_idle: table.duration("body_idle", SILENCE, default.body_idle),
        tls_handshake: table.duration("tls_handshake", MOMENT, default.tls_handshake),
        max_connections: table.integer("max_connections", CONNECTIONS, default.max_connections),
        max_head: size("max_head", HEAD, default.max_head),
        max_fields: table.integer("max_fields", FIELDS, fields) as usize,
        max_line: size("max_line", LINE, default.max_line),
        max_body: table.size("max_body", BODY),
        websocket_idle: table.duration("websocket_idle", SILENCE, default.websocket_idle),
        grpc_idle: table.duration("grpc_idle", SILENCE, default.grpc_idle),
        h2: table.table("h2", &keys::HTTP2).map_or(default.h2, |h2| read_http2(&h2)),
    };
    if limits.max_line > limits.max_head {
        let at = table.value("max_line").or_else(|| table.value("max_head"));
        let [line, head] = [limits.max_line, limits.max_head].map(|bytes| units::show_size(bytes as u64));
        if let Some(value) = at {
            value.wrong(format_args!("max_line (\"{line}\") is part of max_head (\"{head}\") and cannot be larger"));
        }
    }
    limits
}

fn read_http2(table: &Table<'_>) -> Http2 {
    let default = Http2::default();
    let size = |key: &str, range, default: u32| {
        table.size(key, range).and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(default)
    };
    let max_streams = table.integer("max_streams", STREAMS, default.max_streams);
    let stream_window = size("stream_window", STREAM_WINDOW, default.stream_window);
    let all_streams = u64::from(max_streams) * u64::from(stream_window);
    let all_streams = all_streams.clamp(*CONNECTION_WINDOW.start(), *CONNECTION_WINDOW.end());
    let h2 = Http2 {
        enabled: table.boolean("enabled", default.enabled),
        max_streams,
        stream_window,
        connection_window: size("connection_window", CONNECTION_WINDOW, u32::try_from(all_streams).unwrap_or(u32::MAX)),
        max_header_list: size("max_header_list", HEAD, default.max_header_list),
        max_fields: table.integer("max_fields", FIELDS, default.max_fields),
        max_requests: table.integer("max_requests", HTTP2_REQUESTS, default.max_requests),
        max_pending_resets: table.integer("max_pending_resets", RESETS, default.max_pending_resets),
        max_error_resets: table.integer("max_error_resets", RESETS, default.max_error_resets),
    };
    if h2.stream_window > h2.connection_window {
        let at = table.value("stream_window").or_else(|| table.value("connection_window"));
        let [stream, connection] = [h2.stream_window, h2.connection_window].map(|bytes| units::show_size(bytes.into()));
        if let Some(value) = at {
            value.wrong(format_args!(
                "stream_window (\"{stream}\") is part of connection_window (\"{connection}\") and cannot be larger"
            ));
        }
    }
    h2
}
