//! THE policy of one request, sans-IO: everything that is a decision is taken here, everything that moves a byte is not.
//!
//! One snapshot is taken at [`Exchange::new`] and kept, retries included, so generations never mix. Whether the candidate is
//! still open is read from the live state again before every attempt. After a response head was passed the only call left is
//! [`Exchange::end`]; a dropped exchange counts itself.

mod again;
mod attempt;
mod call;
mod choose;
mod failure;
mod judge;
mod sense;

use std::cell::RefCell;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::assign::{Assignment, assign};
use crate::core::balance::Balance;
use crate::core::endpoint::Address;
use crate::core::id::Variant;
use crate::core::outlier::fault::Fault;
use crate::core::retry::Reason;
use crate::core::route::Target;
use crate::core::service::Service;
use crate::core::snapshot::ActiveService;
use crate::state::conduct::Admission;
use crate::state::counters::{EndpointShard, ProcessCounters};
use crate::state::current::Routing;
use crate::state::live::InFlight;
use crate::state::sensors::{Sense, Ticks};
use crate::telemetry::termination::Termination;

use crate::core::weight::Weight;
use crate::proxy::facts::{ConnFacts, client_ip};
use crate::proxy::grpc;
use crate::proxy::headers::{BodyLength, Known, RequestHead, ResponseHead};
use crate::proxy::respond::Reply;
use crate::proxy::routing::{RouteScratch, find_route};
use crate::proxy::sticky::{self, Reading, SessionId, SessionSeal, hex_u128};

pub use self::again::Budgets;
pub use self::failure::{Failure, Outcome, Replay};

use self::again::History;

/// Times a request is sent again outside of its attempts: once for a kept connection that had died, once for a refusal.
const REPLAYS_MAX: u32 = 2;
/// Attempts one request may begin, whatever happens meanwhile.
const ATTEMPTS_MAX: u32 = 8;
/// Endpoints a request can have tried, over both pools and all retries.
const TRIED_MAX: usize = ATTEMPTS_MAX as usize;

/// What all exchanges of one worker share.
#[derive(Debug)]
pub struct Policy {
    /// The worker's index: which shard of every counter is its own.
    pub worker: usize,
    /// Counters beside endpoints.
    pub process: Arc<ProcessCounters>,
    /// Key of session cookies for services without a secret of their own.
    pub session_secret: [u8; 32],
    /// What may be retried.
    pub budgets: Budgets,
    /// What tick it is for the gate.
    pub ticks: Ticks,
    /// Memory for the cookie of one response.
    pub spare: RefCell<Vec<u8>>,
}

/// The published state as the requests of one worker hold it: counted without atomics, which all workers would fight for.
pub type Held = Rc<Arc<Routing>>;

/// What to do next for a request.
#[derive(Debug)]
pub enum Next {
    /// Send it to an endpoint.
    Send(Attempt),
    /// Try it again later, by [`Exchange::unpark`].
    Park {
        /// When.
        until: Instant,
    },
    /// Answer it.
    Reply(Reply),
}

/// One attempt to get an answer from an endpoint. In flight until it is dropped.
#[derive(Debug)]
pub struct Attempt {
    /// Counts from one.
    pub number: u32,
    /// Counts the attempt as in flight.
    pub in_flight: InFlight,
    /// An idle connection may be used.
    pub may_reuse: bool,
}

/// What to do with a response head.
#[derive(Debug)]
pub enum Verdict {
    /// Pass it on, with this value in a `Set-Cookie` of ours, in the memory of [`Policy::spare`].
    Pass(Option<Vec<u8>>),
    /// Drop the response: the request is tried again.
    Discard(Next),
}

/// What became of a request, for the access log.
#[derive(Debug)]
pub struct Observation {
    /// Why it ended.
    pub termination: Termination,
    /// Status the client saw; zero when it saw none.
    pub status: u16,
    /// How the variant was chosen.
    pub assignment: Assignment,
    /// Attempts begun.
    pub attempts: u32,
    /// The last attempt went over a reused connection.
    pub reused: bool,
    /// From the first byte of the head to the end.
    pub duration: Duration,
}

