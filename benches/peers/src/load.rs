//! The loads: what is sent, how much of it at once, by which tool, and what is wanted of Tidegate under it.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::peer::{Peer, Variant};

/// One load, by the name it has on the command line and in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// 64 bytes over 64 connections; every request a new user.
    Small,
    /// The same with the cookie the proxy issued.
    Returning,
    /// The same with an access log.
    Logged,
    /// 16 KiB over 64 connections.
    Middle,
    /// 1 MiB over 16 connections.
    Large,
    /// Bodies of 64 KiB towards the origin over 16 connections.
    Upload,
    /// 64 bytes over 64 TLS connections.
    Tls,
    /// A connection per request, 64 at once.
    Close,
    /// One connection.
    One,
    /// A thousand connections.
    Thousand,
    /// HTTP/2 over TLS, 16 connections with 10 streams each.
    H2,
    /// HTTP/2 with prior knowledge, likewise.
    H2c,
    /// Unary gRPC calls, HTTP/2 on both sides, likewise.
    Grpc,
    /// 64 bytes at half the rate at which `HAProxy` is saturated, sent by the clock and not by the answers.
    Open,
    /// Connections that do nothing.
    Idle,
}

/// Which of a proxy's ports is used, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in plain text.
    Plain,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// gRPC over HTTP/2 with prior knowledge.
    Grpc,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Microseconds of CPU per request.
    CpuPerRequest,
    /// 99th percentile of the latency, in microseconds.
    P99,
    /// Bytes of memory per idle connection.
    BytesPerConnection,
}

/// A ratio that is wanted: of Tidegate's median to the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// Most for the median.
    pub median: f64,
    /// Most for the upper end of its interval.
    pub high: Option<f64>,
}

/// What a load consists of.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Which one it is.
    pub kind: Kind,
    /// A few words for the table.
    pub title: &'static str,
    /// The port and the protocol.
    pub protocol: Protocol,
    /// What is asked for.
    pub path: &'static str,
    /// Length of the answer's body; 0: not fixed.
    pub answer: u64,
    /// Connections at once.
    pub connections: u32,
    /// Configuration of the proxies.
    pub variant: Variant,
    /// What is compared.
    pub measure: Measure,
}

// === impl Protocol ===

impl Protocol {
    /// Whether clients speak HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2 | Self::H2c | Self::Grpc)
    }
}

// === impl Kind ===

impl Kind {
    /// All, in the order of the report.
    pub const ALL: [Self; 15] = [
        Self::Small,
        Self::Returning,
        Self::Logged,
        Self::Middle,
        Self::Large,
        Self::Upload,
        Self::Tls,
        Self::Close,
        Self::One,
        Self::Thousand,
        Self::H2,
        Self::H2c,
        Self::Grpc,
        Self::Open,
        Self::Idle,
    ];

    /// The load itself.
    #[must_use]
    pub fn load(self) -> Load {
        let small = Load {
            kind: self,
            title: "64 B",
            protocol: Protocol::Plain,
            path: "/64",
            answer: 64,
            connections: 64,
            variant: Variant::Plain,
            measure: Measure::CpuPerRequest,
        };
        let h2 = Load { title: "64 B, HTTP/2 over TLS, 16 x 10", protocol: Protocol::H2, connections: 16, ..small };
        match self {
            Self::Small => small,
            Self::Returning => Load { title: "64 B, with the cookie", ..small },
            Self::Logged => Load { title: "64 B, access log on", variant: Variant::Log, ..small },
            Self::Middle => Load { title: "16 KiB", path: "/16k", answer: 16 << 10, ..small },
            Self::Large => Load { title: "1 MiB", path: "/1m", answer: 1 << 20, connections: 16, ..small },
            Self::Upload => Load { title: "64 KiB upload", path: "/upload", answer: 5, connections: 16, ..small },
            Self::Tls => Load { title: "64 B, TLS", protocol: Protocol::Tls, ..small },
            Self::Close => Load { title: "64 B, connection per request", ..small },
            Self::One => Load { title: "64 B, 1 connection", connections: 1, ..small },
            Self::Thousand => Load { title: "64 B, 1,000 connections", connections: 1_000, ..small },
            Self::H2 => h2,
            Self::H2c => Load { title: "64 B, h2c, 16 x 10", protocol: Protocol::H2c, ..h2 },
            Self::Grpc => Load {
                title: "gRPC unary, 16 x 10",
                protocol: Protocol::Grpc,
                path: "/bench.Echo/Unary",
                answer: 0,
                variant: Variant::Grpc,
                ..h2
            },
            Self::Open => Load { title: "64 B, half of HAProxy's peak rate", measure: Measure::P99, ..small },
            Self::Idle => Load { title: "idle connection", measure: Measure::BytesPerConnection, ..small },
        }
    }

    /// What is wanted beside `peer`.
    #[must_use]
    pub fn goal(self, peer: Peer) -> Option<Goal> {
        let most = |median| Some(Goal { median, high: None });
        match (self, peer) {
            (Self::Small, Peer::Haproxy) => Some(Goal { median: 0.85, high: Some(0.90) }),
            (Self::Small, Peer::Nginx) => most(0.80),
            (Self::Small, Peer::Envoy) => most(0.35),
            (Self::Small, Peer::BarePingora) => most(0.55),
            (Self::Small, Peer::HyperForwarder) => most(0.95),
            (Self::Large, Peer::Haproxy) => most(0.70),
            (Self::H2 | Self::H2c, Peer::Haproxy) => most(1.25),
            (Self::H2 | Self::H2c, Peer::Nginx) => most(0.75),
            (Self::H2 | Self::H2c, Peer::BarePingora) => most(0.65),
            (Self::Grpc, Peer::Envoy) => most(0.60),
            (Self::Open, Peer::Haproxy) => most(1.0),
            (Self::Grpc | Self::Idle, _) => None,
            (_, Peer::Haproxy) => most(1.05),
            _ => None,
        }
    }
}

// === impl Load ===

impl Load {
    /// Longest a run may take beyond its `time` before it is given up.
    pub const GRACE: Duration = Duration::from_secs(15);

    /// Whether `peer` can take it, and if not, why.
    ///
    /// # Errors
    /// The reason, for the report.
    pub fn suits(&self, peer: Peer) -> Result<(), &'static str> {
        match (peer, self.protocol) {
            (Peer::HyperForwarder, Protocol::Plain) | (Peer::BarePingora, Protocol::Plain | Protocol::Tls) => {
                match self.kind {
                    Kind::Logged => Err("a yardstick without an access log"),
                    Kind::Returning => Err("a yardstick without a cookie"),
                    _ => Ok(()),
                }
            }
            (Peer::HyperForwarder, _) => Err("a yardstick for plain HTTP/1.1 only"),
            (Peer::BarePingora, Protocol::Grpc) => Err("a yardstick for HTTP/1.1 towards the origin only"),
            _ => Ok(()),
        }
    }
}
