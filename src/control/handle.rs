//! How everyone else talks to control.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::clock;
use crate::config::settings::Settings;
use crate::core::roles::{Ask, Verb};
use crate::core::snapshot::ActiveService;
use crate::core::weight::Weight;
use crate::state::current::{Current, Routing};
use crate::state::live::Registry;
use crate::state::names::Names;

use super::answer::{Aborted, Applied, Drained, Mark, Refused, Reloaded, Validated};
use super::discovery::Resolution;
use super::endpoint::{self, EndpointCommand};
use super::gates::Evidence;
use super::health::Finding;
use super::journal::{Event, Journal, LastReload, Page, ReloadCounts};
use super::landing::Landing;
use super::plane::DataPlane;
use super::reload::{self, Loader, Source};
use super::rollouts::{EndedStatus, Views};
use super::status::{self, ConfigStatus, ServiceStatus, Status};
use super::tally::Tally;
use super::writer::Asked;

/// Verbs waiting for the one before them to be written; senders wait for room.
pub const VERBS_MAX: usize = 64;
/// Other commands waiting; senders wait for room.
pub const COMMANDS_MAX: usize = 64;
/// Aborts waiting; senders wait for room, the switch is thrown before.
pub const ABORTS_MAX: usize = 64;
/// Reloads waiting, not counting the one under way; more are refused.
pub const RELOADS_MAX: usize = 8;
/// Longest wait of an abort that has happened for the store, before it is answered.
const PERSISTED_WITHIN: Duration = Duration::from_millis(100);
/// Configurations checked at the same time; more are refused.
pub const CHECKS_MAX: usize = 4;

/// Talks to control. Cheap to clone; control ends when the last one is gone.
#[derive(Clone)]
pub struct ControlHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) aborts: mpsc::Sender<Abort>,
    pub(super) verbs: mpsc::Sender<Asked>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) reloads: mpsc::Sender<Reload>,
}

/// What the handles and the writer share.
pub(super) struct Shared {
    pub(super) current: Current,
    pub(super) journal: Journal,
    pub(super) views: Views,
    pub(super) tally: Tally,
    pub(super) plane: Arc<dyn DataPlane>,
    pub(super) load: Loader,
    pub(super) path: String,
    pub(super) began: Instant,
    pub(super) checks: Semaphore,
    pub(super) names: Names,
    pub(super) registry: Arc<Registry>,
    /// The newest generation that was published.
    pub(super) published: watch::Sender<u64>,
}

/// One answer, later.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// An abort or a rollback. The answer comes with another one, for when the store has it.
pub(super) struct Abort {
    pub(super) service: String,
    pub(super) ask: Ask,
    pub(super) reply: Reply<(Aborted, oneshot::Receiver<()>)>,
}

pub(super) enum Command {
    Preview { settings: Box<Settings>, reply: Reply<Validated> },
    Found(Finding),
    Resolved { resolution: Resolution, reply: oneshot::Sender<()> },
    Endpoint(EndpointCommand),
    Evidence { service: String, reply: Reply<Option<Evidence>> },
}

pub(super) struct Reload {
    pub(super) by: Author,
    pub(super) reply: Reply<Reloaded>,
}

/// Who asks for something, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Its name.
    pub actor: String,
    /// Its address; empty for the process itself.
    pub source: String,
}

// === impl Author ===

impl From<&str> for Author {
    /// The process itself.
    fn from(actor: &str) -> Self {
        Self { actor: actor.to_owned(), source: String::new() }
    }
}

// === impl ControlHandle ===

impl ControlHandle {
    /// Does what is asked of `service`, and answers once it is written down and published. Abort and rollback have ways of their own.
    ///
    /// # Errors
    /// Unknown service, what its state does not allow, a store that does not take it, an abort that came in between, or the process is
    /// stopping; nothing changed then.
    pub async fn obey(&self, service: &str, what: Ask) -> Result<Applied, Refused> {
        self.obey_if(None, service, what).await
    }

    /// As [`Self::obey`], but only if what is in force when it is decided is what is `expected`. Abort and rollback do not heed it.
    ///
    /// # Errors
    /// As there, or something else is in force.
    pub async fn obey_if(&self, expected: Option<Mark>, service: &str, what: Ask) -> Result<Applied, Refused> {
        self.obey_landing(expected, service, what, None).await
    }

    /// As [`Self::obey_if`]; `landing` is in the store if and only if the effect of the command is. A command without any writes nothing.
    ///
    /// # Errors
    /// As there.
    pub async fn obey_landing(
        &self,
        expected: Option<Mark>,
        service: &str,
        what: Ask,
        landing: Option<Landing>,
    ) -> Result<Applied, Refused> {
        if matches!(what.verb, Verb::Abort | Verb::Rollback) {
            let aborted = self.take_back(service, what).await?;
            let (generation, status) = self.service(service)?;
            let Aborted { service, weight, state, stable, candidate, .. } = aborted;
            let (revision, rollout) = (status.revision, status.progress);
            let begins = false;
            return Ok(Applied { service, generation, weight, state, stable, candidate, revision, rollout, begins });
        }
        let service = service.to_owned();
        ask(&self.verbs, |reply| Asked { service, expected, ask: what, landing, reply }).await
    }

