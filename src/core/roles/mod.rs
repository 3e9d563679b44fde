//! One service over time: which version is stable, which one is tried, what must not be tried again, what the file said last.
//!
//! Commands ([`Roles::obey`]), files ([`Roles::file`], [`Roles::boot`], [`Roles::first`]) and time ([`Roles::on`]) go in; a state and
//! effects in their order come out. Way up: persisted, then published. Way back: published first, whatever the disk does.

mod boot;
mod file;
mod memory;
mod settle;
mod trail;
mod verbs;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::endpoint::Pool;
use super::id::{Name, Version};
use super::rollout::wanted::Terms;
use super::rollout::{End, Point, Rollout, Stage};
use super::service::Service;
use super::snapshot::Running;
use super::weight::Weight;

pub use boot::First;
pub use file::Reason;
pub use memory::{MEMORIES_MAX, MEMORY_VERSION, Memory};
pub use trail::{Course, LEGS_MAX, Leg, Over, Trail};
pub use verbs::{Ask, Expected, Refused, StartWith, Verb};

/// Version of the stored form.
pub const STORED_VERSION: u16 = 1;
/// Ended rollouts that are remembered; the oldest go first.
pub const HISTORY_MAX: usize = 50;
/// Versions whose digest, tries and quarantine are remembered; those neither in use nor in quarantine go first, oldest first.
pub const VERSIONS_MAX: usize = 256;

/// The state of one service. Plain data; everything in it survives a restart. A copy is cheap: it is made at every tick of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// The service.
    pub service: Name,
    /// Grows with everything that is recorded: the entity tag.
    pub revision: u64,
    /// The pool in service.
    #[serde(with = "shared")]
    pub stable: Arc<Pool>,
    /// The latest rollout, running or over.
    pub current: Option<Current>,
    /// The stable of before the last promotion, kept to go back to.
    pub warm: Option<Warm>,
    /// What is remembered of versions, oldest first.
    #[serde(with = "shared")]
    pub versions: Arc<Vec<Known>>,
    /// Ended rollouts, oldest first.
    #[serde(with = "shared")]
    pub history: Arc<VecDeque<Ended>>,
    /// What the file said last.
    pub declared: Declared,
}

/// The latest rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// Its number, never used twice.
    pub id: u64,
    /// What is tried.
    #[serde(with = "shared")]
    pub candidate: Arc<Pool>,
    /// Who asked for it.
    pub origin: Origin,
    /// How often this version was tried before.
    pub retry: u32,
    /// What it is pinned to.
    #[serde(with = "shared")]
    pub terms: Arc<Terms>,
    /// Whether `terms` came with the command, and not from the file.
    pub own_terms: bool,
    /// What the file says by now, for the next one.
    #[serde(with = "shared::option")]
    pub pending: Option<Arc<Terms>>,
    /// The machine.
    pub rollout: Rollout,
    /// The highest weight it had.
    pub highest: Weight,
    /// When it began, in time since 1970.
    pub began: Duration,
    /// When it ended, likewise.
    pub ended: Option<Duration>,
    /// The candidate stays known to the data plane after an abort, closed.
    pub kept: bool,
    /// What became of it until now.
    #[serde(with = "shared", default)]
    pub trail: Arc<Trail>,
}

/// Who asked for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The file, by naming a new version.
    File,
    /// A command.
    Command,
}

/// The stable of before a promotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warm {
    /// Its pool, pinned whatever the file says.
    #[serde(with = "shared")]
    pub pool: Arc<Pool>,
    /// The rollout that replaced it.
    pub rollout: u64,
    /// How much longer it is kept.
    pub left: Duration,
}

/// What is remembered of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The version.
    pub version: Version,
    /// What it consists of; once known it never changes.
    pub digest: Option<String>,
    /// How often it was tried again.
    pub retries: u32,
    /// Why it must not be tried again without a reason.
    pub quarantine: Option<Quarantine>,
}

/// Why and since when a version must not be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantine {
    /// The rollout that ended so.
    pub rollout: u64,
    /// Since when, in time since 1970.
    pub since: Duration,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// Its number.
    pub id: u64,
    /// What was tried.
    pub version: Version,
    /// How it ended.
    pub end: End,
    /// Who asked for it.
    pub origin: Origin,
    /// Steps of its plan, and the one it ended in.
    pub steps: usize,
    /// See `steps`.
    pub step: usize,
    /// The highest weight it had.
    pub highest: Weight,
    /// When it began, in time since 1970.
    pub began: Duration,
    /// When it ended, likewise.
    pub ended: Duration,
    /// Who ended it: as in [`Note::actor`].
    #[serde(default = "unknown")]
    pub by: String,
    /// Why, in the words of whoever did.
    #[serde(default)]
    pub why: Option<String>,
    /// The rest of what is known of it, on its way into an [`Effect::Over`].
    #[serde(skip)]
    course: Option<Box<Course>>,
}

