//! The writer: takes one event at a time, decides, publishes, answers. It never waits for anything but the next event.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::config;
use crate::config::settings::{ListenAddress, Settings};
use crate::core::endpoint::Question;
use crate::core::id::{Name, Variant};
use crate::core::route::table::RouteTable;
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::core::weight::Weight;
use crate::state::current::{Current, Publisher, Routing, publish_first};
use crate::state::live::{Registry, ServiceLive};
use crate::state::names::Names;

use super::answer::{Aborted, Applied, Outcome, Refused, Reloaded, Validated};
use super::decide;
use super::discovery::{self, Answers, Resolution};
use super::endpoint::carry_drains;
use super::handle::{
    ABORTS_MAX, Abort, CHECKS_MAX, COMMANDS_MAX, Command, ControlHandle, RELOADS_MAX, Reload, Shared, WeightCommand,
};
use super::health;
use super::journal::{InForce, Journal, Note, What};
use super::plane::DataPlane;
use super::reload::{self, Indexed, Listening, Loader, Look, Published, Ready, Stage, Waiting, With, Work};
use super::status::{self, State};
use super::tick::{TICK, Ticker};

/// What control begins with.
pub struct Setup {
    /// The configuration to begin with.
    pub settings: Settings,
    /// Reads it again.
    pub load: Loader,
    /// Takes over, after the first, what is neither routing nor a listener.
    pub listening: Listening,
    /// Keeps endpoint state.
    pub registry: Arc<Registry>,
    /// The path of the file, for people.
    pub path: String,
    /// When the process began.
    pub began: Instant,
    /// The first unused rollout number.
    pub next_rollout: u64,
}

/// Control with its first snapshot published, before there is a data plane.
pub struct Opening {
    publisher: Publisher,
    current: Current,
    settings: Arc<Settings>,
    load: Loader,
    listening: Listening,
    registry: Arc<Registry>,
    path: String,
    began: Instant,
    next_rollout: u64,
}

/// The writer. [`Control::run`] it.
pub struct Control {
    shared: Arc<Shared>,
    publisher: Publisher,
    current: Arc<Routing>,
    registry: Arc<Registry>,
    listening: Listening,
    /// Settings the process began with; what only a restart applies is compared with these.
    began_with: Arc<Settings>,
    next_rollout: u64,
    /// What names are known to stand for.
    answers: Answers,
    ticker: Ticker,
    aborts: mpsc::Receiver<Abort>,
    commands: mpsc::Receiver<Command>,
    reloads: mpsc::Receiver<Reload>,
}

// === impl Opening ===

impl Opening {
    /// Publishes the first snapshot.
    ///
    /// # Errors
    /// What the plan refuses, or a route without its service.
    pub fn new(setup: Setup) -> Result<Self, Refused> {
        let Setup { settings, load, listening, registry, path, began, .. } = setup;
        let nothing = Snapshot { generation: 0, routes: reload::index(&settings)?, services: Vec::new() };
        let planned = decide::reload(&nothing, &settings.services, setup.next_rollout)?;
        let next_rollout = planned.next_rollout;
        let snapshot = assemble(1, &settings, nothing.routes, planned.services)?;
        let live = registry.resolve(&snapshot, &HashMap::new());
        let (publisher, current) = publish_first(Routing { snapshot, live });
        let settings = Arc::new(settings);
        Ok(Self { publisher, current, settings, load, listening, registry, path, began, next_rollout })
    }

    /// Reads what is published: the workers need it before they exist.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Binds the listeners, accepts on them, and makes the writer and a handle to it.
    ///
    /// # Errors
    /// A listener that cannot be bound.
    pub async fn open(self, plane: Arc<dyn DataPlane>) -> Result<(Control, ControlHandle), Refused> {
        let prepared = plane.prepare(&reload::wanted(&self.settings)).map_err(Refused::Listeners)?;
        let addresses = prepared.addresses();
        prepared.commit().await;
        Ok(self.connect(plane, addresses))
    }

