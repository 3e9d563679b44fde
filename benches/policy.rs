//! Instructions of the policy of one request, all features on, counted by callgrind: a number that no other program can disturb.
//!
//! `cargo bench --bench policy` runs itself twice under valgrind, with few and with many requests; what is left of the difference is the cost
//! of a request. Parsing and writing heads is not the policy's and is done beforehand. Fails above [`INSTRUCTIONS_MAX`].

use std::collections::HashMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate::clock;
use tidegate::config;
use tidegate::core::health::Readiness;
use tidegate::core::id::Variant;
use tidegate::core::snapshot::{ActiveService, Running, Snapshot};
use tidegate::core::weight::Weight;
use tidegate::proxy::exchange::{Budgets, Exchange, Held, Next, Policy, Replay, Verdict};
use tidegate::proxy::facts::ConnFacts;
use tidegate::proxy::h1::head::{HeadLimits, ScanState, parse_request, parse_response, scan_head};
use tidegate::proxy::headers::{RequestHead, ResponseHead};
use tidegate::proxy::routing::RouteScratch;
use tidegate::state::counters::ProcessCounters;
use tidegate::state::current::Routing;
use tidegate::state::live::Registry;
use tidegate::state::sensors::{Ticks, Watch};
use tidegate::telemetry::termination::Termination;

/// Most instructions one request may cost.
const INSTRUCTIONS_MAX: u64 = 8_000;
/// Requests of the shorter run, and of the longer one.
const REQUESTS: [u64; 2] = [1_000, 11_000];
/// Marks a run under valgrind; the number of requests follows.
const CHILD: &str = "--requests";

/// Everything a service can have on the way of a request.
const FILE: &str = r#"
[[listeners]]
name = "public"
listen = "127.0.0.1:0"
trusted_proxies = ["10.0.0.0/8"]

[[routes]]
host = "*.example.com"
path_prefix = "/products"
methods = ["GET", "POST"]
service = "web"

[[routes]]
path_prefix = "/"
service = "other"

[services.other.stable]
version = "v1"
endpoints = ["127.0.0.1:9001"]

[services.web.stable]
version = "v1"
endpoints = ["127.0.0.1:9002", { address = "127.0.0.1:9003", weight = 2 }, "127.0.0.1:9004"]

[services.web.candidate]
version = "v2"
endpoints = ["127.0.0.1:9005", "127.0.0.1:9006"]

[services.web.upstream.retry]
attempts = 2
on = ["connect", "stale", "5xx", "reset", "timeout"]

[services.web.force]
header = "x-canary"
allow_from = ["10.0.0.0/8"]

[services.web.affinity]
key = ["cookie"]
"#;

/// By turns: a user who is known already, and a new one.
const CLIENTS: [&str; 2] = ["Cookie: session=0123456789abcdef0123456789abcdef; tidegate_web=0123456789abcdef\r\n", ""];

/// What requests need.
struct Bench {
    policy: Rc<Policy>,
    routing: Held,
    facts: ConnFacts,
    requests: Vec<RequestHead>,
    response: ResponseHead,
}

// === impl Bench ===

