//! Commands that are sent again with the same `Idempotency-Key` are carried out once: the repetition gets the answer of the first.
//!
//! A key belongs to whoever sent it (a token, or all who have none) and to one request: method, path, condition and body. A command goes on
//! when its client goes away, so that the repetition finds what became of it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use ring::digest::{Context, SHA256};

use super::auth::Caller;
use super::guard::one;
use super::kept::{Marker, service_of};
use super::problem::Problem;
use crate::clock;

/// Keys kept; the oldest whose command is over gives way.
pub const KEYS_MAX: usize = 1_024;
/// How long a key is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 128;
/// Largest answer that is kept, in bytes; a larger one is given once.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is not the first of its kind.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A key and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The token it came with, as events call it; empty without.
    pub caller: String,
    /// As it was sent.
    pub key: String,
}

/// What tells one request from others (SHA-256).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// An answer to give again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Content-Type`, if it had one.
    pub content_type: Option<String>,
    /// `ETag`, if it had one.
    pub etag: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the command is to be carried out, and then [`Answers::finish`]ed or [`Answers::forget`]ten.
    New,
    /// The answer.
    Known(Answer),
    /// It is being carried out.
    UnderWay,
    /// It belongs to another request.
    Other,
    /// As many commands with keys are under way as there may be.
    Full,
}

/// Remembers what was answered.
pub trait Answers: Send + Sync {
    /// Takes `key` for `request`, if it is free; `now` is the time since 1970, so that keys can outlive the process.
    fn begin(&self, key: &Key, request: Fingerprint, now: Duration) -> Begun;
    /// Whether keys outlive the process: then a [`Marker`] lands with the effect of a command.
    fn lasts(&self) -> bool;
    /// Keeps the answer of the command `key` was taken for, beyond the process if there is a `marker`; done at once, but for the disk.
    fn finish<'a>(
        &'a self,
        key: &'a Key,
        answer: Answer,
        marker: Option<&'a Marker>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
    /// Lets `key` go, as if its command had never been sent.
    fn forget(&self, key: &Key);
}

/// Remembers in memory, until the process ends.
#[derive(Debug, Default)]
pub struct Table(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<Key, Entry>,
    /// The keys of `entries`, the oldest first.
    order: VecDeque<Key>,
}

#[derive(Debug)]
struct Entry {
    request: Fingerprint,
    began: Duration,
    answer: Option<Answer>,
    /// Its command is over.
    over: bool,
    /// The store has it, or is about to.
    stored: bool,
}

/// Lets a key go unless the command came to its end.
struct Undo {
    answers: Arc<dyn Answers>,
    key: Option<Key>,
}

