//! The writer: takes one event at a time and decides. What has to be written first waits beside it; it never waits for anything but the
//! next event.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::config;
use crate::config::settings::Settings;
use crate::core::endpoint::EndpointKey;
use crate::core::id::{Name, Variant};
use crate::core::roles::{Ask, GateWork, Verb};
use crate::core::rollout::{Event, Verdict};
use crate::core::weight::Weight;
use crate::state::current::{Publisher, Routing};
use crate::state::live::Registry;

use super::answer::{Aborted, Applied, Mark, Refused, Validated};
use super::desk::{Decision, Deeds, Desk, Held, Proposal};
use super::discovery::Answers;
use super::gate::{Gates, Seen};
use super::handle::{Abort, Command, Reload, Reply, Shared};
use super::health;
use super::journal::{Note, What};
use super::landing::Landing;
use super::ledger::Ledger;
use super::reload::{Filing, Listening, Work};
use super::rollouts::RolloutStatus;
use super::status::{self, State};
use super::tick::{TICK, Ticker};
use super::writing::{Then, Writing, answered, unanswered};

/// Most time a tick stands for: what happened while the process stood still was not seen by anybody.
const PASSED_MAX: Duration = Duration::from_secs(1);
/// How often what only time changed is written down, for a restart to go on from.
const CHECKPOINT: Duration = Duration::from_secs(30);

/// The writer. [`Control::run`] it.
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) publisher: Publisher,
    pub(super) current: Arc<Routing>,
    pub(super) registry: Arc<Registry>,
    pub(super) listening: Listening,
    /// Digest of the configuration in force.
    pub(super) config: Arc<str>,
    /// Settings the process began with; what only a restart applies is compared with these.
    pub(super) began_with: Arc<Settings>,
    pub(super) desk: Desk,
    pub(super) ledger: Ledger,
    pub(super) gates: Box<dyn Gates>,
    /// What is being written.
    pub(super) writing: Option<Writing>,
    /// A file that waits for it.
    pub(super) filing: Option<Box<Filing>>,
    /// What names are known to stand for.
    pub(super) answers: Answers,
    pub(super) ticker: Ticker,
    pub(super) ticked: Instant,
    /// Services whose candidate was shut out at the last tick without anybody having said why.
    pub(super) thrown: BTreeSet<Name>,
    /// No step is written before that.
    pub(super) up_from: Instant,
    /// It was told that nothing is written any more.
    pub(super) store_gone: bool,
    /// Counts the ticks, up to those of a [`CHECKPOINT`].
    pub(super) turn: usize,
    pub(super) aborts: mpsc::Receiver<Abort>,
    pub(super) verbs: mpsc::Receiver<Asked>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) reloads: mpsc::Receiver<Reload>,
}

/// A command.
pub(super) struct Asked {
    pub(super) service: String,
    /// What has to be in force.
    pub(super) expected: Option<Mark>,
    pub(super) ask: Ask,
    pub(super) landing: Option<Landing>,
    pub(super) reply: Reply<Applied>,
}

// === impl Control ===

