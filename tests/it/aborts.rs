//! From an abort to the last attempt on the candidate, under load: whatever the disk does, and whoever reads slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate::clock;
use tokio::task::JoinSet;

use crate::harness::client::{Client, Session};
use crate::harness::config::Config;
use crate::harness::proxy::Process;
use crate::harness::soak;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{WAIT_MAX, eventually, until};

/// Services of one process; each is aborted once.
const SERVICES: usize = 50;
/// Sessions that ask one of them as fast as they can.
const SESSIONS: usize = 4;
/// Requests on the candidate before it is aborted.
const BUSY: usize = 5;
/// Requests after the abort in which none may reach the candidate.
const AFTER: usize = 40;
/// 99.9 % of aborts take no longer until the last attempt, optimised and on an idle machine (`make soak`).
const LAST_MAX: Duration = Duration::from_millis(10);
/// The same for an unoptimised build beside other tests.
const LAST_MAX_SLOW: Duration = Duration::from_millis(400);
/// Commands until the disk is taken to work after all.
const FILL_MAX: usize = 2_000;

/// Services at half the traffic each, and a load on one at a time.
struct World {
    process: Process,
    _stable: Upstream,
    candidate: Upstream,
    asked: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    _load: JoinSet<()>,
}

impl World {
    async fn start(faults: &[String]) -> Self {
        let (stable, candidate) =
            (Upstream::start(Behaviour::version("v1")).await, Upstream::start(Behaviour::version("v2")).await);
        let config = |base: Config| {
            (0..=SERVICES).fold(base.limits("max_requests = 1000000"), |config, n| {
                let (service, steps) = (format!("s{n}"), "steps = [{ weight = \"50%\", hold = \"30m\" }]");
                config
                    .route(&format!("path = \"/s{n}\"\nservice = \"{service}\""))
                    .pools(&service, ("v1", &[&stable.address()]), ("v2", &[&candidate.address()]))
                    .set(&format!("services.{service}.rollout"), &format!("on_empty_store = \"start\"\n{steps}"))
            })
        };
        let mut process = Process::start(config).await;
        process.kill().await;
        assert!(process.start_again_with(faults).await, "{}", process.log());
        eventually(WAIT_MAX, "every rollout to begin", || async {
            let services = process.admin.json("/v1/services").await;
            let weights = services["services"].as_array().expect("services").iter().map(|s| s["weight"].clone());
            weights.into_iter().all(|weight| weight == "50%").then_some(())
        })
        .await;
        let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut load = JoinSet::new();
        for _ in 0..SESSIONS {
            let (mut session, asked, answered) =
                (Session::new(&process.address()), Arc::clone(&asked), Arc::clone(&answered));
            load.spawn(async move {
                loop {
                    let path = format!("/s{}", asked.load(Ordering::Relaxed));
                    session.get(&path).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { process, _stable: stable, candidate, asked, answered, _load: load }
    }

    /// Commands to a service that is not aborted, until one is not written down.
    async fn until_nothing_is_written(&self) {
        for n in 0..FILL_MAX {
            let weight = format!("{{\"weight\":\"{}%\"}}", 20 + n % 20);
            let answer = self.process.admin.post(&format!("/v1/services/s{SERVICES}/weight"), &weight).await;
            if answer.status != 200 {
                assert!(matches!(answer.status, 500 | 507), "{}", answer.text());
                return;
            }
        }
        panic!("{FILL_MAX} commands were written down");
    }

    /// Aborts one service after the other; how long it took from each to the last attempt on its candidate.
    async fn abort_all(&self, persisted: bool) -> Vec<Duration> {
        let mut took = Vec::new();
        for n in 0..SERVICES {
            self.asked.store(n, Ordering::Relaxed);
            let (path, before) = (format!("/s{n}"), self.candidate.arrived());
            until("the candidate to be busy", || {
                self.candidate.latest(&path).is_some() && self.candidate.arrived() >= before + BUSY
            })
            .await;
            let began = clock::now();
            let answer = self.process.admin.post(&format!("/v1/services/s{n}/abort"), "{}").await;
            let answered = clock::now();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let said: Value = serde_json::from_str(answer.text()).expect("JSON");
            assert_eq!((said["weight"].as_str(), said["settled"].as_bool()), (Some("0%"), Some(true)));
            assert_eq!(said["persisted"], persisted, "{said}");
            let goal = self.answered.load(Ordering::Relaxed) + AFTER;
            until("the load to go on", || self.answered.load(Ordering::Relaxed) >= goal).await;
            let last = self.candidate.latest(&path).expect("it was busy");
            took.push(last.saturating_duration_since(began));
            // What was on its way has arrived by now; nothing else may.
            let (reached, goal) = (self.candidate.latest(&path), self.answered.load(Ordering::Relaxed) + AFTER);
            until("the load to go on", || self.answered.load(Ordering::Relaxed) >= goal).await;
            assert_eq!(self.candidate.latest(&path), reached, "service {n}: an attempt began after the answer");
            assert!(last.saturating_duration_since(answered) < LAST_MAX_SLOW, "service {n}");
        }
        took
    }
}

/// Aborts under such faults, in as many processes as the long version wants.
async fn measure(name: &str, faults: &[&str], persisted: bool, prepare: impl AsyncFn(&World)) {
    let (rounds, bound) = if soak() { (1_000 / SERVICES, LAST_MAX) } else { (1, LAST_MAX_SLOW) };
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let mut took = Vec::new();
    for _ in 0..rounds {
        let world = World::start(&faults).await;
        prepare(&world).await;
        took.extend(world.abort_all(persisted).await);
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 1_000).min(took.len() - 1)];
    println!("{name}: {} aborts, p50 {:?}, p99.9 {:?}", took.len(), at(500), at(999));
    assert!(at(999) <= bound, "{name}: p99.9 {:?}", at(999));
}

#[tokio::test]
async fn the_last_attempt_is_a_moment_after_the_abort() {
    measure("a disk that works", &[], true, async |_| {}).await;
}

#[tokio::test]
async fn a_full_disk_delays_no_abort() {
    let full = "pwrite64:error=ENOSPC:when=800+";
    measure("a disk that is full", &[full], false, async |world| world.until_nothing_is_written().await).await;
}

#[tokio::test]
async fn a_disk_that_cannot_sync_delays_no_abort() {
    let fails = "fdatasync,fsync:error=EIO:when=300+";
    measure("a disk that fails to sync", &[fails], false, async |world| world.until_nothing_is_written().await).await;
}

/// Who reads the audit and the events byte by byte holds up nobody.
#[tokio::test]
async fn slow_readers_delay_no_abort() {
    measure("readers that do not read", &[], true, async |world| {
        for path in ["/v1/audit?after=0", "/v1/events?after=0", "/v1/status"] {
            let mut client = Client::connect(&world.process.admin.address).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            // Never read, and open until the end.
            std::mem::forget(client);
        }
    })
    .await;
}
