//! A data plane, a store and a file for tests.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::settings::{
    AccessLog, Admin, Dns, Limits, ListenAddress, Listener, Log, LogFormat, LogLevel, Runtime, Settings, State,
    Underscores,
};
use crate::core;
use crate::core::gate::{GateConfig, History, Layout};
use crate::core::id::Name;
use crate::core::rollout::wanted::Terms;
use crate::core::service::Service;
use crate::core::weight::Weight;
use crate::state::current::{Current, Routing};
use crate::state::fixture::{route, service};
use crate::state::live::Registry;
use crate::store::audit::{Draft, Entry, NOTHING_BEFORE, digest_of};
use crate::store::keep::Keep;
use crate::store::{Change, Record, StoreError, Table};

use super::answer::{Problem, Refused};
use super::gate::{Gates, NotWatched, Proof, Seen};
use super::gates::{Evidence, LiveGates, Stored};
use super::handle::ControlHandle;
use super::opening::{Opening, Setup};
use super::plane::{DataPlane, Pending, Prepared};
use super::reload::Source;
use super::writer::Control;

/// A data plane that records what it is asked and can be told to fail or to wait.
pub(crate) struct FakePlane {
    pub(crate) calls: Mutex<Vec<String>>,
    pub(crate) prepare_error: Mutex<Option<String>>,
    /// While shut, `prepare` blocks.
    pub(crate) prepare_gate: Gate,
    /// Told when `prepare` begins.
    pub(crate) preparing: Notify,
    /// While false, `settled` waits.
    pub(crate) settles: watch::Sender<bool>,
    /// Whether every worker answers.
    pub(crate) all_settle: AtomicBool,
    /// Told when `settled` is asked for.
    pub(crate) settling: Notify,
}

/// Blocks threads while it is shut.
#[derive(Default)]
pub(crate) struct Gate(Mutex<bool>, Condvar);

/// A store in memory that can be told to fail or to hang.
#[derive(Default)]
pub(crate) struct FakeStore {
    records: Mutex<BTreeMap<(&'static str, String), Record>>,
    pub(crate) audit: Mutex<Vec<Draft>>,
    pub(crate) fails: Mutex<Option<io::ErrorKind>>,
    /// While set, commits fail although all of it lands.
    pub(crate) fails_late: Mutex<Option<io::ErrorKind>>,
    /// While set, commits panic.
    pub(crate) panics: AtomicBool,
    /// Counts the commits that were asked for.
    pub(crate) tries: watch::Sender<u64>,
    /// While shut, commits hang.
    pub(crate) gate: Gate,
}

/// A gate that says what it is told to say.
#[derive(Clone, Default)]
pub(crate) struct FakeGates {
    pub(crate) said: Arc<Mutex<Said>>,
    /// Counts the ticks.
    pub(crate) ticks: Arc<watch::Sender<u64>>,
}

/// What the gate was asked, and what it says.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) asked: Vec<String>,
    pub(crate) seen: Vec<(usize, Seen)>,
}

struct FakePrepared(Arc<FakePlane>, Vec<ListenAddress>);

/// What "the file" holds now.
pub(crate) type File = Arc<Mutex<Result<Settings, Vec<Problem>>>>;

/// Control with all that is around it.
pub(crate) struct Bench {
    pub(crate) plane: Arc<FakePlane>,
    pub(crate) file: File,
    pub(crate) current: Current,
    pub(crate) handle: ControlHandle,
    /// Numbers of services that the other parts took over.
    pub(crate) told: Arc<Mutex<Vec<usize>>>,
    /// Why the other parts refuse what is prepared next.
    pub(crate) refusal: Arc<Mutex<Option<String>>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) gates: FakeGates,
}

/// Starts control on `first`, on the runtime of the caller.
pub(crate) async fn start(first: Settings) -> Bench {
    let (bench, control) = open(first).await.expect("opens");
    tokio::spawn(control.run());
    bench
}

