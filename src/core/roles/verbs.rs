//! What people and programs ask of a service.

use std::sync::Arc;

use super::settle::{Beginning, By};
use super::{Context, Current, Origin, Outcome, Quarantine, Roles};
use crate::core::endpoint::{Declared, Pool};
use crate::core::id::Version;
use crate::core::rollout::wanted::Terms;
use crate::core::rollout::{self, Command, End, PauseReason, Stage};
use crate::core::weight::Weight;

/// A command with everything that came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// What is asked for.
    pub verb: Verb,
    /// The rollout it is meant for; absent: the latest.
    pub rollout: Option<u64>,
    /// What the caller believes to be true.
    pub expected: Expected,
    /// The name of the token.
    pub actor: String,
    /// The address of whoever asks; empty for the process itself.
    pub source: String,
    /// Why, in the caller's words.
    pub reason: Option<String>,
}

/// What the caller believes to be true. Ignored for start, abort and rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Not to say anything is refused.
    pub required: bool,
    /// An entity tag was said, too, and the caller of this has compared it.
    pub tagged: bool,
    /// `expected_step`: index of the step.
    pub step: Option<usize>,
}

/// A verb of the API and the CLI.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Begin a rollout, or let the one that waits for it go on.
    Start(StartWith),
    /// Let the step in hand pass, or go to 100 %.
    Promote {
        /// To 100 %.
        full: bool,
        /// Without the bake time; only with `full`, and needs a reason.
        force: bool,
    },
    /// Take the traffic back.
    Abort,
    /// Make the old stable stable again; of a rollout that runs, its abort.
    Rollback,
    /// Wait.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Let the step that waits for it begin.
    Approve,
    /// Try a version again that was taken back; needs a reason. Absent: the latest.
    Retry(Option<Version>),
    /// Hold the candidate at this weight; opens a rollout by hand when none runs.
    Weight(Weight),
}

/// What to start.
#[derive(Clone, Debug, PartialEq)]
pub struct StartWith {
    /// The version.
    pub version: Version,
    /// What it consists of.
    pub digest: Option<String>,
    /// Where it runs; empty: as the file says.
    pub endpoints: Vec<Declared>,
    /// A plan of its own; absent: the file's.
    pub terms: Option<Terms>,
    /// End the rollout of another version that runs.
    pub supersede: bool,
}

/// Why a command does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no rollout to do it to.
    NoRollout,
    /// There never was one of that number.
    NoSuchRollout(u64),
    /// The rollout is not in a state for it.
    State(rollout::Refused),
    /// A rollout of this version runs.
    Runs(Version),
    /// A rollout of this version runs, under another plan.
    OtherPlan(Version),
    /// The version is in service.
    IsStable(Version),
    /// The version was taken back.
    Quarantined(Version),
    /// Nobody said where the version runs.
    NoEndpoints(Version),
    /// A version never changes what it consists of.
    OtherDigest {
        /// The version.
        version: Version,
        /// What it consists of.
        known: String,
        /// What it is said to consist of.
        said: String,
    },
    /// This needs a reason.
    NeedsReason(&'static str),
    /// The caller believes something that is not true any more.
    Stale {
        /// The step that is in force.
        step: usize,
        /// [`Roles::revision`].
        revision: u64,
    },
    /// The step is the same before and after, so that it does not tell the first of two from the second.
    StepStays {
        /// The step.
        step: usize,
        /// [`Roles::revision`].
        revision: u64,
    },
    /// The caller has to say what it believes to be true.
    Unconditional,
    /// Only 100 % can be forced.
    OnlyFullIsForced,
    /// The old stable is kept no longer.
    NothingToRollBack,
    /// There is no version to retry.
    NothingToRetry,
}