/// The policy of one request.
#[derive(Debug)]
pub struct Exchange {
    policy: Rc<Policy>,
    routing: Held,
    service: Option<usize>,
    route: Option<usize>,
    variant: Variant,
    /// Stable was rolled back meanwhile: it is the one before that.
    on_warm: bool,
    assignment: Assignment,
    fresh: Option<SessionId>,
    target: Option<Vec<u8>>,
    client: Option<IpAddr>,
    request_id: [u8; 32],
    strip_header: bool,
    strip_cookie: bool,
    idempotent: bool,
    secure: bool,
    timeout: Duration,
    /// The call is gRPC.
    grpc: bool,
    /// When a gRPC call has taken as long as its client allows.
    call_until: Option<Instant>,
    /// A gRPC response whose status is still to come.
    status_due: bool,
    began: Instant,
    attempt_began: Instant,
    connected: Option<Instant>,
    /// How long the attempt waited for a slot.
    queued: Duration,
    sent: Option<Instant>,
    deadline: Option<Instant>,
    head_at: Option<Instant>,
    attempts: u32,
    tried: [(Variant, u32); TRIED_MAX],
    tried_len: usize,
    history: History,
    reused: bool,
    /// The connection has carried an answer before: if it dies without another one, it had died while nobody used it.
    proven: bool,
    replayed: bool,
    refused: bool,
    bad: bool,
    /// What it counts for the gate.
    sense: Sense,
    status: u16,
    /// Who was tried last: the variant, and the place in its pool, as in [`ServiceLive::endpoint`](crate::state::live::ServiceLive::endpoint).
    endpoint: Option<(Variant, usize)>,
    /// Under what the attempt was let in, until it has said something of its endpoint.
    admission: Option<Admission>,
    /// What falls on the ring, where requests are hashed and this one has a key.
    hash: Option<NonZeroU64>,
    ended: bool,
}

// === impl Attempt ===

impl Attempt {
    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.in_flight.endpoint().key.address
    }
}

// === impl Exchange ===

impl Exchange {
    /// A request whose first byte came at `arrived`, from where its duration counts; nothing is decided about it.
    #[must_use]
    pub fn new(
        policy: &Rc<Policy>,
        routing: &Held,
        head: &RequestHead,
        facts: &ConnFacts,
        arrived: Instant,
        random: &mut fastrand::Rng,
    ) -> Self {
        Self {
            policy: Rc::clone(policy),
            routing: Rc::clone(routing),
            service: None,
            route: None,
            variant: Variant::Stable,
            on_warm: false,
            assignment: Assignment::Bucket,
            fresh: None,
            target: None,
            client: facts.peer,
            request_id: hex_u128(random.u128(..)),
            strip_header: false,
            strip_cookie: false,
            idempotent: is_idempotent(head.get(head.method)),
            secure: facts.secure,
            timeout: Duration::ZERO,
            grpc: head.known(Known::ContentType).is_some_and(grpc::is_grpc),
            call_until: None,
            status_due: false,
            began: arrived,
            attempt_began: arrived,
            connected: None,
            queued: Duration::ZERO,
            sent: None,
            deadline: None,
            head_at: None,
            attempts: 0,
            tried: [(Variant::Stable, 0); TRIED_MAX],
            tried_len: 0,
            history: History::default(),
            reused: false,
            proven: false,
            replayed: false,
            refused: false,
            bad: false,
            sense: Sense::default(),
            status: 0,
            endpoint: None,
            admission: None,
            hash: None,
            ended: false,
        }
    }

