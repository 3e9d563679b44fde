//! What became of a rollout from leg to leg: when each began, and who or what brought it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Current, Effect, Ended, Note, Roles};
use crate::core::rollout::{Stage, Step};
use crate::core::weight::Weight;

/// Legs of a rollout that are remembered; of more, the oldest but the first go, and are counted.
pub const LEGS_MAX: usize = 128;
/// Weights set by hand by the same one within this time of each other are one leg; the audit has them all.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Of longer reasons this many bytes are kept here; the audit has all of it.
const WHY_BYTES_MAX: usize = 256;

/// The legs of a rollout, the oldest first. Each lasts until the next one, the last until the rollout ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    /// At most [`LEGS_MAX`].
    pub legs: Vec<Leg>,
    /// Legs that are not remembered any more, between the first and the second.
    pub left_out: u64,
}

/// A time in which a rollout stood as it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leg {
    /// When it began, in time since 1970.
    pub began: Duration,
    /// `verifying`, `progressing`, `baking`, `trial` or `paused`; of one that was rolled back also `succeeded`, while it was stable.
    pub phase: String,
    /// Why it is paused.
    pub reason: Option<String>,
    /// The step in force, from zero; none while verifying, and at a weight set by hand.
    pub step: Option<usize>,
    /// Share of the candidate.
    pub weight: Weight,
    /// Who brought it: as in [`Note::actor`].
    pub actor: String,
    /// What brought it: as in [`Note::verb`].
    pub verb: String,
    /// Why, in the words of whoever asked.
    pub why: Option<String>,
}

/// What there is to tell of a rollout beside how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The steps of its plan.
    pub steps: Vec<Step>,
    /// What became of it.
    pub trail: Arc<Trail>,
}

/// A rollout has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// How.
    pub ended: Ended,
    /// Absent if it had ended before, and was rolled back now after another one had begun: what is known of it stays so.
    pub course: Option<Box<Course>>,
}

impl Roles {
    /// Remembers how the rollout that runs stands from now on, and names who ended those that have just ended.
    pub(super) fn trace(&mut self, note: &Note, now: Duration) -> Vec<Effect> {
        if let Some(current) = self.current.as_mut().filter(|current| !current.rollout.is_over()) {
            current.trace(note, now);
        }
        if self.history.iter().all(|ended| !ended.by.is_empty()) {
            return Vec::new();
        }
        let ended = Arc::make_mut(&mut self.history).iter_mut().filter(|ended| ended.by.is_empty());
        let over = ended.map(|ended| {
            ended.by = if note.actor.is_empty() { super::unknown() } else { note.actor.clone() };
            ended.why.clone_from(&note.reason);
            let course = ended.course.take();
            Effect::Over(Box::new(Over { ended: ended.clone(), course }))
        });
        over.collect()
    }
}

impl Current {
    /// What there is to tell of it.
    #[must_use]
    pub fn course(&self) -> Course {
        Course { steps: self.terms.plan.steps.clone(), trail: Arc::clone(&self.trail) }
    }

    /// Remembers how long it was stable, now that it is not any more; `ended` is how it became so.
    pub(super) fn trace_promotion(&mut self, ended: &Ended) {
        let leg = Leg {
            began: ended.ended,
            phase: ended.end.as_str().to_owned(),
            reason: None,
            step: None,
            weight: Weight::FULL,
            actor: ended.by.clone(),
            verb: "promote".to_owned(),
            why: ended.why.as_deref().map(shortened),
        };
        Arc::make_mut(&mut self.trail).push(leg);
    }

    fn trace(&mut self, note: &Note, now: Duration) {
        let rollout = &self.rollout;
        let stepping = !rollout.by_hand && !matches!(rollout.stage, Stage::Verifying);
        let leg = Leg {
            began: now,
            phase: rollout.phase().to_owned(),
            reason: rollout.reason().map(str::to_owned),
            step: (stepping && rollout.step < self.terms.plan.steps.len()).then_some(rollout.step),
            weight: rollout.weight,
            actor: note.actor.clone(),
            verb: note.verb.to_owned(),
            why: note.reason.as_deref().map(shortened),
        };
        // After a restart the hold begins again.
        if note.verb == "restart" || self.trail.legs.last().is_none_or(|last| !last.stands_as(&leg)) {
            Arc::make_mut(&mut self.trail).take_in(leg);
        }
    }
}

// === impl Trail ===

impl Trail {
    fn take_in(&mut self, leg: Leg) {
        match self.legs.last_mut().filter(|last| last.goes_on_as(&leg)) {
            Some(last) => *last = Leg { began: last.began, ..leg },
            None => self.push(leg),
        }
    }

    fn push(&mut self, leg: Leg) {
        if self.legs.len() >= LEGS_MAX {
            self.legs.remove(1);
            self.left_out += 1;
        }
        self.legs.push(leg);
    }
}

// === impl Leg ===

impl Leg {
    /// Whether `next` is another weight of the same sitting.
    fn goes_on_as(&self, next: &Self) -> bool {
        let by_hand = |leg: &Self| leg.verb == "weight" && leg.step.is_none();
        by_hand(self) && by_hand(next) && self.actor == next.actor && next.began.saturating_sub(self.began) < AT_ONCE
    }

    fn stands_as(&self, other: &Self) -> bool {
        let seen = |leg: &Self| (leg.step, leg.weight);
        (&self.phase, &self.reason, seen(self)) == (&other.phase, &other.reason, seen(other))
    }
}

fn shortened(why: &str) -> String {
    let mut len = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(len) {
        len -= 1;
    }
    why[..len].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(n: u64) -> Leg {
        Leg {
            began: Duration::from_secs(n),
            phase: "paused".to_owned(),
            reason: None,
            step: None,
            weight: Weight::ZERO,
            actor: "ci".to_owned(),
            verb: "pause".to_owned(),
            why: None,
        }
    }

    #[test]
    fn weights_in_one_sitting_are_one_leg() {
        let weight = |at: u64, grains, actor: &str| Leg {
            began: Duration::from_millis(at),
            weight: Weight::from_grains(grains).expect("a weight"),
            verb: "weight".to_owned(),
            actor: actor.to_owned(),
            ..leg(0)
        };
        let mut trail = Trail::default();
        for leg in [weight(0, 1, "a"), weight(999, 2, "a"), weight(1_000, 3, "a"), weight(1_001, 4, "b"), leg(2)] {
            trail.take_in(leg);
        }
        let seen: Vec<_> = trail.legs.iter().map(|leg| (leg.began.as_millis(), leg.weight.grains())).collect();
        assert_eq!(seen, [(0, 2), (1_000, 3), (1_001, 4), (2_000, 0)]);
        assert_eq!(shortened(&"\u{e9}".repeat(WHY_BYTES_MAX)).len(), WHY_BYTES_MAX);
        assert_eq!(shortened(&format!("x{}", "\u{e9}".repeat(WHY_BYTES_MAX))).len(), WHY_BYTES_MAX - 1);
    }

    #[test]
    fn of_too_many_legs_the_first_and_the_last_are_remembered() {
        let mut trail = Trail::default();
        let all = LEGS_MAX as u64 + 10;
        (0..all).for_each(|n| trail.push(leg(n)));
        let began: Vec<u64> = trail.legs.iter().map(|leg| leg.began.as_secs()).collect();
        assert_eq!((began.len(), trail.left_out), (LEGS_MAX, 10));
        assert_eq!((began[0], began[1], began[LEGS_MAX - 1]), (0, 11, all - 1));
    }
}