impl Roles {
    /// Decides a command. The state itself stays as it is; the outcome has the new one.
    ///
    /// An outcome without effects says that everything is already as asked.
    ///
    /// # Errors
    /// What the state does not allow.
    pub fn obey(&self, ask: &Ask, context: &Context<'_>) -> Result<Outcome, Refused> {
        self.expected(ask)?;
        let mut next = self.clone();
        let raw = next.decide(ask, context)?;
        let before = self.sight();
        let began = next.current.as_ref().map(|c| c.id).filter(|id| *id != self.current.as_ref().map_or(0, |c| c.id));
        if raw.is_empty() && next == *self {
            return Ok(Outcome { roles: next, effects: Vec::new(), began: None, changes: Vec::new() });
        }
        let by = By { source: &ask.source, reason: ask.reason.as_deref(), ..By::of(&ask.actor, ask.verb.as_str()) };
        let effects = next.settle(&before, raw, Some(by), context.now);
        Ok(Outcome { roles: next, effects, began, changes: Vec::new() })
    }

    fn expected(&self, ask: &Ask) -> Result<(), Refused> {
        if matches!(ask.verb, Verb::Start(_)) {
            return Ok(());
        }
        let latest = self.current.as_ref().map(|current| current.id);
        if let Some(id) = ask.rollout.filter(|id| Some(*id) != latest) {
            let ended = self.history.iter().find(|ended| ended.id == id).ok_or(Refused::NoSuchRollout(id))?;
            return if ask.is_back() {
                Ok(())
            } else {
                Err(Refused::State(rollout::Refused::Over(ended.end.as_str())))
            };
        }
        if ask.is_back() {
            return Ok(());
        }
        let Expected { required, tagged, step } = ask.expected;
        let Some(said) = step else { return if required && !tagged { Err(Refused::Unconditional) } else { Ok(()) } };
        let (step, revision) = (self.current.as_ref().map_or(0, |current| current.rollout.step), self.revision);
        if said != step {
            return Err(Refused::Stale { step, revision });
        }
        // A second one would pass the step that the first one began.
        let next = matches!(ask.verb, Verb::Promote { full: false, .. });
        let stays = |current: &Current| matches!(current.rollout.stage, Stage::Verifying | Stage::Trial { .. });
        if next && !tagged && self.active().is_some_and(stays) {
            return Err(Refused::StepStays { step, revision });
        }
        Ok(())
    }

    fn decide(&mut self, ask: &Ask, context: &Context<'_>) -> Result<Vec<rollout::Effect>, Refused> {
        let reason = ask.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
        match &ask.verb {
            Verb::Start(with) => self.start(with, context),
            Verb::Abort | Verb::Rollback => self.take_back(ask, context),
            Verb::Retry(version) if reason => self.retry(version.as_ref(), context),
            Verb::Retry(_) => Err(Refused::NeedsReason("retry")),
            Verb::Promote { full: false, force: true } => Err(Refused::OnlyFullIsForced),
            Verb::Promote { force: true, .. } if !reason => Err(Refused::NeedsReason("force")),
            Verb::Promote { full: true, force } => self.command(Command::PromoteFull { force: *force }),
            Verb::Promote { full: false, force: false } => self.command(Command::PromoteNext),
            Verb::Pause => self.command(Command::Pause),
            Verb::Resume => self.command(Command::Resume),
            Verb::Approve => self.command(Command::Approve),
            Verb::Weight(weight) if self.active().is_some() => self.set_weight(*weight),
            Verb::Weight(weight) => self.open(*weight, context),
        }
    }

    fn command(&mut self, command: Command) -> Result<Vec<rollout::Effect>, Refused> {
        let Current { rollout, terms, .. } = self.current.as_mut().ok_or(Refused::NoRollout)?;
        rollout.obey(&terms.plan, command).map_err(Refused::State)
    }

    /// The weight there is already changes nothing, holds included.
    fn set_weight(&mut self, weight: Weight) -> Result<Vec<rollout::Effect>, Refused> {
        let held = |c: &Current| c.rollout.by_hand && c.rollout.pause.is_none() && c.rollout.weight == weight;
        if self.active().is_some_and(held) {
            return Ok(Vec::new());
        }
        self.command(Command::Weight(weight))
    }

