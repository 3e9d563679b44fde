//! What is around control in the simulation: a disk, a data plane, a gate, files; and what has to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::control::desk::{Decision, Deeds, Desk, Entry, Filed, Proposal, Written};
use tidegate::control::ledger::{self, Failed, Line, Outcome, Queue, Turn};
use tidegate::core::endpoint::{Declared, Place};
use tidegate::core::id::{Name, Version};
use tidegate::core::roles::{Ask, GateWork, Roles, Verb};
use tidegate::core::rollout::{Counts, Event as RolloutEvent, Facts, Verdict};
use tidegate::core::service::Service;
use tidegate::core::weight::Weight;
use tidegate::store::keep::Keep;
use tidegate::store::{Change, Record, StoreError, Table};
use tokio::sync::oneshot;

const NAMES: [&str; 2] = ["api", "web"];
/// The file it begins with.
const FIRST: [(u8, u8, bool); 2] = [(1, 0, false); 2];

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody asks something of a service.
    Ask(usize, Box<Ask>),
    /// The file changes: stable (zero: without that service), candidate (zero: none), by hand, per service.
    File([(u8, u8, bool); 2]),
    /// So many milliseconds pass.
    Tick(u32),
    /// The disk answers. One that fails may have `landed` what was written all the same.
    Disk { fails: bool, landed: bool },
    /// The process dies; what was being written may have landed.
    Crash { landed: bool },
    /// The process dies, and its store is gone.
    StoreLost,
}

/// What the data plane knows of a service.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shown {
    stable: Option<Version>,
    candidate: Option<Version>,
    weight: Weight,
    rollout: u64,
    aborted: bool,
}

/// Why something was decided.
#[derive(Clone, Debug)]
enum Why {
    Asked(Verb),
    File,
    Time(Facts),
}

#[derive(Default)]
struct Disk(Mutex<BTreeMap<(u8, String), Record>>);

pub(super) struct World {
    desk: Desk,
    queue: Queue,
    disk: Disk,
    /// Who waits for the write, and whether it came from a file.
    writing: Option<(oneshot::Receiver<Outcome>, bool)>,
    shown: BTreeMap<Name, Shown>,
    closed: BTreeSet<(Name, u64)>,
    /// Services of which the disk has something nobody was told of, and that was not put right yet.
    lied: BTreeSet<Name>,
    /// Why what is being written, or was written last, was decided.
    asked: BTreeMap<Name, Why>,
    /// What the gates said at the last tick.
    said: BTreeMap<Name, Facts>,
    watched: BTreeSet<Name>,
    /// How services were that are not in the file any more.
    left: BTreeMap<Name, Roles>,
    file: Vec<Arc<Service>>,
    now: Duration,
}

/// An invariant that does not hold.
type Held = Result<(), String>;

macro_rules! holds {
    ($condition:expr, $($say:tt)*) => { if !$condition { return Err(format_args!($($say)*).to_string()); } };
}

// Behind the macro, which it uses.
mod falls;

pub(super) fn version(n: u8) -> Version {
    Version::new(&format!("v{n}")).expect("a version")
}

pub(super) fn declared() -> Vec<Declared> {
    vec![Declared { place: Place::Fixed(([10, 0, 0, 1], 80).into()), weight: 1 }]
}

