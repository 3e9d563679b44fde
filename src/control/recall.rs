//! What a handle to control knows of rollouts, running and over, and of what a command would be answered now.

use crate::clock;
use crate::core::id::Name;

use super::answer::{Applied, Refused};
use super::handle::{ControlHandle, find};
use super::past::RolloutDetail;
use super::rollouts::{Detections, RolloutStatus};
use super::tally::Counted;

impl ControlHandle {
    /// What is true of `service`, as a command that changes nothing is answered.
    ///
    /// # Errors
    /// Unknown service.
    pub fn applied(&self, service: &str) -> Result<Applied, Refused> {
        let (generation, status) = self.service(service)?;
        Ok(Applied {
            service: Name::new(&status.name).map_err(|_| Refused::Stopping)?,
            generation,
            weight: status.weight,
            state: status.state,
            stable: status.stable.version,
            candidate: status.candidate.map(|pool| pool.version),
            revision: status.revision,
            rollout: status.progress,
            begins: false,
        })
    }

    /// The rollout of `service` called `id`, or the latest one, with the generation. What is kept of it in the store is not in it yet.
    ///
    /// # Errors
    /// Unknown service.
    pub fn rollout(&self, service: &str, id: Option<u64>) -> Result<Option<(Name, RolloutDetail)>, Refused> {
        let routing = self.shared.current.load();
        let (_, active) = find(&routing, service)?;
        let (name, generation) = (&active.service.name, routing.snapshot.generation);
        let Some(view) = self.shared.views.of(name) else { return Ok(None) };
        let latest = RolloutDetail::latest(name, generation, &view, clock::now());
        let is_meant = |latest: &RolloutDetail| id.is_none_or(|id| id == latest.status.id);
        let earlier = || {
            let ended = view.history.iter().find(|ended| Some(ended.id) == id)?;
            Some(RolloutDetail::over(name, generation, ended))
        };
        Ok(latest.filter(is_meant).or_else(earlier).map(|detail| (name.clone(), detail)))
    }

    /// The latest rollout of every service, in order of service.
    #[must_use]
    pub fn latest_rollouts(&self) -> Vec<(Name, Option<RolloutStatus>)> {
        self.shared.views.latest(clock::now())
    }

    /// Candidates the gate has taken back since the process began, in order of service; none of those that never were any.
    #[must_use]
    pub fn detections(&self) -> Vec<(Name, Detections)> {
        self.shared.views.detections()
    }

    /// Rollouts that ended since the process began, in order of service.
    #[must_use]
    pub fn tally(&self) -> Vec<Counted> {
        self.shared.tally.counted()
    }
}
