//! The process is killed at random moments of rollouts under load, and at each of its writes: what was acknowledged is there, what runs
//! after it is what was written, and the audit is whole.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate::control::ledger;
use tidegate::core::roles::Roles;
use tidegate::store::Store;

use super::{HELD, Releases, web};
use crate::harness::client::{Load, Plan};
use crate::harness::proxy::{Admin, Process};
use crate::harness::soak;

const VERBS: [(&str, &str); 9] = [
    ("rollouts", "{}"),
    ("promote", "{\"to\":\"next\"}"),
    ("weight", "{\"weight\":\"7%\"}"),
    ("weight", "{\"weight\":\"33%\"}"),
    ("pause", "{}"),
    ("resume", "{}"),
    ("abort", "{}"),
    ("retry", "{\"reason\":\"again\"}"),
    ("rollback", "{}"),
];
/// Most requests between two kills.
const LIFE_MAX: u64 = 150;
/// Most writes of a start, a promotion and an abort together.
const WRITES_MAX: usize = 200;

/// What an operator was told: by revision, the weight.
#[derive(Default)]
struct Told {
    weights: BTreeMap<u64, String>,
    /// Commands that were acknowledged.
    count: u64,
}

// === impl Told ===

impl Told {
    /// Takes in the answer to a verb. One whose record had not landed promises nothing.
    fn hear(&mut self, answer: &Value) {
        if answer["persisted"] == false {
            return;
        }
        let revision = answer["revision"].as_u64().expect("a revision");
        self.weights.insert(revision, answer["weight"].as_str().expect("a weight").to_owned());
        self.count += 1;
    }

    /// Fails if the store has forgotten any of it.
    fn check(&self, stored: &Roles) {
        let Some((revision, weight)) = self.weights.last_key_value() else { return };
        assert!(stored.revision >= *revision, "acknowledged at revision {revision}, the store has {}", stored.revision);
        if stored.revision == *revision {
            assert_eq!(stored.weight().to_string(), *weight, "at revision {revision}");
        }
    }
}

/// Random commands until the process is gone.
async fn operate(admin: Admin, seed: u64) -> Told {
    let (mut random, mut told) = (fastrand::Rng::with_seed(seed), Told::default());
    loop {
        let (verb, body) = VERBS[random.usize(..VERBS.len())];
        let Some(answer) = admin.try_post(&format!("/v1/services/web/{verb}"), body).await else { return told };
        if matches!(answer.status, 200 | 201) {
            told.hear(&serde_json::from_str(answer.text()).expect("JSON"));
        }
    }
}

/// What the store has of `web`, whose audit has to be whole.
fn stored(process: &Process) -> Roles {
    let store = Store::open(&process.dir.path().join("state")).expect("whatever happened, it opens");
    store.verify_audit().expect("it is read").expect("the audit is whole");
    let mut stored = ledger::load(&store).expect("whatever happened, it is understood");
    let (_, web) = stored.roles.pop_first().expect("web");
    web
}

/// What runs is what was written, at most.
async fn check_running(process: &Process, stored: &Roles) {
    let web = web(process).await;
    let weight: f64 = web["weight"].as_str().and_then(|text| text.strip_suffix('%')?.parse().ok()).expect("a weight");
    assert!(weight <= stored.weight().fraction() * 100.0 + 1e-9, "{weight} % runs, {} is written", stored.weight());
    assert!(web["revision"].as_u64() >= Some(stored.revision), "{web}");
    assert_eq!(web["stable"]["version"].as_str(), Some(stored.stable.version.as_str()));
}

#[tokio::test]
async fn kills_at_random_moments_lose_nothing_that_was_acknowledged() {
    let rounds = if soak() { 500 } else { 50 };
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let releases = Releases::start().await;
    let mut process = releases.process().await;
    process.reload_ok(&releases.changed(&process, 1, 2)).await;
    let mut acknowledged = 0;
    for round in 0..rounds {
        let load = Load::start(&process.address(), &Plan { sessions: 2, ..Plan::default() });
        let operators = [0, 1].map(|n| tokio::spawn(operate(process.admin.clone(), seed ^ (round * 2 + n))));
        load.progress(random.u64(1..LIFE_MAX)).await;
        process.kill().await;
        let mut tellings = Vec::new();
        for operator in operators {
            tellings.push(operator.await.expect("an operator does not panic"));
        }
        drop(load);
        let stored = stored(&process);
        for told in &tellings {
            told.check(&stored);
            acknowledged += told.count;
        }
        process.start_again().await;
        check_running(&process, &stored).await;
        // Three restarts within ten minutes make it wait, as they should.
        process.admin.try_post("/v1/services/web/resume", "{}").await;
    }
    println!("{acknowledged} commands were acknowledged in {rounds} lives");
    assert!(acknowledged > rounds, "{acknowledged} commands in {rounds} lives");
}

#[tokio::test]
async fn a_kill_at_any_write_leaves_the_state_before_or_after() {
    let releases = Releases::start().await;
    let plan = HELD.replace("5%", "10%");
    let mut process =
        Process::start(|base| releases.file(&base, 1, 2).set("services.web.rollout", &plan).route("service = \"web\""))
            .await;
    let started = process.admin.post("/v1/services/web/rollouts", "{}").await;
    assert!(matches!(started.status, 200 | 201), "{}", started.text());
    process.kill().await;
    let mut killed = 0;
    for nth in 1..WRITES_MAX {
        let before = stored(&process);
        let fault = format!("pwrite64,fdatasync,fsync:signal=KILL:when={nth}");
        let mut told = Told::default();
        let mut survived = process.start_again_with(&[fault]).await;
        for (verb, body) in [("weight", format!("{{\"weight\":\"{}%\"}}", 11 + nth % 60)), ("pause", "{}".to_owned())] {
            if !survived {
                break;
            }
            match process.admin.try_post(&format!("/v1/services/web/{verb}"), &body).await {
                Some(answer) if answer.status == 200 => told.hear(&serde_json::from_str(answer.text()).expect("JSON")),
                Some(answer) => panic!("{verb}: {}", answer.text()),
                None => survived = false,
            }
        }
        if survived {
            process.kill().await;
        } else {
            process.exit().await;
            killed += 1;
        }
        let after = stored(&process);
        told.check(&after);
        assert!(after.revision >= before.revision);
        if survived {
            // It did both without so many writes.
            println!("killed at each of {killed} writes");
            assert!(killed > 5, "{killed} kills");
            return;
        }
    }
    panic!("more than {WRITES_MAX} writes");
}
