//! The demo against a stand-in for proxy and admin API, honest and not.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::super::load::USER_COOKIE;
use super::super::upstream::VERSION_HEADER;
use super::*;
use crate::cli::text::Paint;
use crate::core::assign::bucket_of;
use crate::core::weight::Weight;

/// How the stand-in behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Draws the version anew for each request.
    Fickle,
    /// Goes on with the candidate after the abort.
    Deaf,
    /// Answers every tenth request with 502.
    Broken,
    /// Refuses weights above 25 %.
    Refusing,
}

struct StandIn {
    manner: Manner,
    /// Grains.
    weight: AtomicU16,
    generation: AtomicU64,
    requests: AtomicU64,
}

impl StandIn {
    fn answer(&self, request: &Request<Incoming>, body: &[u8]) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match path.rsplit('/').next() {
            Some("weight") => self.set_weight(body),
            Some("abort") => {
                assert_eq!(serde_json::from_slice::<serde_json::Value>(body).expect("json"), json!({"reason": "demo"}));
                if self.manner != Manner::Deaf {
                    self.weight.store(0, Ordering::SeqCst);
                }
                self.applied("0%")
            }
            _ => self.proxied(request),
        }
    }

    fn set_weight(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let body: serde_json::Value = serde_json::from_slice(body).expect("json");
        let text = body["weight"].as_str().expect("a weight");
        let grains = Weight::parse(text).expect("a weight").grains();
        if self.manner == Manner::Refusing && grains > 2_500 {
            let problem = json!({"type": "about:blank", "title": "No more", "detail": "25% is the most"}).to_string();
            let response = Response::builder().status(409).header("content-type", "application/problem+json");
            return response.body(Full::from(problem)).expect("a response");
        }
        self.weight.store(grains, Ordering::SeqCst);
        self.applied(text)
    }

    fn applied(&self, weight: &str) -> Response<Full<Bytes>> {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = json!({"service": SERVICE, "generation": generation, "weight": weight, "state": "splitting"});
        Response::new(Full::from(answer.to_string()))
    }

    fn proxied(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let turn = self.requests.fetch_add(1, Ordering::SeqCst);
        if self.manner == Manner::Broken && turn % 10 == 9 {
            return Response::builder().status(502).body(Full::default()).expect("a response");
        }
        let cookie = request.headers()["cookie"].to_str().expect("text");
        let user: u64 =
            cookie.strip_prefix(&format!("{USER_COOKIE}=user-")).and_then(|n| n.parse().ok()).expect("a user");
        let drawn = if self.manner == Manner::Fickle { turn } else { user };
        let on_candidate = bucket_of(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) < self.weight.load(Ordering::SeqCst);
        let version = VERSIONS[usize::from(on_candidate)];
        Response::builder().header(VERSION_HEADER, version).body(Full::from(version)).expect("a response")
    }
}

/// A stage for the stand-in, and what keeps it there.
async fn stand_in(manner: Manner) -> Stage {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let proxy = listener.local_addr().expect("bound");
    let (weight, generation, requests) = (AtomicU16::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stand_in = Arc::new(StandIn { manner, weight, generation, requests });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stand_in = Arc::clone(&stand_in);
            let service = service_fn(move |mut request: Request<Incoming>| {
                let stand_in = Arc::clone(&stand_in);
                async move {
                    use http_body_util::BodyExt;
                    let body = request.body_mut().collect().await.expect("a body").to_bytes();
                    Ok::<_, Infallible>(stand_in.answer(&request, &body))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Stage { admin: Admin::at(&format!("http://{proxy}")).expect("an address"), proxy }
}

/// Long enough for every user to ask in every step: 13 users of one connection at 20 requests per second.
const EVERYONE: Duration = Duration::from_millis(6 * 750);
/// Long enough to see some of them.
const SOME: Duration = Duration::from_millis(6 * 200);

async fn played(manner: Manner, length: Duration, json: bool, interactive: bool) -> (Result<Summary, Failure>, String) {
    let stage = stand_in(manner).await;
    let terminal = Terminal { json, interactive, paint: Paint(false) };
    let mut written = String::new();
    let mut out = |text: &str| {
        written.push_str(text);
        Ok(())
    };
    let summary = perform(&stage, length, Screen { terminal, out: &mut out }).await;
    (summary, written)
}

#[tokio::test]
async fn an_honest_proxy_is_proven_and_every_step_is_shown() {
    let (summary, written) = played(Manner::Honest, EVERYONE, true, false).await;
    let summary = summary.expect("played");
    assert_eq!(summary.problems, Vec::<String>::new());
    assert_eq!((summary.stats.errors(), summary.stats.moved_back()), (0, 0));
    // All 200, if this machine keeps up.
    assert!(summary.stats.moved() > 100, "{}", summary.stats.moved());
    let lines: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let steps: Vec<_> = lines.iter().filter(|l| l["event"] == "step").collect();
    let shown: Vec<_> = steps.iter().map(|s| s["step"].as_str().expect("a name")).collect();
    assert_eq!(shown, ["0%", "5%", "25%", "50%", "100%", "abort"]);
    let generations: Vec<_> = steps.iter().map(|s| s["generation"].as_u64()).collect();
    assert_eq!(generations, (1..=6).map(Some).collect::<Vec<_>>());
    let observed: Vec<_> = steps.iter().map(|s| s["observed"].as_f64().expect("a share")).collect();
    assert_eq!((observed[0], observed[4], observed[5]), (0.0, 1.0, 0.0));
    assert!(observed[..5].is_sorted() && (0.15..0.35).contains(&observed[2]), "{observed:?}");
    assert_eq!(
        (&lines[0]["event"], &lines[7]["event"], &lines[7]["ok"]),
        (&json!("started"), &json!("summary"), &json!(true))
    );
}

#[tokio::test]
async fn a_proxy_that_draws_anew_for_each_request_is_found_out() {
    let summary = played(Manner::Fickle, EVERYONE, false, false).await.0.expect("played");
    assert!(summary.stats.moved_back() > 0);
    assert!(summary.problems.iter().any(|p| p.starts_with("users moved back from v2 to v1")), "{:?}", summary.problems);
}

#[tokio::test]
async fn a_proxy_that_goes_on_after_the_abort_is_found_out() {
    let summary = played(Manner::Deaf, SOME, false, false).await.0.expect("played");
    assert!(
        summary.problems.iter().any(|p| p.ends_with("reached v2 after the abort had answered")),
        "{:?}",
        summary.problems
    );
}

#[tokio::test]
async fn failed_requests_fail_the_demo_and_are_named() {
    let summary = played(Manner::Broken, SOME, false, false).await.0.expect("played");
    assert!(!summary.is_proven() && summary.stats.errors() > 0);
    assert!(summary.problems[0].contains("requests failed: status 502 ("), "{:?}", summary.problems);
}

#[tokio::test]
async fn a_refused_weight_ends_the_demo_with_the_reason() {
    let (summary, written) = played(Manner::Refusing, SOME, false, true).await;
    assert_eq!(summary.expect_err("refused").to_string(), "No more\n  25% is the most");
    assert!(written.contains(REDRAW_LINE) && written.ends_with('\n'), "{written:?}");
    assert_eq!(written.lines().filter(|line| line.contains("25%")).count(), 1, "{written:?}");
}

#[test]
fn a_demo_that_was_ended_at_once_has_nothing_to_complain_of_but_a_silent_one_has() {
    let stats = Stats::new(STEPS.len(), USERS);
    assert_eq!(problems(&stats, false), Vec::<String>::new());
    assert_eq!(problems(&stats, true), ["a step ended without a single answer"]);
}
