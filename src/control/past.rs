//! What is kept of a rollout beside its line in the history, and a rollout as a whole: its plan, what became of it, what spoke against it.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::core::id::Name;
use crate::core::roles::{Course, Trail};
use crate::core::rollout::{End, Step};
use crate::core::weight::Weight;
use crate::store::keep::Keep;
use crate::store::{Record, StoreError, Table};

use super::answer::as_text;
use super::gate::Proof;
use super::rollouts::{EndedStatus, RolloutStatus, View, ms};

/// The form of a [`Past`].
const PAST_VERSION: u16 = 1;

/// What is kept of a rollout that is over, as long as it is in the history of its service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Past {
    /// Its number.
    pub id: u64,
    /// The steps of its plan.
    pub steps: Vec<Step>,
    /// What became of it.
    pub trail: Trail,
    /// Why the gate ended it, if it did.
    pub why: Option<String>,
    /// What it saw then.
    pub evidence: Option<Value>,
}

/// A rollout, running or over.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RolloutDetail {
    /// The service.
    pub service: String,
    /// Where it is; of one that is over the step it ended in, and 100 % if it succeeded, else 0 %.
    #[serde(flatten)]
    pub status: RolloutStatus,
    /// The highest weight it had.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub highest: Weight,
    /// The generation in force.
    pub generation: u64,
    /// Who ended it: a token, `file`, `plan`, `gate/METRIC`...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Why, in the words of whoever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its plan, with when each step was in force.
    pub plan: Vec<StepStatus>,
    /// What became of it, the oldest first.
    pub legs: Vec<LegStatus>,
    /// Legs that are not remembered any more, between the first and the second.
    pub legs_left_out: u64,
    /// What the gate saw, if it was the gate that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Value>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StepStatus {
    /// Share of the candidate.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// How long it lasts at least, in milliseconds.
    pub hold_ms: u64,
    /// Candidate requests that have to begin in it.
    pub min_requests: u64,
    /// Somebody has to approve before it begins.
    pub approval: bool,
    /// When it began, in milliseconds since 1970; absent: not yet, or never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_at_ms: Option<u64>,
    /// When it was left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// What it was left by: `step`, `promote`, `weight`..., or how the rollout ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// A time in which a rollout stood as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LegStatus {
    /// When it began, in milliseconds since 1970.
    pub began_at_ms: u64,
    /// When it ended; absent while it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// `verifying`, `progressing`, `baking`, `trial` or `paused`.
    pub phase: String,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The step in force, from zero; absent while verifying, and at a weight set by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// Share of the candidate.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// Who brought it: a token, `file`, `plan`, `gate`...
    pub actor: String,
    /// What brought it: the verb of a command, `step`, `pause`, `reload`, `restart`...
    pub verb: String,
    /// Why, in the words of whoever asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The key of a rollout in [`Table::Rollouts`]: in order of service, then of number.
pub(super) fn key(service: &Name, id: u64) -> String {
    format!("{service}/{id:020}")
}

/// The keys of all rollouts of `service` before the one called `id`; of all there are without one.
pub(super) fn keys_before(service: &Name, id: Option<u64>) -> std::ops::Range<String> {
    // '0' is the character after '/', which no name has.
    format!("{service}/")..id.map_or_else(|| format!("{service}0"), |id| key(service, id))
}

// === impl Past ===

impl Past {
    /// What is kept of the rollout called `id`.
    pub(super) fn of(id: u64, course: &Course, proof: Option<Proof>) -> Self {
        let (why, evidence) = proof.map(|proof| (proof.words, proof.numbers)).unzip();
        Self { id, steps: course.steps.clone(), trail: Trail::clone(&course.trail), why, evidence }
    }

    /// As it is stored.
    pub(super) fn record(&self) -> serde_json::Result<Record> {
        Ok(Record { version: PAST_VERSION, bytes: serde_json::to_vec(self)? })
    }