    fn connect(self, plane: Arc<dyn DataPlane>, addresses: Vec<ListenAddress>) -> (Control, ControlHandle) {
        let routing = self.current.load();
        let settings = Arc::clone(&self.settings);
        let journal = Journal::new(InForce { settings, addresses, needs_restart: Vec::new() }, 1);
        journal.note(Note {
            actor: "start".to_owned(),
            what: What::Start,
            service: None,
            change: None,
            detail: Some(format!("with {}", self.path)),
            generation: routing.snapshot.generation,
        });
        let shared = Arc::new(Shared {
            current: self.current,
            journal,
            plane,
            load: self.load,
            path: self.path,
            began: self.began,
            checks: Semaphore::new(CHECKS_MAX),
            names: Names::default(),
            registry: Arc::clone(&self.registry),
            published: watch::Sender::new(routing.snapshot.generation),
        });
        let (abort_sender, aborts) = mpsc::channel(ABORTS_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (reload_sender, reloads) = mpsc::channel(RELOADS_MAX);
        let control = Control {
            shared: Arc::clone(&shared),
            publisher: self.publisher,
            current: routing,
            registry: self.registry,
            listening: self.listening,
            began_with: self.settings,
            next_rollout: self.next_rollout,
            answers: Answers::new(),
            ticker: Ticker::new(self.began),
            aborts,
            commands,
            reloads,
        };
        (control, ControlHandle { shared, aborts: abort_sender, commands: command_sender, reloads: reload_sender })
    }
}

// === impl Control ===

impl Control {
    /// Takes events until every handle is gone. Aborts come first, whatever else is waiting or under way.
    pub async fn run(mut self) {
        let mut work: Option<Work> = None;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let busy = work.is_some();
            // Without handles there is nobody left to decide for.
            let held = !self.commands.is_closed();
            tokio::select! {
                biased;
                Some(abort) = self.aborts.recv() => self.abort(abort),
                _ = ticks.tick(), if held => self.tick(),
                stage = advance(&mut work), if busy => work = self.staged(stage),
                Some(command) = self.commands.recv() => self.command(command),
                Some(reload) = self.reloads.recv(), if !busy => work = Some(self.look(reload)),
                else => return,
            }
        }
    }

    fn tick(&mut self) {
        let notes = self.ticker.tick(&self.current, clock::now());
        let restored = notes.iter().any(|note| note.what == What::EndpointRestored);
        for note in notes {
            self.shared.journal.note(note);
        }
        if restored {
            self.release();
        }
    }

