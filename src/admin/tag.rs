//! Entity tags (RFC 9110 section 8.8.3): which generation an answer is true of, which revision of the service it is about, and the event it
//! follows.
//!
//! `"12"` is generation 12; `"12-7"` the same with revision 7 of a service: a pause is recorded, but nothing is published for it. `"12-7.345"`
//! is the same after event 345, so that a reader who has seen it misses none of them. What moves by itself (uptime, requests in flight, the
//! latency of the last probe) is not in the tag.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::Problem;
use crate::control::answer::Mark;
use crate::control::handle::ControlHandle;

/// Most tags of one condition that are looked at.
const TAGS_MAX: usize = 32;

/// What an answer is true of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    mark: Mark,
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
    /// This.
    Mark(Mark),
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
        Self { mark: Mark { generation, revision: None }, event: None }
    }

    /// What is true of a service at `revision`.
    pub(super) const fn at(generation: u64, revision: u64) -> Self {
        Self { mark: Mark { generation, revision: Some(revision) }, event: None }
    }

    /// What is true now. To be taken before what is answered is read: what happens in between makes the tag old, not wrong.
    pub(super) fn now(control: &ControlHandle) -> Self {
        // The event first, for the same reason.
        let event = *control.newest_event().borrow();
        Self { mark: Mark { generation: control.generation(), revision: None }, event: Some(event) }
    }

    /// What is true of `service` now.
    ///
    /// # Errors
    /// There is no such service.
    pub(super) fn of_service(control: &ControlHandle, service: &str) -> Result<Self, Problem> {
        let event = *control.newest_event().borrow();
        Ok(Self { mark: control.mark(service)?, event: Some(event) })
    }

    /// As `ETag` has it.
    pub(super) fn text(self) -> String {
        let revision = self.mark.revision.map(|revision| format!("-{revision}")).unwrap_or_default();
        let event = self.event.map(|event| format!(".{event}")).unwrap_or_default();
        format!("\"{}{revision}{event}\"", self.mark.generation)
    }

    fn put(self, response: &mut Response) {
        // Digits, a hyphen, a dot and quotes.
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
    /// The answer with `tag`: that the client has it, else what `read` makes.
    ///
    /// # Errors
    /// As `read` says.
    pub(super) fn answer<T: Serialize>(
        &self,
        tag: Tag,
        read: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<Response, Problem> {
        if self.has(tag) { Ok(tag.not_modified()) } else { Ok(Tagged(tag, read()?).into_response()) }
    }

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
    /// What has to be in force, if it has to be something certain.
    ///
    /// # Errors
    /// Nothing ever fits.
    pub(super) fn mark(self) -> Result<Option<Mark>, Problem> {
        match self {
            Self::Any => Ok(None),
            Self::Mark(mark) => Ok(Some(mark)),
            Self::Nothing => Err(Problem::stale(
                "the If-Match header has no entity tag of this API, which is a generation such as \"12\" or \"12.345\", or with the \
                 revision of a service \"12-7.345\", as ETag gives it",
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
            [tag] => Ok(mark(tag).map_or(Self::Nothing, Self::Mark)),
            _ => Err(Problem::bad_request("If-Match: one entity tag, or *")),
        }
    }
}

/// What a strong tag of ours stands for.
fn mark(tag: &str) -> Option<Mark> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (inner, event) = inner.split_once('.').map_or((inner, None), |(inner, event)| (inner, Some(event)));
    if let Some(event) = event {
        number(event)?;
    }
    Some(match inner.split_once('-') {
        Some((generation, revision)) => Mark { generation: number(generation)?, revision: Some(number(revision)?) },
        None => Mark { generation: number(inner)?, revision: None },
    })
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

/// Digits and nothing else: what `parse` takes beyond them is no number of ours.
pub(super) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
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
    async fn a_condition_is_a_generation_with_or_without_a_revision_and_the_event_after_it() {
        let mark = |generation, revision| Some(Expected::Mark(Mark { generation, revision }));
        assert_eq!(expected(&[]).await, Some(Expected::Any));
        assert_eq!(expected(&["*"]).await, Some(Expected::Any));
        assert_eq!(expected(&["\"12\""]).await, mark(12, None));
        assert_eq!(expected(&[" \"12.345\" "]).await, mark(12, None));
        assert_eq!(expected(&["\"12-7\""]).await, mark(12, Some(7)));
        assert_eq!(expected(&["\"12-7.345\""]).await, mark(12, Some(7)));
        for never in [
            "12",
            "W/\"12\"",
            "\"\"",
            "\"12.\"",
            "\".3\"",
            "\"+1\"",
            "\"abc\"",
            "\"99999999999999999999\"",
            "\"12-\"",
            "\"-7\"",
            "\"12-7-7\"",
            "\"12.345-7\"",
            "\"12-+7\"",
        ] {
            assert_eq!(expected(&[never]).await, Some(Expected::Nothing), "{never}");
        }
        for bad in [&["\"1\", \"2\""][..], &["\"1\"", "\"2\""], &[""], &["*, \"1\""]] {
            assert_eq!(expected(bad).await, None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_the_client_has_is_compared_weakly() {
        let tag = Tag { event: Some(345), ..Tag::of(12) };
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
        let texts = [Tag::of(12), Tag::at(12, 7), Tag { event: Some(345), ..Tag::at(12, 7) }].map(Tag::text);
        assert_eq!(texts, ["\"12\"", "\"12-7\"", "\"12-7.345\""]);
        let many = vec!["\"1\""; TAGS_MAX + 1];
        assert!(Seen::from_request_parts(&mut parts(&IF_NONE_MATCH, &many), &()).await.is_err());
    }
}
