//! Every candidate with a share is watched: what its gate says is carried out here.
//!
//! A weight set by hand has no steps; every change of it begins one for the gate.

use std::time::Instant;

use crate::core::gate::Outcome;
use crate::core::weight::Weight;
use crate::state::current::Routing;

use super::decide;
use super::gate::{Gates, HOLD, Seen, default_config, words};
use super::journal::What;
use super::writer::Control;

/// Watches what is tried in `next`, which is about to be published in place of `before`, and nothing else.
pub(super) fn watch(gates: &mut Gates, before: &Routing, next: &Routing, now: Instant) {
    gates.follow(next);
    for (active, live) in next.snapshot.services.iter().zip(&next.live) {
        let (name, running) = (&active.service.name, &active.running);
        let tried = active.service.candidate.is_some() && !running.aborted && live.is_candidate_open();
        let watched = gates.watched(name);
        if watched.is_some_and(|rollout| !tried || rollout != running.rollout) {
            gates.end(name);
        }
        if !tried {
            continue;
        }
        if gates.watched(name) != Some(running.rollout) {
            if running.weight > Weight::ZERO
                && let Err(error) = gates.begin(name, running.rollout, &default_config(&active.service.upstream), now)
            {
                tracing::error!(service = %name, %error, "the candidate is not watched");
            }
            continue;
        }
        let was = before.snapshot.service(name.as_str()).map(|(_, before)| before.running.weight);
        if was != Some(running.weight) {
            gates.step(name, u32::try_from(next.snapshot.generation).unwrap_or(u32::MAX), HOLD);
        }
    }
}

// === impl Control ===

impl Control {
    /// What workers counted becomes decisions. Candidates that do harm lose their traffic before anything else is looked at.
    pub(super) fn tick(&mut self, now: Instant) {
        let seen = self.gates.tick(&self.current, now);
        let is_harmful = |seen: &&(usize, Seen)| seen.1.metric.is_some();
        // All switches before the first publication.
        seen.iter().filter(is_harmful).for_each(|(index, _)| self.current.live[*index].close_candidate());
        seen.iter().filter(is_harmful).for_each(|(index, seen)| self.take_back(*index, seen));
        let mut notes = self.ticker.tick(&self.current, now);
        let blamed = seen.iter().filter_map(|(_, seen)| seen.eject.as_ref());
        notes.extend(blamed.filter_map(|key| self.ticker.eject(&self.current, key, now)));
        let restored = notes.iter().any(|note| note.what == What::EndpointRestored);
        for note in notes {
            self.note(note);
        }
        if restored {
            self.release();
        }
    }

    /// Takes the traffic back from a candidate that does harm, whose switch is thrown.
    fn take_back(&mut self, index: usize, seen: &Seen) {
        let (Outcome::Harmful(reason), Some(metric)) = (&seen.verdict.outcome, &seen.metric) else { return };
        let active = &self.current.snapshot.services[index];
        let decided = decide::abort(active);
        let evidence = self.gates.report(&active.service.name).map(|known| words(&known.report, reason, metric));
        self.put(index, decided, What::Abort, format!("gate/{metric}"), evidence);
    }
}

#[cfg(test)]
mod tests;
