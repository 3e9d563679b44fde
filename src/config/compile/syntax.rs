//! How single values are written: hosts, paths, names, addresses. Refusals say what is allowed.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use super::super::units;
use crate::core::route::HostMatch;
use crate::core::route::path::pattern;
use crate::core::service::KeySource;

/// Largest compiled regular expression, in bytes.
const REGEX_SIZE_MAX: usize = 1024 * 1024;
/// Longest host name and longest label of one, in bytes (RFC 1035).
const HOST_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;
/// Longest name of a method, header, cookie or query parameter, in bytes.
const TOKEN_LEN_MAX: usize = 256;
/// Longest artifact digest, in bytes.
const DIGEST_LEN_MAX: usize = 256;

pub(super) const HOST_FORM: &str = "a host is a name such as \"shop.example.com\", \"*.example.com\" for any name below it, or an IP address; without scheme and port";
pub(super) const PATH_FORM: &str = "a path begins with / and is ASCII without spaces, controls and any of ? # \\";
pub(super) const REGEX_FORM: &str = "a regular expression such as \"^/v[0-9]+/\"";
pub(super) const NETWORK_FORM: &str =
    "a network is an address with a prefix length, such as \"10.0.0.0/8\" or \"fd00::/8\", or a single address";
pub(super) const KEY_FORM: &str =
    "a key is \"cookie\", \"cookie:NAME\", \"header:NAME\", \"query:NAME\" or \"client_ip\"";
pub(super) const METHOD_FORM: &str = "a method is upper-case letters, digits and -, such as \"GET\"";
pub(super) const HEADER_FORM: &str = "a header name is letters, digits and any of ! # $ % & ' * + - . ^ _ ` | ~";
pub(super) const COOKIE_FORM: &str = "a cookie name is letters, digits and any of ! # $ % & ' * + - . ^ _ ` | ~";
pub(super) const DIGEST_FORM: &str = "a digest is 1 to 256 visible ASCII characters, such as \"sha256:9f86d08...\"";

/// An exact host, `*.example.com`, or an address.
pub(super) fn host(text: &str) -> Result<HostMatch, String> {
    let lower = text.to_ascii_lowercase();
    if let Some(below) = lower.strip_prefix("*.") {
        let below = without_dot(below);
        let name = is_name(below) && IpAddr::from_str(below).is_err();
        return if name { Ok(HostMatch::Wildcard(format!(".{below}"))) } else { Err(HOST_FORM.to_owned()) };
    }
    if lower == "*" {
        return Err("leave host out to take any host".to_owned());
    }
    if lower.contains('*') {
        return Err("a wildcard is the whole leftmost label, such as \"*.example.com\"".to_owned());
    }
    if !lower.is_ascii() {
        return Err("write international names in their ASCII form (\"xn--...\")".to_owned());
    }
    let exact = without_dot(&lower);
    if is_name(exact) || bracketed(exact).is_some() {
        return HostMatch::parse(exact).map_err(|bad| bad.to_string());
    }
    let with_port = exact.rsplit_once(':').is_some_and(|(name, port)| {
        (is_name(name) || bracketed(name).is_some()) && port.bytes().all(|b| b.is_ascii_digit())
    });
    Err(if with_port { "a host has no port; routes match on every port".to_owned() } else { HOST_FORM.to_owned() })
}

/// A name or address to send as `Host`, with an optional port.
pub(super) fn authority(text: &str) -> Option<String> {
    let is_host = |host: &str| is_name(host) || bracketed(host).is_some();
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    let ok = is_host(text) || text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port));
    ok.then(|| text.to_owned())
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

pub(super) fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= HOST_LEN_MAX && host.split('.').all(label)
}

/// A path that a normalised path can be equal to or begin with.
pub(super) fn path(text: &str) -> Result<Vec<u8>, String> {
    let bad = |b: u8| !b.is_ascii_graphic() || matches!(b, b'?' | b'#' | b'\\');
    if !text.starts_with('/') || text.bytes().any(bad) {
        let hint = if text.is_ascii() { "" } else { "; write other characters percent-encoded" };
        return Err(format!("{PATH_FORM}{hint}"));
    }
    if text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("paths are compared without . and .. segments; write the path they lead to".to_owned());
    }
    let bytes = text.as_bytes();
    for at in (0..bytes.len()).filter(|at| bytes[*at] == b'%') {
        let digits = text.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).ok_or("a % is followed by two hex digits")?;
        if byte == 0 {
            return Err("%00 is refused in every request".to_owned());
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            return Err(format!("paths are compared after decoding; write %{byte:02X} as {}", char::from(byte)));
        }
    }
    // The form requests are compared in: `%c3` is `%C3` there.
    pattern(text).map_err(|bad| bad.to_string())
}

/// A regular expression of bounded size.
pub(super) fn regex(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            format!("a regular expression takes at most {} compiled", units::show_size(REGEX_SIZE_MAX as u64))
        }
        // The library draws the expression over several lines and ends with the reason.
        other => {
            let drawn = other.to_string();
            let reason = drawn.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            format!("not a regular expression: {reason}")
        }
    })
}

/// A network without bits beyond its prefix, or a single address.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let net = text.parse::<IpNet>().map_err(|_| NETWORK_FORM.to_owned())?;
    let whole = net.trunc();
    if whole == net {
        Ok(net)
    } else {
        Err(format!("the address has bits beyond the prefix; did you mean \"{whole}\"?"))
    }
}

/// Where an affinity key comes from.
pub(super) fn key_source(text: &str) -> Result<KeySource, String> {
    match text.split_once(':') {
        None if text == "cookie" => Ok(KeySource::OwnCookie),
        None if text == "client_ip" => Ok(KeySource::ClientIp),
        Some(("cookie", name)) => cookie_name(name).map(KeySource::Cookie).map_err(str::to_owned),
        Some(("header", name)) => header_name(name).map(KeySource::Header).map_err(str::to_owned),
        Some(("query", name)) => query_name(name).map(KeySource::Query).map_err(str::to_owned),
        _ => Err(KEY_FORM.to_owned()),
    }
}

/// A method that can be routed.
pub(super) fn method(text: &str) -> Result<String, &'static str> {
    match text {
        "CONNECT" | "TRACE" => Err("CONNECT and TRACE are answered with 405 and never routed"),
        _ if is_token(text) && !text.bytes().any(|b| b.is_ascii_lowercase()) => Ok(text.to_owned()),
        _ => Err(METHOD_FORM),
    }
}

/// A header name, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, &'static str> {
    if is_token(text) { Ok(text.to_ascii_lowercase()) } else { Err(HEADER_FORM) }
}

/// A cookie name.
pub(super) fn cookie_name(text: &str) -> Result<String, &'static str> {
    if is_token(text) { Ok(text.to_owned()) } else { Err(COOKIE_FORM) }
}

/// The name of a query parameter.
pub(super) fn query_name(text: &str) -> Result<String, &'static str> {
    let ok = (1..=TOKEN_LEN_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if ok { Ok(text.to_owned()) } else { Err("a query parameter name is 1 to 256 bytes without controls") }
}

/// The digest of an artifact.
pub(super) fn digest(text: &str) -> Result<String, &'static str> {
    let ok = (1..=DIGEST_LEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if ok { Ok(text.to_owned()) } else { Err(DIGEST_FORM) }
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=TOKEN_LEN_MAX).contains(&text.len()) && text.bytes().all(tchar)
}
