//! Wiring only: a configuration file becomes a running proxy with a handle to it.

mod background;
mod explain;
mod follow;
mod load;
mod run;

pub use run::run;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::admin::events::Subscribers;
use crate::admin::gather::{self, gather};
use crate::admin::idempotency::Answers;
use crate::admin::kept::Kept;
use crate::admin::records::Records;
use crate::admin::scrape::Scrape;
use crate::admin::{AdminState, Bounds};
use crate::config::settings::{Runtime, Settings};
use crate::control::answer::Refused;
use crate::control::gates::LiveGates;
use crate::control::handle::ControlHandle;
use crate::control::opening::{Opening, Setup};
use crate::control::reload::{Source, file_loader};
use crate::control::writer::Control;
use crate::net::dns;
use crate::net::socket::raise_open_files;
use crate::proxy::worker::Parts;
use crate::proxy::workers::Workers;
use crate::state::counters::ProcessCounters;
use crate::state::lifecycle::{Lifecycle, Phase};
use crate::state::live::Registry;
use crate::store::Store;
use crate::store::keep::Keep;
use crate::telemetry::access::AccessWriter;
use crate::telemetry::log::Log;
use crate::telemetry::process::ProcessStats;
use crate::watch::FileWatch;
use crate::{clock, health};

use follow::Follow;

/// Descriptors the process needs beside two per client connection.
const DESCRIPTORS_SPARE: u64 = 256 + health::PROBES_MAX as u64 + 2 * dns::QUERIES_MAX as u64;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
}

/// Why nothing was started.
#[derive(Debug)]
pub enum StartError {
    /// The file is wrong, or asks for what cannot be had.
    Refused(Refused),
    /// The system refused something; says what.
    System(String),
}

/// Where the proxy can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The admin API: `127.0.0.1:9900` or `unix:/path`.
    pub admin: String,
    /// Where probes and metrics are answered beside it, if anywhere.
    pub probes: Option<String>,
    /// Name and address of every listener.
    pub listeners: Vec<(String, String)>,
}

/// A running proxy.
pub struct Handle {
    /// Where it can be reached.
    pub addresses: Addresses,
    running: Arc<Running>,
}

