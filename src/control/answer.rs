//! What control answers: what is true now, or why nothing changed.

use std::fmt;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::config::ConfigError;
use crate::core::id::{Name, Version};
use crate::core::roles;
use crate::core::weight::Weight;

use super::rollouts::RolloutStatus;
use super::status::State;

/// What is in force, or was when someone looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The generation.
    pub generation: u64,
    /// The revision of the service it is about, if it is about one.
    pub revision: Option<u64>,
}

/// A command took effect, or what it asks for was already so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Applied {
    /// The service.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub service: Name,
    /// The generation in force.
    pub generation: u64,
    /// The weight in force.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// What the service is doing.
    pub state: State,
    /// The version in service.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub stable: Version,
    /// The version on trial.
    #[serde(serialize_with = "as_text_if_any", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub candidate: Option<Version>,
    /// Grows with everything that is recorded about the service.
    pub revision: u64,
    /// The latest rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Whether it begins with this.
    #[serde(skip)]
    pub begins: bool,
}

/// The candidate receives nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Aborted {
    /// The service.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub service: Name,
    /// The generation in force.
    pub generation: u64,
    /// The weight in force: zero.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub weight: Weight,
    /// What the service is doing: `idle` if there was no candidate.
    pub state: State,
    /// The version in service.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub stable: Version,
    /// The version that was on trial.
    #[serde(serialize_with = "as_text_if_any", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub candidate: Option<Version>,
    /// Grows with everything that is recorded about the service.
    pub revision: u64,
    /// Whether every worker has acknowledged. `false`: one did not within its bound; the switch is thrown all the same.
    pub settled: bool,
    /// Whether the store has it. `false`: it will, as soon as the disk lets it; until then a crash would forget it.
    pub persisted: bool,
}

/// What is true of an endpoint after it was drained or undrained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Drained {
    /// The service.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String)]
    pub service: Name,
    /// Its address.
    pub endpoint: String,
    /// The generation in force.
    pub generation: u64,
    /// Grows with everything that is recorded about the service; a drain is not.
    pub revision: u64,
    /// Whether it gets no new attempts.
    pub drained: bool,
    /// Since when, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Requests that are still in flight.
    pub in_flight: u32,
    /// Whether every worker has acknowledged, and closed what was idle.
    pub settled: bool,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// `applied` or `unchanged`.
    pub outcome: Outcome,
    /// The generation in force.
    pub generation: u64,
    /// What changed for services, a sentence each.
    pub changes: Vec<String>,
    /// Sections that differ from those the process started with and need a restart.
    pub needs_restart: Vec<&'static str>,
    /// Whether every worker has acknowledged.
    pub settled: bool,
}

/// How the last look at the file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// In force.
    Applied,
    /// Already in force.
    Unchanged,
    /// Nothing changed.
    Refused,
}

/// What a configuration would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Validated {
    /// The generation it was compared with.
    pub generation: u64,
    /// What would change for services, a sentence each.
    pub changes: Vec<String>,
    /// Sections that would need a restart.
    pub needs_restart: Vec<&'static str>,
    /// How many listeners it has.
    pub listeners: usize,
    /// How many routes it has.
    pub routes: usize,
    /// How many services it has.
    pub services: usize,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ConfigProblem)]