impl Bench {
    fn new(now: Instant) -> Self {
        let settings = config::parse(FILE, Path::new("bench.toml"), &|_| None).expect("a valid file");
        let services = settings.services.iter().map(|service| {
            let weight = Weight::parse(if service.candidate.is_some() { "5%" } else { "0%" }).expect("a weight");
            ActiveService::new(Arc::clone(service), Running { weight, ..Running::idle(1) })
        });
        let snapshot = Snapshot::build(1, &settings.routes, services.collect()).expect("known services");
        let registry = Registry::new(1, now);
        let mut live = registry.resolve(&snapshot, &HashMap::new());
        for (active, live) in snapshot.services.iter().zip(&mut live) {
            // The gate watches the candidate.
            let watch = Watch::rollout(&active.service.rollout.terms.gate, &[], 1, now);
            *live = Arc::new(live.watched(&watch));
        }
        for endpoint in live.iter().flat_map(|live| Variant::ALL.into_iter().flat_map(|variant| live.pool(variant))) {
            endpoint.health.set_readiness(Readiness::Ready);
        }
        let policy = Policy {
            worker: 0,
            process: Arc::new(ProcessCounters::new(1)),
            session_secret: [7; 32],
            budgets: Budgets::new(now),
            ticks: Ticks::default(),
            spare: std::cell::RefCell::default(),
        };
        let listener = Arc::new(settings.listeners[0].clone());
        let limits = HeadLimits::new(&listener.limits, listener.underscores);
        let peer: IpAddr = "10.1.2.3".parse().expect("an address");
        Self {
            policy: Rc::new(policy),
            routing: Rc::new(Arc::new(Routing { snapshot, live })),
            facts: ConnFacts::new(listener, Some(peer), false),
            requests: CLIENTS.map(|client| request(client, &limits)).into(),
            response: response(),
        }
    }

    /// One request from its head to its end; the status the client sees comes back.
    fn serve(&self, number: usize, scratch: &mut RouteScratch, random: &mut fastrand::Rng, now: Instant) -> u16 {
        let head = &self.requests[number % self.requests.len()];
        let mut exchange = Exchange::new(&self.policy, &self.routing, head, &self.facts, now, random);
        let next = exchange.begin(head, &self.facts, scratch, now, random);
        let Next::Send(attempt) = next else { panic!("sent: {next:?}") };
        exchange.connected(true, now);
        exchange.sent(now);
        let Verdict::Pass(cookie) = exchange.response(&self.response, Replay::Nothing, now, random) else {
            panic!("passed on")
        };
        if let Some(cookie) = cookie {
            self.policy.spare.replace(cookie);
        }
        drop(attempt);
        exchange.end(Termination::Complete, now + Duration::from_millis(1)).status
    }
}

fn request(client: &str, limits: &HeadLimits) -> RequestHead {
    let text = format!(
        "GET /products/1234/reviews?page=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
         Accept: text/html\r\nAccept-Encoding: gzip, br\r\nX-Forwarded-For: 192.0.2.7\r\n{client}Connection: keep-alive\r\n\r\n"
    );
    let length = scan_head(text.as_bytes(), &mut ScanState::default(), limits).expect("valid").expect("complete");
    let mut head = RequestHead { bytes: text.into_bytes(), ..RequestHead::default() };
    parse_request(&mut head, length, limits).expect("valid");
    head
}

fn response() -> ResponseHead {
    let text = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 64\r\nCache-Control: private\r\n\r\n";
    let mut head = ResponseHead { bytes: text.to_vec(), ..ResponseHead::default() };
    parse_response(&mut head, text.len(), false).expect("valid");
    head
}

fn serve(requests: usize) {
    let now = clock::now();
    let bench = Bench::new(now);
    let (mut scratch, mut random) = (RouteScratch::default(), fastrand::Rng::with_seed(1));
    for number in 0..requests {
        assert_eq!(black_box(bench.serve(number, &mut scratch, &mut random, now)), 200);
    }
}

/// Instructions of a run with so many requests.
fn instructions(requests: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args([CHILD, &requests.to_string()])
        .output()
        .map_err(|e| format!("valgrind cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        return Err(format!("the run with {requests} requests failed: {said}"));
    }
    let counted = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    counted.and_then(|count| count.parse().ok()).ok_or_else(|| format!("no count in what valgrind said: {said}"))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD) {
        serve(arguments.next().and_then(|n| n.parse().ok()).expect("a number of requests"));
        return ExitCode::SUCCESS;
    }
    let [few, many] = REQUESTS;
    let each = instructions(few).and_then(|less| Ok((instructions(many)? - less) / (many - few)));
    match each {
        Ok(each) => {
            println!("policy of one request: {each} instructions (at most {INSTRUCTIONS_MAX})");
            if each <= INSTRUCTIONS_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