/// `None`: the file is refused for itself.
fn files(wanted: [(u8, u8, bool); 2]) -> Option<Vec<Arc<Service>>> {
    let mut text = "[[listeners]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n[[routes]]\nservice = \"web\"\n".to_owned();
    for (name, (stable, candidate, by_hand)) in NAMES.into_iter().zip(wanted).filter(|(_, (stable, ..))| *stable > 0) {
        let pool = |role: &str, n: u8| {
            format!("[services.{name}.{role}]\nversion = \"v{n}\"\nendpoints = [\"10.0.0.{n}:80\"]\n")
        };
        text += &pool("stable", stable);
        if candidate > 0 {
            text += &pool("candidate", candidate);
        }
        let start = if by_hand { "manual" } else { "auto" };
        // Files that name the same candidate want other plans.
        let hold = if by_hand { 20 } else { 40 };
        let steps = format!("[{{ weight = \"5%\", hold = \"{hold}s\" }}, {{ weight = \"50%\", hold = \"60s\" }}]");
        writeln!(text, "[services.{name}.rollout]\nstart = {start:?}\nsteps = {steps}").expect("a string");
    }
    let twice = wanted.iter().any(|(stable, candidate, _)| *stable > 0 && stable == candidate);
    let parsed = tidegate::config::parse(&text, Path::new("sim.toml"), &|_| None);
    assert_eq!(parsed.is_err(), twice, "{parsed:?}");
    parsed.ok().map(|settings| settings.services)
}

// === impl Disk ===

fn number(table: Table) -> u8 {
    match table {
        Table::Services => 0,
        Table::Process => 1,
        Table::Rollouts => 2,
        Table::Memories => 4,
        _ => 3,
    }
}

impl Keep for Disk {
    fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        let mut records = self.0.lock().expect("no panic");
        for (table, key, record) in &change.put {
            records.insert((number(*table), key.clone()), record.clone());
        }
        for (table, key) in &change.remove {
            records.remove(&(number(*table), key.clone()));
        }
        records
            .retain(|(table, key), _| !change.cut.iter().any(|(of, keys)| number(*of) == *table && keys.contains(key)));
        Ok(0)
    }

    fn get(&self, table: Table, key: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.0.lock().expect("no panic").get(&(number(table), key.to_owned())).cloned())
    }

    fn audit(&self, _: u64, _: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError> {
        let records = self.0.lock().expect("no panic");
        let of_table = records.iter().filter(|((kept, _), _)| *kept == number(table));
        Ok(of_table.map(|((_, key), record)| (key.clone(), record.clone())).collect())
    }
}

// === impl World ===

impl World {
    pub(super) fn new() -> Self {
        let file = files(FIRST).expect("a file");
        let disk = Disk::default();
        let now = Duration::from_secs(1_000_000);
        let (desk, deeds) = open(&disk, &file, now);
        let mut world = Self {
            desk,
            queue: Queue::default(),
            disk,
            writing: None,
            shown: BTreeMap::new(),
            closed: BTreeSet::new(),
            lied: BTreeSet::new(),
            asked: BTreeMap::new(),
            said: BTreeMap::new(),
            watched: BTreeSet::new(),
            left: BTreeMap::new(),
            file,
            now,
        };
        world.boot(deeds);
        world
    }

    /// Lets `event` happen, and looks whether everything still holds.
    pub(super) fn play(&mut self, event: &Event, facts: impl FnMut(Counts) -> Facts) -> Held {
        let (before, shown) = (self.roles(), self.shown.clone());
        match event {
            Event::Ask(service, ask) => self.ask(*service, ask)?,
            Event::File(wanted) => self.file(*wanted),
            Event::Tick(ms) => self.tick(Duration::from_millis(u64::from(*ms)), facts)?,
            Event::Disk { fails, landed } => self.disk(*fails, *landed)?,
            Event::Crash { landed } => self.crash(*landed),
            Event::StoreLost => self.lose(),
        }
        self.rises(event, &shown)?;
        self.falls(event, &before)?;
        self.acts(event, &before)?;
        self.leaves(event, before.clone())?;
        self.always(event, &before)
    }

    /// Lets the disk catch up; then it has what is true.
    pub(super) fn settle(&mut self) -> Held {
        for _ in 0..10 {
            self.disk(false, true)?;
        }
        holds!(!self.queue.is_owing() && self.writing.is_none(), "something never lands");
        let stored = ledger::load(&self.disk).map_err(|bad| bad.to_string())?;
        for held in self.desk.services() {
            let record = stored.roles.get(&held.wanted.name).ok_or("a service without a record")?;
            let sight = |roles: &Roles| (roles.revision, roles.running(), roles.stable.version.clone());
            holds!(sight(record) == sight(&held.roles), "10: the store has {:?}", sight(record));
        }
        Ok(())
    }

