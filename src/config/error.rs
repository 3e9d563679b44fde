//! What is wrong with a file: one error per mistake, each with its place.

use std::fmt;

use serde::Serialize;

/// Most errors that are reported for one file; the rest is counted.
pub const ERRORS_MAX: usize = 1_000;

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; absent when the mistake is about the file as a whole.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// Path of the key, such as `services.web.upstream.host`; empty when there is none.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Every mistake in a file, in file order; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Errors(pub Vec<ConfigError>);

/// A mistake found while compiling, by its byte offset; `None`: about the file as a whole, shown last.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    pub(super) offset: Option<usize>,
    pub(super) key: String,
    pub(super) message: String,
}

/// Byte offsets at which the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

// === impl Errors ===

impl Errors {
    /// One error about the file as a whole.
    pub(super) fn whole_file(file: &str, message: String) -> Self {
        Self(vec![ConfigError { file: file.to_owned(), line: None, column: None, key: String::new(), message }])
    }

    /// `mistakes` in `text`, put in file order and given lines and columns; beyond [`ERRORS_MAX`] they are only counted.
    pub(super) fn locate(file: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_key(|m| m.offset.unwrap_or(usize::MAX));
        let left_out = mistakes.len().saturating_sub(ERRORS_MAX);
        mistakes.truncate(ERRORS_MAX);
        let lines = Lines::of(text);
        let place = |mistake: Mistake| {
            let (line, column) = mistake.offset.map(|offset| lines.position(offset)).unzip();
            ConfigError { file: file.to_owned(), line, column, key: mistake.key, message: mistake.message }
        };
        let mut errors: Vec<ConfigError> = mistakes.into_iter().map(place).collect();
        if left_out > 0 {
            errors.extend(Self::whole_file(file, format!("and {left_out} more errors")).0);
        }
        Self(errors)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

// === impl ConfigError ===

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.column {
            // Without a key the column is all there is to find the place by.
            Some(column) if self.key.is_empty() => write!(f, ":{column}: ")?,
            _ if self.key.is_empty() => f.write_str(": ")?,
            _ => write!(f, ": {}: ", self.key)?,
        }
        f.write_str(&self.message)
    }
}

// === impl Lines ===

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    /// Line and column of the byte at `offset`, both from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(offset: Option<usize>, key: &str) -> Mistake {
        Mistake { offset, key: key.into(), message: "wrong".into() }
    }

    #[test]
    fn errors_are_in_file_order_with_line_and_column() {
        let text = "a = 1\nü = 2\n";
        let found = vec![mistake(None, "whole"), mistake(Some(9), "second"), mistake(Some(0), "")];
        let errors = Errors::locate("t.toml", text, found);
        assert_eq!(errors.to_string(), "t.toml:1:1: wrong\nt.toml:2: second: wrong\nt.toml: whole: wrong");
        assert_eq!((errors.0[1].line, errors.0[1].column), (Some(2), Some(3)));
    }

    #[test]
    fn the_number_of_errors_is_bounded_and_says_so() {
        let errors = Errors::locate("t.toml", "", vec![mistake(Some(0), "k"); ERRORS_MAX + 7]);
        assert_eq!(errors.0.len(), ERRORS_MAX + 1);
        assert!(errors.to_string().ends_with("t.toml: and 7 more errors"));
    }

    #[test]
    fn json_has_every_part() {
        let errors = Errors::locate("t.toml", "x", vec![mistake(Some(0), "k"), mistake(None, "")]);
        let json = serde_json::to_value(&errors).expect("serialises");
        let whole = serde_json::json!({"file": "t.toml", "line": null, "column": null, "key": "", "message": "wrong"});
        assert_eq!(
            json[0],
            serde_json::json!({"file": "t.toml", "line": 1, "column": 1, "key": "k", "message": "wrong"})
        );
        assert_eq!(json[1], whole);
    }
}
