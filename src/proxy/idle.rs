//! Idle connections to upstreams, per worker and endpoint: last in, first out, without a task of their own.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::state::live::EndpointLive;
use crate::state::pool::{Connection, PoolLive};

use super::io::Stream;

/// Most idle connections per worker and endpoint.
pub const IDLE_PER_ENDPOINT_MAX: usize = 256;
/// Most idle connections per worker.
pub const IDLE_MAX: usize = 4_096;
/// Connections an endpoint keeps memory for while it has none.
const ROOM: usize = 4;
/// Longest life of a connection that is used again: what stands behind an address changes with time.
pub const AGE_MAX: Duration = Duration::from_secs(3_600);

/// The idle connections of one worker.
#[derive(Default)]
pub struct Idle {
    by_slot: HashMap<u64, Vec<Kept>, BuildHasherDefault<SlotHasher>>,
    count: usize,
}

/// A connection to an upstream.
pub struct Link {
    /// The stream.
    pub io: Stream,
    /// When it was opened.
    pub opened: Instant,
    /// Counts it in its pool.
    pub room: Connection,
    /// How it was dialled ([`crate::core::snapshot::ActiveService::dial_tag`]): one opened under other TLS settings is not used again.
    pub dial_tag: u64,
}

/// Slots are numbers of our own, counted up: nobody can choose them to collide, so spreading their bits is enough.
#[derive(Default)]
struct SlotHasher(u64);

struct Kept {
    link: Link,
    /// When it is too old to be used again.
    until: Instant,
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
            let until = (now + idle_max).min(link.opened + AGE_MAX);
            stack.push(Kept { link, until });
            self.count += 1;
        }
    }

    /// Closes the connection of this pool that has been idle longest on its endpoint. Whether there was one.
    pub fn make_room(&mut self, pool: &Arc<PoolLive>) -> bool {
        let of_pool = |stack: &&mut Vec<Kept>| stack.first().is_some_and(|kept| kept.link.room.is_of(pool));
        let Some(stack) = self.by_slot.values_mut().find(of_pool) else { return false };
        drop(stack.remove(0));
        self.count -= 1;
        true
    }

    /// Closes connections of pools requests on other workers than `worker` wait for, as many as wait.
    pub fn yield_to_others(&mut self, worker: usize) {
        let mut asked: Vec<(Arc<PoolLive>, u32)> = Vec::new();
        for pool in self.by_slot.values().filter_map(|stack| Some(stack.first()?.link.room.pool())) {
            if pool.is_waited_for() && !asked.iter().any(|(known, _)| Arc::ptr_eq(known, pool)) {
                asked.push((Arc::clone(pool), pool.waiting_elsewhere(worker)));
            }
        }
        for (pool, waiting) in asked {
            let mut left = (0..waiting).take_while(|_| self.make_room(&pool));
            while left.next().is_some() {}
        }
    }

    /// Closes what is too old, what its peer closed, and everything of endpoints that are not `wanted`.
    pub fn sweep(&mut self, now: Instant, wanted: impl Fn(u64) -> bool) {
        self.by_slot.retain(|&slot, stack| {
            if !wanted(slot) {
                return false;
            }
            stack.retain_mut(|kept| kept.is_usable(now));
            // An empty stack stays: its endpoint will be used again, and then without asking for memory.
            if stack.is_empty() {
                stack.shrink_to(ROOM);
            }
            true
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

// === impl SlotHasher ===

impl Hasher for SlotHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, slot: u64) {
        // Fibonacci hashing (Knuth, TAOCP 6.4): the table takes the top bits and the bottom ones.
        self.0 = (self.0 ^ slot).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl Kept ===

impl Kept {
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.until && self.link.io.is_quiet()
    }
}

#[cfg(test)]
mod tests;
