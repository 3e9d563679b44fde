//! The smuggling corpus: bytes whose meaning two readers could see differently, and what has to come of each. A case is refused, or the
//! upstream sees exactly the requests RFC 9112 says are there, in canonical form; never anything in between.
//!
//! Every case is sent whole, byte by byte, and cut at random places. Where the connection stays open a probe follows, so that one byte
//! read too far or not far enough is seen; where it does not, nothing behind the refused bytes may have become a request.

mod chunks;
mod early;
mod framing;
mod h2;
mod heads;
mod responses;
mod targets;

use crate::harness::client::Client;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Request, Upstream};
use crate::harness::wait::within;

/// The request that attacks try to get past the proxy as part of another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
/// What the upstream sees of it where it is a request in its own right.
const SMUGGLED_SEEN: (&str, &str) = ("GET /smuggled HTTP/1.1\nhost: a", "");
/// What is asked at the end of a connection that stays open.
const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: a\r\n\r\n";
/// Fields the proxy sets on every request, whatever the client says.
const ADDED: [&str; 5] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-request-id"];
/// Seeds of the random cuts.
const SEEDS: u64 = 2;

/// One case.
struct Case {
    /// What is sent.
    raw: Vec<u8>,
    /// The final statuses that come back.
    answers: Vec<u16>,
    /// The whole requests the upstream sees: the head's lines without what the proxy adds, and the body with its trailers.
    seen: Vec<(String, String)>,
    /// Whether the connection stays open.
    open: bool,
    /// Whether the client ends its sending side behind the bytes.
    ended: bool,
}

/// How a case is sent.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// In one write.
    Whole,
    /// One write per byte.
    Bytes,
    /// At places drawn from a seed.
    Random(u64),
}

// === impl Case ===

impl Case {
    /// Refused with this status before anything is forwarded, and closed.
    fn refused(status: u16, raw: impl Into<Vec<u8>>) -> Self {
        Self { raw: raw.into(), answers: vec![status], seen: Vec::new(), open: false, ended: false }
    }

    /// Forwarded as these requests (head, body), each answered; the connection stays open.
    fn passes(raw: impl Into<Vec<u8>>, seen: &[(&str, &str)]) -> Self {
        let seen: Vec<_> = seen.iter().map(|(head, body)| ((*head).to_owned(), (*body).to_owned())).collect();
        Self { raw: raw.into(), answers: vec![200; seen.len()], seen, open: true, ended: false }
    }

    /// Waits for more than there is: the end of the client's side leaves no whole request, and no answer.
    fn unfinished(raw: impl Into<Vec<u8>>) -> Self {
        Self { raw: raw.into(), answers: Vec::new(), seen: Vec::new(), open: false, ended: true }
    }

    /// The same, with the connection closed behind the last answer.
    fn closed(self) -> Self {
        Self { open: false, ..self }
    }

    /// The same, with a refusal behind the last answer.
    fn then(mut self, status: u16) -> Self {
        self.answers.push(status);
        self.closed()
    }

    async fn play(&self, proxy: &Proxy, upstream: &Upstream, cut: Cut) {
        let shown = self.raw[..self.raw.len().min(400)].escape_ascii().to_string();
        let what = format!("{cut:?}: {shown}");
        let mut client = proxy.client().await;
        send(&mut client, &self.raw, cut).await;
        if self.ended {
            // It may have been refused and closed by now, which is what the answers will show.
            let _ = client.try_half_close().await;
        }
        let mut answers = Vec::new();
        let mut closing = false;
        for number in 0..self.answers.len() {
            let head_request = self.seen.get(number).is_some_and(|(head, _)| head.starts_with("HEAD "));
            let method = if head_request { "HEAD" } else { "GET" };
            let response = within("an answer", client.try_response(method)).await;
            let response = response.unwrap_or_else(|fault| panic!("answer {number}: {fault}: {what}"));
            closing = response.head.lists("connection", "close");
            answers.push(response.status);
        }
        assert_eq!(answers, self.answers, "{what}");
        let mut expected = self.seen.clone();
        if self.open {
            client.send(PROBE).await;
            assert_eq!(client.response().await.status, 200, "the probe behind {what}");
            expected.push(("GET /probe HTTP/1.1\nhost: a".into(), String::new()));
        } else {
            assert!(closing || self.answers.is_empty(), "the close was not announced: {what}");
            client.expect_close().await;
        }
        let requests = upstream.requests();
        let seen: Vec<_> = requests.iter().filter(|request| request.complete).map(|r| shape(r, &what)).collect();
        assert_eq!(seen, expected, "{what}");
    }
}

/// Sends `raw`; the peer may refuse and close before the last byte.
async fn send(client: &mut Client, raw: &[u8], cut: Cut) {
    match cut {
        Cut::Whole => drop(client.try_send(raw).await),
        Cut::Random(seed) => client.send_split(raw, seed).await,
        Cut::Bytes => {
            for byte in raw {
                if client.try_send([*byte]).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What a request comes down to: its head without what the proxy adds, and its body with its trailers.
fn shape(request: &Request, what: &str) -> (String, String) {
    for name in ADDED {
        assert!(request.head.all(name).len() <= 1, "{name} twice: {what}");
    }
    let ours = |name: &str| ADDED.iter().any(|added| name.eq_ignore_ascii_case(added));
    let fields = request.head.fields.iter().filter(|(name, _)| !ours(name));
    let head = fields.fold(request.head.line.clone(), |head, (name, value)| format!("{head}\n{name}: {value}"));
    let trailers = request.body.trailers.iter();
    let body = trailers.fold(String::from_utf8_lossy(&request.body.bytes).into_owned(), |body, (name, value)| {
        format!("{body}\n{name}: {value}")
    });
    (head, body)
}

/// Plays every case in every way; nothing else may reach the upstream.
async fn run(cases: &[Case]) {
    run_with(cases, true).await;
}

/// The same for cases whose bodies are bad: the beginning of a request may have reached the upstream, but never a whole one.
async fn run_bad_bodies(cases: &[Case]) {
    run_with(cases, false).await;
}

async fn run_with(cases: &[Case], all_whole: bool) {
    assert!(!cases.is_empty(), "no cases");
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let mut whole = 0;
    for case in cases {
        for cut in [Cut::Whole, Cut::Bytes].into_iter().chain((0..SEEDS).map(Cut::Random)) {
            case.play(&proxy, &upstream, cut).await;
            whole += case.seen.len() + usize::from(case.open);
        }
    }
    let after = proxy.ask(PROBE).await;
    assert_eq!(after.status, 200, "the proxy lives on");
    assert_eq!(upstream.violations(), Vec::<String>::new());
    if all_whole {
        assert_eq!(upstream.arrived(), whole + 1, "heads reached the upstream that were no part of a whole request");
    }
}

/// A POST with these field lines (each with its end) and what follows its head.
fn post(lines: &str, behind: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{behind}").into_bytes()
}

/// A GET with these field lines, each with its end, and a request behind it.
fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{SMUGGLED}").into_bytes()
}

/// A corpus that lets anything pass would be worse than none: a case with another outcome than it says has to fail.
#[tokio::test]
#[should_panic(expected = "Whole: GET / HTTP/1.1")]
async fn the_runner_sees_a_request_it_does_not_expect() {
    run(&[Case::passes(get(""), &[("GET / HTTP/1.1\nhost: a", "")])]).await;
}
