//! Circuit breakers: how much of a service may be busy at the same time. What is beyond it is refused at once instead of queued.

/// The limits of each pool of a service, over all workers of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most connections to its endpoints, idle ones and HTTP/2 sessions included; those of probes are not.
    pub max_connections: u32,
    /// Most requests that wait for a connection or stream because all are busy.
    pub max_pending: u32,
    /// Most requests on its endpoints.
    pub max_requests: u32,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`PoolLimits::max_connections`]
    Connections,
    /// [`PoolLimits::max_pending`]
    Pending,
    /// [`PoolLimits::max_requests`]
    Requests,
}

// === impl PoolLimits ===

impl Default for PoolLimits {
    fn default() -> Self {
        Self { max_connections: 1_024, max_pending: 256, max_requests: 10_000 }
    }
}

impl PoolLimits {
    /// The number behind `limit`.
    #[must_use]
    pub fn of(&self, limit: Limit) -> u32 {
        match limit {
            Limit::Connections => self.max_connections,
            Limit::Pending => self.max_pending,
            Limit::Requests => self.max_requests,
        }
    }
}

// === impl Limit ===

impl Limit {
    /// All, in index order (`self as usize`).
    pub const ALL: [Self; 3] = [Self::Connections, Self::Pending, Self::Requests];

    /// Its word in metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Pending => "pending",
            Self::Requests => "requests",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_match_and_every_limit_has_its_number() {
        let limits = PoolLimits { max_connections: 1, max_pending: 2, max_requests: 3 };
        assert!(Limit::ALL.iter().enumerate().all(|(i, limit)| *limit as usize == i));
        assert_eq!(Limit::ALL.map(|limit| limits.of(limit)), [1, 2, 3]);
    }
}