/// What the file said last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// `[services.X.stable]`
    #[serde(with = "shared")]
    pub stable: Arc<Pool>,
    /// `[services.X.candidate]`
    #[serde(with = "shared::option")]
    pub candidate: Option<Arc<Pool>>,
}

/// What is true around a service when something is decided.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time since 1970; only noted down, never compared.
    pub now: Duration,
    /// The service as the file has it.
    pub wanted: &'a Service,
    /// The number of the next rollout.
    pub next_rollout: u64,
}

/// A decision that is made: what is true from now on, and what has to be done for it, in that order.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The state from now on.
    pub roles: Roles,
    /// What has to be done, in order. If [`Effect::Record`] fails before anything was published, nothing has happened.
    pub effects: Vec<Effect>,
    /// The number of the rollout that began.
    pub began: Option<u64>,
    /// What changed, a sentence each.
    pub changes: Vec<String>,
}

/// Something the shell does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Throw the switch of the candidate that is open: no attempt begins on it from now on.
    Close,
    /// Publish pools and [`Roles::running`].
    Publish,
    /// Once that is published: no attempt begins on this version any more by what was published before. It was stable, and is rolled back.
    Shut(Version),
    /// Make the state and this entry of the audit durable, in one transaction.
    Record(Note),
    /// Ask the checks of this point; the answer is an event for that rollout.
    Check {
        /// The rollout.
        rollout: u64,
        /// Which checks.
        point: Point,
    },
    /// What the gate does.
    Gate(GateWork),
    /// The pool is kept no longer: it drains.
    Release(Version),
    /// A rollout has ended, or was rolled back after its end.
    Over(Box<Over>),
}

/// What the gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateWork {
    /// Watch a new rollout, under its terms.
    Begin(u64),
    /// A step began: sessions and step counts begin anew.
    Step(usize),
    /// Go on watching, but only report: the candidate is stable.
    Report,
    /// Stop.
    End,
}

/// An entry of the audit, as far as it is known here. Whoever notifies reads `verb` and `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A token's name, `file`, `gate/<metric>`, `hook`, `plan` for what time did.
    pub actor: String,
    /// The address it came from; empty for what the process did itself.
    pub source: String,
    /// What happened: the verb of a command, `step`, `pause`, `resume`, `promote`, `abort`, `expire`, `reload`, `restart`,
    /// `overtaken` and `undo` for what was being written and never came true.
    pub verb: &'static str,
    /// The number of the rollout it is about; zero for none.
    pub rollout: u64,
    /// What was true before.
    pub from: String,
    /// What is true after.
    pub to: String,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
}

// === impl Roles ===

impl Roles {
    /// What the data plane is told of the rollout.
    #[must_use]
    pub fn running(&self) -> Running {
        let Some(current) = &self.current else { return Running::idle(0) };
        let aborted = current.is_closed() && current.kept;
        Running { weight: self.weight(), aborted, retry: current.retry, rollout: current.id }
    }

