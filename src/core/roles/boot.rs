//! The start of the process: with a record, the store wins; without one, nothing new is tried unasked.

use std::sync::Arc;
use std::time::Duration;

use super::file::{Reason, beginning};
use super::settle::By;
use super::{Context, Declared, Memory, Outcome, Roles, words};
use crate::core::rollout::wanted::{OnEmptyStore, Start};
use crate::core::rollout::{Counts, Event};
use crate::core::service::Service;

/// What is known when a service has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// The process starts and the store knows nothing of the service: first start, lost disk, ephemeral container.
    EmptyStore,
    /// The file was reloaded, and the service is new in it.
    NewService,
}

impl Roles {
    /// A service without a record: stable takes everything. `memory` is what is remembered of it if it was in the file before: a candidate
    /// that was taken back then waits for whoever says why it is safe now.
    ///
    /// # Errors
    /// Every reason why it is refused.
    pub fn first(first: First, memory: Option<&Memory>, context: &Context<'_>) -> Result<Outcome, Vec<Reason>> {
        let wanted = context.wanted;
        let mut roles = Self::of(wanted, memory);
        let reasons = roles.refusals(wanted);
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let before = roles.sight();
        let settings = &wanted.rollout;
        let known = first == First::NewService || settings.on_empty_store == OnEmptyStore::Start;
        let mut changes = vec![words::added(wanted)];
        let (mut raw, mut began) = (Vec::new(), None);
        for pool in std::iter::once(&wanted.stable).chain(&wanted.candidate) {
            let known = &mut roles.remember(&pool.version).digest;
            *known = known.take().or_else(|| pool.digest.clone());
        }
        match &wanted.candidate {
            Some(pool) if roles.quarantine(&pool.version).is_some() => {
                changes.extend(roles.quarantined(&pool.version));
            }
            Some(pool) if known && settings.start == Start::Manual => {
                changes.push(words::waits(&wanted.name, &pool.version));
            }
            Some(pool) => {
                raw = roles.begin(context.next_rollout, beginning(Arc::clone(pool), wanted, known), context.now);
                began = Some(context.next_rollout);
            }
            None => {}
        }
        let by = By::of("file", "add");
        let mut effects = roles.settle(&before, raw, Some(by), context.now);
        if !effects.contains(&super::Effect::Publish) {
            effects.insert(1, super::Effect::Publish);
        }
        Ok(Outcome { roles, effects, began, changes })
    }

    /// Goes on from the record in the store, which is `self`: what it says runs, whatever the file says. Endpoints that changed while
    /// nobody looked change in place. `counts` are the candidate's requests as far as they are remembered.
    ///
    /// # Errors
    /// A version is to consist of something else.
    pub fn boot(&self, context: &Context<'_>, counts: Counts) -> Result<Outcome, Vec<Reason>> {
        let mut next = self.clone();
        let before = self.sight();
        let changes = next.take_file_at_start(context.wanted)?;
        let raw = match next.current.as_mut().filter(|current| !current.rollout.is_over()) {
            Some(current) => current.on(Event::Restarted { at: context.now, counts }, Duration::ZERO),
            None => Vec::new(),
        };
        let by = By::of("plan", "restart");
        let mut effects = next.settle(&before, raw, Some(by), context.now);
        if !effects.contains(&super::Effect::Publish) {
            effects.insert(1, super::Effect::Publish);
        }
        if let Some(current) = next.active() {
            effects.push(super::Effect::Gate(super::GateWork::Begin(current.id)));
        }
        Ok(Outcome { roles: next, effects, began: None, changes })
    }

    fn of(wanted: &Service, memory: Option<&Memory>) -> Self {
        let Memory { versions, history, .. } = memory.cloned().unwrap_or_default();
        Self {
            service: wanted.name.clone(),
            revision: 0,
            stable: Arc::clone(&wanted.stable),
            current: None,
            warm: None,
            versions,
            history,
            declared: Declared::of(wanted),
        }
    }
}
