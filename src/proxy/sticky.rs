//! What a request says about its variant: force header or cookie, session cookie, affinity key. Decides nothing about the weight.

use std::borrow::Cow;
use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU64;

use ring::hmac;
use siphasher::sip::SipHasher13;
use subtle::ConstantTimeEq;

use crate::core::assign::{Salt, Wish, bucket_of};
use crate::core::fields;
use crate::core::id::Variant;
use crate::core::service::{Affinity, Force, KeySource, OnIncrease, SameSite, Secret};

use super::h1::bytes::push_decimal;
use super::headers::{Known, RequestHead};

/// Bytes of a session id we issue, in base 16.
pub const ID_LEN: usize = 32;
const ID_LEN_MIN: usize = 8;
const ID_LEN_MAX: usize = 64;
/// Bytes of the authentication code kept in a cookie (HMAC-SHA-256 truncated to 128 bit).
const MAC_LEN: usize = 16;

/// What a request says, and what follows from it.
#[derive(Debug, Default)]
pub struct Reading {
    /// For the assignment.
    pub wish: Wish,
    /// Id to put into a new cookie, when one is due: `Some(id)`.
    pub fresh: Option<SessionId>,
    /// The force header must not travel on.
    pub strip_header: bool,
    /// The force cookie must not travel on (it carries a secret).
    pub strip_cookie: bool,
    /// The bucket comes from a key of the request, not from a draw.
    pub keyed: bool,
    /// Hash of the key, or of the id it is given: stands for the session.
    pub session: u64,
}

/// The id part of our cookie.
#[derive(Clone, Copy, Debug)]
pub struct SessionId {
    bytes: [u8; ID_LEN_MAX],
    len: u8,
}

/// What identifies a session's rollout and proves that we issued it.
#[derive(Clone, Copy)]
pub struct SessionSeal<'a> {
    /// Names service, candidate and retry.
    pub tag: u64,
    /// Key of the authentication code.
    pub secret: &'a [u8],
}

struct Own<'a> {
    id: &'a [u8],
    sticky: Option<Variant>,
}

/// Reads force, session and key from a request.
///
/// `ip` is the client's address, `salt` the service's, `random` yields uniform bits (for a new id only).
pub fn read(
    head: &RequestHead,
    ip: Option<IpAddr>,
    force: Option<&Force>,
    affinity: &Affinity,
    salt: Salt,
    seal: SessionSeal<'_>,
    random: &mut fastrand::Rng,
) -> Reading {
    let mut reading = Reading::default();
    if let Some(force) = force {
        read_force(head, ip, force, &mut reading);
    }
    let own = own_cookie(head, affinity, seal);
    let sessions = affinity.on_increase == OnIncrease::NewSessions;
    reading.wish.sticky = own.as_ref().and_then(|own| own.sticky).filter(|_| sessions);
    if let Some(hash) = hash_of_key(head, ip, affinity, salt, own.as_ref()) {
        reading.session = hash;
        reading.keyed = true;
        if sessions && reading.wish.sticky.is_none() {
            reading.fresh = Some(own.map_or_else(|| SessionId::random(random), |own| SessionId::of(own.id)));
        }
    } else {
        let id = SessionId::random(random);
        reading.session = salt.hash(id.as_bytes());
        reading.fresh = Some(id);
    }
    reading.wish.bucket = bucket_of(reading.session);
    reading
}

/// The bucket of a request for a route's fixed split: by its key, or drawn anew.
pub fn split_bucket(
    head: &RequestHead,
    ip: Option<IpAddr>,
    key: &[KeySource],
    salt: Salt,
    random: &mut fastrand::Rng,
) -> u16 {
    split_key_bucket(head, ip, key, salt).unwrap_or_else(|| bucket_of(random.u64(..)))
}

/// The same, if the request has a key.
#[must_use]
pub fn split_key_bucket(head: &RequestHead, ip: Option<IpAddr>, key: &[KeySource], salt: Salt) -> Option<u16> {
    key.iter().find_map(|source| with_key(head, ip, source, |bytes| salt.bucket(bytes)))
}

/// Where a request falls on a ring of endpoints: by the first of `keys` it has. Ours is the id in the cookie of `affinity`.
#[must_use]
pub fn ring_hash(
    head: &RequestHead,
    ip: Option<IpAddr>,
    keys: &[KeySource],
    affinity: &Affinity,
) -> Option<NonZeroU64> {
    let hash = |bytes: &[u8]| {
        let mut hasher = SipHasher13::new();
        hasher.write(bytes);
        NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
    };
    keys.iter().find_map(|source| match source {
        KeySource::OwnCookie => own_id(head, affinity).map(hash),
        source => with_key(head, ip, source, hash),
    })
}

