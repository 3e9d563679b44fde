//! A data plane and a file for tests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::settings::{
    AccessLog, Admin, Dns, Limits, ListenAddress, Listener, Log, LogFormat, LogLevel, Runtime, Settings, State,
    Underscores,
};
use crate::core::id::Name;
use crate::core::service::Service;
use crate::core::weight::Weight;
use crate::state::current::Current;
use crate::state::fixture::{route, service};
use crate::state::live::Registry;

use super::answer::{Problem, Refused};
use super::handle::ControlHandle;
use super::plane::{DataPlane, Pending, Prepared};
use super::reload::Source;
use super::writer::{Control, Opening, Setup};

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
}

/// Starts control on `first`, on the runtime of the caller.
pub(crate) async fn start(first: Settings) -> Bench {
    let (bench, control) = open(first).await.expect("opens");
    tokio::spawn(control.run());
    bench
}

/// As [`start`], but the writer is for the caller to run.
pub(crate) async fn open(first: Settings) -> Result<(Bench, Control), Refused> {
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
        path: "tidegate.toml".to_owned(),
        began: clock::now(),
        next_rollout: 1,
    })?;
    let current = opening.current().clone();
    let (control, handle) = opening.open(Arc::new(Arc::clone(&plane))).await?;
    Ok((Bench { plane, file, current, handle, told, refusal, registry }, control))
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