    /// What is kept of the rollout of `service` called `id`. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// The disk failed, or the record is damaged.
    pub fn load(store: &dyn Keep, service: &Name, id: u64) -> Result<Option<Self>, StoreError> {
        let record = store.get(Table::Rollouts, &key(service, id))?;
        // One of another form tells nothing here, and is in nobody's way.
        let known = record.filter(|record| record.version == PAST_VERSION);
        Ok(known.and_then(|record| serde_json::from_slice(&record.bytes).ok()))
    }
}

// === impl RolloutDetail ===

impl RolloutDetail {
    /// The latest rollout, as `view` shows it at `now`.
    pub(super) fn latest(service: &Name, generation: u64, view: &View, now: Instant) -> Option<Self> {
        let status = view.rollout(now)?;
        let ended = view.history.iter().find(|ended| ended.id == status.id);
        let detail = Self {
            service: service.to_string(),
            status,
            highest: view.highest,
            generation,
            ended_by: ended.map(|ended| ended.by.clone()),
            why: ended.and_then(|ended| ended.why.clone()),
            plan: Vec::new(),
            legs: Vec::new(),
            legs_left_out: 0,
            evidence: None,
        };
        Some(detail.with(&view.course.steps, &view.course.trail))
    }

    /// One that is over, without what is kept of it elsewhere.
    pub(super) fn over(service: &Name, generation: u64, ended: &EndedStatus) -> Self {
        let succeeded = ended.phase == "succeeded";
        let status = RolloutStatus {
            id: ended.id,
            version: ended.version.clone(),
            phase: ended.phase,
            reason: ended.reason.clone(),
            step: ended.step,
            steps: ended.steps,
            weight: if succeeded { Weight::FULL } else { Weight::ZERO },
            by_hand: false,
            origin: ended.origin,
            hold_left_ms: None,
            pending: false,
            started_at_ms: ended.started_at_ms,
            ended_at_ms: Some(ended.ended_at_ms),
        };
        Self {
            service: service.to_string(),
            status,
            highest: ended.highest,
            generation,
            ended_by: Some(ended.by.clone()),
            why: ended.why.clone(),
            plan: Vec::new(),
            legs: Vec::new(),
            legs_left_out: 0,
            evidence: None,
        }
    }

