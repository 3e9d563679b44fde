//! What a request counts for the gate: when it is exposed, what is bad, good or neither. Forced requests count nothing, and stable is not
//! charged with what was the candidate's.

use std::time::{Duration, Instant};

use crate::core::assign::{Assignment, Openness};
use crate::core::id::Variant;
use crate::core::weight::Weight;
use crate::state::current::Routing;
use crate::state::sensors::{Place, Sense, Ticks};
use crate::telemetry::termination::Termination;

use super::Exchange;

impl Exchange {
    /// The request belongs to a session (zero: to none), which `begins` with it, and was assigned.
    pub(super) fn drawn(&mut self, service: usize, openness: Openness, session: u64, begins: bool) {
        self.sense.identify(session, begins);
        let open = openness.exists && openness.open;
        let split = open && openness.weight > Weight::ZERO && openness.weight < Weight::FULL;
        if split
            && self.assignment == Assignment::Bucket
            && let Some(watch) = &self.routing.live[service].watch
        {
            watch.draw(self.policy.worker, session, self.variant);
        }
    }

    /// An attempt begins at the endpoint: an exposure.
    pub(super) fn exposed(&mut self, now: Instant) {
        self.sensed(|sense, place, ticks| sense.begin(place, ticks.at(place.watch, now)));
    }

    /// The request is fully written.
    pub(super) fn written(&mut self, now: Instant) {
        // A response that came before the end of its request says nothing of how long one has to wait.
        if self.head_at.is_none() {
            self.sensed(|sense, place, ticks| sense.write(place, ticks.at(place.watch, now)));
        }
    }

    /// How long the attempt has been waited for: in a queue, and since it was fully written.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.sent.map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent)) + self.queued
    }

    /// The response head came after so long.
    pub(super) fn headed(&mut self, took: Duration, now: Instant) {
        self.sensed(|sense, place, _| sense.leave(place, took, true, now));
    }

    /// The response head is not waited for any more.
    pub(super) fn left(&mut self, now: Instant) {
        if !self.sense.waits() {
            return;
        }
        let took = self.waited(now);
        self.sensed(|sense, place, _| sense.leave(place, took, false, now));
    }

    /// Counts the attempt's endpoint as having failed this request; at most once per request.
    pub(super) fn mark_bad(&mut self, now: Instant) {
        if !self.bad
            && is_counted(self.assignment)
            && let Some(shard) = self.shard()
        {
            shard.bad.add(1);
            self.bad = true;
            self.sensed(|sense, place, _| sense.bad(place, now));
        }
    }

    /// The request was for the candidate, of which nobody can be used, and the endpoint at `index` is to blame: one exposure, one bad.
    pub(super) fn charge(&mut self, service: usize, index: usize, now: Instant) {
        let shard = self.routing.live[service].pool(Variant::Candidate)[index].counters.of(self.policy.worker);
        shard.attempts.add(1);
        shard.bad.add(1);
        self.bad = true;
        self.sensed_at(Some((Variant::Candidate, index)), |sense, place, ticks| {
            sense.begin(place, ticks.at(place.watch, now));
            sense.bad(place, now);
        });
    }

    /// A response head is passed on.
    pub(super) fn judge_status(&mut self, status: u16, now: Instant) {
        if (400..500).contains(&status) && !matches!(status, 429 | 499) {
            self.sensed(|sense, place, _| sense.refused(place, now));
        }
    }

    /// The request is over.
    pub(super) fn count_end(&mut self, termination: Termination, now: Instant) {
        let idle = termination == Termination::UpstreamIdle && !self.grpc;
        let broken = termination == Termination::UpstreamTruncated || idle;
        if broken || (termination == Termination::ClientAbort && self.was_left_hanging(now)) {
            self.mark_bad(now);
        }
        self.left(now);
        let delivered = termination == Termination::Complete && self.status < 400;
        if self.head_at.is_some() && !self.bad && (delivered || self.status == 101) {
            self.sensed(|sense, place, _| sense.succeed(place, now));
        }
    }

    /// Whether the client had waited for a connection, or for the response head, so long that nobody can blame it for leaving.
    fn was_left_hanging(&self, now: Instant) -> bool {
        let since = match (self.sent, self.connected) {
            (Some(sent), _) => sent,
            (None, None) => self.attempt_began,
            // It was still sending.
            (None, Some(_)) => return false,
        };
        let waited = now.saturating_duration_since(since) + self.queued;
        let watch = self.service.and_then(|service| self.routing.live[service].watch.as_ref());
        self.head_at.is_none() && self.status == 0 && watch.is_some_and(|watch| watch.limits().is_patient(waited))
    }

    fn sensed(&mut self, tell: impl FnOnce(&mut Sense, Place<'_>, &Ticks)) {
        self.sensed_at(self.endpoint, tell);
    }

    fn sensed_at(&mut self, at: Option<(Variant, usize)>, tell: impl FnOnce(&mut Sense, Place<'_>, &Ticks)) {
        if is_counted(self.assignment)
            && let Some(place) = place(&self.routing, self.service, at, self.policy.worker)
        {
            tell(&mut self.sense, place, &self.policy.ticks);
        }
    }
}

/// Whether requests assigned like this count for the gate.
fn is_counted(assignment: Assignment) -> bool {
    matches!(assignment, Assignment::Sticky | Assignment::Bucket)
}

fn place(routing: &Routing, service: Option<usize>, at: Option<(Variant, usize)>, worker: usize) -> Option<Place<'_>> {
    let (watch, (variant, index)) = (routing.live[service?].watch.as_deref()?, at?);
    Some(Place { watch, shard: watch.counts(variant, index)?.of(worker), variant })
}
