//! A bounded load: sessions that ask again and again until a number is reached or the test has seen enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate::clock;
use tokio::task::JoinSet;

use super::super::wait::{pause, until, within_time};
use super::{Response, Session};

/// Longest life of a load, whatever its plan.
const LOAD_MAX: Duration = Duration::from_secs(600);
/// Requests of a session that are recorded one by one; beyond that they are only counted.
const RECORDS_MAX: usize = 100_000;
/// Words of failures that are kept.
const FAILURES_KEPT: usize = 20;

/// What a load does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Sessions at once, each with one connection.
    pub sessions: usize,
    /// Requests of all sessions together; `None`: until stopped.
    pub requests: Option<u64>,
    /// The path.
    pub path: String,
    /// Fields (whole lines) that go with every request.
    pub fields: String,
    /// Pause after each response.
    pub pace: Duration,
    /// End a session, without a failure, when the server has closed its connection as announced (for tests of shutdown).
    pub end_on_close: bool,
    /// Keep a record of every request.
    pub record: bool,
}

/// One request of a load.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When it began, since 1970.
    pub began: Duration,
    /// When its response had come whole, or failed to, since 1970.
    pub ended: Duration,
    /// Status and release of the response; or why there was none.
    pub outcome: Result<(u16, String), String>,
}

/// A load under way.
pub(crate) struct Load {
    sessions: JoinSet<Tally>,
    control: Arc<Control>,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Responses.
    pub responses: u64,
    /// Responses by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Responses by the release that answered.
    pub by_version: BTreeMap<String, u64>,
    /// Requests without a whole response.
    pub failed: u64,
    /// The words of the first of them.
    pub failures: Vec<String>,
    /// Longest time from request to the end of its response.
    pub slowest: Duration,
    /// Every request, in order of its end, if that was planned.
    pub records: Vec<Record>,
}

struct Control {
    stop: AtomicBool,
    begun: AtomicU64,
    ended: AtomicU64,
}

// === impl Plan ===

impl Default for Plan {
    fn default() -> Self {
        Self {
            sessions: 8,
            requests: None,
            path: "/".into(),
            fields: String::new(),
            pace: Duration::ZERO,
            end_on_close: false,
            record: false,
        }
    }
}

impl Plan {
    /// So many requests over so many sessions.
    pub(crate) fn of(sessions: usize, requests: u64) -> Self {
        Self { sessions, requests: Some(requests), ..Self::default() }
    }
}

// === impl Load ===

impl Load {
    /// Starts it against the proxy at `address`.
    pub(crate) fn start(address: &str, plan: &Plan) -> Self {
        let control =
            Arc::new(Control { stop: AtomicBool::new(false), begun: AtomicU64::new(0), ended: AtomicU64::new(0) });
        let mut sessions = JoinSet::new();
        for _ in 0..plan.sessions {
            sessions.spawn(run(Session::new(address).with(&plan.fields), plan.clone(), Arc::clone(&control)));
        }
        Self { sessions, control }
    }

    /// Runs it to the end of its plan.
    pub(crate) async fn run(address: &str, plan: &Plan) -> Tally {
        assert!(plan.requests.is_some(), "a load without an end has to be stopped");
        Self::start(address, plan).join().await
    }

    /// Responses so far.
    pub(crate) fn responses(&self) -> u64 {
        self.control.ended.load(Ordering::Relaxed)
    }

    /// Returns once `n` more responses came.
    pub(crate) async fn progress(&self, n: u64) {
        let goal = self.responses() + n;
        until("the load to go on", || self.responses() >= goal).await;
    }

    /// Lets the requests in flight end, and counts.
    pub(crate) async fn stop(self) -> Tally {
        self.control.stop.store(true, Ordering::Relaxed);
        self.join().await
    }

    /// Waits for the end of the plan (or of every session), and counts.
    pub(crate) async fn join(self) -> Tally {
        let mut sessions = self.sessions;
        within_time(LOAD_MAX, "the end of the load", async {
            let mut total = Tally::default();
            while let Some(tally) = sessions.join_next().await {
                total.add(tally.expect("a session does not panic"));
            }
            total.records.sort_by_key(|record| record.ended);
            total
        })
        .await
    }
}

async fn run(mut session: Session, plan: Plan, control: Arc<Control>) -> Tally {
    let mut tally = Tally::default();
    while !control.stop.load(Ordering::Relaxed) {
        if plan.requests.is_some_and(|most| control.begun.fetch_add(1, Ordering::Relaxed) >= most) {
            break;
        }
        let (began, began_at) = (clock::now(), clock::unix_time());
        let result = session.try_get(&plan.path).await;
        if plan.record && tally.records.len() < RECORDS_MAX {
            tally.records.push(Record::new(began_at, &result));
        }
        match result {
            Ok(response) => {
                *tally.by_status.entry(response.status).or_default() += 1;
                *tally.by_version.entry(response.version().to_owned()).or_default() += 1;
                tally.responses += 1;
                tally.slowest = tally.slowest.max(began.elapsed());
                control.ended.fetch_add(1, Ordering::Relaxed);
            }
            // Without a connection there is no one to ask again.
            Err(failure) if plan.requests.is_none() && failure.contains("no connection") => break,
            Err(_) => {}
        }
        if plan.end_on_close && !session.connected() {
            break;
        }
        if !plan.pace.is_zero() {
            pause(plan.pace).await;
        }
    }
    let (failed, failures) = session.failures();
    (tally.failed, tally.failures) = (failed, failures.to_vec());
    tally
}

// === impl Record ===

impl Record {
    fn new(began: Duration, result: &Result<Response, String>) -> Self {
        let outcome = match result {
            Ok(response) => Ok((response.status, response.version().to_owned())),
            Err(failure) => Err(failure.clone()),
        };
        Self { began, ended: clock::unix_time(), outcome }
    }

    /// Whether it got a 200.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.outcome, Ok((200, _)))
    }

    /// Whether it was answered by the release `version`.
    pub(crate) fn is_of(&self, version: &str) -> bool {
        self.outcome.as_ref().is_ok_and(|(_, of)| of == version)
    }
}

// === impl Tally ===

impl Tally {
    /// Responses of the release `version`.
    pub(crate) fn of(&self, version: &str) -> u64 {
        self.by_version.get(version).copied().unwrap_or(0)
    }

    /// Fails unless every request got a 200.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.failed, 0, "failed requests: {:?}", self.failures);
        let other: Vec<_> = self.by_status.iter().filter(|(status, _)| **status != 200).collect();
        assert!(other.is_empty(), "responses other than 200: {other:?}");
        assert!(self.responses > 0, "a load that asked nothing shows nothing");
    }

    fn add(&mut self, other: Self) {
        self.responses += other.responses;
        self.failed += other.failed;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_KEPT);
        self.records.extend(other.records);
        for (status, n) in other.by_status {
            *self.by_status.entry(status).or_default() += n;
        }
        for (version, n) in other.by_version {
            *self.by_version.entry(version).or_default() += n;
        }
    }
}
