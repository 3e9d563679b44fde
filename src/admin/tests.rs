//! The admin API over real sockets, with requests written by hand.

mod conditions;
mod document;
mod limits;
mod records;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::bind::{AdminListener, bind};
use super::events::Subscribers;
use super::explain::Explained;
use super::idempotency::Table;
use super::records::Records;
use super::scrape::Scrape;
use super::serve::serve;
use super::{AdminState, Bounds, router};
use crate::config::settings::{Admin, ListenAddress, Role, Settings, Token, TokenDigest, TokenSource};
use crate::control::answer::Problem;
use crate::control::fake::{self, Bench, lock};
use crate::core::id::Name;
use crate::state::fixture::service;
use crate::state::lifecycle::{Lifecycle, Phase};

/// Longest wait for the end of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A served API.
struct Api {
    bench: Bench,
    address: std::net::SocketAddr,
    lifecycle: Lifecycle,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn start(bounds: Bounds) -> Api {
    start_with(fake::web_and_api(), bounds).await
}

async fn start_with(settings: Settings, bounds: Bounds) -> Api {
    let listener = bind(&at(ListenAddress::Tcp(([127, 0, 0, 1], 0).into()))).await.expect("binds");
    start_on(listener, settings, bounds).await
}

fn at(listen: ListenAddress) -> Admin {
    Admin { listen, ..Admin::default() }
}

/// A token that is its own name.
fn token(name: &str) -> Token {
    let (name, digest) = (Name::new(name).expect("name"), TokenDigest::of(name.as_bytes()));
    Token { name, role: Role::Viewer, digest, source: TokenSource::Env("X".to_owned()) }
}

async fn start_on(listener: AdminListener, settings: Settings, bounds: Bounds) -> Api {
    let bench = fake::start(settings).await;
    let address = listener.tcp_address().expect("bound").unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let (lifecycle, (stop, stopped)) = (Lifecycle::default(), oneshot::channel());
    lifecycle.advance(Phase::Ready);
    let state = AdminState {
        control: bench.handle.clone(),
        lifecycle: lifecycle.clone(),
        metrics: Scrape::new(|| "tidegate_generation 1\n".to_owned()),
        explain: Arc::new(|question| match question.method.as_str() {
            "BAD" => Err("method: BAD is none".to_owned()),
            _ => Ok(Explained {
                route: Some(question.target.clone()),
                service: question.host.clone(),
                ..Explained::default()
            }),
        }),
        records: Records::new(Arc::new(Arc::clone(&bench.store))),
        answers: Arc::new(Table::default()),
        subscribers: Subscribers::default(),
        bounds,
    };
    let served = tokio::spawn(serve(listener, router(state), bounds, async { drop(stopped.await) }));
    Api { bench, address, lifecycle, stop, served }
}

impl Api {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// Sends `head` (its lines, without the last empty one) and `body` and reads until the end.
    async fn raw(&self, head: &str, body: &str) -> Answer {
        exchange(self.connect().await, head, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    /// With more lines of the head.
    async fn get_with(&self, path: &str, more: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\nHost: localhost\nConnection: close{more}"), "").await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, body, "").await
    }

    /// With more lines of the head.
    async fn post_with(&self, path: &str, body: &str, more: &str) -> Answer {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Type: application/json\nContent-Length: {length}{more}"
        );
        self.raw(&head, body).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &str) -> Answer {
    let request = format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"));
    stream.write_all(request.as_bytes()).await.expect("writes");
    answer(stream).await
}

/// Reads until the connection ends.
async fn answer(mut stream: impl AsyncRead + Unpin) -> Answer {
    let mut bytes = Vec::new();
    // A connection closed with our bytes unread may end in a reset after the answer.
    let _ = tokio::time::timeout(ANSWER_MAX, stream.read_to_end(&mut bytes)).await.expect("an end");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A problem with `status` that says `detail`.
    fn is_problem(&self, status: u16, detail: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem = self.json();
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains(detail)), "{detail}: {self:?}");
        assert_eq!(problem["status"], status);
        assert!(problem["type"].as_str().is_some_and(|t| t.starts_with("urn:tidegate:problem:")));
        assert!(problem["title"].is_string());
    }
}

#[tokio::test]
async fn reads_tell_what_is_true() {
    let api = start(Bounds::default()).await;
    assert_eq!(api.get("/healthz").await.json()["status"], "ok");
    let metrics = api.get("/metrics").await;
    assert_eq!((metrics.status, metrics.body.as_str()), (200, "tidegate_generation 1\n"));
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"));
    let status = api.get("/v1/status").await;
    assert!(status.head.contains("etag: \"1.1\"") && status.head.contains("cache-control: no-store"), "{status:?}");
    let status = status.json();
    assert_eq!((&status["generation"], &status["services"][1]["candidate"]["version"]), (&1.into(), &"v2".into()));
    assert_eq!(status["services"][1]["stable"]["endpoints"][1]["address"], "127.0.0.1:8001");
    assert_eq!(
        (&status["listeners"][0]["bound"], &status["config"]["last_reload"]["ok"]),
        (&"127.0.0.1:40001".into(), &true.into())
    );
    assert_eq!(api.get("/v1/services").await.json()["services"][0]["name"], "api");
    let web = api.get("/v1/services/web").await.json();
    assert_eq!((&web["weight"], &web["state"]), (&"0%".into(), &"idle".into()));
    assert_eq!(api.raw("HEAD /v1/status HTTP/1.1\nHost: [::1]:9900\nConnection: close", "").await.body, "");
}

#[tokio::test]
async fn verbs_answer_what_is_now_true() {
    let api = start(Bounds::default()).await;
    let idle = serde_json::json!(
        {"service": "api", "generation": 1, "weight": "0%", "state": "idle", "stable": "v1", "revision": 1,
            "settled": true, "persisted": true});
    assert_eq!(api.post("/v1/services/api/abort", "").await.json(), idle);
    let weight = api.post("/v1/services/web/weight", r#"{"weight":"5%","reason":"try"}"#).await;
    assert!(weight.status == 200 && weight.head.contains("etag: \"2-2\""), "{weight:?}");
    let expected = serde_json::json!(
        {"service": "web", "generation": 2, "weight": "5%", "state": "splitting", "stable": "v1", "candidate": "v2", "revision": 2});
    let mut answer = weight.json();
    let rollout = answer.as_object_mut().expect("an object").remove("rollout").expect("a rollout");
    assert_eq!(answer, expected);
    assert_eq!((&rollout["phase"], &rollout["version"]), (&"progressing".into(), &"v2".into()));
    let event = &api.bench.handle.events(1)[0];
    assert!(event.actor.starts_with("admin 127.0.0.1:") && event.detail.as_deref() == Some("try"), "{event:?}");
    for body in ["", "{}", r#"{"reason":"errors"}"#] {
        let abort = api.post("/v1/services/web/abort", body).await.json();
        let expected = serde_json::json!({"service": "web", "generation": 3, "weight": "0%", "state": "aborted",
            "stable": "v1", "candidate": "v2", "revision": 3, "settled": true, "persisted": true});
        assert_eq!(abort, expected, "{body}");
    }
    api.bench.write(fake::settings(vec![service("new", 1, None)]));
    let validated = api.post("/v1/config:validate", "").await.json();
    assert_eq!(
        (&validated["generation"], &validated["changes"][1]),
        (&3.into(), &"services.new: added with stable v1".into())
    );
    let reloaded = api.post("/v1/config:reload", "").await.json();
    assert_eq!((&reloaded["outcome"], &reloaded["generation"]), (&"applied".into(), &4.into()));
    assert_eq!(api.post("/v1/config:reload", "{}").await.json()["outcome"], "unchanged");
}

#[tokio::test]
async fn refused_verbs_say_why_and_what_is_allowed() {
    let api = start(Bounds::default()).await;
    let weight = "/v1/services/web/weight";
    for (body, status, detail) in [
        (r#"{"weight":"130%"}"#, 422, "\"130%\": a weight is between 0% and 100%"),
        (r#"{"weight":"5"}"#, 422, "a share such as \"5%\""),
        (r#"{"weight":"0.001%"}"#, 422, "a grain of 0.01%"),
        (r#"{"weight":5}"#, 400, "expected a string at line 1 column 11"),
        (r#"{"wieght":"5%"}"#, 400, "unknown field `wieght`, expected one of `weight`, `expected_step`, `reason`"),
        ("{", 400, "EOF while parsing"),
        ("", 400, "EOF while parsing"),
        ("[]", 400, "the body"),
    ] {
        api.post(weight, body).await.is_problem(status, detail);
    }
    let long = format!(r#"{{"weight":"5%","reason":"{}"}}"#, "x".repeat(1_025));
    api.post(weight, &long).await.is_problem(422, "at most 1024 bytes");
    api.post("/v1/services/api/weight", r#"{"weight":"5%"}"#).await.is_problem(409, "there is no rollout");
    for unknown in [
        api.post("/v1/services/wbe/weight", r#"{"weight":"5%"}"#).await,
        api.post("/v1/services/wbe/abort", "").await,
        api.get("/v1/services/wbe").await,
    ] {
        unknown.is_problem(404, "there is no service \"wbe\"; there are: api, web");
        assert_eq!(unknown.json()["known"], serde_json::json!(["api", "web"]));
    }
    api.post("/v1/services/web/abort", r#"{"force":true}"#).await.is_problem(400, "unknown field `force`");
    api.get("/v1/services/%ff").await.is_problem(400, "Invalid UTF-8");
    let text = api.post("/v1/config:validate", r#"{"config":"x ="}"#).await;
    text.is_problem(422, "not a file: x =");
    assert_eq!(text.json()["errors"][0]["line"], 1);
    *lock(&api.bench.file) = Err(vec![Problem::of("a: one".to_owned()), Problem::of("b: two".to_owned())]);
    let bad = api.post("/v1/config:reload", "").await;
    bad.is_problem(422, "a: one\nb: two");
    assert_eq!(bad.json()["errors"][1]["message"], "b: two");
    api.bench.write(fake::settings(vec![service("web", 1, Some(("v1", 1)))]));
    api.post("/v1/config:reload", "").await.is_problem(409, "both version v1");
    assert_eq!(api.get("/v1/status").await.json()["generation"], 1);
}

#[tokio::test]
async fn a_page_in_a_browser_is_not_an_operator() {
    let api = start(Bounds::default()).await;
    let json = "Content-Type: application/json";
    let abort =
        |more: &str| format!("POST /v1/services/web/abort HTTP/1.1\n{more}\nConnection: close\nContent-Length: 0");
    for (head, status, detail) in [
        ("GET /v1/status HTTP/1.1\nHost: evil.example\nConnection: close".to_owned(), 421, "must be localhost"),
        ("GET /v1/status HTTP/1.1\nHost: 127.0.0.1.nip.io\nConnection: close".to_owned(), 421, "must be localhost"),
        ("GET /healthz HTTP/1.1\nHost: evil.example\nConnection: close".to_owned(), 421, "must be localhost"),
        ("GET /v1/status HTTP/1.1\nConnection: close".to_owned(), 400, "has a Host header"),
        (
            "GET /v1/status HTTP/1.1\nHost: localhost\nHost: localhost\nConnection: close".to_owned(),
            400,
            "more than one host",
        ),
        ("GET http://evil.example/ HTTP/1.1\nHost: localhost\nConnection: close".to_owned(), 400, "different hosts"),
        (abort(&format!("Host: localhost:1\nOrigin: http://evil.example\n{json}")), 403, "Origin"),
        (abort(&format!("Host: localhost:1\nOrigin: http://localhost:2\n{json}")), 403, "Origin"),
        (abort(&format!("Host: localhost\nOrigin: null\n{json}")), 403, "Origin"),
        (
            abort(&format!("Host: localhost\nOrigin: http://localhost\nOrigin: http://evil\n{json}")),
            400,
            "more than one origin",
        ),
        (
            abort(&format!("Host: localhost\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors\n{json}")),
            403,
            "from elsewhere",
        ),
        (
            "GET /v1/events HTTP/1.1\nHost: localhost\nSec-Fetch-Site: cross-site\nConnection: close".to_owned(),
            403,
            "from elsewhere",
        ),
        (abort("Host: localhost"), 415, "Content-Type: application/json"),
        (abort("Host: localhost\nContent-Type: text/plain"), 415, "Content-Type: application/json"),
        (abort("Host: localhost\nContent-Type: application/json-patch"), 415, "Content-Type: application/json"),
        (abort(&format!("Host: localhost\n{json}\nContent-Type: text/plain")), 400, "more than one content-type"),
    ] {
        api.raw(&head, "").await.is_problem(status, detail);
    }
    assert!(api.bench.is_open("web"), "nothing got through");
    let link = "\nSec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate";
    assert_eq!(api.get_with("/v1/status", link).await.status, 200, "a link was followed");
    let own = format!("Host: LOCALHOST:1\nOrigin: http://localhost:1\n{json}; charset=utf-8");
    assert_eq!(api.raw(&abort(&own), "").await.status, 200);
    assert!(!api.bench.is_open("web"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = start(Bounds::default()).await;
    for path in [
        "/",
        "/v1",
        "/v1/services/",
        "/v1/services/web/",
        "/v1/config:nothing",
        "/v1/config",
        "/v1/services/web/weight/x",
    ] {
        api.get(path).await.is_problem(404, path);
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/status", "get"),
        ("PUT", "/v1/services/web", "get"),
        ("GET", "/v1/services/web/weight", "post"),
        ("GET", "/v1/config:reload", "post"),
        ("BREW", "/metrics", "get"),
    ] {
        let answer = api.raw(&format!("{method} {path} HTTP/1.1\nHost: localhost\nConnection: close"), "").await;
        answer.is_problem(405, path);
        let allow = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
        assert!(allow.split(',').any(|method| method.trim() == allowed), "{answer:?}");
    }
    assert_eq!(api.raw("\u{1}\u{2} nonsense", "").await.status, 400);
}

#[tokio::test]
async fn no_bytes_bring_it_down() {
    let whole = b"POST /v1/services/web/weight?a=%zz HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Connection: close\r\nContent-Length: 15\r\n\r\n{\"weight\":\"5%\"}";
    let api = start(Bounds::default()).await;
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..300 {
        let mut bytes = whole[..rng.usize(1..=whole.len())].to_vec();
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        let mut stream = api.connect().await;
        // It may have refused and closed already.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let status = answer(stream).await.status;
        assert!(matches!(status, 0 | 200 | 400..=499), "status {status}, seed {seed}: {}", bytes.escape_ascii());
    }
    assert_eq!(api.get("/healthz").await.status, 200);
}

/// Reads until `needle` came.
async fn until(stream: &mut TcpStream, needle: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.windows(needle.len()).any(|window| window == needle) {
        assert_ne!(stream.read_buf(&mut bytes).await.expect("reads"), 0, "ended");
    }
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process() {
    let hour = Duration::from_secs(3_600);
    let api = start(Bounds { head: hour, stop: hour, ..Bounds::default() }).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    api.lifecycle.advance(Phase::Draining);
    api.get("/readyz").await.is_problem(503, "draining");
    assert_eq!(api.get("/healthz").await.status, 200);
    // Idle connections end with the API; it does not wait for them.
    let mut idle = api.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
    until(&mut idle, b"\"ok\"").await;
    api.stop.send(()).expect("serving");
    let served = tokio::time::timeout(Duration::from_secs(5), api.served);
    served.await.expect("waits for no idle connection").expect("no panic");
    assert!(TcpStream::connect(api.address).await.is_err());
}

#[tokio::test]
async fn explain_passes_the_question_on_and_the_answer_back() {
    let api = start(Bounds::default()).await;
    let answer = api.get("/v1/explain?method=POST&url=https%3A%2F%2Fshop.example%2Fcart%3Fx%3D1&header=X-A:%20b").await;
    assert_eq!((&answer.json()["route"], &answer.json()["service"]), (&"/cart?x=1".into(), &"shop.example".into()));
    api.get("/v1/explain").await.is_problem(422, "url is missing");
    api.get("/v1/explain?url=/&foo=1").await.is_problem(422, "allowed are: method, url");
    api.get("/v1/explain?url=/&method=BAD").await.is_problem(422, "BAD is none");
}

/// A path for a socket, removed at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-admin-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn address(&self) -> Admin {
        at(ListenAddress::Unix(self.0.clone()))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_takes_any_host() {
    let path = SocketPath::new("served");
    let api = start_on(bind(&path.address()).await.expect("binds"), fake::web_and_api(), Bounds::default()).await;
    assert_eq!(mode(&path.0), 0o600);
    let connect = || async { UnixStream::connect(&path.0).await.expect("connects") };
    let head =
        "POST /v1/services/web/abort HTTP/1.1\nHost: any.thing\nContent-Type: application/json\nConnection: close";
    assert_eq!(exchange(connect().await, head, "").await.status, 200);
    assert_eq!(api.bench.handle.events(1)[0].actor, "admin unix");
    let foreign = head.replace("Connection", "Origin: http://evil\nConnection");
    exchange(connect().await, &foreign, "").await.is_problem(403, "Origin");
}

#[tokio::test]
async fn binding_takes_over_what_is_left_behind_and_nothing_else() {
    let path = SocketPath::new("bound");
    let first = bind(&path.address()).await.expect("binds");
    let used = bind(&path.address()).await.expect_err("in use").to_string();
    assert!(used.contains("another process listens there") && used.contains("admin.listen: unix:/"), "{used}");
    drop(first);
    assert!(!path.0.exists(), "the file goes with the listener");
    drop(std::os::unix::net::UnixListener::bind(&path.0).expect("what a killed process leaves behind"));
    drop(bind(&path.address()).await.expect("the socket left behind is replaced"));
    std::fs::write(&path.0, "precious").expect("writes");
    let file = bind(&path.address()).await.expect_err("a file").to_string();
    assert!(file.contains("not a socket"), "{file}");
    assert_eq!(std::fs::read_to_string(&path.0).expect("still there"), "precious");
    let open = bind(&at(ListenAddress::Tcp(([0, 0, 0, 0], 0).into()))).await.expect_err("not loopback").to_string();
    assert!(open.contains("0.0.0.0:0: without [admin] tokens only a loopback address"), "{open}");
}
