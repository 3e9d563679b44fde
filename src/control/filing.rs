//! A file that is looked at, decided, written down, put in force: the writer's half of a reload.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock;
use crate::config;
use crate::core::id::Name;
use crate::core::roles::{self, Ended};
use crate::core::rollout::End;
use crate::core::snapshot::Snapshot;
use crate::state::current::Routing;
use crate::state::live::ServiceLive;

use super::answer::{Outcome, Refused, Reloaded};
use super::desk::{Filed, Said, Written, decided_anew};
use super::discovery::shown;
use super::endpoint::carry_drains;
use super::handle::{Author, Reload};
use super::journal::InForce;
use super::ledger::Line;
use super::reload::{self, Filing, Indexed, Look, Published, Ready, Stage, Waiting, With, Work};
use super::writer::Control;
use super::writing::{Then, unanswered};

impl Control {
    pub(super) fn look(&mut self, first: Reload) -> Work {
        let mut waiting = Waiting { by: first.by, replies: vec![first.reply] };
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

    /// Goes on with a reload after a stage of it; `None` when it is over, or waits to be written.
    pub(super) fn staged(&mut self, stage: Stage) -> Option<Work> {
        let Stage::Looked(waiting, outcome) = stage else {
            // No worker holds the snapshot before any more: most of what left it can go.
            self.registry.sweep(&self.current.live, clock::now());
            return None;
        };
        match outcome {
            Ok(Look::Unchanged) => {
                let answer = Ok(self.unchanged(&waiting.by.actor));
                waiting.answer(&answer);
            }
            Ok(Look::Ready(ready)) => {
                self.filing = Some(Box::new(Filing { ready: *ready, waiting, changes: Vec::new() }));
            }
            Err(refused) => self.refuse_reload(waiting, refused),
        }
        None
    }

    /// Decides what a file changes and has that written.
    pub(super) fn file(&mut self, filing: Filing) {
        if self.writing.is_some() {
            return self.refuse(filing, unanswered());
        }
        match self.desk.file(&filing.ready.settings.services, clock::unix_time()) {
            Err(refusals) => self.refuse(filing, Refused::Plan(refusals)),
            Ok(Filed { proposal, changes }) => {
                let draft = self.draft(None, self.reload_note(&filing));
                let also = Line { drafts: vec![draft], ..Line::default() };
                self.write(proposal, Then::File(Box::new(Filing { changes, ..filing })), Some(also));
            }
        }
    }

    /// What the audit says of a file.
    pub(super) fn reload_note(&self, filing: &Filing) -> roles::Note {
        let Author { actor, source } = filing.waiting.by.clone();
        let (from, to) = (self.config.to_string(), filing.ready.digest.clone());
        roles::Note { actor, source, verb: "reload", rollout: 0, from, to, reason: None }
    }

    /// Has the audit say that a file it may have is not in force.
    pub(super) fn take_back(&self, filing: &Filing, say: impl Fn(&roles::Note) -> roles::Note) {
        let drafts = vec![self.draft(None, say(&self.reload_note(filing)))];
        self.ledger.owe(Line { drafts, ..Line::default() });
    }

    /// Puts a file in force that was written; one that something overtook is decided anew.
    pub(super) fn filed(&mut self, filing: Filing, written: Written) -> Option<Work> {
        let deeds = match written {
            Written::True { deeds, .. } => deeds,
            Written::Overtaken { as_is } => {
                self.put_right(as_is);
                self.take_back(&filing, decided_anew);
                self.filing = Some(Box::new(filing));
                return None;
            }
            // Nobody is left who waits: those are answered where the store says no.
            Written::Refused { .. } => return None,
        };
        let Filing { ready: Ready { settings, routes, prepared, commit, digest }, waiting, mut changes } = filing;
        let generation = self.current.snapshot.generation + 1;
        let before = |name: &Name| self.current.snapshot.service(name.as_str()).map(|(_, active)| active);
        let services = self.desk.services().iter();
        let services = services.map(|held| shown(held, &self.answers, before(&held.wanted.name))).collect();
        let snapshot = Snapshot { generation, routes, services };
        let previous = self.live_by_name();
        for name in &deeds.close {
            previous.get(name).inspect(|live| live.close_candidate());
        }
        let live = self.registry.resolve(&snapshot, &previous);
        for (active, live) in snapshot.services.iter().zip(&live) {
            let name = &active.service.name;
            let carried = previous.get(name).map(|before| carry_drains(active, before, live)).unwrap_or_default();
            changes.extend(carried.into_iter().map(|(_, told)| format!("services.{name}: {told}")));
        }
        let next = Routing { snapshot, live };
        self.gates.follow(&next);
        self.watch(deeds.gate);
        let replaced = self.publish(next);
        self.close_superseded(&previous);
        self.shut(&deeds.shut);
        self.forget(&settings);
        self.registry.sweep(&self.current.live, clock::now());
        self.config = digest.into();
        self.shared.tally.count(&deeds.over);
        self.shared.tally.keep(self.desk.services().iter().map(|held| &held.wanted.name));
        self.shared.views.replace(self.desk.services(), clock::now());
        let needs_restart = config::needs_restart(&self.began_with, &settings);
        let addresses = prepared.addresses();
        let journal = &self.shared.journal;
        journal.set_in_force(InForce { settings, addresses, needs_restart: needs_restart.clone() });
        journal.reloaded(&waiting.by.actor, Outcome::Applied, generation, &changes);
        for said in deeds.said {
            self.tell_of_file(said, &deeds.over);
        }
        let answer = Reloaded { outcome: Outcome::Applied, generation, changes, needs_restart, settled: false };
        let published = Published { answer, prepared, commit, replaced };
        Some(reload::finish(published, Arc::clone(&self.shared.plane), waiting))
    }

    /// Tells of the rollout that a file has begun, or else has ended.
    fn tell_of_file(&self, said: Said, over: &[(Name, Ended)]) {
        let ended = over.iter().find(|(service, _)| *service == said.service).map(|(_, ended)| &ended.end);
        let verb = match ended {
            _ if said.begins => "start",
            Some(End::Aborted(_)) => "abort",
            Some(_) => "supersede",
            None => return,
        };
        self.tell(Said { note: roles::Note { verb, ..said.note }, ..said });
    }

    /// Tells everyone who waits that the file is not put in force.
    pub(super) fn refuse(&self, filing: Filing, refused: Refused) {
        self.refuse_reload(filing.waiting, refused);
    }

    fn refuse_reload(&self, waiting: Waiting, refused: Refused) {
        self.shared.journal.refused(&waiting.by.actor, self.current.snapshot.generation, &refused);
        waiting.answer(&Err(refused));
    }

    fn unchanged(&self, actor: &str) -> Reloaded {
        let (journal, generation) = (&self.shared.journal, self.current.snapshot.generation);
        journal.reloaded(actor, Outcome::Unchanged, generation, &[]);
        let needs_restart = journal.in_force().needs_restart;
        Reloaded { outcome: Outcome::Unchanged, generation, changes: Vec::new(), needs_restart, settled: true }
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
}