    fn start(&mut self, with: &StartWith, context: &Context<'_>) -> Result<Vec<rollout::Effect>, Refused> {
        let pool = self.pool_to_start(with, context);
        if let Some(pool) = &pool
            && let Some((known, said)) = self.other_digest(pool)
        {
            let (version, known) = (pool.version.clone(), known.to_owned());
            return Err(Refused::OtherDigest { version, known, said });
        }
        if let Some(active) = self.active() {
            let waits = active.rollout.pause.is_some_and(|pause| pause.reason == PauseReason::NoHistory);
            return match active.candidate.version == with.version {
                true if waits => self.go_on_under(with.terms.as_ref()),
                true if with.terms.as_ref().is_some_and(|terms| *terms != *active.terms) => {
                    Err(Refused::OtherPlan(with.version.clone()))
                }
                true => Ok(Vec::new()),
                false if with.supersede => self.start_new(with, pool, context),
                false => Err(Refused::Runs(active.candidate.version.clone())),
            };
        }
        if self.stable.version == with.version { Ok(Vec::new()) } else { self.start_new(with, pool, context) }
    }

    /// Lets the rollout that waits for it begin, under `terms` if there are any: nothing of it has happened yet.
    fn go_on_under(&mut self, terms: Option<&Terms>) -> Result<Vec<rollout::Effect>, Refused> {
        if let (Some(current), Some(terms)) = (&mut self.current, terms) {
            (current.terms, current.own_terms, current.pending) = (Arc::new(terms.clone()), true, None);
        }
        self.command(Command::Resume)
    }

    fn start_new(
        &mut self,
        with: &StartWith,
        pool: Option<Arc<Pool>>,
        context: &Context<'_>,
    ) -> Result<Vec<rollout::Effect>, Refused> {
        let version = &with.version;
        if self.stable.version == *version {
            return Err(Refused::IsStable(version.clone()));
        }
        if self.quarantine(version).is_some() {
            return Err(Refused::Quarantined(version.clone()));
        }
        let pool = pool.ok_or_else(|| Refused::NoEndpoints(version.clone()))?;
        let terms = Arc::new(with.terms.as_ref().unwrap_or(&context.wanted.rollout.terms).clone());
        let own_terms = with.terms.is_some();
        let what = Beginning { pool, origin: Origin::Command, terms, own_terms, known: true, by_hand: None };
        Ok(self.begin(context.next_rollout, what, context.now))
    }

    /// Where the version runs: as the command says, else as the file or the state knows.
    fn pool_to_start(&self, with: &StartWith, context: &Context<'_>) -> Option<Arc<Pool>> {
        let digest = with.digest.clone().or_else(|| self.known(&with.version)?.digest.clone());
        if !with.endpoints.is_empty() {
            return Some(Arc::new(Pool::new(with.version.clone(), digest, with.endpoints.clone())));
        }
        let known = self.where_it_runs(&with.version, context)?;
        Some(if with.digest.is_some() { Arc::new(Pool { digest, ..Pool::clone(&known) }) } else { known })
    }

    fn where_it_runs(&self, version: &Version, context: &Context<'_>) -> Option<Arc<Pool>> {
        let declared = std::iter::once(&context.wanted.stable).chain(&context.wanted.candidate);
        let latest = self.current.as_ref().map(|current| &current.candidate);
        declared.chain(latest).find(|pool| pool.version == *version).cloned()
    }