/// What has to end.
struct Running {
    control: ControlHandle,
    /// `[runtime]` as the process began with it: only a restart changes it.
    runtime: Runtime,
    lifecycle: Lifecycle,
    workers: Workers,
    access: Arc<AccessWriter>,
    log: Arc<Log>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    watch: Mutex<Option<Arc<FileWatch>>>,
    /// Closed once the first round of probes is over.
    first_round: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

/// Everything that exists before the listeners do.
struct Ground {
    settings: Settings,
    opening: Opening,
    store: Arc<Store>,
    registry: Arc<Registry>,
    process: Arc<ProcessCounters>,
    access: Arc<AccessWriter>,
    log: Arc<Log>,
    follow: Arc<Follow>,
}

/// Starts a proxy: everything bound, the first snapshot published, the admin API answering, the first names asked for and the first probes under way. `/readyz` says when
/// they are over.
///
/// # Errors
/// Everything wrong with the file at once, or what the system refused. Nothing keeps running then.
pub fn start(options: &Options) -> Result<Handle, StartError> {
    let ground = ground(options)?;
    let (settings, secret) = (ground.settings, session_secret()?);
    let workers = Workers::start(parts(&ground.opening, &ground.registry, &ground.process, &ground.access, secret))
        .map_err(|error| StartError::System(format!("cannot start workers: {error}")))?;
    let lifecycle = Lifecycle::default();
    let (stop, stopped) = watch::channel(false);
    let (control, control_thread) = match open(ground.opening, &workers, stopped.clone()) {
        Ok(opened) => opened,
        Err(error) => {
            workers.stop();
            workers.join();
            return Err(error);
        }
    };
    let running = Running {
        control: control.clone(),
        runtime: settings.runtime.clone(),
        lifecycle: lifecycle.clone(),
        workers: workers.clone(),
        access: Arc::clone(&ground.access),
        log: Arc::clone(&ground.log),
        stop,
        threads: Mutex::new(vec![control_thread]),
        watch: Mutex::new(None),
        first_round: Mutex::new(None),
    };
    let mut handle = Handle {
        addresses: Addresses { admin: String::new(), probes: None, listeners: Vec::new() },
        running: Arc::new(running),
    };
    *lock(&handle.running.watch) = Some(background::watch_files(&ground.follow, &control)?);
    let sources =
        Metrics { registry: ground.registry, process: ground.process, access: ground.access, log: ground.log };
    let state = AdminState {
        metrics: Scrape::new(sources.renderer(control.clone())),
        explain: explain::explainer(control.current().clone(), control.clone(), secret),
        control: control.clone(),
        lifecycle: lifecycle.clone(),
        answers: answers(&ground.store, &control)?,
        records: Records::new(ground.store),
        subscribers: Subscribers::default(),
        bounds: Bounds::default(),
    };
    // An error drops the handle, which ends everything.
    let served = background::serve_admin(settings.admin.clone(), state, stopped.clone())?;
    lock(&handle.running.threads).push(served.thread);
    let listeners = listeners(&handle.running.control);
    handle.addresses = Addresses { admin: served.admin, probes: served.probes, listeners };
    let (asked, first_round) = std::sync::mpsc::sync_channel(0);
    *lock(&handle.running.first_round) = Some(first_round);
    let (names, names_asked) = oneshot::channel();
    let (dns, stops) = (&settings.runtime.dns, stopped.clone());
    lock(&handle.running.threads).push(background::follow_names(control.clone(), dns, names, stops)?);
    lock(&handle.running.threads).push(background::probe(control, names_asked, lifecycle, asked, stopped)?);
    Ok(handle)
}

fn ground(options: &Options) -> Result<Ground, StartError> {
    let follow = Follow::new(&options.config);
    let load = follow.loader(file_loader(options.config.clone(), |name: &str| std::env::var(name).ok()));
    let settings = load(Source::File).map_err(|problems| StartError::Refused(Refused::Config(problems)))?;
    let (level, format) = load::log_level(&settings.log);
    let log = Log::init(level, format).map_err(|error| StartError::System(format!("cannot log: {error}")))?;
    let log = Arc::new(log);
    // The file was loaded before there was a log to say it in.
    follow::warn_of_readable_tokens(&settings);
    check_descriptors(&settings);
    let access = AccessWriter::start(load::access_log(&settings.log.access), clock::now).map_err(StartError::System)?;
    let access = Arc::new(access);
    // Before anything else is begun: another process may hold it, or it may not be readable.
    let store = Arc::new(Store::open(&settings.state.dir).map_err(|error| StartError::System(error.to_string()))?);
    let began = clock::now();
    let registry = Arc::new(Registry::new(settings.runtime.workers, began));
    let setup = Setup {
        settings: settings.clone(),
        load,
        listening: load::listening(Arc::clone(&log), Arc::clone(&access)),
        registry: Arc::clone(&registry),
        store: Arc::clone(&store) as Arc<dyn Keep>,
        gates: Box::new(LiveGates::new(began, settings.runtime.workers)),
        path: options.config.display().to_string(),
        began,
    };
    let opening = Opening::new(setup).map_err(StartError::Refused)?;
    let process = Arc::new(ProcessCounters::new(settings.runtime.workers));
    Ok(Ground { settings, opening, store, registry, process, access, log, follow })
}

/// Keys session cookies of services without a secret of their own, for the life of the process.
fn session_secret() -> Result<[u8; 32], StartError> {
    let mut secret = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut secret)
        .map_err(|_| StartError::System("the system has no random numbers".to_owned()))?;
    Ok(secret)
}

fn parts(
    opening: &Opening,
    registry: &Arc<Registry>,
    process: &Arc<ProcessCounters>,
    access: &AccessWriter,
    session_secret: [u8; 32],
) -> Vec<Parts> {
    let connector = Arc::new(OnceLock::new());
    let part = |index| Parts {
        index,
        current: opening.current().clone(),
        registry: Arc::clone(registry),
        process: Arc::clone(process),
        session_secret,
        connector: Arc::clone(&connector),
        access: access.worker(),
    };
    (0..process.workers()).map(part).collect()
}

