//! What a request says about its variant, and the cookie that keeps it there.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::core::id::{Name, Version};
use crate::core::service::{AffinityCookie, SaltMode};
use crate::proxy::fixture::{get, ip, request};
use proptest::prelude::*;

const OURS: &str = "tidegate_web";
const ID: &[u8] = b"0123456789abcdef";
const SEAL: SessionSeal<'static> = SessionSeal { tag: 7, secret: b"a key of thirty-two bytes length" };

fn salt() -> Salt {
    let (name, version) = (Name::new("web").expect("a name"), Version::new("v2").expect("a version"));
    Salt::of_service(SaltMode::Rollout, &name, Some(&version), 0)
}

fn affinity(key: &[KeySource], on_increase: OnIncrease) -> Affinity {
    let cookie = AffinityCookie { name: OURS.into(), max_age: Duration::from_secs(86_400), same_site: SameSite::Lax };
    Affinity { key: key.to_vec(), cookie, salt: SaltMode::Rollout, on_increase, secret: None }
}

fn sessions() -> Affinity {
    affinity(&[KeySource::OwnCookie], OnIncrease::NewSessions)
}

fn force() -> Force {
    Force {
        header: Some("x-canary".into()),
        cookie: Some("canary".into()),
        allow_from: Vec::new(),
        secret: None,
        keep_candidate: false,
    }
}

fn guarded() -> Force {
    Force { secret: Some(Secret(Arc::from(&b"s3:cret"[..]), Arc::from("FORCE"))), ..force() }
}

fn read_with(head: &RequestHead, force: Option<&Force>, affinity: &Affinity) -> Reading {
    let mut random = fastrand::Rng::with_seed(1);
    read(head, Some(ip("192.0.2.7")), force, affinity, salt(), SEAL, &mut random)
}

fn forced(force: &Force, fields: &str) -> Option<Variant> {
    read_with(&get(fields), Some(force), &sessions()).wish.forced
}

/// The cookie as the client sends it back.
fn cookie_of(set_cookie: &[u8]) -> String {
    let pair = set_cookie.split(|&b| b == b';').next().expect("a pair");
    format!("Cookie: {}\r\n", std::str::from_utf8(pair).expect("text"))
}

fn sealed(variant: Variant) -> String {
    cookie_of(&set_cookie(Vec::new(), &sessions(), &SessionId::of(ID), variant, SEAL, true))
}

// === force ===

#[test]
fn every_word_for_a_variant_is_taken_from_header_and_cookie_and_no_other() {
    use Variant::{Candidate, Stable};
    for (word, variant) in [
        ("true", Some(Candidate)),
        ("candidate", Some(Candidate)),
        ("Candidate", Some(Candidate)),
        ("false", Some(Stable)),
        ("stable", Some(Stable)),
        ("1", None),
        ("", None),
        ("candidate ,", None),
        ("candidates", None),
        ("candidate:", None),
    ] {
        assert_eq!(forced(&force(), &format!("X-Canary: {word}\r\n")), variant, "header {word:?}");
        assert_eq!(forced(&force(), &format!("Cookie: a=b; canary={word}\r\n")), variant, "cookie {word:?}");
    }
    assert_eq!(forced(&force(), "x-other: candidate\r\nCookie: Canary=candidate\r\n"), None);
    assert_eq!(read_with(&get("X-Canary: true\r\n"), None, &sessions()).wish.forced, None);
}

#[test]
fn a_valid_header_wins_over_the_cookie_and_an_invalid_one_does_not() {
    let fields = |header: &str| format!("X-Canary: {header}\r\nCookie: canary=stable\r\n");
    assert_eq!(forced(&force(), &fields("candidate")), Some(Variant::Candidate));
    assert_eq!(forced(&force(), &fields("nonsense")), Some(Variant::Stable));
    assert_eq!(forced(&force(), "X-Canary: nonsense\r\nX-Canary: true\r\n"), Some(Variant::Candidate));
}

#[test]
fn a_secret_follows_the_first_colon_and_has_to_be_whole() {
    for (value, variant) in [
        ("candidate:s3:cret", Some(Variant::Candidate)),
        ("false:s3:cret", Some(Variant::Stable)),
        ("candidate", None),
        ("candidate:", None),
        ("candidate:s3:cre", None),
        ("candidate:s3:cret1", None),
        ("candidate:S3:CRET", None),
        (":s3:cret", None),
        ("s3:cret", None),
    ] {
        assert_eq!(forced(&guarded(), &format!("X-Canary: {value}\r\n")), variant, "header {value:?}");
        assert_eq!(forced(&guarded(), &format!("Cookie: canary={value}\r\n")), variant, "cookie {value:?}");
    }
}

