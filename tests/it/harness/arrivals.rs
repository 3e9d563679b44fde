//! Requests that come at a steady rate whether earlier ones were answered or not, as users do: a server that hangs is not spared by them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidegate::clock;
use tokio::task::{JoinHandle, JoinSet};

use super::client::Session;
use super::wait::pause;

/// Requests under way; what comes while so many are is left out, and counted.
const UNDER_WAY_MAX: usize = 4_000;
/// Longest life of a load.
const LIFE_MAX: Duration = Duration::from_secs(900);

/// A load that runs until it is stopped or dropped. Every request is of another user.
pub(crate) struct Arrivals {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Came {
    /// Requests sent.
    pub sent: u64,
    /// Answers by release and status.
    pub answers: BTreeMap<(String, u16), u64>,
    /// Requests that were cut off, and the words of the first of them.
    pub cut_off: u64,
    /// See `cut_off`.
    pub why: Option<String>,
    /// Requests that had no answer yet when the load was stopped.
    pub waiting: u64,
    /// Requests that were left out.
    pub left_out: u64,
}

#[derive(Default)]
struct Shared {
    came: Mutex<Came>,
    idle: Mutex<Vec<Session>>,
    answered: AtomicU64,
}

// === impl Arrivals ===

impl Arrivals {
    /// `rate` requests per second to the proxy at `address`.
    pub(crate) fn start(address: &str, rate: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(run(address.to_owned(), rate, Arc::clone(&shared)));
        Self { shared, task }
    }

    /// What came so far.
    pub(crate) fn came(&self) -> Came {
        self.shared.came().clone()
    }

    /// Returns once `n` more answers came.
    pub(crate) async fn answers(&self, n: u64) {
        let goal = self.shared.answered.load(Ordering::Relaxed) + n;
        while self.shared.answered.load(Ordering::Relaxed) < goal {
            assert!(!self.task.is_finished(), "the load has ended");
            pause(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, without waiting for answers.
    pub(crate) fn stop(self) -> Came {
        self.task.abort();
        let came = self.came();
        let answered: u64 = came.answers.values().sum();
        Came { waiting: came.sent - answered - came.cut_off, ..came }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(address: String, rate: u32, shared: Arc<Shared>) {
    let (began, every) = (clock::now(), Duration::from_secs(1) / rate);
    let mut under_way = JoinSet::new();
    for n in 0.. {
        let due = began + every * n;
        let wait = due.saturating_duration_since(clock::now());
        if !wait.is_zero() {
            pause(wait).await;
        }
        if due.saturating_duration_since(began) > LIFE_MAX {
            return;
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= UNDER_WAY_MAX {
            shared.came().left_out += 1;
            continue;
        }
        shared.came().sent += 1;
        let idle = shared.idle.lock().expect("nobody panics").pop();
        under_way.spawn(ask(idle.unwrap_or_else(|| Session::new(&address)), Arc::clone(&shared)));
    }
}

async fn ask(mut session: Session, shared: Arc<Shared>) {
    match session.try_get("/").await {
        Ok(response) => {
            let answer = (response.version().to_owned(), response.status);
            *shared.came().answers.entry(answer).or_default() += 1;
            shared.answered.fetch_add(1, Ordering::Relaxed);
            shared.idle.lock().expect("nobody panics").push(session);
        }
        Err(why) => {
            let mut came = shared.came();
            came.cut_off += 1;
            came.why.get_or_insert(why);
        }
    }
}

// === impl Shared ===

impl Shared {
    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().expect("nobody panics")
    }
}

// === impl Came ===

impl Came {
    /// Answers that are no 200, and requests that were cut off.
    pub(crate) fn failed(&self) -> u64 {
        self.cut_off + self.answers.iter().filter(|((_, status), _)| *status != 200).map(|(_, n)| n).sum::<u64>()
    }

    /// Answers of a release.
    pub(crate) fn of(&self, version: &str) -> u64 {
        self.answers.iter().filter(|((of, _), _)| of == version).map(|(_, n)| n).sum()
    }
}
