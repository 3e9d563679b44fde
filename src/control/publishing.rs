//! Carrying out what was decided: switches, publication, records, in that order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock;
use crate::config::settings::Settings;
use crate::core::endpoint::Question;
use crate::core::id::{Name, Version};
use crate::core::roles::{self, GateWork};
use crate::core::snapshot::ActiveService;
use crate::core::weight::Weight;
use crate::state::current::Routing;
use crate::state::live::ServiceLive;
use crate::store::audit::Draft;

use super::desk::{Deeds, Entry, Proposal, Said};
use super::discovery::{self, Resolution, shown};
use super::endpoint::carry_drains;
use super::gate::Proof;
use super::health;
use super::journal::{Note, What};
use super::ledger::Line;
use super::past::Past;
use super::writer::Control;
use super::writing::{Then, Writing};

impl Control {
    /// Does what is true already.
    pub(super) fn carry_out(&mut self, deeds: Deeds) {
        let Deeds { close, publish, shut, owed, gate, said, over, released: _ } = deeds;
        // Before anything else: retries and parked requests go by the switch, not by the snapshot they began with.
        self.close(&close);
        self.publish_services(&publish, gate);
        self.shut(&shut);
        self.owe(owed);
        self.shared.tally.count(&over);
        self.show(said.iter().map(|said| &said.service));
        for said in said {
            self.tell(said);
        }
    }

    /// Throws the switches of the candidates of these.
    pub(super) fn close(&self, names: &[Name]) {
        for live in names.iter().filter_map(|name| self.live_of(name)) {
            live.close_candidate();
        }
    }

    /// Shuts these to requests that go by anything older than what is in force.
    pub(super) fn shut(&self, versions: &[(Name, Version)]) {
        for (service, version) in versions {
            self.registry.shut(service, version, self.current.snapshot.generation);
        }
    }

    /// Has `proposal` written; it is true once that is done. Call it only while nothing is being written.
    pub(super) fn write(&mut self, proposal: Proposal, then: Then, also: Option<Line>) {
        let entries = self.desk.write(proposal);
        let mut lines: Vec<Line> = entries.into_iter().map(|entry| self.line(entry)).collect();
        lines.extend(also);
        let answer = self.ledger.write(lines, self.desk.next_rollout());
        self.writing = Some(Writing { answer, then, since: clock::now() });
    }

    /// Has `entries` written sooner or later.
    pub(super) fn owe(&self, entries: Vec<Entry>) {
        for entry in entries {
            let line = self.line(entry);
            self.ledger.owe(line);
        }
    }

    /// Has the store corrected, which may have what never came true, and tells people.
    pub(super) fn put_right(&self, as_is: Vec<Entry>) {
        for entry in &as_is {
            let index = self.desk.find(entry.service.as_str());
            let weight = index.map_or(Weight::ZERO, |index| self.desk.services()[index].roles.weight());
            for note in entry.notes.iter().cloned() {
                self.tell(Said { service: entry.service.clone(), note, weights: (weight, weight), begins: false });
            }
        }
        self.owe(as_is);
    }

    /// What the store is told of `entry`, and of the evidence of its rollout.
    fn line(&self, entry: Entry) -> Line {
        let Entry { service, record, notes, over } = entry;
        let past = over.into_iter().filter_map(|over| {
            let proof = over.ended.is_by_gate().then(|| self.gates.proof(&service)).flatten();
            Some(Past::of(over.ended.id, over.course.as_deref()?, proof))
        });
        let past = past.collect();
        let drafts = notes.into_iter().map(|note| self.draft(Some(&service), note)).collect();
        let evidence = self.gates.state(&service).map(Box::new);
        Line { service: Some((service, record)), past, evidence, drafts, ..Line::default() }
    }

    pub(super) fn draft(&self, service: Option<&Name>, note: roles::Note) -> Draft {
        let proof = service.and_then(|service| self.proof(service, &note));
        let roles::Note { actor, source, verb, rollout, from, to, reason } = note;
        let (words, evidence) = proof.map(|proof| (proof.words, proof.numbers)).unzip();
        Draft {
            time: u64::try_from(clock::unix_time().as_millis()).unwrap_or(u64::MAX),
            actor,
            source,
            verb: verb.to_owned(),
            service: service.map(ToString::to_string),
            rollout: (rollout != 0).then_some(rollout),
            from,
            to,
            generation: self.current.snapshot.generation,
            reason: reason.or(words),
            evidence,
            config: self.config.to_string(),
        }
    }

    /// Takes a transition down for people.
    pub(super) fn tell(&self, said: Said) {
        let Said { service, note, weights: (from, to), begins: _ } = said;
        let proof = self.proof(&service, &note);
        if let (What::Abort, Some(after)) = (What::of_verb(note.verb), proof.as_ref().and_then(|proof| proof.after)) {
            self.shared.views.detected(&service, after);
        }
        let words = proof.map(|proof| proof.words);
        let change = (from != to).then(|| (from.to_string(), to.to_string()));
        self.shared.journal.note(Note {
            actor: note.actor,
            what: What::of_verb(note.verb),
            service: Some(service.to_string()),
            change,
            detail: note.reason.or(words).or(Some(note.to)),
            generation: self.current.snapshot.generation,
        });
    }

