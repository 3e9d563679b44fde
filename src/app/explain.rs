//! `GET /v1/explain`: asks the same code that serves requests, without sending anything.

use std::net::IpAddr;
use std::sync::Arc;

use crate::admin::explain::{Explained, Explainer, Question};
use crate::config::settings::{Limits, Listener, Underscores};
use crate::control::handle::ControlHandle;
use crate::control::status;
use crate::core::assign::{Assignment, assign};
use crate::core::id::Variant;
use crate::core::route::Target;
use crate::core::route::explain::Explanation;
use crate::core::snapshot::ActiveService;
use crate::core::weight::Weight;
use crate::proxy::facts::{ConnFacts, client_ip};
use crate::proxy::h1::head::{HeadLimits, ScanState, parse_request, scan_head};
use crate::proxy::headers::RequestHead;
use crate::proxy::routing::{RouteScratch, Routed, route};
use crate::proxy::sticky::{self, Reading, SessionSeal};
use crate::state::current::{Current, Routing};
use crate::state::live::ServiceLive;

/// Endpoints of which it is said one by one why they cannot be used.
const TOLD_MAX: usize = 8;

/// Answers what would become of a request. `session_secret` is the key of this process for session cookies.
pub(super) fn explainer(current: Current, control: ControlHandle, session_secret: [u8; 32]) -> Explainer {
    Arc::new(move |question| {
        let settings = control.settings();
        let Some(listener) = settings.listeners.first() else { return Err("there is no listener".to_owned()) };
        Ok(explain(&current.load(), &Arc::new(listener.clone()), &session_secret, question))
    })
}

fn explain(routing: &Routing, listener: &Arc<Listener>, session_secret: &[u8], question: &Question) -> Explained {
    let mut explained = Explained { generation: routing.snapshot.generation, ..Explained::default() };
    let head = match head(question, &listener.limits, listener.underscores) {
        Ok(head) => head,
        Err((status, cause)) => {
            explained.refused = Some(status);
            explained.because.push(format!("refused with {status}: {cause}"));
            return explained;
        }
    };
    let peer = question.client_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let facts = ConnFacts::new(Arc::clone(listener), Some(peer), question.tls);
    let mut scratch = RouteScratch::default();
    let routed = route(&head, &mut scratch, |subject| routing.snapshot.routes.explain(subject));
    let explanation = match routed {
        Ok(Routed { found, .. }) => found,
        Err(reply) => {
            explained.refused = Some(reply.status);
            explained.because.push(format!("refused with {}: {}", reply.status, reply.detail));
            return explained;
        }
    };
    tell_route(routing, &explanation, &mut explained);
    let Some(index) = explanation.found else {
        explained.refused = Some(404);
        return explained;
    };
    let ip = client_ip(&head, &facts);
    let service = service(routing, index, &head, ip, &mut explained);
    tell_variant(routing, service, &head, ip, session_secret, &mut explained);
    explained
}

