//! Why a run ends, or why a figure is missing.

use std::fmt;
use std::io;

/// What went wrong, for the reader of the report.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

/// Makes a [`Failure`] of any error, saying what was tried.
pub trait While<T> {
    /// `doing` completes "while ...".
    fn doing(self, doing: &str) -> Result<T, Failure>;
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

// === impl While ===

impl<T, E: fmt::Display> While<T> for Result<T, E> {
    fn doing(self, doing: &str) -> Result<T, Failure> {
        self.map_err(|e| Failure(format!("{doing}: {e}")))
    }
}