pub struct Problem {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The key path: `services.web.stable.endpoints[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Why nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such service.
    UnknownService {
        /// The name asked for.
        service: String,
        /// Those there are.
        known: Vec<Name>,
    },
    /// The state of the service does not allow it.
    State {
        /// The service.
        service: Name,
        /// Why not.
        why: roles::Refused,
    },
    /// An abort came in between: what was asked for did not happen.
    Overtaken(Name),
    /// The store did not take it, so it did not happen.
    Store {
        /// The disk is full.
        full: bool,
        /// What the system said.
        why: String,
    },
    /// There is no such endpoint.
    UnknownEndpoint {
        /// The service.
        service: Name,
        /// The address asked for.
        endpoint: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Without this endpoint stable would have none that can be used.
    LastEndpoint {
        /// The service.
        service: Name,
        /// The endpoint.
        endpoint: String,
    },
    /// Force is for the record: it needs a reason.
    ForceWithoutReason,
    /// What was expected to be in force is not any more.
    Stale {
        /// What was expected.
        expected: Mark,
        /// What is in force.
        found: Mark,
    },
    /// The configuration is wrong; everything that is, at once.
    Config(Vec<Problem>),
    /// The configuration is right but asks for something what runs does not allow; a sentence each.
    Plan(Vec<String>),
    /// A listener cannot be bound.
    Listeners(String),
    /// Too many of these are waiting already.
    Busy(&'static str),
    /// The process is stopping.
    Stopping,
}

/// Serializes anything by its text.
pub(crate) fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_text_if_any<T: fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

// === impl Mark ===

impl Mark {
    /// Whether `self` is in force where `found` is: of a revision only if it has one.
    #[must_use]
    pub fn fits(&self, found: &Self) -> bool {
        self.generation == found.generation && self.revision.is_none_or(|revision| Some(revision) == found.revision)
    }
}

// === impl Refused ===

impl Refused {
    /// Everything that is wrong, one by one.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Config(problems) => problems.clone(),
            Self::Plan(refusals) => refusals.iter().map(|r| Problem::of(r.clone())).collect(),
            other => vec![Problem::of(other.to_string())],
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownService { service, known } => {
                write!(f, "there is no service \"{service}\"")?;
                listed(f, "; there are: ", ", ", known)
            }
            Self::State { service, why } => write!(f, "service \"{service}\": {why}"),
            Self::Overtaken(service) => {
                write!(f, "service \"{service}\": an abort came in between, so this did not happen; look again")
            }
            Self::Store { full: true, why } => {
                write!(f, "the disk of the store is full, so nothing was changed: {why}; make room and try again")
            }
            Self::Store { full: false, why } => {
                write!(f, "the store did not take it, so nothing was changed: {why}")
            }
            Self::UnknownEndpoint { service, endpoint, known } => {
                write!(f, "service \"{service}\" has no endpoint \"{endpoint}\"")?;
                listed(f, "; there are: ", ", ", known)
            }
            Self::LastEndpoint { service, endpoint } => {
                write!(f, "{endpoint} is the last usable endpoint of stable of service \"{service}\": ")?;
                write!(
                    f,
                    "drained, every request would be refused; to drain it all the same, use force and give a reason"
                )
            }
            Self::ForceWithoutReason => f.write_str("force needs a reason, for the record"),
            Self::Stale { expected, found } => {
                match (expected.revision, found.revision) {
                    (Some(looked_at), Some(revision)) if expected.generation == found.generation => {
                        write!(f, "revision {looked_at} of the service was expected, but it is at {revision}: ")?;
                    }
                    _ => {
                        let (expected, found) = (expected.generation, found.generation);
                        write!(f, "generation {expected} was expected, but {found} is in force: ")?;
                    }
                }
                f.write_str("look at what is true now and ask again in view of that")
            }
            Self::Config(problems) => listed(f, "", "\n", problems),
            Self::Plan(refusals) => listed(f, "", "\n", refusals),
            Self::Listeners(why) => f.write_str(why),
            Self::Busy(what) => write!(f, "too many {what} are waiting already; try again"),
            Self::Stopping => f.write_str("the process is stopping"),
        }
    }
}

impl std::error::Error for Refused {}

fn listed<T: fmt::Display>(f: &mut fmt::Formatter<'_>, start: &str, between: &str, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        write!(f, "{}{item}", if i == 0 { start } else { between })?;
    }
    Ok(())
}

// === impl Problem ===

impl Problem {
    /// A problem that belongs to no place in a file.
    #[must_use]
    pub fn of(message: String) -> Self {
        Self { message, ..Self::default() }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let ConfigError { file, line, column, key, message } = error;
        Self {
            file: Some(file).filter(|file| !file.is_empty()),
            line,
            column,
            key: Some(key).filter(|key| !key.is_empty()),
            message,
        }
    }
}

/// `file:line:column: key: message`, as far as known.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            for number in [self.line, self.column].into_iter().flatten() {
                write!(f, ":{number}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_is_wrong_where_and_what_there_is() {
        let known = vec![Name::new("api").expect("name"), Name::new("web").expect("name")];
        let unknown = Refused::UnknownService { service: "wbe".to_owned(), known };
        assert_eq!(unknown.to_string(), "there is no service \"wbe\"; there are: api, web");
        let placed = Problem {
            file: Some("t.toml".to_owned()),
            line: Some(3),
            column: None,
            key: Some("a.b".to_owned()),
            message: "no".to_owned(),
        };
        let config = Refused::Config(vec![placed, Problem::of("second".to_owned())]);
        assert_eq!(config.to_string(), "t.toml:3: a.b: no\nsecond");
        assert_eq!(config.problems().len(), 2);
        assert_eq!(Refused::Plan(vec!["x".to_owned()]).problems()[0].message, "x");
    }
}
