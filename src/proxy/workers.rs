//! All workers together, as control sees them: threads, listeners, acknowledgements.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ServerConfig;

use crate::config::settings::{ListenAddress, Listener};
use crate::control::plane::{DataPlane, Pending, Prepared};
use crate::net::socket::{self, Address, Bound, ListenSpec, SocketFile};
use crate::net::tls::{self, CertPem};

use super::listener::ListenerLive;
use super::worker::{self, COMMANDS_MAX, Command, Parts};

/// Longest wait for a worker to acknowledge a snapshot, or to take commands. A healthy one needs microseconds.
pub const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Mode of a listener's unix socket: whoever may enter its folder may connect, whatever the umask, like a port on loopback.
const UNIX_MODE: u32 = 0o666;

/// The workers of the process.
#[derive(Clone)]
pub struct Workers(Arc<Shared>);

struct Shared {
    senders: Mutex<Vec<mpsc::Sender<Command>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    running: Arc<AtomicUsize>,
    listeners: Mutex<BTreeMap<Key, Entry>>,
    finished: tokio::sync::Notify,
    /// Ends the workers at once. Not by closing their queues: a command on its way may hold one open.
    stop: watch::Sender<bool>,
}

/// What makes a listener the same one: its address, and its name where the address is any free port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(ListenAddress, Option<String>);

struct Entry {
    live: Arc<ListenerLive>,
    bound: ListenAddress,
    file: Option<SocketFile>,
}

/// A worker and what it is to be told.
type Told = (mpsc::Sender<Command>, Vec<Command>);

struct Change {
    workers: Workers,
    steps: Vec<Step>,
}

enum Step {
    Keep { key: Key, bound: ListenAddress, settings: Arc<Listener>, tls: Option<Arc<ServerConfig>> },
    Add { key: Key, bound: Bound, settings: Arc<Listener>, tls: Option<Arc<ServerConfig>> },
}

// === impl Workers ===

impl Workers {
    /// Starts one thread per element of `parts`.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made.
    pub fn start(parts: Vec<Parts>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            senders: Mutex::default(),
            threads: Mutex::default(),
            running: Arc::new(AtomicUsize::new(parts.len())),
            listeners: Mutex::default(),
            finished: tokio::sync::Notify::new(),
            stop: watch::Sender::new(false),
        });
        for parts in parts {
            let (sender, commands) = mpsc::channel(COMMANDS_MAX);
            let (gone, stopped) = (Gone(Arc::clone(&shared)), shared.stop.subscribe());
            let (told, ready) = sync_channel(1);
            let name = format!("worker-{}", parts.index);
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                // Its tasks stay on this thread without the detour of a `LocalSet`, which costs two hundred instructions per wake-up.
                let built =
                    tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                let (runtime, outcome) = match built {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // Whoever starts the workers waits for this.
                let _ = told.send(outcome);
                if let Some(runtime) = runtime {
                    runtime.block_on(worker::run(parts, commands, stopped));
                }
                drop(gone);
            })?;
            ready.recv().map_err(|_| io::Error::other("a worker did not start"))??;
            lock(&shared.senders).push(sender);
            lock(&shared.threads).push(thread);
        }
        Ok(Self(shared))
    }

    /// Removes the files of unix sockets, then tells every worker to finish: accept until `accept_until`, keep idle client connections
    /// until `idle_until`. Takes at most [`SETTLE_MAX`].
    pub async fn drain(&self, accept_until: Instant, idle_until: Instant) {
        // First the files: no new client finds a socket then whose queue is being emptied.
        lock(&self.0.listeners).values_mut().for_each(|entry| drop(entry.file.take()));
        let drain = || vec![Command::Drain { accept_until, idle_until }];
        let commands = self.senders().into_iter().map(|sender| (sender, drain()));
        tell(commands.collect(), "it goes on until the drain timeout is over").await;
    }

    /// Resolves when every worker has finished.
    pub async fn finished(&self) {
        loop {
            let notified = self.0.finished.notified();
            if self.0.running.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Ends every worker at once; what is in flight is cut.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
        lock(&self.0.senders).clear();
    }

    /// Waits for the threads. Call it after [`Workers::finished`] or [`Workers::stop`].
    pub fn join(&self) {
        for thread in lock(&self.0.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }

    /// Where every listener is bound: its name and address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, ListenAddress)> {
        let listeners = lock(&self.0.listeners);
        listeners.values().map(|e| (e.live.settings().name.to_string(), e.bound.clone())).collect()
    }

    fn senders(&self) -> Vec<mpsc::Sender<Command>> {
        lock(&self.0.senders).clone()
    }

    fn plan(&self, wanted: &Arc<Listener>) -> Result<Step, String> {
        let key = Key::of(wanted);
        let listeners = lock(&self.0.listeners);
        let settings = Arc::clone(wanted);
        if let Some(entry) = listeners.get(&key) {
            let held = entry.live.settings();
            let same = held.tls == wanted.tls && held.limits.h2.enabled == wanted.limits.h2.enabled;
            let tls = if same { entry.live.tls() } else { tls_config(wanted)? };
            return Ok(Step::Keep { key, bound: entry.bound.clone(), settings, tls });
        }
        let address = match &wanted.listen {
            ListenAddress::Tcp(address) => Address::Tcp(*address),
            ListenAddress::Unix(path) => Address::Unix(path.clone()),
        };
        let tls = tls_config(wanted)?;
        let spec = ListenSpec { address, exclusive: true, mode: Some(UNIX_MODE) };
        let bound = socket::bind_all(&spec, lock(&self.0.senders).len())
            .map_err(|error| format!("listener \"{}\": {error}", wanted.name))?;
        Ok(Step::Add { key, bound, settings, tls })
    }
}