/// The `Set-Cookie` value that keeps a session, in the memory of `out`: in `new_sessions` mode it carries the variant, sealed.
#[must_use]
pub fn set_cookie(
    mut out: Vec<u8>,
    affinity: &Affinity,
    id: &SessionId,
    variant: Variant,
    seal: SessionSeal<'_>,
    secure: bool,
) -> Vec<u8> {
    let cookie = &affinity.cookie;
    out.clear();
    out.extend_from_slice(cookie.name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(id.as_bytes());
    if affinity.on_increase == OnIncrease::NewSessions {
        let code = variant_code(variant);
        out.push(b'.');
        out.push(code);
        out.push(b'.');
        push_hex(&mut out, &seal.tag.to_be_bytes());
        out.push(b'.');
        push_hex(&mut out, &mac(seal, id.as_bytes(), code));
    }
    out.extend_from_slice(b"; Path=/; Max-Age=");
    push_decimal(&mut out, cookie.max_age.as_secs());
    let same_site: &[u8] = match cookie.same_site {
        SameSite::Strict => b"Strict",
        SameSite::Lax => b"Lax",
        SameSite::None => b"None",
    };
    out.extend_from_slice(b"; HttpOnly; SameSite=");
    out.extend_from_slice(same_site);
    if secure || cookie.same_site == SameSite::None {
        out.extend_from_slice(b"; Secure");
    }
    out
}

/// Whether shared caches may keep a response, so that a cookie in it could reach other users (RFC 9111 section 3).
#[must_use]
pub fn is_publicly_cacheable(cache_control: &[u8]) -> bool {
    let mut shared = false;
    for directive in cache_control.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        let name = directive.split(|&b| b == b'=').next().unwrap_or_default();
        let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
        // With field names `private` leaves the rest of the response to shared caches (RFC 9111 section 5.2.2.7).
        if directive.eq_ignore_ascii_case(b"private") || is(b"no-store") {
            return false;
        }
        let zero = directive.ends_with(b"=0");
        shared |= is(b"public") || ((is(b"s-maxage") || is(b"max-age")) && !zero);
    }
    shared
}

// === force ===

fn read_force(head: &RequestHead, ip: Option<IpAddr>, force: &Force, reading: &mut Reading) {
    let allowed = force.allows(ip);
    let by_header = force.header.as_deref().and_then(|name| {
        head.fields_named(name.as_bytes()).find_map(|value| forced_variant(value, force.secret.as_ref()))
    });
    let by_cookie = force.cookie.as_deref().and_then(|name| {
        let value = head.all_known(Known::Cookie).find_map(|value| fields::cookie(value, name.as_bytes()))?;
        forced_variant(value, force.secret.as_ref())
    });
    reading.wish.forced = by_header.or(by_cookie).filter(|_| allowed);
    reading.strip_header = force.secret.is_some() || !allowed || by_header.is_none();
    reading.strip_cookie = force.secret.is_some();
}

fn forced_variant(value: &[u8], secret: Option<&Secret>) -> Option<Variant> {
    let word = match secret {
        None => value,
        Some(secret) => {
            let colon = value.iter().position(|&b| b == b':')?;
            let given = &value[colon + 1..];
            if !bool::from(given.ct_eq(&secret.0)) {
                return None;
            }
            &value[..colon]
        }
    };
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("true") || is("candidate") {
        Some(Variant::Candidate)
    } else if is("false") || is("stable") {
        Some(Variant::Stable)
    } else {
        None
    }
}

// === keys ===

fn hash_of_key(
    head: &RequestHead,
    ip: Option<IpAddr>,
    affinity: &Affinity,
    salt: Salt,
    own: Option<&Own<'_>>,
) -> Option<u64> {
    let keyed = affinity.key.iter().find_map(|source| match source {
        KeySource::OwnCookie => own.map(|own| salt.hash(own.id)),
        source => with_key(head, ip, source, |bytes| salt.hash(bytes)),
    });
    // A client none of the sources is present for got our cookie, so ours is always the last source.
    keyed.or_else(|| own.map(|own| salt.hash(own.id)))
}

