//! `GET /v1/events`: every event of the journal as it happens, as server-sent events (WHATWG HTML section 9.2), to be taken up again where
//! one stopped.
//!
//! A reader has a queue of its own and a time to take the next event; one that is too slow gets a last event and its connection back. Events the
//! journal does not keep any more are told of, never skipped in silence.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::AdminState;
use super::auth::Caller;
use super::guard::one;
use super::problem::Problem;
use super::seats::{Full, Seat, Seats};
use super::serve::Connection;
use super::tag::number;
use crate::control::journal::Event;

/// Most readers at the same time; more are refused.
pub const SUBSCRIBERS_MAX: usize = 16;
/// Most of them with one token, and most of them without any.
pub const SUBSCRIBERS_PER_CALLER_MAX: usize = 8;
/// Events waiting for one reader, beside the last one.
const QUEUE_MAX: usize = 64;
/// Events taken from the journal at once.
const PAGE_MAX: usize = 64;
/// When a reader is to come again after its connection broke, in milliseconds.
const RETRY_MS: u64 = 1_000;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// Places for readers.
#[derive(Clone, Debug)]
pub struct Subscribers(Seats<String>);

/// Where a reader takes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With the next event.
    Next,
    /// After this one, of this numbering if that is known.
    After { epoch: Option<u64>, seq: u64 },
}

/// Events are missing here.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Gap {
    /// The first event that is missing; absent if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    /// The next event there is; absent if there is none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// Why.
    detail: &'static str,
}

/// Nothing comes after this.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct End {
    /// `slow`, `stopping` or `unauthorized`.
    reason: &'static str,
    /// The newest event that was sent; take up after it.
    last: u64,
    /// Why, and what to do.
    detail: &'static str,
}

/// What goes to one reader.
struct Feed {
    state: AdminState,
    connection: Connection,
    caller: Caller,
    epoch: u64,
    /// The newest event sent, or the one to begin after.
    seq: u64,
    sender: mpsc::Sender<Bytes>,
    _seat: Seat<String>,
}

/// Why a feed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Nobody reads.
    Left,
    Slow,
    Stopping,
    Unauthorized,
}

/// A body that ends with its feed.
struct Events(mpsc::Receiver<Bytes>);

