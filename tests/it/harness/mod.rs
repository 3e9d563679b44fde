//! Tests in three nouns: an upstream that does what its script says, the proxy, and a client that sends any bytes. Everything listens on
//! free ports of the loopback, and everything is awaited, nothing slept for.

pub(crate) mod arrivals;
pub(crate) mod canary;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod files;
pub(crate) mod h2;
pub(crate) mod h2_raw;
pub(crate) mod origin;
pub(crate) mod pattern;
pub(crate) mod proxy;
pub(crate) mod straggler;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod websocket;
pub(crate) mod wire;

/// Whether the long versions of the tests are asked for (`make soak`).
pub(crate) fn soak() -> bool {
    std::env::var_os("TIDEGATE_SOAK").is_some_and(|v| v == "1")
}
