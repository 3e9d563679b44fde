//! Heads and connections for tests, read by the real parser.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use crate::clock;
use crate::config::settings::{Limits, ListenAddress, Listener, Underscores};
use crate::core::gate::{GateConfig, Unit};
use crate::core::id::Name;
use crate::core::snapshot::Snapshot;
use crate::core::weight::Weight;
use crate::state::counters::ProcessCounters;
use crate::state::current::{Routing, publish_first};
use crate::state::live::Registry;
use crate::state::sensors::Watch;
use crate::telemetry::{self, access};

use super::facts::ConnFacts;
use super::h1::head::{HeadLimits, parse_request, parse_response};
use super::headers::{RequestHead, ResponseHead};
use super::worker::{Parts, Worker};

/// A request with `fields` (each with its line end).
pub(crate) fn request(method: &str, target: &str, fields: &str) -> RequestHead {
    raw_request(format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").as_bytes())
}

/// A `GET /` with `fields`.
pub(crate) fn get(fields: &str) -> RequestHead {
    request("GET", "/", fields)
}

/// A request head as it came.
pub(crate) fn raw_request(text: &[u8]) -> RequestHead {
    let mut head = RequestHead { bytes: text.to_vec(), ..RequestHead::default() };
    parse_request(&mut head, text.len(), &head_limits()).expect("a valid request");
    head
}

/// A response with `fields` to a `GET`.
pub(crate) fn response(status: u16, fields: &str) -> ResponseHead {
    let text = format!("HTTP/1.1 {status} \r\n{fields}\r\n");
    let mut head = ResponseHead { bytes: text.into_bytes(), ..ResponseHead::default() };
    let len = head.bytes.len();
    parse_response(&mut head, len, false).expect("a valid response");
    head
}

/// A plain listener that trusts `proxies`.
pub(crate) fn listener(proxies: &[&str], limits: Limits) -> Arc<Listener> {
    Arc::new(Listener {
        name: Name::new("public").expect("a name"),
        listen: ListenAddress::Tcp(([127, 0, 0, 1], 0).into()),
        tls: None,
        trusted_proxies: proxies.iter().map(|net| net.parse().expect("a network")).collect(),
        underscores: Underscores::Drop,
        limits,
    })
}

/// A plain connection from `peer`, through a listener that trusts nobody.
pub(crate) fn facts(peer: &str) -> ConnFacts {
    ConnFacts::new(listener(&[], Limits::default()), Some(ip(peer)), false)
}

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The default limits of a head.
pub(crate) fn head_limits() -> HeadLimits {
    HeadLimits::new(&Limits::default(), Underscores::Drop)
}

/// The only worker of a proxy that routes by `snapshot`, every candidate watched, without an access log.
pub(crate) fn worker(snapshot: Snapshot) -> (Rc<Worker>, Arc<Registry>) {
    let registry = Arc::new(Registry::new(1, clock::now()));
    let mut live = registry.resolve(&snapshot, &std::collections::HashMap::new());
    crate::state::fixture::all_ready(&live);
    let metrics = GateConfig::default_metrics();
    let config = GateConfig { alpha: 0.001, unit: Unit::Session, warmup: 600, reach: 1_220, metrics };
    for live in &mut live {
        *live = Arc::new(live.watched(&Watch::rollout(&config, &[], 1, clock::now())));
    }
    let settings = access::Settings {
        enabled: false,
        sample: Weight::ZERO,
        format: telemetry::Format::Json,
        target: telemetry::sink::Target::Stdout,
    };
    let writer = access::AccessWriter::start(settings, clock::now).expect("a thread");
    let parts = Parts {
        index: 0,
        current: publish_first(Routing { snapshot, live }).1,
        registry: Arc::clone(&registry),
        process: Arc::new(ProcessCounters::new(1)),
        session_secret: [0; 32],
        connector: Arc::new(OnceLock::new()),
        access: writer.worker(),
    };
    (Worker::new(parts), registry)
}