    fn abort(&mut self, abort: Abort) {
        let Abort { service, actor, reason, reply } = abort;
        let answer = self.find(&service).map(|index| {
            // Before anything else: retries and parked requests go by the switch, not by the snapshot they began with.
            self.current.live[index].close_candidate();
            self.put(index, decide::abort(&self.current.snapshot.services[index]), What::Abort, actor, reason);
            let Applied { service, generation, weight, state, stable, candidate } = self.applied(index);
            Aborted { service, generation, weight, state, stable, candidate, settled: false }
        });
        // Whoever no longer waits needs no answer; so below.
        let _ = reply.send(answer);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Weight(command) => self.weight(command),
            Command::Preview { settings, reply } => {
                let _ = reply.send(self.preview(&settings));
            }
            Command::Endpoint(command) => self.endpoint(command),
            Command::Found(finding) => {
                self.release();
                self.shared.journal.note(health::note(finding, self.current.snapshot.generation));
            }
            Command::Resolved { resolution, reply } => {
                self.resolved(resolution);
                let _ = reply.send(());
            }
        }
    }

    fn weight(&mut self, command: WeightCommand) {
        let WeightCommand { service, weight, expected, actor, reason, reply } = command;
        let answer = self.expect(expected).and_then(|()| self.set_weight(&service, weight, actor, reason));
        let _ = reply.send(answer);
    }

    /// Refuses what was asked for in view of another generation than the one in force.
    fn expect(&self, expected: Option<u64>) -> Result<(), Refused> {
        let generation = self.current.snapshot.generation;
        match expected.filter(|expected| *expected != generation) {
            Some(expected) => Err(Refused::Stale { expected, generation }),
            None => Ok(()),
        }
    }

    fn set_weight(
        &mut self,
        service: &str,
        weight: Weight,
        actor: String,
        reason: Option<String>,
    ) -> Result<Applied, Refused> {
        let index = self.find(service)?;
        let (active, live) = self.current.service(index);
        let decided =
            decide::weight(active, live.is_candidate_open(), weight, reason.as_deref(), &mut self.next_rollout)?;
        self.put(index, decided, What::Weight, actor, reason);
        Ok(self.applied(index))
    }

    fn preview(&self, settings: &Settings) -> Result<Validated, Refused> {
        let services = discovery::resolved(&settings.services, &self.answers);
        let planned = decide::reload(&self.current.snapshot, &services, self.next_rollout)?;
        Ok(Validated {
            generation: self.current.snapshot.generation,
            changes: planned.changes,
            needs_restart: config::needs_restart(&self.began_with, settings),
            listeners: settings.listeners.len(),
            routes: settings.routes.len(),
            services: settings.services.len(),
        })
    }

    /// Publishes what was decided about the service at `index`, if anything, and takes it down.
    fn put(&mut self, index: usize, decided: Option<Running>, what: What, actor: String, detail: Option<String>) {
        let Some(running) = decided else { return };
        let before = &self.current.snapshot.services[index];
        let name = before.service.name.to_string();
        let change = (before.running.weight.to_string(), running.weight.to_string());
        let mut live = self.current.live.clone();
        if running.rollout != before.running.rollout {
            live[index] = Arc::new(live[index].reopened(running.rollout));
        }
        let snapshot = self.current.snapshot.with_running(index, running);
        self.publish(Routing { snapshot, live });
        let generation = self.current.snapshot.generation;
        self.shared.journal.note(Note { actor, what, service: Some(name), change: Some(change), detail, generation });
    }

    /// Publishes `next`; what was in force comes back.
    fn publish(&mut self, next: Routing) -> Arc<Routing> {
        let published = self.publisher.publish(next);
        self.shared.published.send_replace(published.snapshot.generation);
        std::mem::replace(&mut self.current, published)
    }

    /// Lets endpoints go that were kept until others of their pool take requests, if enough do by now.
    pub(super) fn release(&mut self) {
        if !health::keeps_left_ones(&self.current) {
            return;
        }
        let live = self.registry.resolve(&self.current.snapshot, &self.live_by_name());
        if live.iter().zip(&self.current.live).all(|(new, old)| Arc::ptr_eq(new, old)) {
            return;
        }
        self.publish_members(Routing { snapshot: health::next_generation(&self.current.snapshot), live });
    }

    /// Takes in what names are answered.
    fn resolved(&mut self, resolution: Resolution) {
        let services = self.current.snapshot.services.iter();
        let asked: HashSet<Question> = services.flat_map(|active| active.service.questions()).collect();
        self.answers.extend(resolution.answers.into_iter().filter(|(question, _)| asked.contains(question)));
        if let Some((snapshot, changes)) = discovery::next_generation(&self.current.snapshot, &self.answers) {
            let live = self.registry.resolve(&snapshot, &self.live_by_name());
            self.publish_members(Routing { snapshot, live });
            let generation = self.current.snapshot.generation;
            for note in discovery::notes(&changes, generation) {
                self.shared.journal.note(note);
            }
        }
        let generation = self.current.snapshot.generation;
        for news in resolution.news {
            self.shared.journal.note(discovery::note(news, generation));
        }
    }

    /// Forgets answers nobody asks for any more.
    fn forget(&mut self, settings: &Settings) {
        let asked: HashSet<Question> = settings.services.iter().flat_map(|service| service.questions()).collect();
        self.answers.retain(|question, _| asked.contains(question));
    }

    /// Publishes a generation that differs only in endpoints.
    fn publish_members(&mut self, next: Routing) {
        let replaced = self.publish(next);
        self.registry.sweep(&self.current.live, clock::now());
        let settled = self.shared.plane.settled();
        // Nobody waits for an answer: the workers close what they keep open to those that went. Bounded by the plane.
        tokio::spawn(async move { drop((settled.await, replaced)) });
    }

    fn look(&mut self, first: Reload) -> Work {
        let mut waiting = Waiting { actor: first.actor, replies: vec![first.reply] };
        while let Ok(more) = self.reloads.try_recv() {
            waiting.replies.push(more.reply);
        }
        let shared = &self.shared;
        let with = With {
            load: Arc::clone(&shared.load),
            plane: Arc::clone(&shared.plane),
            listening: Arc::clone(&self.listening),
            in_force: shared.journal.in_force(),
            indexed: Indexed::of(&self.current),
        };
        reload::look(with, waiting)
    }

    /// Goes on with a reload after a stage of it; `None` when it is over.
    fn staged(&mut self, stage: Stage) -> Option<Work> {
        let Stage::Looked(waiting, outcome) = stage else {
            // No worker holds the snapshot before any more: most of what left it can go.
            self.registry.sweep(&self.current.live, clock::now());
            return None;
        };
        let applied = match outcome {
            Ok(Look::Unchanged) => {
                let answer = Ok(self.unchanged(&waiting.actor));
                waiting.answer(&answer);
                return None;
            }
            Ok(Look::Ready(ready)) => self.apply(*ready, &waiting.actor),
            Err(refused) => Err(refused),
        };
        match applied {
            Ok(published) => Some(reload::finish(published, Arc::clone(&self.shared.plane), waiting)),
            Err(refused) => {
                self.shared.journal.refused(&waiting.actor, self.current.snapshot.generation, &refused);
                waiting.answer(&Err(refused));
                None
            }
        }
    }

    fn unchanged(&self, actor: &str) -> Reloaded {
        let (journal, generation) = (&self.shared.journal, self.current.snapshot.generation);
        journal.reloaded(actor, Outcome::Unchanged, generation, &[]);
        let needs_restart = journal.in_force().needs_restart;
        Reloaded { outcome: Outcome::Unchanged, generation, changes: Vec::new(), needs_restart, settled: true }
    }

    /// Puts a configuration in force; what it replaces comes back. Everything that can be refused is refused before anything is published.
    fn apply(&mut self, ready: Ready, actor: &str) -> Result<Published, Refused> {
        let Ready { settings, routes, prepared, commit } = ready;
        let services = discovery::resolved(&settings.services, &self.answers);
        let planned = decide::reload(&self.current.snapshot, &services, self.next_rollout)?;
        let generation = self.current.snapshot.generation + 1;
        let snapshot = assemble(generation, &settings, routes, planned.services)?;
        // Nothing is refused from here on.
        self.next_rollout = planned.next_rollout;
        self.forget(&settings);
        let previous = self.live_by_name();
        let live = self.registry.resolve(&snapshot, &previous);
        let mut changes = planned.changes;
        changes.extend(carry_drains(&snapshot, &previous, &live));
        let replaced = self.publish(Routing { snapshot, live });
        self.close_superseded(&previous);
        self.registry.sweep(&self.current.live, clock::now());
        let needs_restart = config::needs_restart(&self.began_with, &settings);
        let addresses = prepared.addresses();
        let journal = &self.shared.journal;
        journal.set_in_force(InForce { settings, addresses, needs_restart: needs_restart.clone() });
        journal.reloaded(actor, Outcome::Applied, generation, &changes);
        let answer = Reloaded { outcome: Outcome::Applied, generation, changes, needs_restart, settled: false };
        Ok(Published { answer, prepared, commit, replaced })
    }

    /// Throws the switches of candidates that are gone, so that requests that began before start no attempt there either.
    fn close_superseded(&self, previous: &HashMap<Name, Arc<ServiceLive>>) {
        for (name, before) in previous {
            let now = self.current.snapshot.service(name.as_str()).map(|(index, _)| &self.current.live[index]);
            if now.is_none_or(|now| !Arc::ptr_eq(&now.candidate_open, &before.candidate_open)) {
                before.close_candidate();
            }
        }
    }

    fn live_by_name(&self) -> HashMap<Name, Arc<ServiceLive>> {
        let names = self.current.snapshot.services.iter().map(|active| active.service.name.clone());
        names.zip(self.current.live.iter().cloned()).collect()
    }

    /// What is in force.
    pub(super) fn routing(&self) -> &Routing {
        &self.current
    }

    pub(super) fn note(&self, note: Note) {
        self.shared.journal.note(note);
    }

    pub(super) fn find(&self, service: &str) -> Result<usize, Refused> {
        let found = self.current.snapshot.service(service).map(|(index, _)| index);
        found
            .ok_or_else(|| Refused::UnknownService { service: service.to_owned(), known: status::names(&self.current) })
    }

    fn applied(&self, index: usize) -> Applied {
        let (active, live) = self.current.service(index);
        let state = State::of(active, live.is_candidate_open());
        Applied {
            service: active.service.name.clone(),
            generation: self.current.snapshot.generation,
            weight: if state == State::Aborted { Weight::ZERO } else { active.running.weight },
            state,
            stable: active.service.stable.version.clone(),
            candidate: active.version(Variant::Candidate).cloned(),
        }
    }
}

/// Awaits the stage under way.
async fn advance(work: &mut Option<Work>) -> Stage {
    match work {
        Some(work) => work.as_mut().await,
        None => std::future::pending().await,
    }
}

/// A snapshot of `services` (in order of name), with `routes` as indexed for the services of `settings` if these are the same.
fn assemble(
    generation: u64,
    settings: &Settings,
    routes: Arc<RouteTable>,
    services: Vec<ActiveService>,
) -> Result<Snapshot, Refused> {
    let mut wanted: Vec<&Name> = settings.services.iter().map(|service| &service.name).collect();
    wanted.sort_unstable();
    if wanted.into_iter().eq(services.iter().map(|active| &active.service.name)) {
        return Ok(Snapshot { generation, routes, services });
    }
    // The plan keeps a service the file no longer has: indices differ.
    Snapshot::build(generation, &settings.routes, services).map_err(|unknown| Refused::Plan(vec![unknown.to_string()]))
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("generation", &self.current.snapshot.generation).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("path", &self.path).finish_non_exhaustive()
    }
}
