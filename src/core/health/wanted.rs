//! How the endpoints of a service are probed, as its author wants it.

use std::fmt;
use std::time::Duration;

use super::json::Assertion;
use crate::core::service::{Secret, UpstreamTls};
use crate::core::weight::Weight;

/// How endpoints are probed, everything resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What decides about traffic.
    pub readiness: Check,
    /// What has to pass once before.
    pub startup: Option<Startup>,
    /// What is reported only.
    pub liveness: Option<Check>,
    /// What is counted for the gate only.
    pub deep: Option<Deep>,
    /// How often, and how many results in a row change something.
    pub pace: Pace,
    /// Longest time for one probe, connecting included.
    pub timeout: Duration,
    /// What an answer has to be like.
    pub expect: Expect,
    /// `Host` (or `:authority`) of the requests; absent: the endpoint's address.
    pub host: Option<String>,
    /// Fields of the requests.
    pub headers: Vec<ProbeHeader>,
    /// The port to ask; absent: the endpoint's own.
    pub port: Option<u16>,
    /// TLS of the probes.
    pub tls: ProbeTls,
}

/// How often probes come, and how many results in a row change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between the end of a probe and the next one.
    pub interval: Duration,
    /// The same while nothing is known or a change is under way; at most `interval`.
    pub fast_interval: Duration,
    /// By which share a pause may be longer or shorter.
    pub jitter: Weight,
    /// Passes in a row that make an endpoint ready; at least 1.
    pub rise: u32,
    /// Failures in a row that make it not ready; at least 1.
    pub fall: u32,
}

/// How it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A connection is enough.
    Tcp,
    /// `GET` of this path.
    Http(String),
    /// `Check` of grpc.health.v1 for this service; empty: the server as a whole.
    Grpc(String),
}

/// What has to pass once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Startup {
    /// How it is asked.
    pub check: Check,
    /// How long it may fail before the endpoint counts as not ready.
    pub timeout: Duration,
}

/// What is counted for the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deep {
    /// How it is asked.
    pub check: Check,
    /// Between the end of a probe and the next one.
    pub interval: Duration,
}

/// What an answer has to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// Ranges of status codes that pass, both ends included; never empty.
    pub status: Vec<(u16, u16)>,
    /// Text the body has to contain; empty: any body.
    pub body: String,
    /// What has to be in the body as JSON.
    pub json: Vec<Assertion>,
    /// Longest time until the answer; zero: the timeout alone.
    pub max_latency: Duration,
}

/// A field of the probes' requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeHeader {
    /// Its name, lower case.
    pub name: String,
    /// Its value.
    pub value: ProbeValue,
}

/// The value of a field. Never shown: it may be a credential.
#[derive(Clone, PartialEq, Eq)]
pub enum ProbeValue {
    /// As it is written in the file.
    Written(String),
    /// From an environment variable.
    Env(Secret),
}

/// TLS of the probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTls {
    /// As towards the endpoints. A TCP probe then only connects.
    Upstream,
    /// None.
    Off,
    /// Settings of its own. A TCP probe then needs the handshake, too.
    Own(UpstreamTls),
}

// === impl Health ===

impl Default for Health {
    /// A TCP connect every 5 s.
    fn default() -> Self {
        Self {
            readiness: Check::Tcp,
            startup: None,
            liveness: None,
            deep: None,
            pace: Pace::default(),
            timeout: Duration::from_secs(2),
            expect: Expect::default(),
            host: None,
            headers: Vec::new(),
            port: None,
            tls: ProbeTls::Upstream,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        let jitter = Weight::from_grains(1_000).unwrap_or(Weight::ZERO);
        Self { interval: Duration::from_secs(5), fast_interval: Duration::from_secs(1), jitter, rise: 2, fall: 3 }
    }
}

impl Default for Expect {
    fn default() -> Self {
        Self { status: vec![(200, 299)], body: String::new(), json: Vec::new(), max_latency: Duration::ZERO }
    }
}

impl fmt::Debug for ProbeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeValue(..)")
    }
}
