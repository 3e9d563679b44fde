//! The policy of a request, tried without a socket: every call is made by hand, at times of the test's own.

mod attempts;
mod begin;
mod calls;
mod conduct;
mod counting;
mod ready;
mod retries;
mod sensing;
mod withdrawn;

use std::collections::HashMap;
use std::sync::Arc;

use super::again::FAILED_SHOWN_MAX;
use super::*;
use crate::clock;
use crate::config::settings::Limits;
use crate::core::circuit::{Limit, PoolLimits};
use crate::core::id::Name;
use crate::core::retry::{RetryOn, RetryRules};
use crate::core::route::Route;
use crate::core::service::{Force, OnIncrease};
use crate::core::snapshot::{Running, Snapshot};
use crate::core::weight::Weight;
use crate::proxy::fixture::{facts, get, listener, response};
use crate::state::counters::Cell;
use crate::state::fixture::{all_ready, route, service};
use crate::state::live::{Registry, ServiceLive};
use crate::telemetry::access::How;

/// Which worker the exchanges run on, of two.
const WORKER: usize = 1;

/// A proxy with the service `web`, `stable` and `candidate` endpoints, and one with the service `other`.
struct World {
    policy: Rc<Policy>,
    registry: Registry,
    routing: Arc<Routing>,
    random: fastrand::Rng,
    scratch: RouteScratch,
    now: Instant,
    facts: ConnFacts,
}

/// What is to be different from the usual.
struct Setup {
    stable: u16,
    candidate: u16,
    weight: Weight,
    aborted: bool,
    force: bool,
    keep_candidate: bool,
    new_sessions: bool,
    routes: Vec<Route<Name>>,
    retry: RetryRules,
    limits: PoolLimits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            stable: 2,
            candidate: 2,
            weight: Weight::FULL,
            aborted: false,
            force: true,
            keep_candidate: false,
            new_sessions: false,
            routes: vec![route("/", "web")],
            retry: RetryRules::default(),
            limits: PoolLimits::default(),
        }
    }
}

impl Setup {
    fn build(self) -> World {
        let now = clock::now();
        let policy = Policy {
            worker: WORKER,
            process: Arc::new(ProcessCounters::new(2)),
            session_secret: [7; 32],
            budgets: Budgets::new(now),
            ticks: Ticks::default(),
            spare: std::cell::RefCell::default(),
        };
        let registry = Registry::new(2, now);
        let routing = self.routing(&registry, &HashMap::new());
        World {
            policy: Rc::new(policy),
            registry,
            routing,
            random: fastrand::Rng::with_seed(3),
            scratch: RouteScratch::default(),
            now,
            facts: facts("192.0.2.7"),
        }
    }

    fn routing(&self, registry: &Registry, previous: &HashMap<Name, Arc<ServiceLive>>) -> Arc<Routing> {
        let mut web = service("web", self.stable, Some(("v2", self.candidate)));
        let of_web = Arc::get_mut(&mut web).expect("nobody else has it");
        of_web.force = self.force.then(|| Force {
            header: Some("x-canary".into()),
            cookie: Some("canary".into()),
            allow_from: Vec::new(),
            secret: None,
            keep_candidate: self.keep_candidate,
        });
        (of_web.upstream.retry, of_web.upstream.limits) = (self.retry, self.limits);
        if self.new_sessions {
            of_web.affinity.on_increase = OnIncrease::NewSessions;
        }
        let running = Running { weight: self.weight, aborted: self.aborted, ..Running::idle(5) };
        let other = ActiveService::new(service("other", 1, None), Running::idle(0));
        let services = vec![ActiveService::new(web, running), other];
        let snapshot = Snapshot::build(1, &self.routes, services).expect("known services");
        let live = registry.resolve(&snapshot, previous);
        all_ready(&live);
        Arc::new(Routing { snapshot, live })
    }
}

impl World {
    fn begin(&mut self, head: &RequestHead) -> (Exchange, Next) {
        let held = Rc::new(Arc::clone(&self.routing));
        let mut exchange = Exchange::new(&self.policy, &held, head, &self.facts, self.now, &mut self.random);
        let next = exchange.begin(head, &self.facts, &mut self.scratch, self.now, &mut self.random);
        (exchange, next)
    }

