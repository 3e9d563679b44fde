//! What is persisted of a gate: enough to go on in another process as if nothing had happened.

use serde::{Deserialize, Serialize};

use crate::core::endpoint::{Address, EndpointKey};
use crate::core::gate::{GateConfig, History, State};
use crate::core::id::{Name, Version};

use crate::control::gate::NotWatched;

/// Version of the stored form.
pub const STORED_VERSION: u16 = 1;

/// A gate, at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// The rollout.
    pub rollout: u64,
    /// Its step.
    pub step: u32,
    /// How long that is held, in ticks.
    pub hold: u32,
    /// What the rollout was pinned to.
    pub config: GateConfig,
    /// The evidence.
    pub gate: State,
    /// What stable did in the last ten minutes.
    pub history: History,
    /// The candidate's requests: begun, bad, succeeded.
    pub counts: [u64; 3],
    /// Version and address of the candidate's endpoints, by their index in the evidence.
    pub members: Vec<(String, String)>,
    /// The endpoint that was ejected last, by that index.
    pub ejected: Option<u16>,
}

// === impl Stored ===

impl Stored {
    /// The endpoints of `service`.
    pub(super) fn members(&self, service: &Name) -> Result<Vec<EndpointKey>, NotWatched> {
        let key = |(version, address): &(String, String)| {
            let parsed = Version::new(version).ok().zip(address.parse::<Address>().ok());
            let (version, address) = parsed.ok_or_else(|| NotWatched::Member(format!("{version} {address}")))?;
            Ok(EndpointKey { service: service.clone(), version, address })
        };
        self.members.iter().map(key).collect()
    }
}