/// As [`start`], but the writer is for the caller to run.
pub(crate) async fn open(first: Settings) -> Result<(Bench, Control), Refused> {
    open_with(first, Arc::default()).await
}

/// As [`open`], going on from `store`.
pub(crate) async fn open_with(first: Settings, store: Arc<FakeStore>) -> Result<(Bench, Control), Refused> {
    let gates = FakeGates::default();
    open_gated(first, store, gates.clone(), Box::new(gates)).await
}

/// As [`open_with`], with gates that look at what is counted.
pub(crate) async fn open_live(first: Settings, store: Arc<FakeStore>) -> Result<(Bench, Control), Refused> {
    open_gated(first, store, FakeGates::default(), Box::new(LiveGates::new(clock::now(), 1))).await
}

async fn open_gated(
    first: Settings,
    store: Arc<FakeStore>,
    fake: FakeGates,
    gates: Box<dyn Gates>,
) -> Result<(Bench, Control), Refused> {
    let plane = FakePlane::new();
    let file: File = Arc::new(Mutex::new(Ok(first.clone())));
    let (read, told) = (Arc::clone(&file), Arc::new(Mutex::new(Vec::new())));
    let (tell, refusal) = (Arc::clone(&told), Arc::new(Mutex::new(None::<String>)));
    let refuse = Arc::clone(&refusal);
    let registry = Arc::new(Registry::new(1, clock::now()));
    let opening = Opening::new(Setup {
        settings: first,
        load: Arc::new(move |source| match source {
            Source::File | Source::Check => lock(&read).clone(),
            Source::Text(text) => Err(vec![Problem { line: Some(1), ..Problem::of(format!("not a file: {text}")) }]),
        }),
        listening: Arc::new(move |settings| {
            if let Some(why) = lock(&refuse).clone() {
                return Err(vec![Problem::of(why)]);
            }
            let (tell, services) = (Arc::clone(&tell), settings.services.len());
            Ok(Box::new(move || lock(&tell).push(services)))
        }),
        registry: Arc::clone(&registry),
        store: Arc::new(Arc::clone(&store)),
        gates,
        path: "tidegate.toml".to_owned(),
        began: clock::now(),
    })?;
    let current = opening.current().clone();
    let (control, handle) = opening.open(Arc::new(Arc::clone(&plane))).await?;
    Ok((Bench { plane, file, current, handle, told, refusal, registry, store, gates: fake }, control))
}

/// Settings with one listener, a route per service, and `services`.
pub(crate) fn settings(services: Vec<Arc<Service>>) -> Settings {
    let routes = services.iter().map(|service| route(&format!("/{}", service.name), service.name.as_str())).collect();
    let address = |port: u16| ListenAddress::Tcp(([127, 0, 0, 1], port).into());
    Settings {
        admin: Admin::default(),
        state: State { dir: "state".into() },
        runtime: Runtime {
            workers: 1,
            drain_timeout: Duration::from_secs(30),
            accept_grace: Duration::ZERO,
            idle_grace: Duration::from_secs(5),
            dns: Dns::default(),
        },
        log: Log {
            level: LogLevel::Info,
            format: None,
            access: AccessLog { enabled: false, path: None, format: LogFormat::Json, sample: Weight::FULL },
        },
        listeners: vec![Listener {
            name: Name::new("public").expect("name"),
            listen: address(0),
            tls: None,
            trusted_proxies: Vec::new(),
            underscores: Underscores::Drop,
            limits: Limits::default(),
        }],
        routes,
        services,
    }
}