/// The head as the question describes it, through the parser that reads clients.
fn head(question: &Question, limits: &Limits, underscores: Underscores) -> Result<RequestHead, (u16, &'static str)> {
    let named = |name: &str| question.headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    let host = match &question.host {
        Some(host) => Some(host.as_str()),
        None if !named("host") => Some("localhost"),
        None => None,
    };
    let fields = question.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let fields = fields.filter(|(name, _)| question.host.is_none() || !name.eq_ignore_ascii_case("host"));
    let lines = host.map(|host| ("host", host)).into_iter().chain(fields);
    let mut bytes = format!("{} {} HTTP/1.1\r\n", question.method, question.target).into_bytes();
    for (name, value) in lines {
        for part in [name, ": ", value, "\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    let limits = HeadLimits::new(limits, underscores);
    let mut head = RequestHead { bytes, ..RequestHead::default() };
    let len = scan_head(&head.bytes, &mut ScanState::default(), &limits).map_err(|r| (r.status, r.cause))?;
    let len = len.filter(|&len| len == head.bytes.len()).ok_or((400, "a line break within a header"))?;
    parse_request(&mut head, len, &limits).map_err(|r| (r.status, r.cause))?;
    Ok(head)
}

fn tell_route(routing: &Routing, explanation: &Explanation<'_>, explained: &mut Explained) {
    let label = |index: usize| routing.snapshot.routes.routes()[index].label.clone();
    match explanation.found {
        Some(index) => {
            explained.route = Some(label(index));
            explained.because.push(match explanation.won_by {
                Some(criterion) => format!("{} takes it: {}", label(index), criterion.as_str()),
                None => format!("{} is the only route that takes it", label(index)),
            });
        }
        None => explained.because.push("no route takes it: the answer is 404".to_owned()),
    }
    for lost in &explanation.lost {
        explained.because.push(format!("{} would take it too; of the winner, {}", label(lost.route), lost.by));
    }
    for near in &explanation.near {
        explained.because.push(format!("{} does not take it: {}", label(near.route), near.miss));
    }
}

fn service(
    routing: &Routing,
    index: usize,
    head: &RequestHead,
    ip: Option<IpAddr>,
    explained: &mut Explained,
) -> usize {
    let found = &routing.snapshot.routes.routes()[index];
    match &found.target {
        Target::Service(service) => *service,
        Target::Split { split, key } => {
            let keyed = sticky::split_key_bucket(head, ip, key, found.matcher.salt());
            let bucket = keyed.unwrap_or_else(|| fastrand::u16(0..10_000));
            explained.because.push(match keyed {
                Some(bucket) => format!("its key falls into bucket {bucket} of the split"),
                None => "the split has no key for it: its share is drawn anew for each request".to_owned(),
            });
            *split.pick(bucket)
        }
    }
}

fn tell_variant(
    routing: &Routing,
    service: usize,
    head: &RequestHead,
    ip: Option<IpAddr>,
    session_secret: &[u8],
    explained: &mut Explained,
) {
    let (active, live) = routing.service(service);
    let affinity = &active.service.affinity;
    let secret = affinity.secret.as_ref().map_or(session_secret, |secret| &secret.0[..]);
    let seal = SessionSeal { tag: active.session_tag, secret };
    let mut random = fastrand::Rng::new();
    let reading = sticky::read(head, ip, active.service.force.as_ref(), affinity, active.salt, seal, &mut random);
    let openness = active.openness(live.is_candidate_open());
    let (variant, assignment) = assign(openness, reading.wish);
    let keyed = reading.keyed;
    explained.service = Some(active.service.name.to_string());
    explained.variant = Some(variant.as_str());
    explained.version = active.version(variant).map(ToString::to_string);
    explained.assignment = Some(assignment.as_str());
    explained.bucket = Some(reading.wish.bucket).filter(|_| keyed && assignment == Assignment::Bucket);
    explained.weight = Some(active.running.weight.to_string());
    explained.endpoints = status::endpoints(active, live, variant);
    explained.because.push(reason(active, variant, assignment, &reading, openness.open));
    let follows = matches!((variant, assignment), (Variant::Candidate, Assignment::Sticky | Assignment::Bucket));
    explained.because.extend(tell_pool(active, live, variant, follows));
}

/// What is unusual about who of a pool may be used; `follows`: stable answers where nobody of the candidate can.
fn tell_pool(active: &ActiveService, live: &ServiceLive, variant: Variant, follows: bool) -> Vec<String> {
    let pool = live.pool(variant);
    let usable = pool.iter().any(|endpoint| endpoint.is_usable());
    let in_panic = variant == Variant::Stable && live.panic.is_on();
    if usable && !in_panic {
        return Vec::new();
    }
    if pool.is_empty() {
        let then = if follows { "stable answers" } else { "the answer is 503" };
        let mut told = vec![format!("no endpoint of {variant} is known: {then}")];
        told.extend(follows.then(|| tell_pool(active, live, Variant::Stable, false)).into_iter().flatten());
        return told;
    }
    // As for a request: stable alone knows panic, and whoever has switched it off is left with nobody.
    let may_panic = in_panic || active.service.outlier.panic_threshold != Weight::ZERO;
    if variant == Variant::Stable && may_panic && pool.iter().any(|endpoint| endpoint.ever_passed()) {
        let why = if in_panic { "too few endpoints of stable are usable" } else { "no endpoint of stable is usable" };
        return vec![format!("{why}: all that ever passed a probe and are not drained are used (panic)")];
    }
    let why = |endpoint: &status::EndpointStatus| match (endpoint.drained_since_ms, endpoint.health) {
        (Some(_), _) => format!("{} is drained", endpoint.address),
        (None, "ready") => format!("{} is ejected", endpoint.address),
        (None, health) => format!("{} is {}", endpoint.address, health.replace('_', " ")),
    };
    let all = status::endpoints(active, live, variant);
    let mut each: Vec<String> = all.iter().take(TOLD_MAX).map(why).collect();
    each.extend((all.len() > TOLD_MAX).then(|| format!("{} more", all.len() - TOLD_MAX)));
    let then = if follows { "stable answers" } else { "the answer is 503" };
    let mut told = vec![format!("no endpoint of {variant} can be used ({}): {then}", each.join(", "))];
    if follows {
        told.extend(tell_pool(active, live, Variant::Stable, false));
    }
    told
}

fn reason(active: &ActiveService, variant: Variant, assignment: Assignment, reading: &Reading, open: bool) -> String {
    let weight = active.running.weight;
    match assignment {
        Assignment::Forced if reading.wish.forced == Some(variant) => {
            format!("{variant}: a force header or cookie says so")
        }
        Assignment::Forced => format!("{variant}: the candidate is forced, but it receives nothing now"),
        Assignment::Sticky => format!("{variant}: its session began there"),
        _ if active.service.candidate.is_none() => format!("{variant}: there is no candidate"),
        _ if !open => format!("{variant}: the candidate was aborted"),
        _ if !reading.keyed => {
            format!("{variant}: no key yet, drawn anew for each request; the candidate has {weight}")
        }
        _ => {
            format!("{variant}: its key falls into bucket {} of 10000; the candidate has {weight}", reading.wish.bucket)
        }
    }
}
