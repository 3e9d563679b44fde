//! `[services.*.force]` and `[services.*.affinity]`: who chooses a variant and who stays on one.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::file::{Table, Value};
use super::super::{keys, words};
use super::listeners::NETWORKS_MAX;
use super::routes::KEYS_MAX;
use super::{pem, syntax};
use crate::core::service::{Affinity, AffinityCookie, Force, KeySource, OnIncrease, SaltMode, SameSite, Secret};

/// Shortest and longest secret, in bytes.
const SECRET_LEN: RangeInclusive<usize> = 16..=1_024;
/// How long a cookie may be kept; browsers cut at 400 days (RFC 6265bis).
const COOKIE_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(400 * 24 * 3_600);
/// Headers that mean something else already.
const TAKEN_HEADERS: [&str; 14] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

/// `affinity_cookie` is the name of the cookie the service issues.
pub(super) fn force(table: &Table<'_>, affinity_cookie: &str) -> Force {
    if !table.has("header") && !table.has("cookie") {
        table.wrong(
            "has neither header nor cookie, so nobody could use it; write at least one, such as header = \"x-canary\"",
        );
    }
    let header = table.value("header").and_then(|v| v.read(syntax::HEADER_FORM, force_header));
    let cookie = table.value("cookie").and_then(|v| {
        v.read(syntax::COOKIE_FORM, |text| match syntax::cookie_name(text) {
            Ok(name) if name == affinity_cookie => Err("the name of the affinity cookie of this service; take another"),
            other => other,
        })
    });
    let networks = table.value("allow_from");
    let networks = networks.map(|v| {
        v.list(
            "a list of networks such as [\"10.0.0.0/8\"]; leave it out to allow all",
            1..=NETWORKS_MAX,
            syntax::network,
        )
    });
    Force {
        header,
        cookie,
        allow_from: networks.unwrap_or_default(),
        secret: table.value("secret_env").and_then(secret_from_env),
        keep_candidate: table.boolean("keep_candidate", false),
    }
}

fn force_header(text: &str) -> Result<String, &'static str> {
    let name = syntax::header_name(text)?;
    let free = !TAKEN_HEADERS.contains(&name.as_str());
    if free { Ok(name) } else { Err("this header has a meaning already; take one of your own, such as \"x-canary\"") }
}

/// The environment variable `value` names, and what is in it.
pub(super) fn variable<'d>(value: Value<'_, 'd>) -> Option<(&'d str, String)> {
    const FORM: &str = "the name of an environment variable, such as \"TIDEGATE_FORCE_SECRET\"";
    let name = value.text(FORM)?;
    // Anything else may be the secret itself, so it is not repeated.
    let is_name = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        value.wrong(format_args!("not {FORM} (what is written is not shown, it may be the secret)"));
        return None;
    }
    let Some(text) = (value.context().env)(name) else {
        value.refuse("this environment variable is not set");
        return None;
    };
    Some((name, text))
}

fn secret_from_env(value: Value<'_, '_>) -> Option<Secret> {
    let (name, secret) = variable(value)?;
    // It is sent in a header or a cookie (RFC 6265, 4.1.1: no quotes, commas, semicolons, backslashes).
    let sendable = secret.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b));
    check_length(value, "the secret in this environment variable", secret.len())?;
    if !sendable {
        value
            .refuse("the secret in this environment variable is not ASCII without spaces and without any of \" , ; \\");
        return None;
    }
    Some(Secret(Arc::from(secret.into_bytes()), Arc::from(name)))
}

fn secret_from_file(value: Value<'_, '_>) -> Option<Secret> {
    let file = pem::file(value)?;
    let secret = file.pem.trim_ascii_end();
    check_length(value, "the secret in this file", secret.len())?;
    Some(Secret(Arc::from(secret), Arc::from(file.path)))
}

fn check_length(value: Value<'_, '_>, what: &str, len: usize) -> Option<()> {
    if SECRET_LEN.contains(&len) {
        return Some(());
    }
    value.refuse(format_args!("{what} has {len} bytes; {} to {} are allowed", SECRET_LEN.start(), SECRET_LEN.end()));
    None
}

/// The affinity of the service called `name`.
pub(super) fn affinity(name: &str, table: Option<&Table<'_>>) -> Affinity {
    let default = Affinity {
        key: vec![KeySource::OwnCookie],
        cookie: AffinityCookie {
            name: format!("tidegate_{name}"),
            max_age: Duration::from_secs(24 * 3_600),
            same_site: SameSite::Lax,
        },
        salt: SaltMode::Rollout,
        on_increase: OnIncrease::Move,
        secret: None,
    };
    let Some(table) = table else { return default };
    let key = table.value("key").map(|v| {
        v.list("a list such as [\"cookie\", \"header:x-user\", \"client_ip\"]", 1..=KEYS_MAX, syntax::key_source)
    });
    let on_increase = table.word("on_increase", &words::ON_INCREASE).unwrap_or(default.on_increase);
    let secret = table.value("secret_file");
    if let Some(value) = secret.filter(|_| on_increase == OnIncrease::Move) {
        value.wrong("has no use without on_increase = \"new_sessions\", whose cookies it authenticates");
    }
    Affinity {
        key: key.unwrap_or(default.key),
        cookie: cookie(table, default.cookie),
        salt: table.word("salt", &words::SALT).unwrap_or(default.salt),
        on_increase,
        secret: secret.and_then(secret_from_file),
    }
}

fn cookie(affinity: &Table<'_>, default: AffinityCookie) -> AffinityCookie {
    let Some(table) = affinity.table("cookie", &keys::AFFINITY_COOKIE) else { return default };
    let max_age = table.duration("max_age", COOKIE_AGE, default.max_age);
    if let Some(value) = table.value("max_age").filter(|_| max_age.subsec_millis() != 0) {
        value.refuse("cookies are kept for whole seconds");
    }
    AffinityCookie {
        name: table
            .value("name")
            .and_then(|v| v.read(syntax::COOKIE_FORM, syntax::cookie_name))
            .unwrap_or(default.name),
        max_age,
        same_site: table.word("same_site", &words::SAME_SITE).unwrap_or(default.same_site),
    }
}