/// Settings with service `web` (v1, candidate v2) and service `api` (v1 only).
pub(crate) fn web_and_api() -> Settings {
    settings(vec![service("api", 1, None), service("web", 2, Some(("v2", 1)))])
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Bench ===

impl Bench {
    /// Writes "the file".
    pub(crate) fn write(&self, settings: Settings) {
        *lock(&self.file) = Ok(settings);
    }

    /// The live switch of `service`.
    pub(crate) fn is_open(&self, service: &str) -> bool {
        let routing = self.current.load();
        let (index, _) = routing.snapshot.service(service).expect("known service");
        routing.live[index].is_candidate_open()
    }
}

// === impl FakeStore ===

impl Keep for Arc<FakeStore> {
    fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        self.tries.send_modify(|tries| *tries += 1);
        self.gate.pass();
        assert!(!self.panics.load(Ordering::Relaxed), "as the test asked");
        if let Some(kind) = *lock(&self.fails) {
            return Err(StoreError::Io { path: "store".into(), source: kind.into() });
        }
        let mut records = lock(&self.records);
        for (table, key, record) in &change.put {
            records.insert((name(*table), key.clone()), record.clone());
        }
        for (table, key) in &change.remove {
            records.remove(&(name(*table), key.clone()));
        }
        records.retain(|(kept, key), _| {
            !change.cut.iter().any(|(table, keys)| name(*table) == *kept && keys.contains(key))
        });
        let mut audit = lock(&self.audit);
        audit.extend(change.audit.iter().cloned());
        match *lock(&self.fails_late) {
            Some(kind) => Err(StoreError::Io { path: "store".into(), source: kind.into() }),
            None => Ok(audit.len() as u64),
        }
    }

    fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError> {
        let records = lock(&self.records);
        let of_table = records.iter().filter(|((kept, _), _)| *kept == name(table));
        Ok(of_table.map(|((_, key), record)| (key.clone(), record.clone())).collect())
    }

    fn get(&self, table: Table, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(lock(&self.records).get(&(name(table), key.to_owned())).cloned())
    }

    fn audit(&self, seq: u64, count: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let (mut entries, mut previous) = (Vec::new(), NOTHING_BEFORE.to_owned());
        for (seq, what) in (1..).zip(lock(&self.audit).iter().cloned()) {
            let bytes = serde_json::to_vec(&Entry { seq, previous, what }).expect("text");
            previous = digest_of(&bytes);
            entries.push((seq, bytes));
        }
        Ok(entries.into_iter().filter(|(at, _)| *at > seq).take(count).collect())
    }
}

fn name(table: Table) -> &'static str {
    match table {
        Table::Services => "services",
        Table::Process => "process",
        Table::Memories => "memories",
        Table::Rollouts => "rollouts",
        Table::Idempotency => "idempotency",
        Table::Outbox => "outbox",
        Table::Evidence => "evidence",
    }
}

impl FakeStore {
    /// Makes the record called `key` unreadable.
    pub(crate) fn spoil(&self, key: &str) {
        if let Some(record) = lock(&self.records).get_mut(&("services", key.to_owned())) {
            record.bytes.truncate(3);
        }
    }

    /// Makes what is kept of the gate of `service` unreadable.
    pub(crate) fn spoil_evidence(&self, service: &str) {
        if let Some(record) = lock(&self.records).get_mut(&("evidence", service.to_owned())) {
            record.bytes.truncate(3);
        }
    }

    /// Returns once a commit was asked for that came after `before` others.
    pub(crate) async fn tried(&self, before: u64) {
        self.tries.subscribe().wait_for(|tries| *tries > before).await.expect("it lives as long as self");
    }

    /// The verbs in the audit.
    pub(crate) fn verbs(&self) -> Vec<String> {
        lock(&self.audit).iter().map(|draft| draft.verb.clone()).collect()
    }
}

// === impl FakeGates ===

impl FakeGates {
    /// Returns after `count` more ticks; what the last but one brought is there by then.
    pub(crate) async fn tick(&self, count: u64) {
        let mut ticks = self.ticks.subscribe();
        let until = *ticks.borrow_and_update() + count;
        ticks.wait_for(|ticks| *ticks >= until).await.expect("it lives as long as self");
    }

    /// What it was asked since the last time.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.said).asked)
    }

    fn ask(&self, what: String) {
        lock(&self.said).asked.push(what);
    }
}

impl Gates for FakeGates {
    fn follow(&mut self, _: &Routing) {}

