//! Where other readers are known to differ, one narrow rule each, with its reason. Everything else is a failure.

use std::borrow::Cow;

use super::message::{Pair, Request};

/// Who is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oracle {
    Hyper,
    Pingora,
}

/// A difference that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// hyper takes targets that are URIs by the grammar of the `http` crate, and refuses others. We pass on what browsers send raw
    /// (`|`, `^`, `<`) and what is not UTF-8; the upstream decides.
    HyperTargets,
    /// hyper keeps the three largest 64-bit numbers for purposes of its own and refuses them as Content-Length.
    HyperLengths,
    /// pingora compares the authority of an absolute form with Host byte by byte; to us letter case and the default port do not matter
    /// (RFC 9110 section 4.2.3).
    PingoraAuthority,
    /// pingora escapes what its parser does not take, and then refuses what is still no URI by the grammar of the `http` crate.
    PingoraTargets,
    /// pingora looks at the first `Connection` field only, knows `keep-alive` only when it stands alone there, and nothing of a value
    /// that is not UTF-8.
    PingoraPersistence,
    /// We close after a request that asks for WebSocket, whatever the answer: who takes the answer for a tunnel must not have what follows
    /// read as requests. The others go on when they do not switch protocols.
    UpgradeCloses,
}

/// Why `oracle` may refuse what we accept; `None` if nothing explains it.
#[must_use]
pub fn refusal(oracle: Oracle, ours: &Request) -> Option<Rule> {
    let absolute = !ours.raw_target.starts_with(b"/") && ours.raw_target != b"*";
    match oracle {
        Oracle::Hyper if !is_uri(&ours.raw_target) => Some(Rule::HyperTargets),
        Oracle::Hyper => length_refusal(oracle, &ours.fields),
        Oracle::Pingora if absolute && field(&ours.fields, b"host") != Some(authority(&ours.raw_target)) => {
            Some(Rule::PingoraAuthority)
        }
        Oracle::Pingora if !is_uri(&ours.raw_target) => Some(Rule::PingoraTargets),
        Oracle::Pingora => None,
    }
}

/// The same, of a message with these fields.
#[must_use]
pub fn length_refusal(oracle: Oracle, fields: &[Pair]) -> Option<Rule> {
    let length = str::from_utf8(field(fields, b"content-length")?).ok()?.parse::<u64>().ok()?;
    (oracle == Oracle::Hyper && length > u64::MAX - 2).then_some(Rule::HyperLengths)
}

/// Why `oracle` may judge otherwise whether another request follows.
#[must_use]
pub fn persistence(oracle: Oracle, ours: &Request) -> Option<Rule> {
    if !ours.keep_alive && lists(ours, b"connection", b"upgrade") && lists(ours, b"upgrade", b"websocket") {
        return Some(Rule::UpgradeCloses);
    }
    let mut values = ours.fields.iter().filter(|(name, _)| name == b"connection").map(|(_, value)| value);
    let first = values.next()?;
    let alone = values.next().is_none() && !first.contains(&b',') && first.is_ascii();
    (oracle == Oracle::Pingora && !alone).then_some(Rule::PingoraPersistence)
}

/// Whether a field of this name has `word` among its elements.
fn lists(request: &Request, name: &[u8], word: &[u8]) -> bool {
    let values = request.fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value);
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(word))
}

/// The target in the form `oracle` has it: of an absolute form the part from the path on, empty paths as `/`, `*` for an empty path with
/// OPTIONS (RFC 9112 section 3.2.4), and nothing escaped that was not escaped before.
#[must_use]
pub fn target<'a>(ours: &Request, theirs: &'a [u8]) -> Cow<'a, [u8]> {
    let raw = &ours.raw_target;
    if raw.starts_with(b"/") || raw == b"*" {
        return Cow::Borrowed(theirs);
    }
    let rest = match scheme_end(theirs) {
        Some(end) => &theirs[end + authority(theirs).len()..],
        None => theirs,
    };
    let bare = scheme_end(raw).is_some_and(|end| raw.len() == end + authority(raw).len());
    match rest {
        b"" | b"/" if bare && ours.method == b"OPTIONS" => Cow::Borrowed(b"*"),
        [b'/', ..] => Cow::Borrowed(rest),
        rest => Cow::Owned([b"/", rest].concat()),
    }
}

/// `target` as pingora escapes what its parser does not take.
#[must_use]
pub fn escaped(target: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(target.len());
    for byte in target {
        if byte.is_ascii_graphic() && !b"\"<>`{}|^\\".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// Whether hyper takes `target`.
#[must_use]
pub fn is_uri(target: &[u8]) -> bool {
    // Its own parser in front of that is stricter with bytes that are not ASCII or not in RFC 3986.
    hyper::Uri::try_from(target).is_ok() && target.iter().all(u8::is_ascii_graphic)
}

fn scheme_end(target: &[u8]) -> Option<usize> {
    if target.starts_with(b"/") {
        return None;
    }
    target.windows(3).position(|window| window == b"://").map(|at| at + 3)
}

/// The authority of an absolute form.
fn authority(target: &[u8]) -> &[u8] {
    let rest = &target[scheme_end(target).unwrap_or(0)..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    &rest[..end]
}

fn field<'a>(fields: &'a [Pair], name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
}