    fn roles(&self) -> BTreeMap<Name, Roles> {
        self.desk.services().iter().map(|held| (held.wanted.name.clone(), held.roles.clone())).collect()
    }

    fn ask(&mut self, service: usize, ask: &Ask) -> Held {
        let back = matches!(ask.verb, Verb::Abort | Verb::Rollback);
        if self.desk.is_writing() && !back {
            // It waits for its turn: to be asked later is another event.
            return Ok(());
        }
        let Some(service) = self.desk.find(NAMES[service]) else { return Ok(()) };
        match self.desk.ask(service, ask, self.now) {
            Err(refused) => holds!(ask.verb != Verb::Abort, "1: an abort was refused: {refused}"),
            Ok(Decision::Nothing) => {}
            Ok(Decision::Done(deeds)) => self.carry_out(deeds),
            Ok(Decision::Up(proposal)) => {
                holds!(!back, "1: what goes back waits for the disk");
                let name = self.desk.services()[service].wanted.name.clone();
                self.write(proposal, false, BTreeMap::from([(name, Why::Asked(ask.verb.clone()))]));
            }
        }
        if ask.verb == Verb::Abort {
            let held = &self.desk.services()[service];
            let shown = &self.shown[&held.wanted.name];
            holds!(shown.weight == Weight::ZERO && held.roles.active().is_none(), "1: aborted, and {shown:?}");
            let open = shown.candidate.is_some() && !self.closed.contains(&(held.wanted.name.clone(), shown.rollout));
            holds!(!open || shown.aborted, "8: aborted, and the candidate is open");
        }
        Ok(())
    }

    fn file(&mut self, wanted: [(u8, u8, bool); 2]) {
        if self.desk.is_writing() {
            return;
        }
        let Some(wanted) = files(wanted) else { return };
        if let Ok(Filed { proposal, .. }) = self.desk.file(&wanted, self.now) {
            self.file = wanted;
            self.write_file(proposal);
        }
    }

    fn tick(&mut self, passed: Duration, mut facts: impl FnMut(Counts) -> Facts) -> Held {
        self.now += passed;
        let (mut ups, mut why) = (Proposal::default(), BTreeMap::new());
        for index in 0..self.desk.services().len() {
            let held = &self.desk.services()[index];
            let before = held.roles.current.as_ref().map(|current| (current.rollout.phase(), current.rollout.seen));
            let facts = facts(before.map(|(_, seen)| seen).unwrap_or_default());
            let harmful = matches!(facts.verdict, Verdict::Harmful { .. });
            let name = held.wanted.name.clone();
            self.said.insert(name.clone(), facts.clone());
            // Ticks are short; a simulated one stands for many that said the same.
            match self.desk.on(index, RolloutEvent::Tick(facts.clone()), passed * 200, self.now) {
                Decision::Nothing => {}
                Decision::Done(deeds) => self.carry_out(deeds),
                Decision::Up(proposal) => {
                    ups.join(proposal);
                    why.insert(name, Why::Time(facts));
                }
            }
            let after = self.desk.services()[index].roles.current.as_ref().map(|current| current.rollout.phase());
            let aborted = after == Some("aborted") && before.is_some_and(|(phase, _)| phase != "aborted");
            holds!(!aborted || harmful, "4: aborted, and nobody spoke of harm");
        }
        if !ups.is_empty() && !self.desk.is_writing() {
            self.write(ups, false, why);
        }
        for index in 0..self.desk.services().len() {
            if let Some(entry) = self.desk.checkpoint(index) {
                self.owe(entry);
            }
        }
        Ok(())
    }

