//! Idle connections to upstreams, per worker and endpoint: last in, first out, without a task of their own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::state::live::EndpointLive;

use super::io::Stream;

/// Most idle connections per worker and endpoint.
pub const IDLE_PER_ENDPOINT_MAX: usize = 256;
/// Most idle connections per worker.
pub const IDLE_MAX: usize = 4_096;
/// Longest life of a connection that is used again: what stands behind an address changes with time.
pub const AGE_MAX: Duration = Duration::from_secs(3_600);

/// The idle connections of one worker.
#[derive(Default)]
pub struct Idle {
    by_slot: HashMap<u64, Vec<Kept>>,
    count: usize,
}

/// A connection to an upstream.
pub struct Link {
    /// The stream.
    pub io: Stream,
    /// When it was opened.
    pub opened: Instant,
    /// How it was dialled ([`crate::core::snapshot::ActiveService::dial_tag`]): one opened under other TLS settings is not used again.
    pub dial_tag: u64,
}

struct Kept {
    link: Link,
    since: Instant,
    idle_max: Duration,
}

impl Idle {
    /// Takes a usable connection to the endpoint with `slot` that was dialled like `dial_tag`, the one used last first.
    pub fn take(&mut self, slot: u64, dial_tag: u64, now: Instant) -> Option<Link> {
        let stack = self.by_slot.get_mut(&slot)?;
        while let Some(mut kept) = stack.pop() {
            self.count -= 1;
            if kept.link.dial_tag == dial_tag && kept.is_usable(now) {
                return Some(kept.link);
            }
        }
        None
    }

    /// Keeps a connection to `endpoint` for at most `idle_max`. Above a bound, or when the endpoint has left, it is closed instead.
    pub fn keep(&mut self, endpoint: &EndpointLive, link: Link, idle_max: Duration, now: Instant) {
        if self.count >= IDLE_MAX || endpoint.is_leaving() {
            return;
        }
        let stack = self.by_slot.entry(endpoint.slot).or_default();
        if stack.len() < IDLE_PER_ENDPOINT_MAX {
            stack.push(Kept { link, since: now, idle_max });
            self.count += 1;
        }
    }

    /// Closes what is too old, what its peer closed, and everything of endpoints that are not `wanted`.
    pub fn sweep(&mut self, now: Instant, wanted: impl Fn(u64) -> bool) {
        self.by_slot.retain(|&slot, stack| {
            if !wanted(slot) {
                return false;
            }
            stack.retain_mut(|kept| kept.is_usable(now));
            !stack.is_empty()
        });
        self.count = self.by_slot.values().map(Vec::len).sum();
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.by_slot.clear();
        self.count = 0;
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

// === impl Kept ===

impl Kept {
    fn is_usable(&mut self, now: Instant) -> bool {
        let age = |since: Instant| now.saturating_duration_since(since);
        age(self.since) < self.idle_max && age(self.link.opened) < AGE_MAX && self.link.io.is_quiet()
    }
}

#[cfg(test)]
mod tests;
