//! How rollouts stand, as people and programs ask for it: shown by control, read by anyone without waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::core::id::{Name, Version};
use crate::core::roles::{Course, Current, Ended, Origin, Roles};
use crate::core::rollout::Stage;
use crate::core::weight::Weight;
use crate::state::sensors::Glance;

use super::answer::as_text;
use super::desk::Held;
use super::status::EndpointStatus;

/// The latest rollout of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RolloutStatus {
    /// Its number.
    pub id: u64,
    /// The version on trial.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub version: Version,
    /// `verifying`, `progressing`, `baking`, `trial`, `paused`, `succeeded`, `aborted`, `rolled_back` or `superseded`.
    pub phase: &'static str,
    /// Why it is paused or was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Index of its step, from zero: what `expected_step` is compared with.
    pub step: usize,
    /// How many steps its plan has; none: it was opened by hand.
    pub steps: usize,
    /// Share of the candidate.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// Whether the weight was set by hand: no step is in force.
    pub by_hand: bool,
    /// `file` or `command`: who asked for it.
    pub origin: &'static str,
    /// What is left of the step's hold, or of the bake time, in milliseconds; absent where nothing is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_left_ms: Option<u64>,
    /// The file has another plan or gate by now, for the next rollout.
    pub pending: bool,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
}

/// A version that must not be tried again without a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QuarantineStatus {
    /// The version.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub version: Version,
    /// The rollout that was taken back.
    pub rollout: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A rollout that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EndedStatus {
    /// Its number.
    pub id: u64,
    /// What was tried.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub version: Version,
    /// How it ended.
    pub phase: &'static str,
    /// Why it was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `file` or `command`: who asked for it.
    pub origin: &'static str,
    /// The step it ended in, from zero.
    pub step: usize,
    /// How many its plan had.
    pub steps: usize,
    /// The highest weight it had.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub highest: Weight,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: u64,
    /// Who ended it: a token, `file`, `plan`, `gate/METRIC`...
    pub by: String,
    /// Why, in the words of whoever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The stable of before the last promotion: connected and probed, without new requests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WarmStatus {
    /// The release it serves.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub version: Version,
    /// How much longer it is kept, in milliseconds.
    pub left_ms: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// What a gate thinks. The evidence is told anew once a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct GateStatus {
    /// Evidence that the candidate does harm, in nats.
    pub log_evidence: f64,
    /// From where on it is taken back, in nats.
    pub bound: f64,
    /// `unknown`, `inconclusive`, `clean` or `harmful`.
    pub opinion: &'static str,
}

/// How a service stands, at one moment; time goes on by itself.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) revision: u64,
    rollout: Option<RolloutStatus>,
    /// The highest weight it had.
    pub(super) highest: Weight,
    /// Its plan, and what became of it.
    pub(super) course: Course,
    /// The rollout holds, and time runs.
    runs: bool,
    pub(super) differences: Vec<String>,
    pub(super) quarantined: Vec<QuarantineStatus>,
    pub(super) history: Vec<EndedStatus>,
    /// How much longer the old stable is kept.
    warm: Option<Duration>,
    at: Instant,
}

/// How all services stand.
#[derive(Debug, Default)]
pub(super) struct Views {
    all: ArcSwap<BTreeMap<Name, Arc<View>>>,
    /// By service, of those there are.
    detections: Mutex<BTreeMap<Name, Detections>>,
}

/// Candidates the gate has taken back, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detections {
    /// How many.
    pub count: u64,
    /// The times from the first sign of harm to the verdict, together.
    pub took: Duration,
}

// === impl GateStatus ===

impl GateStatus {
    pub(super) fn of(glance: Glance) -> Self {
        Self { log_evidence: glance.log_e, bound: glance.bound, opinion: glance.opinion.as_str() }
    }
}

// === impl Views ===

impl Views {
    /// Of the service called `name`.
    pub(super) fn of(&self, name: &Name) -> Option<Arc<View>> {
        self.all.load().get(name).cloned()
    }

    /// The latest rollouts, in order of service.
    pub(super) fn latest(&self, now: Instant) -> Vec<(Name, Option<RolloutStatus>)> {
        self.all.load().iter().map(|(name, view)| (name.clone(), view.rollout(now))).collect()
    }