    /// Decides where a request goes first.
    pub fn begin(
        &mut self,
        head: &RequestHead,
        facts: &ConnFacts,
        scratch: &mut RouteScratch,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Next {
        let routing = Rc::clone(&self.routing);
        let found = match find_route(&routing.snapshot.routes, head, scratch) {
            Ok(found) => found,
            Err(reply) => {
                self.status = reply.status;
                return Next::Reply(reply);
            }
        };
        let ip = client_ip(head, facts);
        let service = match &found.route.target {
            Target::Service(service) => *service,
            Target::Split { split, key } => {
                *split.pick(sticky::split_bucket(head, ip, key, found.route.matcher.salt(), random))
            }
        };
        let (active, live) = routing.service(service);
        self.service = Some(service);
        self.route = Some(found.index);
        self.target = found.target;
        self.client = ip;
        if self.grpc {
            self.call_until = head.known(Known::GrpcTimeout).and_then(grpc::timeout).map(|allowed| now + allowed);
        }
        self.policy.budgets.request(live.number, now);
        self.timeout = found.route.timeout.unwrap_or(active.service.upstream.response_timeout);
        let openness = active.openness(live.is_candidate_open());
        // Where everything goes to stable anyway, nobody needs a key.
        let undecided = active.service.force.is_some() || (openness.open && openness.weight > Weight::ZERO);
        let reading = if undecided {
            let (force, affinity) = (active.service.force.as_ref(), &active.service.affinity);
            sticky::read(head, ip, force, affinity, active.salt, self.seal(active), random)
        } else {
            Reading::default()
        };
        let (variant, assignment) = assign(openness, reading.wish);
        self.variant = variant;
        self.assignment = assignment;
        self.fresh = reading.fresh.filter(|_| assignment != Assignment::Forced);
        self.strip_header = reading.strip_header;
        self.strip_cookie = reading.strip_cookie;
        self.drawn(service, openness, reading.session, !reading.keyed);
        if active.service.upstream.balance == Balance::RingHash {
            self.hash = sticky::ring_hash(head, ip, &active.service.upstream.hash_key, &active.service.affinity);
        }
        match head.body {
            BodyLength::Exact(n) if facts.listener.limits.max_body.is_some_and(|max| n > max) => {
                Next::Reply(self.reply(Termination::BodyTooLarge))
            }
            _ => self.send(now, random),
        }
    }

    /// The connection is there; `reused` says whether it carried requests before.
    pub fn connected(&mut self, reused: bool, now: Instant) {
        (self.reused, self.proven) = (reused, reused);
        self.connected = Some(now);
        let Some(shard) = self.shard() else { return };
        if reused {
            shard.reused.add(1);
        } else {
            shard.connects.add(1);
        }
    }

    /// The request is fully written: from here on the response head is waited for.
    pub fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
        self.written(now);
        let deadline = *self.deadline.get_or_insert(now + self.timeout);
        self.share(deadline, now);
    }