    /// Holds the candidate of `service` at `weight`; opens a rollout by hand when none runs. `reason` is for the record.
    ///
    /// # Errors
    /// As [`Self::obey`].
    pub async fn set_weight(
        &self,
        service: &str,
        weight: Weight,
        actor: &str,
        reason: Option<String>,
    ) -> Result<Applied, Refused> {
        self.obey(service, Ask { reason, ..Ask::of(Verb::Weight(weight), actor) }).await
    }

    /// Takes all traffic from the candidate of `service`, unconditionally and whatever else is under way. The switch is thrown by the
    /// first poll; the answer comes once every worker has acknowledged, and no attempt begins on the candidate after it. Safe to
    /// repeat; true, not an error, without a candidate. Of a rollout that has succeeded it is the rollback, as long as the old stable is
    /// kept.
    ///
    /// # Errors
    /// Unknown service, or the process is stopping.
    pub async fn abort(&self, service: &str, actor: &str, reason: Option<String>) -> Result<Aborted, Refused> {
        self.take_back(service, Ask { reason, ..Ask::of(Verb::Abort, actor) }).await
    }

    /// Aborts or rolls back, as `what` says. Answers after the swap; waits a moment, and no longer, for the store.
    ///
    /// # Errors
    /// As [`Self::abort`]; a rollback also when the old stable is kept no longer.
    pub async fn take_back(&self, service: &str, what: Ask) -> Result<Aborted, Refused> {
        let routing = self.shared.current.load();
        if let Some((index, active)) = routing.snapshot.service(service)
            && what.verb == Verb::Abort
            && what.rollout.is_none_or(|rollout| rollout == active.running.rollout)
        {
            routing.live[index].close_candidate();
        }
        drop(routing);
        let service = service.to_owned();
        let (aborted, landed) = ask(&self.aborts, |reply| Abort { service, ask: what, reply }).await?;
        let settled = self.shared.plane.settled().await;
        let persisted = tokio::time::timeout(PERSISTED_WITHIN, landed).await.is_ok_and(|landed| landed.is_ok());
        Ok(Aborted { settled, persisted, ..aborted })
    }

    /// Lets no new attempts begin on the endpoint of `service` at this address, in whichever variant, or lets them again. Answers once
    /// every worker has closed what was idle. The state is kept by identity through reloads, not through restarts. Safe to repeat.
    /// Draining the last usable endpoint of stable needs `force`, and force a reason.
    ///
    /// # Errors
    /// Unknown service or endpoint, the last usable endpoint of stable, force without a reason, or the process is stopping.
    pub async fn endpoint(
        &self,
        verb: endpoint::Verb,
        (service, endpoint): (&str, &str),
        force: bool,
        by: impl Into<Author>,
        reason: Option<String>,
    ) -> Result<Drained, Refused> {
        let (service, endpoint, by) = (service.to_owned(), endpoint.to_owned(), by.into());
        let command = |reply| Command::Endpoint(EndpointCommand { service, endpoint, verb, force, by, reason, reply });
        let drained = ask(&self.commands, command).await?;
        let settled = self.shared.plane.settled().await;
        Ok(Drained { settled, ..drained })
    }

