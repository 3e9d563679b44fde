//! Draining one endpoint by hand: it gets no new attempts; what is in flight may finish within the drain timeout.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock;
use crate::core::endpoint::EndpointKey;
use crate::core::id::{Name, Variant};
use crate::core::roles;
use crate::core::snapshot::ActiveService;
use crate::state::live::{EndpointLive, ServiceLive};

use super::answer::{Drained, Refused};
use super::handle::Author;
use super::journal::{Note, What};
use super::ledger::Line;
use super::writer::Control;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// No new attempts.
    Drain,
    /// New attempts again.
    Undrain,
}

/// The command.
pub(super) struct EndpointCommand {
    pub(super) service: String,
    /// Its address.
    pub(super) endpoint: String,
    pub(super) verb: Verb,
    /// Also the last usable one of stable.
    pub(super) force: bool,
    pub(super) by: Author,
    pub(super) reason: Option<String>,
    pub(super) reply: oneshot::Sender<Result<Drained, Refused>>,
}

impl Control {
    /// Drains or undrains whatever serves at an address of a service, in both variants, or is kept to go back to.
    pub(super) fn endpoint(&mut self, command: EndpointCommand) {
        let EndpointCommand { service, endpoint, verb, force, by, reason, reply } = command;
        let answer = self.drained((&service, &endpoint), verb, force, &by, reason.as_deref());
        // Whoever stayed for want of this one may go, and one that stayed and was drained has gone.
        self.release();
        // Whoever no longer waits needs no answer.
        let _ = reply.send(answer);
    }

    fn drained(
        &self,
        (service, asked): (&str, &str),
        verb: Verb,
        force: bool,
        by: &Author,
        reason: Option<&str>,
    ) -> Result<Drained, Refused> {
        let (routing, index) = (self.routing(), self.find(service)?);
        let (active, live) = routing.service(index);
        let name = &active.service.name;
        let found = decide(name, live, asked, verb, force, reason)?;
        let (now, unix) = (clock::now(), clock::unix_time());
        let generation = routing.snapshot.generation;
        for endpoint in &found {
            let (changed, what) = match verb {
                Verb::Drain => (endpoint.conduct.drain(now, unix), What::EndpointDrained),
                Verb::Undrain => (endpoint.conduct.undrain(now), What::EndpointUndrained),
            };
            if changed {
                let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                let detail = Some(format!("{} {}{why}", endpoint.key.version, endpoint.address_text));
                let (actor, service) = (by.actor.clone(), Some(name.to_string()));
                self.note(Note { actor, what, service, change: None, detail, generation });
                self.record(name, endpoint, verb, by, reason);
            }
        }
        Ok(Drained {
            service: name.clone(),
            endpoint: found[0].address_text.to_string(),
            generation,
            revision: self.revision(index),
            drained: found[0].conduct.is_drained(),
            since_ms: found[0].conduct.drained_since_ms(),
            in_flight: found.iter().map(|endpoint| endpoint.in_flight()).sum(),
            settled: false,
        })
    }
}

/// The audit is owed what was done by hand; the state itself does not outlive the process.
impl Control {
    fn record(&self, service: &Name, endpoint: &EndpointLive, verb: Verb, by: &Author, reason: Option<&str>) {
        let place = format!("{} {}", endpoint.key.version, endpoint.address_text);
        let (served, drained) = (format!("{place} in service"), format!("{place} drained"));
        let (verb, from, to) = match verb {
            Verb::Drain => ("drain", served, drained),
            Verb::Undrain => ("undrain", drained, served),
        };
        let Author { actor, source } = by.clone();
        let note = roles::Note { actor, source, verb, rollout: 0, from, to, reason: reason.map(str::to_owned) };
        let drafts = vec![self.draft(Some(service), note)];
        self.ledger.owe(Line { drafts, ..Line::default() });
    }
}

/// An endpoint of another version at an address that is drained.
struct Carried<'a> {
    endpoint: &'a EndpointLive,
    /// Since when, in milliseconds since 1970.
    since_ms: u64,
    /// Whether it is drained, too. If not, nobody would be left.
    stays: bool,
}

