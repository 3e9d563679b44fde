//! What is written down, on a thread of its own: commits wait for the disk, control never does.
//!
//! A write is tried once and answered. What is owed is tried until it lands; newer records of a service replace older ones that did not
//! land yet, and their entries of the audit stay together, in order.

mod queue;
mod records;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;
use crate::core::id::Name;
use crate::store::StoreError;
use crate::store::keep::Keep;

pub use queue::{Failed, Line, Outcome, Queue, Turn};
pub use records::{BadRecord, load, load_evidence};

/// Shortest pause before what is owed is tried again; it doubles with every failure...
const RETRY_MIN: Duration = Duration::from_millis(50);
/// ...up to this.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest wait for what is owed when the process ends.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Writes down what control decides, in its order. Dropping it ends the thread, after one more try of what is owed.
pub struct Ledger(Arc<Shared>);

struct Shared {
    inner: Mutex<Inner>,
    bell: Condvar,
}

/// Says that the thread has ended, when dropped.
struct Ended(Arc<Shared>);

#[derive(Default)]
struct Inner {
    queue: Queue,
    closing: bool,
    ended: bool,
}

// === impl Ledger ===

impl Ledger {
    /// Begins to write to `store`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(store: Arc<dyn Keep>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { inner: Mutex::default(), bell: Condvar::new() });
        let worker = Arc::clone(&shared);
        let work = move || {
            // Dropped last: by then the store is let go, also after a panic.
            let ended = Ended(worker);
            let store = store;
            ended.0.run(store.as_ref());
        };
        std::thread::Builder::new().name("ledger".to_owned()).spawn(work)?;
        Ok(Self(shared))
    }

    /// Writes `lines`, all of them or nothing, with the number of the next rollout. Tried once. The answer fails with the thread only.
    #[must_use]
    pub fn write(&self, lines: Vec<Line>, next_rollout: u64) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.0.locked().queue.write(lines, next_rollout, reply);
        self.0.bell.notify_all();
        answer
    }

    /// Writes `line` sooner or later; the answer comes once it has landed.
    #[expect(clippy::must_use_candidate, reason = "most do not wait for it")]
    pub fn owe(&self, line: Line) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.0.locked().queue.owe(line, reply);
        self.0.bell.notify_all();
        answer
    }

    /// Answers once everything that is owed about `service` has landed; at once if that is nothing.
    #[must_use]
    pub fn landed(&self, service: &Name) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.0.locked().queue.landed(service, reply);
        answer
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let mut inner = self.0.locked();
        inner.closing = true;
        self.0.bell.notify_all();
        let waited = self.0.bell.wait_timeout_while(inner, CLOSE_MAX, |inner| !inner.ended);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::error!("the store did not take the last changes in time");
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self, store: &dyn Keep) {
        let mut pause = RETRY_MIN;
        let mut retry_at = clock::now();
        // When it ends, what is owed is tried once more.
        let mut once_more = true;
        loop {
            let Some(turn) = self.next(retry_at, &mut once_more) else { return };
            let change = turn.change().map_err(|error| Failed { full: false, why: error.to_string() });
            let outcome = change.and_then(|change| store.commit(&change).map(drop).map_err(|error| failed(&error)));
            match &outcome {
                Ok(()) if turn.is_owed() => pause = RETRY_MIN,
                Err(Failed { why, .. }) if turn.is_owed() => {
                    tracing::error!(error = why, "the store does not take what has happened; trying again");
                    retry_at = clock::now() + pause;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                _ => {}
            }
            self.locked().queue.done(turn, outcome);
        }
    }

    /// Waits for something to do; `None` once it is over.
    fn next(&self, retry_at: std::time::Instant, once_more: &mut bool) -> Option<Turn> {
        let mut inner = self.locked();
        loop {
            let due = clock::now() >= retry_at;
            let last = inner.closing && std::mem::take(once_more);
            if let Some(turn) = inner.queue.next(due || last) {
                return Some(turn);
            }
            if inner.closing {
                return None;
            }
            inner = if inner.queue.is_owing() {
                let left = retry_at.saturating_duration_since(clock::now());
                self.bell.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.bell.wait(inner).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.locked().ended = true;
        self.0.bell.notify_all();
    }
}

fn failed(error: &StoreError) -> Failed {
    Failed { full: error.is_full(), why: error.to_string() }
}

#[cfg(test)]
mod tests;
