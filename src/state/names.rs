//! What is known about the names of endpoints: written by whoever resolves them, read by status and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::endpoint::Question;

/// What is known about one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameState {
    /// Addresses in use.
    pub addresses: usize,
    /// When the answer in use came, since 1970; absent before the first.
    pub answered_at: Option<Duration>,
    /// Failures since then.
    pub failures: u32,
    /// What is wrong, if anything; without a failure it is about a part of the answer.
    pub problem: Option<String>,
}

/// How names stand, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameCounts {
    /// The last answer was good.
    pub resolved: u64,
    /// An older answer is used, because the last ones were not.
    pub stale: u64,
    /// Never answered.
    pub unresolved: u64,
    /// Answers so far.
    pub answers: u64,
    /// Failures and empty answers so far.
    pub failures: u64,
}

/// All names. Locked for moments, never on the request path; as many as the configuration has.
#[derive(Debug, Default)]
pub struct Names(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeMap<Question, NameState>,
    answers: u64,
    failures: u64,
}

// === impl NameState ===

impl NameState {
    /// `resolved`, `stale` or `unresolved`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match (self.answered_at, self.failures) {
            (None, _) => "unresolved",
            (Some(_), 0) => "resolved",
            (Some(_), _) => "stale",
        }
    }
}

// === impl Names ===

impl Names {
    /// Takes down what is known of `question` after it was asked.
    pub fn asked(&self, question: &Question, state: NameState) {
        let mut inner = self.inner();
        if state.failures == 0 {
            inner.answers += 1;
        } else {
            inner.failures += 1;
        }
        if let Some(known) = inner.names.get_mut(question) {
            *known = state;
        }
    }

    /// Knows exactly the names in `wanted` from now on.
    pub fn follow(&self, wanted: &BTreeSet<Question>) {
        let mut inner = self.inner();
        inner.names.retain(|question, _| wanted.contains(question));
        for question in wanted {
            inner.names.entry(question.clone()).or_default();
        }
    }

    /// Every name with what is known of it, in order.
    #[must_use]
    pub fn all(&self) -> Vec<(Question, NameState)> {
        self.inner().names.iter().map(|(question, state)| (question.clone(), state.clone())).collect()
    }

    /// How they stand, all together.
    #[must_use]
    pub fn counts(&self) -> NameCounts {
        let inner = self.inner();
        let mut counts = NameCounts { answers: inner.answers, failures: inner.failures, ..NameCounts::default() };
        for state in inner.names.values() {
            match (state.answered_at, state.failures) {
                (None, _) => counts.unresolved += 1,
                (Some(_), 0) => counts.resolved += 1,
                (Some(_), _) => counts.stale += 1,
            }
        }
        counts
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration_and_stand_as_they_were_answered() {
        let names = Names::default();
        let host = |name: &str| Question::Host(name.into());
        names.follow(&["a", "b", "c"].map(host).into());
        let good = NameState { addresses: 2, answered_at: Some(Duration::from_secs(9)), ..NameState::default() };
        names.asked(&host("a"), good.clone());
        names.asked(&host("b"), NameState { failures: 1, problem: Some("timed out".into()), ..good.clone() });
        names.asked(&host("elsewhere"), good.clone());
        let words: Vec<_> = names.all().into_iter().map(|(q, state)| format!("{q} {}", state.as_str())).collect();
        assert_eq!(words, ["a resolved", "b stale", "c unresolved"]);
        let expected = NameCounts { resolved: 1, stale: 1, unresolved: 1, answers: 2, failures: 1 };
        assert_eq!(names.counts(), expected);
        names.follow(&["a", "d"].map(host).into());
        assert_eq!(names.all().len(), 2);
        assert_eq!(names.all()[0].1, good, "one that stays keeps what is known");
    }
}