/// Drains what serves a service from now on, as another version, where somebody was drained: the command was about the place. To be called
/// before anything is published; what was done, a sentence each.
pub(super) fn carry_drains(active: &ActiveService, before: &ServiceLive, after: &ServiceLive) -> Vec<(What, String)> {
    let now = clock::now();
    let told = carried(active, before, after).into_iter().filter_map(|Carried { endpoint, since_ms, stays }| {
        let EndpointKey { version, address, .. } = &endpoint.key;
        if stays {
            let drained = endpoint.conduct.drain(now, Duration::from_millis(since_ms));
            drained.then(|| (What::EndpointDrained, format!("{address} stays drained, as version {version}")))
        } else {
            // A candidate that was drained and is stable now.
            endpoint.conduct.undrain(now);
            let told = format!("{address} is drained no more, version {version} would have nobody else");
            Some((What::EndpointUndrained, told))
        }
    });
    told.collect()
}

/// Where drains go on. Stable keeps at least one endpoint that is not drained: without force no drain takes the last one either.
fn carried<'a>(active: &ActiveService, before: &ServiceLive, after: &'a ServiceLive) -> Vec<Carried<'a>> {
    let drained = before.endpoints().filter_map(|old| Some((&old.key.address, old.conduct.drained_since_ms()?)));
    let drained: HashMap<_, _> = drained.collect();
    if drained.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for variant in Variant::ALL {
        // Those that stay although they left the pool come last.
        let own = active.pool(variant).map_or(0, |pool| pool.endpoints.len());
        let pool = || after.pool(variant).iter().take(own);
        let was = |old: &EndpointLive| variant == Variant::Candidate || old.variant == variant;
        let new = |endpoint: &EndpointLive| {
            let serving = before.stable.iter().chain(&before.candidate);
            serving.filter(|old| was(old)).all(|old| old.key != endpoint.key)
        };
        let since = |endpoint: &EndpointLive| drained.get(&endpoint.key.address).copied().filter(|_| new(endpoint));
        let stays = variant == Variant::Candidate || pool().any(|e| !e.conduct.is_drained() && since(e).is_none());
        all.extend(pool().filter_map(|endpoint| Some(Carried { endpoint, since_ms: since(endpoint)?, stays })));
    }
    all
}

/// The endpoints that are meant, at least one; refuses what would leave stable without any.
fn decide<'a>(
    service: &Name,
    live: &'a ServiceLive,
    asked: &str,
    verb: Verb,
    force: bool,
    reason: Option<&str>,
) -> Result<Vec<&'a EndpointLive>, Refused> {
    let all = || live.endpoints().map(AsRef::as_ref);
    let meant = |endpoint: &&EndpointLive| is_at(endpoint, asked);
    let found: Vec<&EndpointLive> = all().filter(meant).collect();
    if found.is_empty() {
        let known = all().map(|endpoint| endpoint.address_text.to_string()).collect();
        return Err(Refused::UnknownEndpoint { service: service.clone(), endpoint: asked.to_owned(), known });
    }
    if force && reason.is_none_or(|reason| reason.trim().is_empty()) {
        return Err(Refused::ForceWithoutReason);
    }
    if verb == Verb::Drain && !force && is_last(live, asked) {
        return Err(Refused::LastEndpoint { service: service.clone(), endpoint: asked.to_owned() });
    }
    Ok(found)
}

/// Whether stable lives by what is at this address: it can be used, or could be in panic, and nothing else can.
fn is_last(live: &ServiceLive, asked: &str) -> bool {
    let (meant, others): (Vec<_>, Vec<_>) = live.stable.iter().partition(|endpoint| is_at(endpoint, asked));
    meant.iter().any(|endpoint| endpoint.ever_passed())
        && !others.iter().any(|endpoint| endpoint.is_ready() && endpoint.conduct.is_in())
}

/// Whether `endpoint` is what people write as `asked`.
fn is_at(endpoint: &EndpointLive, asked: &str) -> bool {
    &*endpoint.address_text == asked
        || asked.parse().is_ok_and(|address: crate::core::endpoint::Address| address == endpoint.key.address)
}

#[cfg(test)]
mod tests;
