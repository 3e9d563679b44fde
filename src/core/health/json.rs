//! Assertions about JSON bodies: a path such as `$.checks[0].status`, and the value that has to be there.

use std::fmt;

use serde_json::Value;

/// Longest path, in steps.
const STEPS_MAX: usize = 32;
/// What a path looks like.
pub const PATH_FORM: &str =
    "a path is $ followed by .name and [index], such as \"$.checks[0].status\"; names are letters, digits, _ and -";

/// A place in a JSON document. The subset `$(.name|[index])*` of RFC 9535, which names at most one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// What has to be there. Numbers are whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// `true` or `false`.
    Bool(bool),
}

/// A place and what has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The place.
    pub path: Path,
    /// What has to be there.
    pub value: Scalar,
}

// === impl Path ===

impl Path {
    /// Reads `$.a.b[0]`.
    ///
    /// # Errors
    /// What a path looks like.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut rest = text.strip_prefix('$').ok_or(PATH_FORM)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or(PATH_FORM)?;
            steps.push(step);
            rest = after;
        }
        if steps.len() > STEPS_MAX { Err("a path has at most 32 steps") } else { Ok(Self(steps)) }
    }

    /// What is there in `document`, if anything.
    #[must_use]
    pub fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(document, |at, step| match step {
            Step::Name(name) => at.as_object()?.get(name),
            Step::Index(index) => at.as_array()?.get(*index),
        })
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        return (!name.is_empty()).then(|| (Step::Name(name.to_owned()), rest));
    }
    let (digits, rest) = text.strip_prefix('[')?.split_once(']')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits == "0" || !digits.starts_with('0');
    let index = digits.parse().ok().filter(|_| plain && canonical)?;
    Some((Step::Index(index), rest))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|step| match step {
            Step::Name(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
        })
    }
}

// === impl Scalar ===

impl Scalar {
    fn is(&self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            // 1.0 is the same number as 1 in JSON.
            Self::Number(number) => {
                let whole = || value.to_string().strip_suffix(".0").and_then(|whole| whole.parse().ok());
                value.as_i64().or_else(whole) == Some(*number)
            }
            Self::Bool(expected) => value.as_bool() == Some(*expected),
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
        }
    }
}

// === impl Assertion ===

impl Assertion {
    /// Checks `document`.
    ///
    /// # Errors
    /// What is there instead, in words and shortened to `shown_max` characters.
    pub fn check(&self, document: &Value, shown_max: usize) -> Result<(), String> {
        let Some(found) = self.path.find(document) else {
            return Err(format!("{} is missing; expected {}", self.path, self.value));
        };
        if self.value.is(found) {
            return Ok(());
        }
        let shown: String = match found {
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            other => other.to_string().chars().take(shown_max).collect(),
        };
        Err(format!("{} is {shown} instead of {}", self.path, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_name_one_place_or_are_refused() {
        let document = json!({"a": {"b-c": [1, {"d": "x"}]}, "e": true});
        for (path, value) in
            [("$.a.b-c[1].d", json!("x")), ("$.a.b-c[0]", json!(1)), ("$.e", json!(true)), ("$", document.clone())]
        {
            assert_eq!(Path::parse(path).expect("a path").find(&document), Some(&value), "{path}");
        }
        for missing in ["$.x", "$.a[0]", "$.a.b-c[2]", "$.e.f", "$[0]"] {
            assert_eq!(Path::parse(missing).expect("a path").find(&document), None, "{missing}");
        }
        for bad in [
            "",
            "a",
            "$a",
            "$.",
            "$..a",
            "$.a.",
            "$[",
            "$[]",
            "$[-1]",
            "$[01]",
            "$[*]",
            "$.*",
            "$['a']",
            "$.a b",
            "$.ü",
            "$[99999999999999999999999]",
        ] {
            assert_eq!(Path::parse(bad), Err(PATH_FORM), "{bad}");
        }
        assert!(Path::parse(&format!("${}", ".a".repeat(33))).is_err());
    }

    #[test]
    fn what_is_there_instead_is_told() {
        let check = |path: &str, value: Scalar, document: Value| {
            Assertion { path: Path::parse(path).expect("a path"), value }.check(&document, 5)
        };
        assert_eq!(check("$.s", Scalar::Text("ok".into()), json!({"s": "ok"})), Ok(()));
        assert_eq!(check("$.n", Scalar::Number(3), json!({"n": 3.0})), Ok(()));
        assert_eq!(check("$.b", Scalar::Bool(false), json!({"b": false})), Ok(()));
        let wrong = check("$.s", Scalar::Text("ok".into()), json!({"s": "degraded"})).expect_err("another");
        assert_eq!(wrong, "$.s is \"degr instead of \"ok\"");
        assert_eq!(check("$.s", Scalar::Number(1), json!({})).expect_err("none"), "$.s is missing; expected 1");
        assert!(check("$.s", Scalar::Text("1".into()), json!({"s": 1})).is_err());
        assert!(check("$.s", Scalar::Bool(true), json!({"s": [1]})).expect_err("other").contains("an array"));
    }

    proptest! {
        #[test]
        fn paths_are_written_as_they_are_read(path in "\\$(\\.[a-zA-Z0-9_-]{1,4}|\\[(0|[1-9][0-9]{0,3})\\]){0,8}") {
            prop_assert_eq!(Path::parse(&path).expect("a path").to_string(), path);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\$?[.$\\[\\]a0é]{0,12}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(path.to_string(), text);
            }
        }
    }
}
