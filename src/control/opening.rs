//! The start: what the store knows and what the file says become the first snapshot, before there is a data plane.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};

use crate::clock;
use crate::config::settings::{ListenAddress, Settings};
use crate::core::id::Name;
use crate::core::roles::GateWork;
use crate::core::snapshot::Snapshot;
use crate::state::current::{Current, Publisher, Routing, publish_first};
use crate::state::live::Registry;
use crate::state::names::Names;
use crate::store::keep::Keep;

use super::answer::Refused;
use super::desk::{Deeds, Desk};
use super::discovery::{Answers, shown};
use super::gate::Gates;
use super::gates::Stored;
use super::handle::{ABORTS_MAX, CHECKS_MAX, COMMANDS_MAX, ControlHandle, RELOADS_MAX, Shared, VERBS_MAX};
use super::journal::{InForce, Journal, Note, What};
use super::ledger::{self, Ledger};
use super::plane::DataPlane;
use super::reload::{self, Listening, Loader};
use super::rollouts::Views;
use super::tally::Tally;
use super::tick::Ticker;
use super::writer::{Control, watch};

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
    /// Remembers what runs.
    pub store: Arc<dyn Keep>,
    /// Watches rollouts.
    pub gates: Box<dyn Gates>,
    /// The path of the file, for people.
    pub path: String,
    /// When the process began.
    pub began: Instant,
}

/// Control with its first snapshot published, before there is a data plane.
pub struct Opening {
    publisher: Publisher,
    current: Current,
    desk: Desk,
    deeds: Deeds,
    /// Services whose evidence is lost, and why.
    lost: Vec<(Name, String)>,
    setup: Kept,
}

/// What is only passed on.
struct Kept {
    settings: Arc<Settings>,
    load: Loader,
    listening: Listening,
    registry: Arc<Registry>,
    store: Arc<dyn Keep>,
    gates: Box<dyn Gates>,
    path: String,
    began: Instant,
}

// === impl Opening ===

impl Opening {
    /// Goes on from what the store knows, and publishes the first snapshot. Blocks while the store is read.
    ///
    /// # Errors
    /// What the file asks for that cannot be done, a route without its service, or a store that is not understood.
    pub fn new(setup: Setup) -> Result<Self, Refused> {
        let Setup { settings, load, listening, registry, store, mut gates, path, began } = setup;
        let routes = reload::index(&settings)?;
        let bad = |bad: ledger::BadRecord| Refused::Store { full: false, why: bad.to_string() };
        let stored = ledger::load(store.as_ref()).map_err(bad)?;
        let (desk, mut deeds) = Desk::open(stored, &settings.services, clock::unix_time()).map_err(Refused::Plan)?;
        let services = desk.services().iter().map(|held| shown(held, &Answers::new(), None)).collect();
        let snapshot = Snapshot { generation: 1, routes, services };
        let live = registry.resolve(&snapshot, &HashMap::new());
        let mut first = Routing { snapshot, live };
        gates.follow(&first);
        let evidence = ledger::load_evidence(store.as_ref()).map_err(bad)?;
        let lost = watch_again(gates.as_mut(), &desk, &mut deeds, evidence);
        gates.install(&mut first);
        let (publisher, current) = publish_first(first);
        let setup = Kept { settings: Arc::new(settings), load, listening, registry, store, gates, path, began };
        Ok(Self { publisher, current, desk, deeds, lost, setup })
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
        let prepared = plane.prepare(&reload::wanted(&self.setup.settings)).map_err(Refused::Listeners)?;
        let addresses = prepared.addresses();
        let thread = |error: std::io::Error| Refused::Store { full: false, why: format!("no thread for it: {error}") };
        let ledger = Ledger::start(Arc::clone(&self.setup.store), self.desk.next_rollout()).map_err(thread)?;
        prepared.commit().await;
        Ok(self.connect(plane, addresses, ledger))
    }