    /// What the gate says for itself where it was the gate that acted.
    fn proof(&self, service: &Name, note: &roles::Note) -> Option<Proof> {
        let acted = note.is_by_gate() && What::of_verb(note.verb) != What::Overtaken;
        acted.then(|| self.gates.proof(service)).flatten()
    }

    /// Publishes what runs of the services called `names`, counted as `work` says.
    fn publish_services(&mut self, names: &[Name], work: Vec<(Name, GateWork)>) {
        if names.is_empty() {
            return self.watch(work);
        }
        let (mut services, mut live) = (self.current.snapshot.services.clone(), self.current.live.clone());
        let (mut moved, mut told) = (false, Vec::new());
        for index in names.iter().filter_map(|name| self.desk.find(name.as_str())) {
            services[index] = shown(&self.desk.services()[index], &self.answers, Some(&services[index]));
            let next = self.registry.resolve_one(&services[index], Some(&live[index]));
            let carried = carry_drains(&services[index], &live[index], &next);
            told.extend(carried.into_iter().map(|(what, detail)| (index, what, detail)));
            moved |= !Arc::ptr_eq(&next, &live[index]);
            live[index] = next;
        }
        let next = Routing { snapshot: self.current.snapshot.next(services), live };
        self.gates.follow(&next);
        self.watch(work);
        if moved {
            self.publish_members(next);
        } else {
            drop(self.publish(next));
        }
        for (index, what, detail) in told {
            let service = Some(self.current.snapshot.services[index].service.name.to_string());
            let generation = self.current.snapshot.generation;
            let (actor, detail) = ("plan".to_owned(), Some(detail));
            self.shared.journal.note(Note { actor, what, service, change: None, detail, generation });
        }
    }

    /// Publishes `next`; what was in force comes back.
    pub(super) fn publish(&mut self, mut next: Routing) -> Arc<Routing> {
        self.gates.install(&mut next);
        let published = self.publisher.publish(next);
        self.shared.published.send_replace(published.snapshot.generation);
        std::mem::replace(&mut self.current, published)
    }

    /// Publishes what is to be counted from now on, if that is not done already.
    pub(super) fn publish_watches(&mut self) {
        if self.gates.is_due(&self.current) {
            let (snapshot, live) = (health::next_generation(&self.current.snapshot), self.current.live.clone());
            drop(self.publish(Routing { snapshot, live }));
        }
    }

    /// Publishes a generation with other endpoints.
    fn publish_members(&mut self, next: Routing) {
        let replaced = self.publish(next);
        self.registry.sweep(&self.current.live, clock::now());
        let settled = self.shared.plane.settled();
        // Nobody waits for an answer: the workers close what they keep open to those that went. Bounded by the plane.
        tokio::spawn(async move { drop((settled.await, replaced)) });
    }

    /// Lets endpoints go that were kept until others of their pool take requests, if enough do by now.
    pub(super) fn release(&mut self) {
        let mut live = self.current.live.clone();
        let (mut moved, services) = (false, &self.current.snapshot.services);
        for (active, live) in services.iter().zip(&mut live).filter(|(_, live)| health::keeps_left_ones(live)) {
            let next = self.registry.resolve_one(active, Some(live));
            moved |= !Arc::ptr_eq(&next, live);
            *live = next;
        }
        if !moved {
            return;
        }
        self.publish_members(Routing { snapshot: health::next_generation(&self.current.snapshot), live });
    }

    /// Takes in what names are answered.
    pub(super) fn resolved(&mut self, resolution: Resolution) {
        let services = self.current.snapshot.services.iter();
        let asked: HashSet<Question> = services.flat_map(ActiveService::questions).collect();
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
    pub(super) fn forget(&mut self, settings: &Settings) {
        let wanted = settings.services.iter().flat_map(|service| service.questions());
        let running = self.current.snapshot.services.iter().flat_map(ActiveService::questions);
        let asked: HashSet<Question> = wanted.chain(running).collect();
        self.answers.retain(|question, _| asked.contains(question));
    }

    /// Shows how the services called `names` stand.
    fn show<'a>(&self, names: impl Iterator<Item = &'a Name>) {
        let mut indices: Vec<usize> = names.filter_map(|name| self.desk.find(name.as_str())).collect();
        indices.dedup();
        if !indices.is_empty() {
            self.shared.views.show(indices.into_iter().map(|index| &self.desk.services()[index]), clock::now());
        }
    }

    fn live_of(&self, name: &Name) -> Option<&Arc<ServiceLive>> {
        let (index, _) = self.current.snapshot.service(name.as_str())?;
        self.current.live.get(index)
    }

    pub(super) fn live_by_name(&self) -> HashMap<Name, Arc<ServiceLive>> {
        let names = self.current.snapshot.services.iter().map(|active| active.service.name.clone());
        names.zip(self.current.live.iter().cloned()).collect()
    }
}
