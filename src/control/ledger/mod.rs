//! What is written down, on a thread of its own: commits wait for the disk, control never does.
//!
//! A write is tried once and answered. What is owed is tried until it lands; newer records of a service replace older ones that did not
//! land yet, and their entries of the audit stay together, in order.

mod queue;
mod records;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;
use crate::core::id::Name;
use crate::store::StoreError;
use crate::store::keep::Keep;

pub use queue::{DRAFTS_OWED_MAX, Failed, LeftOut, Line, Outcome, Queue, Turn};
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
    /// Begins to write to `store`; `next_rollout` is the number of the next rollout.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(store: Arc<dyn Keep>, next_rollout: u64) -> std::io::Result<Self> {
        let inner = Inner { queue: Queue::new(next_rollout), ..Inner::default() };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), bell: Condvar::new() });
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

    /// Writes `lines`, all of them or nothing, with the number of the next rollout. Tried once. The answer fails with the thread only, and at
    /// once.
    #[must_use]
    pub fn write(&self, lines: Vec<Line>, next_rollout: u64) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        let mut inner = self.0.locked();
        if inner.ended {
            _ = reply.send(Err(Failed::ended()));
            return answer;
        }
        inner.queue.write(lines, next_rollout, reply);
        self.0.bell.notify_all();
        answer
    }

    /// Whether the thread has ended, which it never does by itself: nothing is written any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.locked().ended
    }

    /// Writes `line` sooner or later; the answer comes once it has landed, and fails with the thread.
    #[expect(clippy::must_use_candidate, reason = "most do not wait for it")]
    pub fn owe(&self, line: Line) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        let mut inner = self.0.locked();
        if !inner.ended {
            inner.queue.owe(line, reply);
            self.0.bell.notify_all();
        }
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

// === impl Failed ===

impl Failed {
    /// There is nobody left to write.
    #[must_use]
    pub fn ended() -> Self {
        Self { full: false, why: "the thread that writes has ended; see the log".to_owned() }
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
            let outcome = commit(store, &turn);
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
        let mut inner = self.0.locked();
        inner.ended = true;
        // Whoever waits is told by what is dropped.
        inner.queue = Queue::default();
        self.0.bell.notify_all();
    }
}

/// A store that panics has failed; what it was told is tried again, or answered, like any other.
fn commit(store: &dyn Keep, turn: &Turn) -> Outcome {
    let change = turn.change().map_err(|error| Failed { full: false, why: error.to_string() })?;
    let committed = catch_unwind(AssertUnwindSafe(|| store.commit(&change).map(drop).map_err(|error| failed(&error))));
    let panicked = "the store failed unexpectedly; this is a defect, see the log";
    committed.unwrap_or_else(|_| Err(Failed { full: false, why: panicked.to_owned() }))
}

fn failed(error: &StoreError) -> Failed {
    Failed { full: error.is_full(), why: error.to_string() }
}

#[cfg(test)]
mod tests;
