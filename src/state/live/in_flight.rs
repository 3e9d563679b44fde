//! What is counted while a request is with an endpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::EndpointLive;
use crate::core::circuit::PoolLimits;

/// Counts one request in flight on an endpoint and in its pool until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointLive>);

// === impl InFlight ===

impl InFlight {
    /// Counts one more request on `endpoint`, unless its pool has as many as it may have.
    #[must_use]
    pub fn begin(endpoint: Arc<EndpointLive>, limits: &PoolLimits) -> Option<Self> {
        if !endpoint.pool.begin(limits) {
            return None;
        }
        endpoint.identity.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(Self(endpoint))
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<EndpointLive> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.identity.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.pool.ended();
    }
}