/// Every event as it happens
///
/// Server-sent events: unnamed ones are events of the journal, with `EPOCH-SEQ` as their id; `gap` says that events are missing, `end` that
/// nothing more comes and why. Without `after` and `Last-Event-ID` it begins with the next event; `after=0` begins with the oldest kept.
#[utoipa::path(get, path = "/v1/events", tag = "read",
    params(("after" = Option<String>, Query, description = "Take up after this event: its number, or its id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as browsers send it; wins over `after`")),
    responses((status = 200, description = "The stream; each unnamed event holds one of these", body = Event, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(state): State<AdminState>,
    Extension(connection): Extension<Connection>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let place = place(one(&headers, &LAST_EVENT_ID)?, &pairs)?;
    let seat = state.subscribers.0.take(caller.scope().to_owned())?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX + 1);
    let (epoch, newest) = (state.control.event_epoch(), *state.control.newest_event().borrow());
    let feed = Feed { state, connection, caller, epoch, seq: newest, sender, _seat: seat };
    tokio::spawn(feed.run(place));
    let mut response = Body::new(Events(receiver)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
    Ok(response)
}

fn place(last_event_id: Option<&str>, pairs: &[(String, String)]) -> Result<Place, Problem> {
    let mut after = None;
    for (key, value) in pairs {
        if key != "after" {
            return Err(Problem::invalid(format!("there is no parameter {key:?}; allowed is: after")));
        }
        if after.replace(value.as_str()).is_some() {
            return Err(Problem::invalid("after is given twice"));
        }
    }
    // A browser that comes again repeats its first request and adds how far it came.
    let Some(text) = last_event_id.filter(|id| !id.is_empty()).or(after) else { return Ok(Place::Next) };
    let bad =
        || Problem::invalid(format!("after, Last-Event-ID: {text:?} is neither the number of an event nor its id"));
    let (epoch, seq) = match text.split_once('-') {
        Some((epoch, seq)) => (Some(number(epoch).ok_or_else(bad)?), seq),
        None => (None, text),
    };
    Ok(Place::After { epoch, seq: number(seq).ok_or_else(bad)? })
}

/// An event of the stream.
fn lines(name: Option<&str>, id: Option<String>, data: &impl Serialize) -> Bytes {
    // JSON of ours is one line; what cannot be written as JSON does not occur in these types.
    let data = serde_json::to_string(data).unwrap_or_default();
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    Bytes::from(format!("{id}{name}data: {data}\n\n"))
}

/// Returns once `told` is true, or nobody tells any more.
async fn is_true(told: &mut watch::Receiver<bool>) {
    let _ = told.wait_for(|value| *value).await;
}

/// Returns once there is an event after `seq`; never if there will be none.
async fn exceeds(newest: &mut watch::Receiver<u64>, seq: u64) {
    if newest.wait_for(|newest| *newest > seq).await.is_err() {
        std::future::pending::<()>().await;
    }
}

// === impl Feed ===

impl Feed {
    async fn run(mut self, place: Place) {
        let _endless = self.connection.endless();
        // Kept free for the last event, however full the queue is.
        let Ok(last) = self.sender.clone().reserve_owned().await else { return };
        let Err(ended) = self.send_all(place).await;
        if let Some(end) = ended.said(self.seq) {
            last.send(lines(Some("end"), None, &end));
        }
    }

    /// Sends until there is a reason to end.
    async fn send_all(&mut self, place: Place) -> Result<Infallible, Ended> {
        let mut newest = self.state.control.newest_event();
        let mut stopping = self.connection.stopping();
        self.send(Bytes::from(format!("retry: {RETRY_MS}\n\n"))).await?;
        self.begin(place).await?;
        loop {
            while self.send_page().await? {}
            tokio::select! {
                () = is_true(&mut stopping) => return Err(Ended::Stopping),
                () = self.sender.closed() => return Err(Ended::Left),
                told = timeout(self.state.bounds.heartbeat, exceeds(&mut newest, self.seq)) => match told {
                    Ok(()) => {}
                    Err(_) => self.send(HEARTBEAT).await?,
                },
            }
        }
    }

    /// Finds the place to begin after, and tells if what was asked for is not there any more.
    async fn begin(&mut self, place: Place) -> Result<(), Ended> {
        let Place::After { epoch, seq } = place else { return Ok(()) };
        if epoch.is_none_or(|epoch| epoch == self.epoch) && seq <= self.seq {
            self.seq = seq;
            return Ok(());
        }
        self.seq = 0;
        let detail = "this process numbers its events anew: those before its start are gone";
        self.send(lines(Some("gap"), None, &Gap { from: None, to: Some(1), detail })).await
    }

    /// Sends what there is, at most a page; whether there may be more.
    async fn send_page(&mut self) -> Result<bool, Ended> {
        self.check()?;
        let page = self.state.control.events_after(self.seq, PAGE_MAX);
        if page.lost_from.is_some() {
            let detail = "these events are not kept any more";
            let gap = Gap { from: page.lost_from, to: page.events.first().map(|event| event.seq), detail };
            self.send(lines(Some("gap"), None, &gap)).await?;
        }
        for event in &page.events {
            self.send(lines(None, Some(format!("{}-{}", self.epoch, event.seq)), event)).await?;
            self.seq = event.seq;
        }
        Ok(page.events.len() == PAGE_MAX)
    }

    /// Tokens change while streams go on.
    fn check(&self) -> Result<(), Ended> {
        let settings = self.state.control.settings();
        if self.caller.is_still_known(&settings.admin, self.connection.reach()) {
            Ok(())
        } else {
            Err(Ended::Unauthorized)
        }
    }

    async fn send(&mut self, lines: Bytes) -> Result<(), Ended> {
        let mut stopping = self.connection.stopping();
        tokio::select! {
            sent = timeout(self.state.bounds.reader, self.sender.send(lines)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(Ended::Left),
                Err(_) => Err(Ended::Slow),
            },
            () = is_true(&mut stopping) => Err(Ended::Stopping),
        }
    }
}

// === impl Ended ===

impl Ended {
    /// What is said about it after the event `last`, if anyone is there to hear it.
    fn said(self, last: u64) -> Option<End> {
        let (reason, detail) = match self {
            Self::Left => return None,
            Self::Slow => ("slow", "this reader did not take the next event in time; take up after the last one"),
            Self::Stopping => ("stopping", "the process stops"),
            Self::Unauthorized => ("unauthorized", "what let this reader in is not in the configuration any more"),
        };
        Some(End { reason, last, detail })
    }
}

// === impl Events ===

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        match full {
            Full::InAll => Self::busy(format!("at most {SUBSCRIBERS_MAX} read events at the same time")),
            Full::ForOne => {
                let all = SUBSCRIBERS_PER_CALLER_MAX;
                Self::too_many(format!("at most {all} read events at the same time with one token, or without any"))
            }
        }
    }
}

// === impl Subscribers ===

impl Default for Subscribers {
    fn default() -> Self {
        Self(Seats::new(SUBSCRIBERS_MAX, SUBSCRIBERS_PER_CALLER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Option<Place> {
        place(None, &[("after".to_owned(), text.to_owned())]).ok()
    }

    #[test]
    fn a_place_is_the_number_of_an_event_or_its_id() {
        assert_eq!(place(None, &[]).ok(), Some(Place::Next));
        assert_eq!(after("7"), Some(Place::After { epoch: None, seq: 7 }));
        assert_eq!(after("170-7"), Some(Place::After { epoch: Some(170), seq: 7 }));
        let query = [("after".to_owned(), "0".to_owned())];
        assert_eq!(place(Some("170-9"), &query).ok(), Some(Place::After { epoch: Some(170), seq: 9 }));
        assert_eq!(place(Some(""), &query).ok(), Some(Place::After { epoch: None, seq: 0 }));
        for bad in ["", "x", "-1", "+1", "1-", "-", "1-2-3", "99999999999999999999"] {
            assert_eq!(after(bad), None, "{bad:?}");
        }
        assert!(place(None, &[("befor".to_owned(), "1".to_owned())]).is_err());
        assert!(place(None, &[query[0].clone(), query[0].clone()]).is_err());
    }

    #[test]
    fn an_event_of_the_stream_has_one_line_of_data() {
        let gap = Gap { from: Some(1), to: None, detail: "a\nb" };
        let text = lines(Some("gap"), Some("1-2".to_owned()), &gap);
        assert_eq!(text, "id: 1-2\nevent: gap\ndata: {\"from\":1,\"detail\":\"a\\nb\"}\n\n");
    }
}
