//! The slow half of a reload, beside the writer: read the file, index its routes, bind its listeners; later accept on them.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::config;
use crate::config::settings::{Listener, Settings};
use crate::core::id::Name;
use crate::core::route::table::RouteTable;
use crate::core::snapshot::{Snapshot, UnknownService};
use crate::state::current::Routing;
use crate::store::audit;

use super::answer::{Problem, Refused, Reloaded};
use super::handle::Author;
use super::journal::InForce;
use super::plane::{DataPlane, Prepared};

/// Reads, checks and resolves a configuration; called on a thread that may block.
pub type Loader = Arc<dyn Fn(Source) -> Result<Settings, Vec<Problem>> + Send + Sync>;

/// Prepares what settings change beside routing and listeners, such as the log; called on a thread that may block. Dropping what comes
/// back changes nothing.
///
/// # Errors
/// Everything that cannot be had; the reload is refused then.
pub type Listening = Arc<dyn Fn(&Settings) -> Result<Commit, Vec<Problem>> + Send + Sync>;

/// The half of a change that cannot fail; called once the settings are published. Blocks for nothing.
pub type Commit = Box<dyn FnOnce() + Send>;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file the process was started with, to be put in force.
    File,
    /// The same file, only to be checked.
    Check,
    /// This text, in place of the file.
    Text(String),
}

/// What one look at the file found.
pub(super) enum Look {
    /// What is in force already.
    Unchanged,
    /// Something else, ready to take effect.
    Ready(Box<Ready>),
}

/// What a look needs.
pub(super) struct With {
    pub(super) load: Loader,
    pub(super) plane: Arc<dyn DataPlane>,
    pub(super) listening: Listening,
    pub(super) in_force: InForce,
    pub(super) indexed: Indexed,
}

/// A configuration ready to take effect. Dropping it lets its listeners go.
pub(super) struct Ready {
    pub(super) settings: Arc<Settings>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) prepared: Box<dyn Prepared>,
    pub(super) commit: Commit,
    /// Of the settings.
    pub(super) digest: String,
}

/// A configuration that was looked at, on its way through the store.
pub(super) struct Filing {
    pub(super) ready: Ready,
    pub(super) waiting: Waiting,
    /// What it changes for services, once that is decided.
    pub(super) changes: Vec<String>,
}

/// A configuration that was published, and what is left to do about it.
pub(super) struct Published {
    pub(super) answer: Reloaded,
    pub(super) prepared: Box<dyn Prepared>,
    pub(super) commit: Commit,
    /// What was in force before.
    pub(super) replaced: Arc<Routing>,
}

/// The routes in force, to be kept if a reload leaves them alone.
pub(super) struct Indexed {
    /// Names of the services the routes are indexed over, in order.
    names: Vec<Name>,
    routes: Arc<RouteTable>,
}

/// Who waits for a reload. Requests that come while another is under way share the next look and its answer.
pub(super) struct Waiting {
    pub(super) by: Author,
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

/// Reads the file at `path`; a text is read as if it were there. `env` looks up environment variables.
pub fn file_loader(path: PathBuf, env: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Loader {
    Arc::new(move |source| {
        let settings = match source {
            Source::File | Source::Check => config::load(&path, &env),
            Source::Text(text) => config::parse(&text, &path, &env),
        };
        settings.map_err(|errors| errors.0.into_iter().map(Problem::from).collect())
    })
}

/// Looks at the file and prepares everything it asks for.
pub(super) fn look(with: With, waiting: Waiting) -> Work {
    Box::pin(async move {
        let blocking = tokio::task::spawn_blocking(move || prepare(with));
        let outcome = blocking.await.unwrap_or_else(|_| Err(Refused::Config(vec![ended()])));
        Stage::Looked(waiting, outcome)
    })
}

/// Accepts on the listeners of a configuration that was published, has the rest take it over, awaits the workers, answers.
pub(super) fn finish(published: Published, plane: Arc<dyn DataPlane>, waiting: Waiting) -> Work {
    Box::pin(async move {
        let Published { answer, prepared, commit, replaced } = published;
        prepared.commit().await;
        commit();
        let settled = plane.settled().await;
        waiting.answer(&Ok(Reloaded { settled, ..answer }));
        // Whoever lets go last frees ten thousand routes: here nobody waits for it, on a worker requests would.
        drop(replaced);
        Stage::Answered
    })
}

/// Reads `source` on a thread that may block.
pub(super) async fn load(load: Loader, source: Source) -> Result<Settings, Refused> {
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

fn prepare(with: With) -> Result<Look, Refused> {
    let With { load, plane, listening, in_force, indexed } = with;
    let settings = load(Source::File).map_err(Refused::Config)?;
    // What the file refers to, certificates and secrets, is part of the settings; how it is written is not.
    if settings == *in_force.settings {
        return Ok(Look::Unchanged);
    }
    let routes = if indexed.is_of(&settings, &in_force) { indexed.routes } else { index(&settings)? };
    let prepared = plane.prepare(&wanted(&settings)).map_err(Refused::Listeners)?;
    let commit = listening(&settings).map_err(Refused::Config)?;
    let digest = digest(&settings);
    Ok(Look::Ready(Box::new(Ready { settings: Arc::new(settings), routes, prepared, commit, digest })))
}

/// SHA-256 of what a configuration means, in base 16; secrets and how it is written are no part of it.
pub(super) fn digest(settings: &Settings) -> String {
    audit::digest_of(config::render(settings).as_bytes())
}

fn ended() -> Problem {
    Problem::of("reading the configuration ended unexpectedly; this is a defect, see the log".to_owned())
}

// === impl Indexed ===

impl Indexed {
    /// Those of `routing`.
    pub(super) fn of(routing: &Routing) -> Self {
        let names = routing.snapshot.services.iter().map(|active| active.service.name.clone());
        Self { names: names.collect(), routes: Arc::clone(&routing.snapshot.routes) }
    }

    /// Whether `settings` would be indexed the same.
    fn is_of(&self, settings: &Settings, in_force: &InForce) -> bool {
        let mut names: Vec<&Name> = settings.services.iter().map(|service| &service.name).collect();
        names.sort_unstable();
        names.into_iter().eq(&self.names) && settings.routes == in_force.settings.routes
    }
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
        f.debug_struct("Waiting").field("by", &self.by).field("replies", &self.replies.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_text_in_its_place_are_read_alike() {
        let path = std::env::temp_dir().join(format!("tidegate-reload-{}.toml", std::process::id()));
        let text = "[[listeners]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\nnonsense = 1\n";
        std::fs::write(&path, text).expect("writes");
        let load = file_loader(path.clone(), |_| None);
        let errors = [Source::File, Source::Text(text.to_owned())].map(|source| load(source).expect_err("a mistake"));
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(errors[0], errors[1]);
        let wrong = errors[0].iter().find(|e| e.key.as_deref().is_some_and(|k| k.contains("nonsense"))).expect("found");
        assert_eq!((wrong.line, wrong.file.as_deref()), (Some(4), path.to_str()));
        let gone = load(Source::File).expect_err("no file");
        assert!(gone[0].key.is_none() && gone[0].message.contains("cannot be read"), "{gone:?}");
    }
}