    /// Whether the store may have more to tell.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.ended_at_ms.is_some()
    }

    /// With what the store keeps of it.
    #[must_use]
    pub fn with_past(mut self, past: Past) -> Self {
        self.why = self.why.take().or(past.why);
        self.evidence = past.evidence;
        if self.legs.is_empty() { self.with(&past.steps, &past.trail) } else { self }
    }

    fn with(mut self, steps: &[Step], trail: &Trail) -> Self {
        // When it became stable is not known any more of one that was rolled back after the next one had begun.
        let rolled_back = self.status.phase == End::RolledBack.as_str();
        let promoted = trail.legs.last().is_some_and(|leg| leg.phase == End::Succeeded.as_str());
        let end = self.status.ended_at_ms.filter(|_| !rolled_back || promoted);
        let ends = trail.legs.iter().skip(1).map(|leg| Some(ms(leg.began))).chain([end]);
        let leg = |(leg, ended_at_ms): (&crate::core::roles::Leg, Option<u64>)| LegStatus {
            began_at_ms: ms(leg.began),
            ended_at_ms,
            phase: leg.phase.clone(),
            reason: leg.reason.clone(),
            step: leg.step,
            weight: leg.weight,
            actor: leg.actor.clone(),
            verb: leg.verb.clone(),
            why: leg.why.clone(),
        };
        self.legs = trail.legs.iter().zip(ends).map(leg).collect();
        self.legs_left_out = trail.left_out;
        self.plan = steps.iter().enumerate().map(|(index, step)| self.step(index, step)).collect();
        self
    }

    fn step(&self, index: usize, step: &Step) -> StepStatus {
        let of_it = |leg: &LegStatus| leg.step == Some(index);
        let (first, last) = (self.legs.iter().find(|leg| of_it(leg)), self.legs.iter().rposition(of_it));
        let next = last.and_then(|last| self.legs.get(last + 1));
        let ended_at_ms = last.and_then(|last| self.legs[last].ended_at_ms);
        let ended = next.map_or_else(|| self.status.phase.to_owned(), |next| next.verb.clone());
        StepStatus {
            weight: step.weight,
            hold_ms: ms(step.hold),
            min_requests: step.min_requests,
            approval: step.approval,
            began_at_ms: first.map(|leg| leg.began_at_ms),
            ended_at_ms,
            ended: ended_at_ms.map(|_| ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::core::id::Version;
    use crate::core::roles::Leg;

    fn leg(began: u64, step: Option<usize>, verb: &str) -> Leg {
        Leg {
            began: Duration::from_secs(began),
            phase: "progressing".to_owned(),
            reason: None,
            step,
            weight: Weight::HALF,
            actor: "plan".to_owned(),
            verb: verb.to_owned(),
            why: None,
        }
    }

    fn ended() -> EndedStatus {
        EndedStatus {
            id: 7,
            version: Version::new("v2").expect("version"),
            phase: "aborted",
            reason: Some("manual".to_owned()),
            origin: "file",
            step: 1,
            steps: 3,
            highest: Weight::HALF,
            started_at_ms: 1_000,
            ended_at_ms: 9_000,
            by: "token ci".to_owned(),
            why: None,
        }
    }

    #[test]
    fn steps_have_the_times_of_their_legs_and_what_they_were_left_by() {
        let name = Name::new("web").expect("name");
        let legs =
            vec![leg(1, None, "start"), leg(2, Some(0), "step"), leg(3, Some(0), "pause"), leg(5, Some(1), "promote")];
        let steps = vec![Step::new(Weight::HALF, Duration::from_secs(2)); 3];
        let course = Course { steps, trail: Arc::new(Trail { legs, left_out: 0 }) };
        let numbers = serde_json::json!({ "S": 7 });
        let past = Past::of(7, &course, Some(Proof { words: "seven of seven".to_owned(), numbers, after: None }));
        let read: Past = serde_json::from_slice(&past.record().expect("text").bytes).expect("a past");
        assert_eq!(read, past);
        let detail = RolloutDetail::over(&name, 3, &ended()).with_past(read);
        let times = |step: &StepStatus| (step.began_at_ms, step.ended_at_ms, step.ended.clone());
        let times: Vec<_> = detail.plan.iter().map(times).collect();
        let how = |word: &str| Some(word.to_owned());
        assert_eq!(
            times,
            [
                (Some(2_000), Some(5_000), how("promote")),
                (Some(5_000), Some(9_000), how("aborted")),
                (None, None, None),
            ]
        );
        assert_eq!(
            detail.legs.iter().map(|leg| leg.ended_at_ms).collect::<Vec<_>>(),
            [2_000, 3_000, 5_000, 9_000].map(Some)
        );
        assert_eq!(detail.evidence, Some(serde_json::json!({ "S": 7 })));
        assert_eq!(detail.why.as_deref(), Some("seven of seven"));
    }

    #[test]
    fn keys_of_a_service_are_no_others() {
        let (web, within) = (Name::new("web").expect("name"), |range: &std::ops::Range<String>, key: &str| {
            range.contains(&key.to_owned())
        });
        let all = keys_before(&web, None);
        let others = ["web-x", "web.x", "web0", "we", "webx"].map(|name| key(&Name::new(name).expect("name"), 1));
        assert!(within(&all, &key(&web, 0)) && within(&all, &key(&web, u64::MAX)));
        assert!(others.iter().all(|other| !within(&all, other)), "{others:?}");
        let before = keys_before(&web, Some(10));
        assert!(within(&before, &key(&web, 9)) && !within(&before, &key(&web, 10)) && !within(&before, &key(&web, 11)));
    }
}
