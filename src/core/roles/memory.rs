//! What is remembered of a service that left the file: leaving and coming back makes nothing unknown that was known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Ended, Known, Roles, shared};

/// Version of the stored form.
pub const MEMORY_VERSION: u16 = 1;
/// Services that left the file and are remembered; those that left first are forgotten first.
pub const MEMORIES_MAX: usize = 256;

/// Of a service that left the file: its versions with their digests, tries and quarantines, and its rollouts. Bounded as in [`Roles`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// When it left, in time since 1970.
    pub left: Duration,
    /// As [`Roles::versions`].
    #[serde(with = "shared")]
    pub versions: Arc<Vec<Known>>,
    /// As [`Roles::history`].
    #[serde(with = "shared")]
    pub history: Arc<VecDeque<Ended>>,
}

// === impl Memory ===

impl Memory {
    /// Of the service of `roles`, which leaves at `now`, in time since 1970.
    #[must_use]
    pub fn of(roles: &Roles, now: Duration) -> Self {
        Self { left: now, versions: Arc::clone(&roles.versions), history: Arc::clone(&roles.history) }
    }
}