/// Carries out what follows once per key.
pub(super) async fn once(State(answers): State<Arc<dyn Answers>>, request: Request, next: Next) -> Response {
    let (request, key, fingerprint) = match taken_apart(request).await {
        Ok((request, Some((key, fingerprint)))) => (request, key, fingerprint),
        Ok((request, None)) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    let now = clock::unix_time();
    match answers.begin(&key, fingerprint, now) {
        Begun::New => {}
        Begun::Known(answer) => return answer.into_response(),
        Begun::UnderWay => {
            return Problem::under_way("the first request with this Idempotency-Key is still being carried out")
                .into_response();
        }
        Begun::Other => {
            let detail =
                "this Idempotency-Key was used for another request (method, path, If-Match or body); take a new one";
            return Problem::invalid(detail).into_response();
        }
        Begun::Full => return Problem::busy("too many commands with an Idempotency-Key are under way").into_response(),
    }
    let (request, marker) = marked(request, answers.as_ref(), &key, fingerprint, now);
    let mut undo = Undo { answers, key: Some(key) };
    // A task of its own: the command goes on when its client goes away, and its answer is there for the repetition.
    let carried_out = tokio::spawn(async move {
        let (response, answer) = kept(next.run(request).await).await;
        if let (Some(answer), Some(key)) = (answer, undo.key.take()) {
            undo.answers.finish(&key, answer, marker.as_ref()).await;
        }
        response
    });
    carried_out
        .await
        .unwrap_or_else(|_| Problem::internal("the command ended unexpectedly; see the log").into_response())
}

/// The request, and what lands with its effect: whoever carries it out has it from the caller.
fn marked(
    mut request: Request,
    answers: &dyn Answers,
    key: &Key,
    fingerprint: Fingerprint,
    now: Duration,
) -> (Request, Option<Marker>) {
    let service = service_of(request.uri().path()).filter(|_| answers.lasts());
    let Some(service) = service.map(str::to_owned) else { return (request, None) };
    let marker = Marker { key: key.clone(), request: fingerprint, began: now, service };
    if let Some(caller) = request.extensions_mut().get_mut::<Caller>() {
        caller.lands_with(marker.landing());
    }
    (request, Some(marker))
}

type TakenApart = (Request, Option<(Key, Fingerprint)>);

async fn taken_apart(request: Request) -> Result<TakenApart, Problem> {
    let Some(key) = key(request.headers())? else { return Ok((request, None)) };
    let caller = request.extensions().get::<Caller>().map(|caller| caller.scope().to_owned()).unwrap_or_default();
    let (parts, body) = request.into_parts();
    // It is whole and within its limit already.
    let body = body.collect().await.map_err(|_| Problem::bad_request("the body broke off"))?.to_bytes();
    let mut context = Context::new(&SHA256);
    let condition = parts.headers.get(IF_MATCH).map(HeaderValue::as_bytes).unwrap_or_default();
    for part in [parts.method.as_str().as_bytes(), parts.uri.path().as_bytes(), condition, &body] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(context.finish().as_ref());
    let request = Request::from_parts(parts, Body::from(body));
    Ok((request, Some((Key { caller, key }, Fingerprint(fingerprint)))))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = one(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let allowed = format!("Idempotency-Key: 1 to {KEY_BYTES_MAX} visible ASCII characters, such as a UUID");
        return Err(Problem::bad_request(allowed));
    }
    Ok(Some(key.to_owned()))
}

/// The response, and what of it is worth keeping: an answer of the command itself that fits.
async fn kept(response: Response) -> (Response, Option<Answer>) {
    let fits = response.body().size_hint().upper().is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX as u64);
    if response.status().is_server_error() || !fits {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return (Problem::internal("the answer broke off").into_response(), None);
    };
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, etag) = (text(CONTENT_TYPE), text(ETAG));
    let answer = Answer { status: parts.status.as_u16(), content_type, etag, body: body.clone() };
    (Response::from_parts(parts, Body::from(body)), Some(answer))
}

// === impl Answer ===

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Body::from(self.body).into_response();
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        for (name, text) in [(CONTENT_TYPE, self.content_type), (ETAG, self.etag)] {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
                headers.insert(name, value);
            }
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

// === impl Undo ===

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.answers.forget(&key);
        }
    }
}

// === impl Table ===

impl Table {
    /// As [`Answers::begin`]; `let_go` is told of every other key that gives way, and whether it is stored.
    pub(super) fn begin_with(
        &self,
        key: &Key,
        request: Fingerprint,
        now: Duration,
        let_go: &mut dyn FnMut(&Key, bool),
    ) -> Begun {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.expire(now, let_go);
        match inner.entries.get(key) {
            Some(entry) if entry.request != request => return Begun::Other,
            Some(Entry { answer: Some(answer), .. }) => return Begun::Known(answer.clone()),
            Some(_) => return Begun::UnderWay,
            None => {}
        }
        if inner.entries.len() >= KEYS_MAX && !inner.make_room(let_go) {
            return Begun::Full;
        }
        inner.entries.insert(key.clone(), Entry { request, began: now, answer: None, over: false, stored: false });
        inner.order.push_back(key.clone());
        Begun::New
    }

    /// Keeps the answer of the command `key` was taken for, which is or will be `stored`, or not.
    pub(super) fn answer(&self, key: &Key, answer: Answer, stored: bool) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.entries.get_mut(key) {
            (entry.answer, entry.over, entry.stored) = (Some(answer), true, stored);
        }
    }

    /// Counts the command `key` was taken for, which is stored, as over, though nobody knows its answer: it gives way like others.
    pub(super) fn close(&self, key: &Key) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.entries.get_mut(key) {
            (entry.over, entry.stored) = (true, true);
        }
    }
}

impl Answers for Table {
    fn begin(&self, key: &Key, request: Fingerprint, now: Duration) -> Begun {
        self.begin_with(key, request, now, &mut |_, _| {})
    }