    fn begin(&mut self, service: &Name, rollout: u64, _: &GateConfig, _: Instant) -> Result<(), NotWatched> {
        self.ask(format!("begin {service} {rollout}"));
        Ok(())
    }

    fn restore(&mut self, service: &Name, stored: Stored, _: Instant) -> Result<(), NotWatched> {
        self.ask(format!("restore {service} {}", stored.rollout));
        Ok(())
    }

    fn step(&mut self, service: &Name, step: usize, _: Duration) {
        self.ask(format!("step {service} {step}"));
    }

    fn report(&mut self, service: &Name) {
        self.ask(format!("report {service}"));
    }

    fn end(&mut self, service: &Name) {
        self.ask(format!("end {service}"));
    }

    fn install(&mut self, _: &mut Routing) {}

    fn is_due(&self, _: &Routing) -> bool {
        false
    }

    fn is_watched(&self, _: &Name, _: u64) -> bool {
        true
    }

    fn proof(&self, _: &Name) -> Option<Proof> {
        Some(Proof {
            words: "seven of seven".to_owned(),
            numbers: json!({ "S": 7 }),
            after: Some(Duration::from_millis(150)),
        })
    }

    fn evidence(&self, _: &Name) -> Option<Evidence> {
        let config = Terms::default().gate;
        let history = History::new(&Layout::new(&config));
        let report = core::gate::Gate::new(config, &history, 0).ok()?.report();
        Some(Evidence { rollout: 1, step: 0, running: true, detected_after_ms: None, report, endpoints: Vec::new() })
    }

    fn state(&self, _: &Name) -> Option<Stored> {
        None
    }

    fn tick(&mut self, _: &Routing, _: Instant) -> Vec<(usize, Seen)> {
        self.ticks.send_modify(|ticks| *ticks += 1);
        lock(&self.said).seen.clone()
    }
}

// === impl FakePlane ===

impl FakePlane {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            prepare_error: Mutex::default(),
            prepare_gate: Gate::default(),
            preparing: Notify::new(),
            settles: watch::Sender::new(true),
            all_settle: AtomicBool::new(true),
            settling: Notify::new(),
        })
    }

    /// What it was asked since the last time, in order.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.calls))
    }

    fn call(&self, what: &str) {
        lock(&self.calls).push(what.to_owned());
    }
}

impl DataPlane for Arc<FakePlane> {
    fn prepare(&self, wanted: &[Arc<Listener>]) -> Result<Box<dyn Prepared>, String> {
        self.call("prepare");
        self.preparing.notify_one();
        self.prepare_gate.pass();
        if let Some(error) = lock(&self.prepare_error).clone() {
            assert!(error != "panic", "as the test asked");
            return Err(error);
        }
        let bound = (1_u16..).map(|i| ListenAddress::Tcp(([127, 0, 0, 1], 40_000 + i).into()));
        Ok(Box::new(FakePrepared(Arc::clone(self), bound.take(wanted.len()).collect())))
    }

    fn settled(&self) -> Pending<bool> {
        self.call("settled");
        self.settling.notify_one();
        let (mut settles, plane) = (self.settles.subscribe(), Arc::clone(self));
        Box::pin(async move {
            settles.wait_for(|&settles| settles).await.expect("plane lives");
            plane.all_settle.load(Ordering::Relaxed)
        })
    }
}

impl Prepared for FakePrepared {
    fn commit(self: Box<Self>) -> Pending<()> {
        self.0.call("commit");
        Box::pin(async {})
    }

    fn addresses(&self) -> Vec<ListenAddress> {
        self.1.clone()
    }
}

// === impl Gate ===

impl Gate {
    pub(crate) fn shut(&self) {
        *lock(&self.0) = true;
    }

    pub(crate) fn open(&self) {
        *lock(&self.0) = false;
        self.1.notify_all();
    }

    fn pass(&self) {
        let shut = lock(&self.0);
        drop(self.1.wait_while(shut, |shut| *shut).unwrap_or_else(PoisonError::into_inner));
    }
}