    fn take_back(&mut self, ask: &Ask, context: &Context<'_>) -> Result<Vec<rollout::Effect>, Refused> {
        let Some(current) = &self.current else { return Ok(Vec::new()) };
        let meant = ask.rollout.unwrap_or(current.id);
        let warm = self.warm.as_ref().is_some_and(|warm| warm.rollout == meant);
        if meant != current.id {
            return Ok(if warm { self.take_back_earlier(meant, context) } else { Vec::new() });
        }
        let succeeded = current.rollout.stage == Stage::Over(End::Succeeded);
        match (succeeded && !warm, &ask.verb) {
            (true, Verb::Rollback) => Err(Refused::NothingToRollBack),
            // An abort is never refused.
            (true, _) => Ok(Vec::new()),
            _ if ask.verb == Verb::Abort => self.command(Command::Abort),
            _ => self.command(Command::Rollback),
        }
    }

    /// A later rollout stands on what is taken back: it ends too.
    fn take_back_earlier(&mut self, id: u64, context: &Context<'_>) -> Vec<rollout::Effect> {
        let mut raw = self.supersede(context.now);
        let version = self.stable.version.clone();
        self.remember(&version).quarantine = Some(Quarantine { rollout: id, since: context.now });
        raw.push(rollout::Effect::Restore);
        raw
    }

    fn retry(&mut self, version: Option<&Version>, context: &Context<'_>) -> Result<Vec<rollout::Effect>, Refused> {
        if let Some(active) = self.active() {
            return Err(Refused::Runs(active.candidate.version.clone()));
        }
        let latest = self.current.as_ref().map(|current| &current.candidate.version);
        let latest = latest.or_else(|| Some(&self.history.back()?.version));
        let version = version.or(latest).cloned().ok_or(Refused::NothingToRetry)?;
        let tried = self.quarantine(&version).is_some() || self.history.iter().any(|ended| ended.version == version);
        if version == self.stable.version || !tried {
            return Err(Refused::NothingToRetry);
        }
        let pool = self.where_it_runs(&version, context).ok_or_else(|| Refused::NoEndpoints(version.clone()))?;
        let known = self.remember(&version);
        known.quarantine = None;
        known.retries = known.retries.saturating_add(1);
        let terms = Arc::new(context.wanted.rollout.terms.clone());
        let what = Beginning { pool, origin: Origin::Command, terms, own_terms: false, known: true, by_hand: None };
        Ok(self.begin(context.next_rollout, what, context.now))
    }

    /// Opens a rollout by hand: of the candidate in the file, else of the latest one.
    fn open(&mut self, weight: Weight, context: &Context<'_>) -> Result<Vec<rollout::Effect>, Refused> {
        let latest = self.current.as_ref().map(|current| &current.candidate);
        let pool = context.wanted.candidate.as_ref().filter(|pool| pool.version != self.stable.version);
        let pool = pool.or(latest).filter(|pool| pool.version != self.stable.version).cloned();
        let pool = pool.ok_or(Refused::NoRollout)?;
        if weight == Weight::ZERO {
            return Ok(Vec::new());
        }
        if self.quarantine(&pool.version).is_some() {
            return Err(Refused::Quarantined(pool.version.clone()));
        }
        let terms = context.wanted.rollout.terms.clone();
        let terms = Arc::new(Terms { plan: rollout::Plan { steps: Vec::new(), ..terms.plan }, ..terms });
        let what =
            Beginning { pool, origin: Origin::Command, terms, own_terms: true, known: true, by_hand: Some(weight) };
        Ok(self.begin(context.next_rollout, what, context.now))
    }
}

// === impl Ask ===

impl Ask {
    /// Whether it takes traffic back.
    #[must_use]
    pub const fn is_back(&self) -> bool {
        matches!(self.verb, Verb::Abort | Verb::Rollback)
    }

    /// A command without anything else.
    #[must_use]
    pub fn of(verb: Verb, actor: &str) -> Self {
        let (actor, source) = (actor.to_owned(), String::new());
        Self { verb, rollout: None, expected: Expected::default(), actor, source, reason: None }
    }
}

// === impl Verb ===

impl Verb {
    /// The word of the API, the CLI and the audit.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Promote { .. } => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Retry(_) => "retry",
            Self::Weight(_) => "weight",
        }
    }
}
