//! Entity tags (RFC 9110 section 8.8.3): which generation an answer is true of, and the event it follows.
//!
//! `"12"` is generation 12; `"12.345"` is the same after event 345, so that a reader who has seen it misses neither. What moves by itself
//! (uptime, requests in flight, the latency of the last probe) is not in the tag.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;

/// Most tags of one condition that are looked at.
const TAGS_MAX: usize = 32;

/// What an answer is true of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    generation: u64,
    /// The newest event before it.
    event: Option<u64>,
}

/// A body with what it is true of.
pub(super) struct Tagged<T>(pub(super) Tag, pub(super) T);

/// What the client has (`If-None-Match`).
#[derive(Debug)]
pub(super) struct Seen(Vec<String>);

/// What the client expects to be in force (`If-Match`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Whatever is.
    Any,
    /// This generation.
    Generation(u64),
    /// Something that never is.
    Nothing,
}

/// No `If-Match`: this command cannot promise to heed it.
#[derive(Debug)]
pub(super) struct Unconditional;

// === impl Tag ===

impl Tag {
    /// What is true of `generation`.
    pub(super) const fn of(generation: u64) -> Self {
        Self { generation, event: None }
    }

    /// What is true of `generation` after `event`.
    pub(super) const fn after(generation: u64, event: u64) -> Self {
        Self { generation, event: Some(event) }
    }

    /// As `ETag` has it.
    pub(super) fn text(self) -> String {
        match self.event {
            Some(event) => format!("\"{}.{event}\"", self.generation),
            None => format!("\"{}\"", self.generation),
        }
    }

    fn put(self, response: &mut Response) {
        // Digits, a dot and quotes.
        if let Ok(value) = HeaderValue::from_str(&self.text()) {
            response.headers_mut().insert(ETAG, value);
        }
    }

    /// 304: what the client has is still so.
    pub(super) fn not_modified(self) -> Response {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        self.put(&mut response);
        response
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.1).into_response();
        self.0.put(&mut response);
        response
    }
}

// === impl Seen ===

impl Seen {
    /// Whether the client has what `tag` stands for (weak comparison, RFC 9110 section 8.8.3.2).
    pub(super) fn has(&self, tag: Tag) -> bool {
        let text = tag.text();
        self.0.iter().any(|seen| seen == "*" || seen.strip_prefix("W/").unwrap_or(seen) == text)
    }
}

impl<S: Sync> FromRequestParts<S> for Seen {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        tags(&parts.headers, &IF_NONE_MATCH).map(|tags| Self(tags.unwrap_or_default()))
    }
}

// === impl Expected ===

impl Expected {
    /// The generation that has to be in force, if there has to be a certain one.
    ///
    /// # Errors
    /// None ever fits.
    pub(super) fn generation(self) -> Result<Option<u64>, Problem> {
        match self {
            Self::Any => Ok(None),
            Self::Generation(generation) => Ok(Some(generation)),
            Self::Nothing => Err(Problem::stale(
                "the If-Match header has no entity tag of this API, which is a generation such as \"12\" or \"12.345\", as ETag gives it",
            )),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(tags) = tags(&parts.headers, &IF_MATCH)? else { return Ok(Self::Any) };
        match tags.as_slice() {
            [any] if any == "*" => Ok(Self::Any),
            [tag] => Ok(generation(tag).map_or(Self::Nothing, Self::Generation)),
            _ => Err(Problem::bad_request("If-Match: one entity tag, or *")),
        }
    }
}

/// The generation of a strong tag of ours.
fn generation(tag: &str) -> Option<u64> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (generation, event) = inner.split_once('.').map_or((inner, None), |(g, e)| (g, Some(e)));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    event.is_none_or(|event| number(event).is_some()).then(|| number(generation)).flatten()
}

impl<S: Sync> FromRequestParts<S> for Unconditional {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.headers.contains_key(IF_MATCH) {
            return Err(Problem::bad_request("If-Match is not supported here; leave it out"));
        }
        Ok(Self)
    }
}

/// The entity tags of a condition; `None` without one.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Vec<String>>, Problem> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| Problem::bad_request(format!("{name}: bytes outside ASCII")))?;
        // Tags of ours hold no comma; others never fit anyway.
        tags.extend(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned));
    }
    if tags.len() > TAGS_MAX {
        return Err(Problem::bad_request(format!("{name}: at most {TAGS_MAX} entity tags")));
    }
    Ok(headers.contains_key(name).then_some(tags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn parts(name: &HeaderName, values: &[&str]) -> Parts {
        let mut request = Request::new(());
        for value in values {
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
        }
        request.into_parts().0
    }

    async fn expected(values: &[&str]) -> Option<Expected> {
        Expected::from_request_parts(&mut parts(&IF_MATCH, values), &()).await.ok()
    }

    #[tokio::test]
    async fn a_condition_is_a_generation_with_or_without_the_event_after_it() {
        assert_eq!(expected(&[]).await, Some(Expected::Any));
        assert_eq!(expected(&["*"]).await, Some(Expected::Any));
        assert_eq!(expected(&["\"12\""]).await, Some(Expected::Generation(12)));
        assert_eq!(expected(&[" \"12.345\" "]).await, Some(Expected::Generation(12)));
        for never in ["12", "W/\"12\"", "\"\"", "\"12.\"", "\".3\"", "\"+1\"", "\"abc\"", "\"99999999999999999999\""] {
            assert_eq!(expected(&[never]).await, Some(Expected::Nothing), "{never}");
        }
        for bad in [&["\"1\", \"2\""][..], &["\"1\"", "\"2\""], &[""], &["*, \"1\""]] {
            assert_eq!(expected(bad).await, None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_the_client_has_is_compared_weakly() {
        let tag = Tag::after(12, 345);
        for (values, has) in [
            (&[][..], false),
            (&["\"12.345\""][..], true),
            (&["W/\"12.345\""], true),
            (&["\"1\", \"12.345\""], true),
            (&["\"1\"", "\"12.345\""], true),
            (&["*"], true),
            (&["\"12\""], false),
            (&["\"12.344\""], false),
            (&["12.345"], false),
        ] {
            let seen = Seen::from_request_parts(&mut parts(&IF_NONE_MATCH, values), &()).await.expect("tags");
            assert_eq!(seen.has(tag), has, "{values:?}");
        }
        let many = vec!["\"1\""; TAGS_MAX + 1];
        assert!(Seen::from_request_parts(&mut parts(&IF_NONE_MATCH, &many), &()).await.is_err());
    }
}