    fn lasts(&self) -> bool {
        false
    }

    fn finish<'a>(
        &'a self,
        key: &'a Key,
        answer: Answer,
        _: Option<&'a Marker>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.answer(key, answer, false);
        Box::pin(std::future::ready(()))
    }

    fn forget(&self, key: &Key) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.remove(|other| other == key);
    }
}

impl Inner {
    fn expire(&mut self, now: Duration, let_go: &mut dyn FnMut(&Key, bool)) {
        let is_old = |entry: &Entry| now.saturating_sub(entry.began) >= KEPT_FOR;
        while self.order.front().is_some_and(|key| self.entries.get(key).is_none_or(is_old)) {
            if let Some(key) = self.order.pop_front() {
                let stored = self.entries.remove(&key).is_some_and(|entry| entry.stored);
                let_go(&key, stored);
            }
        }
    }

    /// Lets the oldest key go whose command is over.
    fn make_room(&mut self, let_go: &mut dyn FnMut(&Key, bool)) -> bool {
        let over = self.order.iter().find(|key| self.entries.get(*key).is_some_and(|entry| entry.over));
        match over.cloned() {
            Some(over) => {
                let_go(&over, self.entries.get(&over).is_some_and(|entry| entry.stored));
                self.remove(|key| *key == over)
            }
            None => false,
        }
    }

    fn remove(&mut self, is_meant: impl Fn(&Key) -> bool) -> bool {
        let place = self.order.iter().position(is_meant);
        let key = place.and_then(|place| self.order.remove(place));
        key.is_some_and(|key| self.entries.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { caller: "token ci".to_owned(), key: name.to_owned() }
    }

    fn request(n: u8) -> Fingerprint {
        Fingerprint([n; 32])
    }

    fn answer(status: u16) -> Answer {
        Answer { status, content_type: None, etag: None, body: Bytes::from_static(b"{}") }
    }

    #[test]
    fn a_key_is_for_one_request_of_one_caller() {
        let (table, now) = (Table::default(), clock::unix_time());
        assert_eq!(table.begin(&key("a"), request(1), now), Begun::New);
        assert_eq!(table.begin(&key("a"), request(1), now), Begun::UnderWay);
        assert_eq!(table.begin(&key("a"), request(2), now), Begun::Other);
        table.answer(&key("a"), answer(200), false);
        assert_eq!(table.begin(&key("a"), request(1), now), Begun::Known(answer(200)));
        assert_eq!(table.begin(&key("a"), request(2), now), Begun::Other);
        let other = Key { caller: String::new(), ..key("a") };
        assert_eq!(table.begin(&other, request(2), now), Begun::New);
        table.forget(&other);
        assert_eq!(table.begin(&other, request(3), now), Begun::New);
    }

    #[test]
    fn keys_are_kept_for_a_day() {
        let (table, now) = (Table::default(), clock::unix_time());
        table.begin(&key("a"), request(1), now);
        table.answer(&key("a"), answer(200), false);
        let almost = now + KEPT_FOR.saturating_sub(Duration::from_secs(1));
        assert_eq!(table.begin(&key("a"), request(1), almost), Begun::Known(answer(200)));
        assert_eq!(table.begin(&key("a"), request(1), now + KEPT_FOR), Begun::New);
    }

    #[test]
    fn a_full_table_lets_the_oldest_answer_go_but_no_command_under_way() {
        let (table, now) = (Table::default(), clock::unix_time());
        for n in 0..KEYS_MAX {
            assert_eq!(table.begin(&key(&n.to_string()), request(1), now), Begun::New);
        }
        assert_eq!(table.begin(&key("more"), request(1), now), Begun::Full);
        table.answer(&key("5"), answer(200), false);
        table.answer(&key("3"), answer(201), false);
        assert_eq!(table.begin(&key("more"), request(1), now), Begun::New);
        assert_eq!(table.begin(&key("5"), request(1), now), Begun::Known(answer(200)));
        assert_eq!(table.begin(&key("0"), request(1), now), Begun::UnderWay);
        let inner = table.0.lock().expect("lock");
        assert_eq!((inner.entries.len(), inner.order.len()), (KEYS_MAX, KEYS_MAX));
    }
}
