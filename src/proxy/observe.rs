//! What is written down of a request once it is over.

use crate::clock;
use crate::core::id::{Name, Version};
use crate::telemetry::access::{AccessLog, Failed, Record};

use super::exchange::{Exchange, Observation};
use super::facts::ConnFacts;
use super::forward::Volume;
use super::headers::{Known, RequestHead};
use super::respond::Reply;

/// A request that was refused before anything was decided about it.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The answer.
    pub reply: Reply,
    /// Who got it.
    pub facts: &'a ConnFacts,
    /// The method; empty, as the others, where nothing is known of it.
    pub method: &'a [u8],
    /// Host and port.
    pub host: &'a [u8],
    /// The path.
    pub path: &'a [u8],
    /// As in `HttpVersion::as_str`.
    pub protocol: &'static str,
}

// === impl Refused ===

impl<'a> Refused<'a> {
    /// A refusal of what was not read as a request.
    #[must_use]
    pub fn unread(reply: Reply, facts: &'a ConnFacts) -> Self {
        Self { reply, facts, method: b"", host: b"", path: b"", protocol: "" }
    }

    /// A refusal of a head, as far as that was read.
    #[must_use]
    pub fn of_head(reply: Reply, facts: &'a ConnFacts, head: &'a RequestHead) -> Self {
        let method = head.get(head.method);
        let protocol = if method.is_empty() { "" } else { head.version.as_str() };
        Self { reply, facts, method, host: head.get(head.authority), path: head.get(head.path), protocol }
    }
}

/// Logs a finished request if the log wants it. Returns how many lines were dropped.
pub fn log(
    access: &mut AccessLog,
    draw: impl FnOnce() -> u64,
    exchange: &Exchange,
    seen: &Observation,
    head: &RequestHead,
    facts: &ConnFacts,
    volume: Volume,
) -> u64 {
    if !access.wants(draw()) {
        return 0;
    }
    let failed: Vec<Failed<'_>> = exchange.failed_attempts().collect();
    let key = exchange.endpoint().map(|endpoint| &endpoint.key);
    access.write(&Record {
        request_id: head.known(Known::XRequestId).unwrap_or(exchange.request_id()),
        client: exchange.client(),
        method: head.get(head.method),
        host: head.get(head.authority),
        path: head.get(head.path),
        protocol: head.version.as_str(),
        status: seen.status,
        route: exchange.route_label().unwrap_or_default(),
        service: exchange.settings().map_or("", |service| Name::as_str(&service.name)),
        version: key.map_or("", |key| Version::as_str(&key.version)),
        variant: exchange.endpoint().map(|endpoint| endpoint.variant),
        assignment: exchange.service().map(|_| seen.assignment),
        endpoint: key.map(|key| &key.address),
        attempts: seen.attempts,
        retries: seen.attempts.saturating_sub(1),
        failed: &failed,
        reused: seen.reused,
        request_bytes: volume.up,
        response_bytes: volume.down,
        duration: seen.duration,
        connect: exchange.connect_time(),
        upstream_head: exchange.upstream_time(),
        ..blank(facts, seen.termination)
    })
}

/// Logs a refusal if the log wants it. Returns how many lines were dropped.
pub fn log_refusal(access: &mut AccessLog, draw: impl FnOnce() -> u64, refused: &Refused<'_>) -> u64 {
    if !access.wants(draw()) {
        return 0;
    }
    access.write(&Record {
        method: refused.method,
        host: refused.host,
        path: refused.path,
        protocol: refused.protocol,
        status: refused.reply.status,
        ..blank(refused.facts, refused.reply.termination)
    })
}

fn blank(facts: &ConnFacts, termination: crate::telemetry::termination::Termination) -> Record<'_> {
    Record {
        time: clock::unix_time(),
        request_id: b"",
        listener: facts.listener.name.as_str(),
        tls: facts.secure,
        client: facts.peer,
        method: b"",
        host: b"",
        path: b"",
        protocol: "",
        status: 0,
        termination,
        route: "",
        service: "",
        version: "",
        variant: None,
        assignment: None,
        endpoint: None,
        attempts: 0,
        retries: 0,
        failed: &[],
        reused: false,
        request_bytes: 0,
        response_bytes: 0,
        duration: std::time::Duration::ZERO,
        connect: None,
        upstream_head: None,
    }
}