    /// Looks at the file and, if it is another one than the one in force, puts it in force: all or nothing. Requests that come while
    /// one is under way share the next look. Goes on to its end if the caller gives up.
    ///
    /// # Errors
    /// Everything wrong with the file, what the running state does not allow, a listener that cannot be bound, or more than
    /// [`RELOADS_MAX`] waiting; nothing changed then.
    pub async fn reload(&self, by: impl Into<Author>) -> Result<Reloaded, Refused> {
        let (reply, answer) = oneshot::channel();
        let request = Reload { by: by.into(), reply };
        self.reloads.try_send(request).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Refused::Busy("reloads"),
            mpsc::error::TrySendError::Closed(_) => Refused::Stopping,
        })?;
        answer.await.unwrap_or(Err(Refused::Stopping))
    }

    /// Checks a configuration and says what it would change. Changes nothing, binds nothing.
    ///
    /// # Errors
    /// As [`Self::reload`], but for listeners; more than [`CHECKS_MAX`] at the same time are refused.
    pub async fn validate(&self, source: Source) -> Result<Validated, Refused> {
        let _permit = self.shared.checks.try_acquire().map_err(|_| Refused::Busy("checks"))?;
        let settings = reload::load(Arc::clone(&self.shared.load), source).await?;
        reload::index(&settings)?;
        ask(&self.commands, |reply| Command::Preview { settings: Box::new(settings), reply }).await
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.current.load().snapshot.generation
    }

    /// What is in force of `service`: every change to it that was answered is another one, or an event, or both.
    ///
    /// # Errors
    /// Unknown service.
    pub fn mark(&self, service: &str) -> Result<Mark, Refused> {
        let routing = self.shared.current.load();
        let (_, active) = find(&routing, service)?;
        let revision = self.shared.views.of(&active.service.name).map_or(0, |view| view.revision);
        Ok(Mark { generation: routing.snapshot.generation, revision: Some(revision) })
    }

    /// Everything that is true now. Waits for nothing, the writer included.
    #[must_use]
    pub fn status(&self) -> Status {
        let (routing, journal) = (self.shared.current.load(), &self.shared.journal);
        let in_force = journal.in_force();
        Status {
            generation: routing.snapshot.generation,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: clock::now().saturating_duration_since(self.shared.began).as_secs(),
            listeners: status::listeners(&in_force),
            services: status::services(&routing, &self.shared.views),
            draining: status::draining(&self.shared.registry),
            config: ConfigStatus {
                path: self.shared.path.clone(),
                needs_restart: in_force.needs_restart,
                last_reload: journal.last_reload(),
            },
            names: status::names_of(&self.shared.names),
            events: journal.events(status::EVENTS_SHOWN_MAX),
        }
    }

    /// What is true of every service, in order of name, with the generation.
    #[must_use]
    pub fn services(&self) -> (u64, Vec<ServiceStatus>) {
        let routing = self.shared.current.load();
        (routing.snapshot.generation, status::services(&routing, &self.shared.views))
    }

    /// What is true of `service`, with the generation.
    ///
    /// # Errors
    /// Unknown service.
    pub fn service(&self, service: &str) -> Result<(u64, ServiceStatus), Refused> {
        let routing = self.shared.current.load();
        let (index, active) = find(&routing, service)?;
        let view = self.shared.views.of(&active.service.name);
        Ok((routing.snapshot.generation, ServiceStatus::of(active, &routing.live[index], view.as_deref())))
    }

    /// The rollouts of `service` that are over, the newest first.
    ///
    /// # Errors
    /// Unknown service.
    pub fn history(&self, service: &str) -> Result<Vec<EndedStatus>, Refused> {
        let routing = self.shared.current.load();
        let (_, active) = find(&routing, service)?;
        let view = self.shared.views.of(&active.service.name);
        Ok(view.map(|view| view.history.clone()).unwrap_or_default())
    }

    /// What the gate has seen of the latest rollout of `service`; `None` if it has watched none since the process began.
    ///
    /// # Errors
    /// Unknown service, or the process is stopping.
    pub async fn evidence(&self, service: &str) -> Result<Option<Evidence>, Refused> {
        let service = service.to_owned();
        ask(&self.commands, |reply| Command::Evidence { service, reply }).await
    }

    /// Takes down what probes found out. Waits for room; nothing happens once the process is stopping.
    pub async fn found(&self, finding: Finding) {
        // Control is gone: so is everyone who would read it.
        let _ = self.commands.send(Command::Found(finding)).await;
    }

    /// Takes in what names are answered; endpoints that this adds or removes are a generation of their own. Waits until it is
    /// published; nothing happens once the process is stopping.
    pub async fn resolved(&self, resolution: Resolution) {
        let (reply, answer) = oneshot::channel();
        // Control is gone: so is everyone who would be sent there.
        if self.commands.send(Command::Resolved { resolution, reply }).await.is_ok() {
            let _ = answer.await;
        }
    }

    /// What is known about the names of endpoints, to be kept up to date by whoever resolves them.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Tells of every publication by its generation; [`Self::current`] has it then.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }

    /// How the last look at the file ended.
    #[must_use]
    pub fn last_reload(&self) -> LastReload {
        self.shared.journal.last_reload()
    }

    /// How looks at the file ended, since the process began.
    #[must_use]
    pub fn reload_counts(&self) -> ReloadCounts {
        self.shared.journal.reload_counts()
    }

    /// The newest events, at most `count`, oldest first.
    #[must_use]
    pub fn events(&self, count: usize) -> Vec<Event> {
        self.shared.journal.events(count)
    }

    /// What came after the event `seq`, oldest first, at most `count` (and what is kept).
    #[must_use]
    pub fn events_after(&self, seq: u64, count: usize) -> Page {
        self.shared.journal.after(seq, count)
    }

    /// The number of the newest event, now and whenever there is one; zero before the first.
    #[must_use]
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.shared.journal.newest()
    }

    /// Tells this numbering of events from those before a restart.
    #[must_use]
    pub fn event_epoch(&self) -> u64 {
        self.shared.journal.epoch()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.journal.in_force().settings
    }

    /// What is published.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.shared.current
    }
}

/// The service called `service`, with its index.
pub(super) fn find<'a>(routing: &'a Routing, service: &str) -> Result<(usize, &'a ActiveService), Refused> {
    let unknown = || Refused::UnknownService { service: service.to_owned(), known: status::names(routing) };
    routing.snapshot.service(service).ok_or_else(unknown)
}

/// Sends what `event` makes of a reply and awaits it.
async fn ask<E, T>(queue: &mpsc::Sender<E>, event: impl FnOnce(Reply<T>) -> E) -> Result<T, Refused> {
    let (reply, answer) = oneshot::channel();
    queue.send(event(reply)).await.map_err(|_| Refused::Stopping)?;
    answer.await.unwrap_or(Err(Refused::Stopping))
}

impl fmt::Debug for ControlHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlHandle").field("path", &self.shared.path).finish_non_exhaustive()
    }
}
