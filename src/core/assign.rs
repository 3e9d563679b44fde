//! Which variant a request goes to: forced, else sticky, else by its bucket.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

use super::id::{Name, Variant, Version};
use super::service::SaltMode;
use super::weight::{GRAINS, Weight};

/// How the variant of a request was chosen, or why it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assignment {
    /// By a force header or cookie.
    Forced,
    /// By a session that began there.
    Sticky,
    /// By hash of the affinity key against the weight.
    Bucket,
    /// The candidate could not be reached, so stable answered.
    Fallback,
}

/// Key of the bucket hash (SipHash-1-3): equal on every replica for equal inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u64, u64);

/// What a candidate may receive at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Openness {
    /// Share of the buckets; zero without a candidate.
    pub weight: Weight,
    /// Whether the candidate may receive assigned requests (false after an abort, at once).
    pub open: bool,
    /// Whether force still reaches it although it is closed (`keep_candidate`).
    pub open_to_force: bool,
    /// Whether a candidate exists at all.
    pub exists: bool,
}

/// What a request says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// A valid, allowed force header or cookie.
    pub forced: Option<Variant>,
    /// A valid session of the current rollout (`on_increase = "new_sessions"`).
    pub sticky: Option<Variant>,
    /// The bucket of its key, in `0..10000`.
    pub bucket: u16,
}

// === impl Assignment ===

impl Assignment {
    /// All, in index order.
    pub const ALL: [Self; 4] = [Self::Forced, Self::Sticky, Self::Bucket, Self::Fallback];

    /// The word used in the metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Sticky => "sticky",
            Self::Bucket => "bucket",
            Self::Fallback => "fallback",
        }
    }
}

// === impl Salt ===

impl Salt {
    /// The salt of a service's variant draw. With [`SaltMode::Rollout`] it depends on the candidate and the retry count.
    #[must_use]
    pub fn of_service(mode: SaltMode, service: &Name, candidate: Option<&Version>, retry: u32) -> Self {
        match mode {
            SaltMode::Static => Self::new(&[b"service", service.as_str().as_bytes()]),
            SaltMode::Rollout => {
                let version = candidate.map_or("", Version::as_str);
                Self::new(&[b"rollout", service.as_str().as_bytes(), version.as_bytes(), &retry.to_be_bytes()])
            }
        }
    }

    /// The salt of a route's fixed split, by what the route matches; independent of every variant draw.
    #[must_use]
    pub fn of_route(parts: &[&[u8]; 3]) -> Self {
        Self::new(&[b"route", parts[0], parts[1], parts[2]])
    }

    /// Names a candidate of a service in session cookies, whatever the variant draw is salted with.
    #[must_use]
    pub fn session_tag(service: &Name, candidate: Option<&Version>, retry: u32) -> u64 {
        let version = candidate.map_or("", Version::as_str);
        Self::new(&[b"session", service.as_str().as_bytes(), version.as_bytes(), &retry.to_be_bytes()]).0
    }

    fn new(parts: &[&[u8]]) -> Self {
        let mut hasher = SipHasher128::new();
        for part in parts {
            hasher.write(&(part.len() as u64).to_be_bytes());
            hasher.write(part);
        }
        let hash = hasher.finish128();
        Self(hash.h1, hash.h2)
    }

    /// The bucket of `key`, in `0..10000`.
    #[must_use]
    pub fn bucket(self, key: &[u8]) -> u16 {
        bucket_of(self.hash(key))
    }

    /// 64 uniform bits of `key`, of which [`bucket_of`] makes its bucket; they stand for the session.
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(key);
        hasher.finish()
    }
}

/// Maps 64 uniform bits to a bucket in `0..10000` without modulo bias (multiply-shift).
#[must_use]
pub fn bucket_of(bits: u64) -> u16 {
    let scaled = (u128::from(bits) * u128::from(GRAINS)) >> 64;
    u16::try_from(scaled).unwrap_or(GRAINS - 1)
}

