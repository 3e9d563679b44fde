//! The slow half of a reload, beside the writer: read the file, index its routes, bind its listeners; later accept on them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config::settings::{Listener, Settings};
use crate::core::route::table::RouteTable;
use crate::core::snapshot::{Snapshot, UnknownService};

use super::answer::{Problem, Refused, Reloaded};
use super::journal::InForce;
use super::plane::{DataPlane, Prepared};

/// Reads, checks and resolves a configuration; called on a thread that may block.
pub type Loader = Arc<dyn Fn(Source) -> Result<Loaded, Vec<Problem>> + Send + Sync>;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file the process was started with.
    File,
    /// This text, in place of the file.
    Text(String),
}

/// A configuration, read and resolved.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Everything resolved.
    pub settings: Settings,
    /// Equal for equal texts. What the text refers to (certificates, secrets) is part of the settings and compared there.
    pub digest: String,
}

/// What one look at the file found.
pub(super) enum Look {
    /// What is in force already.
    Unchanged,
    /// Something else, ready to take effect.
    Ready(Box<Ready>),
}

/// A configuration ready to take effect. Dropping it lets its listeners go.
pub(super) struct Ready {
    pub(super) settings: Arc<Settings>,
    pub(super) digest: String,
    pub(super) routes: Arc<RouteTable>,
    pub(super) prepared: Box<dyn Prepared>,
}

/// Who waits for a reload. Requests that come while another is under way share the next look and its answer.
pub(super) struct Waiting {
    pub(super) actor: String,
    pub(super) replies: Vec<oneshot::Sender<Result<Reloaded, Refused>>>,
}

/// A stage of a reload under way.
pub(super) type Work = Pin<Box<dyn Future<Output = Stage> + Send>>;

/// The end of a stage.
pub(super) enum Stage {
    /// The file was looked at: the writer decides.
    Looked(Waiting, Result<Look, Refused>),
    /// Everyone who waited was answered.
    Answered,
}

/// Looks at the file and binds what it asks for.
pub(super) fn look(load: Loader, plane: Arc<dyn DataPlane>, in_force: InForce, waiting: Waiting) -> Work {
    Box::pin(async move {
        let blocking = tokio::task::spawn_blocking(move || prepare(&load, plane.as_ref(), &in_force));
        let outcome = blocking.await.unwrap_or_else(|_| Err(Refused::Config(vec![ended()])));
        Stage::Looked(waiting, outcome)
    })
}

/// Accepts on the listeners of a configuration that was published, awaits the workers, answers.
pub(super) fn finish(
    prepared: Box<dyn Prepared>,
    plane: Arc<dyn DataPlane>,
    tell: impl FnOnce() + Send + 'static,
    answer: Reloaded,
    waiting: Waiting,
) -> Work {
    Box::pin(async move {
        prepared.commit().await;
        tell();
        let settled = plane.settled().await;
        waiting.answer(&Ok(Reloaded { settled, ..answer }));
        Stage::Answered
    })
}

/// Reads `source` on a thread that may block.
pub(super) async fn load(load: Loader, source: Source) -> Result<Loaded, Refused> {
    let blocking = tokio::task::spawn_blocking(move || load(source));
    blocking.await.unwrap_or_else(|_| Err(vec![ended()])).map_err(Refused::Config)
}

/// Indexes the routes of `settings` over its own services.
pub(super) fn index(settings: &Settings) -> Result<Arc<RouteTable>, Refused> {
    let names = settings.services.iter().map(|service| &service.name).collect();
    let unknown = |unknown: UnknownService| Refused::Plan(vec![unknown.to_string()]);
    Snapshot::resolve_routes(&settings.routes, names).map_err(unknown)
}

/// The listeners of `settings`, as the data plane takes them.
pub(super) fn wanted(settings: &Settings) -> Vec<Arc<Listener>> {
    settings.listeners.iter().cloned().map(Arc::new).collect()
}

fn prepare(load: &Loader, plane: &dyn DataPlane, in_force: &InForce) -> Result<Look, Refused> {
    let Loaded { settings, digest } = load(Source::File).map_err(Refused::Config)?;
    if is_same(&settings, &digest, in_force) {
        return Ok(Look::Unchanged);
    }
    let routes = index(&settings)?;
    let prepared = plane.prepare(&wanted(&settings)).map_err(Refused::Listeners)?;
    Ok(Look::Ready(Box::new(Ready { settings: Arc::new(settings), digest, routes, prepared })))
}

/// The same text, and nothing it refers to has changed: certificates are in the listeners, keys and secrets in the services.
fn is_same(settings: &Settings, digest: &str, in_force: &InForce) -> bool {
    let now = &in_force.settings;
    digest == in_force.digest && settings.listeners == now.listeners && settings.services == now.services
}

fn ended() -> Problem {
    Problem::of("reading the configuration ended unexpectedly; this is a defect, see the log".to_owned())
}

// === impl Waiting ===

impl Waiting {
    /// Gives everyone the answer.
    pub(super) fn answer(self, answer: &Result<Reloaded, Refused>) {
        for reply in self.replies {
            // Whoever no longer waits needs no answer.
            let _ = reply.send(answer.clone());
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("actor", &self.actor).field("replies", &self.replies.len()).finish()
    }
}
