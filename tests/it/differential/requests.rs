//! What we accept from clients, everybody reads alike; and what we write to upstreams, everybody reads as what we accepted.

use tidegate::config::settings::Underscores;

use super::codec;
use super::message::{End, Request, Requests};
use super::oracle;
use super::origin;
use super::random::{cuts, random_of};
use super::tolerated::{self, Oracle, Rule};

/// Checks a stream of requests.
///
/// # Panics
/// Two readers see different messages.
pub fn check(raw: &[u8]) {
    let mut random = random_of(raw);
    let limits = codec::limits(if random.bool() { Underscores::Keep } else { Underscores::Drop });
    let (ours, accepted) = codec::requests(raw, &[], limits);
    for cuts in cuts(raw, &mut random) {
        let (split, _) = codec::requests(raw, &cuts, limits);
        assert_eq!(split, ours, "split at {cuts:?}");
    }
    if ours.messages.is_empty() && !matches!(ours.end, End::Closed | End::Cut) {
        return;
    }
    let keep = limits.underscores == Underscores::Keep;
    compare(Oracle::Hyper, &ours, &visible(oracle::hyper::requests(raw), keep));
    compare(Oracle::Pingora, &ours, &visible(oracle::pingora::requests(raw), keep));
    origin::check(&accepted, origin::ORIGINS, &mut random);
}

/// Leaves out the fields that are dropped for their names.
fn visible(mut requests: Requests, underscores: bool) -> Requests {
    if !underscores {
        for message in &mut requests.messages {
            message.fields.retain(|(name, _)| !name.contains(&b'_'));
            if let Some(trailers) = &mut message.trailers {
                trailers.retain(|(name, _)| !name.contains(&b'_'));
            }
        }
    }
    requests
}

/// Compares what we see with what another reader sees.
fn compare(oracle: Oracle, ours: &Requests, theirs: &Requests) {
    for (n, message) in ours.messages.iter().enumerate() {
        let Some(other) = theirs.messages.get(n) else {
            if let Some(rule) = tolerated::refusal(oracle, message) {
                return used(rule);
            }
            panic!("{oracle:?} does not see request {n}\nours: {ours:?}\ntheirs: {theirs:?}");
        };
        if let Err(what) = same(oracle, message, other, &ours.end) {
            if let Some(rule) = tolerated::refusal(oracle, message).filter(|_| !other.complete) {
                return used(rule);
            }
            panic!("{oracle:?} sees another {what} in request {n}\nours: {ours:?}\ntheirs: {theirs:?}");
        }
        if oracle == Oracle::Pingora && message.keep_alive != other.keep_alive {
            let rule = tolerated::persistence(oracle, message);
            used(
                rule.unwrap_or_else(|| {
                    panic!("another persistence of request {n}\nours: {ours:?}\ntheirs: {theirs:?}")
                }),
            );
        }
    }
    // Pingora is made to read on behind the last one.
    let more = theirs.messages.len() > ours.messages.len();
    let closes = |message| tolerated::persistence(oracle, message).is_none();
    let last = ours.end == End::Last && oracle == Oracle::Hyper && ours.messages.last().is_some_and(closes);
    let silent = matches!(ours.end, End::Closed | End::Cut) || last;
    assert!(!(more && silent), "{oracle:?} sees more requests\nours: {ours:?}\ntheirs: {theirs:?}");
}

/// Whether both are the same request; otherwise what differs.
fn same(oracle: Oracle, ours: &Request, theirs: &Request, end: &End) -> Result<(), &'static str> {
    let target = tolerated::target(ours, &theirs.target);
    let escaped = oracle == Oracle::Pingora && *target == *tolerated::escaped(&ours.target);
    let check = |same: bool, what| if same { Ok(()) } else { Err(what) };
    check(ours.method == theirs.method, "method")?;
    check(*target == *ours.target || escaped, "target")?;
    check(ours.minor == theirs.minor, "version")?;
    check(ours.fields == theirs.fields, "field")?;
    if ours.complete {
        check(theirs.complete, "end")?;
        check(ours.body == theirs.body, "body")?;
        check(theirs.trailers.is_none() || ours.trailers == theirs.trailers, "trailer")
    } else {
        // What we refuse within a body another reader may take.
        check(!theirs.complete || matches!(end, End::Refused(..)), "end")?;
        let common = ours.body.len().min(theirs.body.len());
        check(ours.body[..common] == theirs.body[..common], "body")
    }
}

/// A rule explains a difference: counted when the runs are asked to tell.
fn used(rule: Rule) {
    if std::env::var_os("TIDEGATE_RULES").is_some() {
        eprintln!("tolerated: {rule:?}");
    }
}
