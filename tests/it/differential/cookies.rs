//! Cookies: every reader of ours finds the same, and only what we issued is believed.

use std::sync::Arc;
use std::time::Duration;

use tidegate::core::assign::Salt;
use tidegate::core::fields;
use tidegate::core::id::Variant;
use tidegate::core::service::{Affinity, AffinityCookie, KeySource, OnIncrease, SaltMode, SameSite};
use tidegate::proxy::h1::head::parse_request;
use tidegate::proxy::headers::{Known, RequestHead};
use tidegate::proxy::sticky::{self, SessionId, SessionSeal};

use super::codec::limits;
use super::random::random_of;

/// The name of our own cookie here.
const OWN: &str = "tide";

/// Checks `Cookie` fields, one per line.
///
/// # Panics
/// Two readers of ours find different cookies, or one that is not ours is believed.
pub fn check(input: &[u8]) {
    let mut random = random_of(input);
    let Some(head) = head(input, b"") else { return };
    for (name, value) in head.cookies().filter(|(name, _)| !name.is_empty()) {
        let first = head.all_known(Known::Cookie).find_map(|field| fields::cookie(field, name));
        // The core takes the quotes off that RFC 6265 section 4.1.1 allows around a value.
        assert_eq!(first, head.cookie(name).map(unquoted), "cookie {} ({})", name.escape_ascii(), value.escape_ascii());
    }
    let secret: Arc<[u8]> = (*b"a key nobody guesses").into();
    let seal = SessionSeal { tag: 7, secret: &secret };
    let (affinity, salt) = (affinity(), Salt::of_route(&[b"a", b"b", b"c"]));
    let mut read = |head: &RequestHead| sticky::read(head, None, None, &affinity, salt, seal, &mut random);
    let reading = read(&head);
    assert_eq!(reading.wish.sticky, None, "a cookie we never issued");
    if head.cookie(OWN.as_bytes()).is_some() {
        return;
    }
    let id = SessionId::random(&mut fastrand::Rng::with_seed(1));
    let issued = sticky::set_cookie(Vec::new(), &affinity, &id, Variant::Candidate, seal, false);
    let pair = issued.split(|byte| *byte == b';').next().expect("a pair");
    let back = self::head(input, pair).expect("taken before");
    assert_eq!(read(&back).wish.sticky, Some(Variant::Candidate), "{}", back.bytes.escape_ascii());
    for at in OWN.len() + 1..pair.len() {
        let mut forged = pair.to_vec();
        forged[at] ^= 1;
        if let Some(forged) = self::head(input, &forged) {
            assert_eq!(read(&forged).wish.sticky, None, "{}", forged.bytes.escape_ascii());
        }
    }
}

/// A request with the lines of `input` and `last` as `Cookie` fields, if it can be one.
fn head(input: &[u8], last: &[u8]) -> Option<RequestHead> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    for line in input.split(|byte| *byte == b'\n').chain([last]) {
        bytes.extend_from_slice(b"Cookie: ");
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let clean = |byte: &u8| *byte == b'\t' || *byte == b'\n' || (*byte >= b' ' && *byte != 0x7f);
    let mut head = RequestHead { bytes, ..RequestHead::default() };
    let length = head.bytes.len();
    (input.iter().all(clean) && parse_request(&mut head, length, &limits(super::KEEP)).is_ok()).then_some(head)
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

fn affinity() -> Affinity {
    Affinity {
        key: vec![KeySource::Cookie("session".into()), KeySource::OwnCookie],
        cookie: AffinityCookie { name: OWN.into(), max_age: Duration::from_secs(60), same_site: SameSite::Lax },
        salt: SaltMode::Static,
        on_increase: OnIncrease::NewSessions,
        secret: None,
    }
}
