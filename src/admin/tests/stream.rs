//! `GET /v1/events`: what its readers get, and what becomes of those who do not read.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Api, Bounds, start, start_with, token};
use crate::admin::events::{SUBSCRIBERS_MAX, SUBSCRIBERS_PER_CALLER_MAX};
use crate::control::fake;
use crate::control::journal::EVENTS_MAX;
use crate::core::weight::Weight;

/// A reader of events.
struct Reader {
    stream: TcpStream,
    text: String,
}

/// One event as it came.
#[derive(Debug, Default)]
struct Told {
    id: String,
    name: String,
    data: Value,
}

impl Reader {
    /// Asks, and reads on to the first event.
    async fn open(api: &Api, query: &str, more: &str) -> Self {
        let mut stream = api.connect().await;
        let head = format!("GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut reader = Self { stream, text: String::new() };
        let head = reader.upto("\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
        assert!(reader.upto("\n\n").await.ends_with("retry: 1000\n\n"), "so that the reader knows it is there");
        reader
    }

    /// The text up to and with `end`.
    async fn upto(&mut self, end: &str) -> String {
        let read = async {
            loop {
                if let Some(at) = self.text.find(end) {
                    let rest = self.text.split_off(at + end.len());
                    return std::mem::replace(&mut self.text, rest);
                }
                let mut bytes = Vec::new();
                assert_ne!(self.stream.read_buf(&mut bytes).await.expect("reads"), 0, "ended: {:?}", self.text);
                self.text.push_str(std::str::from_utf8(&bytes).expect("ASCII"));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time")
    }

    /// The next event; sizes of chunks and comments are left out.
    async fn next(&mut self) -> Told {
        tokio::time::timeout(Duration::from_secs(10), self.told()).await.expect("in time")
    }

    async fn told(&mut self) -> Told {
        loop {
            let text = self.upto("\n\n").await;
            let mut told = Told::default();
            for line in text.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut told.id),
                    Some(("event", name)) => name.clone_into(&mut told.name),
                    Some(("data", data)) => told.data = serde_json::from_str(data).expect("JSON"),
                    _ => {}
                }
            }
            if !told.data.is_null() {
                return told;
            }
        }
    }

    /// Whether the response is over.
    async fn is_over(&mut self) -> bool {
        self.upto("\r\n0\r\n\r\n").await.ends_with("\r\n0\r\n\r\n")
    }
}

async fn weight(api: &Api, grains: u16) {
    let weight = Weight::from_grains(grains).expect("a weight");
    api.bench.handle.set_weight("web", weight, "test", None).await.expect("set");
}

#[tokio::test]
async fn every_event_is_told_as_it_happens_and_from_where_one_stopped() {
    let api = start(Bounds::default()).await;
    let mut live = Reader::open(&api, "", "").await;
    weight(&api, 500).await;
    let first = live.next().await;
    assert_eq!((first.name.as_str(), &first.data["what"], &first.data["to"]), ("", &"weight".into(), &"5%".into()));
    assert_eq!(first.data, serde_json::to_value(&api.bench.handle.events(1)[0]).expect("JSON"));
    for grains in 1..=100 {
        weight(&api, grains).await;
    }
    let newest = api.bench.handle.events(1)[0].seq;
    for seq in first.data["seq"].as_u64().expect("a number") + 1..=newest {
        assert_eq!(live.next().await.data["seq"], seq);
    }
    let mut all = Reader::open(&api, "?after=0", "").await;
    for seq in 1..=newest {
        assert_eq!(all.next().await.data["seq"], seq);
    }
    // How far it came wins over what the first request said.
    let mut again = Reader::open(&api, "?after=0", &format!("Last-Event-ID: {}\r\n", first.id)).await;
    assert_eq!(again.next().await.data["seq"], first.data["seq"].as_u64().expect("a number") + 1);
    api.get("/v1/events?after=x").await.is_problem(422, "neither the number of an event nor its id");
    api.get("/v1/events?befor=1").await.is_problem(422, "allowed is: after");
}

#[tokio::test]
async fn missing_events_are_told_of() {
    let api = start(Bounds::default()).await;
    for n in 0..=EVENTS_MAX {
        weight(&api, if n % 2 == 0 { 1 } else { 2 }).await;
    }
    let mut late = Reader::open(&api, "?after=0", "").await;
    let gap = late.next().await;
    assert_eq!((gap.name.as_str(), &gap.data["from"], &gap.data["to"]), ("gap", &1.into(), &3.into()), "{gap:?}");
    assert_eq!(late.next().await.data["seq"], 3);
    // Numbers of another process mean nothing here.
    for place in ["?after=1-7", "?after=999999"] {
        let mut other = Reader::open(&api, place, "").await;
        let gap = other.next().await;
        assert!(gap.name == "gap" && gap.data["detail"].as_str().is_some_and(|d| d.contains("anew")), "{gap:?}");
        other.next().await;
        assert_eq!(other.next().await.data["seq"], 3);
    }
}

#[tokio::test]
async fn silence_is_filled_and_streams_outlive_connections_that_would_be_too_old() {
    let moment = Duration::from_millis(20);
    let api = start(Bounds { heartbeat: moment, age: moment, ..Bounds::default() }).await;
    let mut reader = Reader::open(&api, "", "").await;
    for _ in 0..20 {
        reader.upto(": heartbeat\n\n").await;
    }
    weight(&api, 500).await;
    assert_eq!(reader.next().await.data["what"], "weight");
}

#[tokio::test]
async fn readers_beyond_the_bound_are_refused_until_one_leaves() {
    let mut settings = fake::web_and_api();
    settings.admin.tokens = vec![token("one"), token("two"), token("three")];
    let api = start_with(settings, Bounds { heartbeat: Duration::from_millis(20), ..Bounds::default() }).await;
    let shows = |name: &str| format!("\nAuthorization: Bearer {name}");
    let mut readers = Vec::new();
    for name in ["one", "two"] {
        for _ in 0..SUBSCRIBERS_PER_CALLER_MAX {
            readers.push(Reader::open(&api, "", &format!("Authorization: Bearer {name}\r\n")).await);
        }
        let refused = api.get_with("/v1/events", &shows(name)).await;
        refused.is_problem(429, "at most 8 read events");
        assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    }
    assert_eq!(readers.len(), SUBSCRIBERS_MAX);
    let refused = api.get_with("/v1/events", &shows("three")).await;
    refused.is_problem(503, "at most 16 read events");
    assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    assert_eq!(api.get_with("/v1/status", &shows("three")).await.status, 200, "other questions are answered");
    readers.pop();
    let next = async {
        loop {
            let mut stream = api.connect().await;
            let head = format!("GET /v1/events HTTP/1.1\nHost: localhost{}\n\n", shows("three"));
            stream.write_all(head.replace('\n', "\r\n").as_bytes()).await.expect("writes");
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("answered");
            if &status == b"HTTP/1.1 200" {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("its place is free");
}

/// More events than the buffers of a connection hold.
const FLOOD: u64 = 40_000;

/// Lets so many things happen that the journal goes round many times.
async fn flood(api: &Api) {
    let reason = "x".repeat(1_000);
    let all = async {
        for n in 0..FLOOD {
            let weight = Weight::from_grains(if n % 2 == 0 { 1 } else { 2 }).expect("a weight");
            api.bench.handle.set_weight("web", weight, "test", Some(reason.clone())).await.expect("set");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time");
}

#[tokio::test]
async fn a_slow_reader_gets_a_last_event() {
    let api = start(Bounds { reader: Duration::from_millis(50), ..Bounds::default() }).await;
    let mut reader = Reader::open(&api, "", "").await;
    flood(&api).await;
    let last = loop {
        let told = reader.next().await;
        if told.name == "end" {
            break told;
        }
    };
    assert_eq!(last.data["reason"], "slow", "{last:?}");
    assert!(last.data["last"].as_u64().is_some_and(|seq| seq < FLOOD), "{last:?}");
    assert!(reader.is_over().await);
}

#[tokio::test]
async fn a_reader_that_does_not_read_frees_its_place() {
    let moment = Duration::from_millis(50);
    let api = start(Bounds { reader: moment, age: moment, connections: 1, ..Bounds::default() }).await;
    let reader = Reader::open(&api, "", "").await;
    flood(&api).await;
    let answer = tokio::time::timeout(Duration::from_secs(10), api.get("/healthz")).await;
    assert_eq!(answer.expect("the only connection is free").status, 200);
    drop(reader);
}

#[tokio::test]
async fn readers_are_told_that_the_process_stops() {
    let api = start(Bounds { stop: Duration::from_secs(3_600), ..Bounds::default() }).await;
    let mut reader = Reader::open(&api, "", "").await;
    api.stop.send(()).expect("serving");
    let end = reader.next().await;
    assert_eq!((end.name.as_str(), &end.data["reason"]), ("end", &"stopping".into()));
    tokio::time::timeout(Duration::from_secs(10), api.served).await.expect("waits for no reader").expect("no panic");
}

#[tokio::test]
async fn a_reader_whose_token_is_gone_is_shown_out() {
    let mut settings = fake::web_and_api();
    settings.admin.tokens = vec![token("leaves"), token("stays")];
    let bounds = Bounds { heartbeat: Duration::from_millis(20), ..Bounds::default() };
    let api = start_with(settings.clone(), bounds).await;
    let mut leaves = Reader::open(&api, "", "Authorization: Bearer leaves\r\n").await;
    let mut stays = Reader::open(&api, "", "Authorization: Bearer stays\r\n").await;
    settings.admin.tokens.remove(0);
    api.bench.write(settings);
    api.bench.handle.reload("test").await.expect("applied");
    let end = loop {
        let told = leaves.next().await;
        if told.name == "end" {
            break told;
        }
    };
    assert_eq!(end.data["reason"], "unauthorized");
    assert_eq!(stays.next().await.data["what"], "reload");
    stays.upto(": heartbeat\n\n").await;
}