    /// When the wait for a response head ends: a budget over all attempts that starts once a request was fully written. That of a gRPC
    /// call starts with it and ends with the last byte of the response.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.head_at.is_some() { self.call_until } else { self.patience() }
    }

    /// Judges a final response head.
    pub fn response(
        &mut self,
        head: &ResponseHead,
        replay: Replay,
        now: Instant,
        random: &mut fastrand::Rng,
    ) -> Verdict {
        let took = self.waited(now);
        if let Some(shard) = self.shard().filter(|_| self.sent.is_some()) {
            shard.upstream.record(took);
        }
        self.headed(took, now);
        if head.status >= 500 {
            self.mark_bad(now);
            self.blame(Fault::Status(head.status), now);
            if let Some(next) = self.retry(Reason::ServerError, self.idempotent, replay, now, random) {
                self.remember(Outcome::Status(head.status));
                return Verdict::Discard(next);
            }
        }
        self.head_at = Some(now);
        self.status = head.status;
        self.answered(head, now);
        self.judge_head(head.status, now);
        self.judge_status(head.status, now);
        Verdict::Pass(self.cookie_for(head))
    }

    /// The request is over. Counts it; call it once.
    pub fn end(&mut self, termination: Termination, now: Instant) -> Observation {
        self.ended = true;
        self.count_end(termination, now);
        self.judge_end(termination, now);
        let duration = now.saturating_duration_since(self.began);
        self.policy.process.of(self.policy.worker).terminations[termination as usize].add(1);
        if let Some(shard) = self.shard() {
            shard.requests[usize::from(self.status / 100).min(5)][self.assignment as usize].add(1);
            // How long a tunnel stood says nothing of how fast the upstream is; of a dropped request nobody knows when it ended.
            if self.status != 101 && termination != Termination::Dropped {
                shard.duration.record(duration);
            }
        }
        Observation {
            termination,
            status: self.status,
            assignment: self.assignment,
            attempts: self.attempts,
            reused: self.reused,
            duration,
        }
    }

    /// The proxy answers itself: remembers the status the client sees.
    fn reply(&mut self, termination: Termination) -> Reply {
        let reply = Reply::of(termination);
        self.status = reply.status;
        reply
    }

    /// The service the request goes to.
    #[must_use]
    pub fn service(&self) -> Option<&ActiveService> {
        Some(&self.routing.snapshot.services[self.service?])
    }

    /// What its author wants of the service; only where an attempt exists.
    #[must_use]
    pub fn settings(&self) -> Option<&Arc<Service>> {
        self.service().map(|active| &active.service)
    }

    /// The path to ask the upstream for, where it differs from the client's: dot segments are resolved.
    #[must_use]
    pub fn target(&self) -> Option<&[u8]> {
        self.target.as_deref()
    }

    /// The client's address.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// Whether the variant was aborted while the request is on it.
    #[must_use]
    pub fn is_shut_out(&self) -> bool {
        !self.is_allowed()
    }

    /// Both sides switched to a WebSocket.
    pub fn upgraded(&mut self) {
        self.status = 101;
    }

    /// The route's label.
    #[must_use]
    pub fn route_label(&self) -> Option<&str> {
        Some(&self.routing.snapshot.routes.routes()[self.route?].label)
    }

    /// A request id for a request that came without one.
    #[must_use]
    pub fn request_id(&self) -> &[u8] {
        &self.request_id
    }

    /// The force header or cookie that must not travel on: `(header, cookie)`.
    #[must_use]
    pub fn stripped(&self) -> (Option<&str>, Option<&str>) {
        let Some(force) = self.settings().and_then(|s| s.force.as_ref()) else { return (None, None) };
        (force.header.as_deref().filter(|_| self.strip_header), force.cookie.as_deref().filter(|_| self.strip_cookie))
    }

    fn cookie_for(&self, head: &ResponseHead) -> Option<Vec<u8>> {
        let id = self.fresh.as_ref()?;
        let active = self.service()?;
        let cacheable = head.all_known(Known::CacheControl).any(sticky::is_publicly_cacheable);
        if !active.is_split() || head.status == 304 || head.status == 101 || cacheable {
            return None;
        }
        let affinity = &active.service.affinity;
        Some(sticky::set_cookie(self.policy.spare.take(), affinity, id, self.variant, self.seal(active), self.secure))
    }

    fn seal<'a>(&'a self, active: &'a ActiveService) -> SessionSeal<'a> {
        let secret = active.service.affinity.secret.as_ref().map_or(&self.policy.session_secret[..], |s| &s.0[..]);
        SessionSeal { tag: active.session_tag, secret }
    }

    fn shard(&self) -> Option<&EndpointShard> {
        Some(self.endpoint()?.counters.of(self.policy.worker))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Termination::Dropped, clock::now());
        }
    }
}

/// Whether sending a request twice means the same as sending it once (RFC 9110 section 9.2.2).
fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

#[cfg(test)]
mod tests;