#[test]
fn only_allowed_addresses_may_force() {
    let only = |net: &str| Force { allow_from: vec![net.parse().expect("a network")], ..guarded() };
    let fields = "X-Canary: candidate:s3:cret\r\n";
    assert_eq!(forced(&only("192.0.2.0/24"), fields), Some(Variant::Candidate));
    assert_eq!(forced(&only("198.51.100.0/24"), fields), None);
    let mut random = fastrand::Rng::with_seed(1);
    let unix = read(&get(fields), None, Some(&only("0.0.0.0/0")), &sessions(), salt(), SEAL, &mut random);
    assert_eq!(unix.wish.forced, None, "nobody knows who a client without an address is");
}

/// What travels on must not let anybody learn a secret or pass a header off as allowed.
#[test]
fn secrets_and_refused_headers_are_stripped() {
    let elsewhere = Force { allow_from: vec!["198.51.100.0/24".parse().expect("a network")], ..force() };
    for (force, fields, header, cookie) in [
        (&force(), "X-Canary: true\r\n", false, false),
        (&force(), "X-Canary: nonsense\r\n", true, false),
        (&elsewhere, "X-Canary: true\r\n", true, false),
        (&guarded(), "X-Canary: true:s3:cret\r\n", true, true),
        (&guarded(), "Cookie: canary=true:s3:cret\r\n", true, true),
    ] {
        let reading = read_with(&get(fields), Some(force), &sessions());
        assert_eq!((reading.strip_header, reading.strip_cookie), (header, cookie), "{fields:?} {force:?}");
    }
    let reading = read_with(&get("X-Canary: true\r\n"), None, &sessions());
    assert!(!reading.strip_header && !reading.strip_cookie, "without force nothing is ours");
}

// === keys ===

#[test]
fn the_first_key_present_decides_the_bucket() {
    let all = [
        KeySource::OwnCookie,
        KeySource::Cookie("sid".into()),
        KeySource::Header("x-user".into()),
        KeySource::Query("user".into()),
        KeySource::ClientIp,
    ];
    let fields = "Cookie: tidegate_web=0123456789abcdef; sid=cookie\r\nX-User: header\r\n";
    let head = request("GET", "/?user=qu%65ry+1", fields);
    let keys: [&[u8]; 5] = [ID, b"cookie", b"header", b"query 1", &[192, 0, 2, 7]];
    for (first, key) in keys.into_iter().enumerate() {
        let reading = read_with(&head, None, &affinity(&all[first..], OnIncrease::Move));
        assert_eq!(reading.wish.bucket, salt().bucket(key), "{:?}", all[first]);
        assert!(reading.keyed && reading.fresh.is_none());
    }
}

#[test]
fn a_key_that_is_missing_or_empty_leaves_it_to_the_next() {
    let sources =
        [KeySource::Cookie("sid".into()), KeySource::Header("x-user".into()), KeySource::Query("user".into())];
    let affinity = affinity(&[&sources[..], &[KeySource::ClientIp]].concat(), OnIncrease::Move);
    for (target, fields) in [("/", ""), ("/?user=", "Cookie: sid=\r\nX-User: \r\n"), ("/?user", "Cookie: sid=\"\"\r\n")]
    {
        let reading = read_with(&request("GET", target, fields), None, &affinity);
        assert_eq!(reading.wish.bucket, salt().bucket(&[192, 0, 2, 7]), "{target} {fields:?}");
    }
}

#[test]
fn a_client_without_a_key_gets_an_id_and_comes_back_to_the_same_bucket() {
    for key in [vec![KeySource::OwnCookie], vec![KeySource::Header("x-user".into())], vec![]] {
        let affinity = affinity(&key, OnIncrease::Move);
        let first = read_with(&get(""), None, &affinity);
        let id = first.fresh.expect("a new id");
        assert_eq!((id.as_bytes().len(), first.keyed), (ID_LEN, false));
        let back = cookie_of(&set_cookie(Vec::new(), &affinity, &id, Variant::Stable, SEAL, false));
        let second = read_with(&get(&back), None, &affinity);
        assert_eq!(
            (second.wish.bucket, second.fresh.is_none(), second.keyed),
            (first.wish.bucket, true, true),
            "{key:?}"
        );
    }
}

