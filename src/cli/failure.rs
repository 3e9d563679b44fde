//! Why a verb did not do what it was asked to: two lines for a person, an RFC 9457 problem for a program.

use std::fmt;

use serde_json::{Map, Value, json};

use super::text;

/// Most single errors shown to a person; `--json` has all of them.
const ERRORS_SHOWN_MAX: usize = 100;

/// Why a verb did not do what it was asked to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// What went wrong, in one line.
    title: String,
    /// Why, and what to do about it; may have several lines.
    detail: Option<String>,
    /// Single mistakes, a line each.
    errors: Vec<String>,
    /// The problem as it came from the admin API, or as a program wants it.
    problem: Map<String, Value>,
}

// === impl Failure ===

impl Failure {
    /// A failure without further explanation.
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), detail: None, errors: Vec::new(), problem: Map::new() }
    }

    /// With why, and what to do about it.
    #[must_use]
    pub(super) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// With one more line of detail.
    #[must_use]
    pub(super) fn note(self, line: &str) -> Self {
        let detail = self.detail.map_or_else(|| line.to_owned(), |detail| format!("{detail}\n{line}"));
        Self { detail: Some(detail), ..self }
    }

    /// With single mistakes: a line each for a person, `values` as `errors` for a program.
    #[must_use]
    pub(super) fn errors(mut self, lines: Vec<String>, values: Value) -> Self {
        self.problem.insert("errors".to_owned(), values);
        Self { errors: lines, ..self }
    }

    /// The status the admin API answered.
    #[must_use]
    pub(super) fn status(mut self, status: u16) -> Self {
        self.problem.insert("status".to_owned(), status.into());
        self
    }

    /// The status the admin API answered, if it did.
    pub(super) fn answered(&self) -> Option<u64> {
        self.problem.get("status").and_then(Value::as_u64)
    }

    /// Reads a problem the admin API answered; `None` if `body` is not one.
    pub(super) fn of_problem(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(problem)) = serde_json::from_slice(body) else { return None };
        let text = |key: &str| problem.get(key).and_then(Value::as_str).map(str::to_owned);
        let (title, detail) = (text("title")?, text("detail"));
        let errors = problem.get("errors").and_then(Value::as_array).into_iter().flatten().map(one_error).collect();
        Some(Self { title, detail, errors, problem })
    }

    /// As an RFC 9457 problem.
    pub(super) fn to_json(&self) -> Value {
        let mut problem = self.problem.clone();
        problem.entry("type").or_insert_with(|| json!("about:blank"));
        problem.insert("title".to_owned(), json!(self.title));
        if let Some(detail) = &self.detail {
            problem.insert("detail".to_owned(), json!(detail));
        }
        Value::Object(problem)
    }
}

/// A mistake of a configuration, as the admin API lists it: text, or an object with its place.
pub(super) fn one_error(error: &Value) -> String {
    let part = |key: &str| match error.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    match (error.as_str(), part("message")) {
        (Some(text), _) => text.to_owned(),
        (None, None) => error.to_string(),
        (None, Some(message)) => {
            let place = [part("file"), part("line")].into_iter().flatten().collect::<Vec<_>>().join(":");
            let place = Some(place).filter(|p| !p.is_empty());
            [place, part("key"), Some(message)].into_iter().flatten().collect::<Vec<_>>().join(": ")
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::clean(&self.title))?;
        let said: Vec<&str> = self.errors.iter().map(String::as_str).collect();
        let detail = self.detail.as_deref().unwrap_or_default();
        // The admin API may repeat the mistakes in the detail; once is enough.
        if !detail.is_empty() && detail != said.join("\n") && detail != said.join("; ") {
            detail.lines().try_for_each(|line| write!(f, "\n  {}", text::clean(line)))?;
        }
        // Not indented: editors find `file:line: ` at the start of a line.
        let lines = said.iter().take(ERRORS_SHOWN_MAX).flat_map(|error| error.lines());
        lines.into_iter().try_for_each(|line| write!(f, "\n{}", text::clean(line)))?;
        match said.len().saturating_sub(ERRORS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more; --json shows all of them"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_title_detail_and_every_error() {
        let body = br#"{"type":"about:blank","title":"Unprocessable","status":422,"detail":"the file is wrong",
            "errors":[{"file":"t.toml","line":3,"column":null,"key":"services.web","message":"no"},{"message":"bare"},"text"]}"#;
        let failure = Failure::of_problem(body).expect("a problem");
        assert_eq!(failure.to_string(), "Unprocessable\n  the file is wrong\nt.toml:3: services.web: no\nbare\ntext");
        assert_eq!(failure.to_json(), serde_json::from_slice::<Value>(body).expect("json"));
    }

    #[test]
    fn what_is_not_a_problem_is_not_taken_for_one() {
        for body in ["", "<html>", "[]", "{}", r#"{"title":3}"#, "\u{0}"] {
            assert_eq!(Failure::of_problem(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn errors_repeated_in_the_detail_are_shown_once() {
        let body = br#"{"title":"Refused","detail":"a: b\nc","errors":[{"key":"a","message":"b"},{"message":"c"}]}"#;
        assert_eq!(Failure::of_problem(body).expect("a problem").to_string(), "Refused\na: b\nc");
    }

    #[test]
    fn a_failure_of_our_own_is_a_problem_too() {
        let failure = Failure::new("no").detail("because\nof this").status(503);
        assert_eq!(failure.to_string(), "no\n  because\n  of this");
        assert_eq!((failure.answered(), Failure::new("no").answered()), (Some(503), None));
        let problem = json!({"type": "about:blank", "title": "no", "detail": "because\nof this", "status": 503});
        assert_eq!(failure.to_json(), problem);
    }

    #[test]
    fn the_list_of_errors_is_bounded_for_people_only() {
        let lines: Vec<String> = (0..ERRORS_SHOWN_MAX + 3).map(|i| i.to_string()).collect();
        let failure = Failure::new("no").errors(lines.clone(), json!(lines));
        assert!(failure.to_string().ends_with("\n99\nand 3 more; --json shows all of them"));
        assert_eq!(failure.to_json()["errors"].as_array().map(Vec::len), Some(ERRORS_SHOWN_MAX + 3));
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let failure = Failure::new("a\u{1b}[2Jb").detail("c\u{7}d");
        assert_eq!(failure.to_string(), "a\\u{1b}[2Jb\n  c\\u{7}d");
    }
}
