//! Whether a route takes a request: host and path, then method, headers, query and cookies.

use std::fmt;

use super::super::fields::{FieldSource, decoded, first_cookie, query_param, query_param_raw};
use super::{FieldMatch, Matcher, PathMatch, ValueMatch, path};

/// What routes look at of a request.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The host as [`super::host::HostName`] gives it; empty when there is none.
    pub host: &'a [u8],
    /// The path as [`path::normalise`] gives it for matching.
    pub path: &'a [u8],
    /// The method; its case matters (RFC 9110 section 9.1).
    pub method: &'a [u8],
    /// The query without `?`.
    pub query: Option<&'a [u8]>,
    /// The header fields, cookies among them.
    pub fields: &'a dyn FieldSource,
}

/// The condition of a route that a request does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss<'a> {
    /// The method is not among them.
    Method,
    /// The header of this name.
    Header(&'a str),
    /// The query parameter of this name.
    Query(&'a str),
    /// The cookie of this name.
    Cookie(&'a str),
}

// === impl Matcher ===

impl Matcher {
    /// Whether all conditions hold.
    #[must_use]
    pub fn takes(&self, subject: &Subject<'_>) -> bool {
        self.host.takes(subject.host) && self.path.takes(subject.path) && self.miss(subject).is_none()
    }

    /// The first condition beside host and path that does not hold.
    ///
    /// Allocates only when a regular expression is asked about a query parameter that is escaped.
    #[must_use]
    pub fn miss(&self, subject: &Subject<'_>) -> Option<Miss<'_>> {
        if !self.methods.is_empty() && !self.methods.iter().any(|m| m.as_bytes() == subject.method) {
            return Some(Miss::Method);
        }
        if let Some(field) = self.headers.iter().find(|f| !f.holds_for_header(subject.fields)) {
            return Some(Miss::Header(&field.name));
        }
        if let Some(field) = self.query.iter().find(|f| !f.holds_for_query(subject.query.unwrap_or_default())) {
            return Some(Miss::Query(&field.name));
        }
        self.cookies.iter().find(|f| !f.holds_for_cookie(subject.fields)).map(|field| Miss::Cookie(&field.name))
    }
}

// === impl PathMatch ===

impl PathMatch {
    /// Whether it takes `path`, given in the form for matching.
    #[must_use]
    pub fn takes(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path::is_within(path, prefix),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

// === impl FieldMatch ===

impl FieldMatch {
    fn holds_for_header(&self, fields: &dyn FieldSource) -> bool {
        let name = self.name.as_bytes();
        match self.value {
            ValueMatch::Present(wanted) => fields.any(name, &mut |_| true) == wanted,
            _ => fields.any(name, &mut |value| self.value.holds(value)),
        }
    }

    fn holds_for_cookie(&self, fields: &dyn FieldSource) -> bool {
        let held = first_cookie(fields, self.name.as_bytes(), |value| self.value.holds(value));
        held.unwrap_or(self.value.holds_without())
    }

    fn holds_for_query(&self, query: &[u8]) -> bool {
        let name = self.name.as_bytes();
        let Some(raw) = query_param_raw(query, name) else { return self.value.holds_without() };
        match &self.value {
            ValueMatch::Exact(exact) => decoded(raw).eq(exact.iter().copied()),
            ValueMatch::Prefix(prefix) => decoded(raw).take(prefix.len()).eq(prefix.iter().copied()),
            ValueMatch::Regex(regex) => query_param(query, name).is_some_and(|value| regex.is_match(&value)),
            ValueMatch::Present(wanted) => *wanted,
        }
    }
}

// === impl ValueMatch ===

impl ValueMatch {
    /// Whether `value` is what it must be.
    #[must_use]
    pub fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Regex(regex) => regex.is_match(value),
            Self::Present(wanted) => *wanted,
        }
    }

    const fn holds_without(&self) -> bool {
        matches!(self, Self::Present(false))
    }
}

// === impl Subject ===

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        // Header values are left out: they hold credentials.
        f.debug_struct("Subject")
            .field("host", &text(self.host))
            .field("path", &text(self.path))
            .field("method", &text(self.method))
            .finish_non_exhaustive()
    }
}

// === impl Miss ===

impl fmt::Display for Miss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("it does not take this method"),
            Self::Header(name) => write!(f, "the header \"{name}\" is not as it asks"),
            Self::Query(name) => write!(f, "the query parameter \"{name}\" is not as it asks"),
            Self::Cookie(name) => write!(f, "the cookie \"{name}\" is not as it asks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::route::HostMatch;

    fn value(kind: &str, text: &str) -> ValueMatch {
        match kind {
            "exact" => ValueMatch::Exact(text.into()),
            "prefix" => ValueMatch::Prefix(text.into()),
            "regex" => ValueMatch::Regex(regex::bytes::Regex::new(text).expect("a regex")),
            _ => ValueMatch::Present(text == "true"),
        }
    }

    fn any() -> Matcher {
        Matcher {
            host: HostMatch::Any,
            path: PathMatch::Prefix(b"/".to_vec()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
        }
    }

    const FIELDS: &[(&str, &str)] = &[
        ("Region", "us-east-1"),
        ("region", "eu"),
        ("Cookie", "user=\"ann\"; user=bob"),
        ("cookie", "seen=; user=eve"),
    ];
    const QUERY: &str = "beta=1%2B1&beta=2&empty&b%61r=a+b";

    fn subject(fields: &dyn FieldSource) -> Subject<'_> {
        Subject { host: b"a", path: b"/", method: b"GET", query: Some(QUERY.as_bytes()), fields }
    }

    /// Checks `cases` of (name, kind, text, holds) with the predicate put where `place` says.
    fn check(
        cases: &[(&str, &str, &str, bool)],
        place: impl Fn(&mut Matcher, FieldMatch),
        miss: impl Fn(&str) -> Miss<'_>,
    ) {
        for &(name, kind, text, holds) in cases {
            let mut matcher = any();
            place(&mut matcher, FieldMatch { name: name.to_owned(), value: value(kind, text) });
            let found = matcher.miss(&subject(&FIELDS));
            assert_eq!(found, (!holds).then(|| miss(name)), "{name} {kind} {text}");
            assert_eq!(matcher.takes(&subject(&FIELDS)), holds);
        }
    }

    #[test]
    fn of_several_headers_any_will_do() {
        let cases = [
            ("region", "exact", "us-east-1", true),
            ("region", "exact", "eu", true),
            ("region", "exact", "us", false),
            ("region", "prefix", "us-", true),
            ("region", "prefix", "e", true),
            ("region", "prefix", "ap", false),
            ("region", "regex", "^us-.*-[0-9]$", true),
            ("region", "regex", "^$", false),
            ("region", "present", "true", true),
            ("region", "present", "false", false),
            ("other", "present", "true", false),
            ("other", "present", "false", true),
            ("other", "exact", "", false),
        ];
        check(&cases, |m, f| m.headers.push(f), |name| Miss::Header(name));
    }

    #[test]
    fn of_several_cookies_the_first_counts() {
        let cases = [
            ("user", "exact", "ann", true),
            ("user", "exact", "bob", false),
            ("user", "exact", "eve", false),
            ("user", "prefix", "an", true),
            ("user", "regex", "^a", true),
            ("User", "present", "true", false),
            ("seen", "exact", "", true),
            ("seen", "present", "true", true),
            ("seen", "present", "false", false),
            ("none", "present", "false", true),
            ("none", "regex", "", false),
        ];
        check(&cases, |m, f| m.cookies.push(f), |name| Miss::Cookie(name));
    }

    #[test]
    fn of_several_query_parameters_the_first_counts_decoded() {
        let cases = [
            ("beta", "exact", "1+1", true),
            ("beta", "exact", "1%2B1", false),
            ("beta", "exact", "2", false),
            ("beta", "prefix", "1+", true),
            ("beta", "prefix", "1+11", false),
            ("beta", "regex", r"^1\+1$", true),
            ("empty", "exact", "", true),
            ("empty", "present", "true", true),
            ("empty", "present", "false", false),
            ("bar", "exact", "a b", true),
            ("none", "present", "false", true),
            ("none", "prefix", "", false),
        ];
        check(&cases, |m, f| m.query.push(f), |name| Miss::Query(name));
    }

    #[test]
    fn methods_are_compared_with_case_and_no_method_means_any() {
        let none: Vec<(&str, &str)> = Vec::new();
        let mut matcher = any();
        assert!(matcher.takes(&subject(&none)));
        matcher.methods = vec!["POST".into(), "get".into()];
        assert_eq!(matcher.miss(&subject(&none)), Some(Miss::Method));
        matcher.methods.push("GET".into());
        assert_eq!(matcher.miss(&subject(&none)), None);
    }

    #[test]
    fn a_request_without_query_has_no_parameters() {
        let none: Vec<(&str, &str)> = Vec::new();
        let mut matcher = any();
        matcher.query.push(FieldMatch { name: "a".into(), value: ValueMatch::Present(false) });
        assert!(matcher.takes(&Subject { query: None, ..subject(&none) }));
        assert!(!matcher.takes(&Subject { query: Some(b"a"), ..subject(&none) }));
    }

    #[test]
    fn header_values_are_not_shown_by_debug() {
        assert!(!format!("{:?}", subject(&FIELDS)).contains("ann"));
    }
}