    /// Begins a request that has to be sent.
    fn sent_off(&mut self, head: &RequestHead) -> (Exchange, Attempt) {
        let (exchange, next) = self.begin(head);
        (exchange, attempt(next))
    }

    /// What comes after a failure, once the wait before it is over.
    fn fail(&mut self, exchange: &mut Exchange, failure: Failure) -> Next {
        self.fail_with(exchange, failure, Replay::Nothing)
    }

    fn fail_with(&mut self, exchange: &mut Exchange, failure: Failure, replay: Replay) -> Next {
        let next = exchange.failed(failure, replay, self.now, &mut self.random);
        self.waited(exchange, next)
    }

    /// What comes after `next` if that is a wait.
    fn waited(&mut self, exchange: &mut Exchange, next: Next) -> Next {
        let Next::Park { until } = next else { return next };
        self.now = self.now.max(until);
        exchange.unpark(self.now, &mut self.random)
    }

    /// What comes of a response: `None` when it is passed on.
    fn answer(&mut self, exchange: &mut Exchange, status: u16, replay: Replay) -> Option<Next> {
        match exchange.response(&response(status, ""), replay, self.now, &mut self.random) {
            Verdict::Pass(_) => None,
            Verdict::Discard(next) => Some(next),
        }
    }

    /// The cookie that is added to a response that is passed on.
    fn cookie(&mut self, exchange: &mut Exchange, head: &ResponseHead) -> Option<Vec<u8>> {
        match exchange.response(head, Replay::Nothing, self.now, &mut self.random) {
            Verdict::Pass(cookie) => cookie,
            Verdict::Discard(_) => panic!("tried again"),
        }
    }

    fn web(&self) -> &Arc<ServiceLive> {
        let (at, _) = self.routing.snapshot.service("web").expect("a service");
        &self.routing.live[at]
    }

    /// The sum of a counter over the pool of a variant.
    fn sum(&self, variant: Variant, read: impl Fn(&EndpointShard) -> &Cell) -> u64 {
        let pool = self.web().pool(variant).iter();
        pool.map(|endpoint| read(endpoint.counters.of(WORKER)).get()).sum()
    }

    fn attempts(&self, variant: Variant) -> u64 {
        self.sum(variant, |shard| &shard.attempts)
    }

    fn bad(&self, variant: Variant) -> u64 {
        self.sum(variant, |shard| &shard.bad)
    }

    fn in_flight(&self, variant: Variant) -> u32 {
        self.web().pool(variant).iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Every cell of finished requests that is not zero: class, assignment, how many.
    fn cells(&self, variant: Variant) -> Vec<(usize, Assignment, u64)> {
        let mut found = Vec::new();
        for class in 0..6 {
            for assignment in Assignment::ALL {
                let count = self.sum(variant, |shard| &shard.requests[class][assignment as usize]);
                if count > 0 {
                    found.push((class, assignment, count));
                }
            }
        }
        found
    }

    fn terminations(&self, termination: Termination) -> u64 {
        self.policy.process.of(WORKER).terminations[termination as usize].get()
    }

    fn later(&mut self, ms: u64) -> Instant {
        self.now += Duration::from_millis(ms);
        self.now
    }
}

fn attempt(next: Next) -> Attempt {
    match next {
        Next::Send(attempt) => attempt,
        other => panic!("not sent: {other:?}"),
    }
}

fn reply(next: Next) -> Reply {
    match next {
        Next::Reply(reply) => reply,
        other => panic!("not answered: {other:?}"),
    }
}

fn forced(variant: &str) -> RequestHead {
    get(&format!("X-Canary: {variant}\r\n"))
}

fn is_candidate(attempt: &Attempt) -> bool {
    attempt.in_flight.endpoint().variant == Variant::Candidate
}

const CLOSED: Failure = Failure::Closed { accepted: true };
const UNTAKEN: Failure = Failure::Closed { accepted: false };