/// Runs control on a thread of its own, from binding the listeners on.
fn open(
    opening: Opening,
    workers: &Workers,
    mut stopped: watch::Receiver<bool>,
) -> Result<(ControlHandle, JoinHandle<()>), StartError> {
    let (told, answer) = std::sync::mpsc::sync_channel(1);
    let plane = Arc::new(workers.clone());
    let thread = thread("control", move |runtime| {
        runtime.block_on(async move {
            let (control, handle): (Control, ControlHandle) = match opening.open(plane).await {
                Ok(opened) => opened,
                Err(refused) => return drop(told.send(Err(refused))),
            };
            if told.send(Ok(handle)).is_ok() {
                tokio::select! {
                    () = control.run() => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            }
        });
    })?;
    match answer.recv() {
        Ok(Ok(handle)) => Ok((handle, thread)),
        Ok(Err(refused)) => Err(StartError::Refused(refused)),
        Err(_) => Err(StartError::System("control ended before it began; see the log".to_owned())),
    }
}

fn thread(
    name: &str,
    body: impl FnOnce(tokio::runtime::Runtime) + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let failed = |error: std::io::Error| StartError::System(format!("cannot start the {name} thread: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || body(runtime)).map_err(failed)
}

fn check_descriptors(settings: &Settings) {
    let (before, now) = raise_open_files();
    let clients: u64 = settings.listeners.iter().map(|l| u64::from(l.limits.max_connections)).sum();
    let needed = 2 * clients + DESCRIPTORS_SPARE;
    if now < needed {
        tracing::warn!(
            before,
            now,
            needed,
            "the limit of open files is too low for listeners.limits.max_connections: raise it (ulimit -n, LimitNOFILE=)"
        );
    }
}

fn listeners(control: &ControlHandle) -> Vec<(String, String)> {
    control.status().listeners.into_iter().map(|listener| (listener.name, listener.bound)).collect()
}

/// What was answered to commands with a key, before this process too.
fn answers(store: &Arc<Store>, control: &ControlHandle) -> Result<Arc<dyn Answers>, StartError> {
    let (store, control) = (Arc::clone(store) as Arc<dyn Keep>, control.clone());
    let present = Arc::new(move |service: &str| control.applied(service));
    let kept = Kept::load(store, clock::unix_time(), present).map_err(|error| StartError::System(error.to_string()))?;
    Ok(Arc::new(kept))
}

/// Where `/metrics` comes from.
struct Metrics {
    registry: Arc<Registry>,
    process: Arc<ProcessCounters>,
    access: Arc<AccessWriter>,
    log: Arc<Log>,
}

impl Metrics {
    fn renderer(self, control: ControlHandle) -> impl Fn() -> String + Send + Sync {
        let started = clock::unix_time();
        move || {
            let (last, counts) = (control.last_reload(), control.reload_counts());
            let facts = gather::Facts {
                version: env!("CARGO_PKG_VERSION"),
                started,
                workers: self.process.workers(),
                reloads: gather::Reloads {
                    succeeded: counts.applied + counts.unchanged,
                    failed: counts.refused,
                    last_successful: last.ok,
                    last_at: Duration::from_millis(last.at_ms),
                },
                ended: control.tally(),
                detections: control.detections(),
                rollouts: control.latest_rollouts(),
                names: control.names().counts(),
                access_log: self.access.stats(),
                log_dropped: self.log.dropped(),
                process: ProcessStats::read(),
            };
            let text = gather(&control.current().load(), &self.registry, &self.process, &facts);
            text.unwrap_or_else(|error| format!("# {error}\n"))
        }
    }
}

// === impl Handle ===

impl Handle {
    /// The single writer.
    #[must_use]
    pub fn control(&self) -> &ControlHandle {
        &self.running.control
    }

    /// Blocks until the first round of probes is over, which `/readyz` tells, too.
    pub fn wait_ready(&self) {
        if let Some(first_round) = lock(&self.running.first_round).take() {
            // Nothing is ever sent: the sender goes when the round is over, or the thread ends.
            let _ = first_round.recv();
        }
    }

    /// Lets log files go and opens their names anew.
    pub fn reopen_logs(&self) {
        self.running.access.reopen();
    }

    /// Stops as `[runtime]` says: not ready at once, accepting for `accept_grace`, answering on connections there are, gone when none
    /// is left or `drain_timeout` is over.
    pub async fn drain(&self) {
        self.running.drain().await;
    }

    /// Begins to drain, on a thread of its own; [`Handle::join`] waits for the end.
    pub fn shutdown(&self) {
        let running = Arc::clone(&self.running);
        match thread("drain", move |runtime| runtime.block_on(running.drain())) {
            Ok(thread) => lock(&self.running.threads).push(thread),
            Err(error) => {
                tracing::error!(%error, "cannot drain, so everything ends at once");
                self.kill();
            }
        }
    }

    /// Ends everything at once.
    pub fn kill(&self) {
        self.running.kill();
    }

    /// Waits until everything has ended, after [`Handle::shutdown`] or [`Handle::kill`]; then writes the last log lines.
    pub fn join(&self) {
        self.running.join();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !lock(&self.running.threads).is_empty() {
            self.kill();
            self.join();
        }
    }
}

// === impl Running ===

impl Running {
    async fn drain(&self) {
        self.lifecycle.advance(Phase::Draining);
        let runtime = &self.runtime;
        tracing::info!(timeout = ?runtime.drain_timeout, "draining");
        let all = async {
            tokio::time::sleep(runtime.accept_grace).await;
            let now = clock::now();
            self.workers.drain(now, now + runtime.idle_grace).await;
            self.workers.finished().await;
        };
        if tokio::time::timeout(runtime.drain_timeout, all).await.is_err() {
            tracing::warn!("the drain timeout is over: what is left is cut");
        }
        self.kill();
    }

    fn kill(&self) {
        self.workers.stop();
        self.stop.send_replace(true);
        drop(lock(&self.watch).take());
    }

    fn join(&self) {
        let threads = || lock(&self.threads).pop();
        while let Some(thread) = threads() {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
        self.workers.join();
        if !self.access.close() {
            tracing::warn!("the access log could not be written to its end");
        }
        tracing::info!("stopped");
        // What could not be written in time cannot be reported either.
        let _ = self.log.close();
    }
}

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::System(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for StartError {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