fn with_key<T>(head: &RequestHead, ip: Option<IpAddr>, source: &KeySource, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
    match source {
        KeySource::OwnCookie => None,
        KeySource::Cookie(name) => {
            let value = head.all_known(Known::Cookie).find_map(|value| fields::cookie(value, name.as_bytes()))?;
            (!value.is_empty()).then(|| take(value))
        }
        KeySource::Header(name) => {
            let value = head.field(name.as_bytes())?;
            (!value.is_empty()).then(|| take(value))
        }
        KeySource::Query(name) => {
            let value: Cow<'_, [u8]> = fields::query_param(head.get(head.query?), name.as_bytes())?;
            (!value.is_empty()).then(|| take(&value))
        }
        KeySource::ClientIp => match ip? {
            IpAddr::V4(ip) => Some(take(&ip.octets())),
            IpAddr::V6(ip) => Some(take(&ip.octets())),
        },
    }
}

// === our cookie ===

fn own_cookie<'a>(head: &'a RequestHead, affinity: &Affinity, seal: SessionSeal<'_>) -> Option<Own<'a>> {
    let value = own_value(head, affinity)?;
    let mut parts = value.split(|&b| b == b'.');
    let id = parts.next().filter(|id| is_id(id))?;
    let sticky = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(&[code]), Some(tag), Some(mac), None) => sealed_variant(id, code, tag, mac, seal),
        _ => None,
    };
    Some(Own { id, sticky })
}

fn own_value<'a>(head: &'a RequestHead, affinity: &Affinity) -> Option<&'a [u8]> {
    let name = affinity.cookie.name.as_bytes();
    head.all_known(Known::Cookie).find_map(|value| fields::cookie(value, name))
}

fn own_id<'a>(head: &'a RequestHead, affinity: &Affinity) -> Option<&'a [u8]> {
    own_value(head, affinity)?.split(|&b| b == b'.').next().filter(|id| is_id(id))
}

fn sealed_variant(id: &[u8], code: u8, tag: &[u8], given: &[u8], seal: SessionSeal<'_>) -> Option<Variant> {
    let variant = match code {
        b's' => Variant::Stable,
        b'c' => Variant::Candidate,
        _ => return None,
    };
    let (tag, given) = (unhex::<8>(tag)?, unhex::<MAC_LEN>(given)?);
    let fits = u64::from_be_bytes(tag) == seal.tag && bool::from(mac(seal, id, code).ct_eq(&given));
    fits.then_some(variant)
}

/// Seals id, variant and rollout. The tag already stands for service and candidate.
fn mac(seal: SessionSeal<'_>, id: &[u8], code: u8) -> [u8; MAC_LEN] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seal.secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(&seal.tag.to_be_bytes());
    context.update(&[code]);
    context.update(id);
    let tag = context.sign();
    let mut mac = [0; MAC_LEN];
    mac.copy_from_slice(&tag.as_ref()[..MAC_LEN]);
    mac
}

fn is_id(id: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (ID_LEN_MIN..=ID_LEN_MAX).contains(&id.len()) && id.iter().all(allowed)
}

const fn variant_code(variant: Variant) -> u8 {
    match variant {
        Variant::Stable => b's',
        Variant::Candidate => b'c',
    }
}

// === impl SessionId ===

impl SessionId {
    /// A new id of 128 random bits.
    pub fn random(random: &mut fastrand::Rng) -> Self {
        Self::of(&hex_u128(random.u128(..)))
    }

    fn of(id: &[u8]) -> Self {
        let mut bytes = [0; ID_LEN_MAX];
        let len = id.len().min(ID_LEN_MAX);
        bytes[..len].copy_from_slice(&id[..len]);
        Self { bytes, len: u8::try_from(len).unwrap_or_default() }
    }

    /// The id as it stands in the cookie.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

// === base 16 ===

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Both digits of every byte.
static HEX_PAIRS: [[u8; 2]; 256] = hex_pairs();

const fn hex_pairs() -> [[u8; 2]; 256] {
    let mut pairs = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        pairs[at] = [HEX[at >> 4], HEX[at & 15]];
        at += 1;
    }
    pairs
}

/// 128 bits in base 16.
#[must_use]
pub fn hex_u128(bits: u128) -> [u8; 32] {
    let mut out = [0; 32];
    for (pair, byte) in out.as_chunks_mut().0.iter_mut().zip(bits.to_be_bytes()) {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
    out
}

fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&HEX_PAIRS[usize::from(*byte)]);
    }
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).filter(|_| !b.is_ascii_uppercase());
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests;