#[test]
fn ids_are_drawn_anew_each_time() {
    let mut random = fastrand::Rng::with_seed(1);
    let ids: std::collections::BTreeSet<_> =
        (0..100).map(|_| SessionId::random(&mut random).as_bytes().to_vec()).collect();
    assert_eq!(ids.len(), 100);
}

#[test]
fn an_own_cookie_that_is_no_id_is_as_good_as_none() {
    let long = "a".repeat(ID_LEN_MAX + 1);
    for value in ["", "short", "0123 456789", "0123456789abcde\u{e9}", "../../etc/passwd", &long] {
        let reading = read_with(&get(&format!("Cookie: {OURS}={value}\r\n")), None, &sessions());
        assert!(!reading.keyed && reading.fresh.is_some(), "{value:?}");
    }
    for value in ["01234567", &long[1..], "A-Z_a-z0"] {
        let reading = read_with(&get(&format!("Cookie: {OURS}={value}\r\n")), None, &affinity(&[], OnIncrease::Move));
        assert_eq!(reading.wish.bucket, salt().bucket(value.as_bytes()), "{value:?}");
    }
}

#[test]
fn a_fixed_split_is_keyed_where_it_can_be_and_drawn_where_it_cannot() {
    let key = [KeySource::Header("x-user".into()), KeySource::ClientIp];
    let mut random = fastrand::Rng::with_seed(1);
    let bucket = split_bucket(&get("X-User: alice\r\n"), None, &key, salt(), &mut random);
    assert_eq!(bucket, salt().bucket(b"alice"));
    assert_eq!(split_key_bucket(&get(""), None, &key, salt()), None);
    let drawn: std::collections::BTreeSet<u16> =
        (0..50).map(|_| split_bucket(&get(""), None, &[], salt(), &mut random)).collect();
    assert!(drawn.len() > 40, "{drawn:?}");
}

// === sealed cookies ===

#[test]
fn a_sealed_cookie_brings_its_session_back() {
    for variant in Variant::ALL {
        let reading = read_with(&get(&sealed(variant)), None, &sessions());
        assert_eq!(reading.wish.sticky, Some(variant));
        assert_eq!(reading.wish.bucket, salt().bucket(ID));
        assert!(reading.fresh.is_none(), "it is kept as it is");
        let moving = read_with(&get(&sealed(variant)), None, &affinity(&[KeySource::OwnCookie], OnIncrease::Move));
        assert_eq!(
            (moving.wish.sticky, moving.wish.bucket),
            (None, salt().bucket(ID)),
            "in move mode only the id counts"
        );
    }
}

/// Every single character changed, left out or put in: the session is never believed, and the id, where it still is one, is kept.
#[test]
fn a_tampered_cookie_is_not_believed() {
    let good = sealed(Variant::Candidate);
    let from = good.find('=').expect("a value") + 1;
    for at in from..good.len() - 2 {
        for with in ["", "0", "s", "F", ".", "xx"] {
            let mut bad = good.clone();
            bad.replace_range(at..=at, with);
            if bad != good {
                let reading = read_with(&get(&bad), None, &sessions());
                assert_eq!(reading.wish.sticky, None, "{bad:?}");
                assert!(reading.fresh.is_some(), "{bad:?}");
            }
        }
    }
    let more = good.replace("\r\n", ".00\r\n");
    assert_eq!(read_with(&get(&more), None, &sessions()).wish.sticky, None);
}

#[test]
fn a_cookie_of_another_rollout_or_another_key_is_ignored_but_its_id_is_kept() {
    for seal in [SessionSeal { tag: 8, ..SEAL }, SessionSeal { secret: b"another key", ..SEAL }] {
        let set = set_cookie(Vec::new(), &sessions(), &SessionId::of(ID), Variant::Candidate, seal, true);
        let reading = read_with(&get(&cookie_of(&set)), None, &sessions());
        assert_eq!((reading.wish.sticky, reading.wish.bucket), (None, salt().bucket(ID)));
        assert_eq!(reading.fresh.map(|id| id.as_bytes().to_vec()), Some(ID.to_vec()), "sealed anew for this rollout");
    }
}

#[test]
fn a_plain_id_from_before_is_kept_and_sealed() {
    let reading = read_with(&get("Cookie: tidegate_web=0123456789abcdef\r\n"), None, &sessions());
    assert_eq!((reading.wish.sticky, reading.wish.bucket), (None, salt().bucket(ID)));
    assert_eq!(reading.fresh.map(|id| id.as_bytes().to_vec()), Some(ID.to_vec()));
}