/// The variant of a request: force header or cookie > sticky session > bucket.
#[must_use]
pub fn assign(candidate: Openness, wish: Wish) -> (Variant, Assignment) {
    let reachable = candidate.exists && candidate.open;
    match wish.forced {
        Some(Variant::Candidate) if reachable || (candidate.exists && candidate.open_to_force) => {
            return (Variant::Candidate, Assignment::Forced);
        }
        Some(_) => return (Variant::Stable, Assignment::Forced),
        None => {}
    }
    if !reachable || candidate.weight == Weight::ZERO {
        return (Variant::Stable, Assignment::Bucket);
    }
    match wish.sticky {
        Some(variant) => (variant, Assignment::Sticky),
        None if candidate.weight.holds(wish.bucket) => (Variant::Candidate, Assignment::Bucket),
        None => (Variant::Stable, Assignment::Bucket),
    }
}

#[cfg(test)]
mod peers;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weight(grains: u16) -> Weight {
        Weight::from_grains(grains).expect("in range")
    }

    fn open(grains: u16) -> Openness {
        Openness { weight: weight(grains), open: true, open_to_force: false, exists: true }
    }

    fn salt(version: &str, retry: u32) -> Salt {
        let (name, version) = (Name::new("web").expect("name"), Version::new(version).expect("version"));
        Salt::of_service(SaltMode::Rollout, &name, Some(&version), retry)
    }

    #[test]
    fn force_beats_sticky_beats_bucket() {
        let wish = Wish { forced: Some(Variant::Stable), sticky: Some(Variant::Candidate), bucket: 0 };
        assert_eq!(assign(open(10_000), wish), (Variant::Stable, Assignment::Forced));
        let wish = Wish { forced: None, sticky: Some(Variant::Stable), bucket: 0 };
        assert_eq!(assign(open(9_999), wish), (Variant::Stable, Assignment::Sticky));
        let wish = Wish { bucket: 9_999, ..Wish::default() };
        assert_eq!(assign(open(9_999), wish), (Variant::Stable, Assignment::Bucket));
        assert_eq!(assign(open(10_000), wish), (Variant::Candidate, Assignment::Bucket));
    }

    #[test]
    fn force_works_at_weight_zero_and_an_abort_overrides_it() {
        let forced = Wish { forced: Some(Variant::Candidate), ..Wish::default() };
        assert_eq!(assign(open(0), forced).0, Variant::Candidate);
        let closed = Openness { open: false, ..open(5_000) };
        assert_eq!(assign(closed, forced), (Variant::Stable, Assignment::Forced));
        assert_eq!(assign(closed, Wish { sticky: Some(Variant::Candidate), ..Wish::default() }).0, Variant::Stable);
        assert_eq!(assign(Openness { open_to_force: true, ..closed }, forced).0, Variant::Candidate);
        assert_eq!(assign(Openness { exists: false, ..open(10_000) }, forced).0, Variant::Stable);
    }

    #[test]
    fn salts_differ_by_version_retry_and_kind_and_are_stable_over_time() {
        let buckets = |s: Salt| (0..64_u32).map(|i| s.bucket(&i.to_be_bytes())).collect::<Vec<_>>();
        assert_ne!(buckets(salt("v2", 0)), buckets(salt("v3", 0)));
        assert_ne!(buckets(salt("v2", 0)), buckets(salt("v2", 1)));
        assert_ne!(buckets(Salt::of_route(&[b"web", b"", b""])), buckets(salt("web", 0)));
        // Pinned: all replicas, today and after an upgrade, must agree.
        assert_eq!(salt("v2", 0).bucket(b"alice"), PINNED_BUCKET);
    }

    const PINNED_BUCKET: u16 = 9_357;

    proptest! {
        #[test]
        fn raising_the_weight_never_moves_anyone_back(bucket in 0..GRAINS, low in 0..=GRAINS, high in 0..=GRAINS) {
            let (low, high) = (low.min(high), low.max(high));
            let wish = Wish { bucket, ..Wish::default() };
            if assign(open(low), wish).0 == Variant::Candidate {
                prop_assert_eq!(assign(open(high), wish).0, Variant::Candidate);
            }
        }

        #[test]
        fn buckets_stay_in_range(bits: u64) {
            prop_assert!(bucket_of(bits) < GRAINS);
        }
    }
}
