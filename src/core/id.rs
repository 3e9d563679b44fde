//! Names: services, listeners, versions, variants. Validated once, cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest service or listener name, in bytes.
pub const NAME_LEN_MAX: usize = 63;
/// Longest version name, in bytes.
pub const VERSION_LEN_MAX: usize = 128;

/// The name of a service or listener: 1 to 63 of `a-z A-Z 0-9 - _ .`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The immutable name of a release: 1 to 128 of `a-z A-Z 0-9 - _ . + : @ /`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(Arc<str>);

/// Which of the two pools of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// The release in service.
    Stable,
    /// The release on trial.
    Candidate,
}

/// Why a text is not a [`Name`] or a [`Version`]; displays what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName {
    what: &'static str,
    extra: &'static str,
    len_max: usize,
}

// === impl Name ===

impl Name {
    /// Validates `text`.
    ///
    /// # Errors
    /// Says which characters and what length are allowed.
    pub fn new(text: &str) -> Result<Self, BadName> {
        check(text, "name", "-_.", NAME_LEN_MAX)?;
        Ok(Self(Arc::from(text)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Version ===

impl Version {
    /// Validates `text`.
    ///
    /// # Errors
    /// Says which characters and what length are allowed.
    pub fn new(text: &str) -> Result<Self, BadName> {
        check(text, "version", "-_.+:@/", VERSION_LEN_MAX)?;
        Ok(Self(Arc::from(text)))
    }

    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === Stored as text ===

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for Version {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        Self::new(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.as_str().to_owned()
    }
}

// === impl Variant ===

impl Variant {
    /// Both, in index order.
    pub const ALL: [Self; 2] = [Self::Stable, Self::Candidate];

    /// The word used in the API, the metrics and the logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Candidate => "candidate",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Stable => Self::Candidate,
            Self::Candidate => Self::Stable,
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl BadName ===

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a {} is 1 to {} letters, digits or `{}`, starting with a letter or digit",
            self.what, self.len_max, self.extra
        )
    }
}

impl std::error::Error for BadName {}

fn check(text: &str, what: &'static str, extra: &'static str, len_max: usize) -> Result<(), BadName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || extra.as_bytes().contains(&b);
    let ok =
        (1..=len_max).contains(&text.len()) && text.as_bytes()[0].is_ascii_alphanumeric() && text.bytes().all(allowed);
    if ok { Ok(()) } else { Err(BadName { what, extra, len_max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once_and_refusals_say_what_is_allowed() {
        for good in ["web", "Shop-2", "a_b.c", "9"] {
            assert_eq!(Name::new(good).map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "-web", "we b", "naïve", &"x".repeat(64), "a/b"] {
            let message = Name::new(bad).expect_err(bad).to_string();
            assert!(message.contains("1 to 63 letters, digits"), "{message}");
        }
        assert!(Version::new("registry/web:v1.2+build@sha").is_ok());
        assert!(Version::new("v1 beta").is_err());
    }
}