    /// Share of the candidate: zero when no rollout runs.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.active().map_or(Weight::ZERO, |current| current.rollout.weight)
    }

    /// The pool beside stable that the data plane knows: of the rollout that runs, or was taken back.
    #[must_use]
    pub fn candidate(&self) -> Option<&Arc<Pool>> {
        let current = self.current.as_ref()?;
        let shown = !current.rollout.is_over() || (current.is_closed() && current.kept);
        shown.then_some(&current.candidate)
    }

    /// The rollout that runs.
    #[must_use]
    pub fn active(&self) -> Option<&Current> {
        self.current.as_ref().filter(|current| !current.rollout.is_over())
    }

    /// `wanted` with the pools that run in place of those of the file.
    #[must_use]
    pub fn in_service(&self, wanted: &Service) -> Arc<Service> {
        let (stable, candidate) = (Arc::clone(&self.stable), self.candidate().cloned());
        Arc::new(Service { stable, candidate, ..wanted.clone() })
    }

    /// Every pool that is kept connected and probed: stable, candidate, and the old stable.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let warm = self.warm.as_ref().map(|warm| &warm.pool);
        std::iter::once(&self.stable).chain(self.candidate()).chain(warm)
    }

    /// Why `version` must not be tried.
    #[must_use]
    pub fn quarantine(&self, version: &Version) -> Option<&Quarantine> {
        self.known(version)?.quarantine.as_ref()
    }

    /// What is remembered of `version`.
    #[must_use]
    pub fn known(&self, version: &Version) -> Option<&Known> {
        self.versions.iter().find(|known| known.version == *version)
    }

    fn is_used(&self, version: &Version) -> bool {
        self.pools().chain(self.declared.pools()).any(|pool| pool.version == *version)
    }

    /// What is remembered of `version`, which is remembered from now on.
    fn remember(&mut self, version: &Version) -> &mut Known {
        let at = self.versions.iter().position(|known| known.version == *version);
        let goes = (at.is_none() && self.versions.len() >= VERSIONS_MAX).then(|| self.first_to_forget());
        let versions = Arc::make_mut(&mut self.versions);
        let at = at.unwrap_or_else(|| {
            goes.map(|goes| versions.remove(goes));
            let version = version.clone();
            versions.push(Known { version, digest: None, retries: 0, quarantine: None });
            versions.len() - 1
        });
        &mut versions[at]
    }

    /// The place of the version that is forgotten first.
    fn first_to_forget(&self) -> usize {
        let free = |known: &Known| !self.is_used(&known.version);
        let idle = self.versions.iter().position(|known| free(known) && known.quarantine.is_none());
        idle.or_else(|| self.versions.iter().position(free)).unwrap_or(0)
    }

    /// Whether `pool` is said to consist of something else than is known of its version.
    fn other_digest(&self, pool: &Pool) -> Option<(&str, String)> {
        let (known, said) = (self.known(&pool.version)?.digest.as_deref()?, pool.digest.as_deref()?);
        (known != said).then(|| (known, said.to_owned()))
    }
}

// === impl Note ===

impl Note {
    /// Whether it was the gate that acted.
    #[must_use]
    pub fn is_by_gate(&self) -> bool {
        is_gate(&self.actor)
    }
}

// === impl Ended ===

impl Ended {
    /// Whether it was the gate that ended it.
    #[must_use]
    pub fn is_by_gate(&self) -> bool {
        is_gate(&self.by)
    }
}

// === impl Current ===

impl Current {
    /// Taken back: aborted or rolled back.
    fn is_closed(&self) -> bool {
        matches!(self.rollout.stage, Stage::Over(End::Aborted(_) | End::RolledBack))
    }
}

// === impl Declared ===

impl Declared {
    fn of(wanted: &Service) -> Self {
        Self { stable: Arc::clone(&wanted.stable), candidate: wanted.candidate.clone() }
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        std::iter::once(&self.stable).chain(&self.candidate)
    }

    fn pool(&self, version: &Version) -> Option<&Arc<Pool>> {
        self.pools().find(|pool| pool.version == *version)
    }
}

/// `gate`, or `gate/<metric>`; a token may have a name that only begins like that.
fn is_gate(actor: &str) -> bool {
    actor.strip_prefix("gate").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Who ended a rollout of which that was not written down.
fn unknown() -> String {
    "unknown".to_owned()
}

/// What is shared is stored by its contents.
mod shared {
    use super::{Arc, Deserialize, Serialize};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(shared: &Arc<T>, to: S) -> Result<S::Ok, S::Error> {
        shared.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'d, T: Deserialize<'d>, D: Deserializer<'d>>(from: D) -> Result<Arc<T>, D::Error> {
        T::deserialize(from).map(Arc::new)
    }

    pub(super) mod option {
        use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

        #[expect(clippy::ref_option, reason = "the form serde asks for")]
        pub(in super::super) fn serialize<T, S>(shared: &Option<Arc<T>>, to: S) -> Result<S::Ok, S::Error>
        where
            T: Serialize,
            S: Serializer,
        {
            shared.as_deref().serialize(to)
        }

        pub(in super::super) fn deserialize<'d, T, D>(from: D) -> Result<Option<Arc<T>>, D::Error>
        where
            T: Deserialize<'d>,
            D: Deserializer<'d>,
        {
            Ok(Option::<T>::deserialize(from)?.map(Arc::new))
        }
    }
}

#[cfg(test)]
mod tests;
