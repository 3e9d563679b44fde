//! Statistics per worker: each shard has a single writer, relaxed atomics; readers add the shards up.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::assign::Assignment;
use crate::core::retry::Reason;

/// Upper bounds of the duration histograms, in microseconds; one more bucket holds the rest.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];
/// Status classes: `1xx` to `5xx`, and `none` for requests that ended without a response.
pub const STATUS_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Names of the error codes of HTTP/2, by their number (RFC 9113 section 7); the last is for those that have no name.
pub const HTTP2_CODES: [&str; 15] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
    "other",
];

/// A number with one writer at a time; adding is a plain load and store.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

/// Counts by error code of HTTP/2, in the order of [`HTTP2_CODES`].
#[derive(Debug, Default)]
pub struct ByCode([Cell; HTTP2_CODES.len()]);

/// A histogram of durations over [`DURATION_BOUNDS_US`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// Per bucket, not cumulative; the last holds what is above every bound.
    pub buckets: [Cell; DURATION_BOUNDS_US.len() + 1],
    /// Sum in microseconds.
    pub sum_us: Cell,
}

/// What one worker counted for one endpoint.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointShard {
    /// Requests finally answered from here, by status class and assignment.
    pub requests: [[Cell; Assignment::ALL.len()]; STATUS_CLASSES.len()],
    /// Attempts begun, and requests charged here because none of the candidate was ready any more (exposures).
    pub attempts: Cell,
    /// Attempts that count as bad for the gate.
    pub bad: Cell,
    /// Connections opened.
    pub connects: Cell,
    /// Connections that could not be opened.
    pub connect_failures: Cell,
    /// Attempts on a reused connection.
    pub reused: Cell,
    /// Attempts that repeated a failed one, by [`Reason`].
    pub retries: [Cell; Reason::ALL.len()],
    /// Failures that were not retried because the budget was spent.
    pub retries_denied: Cell,
    /// Attempts replayed because a reused connection had died.
    pub stale_replays: Cell,
    /// From the first byte of the request to the last byte of the response.
    pub duration: Histogram,
    /// From the request fully written to the response head.
    pub upstream: Histogram,
}

/// The shards of one endpoint, one per worker.
#[derive(Debug)]
pub struct EndpointCounters {
    shards: Box<[EndpointShard]>,
}

/// What one worker counted beside endpoints.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerShard {
    /// Downstream connections accepted.
    pub accepted: Cell,
    /// Downstream connections open now.
    pub open: Cell,
    /// Connections shed at a listener's limit.
    pub shed: Cell,
    /// Downstream connections that speak HTTP/2.
    pub http2: Cell,
    /// Streams of downstream connections reset from here, by code.
    pub http2_resets: ByCode,
    /// Downstream connections ended from here with GOAWAY, by code.
    pub http2_goaways: ByCode,
    /// TLS handshakes that failed.
    pub tls_failures: Cell,
    /// Upgraded streams open now.
    pub tunnels: Cell,
    /// Idle upstream connections kept now.
    pub idle: Cell,
    /// HTTP/2 sessions with upstreams open now.
    pub sessions: Cell,
    /// Requests on them now.
    pub streams: Cell,
    /// Requests answered by the proxy itself, by termination cause index.
    pub terminations: [Cell; TERMINATIONS_MAX],
    /// Access log lines dropped because the writer was behind.
    pub log_dropped: Cell,
}

/// Most termination causes there can be.
pub const TERMINATIONS_MAX: usize = 32;

/// The shards of the process, one per worker.
#[derive(Debug)]
pub struct ProcessCounters {
    shards: Box<[WorkerShard]>,
}

// === impl Cell ===

impl Cell {
    /// Adds `n`; only its one writer may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` off; only its one writer may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The number as it stands.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl ByCode ===

impl ByCode {
    /// The count of `code` as it stands on the wire.
    #[must_use]
    pub fn of(&self, code: u32) -> &Cell {
        let other = HTTP2_CODES.len() - 1;
        &self.0[usize::try_from(code).map_or(other, |code| code.min(other))]
    }
}

// === impl Histogram ===

impl Histogram {
    /// Counts one duration; only its one writer may call this.
    pub fn record(&self, duration: std::time::Duration) {
        let us = duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()));
        let bucket = DURATION_BOUNDS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }
}

// === impl EndpointCounters ===

impl EndpointCounters {
    /// Counters for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| EndpointShard::default()).collect() }
    }

    /// The shard only worker `index` writes.
    #[must_use]
    pub fn of(&self, index: usize) -> &EndpointShard {
        &self.shards[index]
    }

    /// The sum over all workers of what `read` takes from a shard.
    pub fn sum(&self, read: impl Fn(&EndpointShard) -> u64) -> u64 {
        self.shards.iter().map(read).fold(0, u64::wrapping_add)
    }
}

// === impl ProcessCounters ===

impl ProcessCounters {
    /// Counters for `workers` workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| WorkerShard::default()).collect() }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shards.len()
    }

    /// The shard only worker `index` writes.
    #[must_use]
    pub fn of(&self, index: usize) -> &WorkerShard {
        &self.shards[index]
    }

    /// The sum over all workers of what `read` takes from a shard.
    pub fn sum(&self, read: impl Fn(&WorkerShard) -> u64) -> u64 {
        self.shards.iter().map(read).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn histograms_put_a_duration_at_its_bound_into_that_bucket() {
        let histogram = Histogram::default();
        for us in [0, 250, 251, 60_000_000, 60_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Cell::get).collect();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 1));
        assert_eq!(histogram.sum_us.get(), 120_000_502);
    }

    #[test]
    fn shards_add_up() {
        let counters = EndpointCounters::new(3);
        for worker in 0..3 {
            counters.of(worker).attempts.add(worker as u64 + 1);
        }
        assert_eq!(counters.sum(|s| s.attempts.get()), 6);
    }
}
