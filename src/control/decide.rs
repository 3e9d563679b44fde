//! What a command or a file asks for, decided from values alone: nothing is changed here.

use std::sync::Arc;

use crate::config::settings::Settings;
use crate::core::id::Name;
use crate::core::plan::{Plan, Refusal, plan};
use crate::core::route::table::RouteTable;
use crate::core::service::Service;
use crate::core::snapshot::{ActiveService, Running, Snapshot};
use crate::core::weight::Weight;

use super::answer::Refused;

/// A plan that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The services from now on, in order of name.
    pub(super) services: Vec<ActiveService>,
    /// What changes, a sentence each.
    pub(super) changes: Vec<String>,
    /// Number of the next rollout.
    pub(super) next_rollout: u64,
}

/// What `weight` means for a service: `None` if it is so already. `open` is the switch of its candidate.
///
/// An aborted candidate is reopened by an explicit weight above zero that gives a reason, as a rollout of its own with other users
/// first: a script that goes on with its steps must not undo what a person has stopped.
pub(super) fn weight(
    active: &ActiveService,
    open: bool,
    weight: Weight,
    reason: Option<&str>,
    next_rollout: &mut u64,
) -> Result<Option<Running>, Refused> {
    let Some(candidate) = &active.service.candidate else {
        return Err(Refused::NoCandidate(active.service.name.clone()));
    };
    let running = &active.running;
    let closed = running.aborted || !open;
    if closed && weight > Weight::ZERO {
        if reason.is_none_or(|reason| reason.trim().is_empty()) {
            let (service, version) = (active.service.name.clone(), candidate.version.clone());
            return Err(Refused::Aborted { service, version });
        }
        let rollout = *next_rollout;
        *next_rollout += 1;
        return Ok(Some(Running { weight, aborted: false, retry: running.retry.saturating_add(1), rollout }));
    }
    Ok((running.weight != weight).then(|| Running { weight, ..running.clone() }))
}

/// What an abort means for a service: `None` if its candidate receives nothing anyway, for good.
pub(super) fn abort(active: &ActiveService) -> Option<Running> {
    let running = &active.running;
    let done = active.service.candidate.is_none() || running.aborted;
    (!done).then(|| Running { weight: Weight::ZERO, aborted: true, ..running.clone() })
}

/// What `wanted` means for what runs.
pub(super) fn reload(current: &Snapshot, wanted: &[Arc<Service>], next_rollout: u64) -> Result<Accepted, Refused> {
    let running: Vec<_> =
        current.services.iter().map(|active| (Arc::clone(&active.service), active.running.clone())).collect();
    let refused = |refusals: Vec<Refusal>| Refused::Plan(refusals.iter().map(ToString::to_string).collect());
    let Plan { changes, services, next_rollout } = plan(&running, wanted, next_rollout).map_err(refused)?;
    let mut services: Vec<_> =
        services.into_iter().map(|(service, running)| ActiveService::new(service, running)).collect();
    services.sort_by(|a, b| a.service.name.cmp(&b.service.name));
    Ok(Accepted { services, changes: changes.iter().map(ToString::to_string).collect(), next_rollout })
}

/// A snapshot of `services` (in order of name), with `routes` as indexed for the services of `settings` if these are the same.
pub(super) fn assemble(
    generation: u64,
    settings: &Settings,
    routes: Arc<RouteTable>,
    services: Vec<ActiveService>,
) -> Result<Snapshot, Refused> {
    let mut wanted: Vec<&Name> = settings.services.iter().map(|service| &service.name).collect();
    wanted.sort_unstable();
    if wanted.into_iter().eq(services.iter().map(|active| &active.service.name)) {
        return Ok(Snapshot { generation, routes, services });
    }
    // The plan keeps a service the file no longer has: indices differ.
    Snapshot::build(generation, &settings.routes, services).map_err(|unknown| Refused::Plan(vec![unknown.to_string()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fixture::service;

    fn percent(text: &str) -> Weight {
        Weight::parse(text).expect("weight")
    }

    fn active(candidate: bool, running: Running) -> ActiveService {
        ActiveService::new(service("web", 1, candidate.then_some(("v2", 1))), running)
    }

    const WHY: Option<&str> = Some("fixed by a restart of the database");

    #[test]
    fn an_aborted_candidate_is_not_reopened_without_a_reason() {
        let aborted = active(true, Running { aborted: true, ..Running::idle(3) });
        for reason in [None, Some(""), Some("  ")] {
            let refused = weight(&aborted, false, percent("5%"), reason, &mut 9).expect_err("refused");
            assert!(matches!(refused, Refused::Aborted { .. }), "{refused}");
            assert_eq!(weight(&aborted, false, Weight::ZERO, reason, &mut 9), Ok(None), "no traffic needs no reason");
        }
    }

    #[test]
    fn a_weight_changes_nothing_but_the_weight() {
        let mut next = 9;
        let decided = weight(&active(true, Running::idle(3)), true, percent("5%"), WHY, &mut next);
        assert_eq!(decided, Ok(Some(Running { weight: percent("5%"), ..Running::idle(3) })));
        assert_eq!(weight(&active(true, Running::idle(3)), true, Weight::ZERO, WHY, &mut next), Ok(None));
        assert_eq!(next, 9);
    }

    #[test]
    fn only_a_weight_above_zero_reopens_and_as_a_rollout_of_its_own() {
        let aborted = active(true, Running { aborted: true, ..Running::idle(3) });
        let mut next = 9;
        assert_eq!(weight(&aborted, false, Weight::ZERO, WHY, &mut next), Ok(None));
        let expected = Running { weight: percent("5%"), aborted: false, retry: 1, rollout: 9 };
        assert_eq!(weight(&aborted, false, percent("5%"), WHY, &mut next), Ok(Some(expected.clone())));
        assert_eq!(next, 10);
        // The switch was thrown but the abort itself never arrived.
        let thrown = active(true, Running { weight: percent("5%"), ..Running::idle(3) });
        assert_eq!(
            weight(&thrown, false, percent("5%"), WHY, &mut next),
            Ok(Some(Running { rollout: 10, ..expected }))
        );
    }

    #[test]
    fn a_weight_without_a_candidate_is_refused_and_an_abort_is_not() {
        let idle = active(false, Running::idle(0));
        let refused = weight(&idle, false, percent("5%"), WHY, &mut 1).expect_err("refused").to_string();
        assert!(refused.contains("\"web\" has no candidate"), "{refused}");
        assert_eq!(abort(&idle), None);
    }

    #[test]
    fn an_abort_takes_everything_and_does_so_once() {
        let split = active(true, Running { weight: percent("50%"), ..Running::idle(3) });
        let decided = abort(&split).expect("something to do");
        assert_eq!(decided, Running { aborted: true, ..Running::idle(3) });
        assert_eq!(abort(&active(true, decided)), None);
    }
}