    fn disk(&mut self, fails: bool, landed: bool) -> Held {
        let Some(turn) = self.queue.next(true) else {
            holds!(self.lied.is_empty(), "10: nothing puts {:?} right", self.lied);
            return Ok(());
        };
        let about = services_of(&turn);
        let mut outcome = if landed || !fails { self.commit(&turn) } else { Ok(()) };
        if fails {
            outcome = Err(Failed { full: !landed, why: "as the seed has it".to_owned() });
            self.lied.extend(about.into_iter().filter(|_| landed));
        } else {
            self.lied.retain(|name| !about.contains(name));
        }
        self.queue.done(turn, outcome);
        let Some((answer, filed)) = &mut self.writing else { return Ok(()) };
        let Ok(outcome) = answer.try_recv() else { return Ok(()) };
        let filed = *filed;
        self.writing = None;
        match self.desk.written(outcome.is_ok()) {
            Written::True { deeds, .. } => self.carry_out_of(deeds, filed),
            Written::Overtaken { as_is } => {
                // It landed, and is not what is true.
                self.lied.extend(as_is.iter().map(|entry| entry.service.clone()));
                self.owe_all(as_is);
                let again = self.desk.file(&self.file.clone(), self.now);
                if let Ok(Filed { proposal, .. }) = again {
                    self.write_file(proposal);
                }
            }
            Written::Refused { as_is } if landed => self.owe_all(as_is),
            Written::Refused { .. } => {}
        }
        Ok(())
    }

    fn commit(&self, turn: &Turn) -> Outcome {
        let failed = |why: String| Failed { full: false, why };
        let change = turn.change().map_err(|error| failed(error.to_string()))?;
        self.disk.commit(&change).map(drop).map_err(|error| failed(error.to_string()))
    }

    fn crash(&mut self, landed: bool) {
        if landed && let Some(turn) = self.queue.next(true) {
            // The disk had it, and nobody was told.
            let _ = self.commit(&turn);
        }
        self.begin_again();
    }

    fn lose(&mut self) {
        self.disk = Disk::default();
        self.begin_again();
    }

    fn begin_again(&mut self) {
        (self.queue, self.writing, self.lied) = (Queue::default(), None, BTreeSet::new());
        (self.closed, self.watched, self.shown) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let stored = ledger::load(&self.disk).expect("understood");
        // A file that does not fit what is known of a digest would stop the start; these have none.
        let (desk, deeds) = if let Ok(opened) = Desk::open(stored, &self.file, self.now) {
            opened
        } else {
            self.file = files(FIRST).expect("a file");
            open(&self.disk, &self.file, self.now)
        };
        self.desk = desk;
        self.boot(deeds);
    }

    fn boot(&mut self, deeds: Deeds) {
        self.carry_out_of(deeds, true);
    }

    fn write_file(&mut self, proposal: Proposal) {
        let why = self.desk.services().iter().map(|held| (held.wanted.name.clone(), Why::File));
        self.write(proposal, true, why.collect());
    }

    fn write(&mut self, proposal: Proposal, filed: bool, why: BTreeMap<Name, Why>) {
        self.asked = why;
        let lines = self.desk.write(proposal).into_iter().map(line).collect();
        let (reply, answer) = oneshot::channel();
        self.queue.write(lines, self.desk.next_rollout(), reply);
        self.writing = Some((answer, filed));
    }

    fn owe(&mut self, entry: Entry) {
        let (reply, _) = oneshot::channel();
        self.queue.owe(line(entry), reply);
    }