    /// Shows these anew.
    pub(super) fn show<'a>(&self, held: impl Iterator<Item = &'a Held>, now: Instant) {
        let mut views = BTreeMap::clone(&self.all.load());
        views.extend(held.map(|held| (held.wanted.name.clone(), Arc::new(View::of(held, now)))));
        self.all.store(Arc::new(views));
    }

    /// Shows these, and no others.
    pub(super) fn replace(&self, held: &[Held], now: Instant) {
        let views = held.iter().map(|held| (held.wanted.name.clone(), Arc::new(View::of(held, now))));
        let views: BTreeMap<Name, Arc<View>> = views.collect();
        let mut detections = self.detections.lock().unwrap_or_else(PoisonError::into_inner);
        detections.retain(|service, _| views.contains_key(service));
        drop(detections);
        self.all.store(Arc::new(views));
    }

    /// The gate has taken back a candidate of `service`, so long after the first sign of harm.
    pub(super) fn detected(&self, service: &Name, after: Duration) {
        let mut all = self.detections.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(service.clone()).or_default();
        *known = Detections { count: known.count + 1, took: known.took.saturating_add(after) };
    }

    /// What was detected, in order of service.
    pub(super) fn detections(&self) -> Vec<(Name, Detections)> {
        let all = self.detections.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(service, known)| (service.clone(), *known)).collect()
    }
}

// === impl View ===

impl View {
    fn of(held: &Held, now: Instant) -> Self {
        let Held { wanted, roles } = held;
        let quarantined = roles.versions.iter().filter_map(|known| {
            let quarantine = known.quarantine.as_ref()?;
            let (version, rollout) = (known.version.clone(), quarantine.rollout);
            Some(QuarantineStatus { version, rollout, since_ms: ms(quarantine.since) })
        });
        Self {
            revision: roles.revision,
            rollout: roles.current.as_ref().map(RolloutStatus::of),
            highest: roles.current.as_ref().map_or(Weight::ZERO, |current| current.highest),
            course: roles.current.as_ref().map(Current::course).unwrap_or_default(),
            runs: roles.active().is_some_and(|current| current.rollout.pause.is_none()),
            differences: roles.differences(wanted),
            quarantined: quarantined.collect(),
            history: roles.history.iter().rev().map(EndedStatus::of).collect(),
            warm: roles.warm.as_ref().map(|warm| warm.left),
            at: now,
        }
    }

    /// The latest rollout, at `now`.
    pub(super) fn rollout(&self, now: Instant) -> Option<RolloutStatus> {
        let since = if self.runs { ms(now.saturating_duration_since(self.at)) } else { 0 };
        let left = |rollout: &RolloutStatus| rollout.hold_left_ms.map(|left| left.saturating_sub(since));
        self.rollout.as_ref().map(|rollout| RolloutStatus { hold_left_ms: left(rollout), ..rollout.clone() })
    }

    /// How much longer the old stable is kept, at `now`, in milliseconds.
    pub(super) fn warm_left_ms(&self, now: Instant) -> Option<u64> {
        self.warm.map(|left| ms(left.saturating_sub(now.saturating_duration_since(self.at))))
    }
}

// === impl RolloutStatus ===

impl RolloutStatus {
    /// The latest rollout of `roles`.
    pub(super) fn latest(roles: &Roles) -> Option<Self> {
        roles.current.as_ref().map(Self::of)
    }

    /// Index of the step it is in; none while it verifies, at a weight set by hand, and once it is over.
    #[must_use]
    pub fn step_in_force(&self) -> Option<usize> {
        let stepping = self.ended_at_ms.is_none() && !self.by_hand && self.weight > Weight::ZERO;
        (stepping && self.step < self.steps).then_some(self.step)
    }

    fn of(current: &Current) -> Self {
        let rollout = &current.rollout;
        let held = match rollout.stage {
            Stage::Baking => true,
            Stage::Progressing => !rollout.by_hand && !current.terms.plan.steps.is_empty(),
            Stage::Verifying | Stage::Trial { .. } | Stage::Over(_) => false,
        };
        let left = rollout.hold(&current.terms.plan).saturating_sub(rollout.held);
        Self {
            id: current.id,
            version: current.candidate.version.clone(),
            phase: rollout.phase(),
            reason: rollout.reason().map(str::to_owned),
            step: rollout.step,
            steps: current.terms.plan.steps.len(),
            weight: rollout.weight,
            by_hand: rollout.by_hand,
            origin: word(current.origin),
            hold_left_ms: held.then(|| ms(left)),
            pending: current.pending.is_some(),
            started_at_ms: ms(current.began),
            ended_at_ms: current.ended.map(ms),
        }
    }
}

// === impl EndedStatus ===

impl EndedStatus {
    fn of(ended: &Ended) -> Self {
        let reason = match &ended.end {
            crate::core::rollout::End::Aborted(reason) => Some(reason.as_str().to_owned()),
            _ => None,
        };
        Self {
            id: ended.id,
            version: ended.version.clone(),
            phase: ended.end.as_str(),
            reason,
            origin: word(ended.origin),
            step: ended.step,
            steps: ended.steps,
            highest: ended.highest,
            started_at_ms: ms(ended.began),
            ended_at_ms: ms(ended.ended),
            by: ended.by.clone(),
            why: ended.why.clone(),
        }
    }
}

const fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "file",
        Origin::Command => "command",
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