impl Control {
    /// Takes events until every handle is gone. Aborts come first, whatever else is waiting or under way.
    pub async fn run(mut self) {
        let mut work: Option<Work> = None;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (busy, writing) = (work.is_some(), self.writing.is_some());
            let idle = !busy && !self.is_filing();
            // Without handles there is nobody left to decide for.
            let held = !self.commands.is_closed();
            tokio::select! {
                biased;
                Some(abort) = self.aborts.recv() => self.abort(abort),
                _ = ticks.tick(), if held => self.tick(clock::now()),
                outcome = answered(&mut self.writing), if writing => self.wrote(outcome, &mut work),
                stage = advance(&mut work), if busy => work = self.staged(stage),
                Some(command) = self.commands.recv() => self.command(command),
                // Each is decided on what the one before it made true.
                Some(asked) = self.verbs.recv(), if self.is_free() && self.filing.is_none() => self.decide(asked),
                Some(reload) = self.reloads.recv(), if idle => work = Some(self.look(reload)),
                else => return,
            }
            if self.is_free()
                && let Some(filing) = self.filing.take()
            {
                self.file(*filing);
            }
        }
    }

    fn is_filing(&self) -> bool {
        let written = self.writing.as_ref().is_some_and(|writing| matches!(writing.then, Then::File(_)));
        written || self.filing.is_some()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.ticked).min(PASSED_MAX);
        self.ticked = now;
        let mut seen: Vec<(usize, Seen)> = self.gates.tick(&self.current, now);
        let blamed: Vec<EndpointKey> = seen.iter_mut().filter_map(|(_, seen)| seen.eject.take()).collect();
        seen.sort_unstable_by_key(|(index, _)| *index);
        let mut seen = seen.into_iter().peekable();
        let (mut ups, mut done) = (Proposal::default(), Deeds::default());
        for index in 0..self.desk.services().len() {
            let of_it = std::iter::from_fn(|| seen.next_if(|(at, _)| *at <= index)).last();
            let of_it = of_it.filter(|(at, _)| *at == index).map(|(_, seen)| seen);
            if let Some(deeds) = self.tick_one(index, of_it, passed, &mut ups) {
                done.join(deeds);
            }
        }
        // All of it is one generation, however many fail at once, and whatever takes traffic back comes before anything else.
        self.carry_out(done);
        self.tick_endpoints(&blamed, now);
        self.publish_watches();
        self.look_after_the_store(now);
        if !ups.is_empty() && self.writing.is_none() && now >= self.up_from {
            self.write(ups, Then::Tick, None);
        }
        self.checkpoint();
    }

    /// Decides about endpoints; `blamed` are those the gate would leave out.
    fn tick_endpoints(&mut self, blamed: &[EndpointKey], now: Instant) {
        let mut notes = self.ticker.tick(&self.current, now);
        notes.extend(blamed.iter().filter_map(|key| self.ticker.eject(&self.current, key, now)));
        let restored = notes.iter().any(|note| note.what == What::EndpointRestored);
        for note in notes {
            self.shared.journal.note(note);
        }
        if restored {
            self.release();
        }
    }

    /// What time and the gate bring to the service at `index`: what is true at once comes back, the rest is added to `ups`.
    fn tick_one(&mut self, index: usize, seen: Option<Seen>, passed: Duration, ups: &mut Proposal) -> Option<Deeds> {
        let held = &self.desk.services()[index];
        if held.is_at_rest() {
            return None;
        }
        if self.is_thrown(index) {
            let reason = Some("whoever aborted it went away before saying so".to_owned());
            let ask = Ask { reason, ..Ask::of(Verb::Abort, "unknown") };
            let asked = self.desk.ask(index, &ask, clock::unix_time());
            return if let Ok(Decision::Done(deeds)) = asked { Some(deeds) } else { None };
        }
        let held = &self.desk.services()[index];
        let seen = seen.unwrap_or_else(|| self.nothing_seen(held));
        let ready = self.current.live[index].candidate.iter().any(|endpoint| endpoint.is_usable());
        match self.desk.on(index, Event::Tick(seen.facts(ready)), passed, clock::unix_time()) {
            Decision::Nothing => None,
            Decision::Done(deeds) => Some(deeds),
            Decision::Up(proposal) => {
                ups.join(proposal);
                None
            }
        }
    }

    /// What is known of a rollout of which nothing was seen at a tick. One that nobody watches goes nowhere.
    fn nothing_seen(&self, held: &Held) -> Seen {
        let counts = held.roles.current.as_ref().map(|current| current.rollout.seen).unwrap_or_default();
        let active = held.roles.active();
        let watched = active.is_none_or(|current| self.gates.is_watched(&held.wanted.name, current.id));
        let verdict = if watched { Verdict::Open } else { Verdict::Error };
        Seen { verdict, ..Seen::nothing(counts) }
    }

    /// Whether the switch of a candidate is thrown, and the abort that goes with it has not come since the last tick: then it never will.
    fn is_thrown(&mut self, index: usize) -> bool {
        let (held, live) = (&self.desk.services()[index], &self.current.live[index]);
        let name = &held.wanted.name;
        let shut = held.roles.active().is_some_and(|current| current.id == live.rollout) && !live.is_candidate_open();
        if !shut {
            self.thrown.remove(name);
            return false;
        }
        let seen_before = !self.thrown.insert(name.clone());
        if seen_before {
            self.thrown.remove(name);
        }
        seen_before
    }

    /// Writes down how far time and evidence have come, of some services at each tick.
    pub(super) fn checkpoint(&mut self) {
        let turns = usize::try_from(CHECKPOINT.as_millis() / TICK.as_millis()).unwrap_or(1);
        let indices = (self.turn..self.desk.services().len()).step_by(turns);
        let entries = indices.filter_map(|index| self.desk.checkpoint(index)).collect();
        self.turn = (self.turn + 1) % turns;
        self.owe(entries);
    }

    pub(super) fn abort(&mut self, abort: Abort) {
        let Abort { service, ask, reply } = abort;
        let answer = self.find(&service).and_then(|index| {
            let name = self.desk.services()[index].wanted.name.clone();
            let why = |why| Refused::State { service: name.clone(), why };
            self.thrown.remove(&name);
            match self.desk.ask(index, &ask, clock::unix_time()).map_err(why)? {
                Decision::Done(deeds) => self.carry_out(deeds),
                // There is nothing to take back: nothing that runs, nothing that is about to.
                Decision::Nothing | Decision::Up(_) => {}
            }
            Ok((self.aborted(index), self.ledger.landed(&name)))
        });
        // Whoever no longer waits needs no answer; so below.
        let _ = reply.send(answer);
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Preview { settings, reply } => {
                let _ = reply.send(self.preview(&settings));
            }
            Command::Endpoint(command) => self.endpoint(command),
            Command::Evidence { service, reply } => {
                let found = self.find(&service);
                let evidence = found.map(|index| self.gates.evidence(&self.desk.services()[index].wanted.name));
                let _ = reply.send(evidence);
            }
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

    pub(super) fn decide(&mut self, asked: Asked) {
        let Asked { service, expected, ask, landing, reply } = asked;
        let index = match self.find(&service).and_then(|index| self.expect(expected, index).map(|()| index)) {
            Ok(index) => index,
            Err(refused) => return drop(reply.send(Err(refused))),
        };
        let service = self.desk.services()[index].wanted.name.clone();
        match self.desk.ask(index, &ask, clock::unix_time()) {
            Err(why) => drop(reply.send(Err(Refused::State { service, why }))),
            Ok(Decision::Nothing) => drop(reply.send(Ok(self.applied(index)))),
            Ok(Decision::Done(deeds)) => {
                if let Some(landing) = landing {
                    self.ledger.owe(landing.line());
                }
                self.carry_out(deeds);
                drop(reply.send(Ok(self.applied(index))));
            }
            // The store does not answer about the one before it.
            Ok(Decision::Up(_)) if self.writing.is_some() => drop(reply.send(Err(unanswered()))),
            Ok(Decision::Up(proposal)) => {
                let begins = proposal.begins();
                let also = landing.clone().map(Landing::line);
                self.write(proposal, Then::Command { service, begins, landing, reply }, also);
            }
        }
    }

    /// Refuses what was asked of the service at `index` in view of something else than what is in force.
    fn expect(&self, expected: Option<Mark>, index: usize) -> Result<(), Refused> {
        let revision = Some(self.revision(index));
        let found = Mark { generation: self.current.snapshot.generation, revision };
        match expected.filter(|expected| !expected.fits(&found)) {
            Some(expected) => Err(Refused::Stale { expected, found }),
            None => Ok(()),
        }
    }

    pub(super) fn revision(&self, index: usize) -> u64 {
        self.desk.services()[index].roles.revision
    }

    /// Carries out what follows from the start, once it is watched. The evidence of `lost` is, for the reason given.
    pub(super) fn begin(&mut self, deeds: Deeds, lost: Vec<(Name, String)>) {
        let Deeds { owed, said, over, .. } = deeds;
        self.shared.tally.count(&over);
        self.owe(owed);
        let running = |service: &Name| {
            let index = self.desk.find(service.as_str());
            index.is_some_and(|index| self.desk.services()[index].roles.active().is_some())
        };
        for said in said.into_iter().filter(|said| said.note.verb == "restart" && running(&said.service)) {
            self.tell(said);
        }
        for (service, why) in lost {
            self.note(Note {
                actor: "start".to_owned(),
                what: What::EvidenceLost,
                service: Some(service.to_string()),
                change: None,
                detail: Some(format!("what was seen before the restart is lost, the gate begins anew: {why}")),
                generation: self.current.snapshot.generation,
            });
        }
    }

    /// Has the gate do its work, in force from the next publication on.
    pub(super) fn watch(&mut self, work: Vec<(Name, GateWork)>) {
        for (service, work) in work {
            watch(self.gates.as_mut(), &self.desk, &service, work, clock::now());
        }
    }

    fn preview(&self, settings: &Settings) -> Result<Validated, Refused> {
        let changes = self.desk.preview(&settings.services, clock::unix_time()).map_err(Refused::Plan)?;
        Ok(Validated {
            generation: self.current.snapshot.generation,
            changes,
            needs_restart: config::needs_restart(&self.began_with, settings),
            listeners: settings.listeners.len(),
            routes: settings.routes.len(),
            services: settings.services.len(),
        })
    }

    /// What is in force.
    pub(super) fn routing(&self) -> &Routing {
        &self.current
    }

    pub(super) fn note(&self, note: Note) {
        self.shared.journal.note(note);
    }

    pub(super) fn find(&self, service: &str) -> Result<usize, Refused> {
        let unknown = || Refused::UnknownService { service: service.to_owned(), known: status::names(&self.current) };
        self.desk.find(service).ok_or_else(unknown)
    }

    pub(super) fn applied(&self, index: usize) -> Applied {
        let (active, live) = self.current.service(index);
        let state = State::of(active, live.is_candidate_open());
        let roles = &self.desk.services()[index].roles;
        Applied {
            service: active.service.name.clone(),
            generation: self.current.snapshot.generation,
            weight: if state == State::Aborted { Weight::ZERO } else { active.running.weight },
            state,
            stable: active.service.stable.version.clone(),
            candidate: active.version(Variant::Candidate).cloned(),
            revision: roles.revision,
            rollout: RolloutStatus::latest(roles),
            begins: false,
        }
    }

    fn aborted(&self, index: usize) -> Aborted {
        let Applied { service, generation, weight, state, stable, candidate, revision, .. } = self.applied(index);
        Aborted { service, generation, weight, state, stable, candidate, revision, settled: false, persisted: false }
    }
}

/// Has the gate do `work` for `service`. What it cannot watch is told of at every tick: its rollout waits.
pub(super) fn watch(gates: &mut dyn Gates, desk: &Desk, service: &Name, work: GateWork, now: Instant) {
    let current = desk.find(service.as_str()).and_then(|index| desk.services()[index].roles.current.as_ref());
    let hold = current.map(|current| current.rollout.hold(&current.terms.plan)).unwrap_or_default();
    match (work, current) {
        (GateWork::Begin(rollout), Some(current)) => match gates.begin(service, rollout, &current.terms.gate, now) {
            Ok(()) => gates.step(service, current.rollout.step, hold),
            Err(error) => tracing::error!(%service, rollout, %error, "the candidate is not watched"),
        },
        (GateWork::Begin(_), None) => {}
        (GateWork::Step(step), _) => gates.step(service, step, hold),
        (GateWork::Report, _) => gates.report(service),
        (GateWork::End, _) => gates.end(service),
    }
}

/// Awaits the stage under way.
async fn advance(work: &mut Option<Work>) -> super::reload::Stage {
    match work {
        Some(work) => work.as_mut().await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("generation", &self.current.snapshot.generation).finish_non_exhaustive()
    }
}