impl DataPlane for Workers {
    fn prepare(&self, wanted: &[Arc<Listener>]) -> Result<Box<dyn Prepared>, String> {
        let steps = wanted.iter().map(|listener| self.plan(listener)).collect::<Result<Vec<_>, _>>()?;
        Ok(Box::new(Change { workers: self.clone(), steps }))
    }

    fn settled(&self) -> Pending<bool> {
        let senders = self.senders();
        let ask = |sender: mpsc::Sender<Command>| async move {
            let (done, answer) = oneshot::channel();
            if sender.send(Command::Settle(done)).await.is_ok() {
                // A worker that ended meanwhile begins nothing any more.
                let _ = answer.await;
            }
        };
        Box::pin(together(senders.into_iter().map(ask).collect(), "it may still begin requests by an older snapshot"))
    }
}

impl Prepared for Change {
    fn commit(self: Box<Self>) -> Pending<()> {
        Box::pin(async move {
            let mut commands: Vec<Told> =
                self.workers.senders().into_iter().map(|sender| (sender, Vec::new())).collect();
            {
                let mut listeners = lock(&self.workers.0.listeners);
                let mut next = BTreeMap::new();
                for step in self.steps {
                    step.apply(&mut listeners, &mut next, &mut commands);
                }
                for (_, mut gone) in std::mem::replace(&mut *listeners, next) {
                    drop(gone.file.take());
                    for (_, told) in &mut commands {
                        told.push(Command::Close(Arc::clone(&gone.live)));
                    }
                }
            }
            tell(commands, "the listeners that came and went are not accepted on and not closed there").await;
        })
    }

    fn addresses(&self) -> Vec<ListenAddress> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Keep { bound, .. } => bound.clone(),
                Step::Add { bound, .. } => listen_address(&bound.address),
            })
            .collect()
    }
}

// === impl Step ===

impl Step {
    fn apply(self, now: &mut BTreeMap<Key, Entry>, next: &mut BTreeMap<Key, Entry>, commands: &mut [Told]) {
        match self {
            Self::Keep { key, settings, tls, .. } => {
                if let Some(entry) = now.remove(&key) {
                    entry.live.replace(settings, tls);
                    next.insert(key, entry);
                }
            }
            Self::Add { key, bound, settings, tls } => {
                let live = Arc::new(ListenerLive::new(settings, tls));
                for ((_, told), socket) in commands.iter_mut().zip(bound.sockets) {
                    told.push(Command::Listen(Arc::clone(&live), socket));
                }
                next.insert(key, Entry { live, bound: listen_address(&bound.address), file: bound.file });
            }
        }
    }
}

// === impl Key ===

impl Key {
    fn of(listener: &Listener) -> Self {
        let any_port = matches!(&listener.listen, ListenAddress::Tcp(address) if address.port() == 0);
        Self(listener.listen.clone(), any_port.then(|| listener.name.to_string()))
    }
}

/// Notes that a worker ended, also when it panicked.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.finished.notify_waiters();
    }
}

/// Gives every worker its commands, in order. One that is gone needs none; of one that hangs `otherwise` says what that means.
async fn tell(commands: Vec<Told>, otherwise: &'static str) {
    let give = |(sender, commands): Told| async move {
        for command in commands {
            if sender.send(command).await.is_err() {
                return;
            }
        }
    };
    together(commands.into_iter().map(give).collect(), otherwise).await;
}

/// Does `work`, an element per worker, at the same time, so that a worker that hangs keeps none of the others waiting. Whether all of it was
/// done within [`SETTLE_MAX`].
async fn together<F: Future<Output = ()> + Send + 'static>(work: Vec<F>, otherwise: &'static str) -> bool {
    let mut tasks = JoinSet::new();
    for (worker, work) in work.into_iter().enumerate() {
        tasks.spawn(async move {
            let done = tokio::time::timeout(SETTLE_MAX, work).await.is_ok();
            if !done {
                tracing::error!(worker, wait = ?SETTLE_MAX, "a worker does not take its commands: {otherwise}");
            }
            done
        });
    }
    let mut all = true;
    while let Some(done) = tasks.join_next().await {
        all &= done.unwrap_or(false);
    }
    all
}

fn listen_address(address: &Address) -> ListenAddress {
    match address {
        Address::Tcp(address) => ListenAddress::Tcp(*address),
        Address::Unix(path) => ListenAddress::Unix(path.clone()),
    }
}

fn tls_config(listener: &Listener) -> Result<Option<Arc<ServerConfig>>, String> {
    let Some(tls) = &listener.tls else { return Ok(None) };
    let certificates = tls.certificates.iter().map(|files| CertPem {
        cert: &files.cert.pem,
        key: &files.key.pem,
        label: &files.cert.path,
    });
    let store = tls::CertStore::new(&certificates.collect::<Vec<_>>())
        .map_err(|error| format!("listener \"{}\": {error}", listener.name))?;
    let both = &[tls::ALPN_HTTP2, tls::ALPN_HTTP1][..];
    let alpn = if listener.limits.h2.enabled { both } else { &both[1..] };
    let config = tls::server_config(Arc::new(store), alpn);
    config.map(Some).map_err(|error| format!("listener \"{}\": {error}", listener.name))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
