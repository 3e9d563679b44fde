//! What a file, a start, a promotion may do, and what may take a weight down.

use super::*;
use tidegate::core::rollout::{AbortReason, End, TRIAL_WEIGHT};

impl World {
    /// 2: a weight falls by an abort, a rollback, a trial, a command that says so, what supersedes, a promotion; by nothing else.
    pub(super) fn falls(&self, event: &Event, before: &BTreeMap<Name, Roles>) -> Held {
        if matches!(event, Event::Crash { .. } | Event::StoreLost) {
            return Ok(());
        }
        for held in self.desk.services() {
            let (name, after) = (&held.wanted.name, &held.roles);
            let Some(before) = before.get(name).filter(|before| after.weight() < before.weight()) else { continue };
            let why = match event {
                Event::Ask(service, ask) if NAMES[*service] == name.as_str() => Some(Why::Asked(ask.verb.clone())),
                Event::Tick(_) => self.said.get(name).cloned().map(Why::Time),
                Event::Disk { .. } => self.asked.get(name).cloned(),
                _ => None,
            };
            let (from, to) = (before.weight(), after.weight());
            holds!(
                why.as_ref().is_some_and(|why| may(why, before, after)),
                "2: {name} fell from {from} to {to}: {why:?}"
            );
        }
        Ok(())
    }

    /// 9, 5, 7: what a file, a start and a promotion may do.
    pub(super) fn acts(&self, event: &Event, before: &BTreeMap<Name, Roles>) -> Held {
        for held in self.desk.services() {
            let (name, after) = (&held.wanted.name, &held.roles);
            let Some(before) = before.get(name).filter(|_| !matches!(event, Event::Crash { .. } | Event::StoreLost))
            else {
                continue;
            };
            if let (Some(was), Some(is)) = (before.active(), after.active())
                && was.id == is.id
            {
                holds!(was.terms == is.terms, "9: the plan in flight of {name} changed");
            }
            let swapped = before.stable.version != after.stable.version;
            if let (true, Some(was)) =
                (swapped, before.active().filter(|was| was.candidate.version == after.stable.version))
            {
                holds!(Arc::ptr_eq(&was.candidate, &after.stable), "7: a promotion made a pool anew");
                let warm = after.warm.as_ref().is_some_and(|warm| Arc::ptr_eq(&warm.pool, &before.stable));
                holds!(warm, "7: the old stable is gone");
            }
            let new = after.active().filter(|new| before.current.as_ref().is_none_or(|old| old.id != new.id));
            if let Some(new) = new {
                let retried = after.known(&new.candidate.version).is_some_and(|known| known.retries > 0);
                let quarantined = before.quarantine(&new.candidate.version).is_some();
                holds!(!quarantined || retried, "5: {} is tried again", new.candidate.version);
            }
        }
        Ok(())
    }

    /// 5: who leaves the file and comes back tries nothing that was taken back.
    pub(super) fn leaves(&mut self, event: &Event, before: BTreeMap<Name, Roles>) -> Held {
        match event {
            Event::StoreLost => self.left.clear(),
            // What had not landed is not known any more.
            Event::Crash { .. } => {}
            _ => self.left.extend(before.into_iter().filter(|(name, _)| self.desk.find(name.as_str()).is_none())),
        }
        for held in self.desk.services() {
            let Some(left) = self.left.remove(&held.wanted.name) else { continue };
            let Some(tried) = held.roles.active().map(|current| &current.candidate.version) else { continue };
            let aborted = left.active().is_some_and(|current| current.candidate.version == *tried);
            let name = &held.wanted.name;
            holds!(!aborted && left.quarantine(tried).is_none(), "5: {tried} is tried again, as {name} is back");
        }
        Ok(())
    }
}

fn may(why: &Why, before: &Roles, after: &Roles) -> bool {
    let Some(was) = before.active() else { return false };
    let end = after.history.iter().find(|ended| ended.id == was.id).map(|ended| &ended.end);
    match (why, end) {
        (Why::Asked(Verb::Abort | Verb::Rollback), end) => end == Some(&End::Aborted(AbortReason::Manual)),
        (Why::Asked(Verb::Weight(weight)), None) => after.weight() == *weight,
        // Back to the step, or to the one after it.
        (Why::Asked(Verb::Resume | Verb::Promote { .. }), None) => was.rollout.by_hand,
        (Why::Asked(Verb::Promote { .. }) | Why::Time(_), Some(End::Succeeded)) => {
            after.stable.version == was.candidate.version
        }
        (Why::Asked(Verb::Start(_)) | Why::File, Some(End::Superseded)) => true,
        (Why::Time(facts), Some(End::Aborted(AbortReason::Harmful { .. }))) => {
            matches!(facts.verdict, Verdict::Harmful { .. })
        }
        (Why::Time(facts), None) => facts.alarm && after.weight() == TRIAL_WEIGHT,
        _ => false,
    }
}