    fn owe_all(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.owe(entry);
        }
    }

    fn carry_out(&mut self, deeds: Deeds) {
        self.carry_out_of(deeds, false);
    }

    /// `all`: everything is published anew, as after a file.
    fn carry_out_of(&mut self, deeds: Deeds, all: bool) {
        for name in deeds.close {
            if let Some(shown) = self.shown.get(&name) {
                self.closed.insert((name, shown.rollout));
            }
        }
        self.shown.retain(|name, _| !all || self.desk.find(name.as_str()).is_some());
        for held in self.desk.services() {
            let (name, roles) = (&held.wanted.name, &held.roles);
            if all || deeds.publish.contains(name) {
                let (candidate, running) = (roles.candidate().map(|pool| pool.version.clone()), roles.running());
                let stable = Some(roles.stable.version.clone());
                let (weight, rollout, aborted) = (running.weight, running.rollout, running.aborted);
                self.shown.insert(name.clone(), Shown { stable, candidate, weight, rollout, aborted });
            }
        }
        self.owe_all(deeds.owed);
        for (name, work) in deeds.gate {
            match work {
                GateWork::Begin(_) | GateWork::Report => {
                    self.watched.insert(name);
                }
                GateWork::End => {
                    self.watched.remove(&name);
                }
                GateWork::Step(_) => {}
            }
        }
    }

    /// 2, 6, 10: a weight rises when the disk has answered, and the disk has it.
    fn rises(&self, event: &Event, before: &BTreeMap<Name, Shown>) -> Held {
        let stored = ledger::load(&self.disk).map_err(|bad| bad.to_string())?;
        for (name, shown) in &self.shown {
            let was = before.get(name).map_or(Weight::ZERO, |shown| shown.weight);
            let rose = shown.weight > was;
            holds!(
                !rose || matches!(event, Event::Disk { fails: false, .. } | Event::Crash { .. }),
                "2: {name} rose from {was}"
            );
            let kept = stored.roles.get(name).map_or(Weight::ZERO, Roles::weight);
            holds!(
                shown.weight <= kept || self.lied.contains(name),
                "6: {name} is at {}, the store has {kept}",
                shown.weight
            );
        }
        Ok(())
    }

    /// 1, 3, 8, 10: whatever happened.
    fn always(&self, event: &Event, before: &BTreeMap<Name, Roles>) -> Held {
        for held in self.desk.services() {
            let (name, roles) = (&held.wanted.name, &held.roles);
            holds!(roles.active().is_none() || self.watched.contains(name), "3: nobody watches {name}");
            let shown = self.shown.get(name).ok_or("a service nobody published")?;
            holds!(
                shown.weight == roles.weight(),
                "10: {name} is shown at {}, it is at {}",
                shown.weight,
                roles.weight()
            );
            let open = shown.weight > Weight::ZERO;
            let closed = self.closed.contains(&(name.clone(), shown.rollout));
            holds!(!(open && closed), "8: rollout {} of {name} was closed and has {}", shown.rollout, shown.weight);
            let lost = matches!(event, Event::StoreLost);
            let was = before.get(name).map_or(0, |roles| roles.revision);
            let died = matches!(event, Event::Crash { .. }) || lost;
            holds!(died || roles.revision >= was, "10: {name} went back in time");
            holds!(!lost || shown.weight == Weight::ZERO, "4: a lost store is no pass");
        }
        Ok(())
    }
}

fn open(disk: &Disk, file: &[Arc<Service>], now: Duration) -> (Desk, Deeds) {
    Desk::open(ledger::load(disk).expect("understood"), file, now).expect("a file that fits")
}

fn services_of(turn: &Turn) -> BTreeSet<Name> {
    let change = turn.change().expect("records that can be written");
    let put = change.put.iter().map(|(table, key, _)| (table, key));
    let keys = put.chain(change.remove.iter().map(|(table, key)| (table, key)));
    let services = keys.filter(|(table, _)| matches!(table, Table::Services));
    services.map(|(_, key)| Name::new(key).expect("the name of a service")).collect()
}

fn line(entry: Entry) -> Line {
    let Entry { service, record, .. } = entry;
    Line { service: Some((service, record)), ..Line::default() }
}