    fn connect(
        self,
        plane: Arc<dyn DataPlane>,
        addresses: Vec<ListenAddress>,
        ledger: Ledger,
    ) -> (Control, ControlHandle) {
        let Self { publisher, current, desk, deeds, lost, setup } = self;
        let routing = current.load();
        let settings = Arc::clone(&setup.settings);
        let journal = Journal::new(InForce { settings, addresses, needs_restart: Vec::new() }, 1);
        journal.note(Note {
            actor: "start".to_owned(),
            what: What::Start,
            service: None,
            change: None,
            detail: Some(format!("with {}", setup.path)),
            generation: routing.snapshot.generation,
        });
        let views = Views::default();
        views.replace(desk.services(), clock::now());
        let shared = Arc::new(Shared {
            current,
            journal,
            views,
            tally: Tally::default(),
            plane,
            load: setup.load,
            path: setup.path,
            began: setup.began,
            checks: Semaphore::new(CHECKS_MAX),
            names: Names::default(),
            registry: Arc::clone(&setup.registry),
            published: watch::Sender::new(routing.snapshot.generation),
        });
        let (abort_sender, aborts) = mpsc::channel(ABORTS_MAX);
        let (verb_sender, verbs) = mpsc::channel(VERBS_MAX);
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (reload_sender, reloads) = mpsc::channel(RELOADS_MAX);
        let now = clock::now();
        let mut control = Control {
            shared: Arc::clone(&shared),
            publisher,
            current: routing,
            registry: setup.registry,
            listening: setup.listening,
            config: reload::digest(&setup.settings).into(),
            began_with: setup.settings,
            desk,
            ledger,
            gates: setup.gates,
            writing: None,
            filing: None,
            answers: Answers::new(),
            ticker: Ticker::new(setup.began),
            ticked: now,
            thrown: BTreeSet::new(),
            up_from: now,
            store_gone: false,
            turn: 0,
            aborts,
            verbs,
            commands,
            reloads,
        };
        control.begin(deeds, lost);
        let (aborts, verbs) = (abort_sender, verb_sender);
        (control, ControlHandle { shared, aborts, verbs, commands: command_sender, reloads: reload_sender })
    }
}

/// Watches the rollouts that go on, with the evidence of before; services where that is lost come back, with the reason.
fn watch_again(
    gates: &mut dyn Gates,
    desk: &Desk,
    deeds: &mut Deeds,
    mut evidence: BTreeMap<String, Result<Stored, String>>,
) -> Vec<(Name, String)> {
    let (mut lost, now) = (Vec::new(), clock::now());
    for (service, work) in std::mem::take(&mut deeds.gate) {
        let GateWork::Begin(rollout) = work else {
            watch(gates, desk, &service, work, now);
            continue;
        };
        let stored = match evidence.remove(service.as_str()) {
            Some(Ok(stored)) if stored.rollout == rollout => {
                let restored = gates.restore(&service, stored, now).map_err(|e| e.to_string());
                // The evidence may be of the step before: it is written down first.
                if let (Ok(()), Some((step, hold))) = (&restored, step_of(desk, &service)) {
                    gates.step(&service, step, hold);
                }
                restored
            }
            Some(Err(why)) => Err(why),
            // It begins now, or never was seen by anybody.
            _ => {
                watch(gates, desk, &service, work, now);
                continue;
            }
        };
        if let Err(why) = stored {
            watch(gates, desk, &service, work, now);
            lost.push((service, why));
        }
    }
    lost
}

/// The step the rollout of `service` is in, and how long it is held.
fn step_of(desk: &Desk, service: &Name) -> Option<(usize, Duration)> {
    let held = &desk.services()[desk.find(service.as_str())?];
    let current = held.roles.active()?;
    Some((current.rollout.step, current.rollout.hold(&current.terms.plan)))
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("path", &self.setup.path).finish_non_exhaustive()
    }
}
