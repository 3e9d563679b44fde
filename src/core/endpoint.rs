//! Endpoints and pools: where a version of a service runs.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::id::{Name, Version};

/// One address a version is served from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
}

/// What makes an endpoint the same one across reloads and promotions: its state is kept by this key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The service it belongs to.
    pub service: Name,
    /// The version it serves.
    pub version: Version,
    /// Where it is.
    pub address: SocketAddr,
}

/// The endpoints of one version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The release it serves.
    pub version: Version,
    /// Digest of the artifact, if the author gave one; a version never changes its digest.
    pub digest: Option<String>,
    /// Its endpoints, in file order, without duplicates, never empty.
    pub endpoints: Vec<Endpoint>,
}

// === impl Endpoint ===

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

// === impl EndpointKey ===

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.service, self.version, self.address)
    }
}