#[test]
fn a_session_with_a_key_of_its_own_is_sealed_too() {
    let affinity = affinity(&[KeySource::Header("x-user".into())], OnIncrease::NewSessions);
    let first = read_with(&get("X-User: alice\r\n"), None, &affinity);
    assert_eq!(first.wish.bucket, salt().bucket(b"alice"));
    let id = first.fresh.expect("an id to seal");
    let back = cookie_of(&set_cookie(Vec::new(), &affinity, &id, Variant::Candidate, SEAL, true));
    let second = read_with(&get(&format!("X-User: alice\r\n{back}")), None, &affinity);
    assert_eq!((second.wish.sticky, second.fresh.is_none()), (Some(Variant::Candidate), true));
    assert_eq!(second.wish.bucket, salt().bucket(b"alice"));
}

// === the cookie ===

#[test]
fn the_cookie_says_where_how_long_and_to_whom() {
    let id = SessionId::of(ID);
    let text = |affinity: &Affinity, secure| {
        String::from_utf8(set_cookie(Vec::new(), affinity, &id, Variant::Candidate, SEAL, secure)).expect("text")
    };
    let mut affinity = affinity(&[], OnIncrease::Move);
    let plain = "tidegate_web=0123456789abcdef; Path=/; Max-Age=86400; HttpOnly; SameSite=";
    assert_eq!(text(&affinity, false), format!("{plain}Lax"));
    assert_eq!(text(&affinity, true), format!("{plain}Lax; Secure"));
    affinity.cookie.same_site = SameSite::Strict;
    assert_eq!(text(&affinity, false), format!("{plain}Strict"));
    affinity.cookie.same_site = SameSite::None;
    assert_eq!(text(&affinity, false), format!("{plain}None; Secure"), "browsers refuse it otherwise");
    let sealed = text(&sessions(), true);
    assert!(sealed.starts_with("tidegate_web=0123456789abcdef.c.0000000000000007."), "{sealed}");
    assert_eq!(sealed.split([';', '.']).nth(3).map(str::len), Some(2 * MAC_LEN));
}

#[test]
fn responses_shared_caches_may_keep_are_known() {
    for (value, shared) in [
        ("public", true),
        ("Public", true),
        ("max-age=60", true),
        ("MAX-AGE=60", true),
        ("s-maxage=1", true),
        ("no-cache, max-age=60", true),
        ("public, max-age=0", true),
        ("", false),
        ("no-cache", false),
        ("max-age=0", false),
        ("max-age=0, must-revalidate", false),
        ("private", false),
        ("private, max-age=60", false),
        ("max-age=60,PRIVATE", false),
        ("no-store, public", false),
        ("x-public", false),
        // RFC 9111 section 5.2.2.7: with field names it keeps only those fields private, the rest may be shared.
        ("private=\"x-user\", max-age=60", true),
        ("private=\"x-user, x-group\", public", true),
    ] {
        assert_eq!(is_publicly_cacheable(value.as_bytes()), shared, "{value:?}");
    }
}

proptest! {
    #[test]
    fn no_cookie_value_panics_or_is_believed(value in "[ -:<-~]{0,200}", sessions_mode: bool) {
        let on_increase = if sessions_mode { OnIncrease::NewSessions } else { OnIncrease::Move };
        let affinity = affinity(&[KeySource::OwnCookie, KeySource::Cookie("sid".into())], on_increase);
        for fields in [
            format!("Cookie: {value}\r\n"),
            format!("Cookie: {OURS}={value}\r\n"),
            format!("Cookie: {OURS}=0123456789abcdef.c.{value}\r\n"),
            format!("Cookie: canary={value}\r\nCookie: {OURS}={value}; sid={value}\r\n"),
        ] {
            let reading = read_with(&get(&fields), Some(&guarded()), &affinity);
            prop_assert_eq!(reading.wish.sticky, None);
            prop_assert_eq!(reading.wish.forced, None);
            prop_assert!(reading.wish.bucket < 10_000);
        }
    }

    #[test]
    fn no_cache_control_panics(value: Vec<u8>) {
        let _ = is_publicly_cacheable(&value);
    }

    #[test]
    fn hexadecimals_come_back(bytes: [u8; MAC_LEN]) {
        let mut text = Vec::new();
        push_hex(&mut text, &bytes);
        prop_assert_eq!(unhex::<MAC_LEN>(&text), Some(bytes));
        prop_assert_eq!(&hex_u128(u128::from_be_bytes(bytes))[..], &text[..]);
    }
}
