//! Authorities: a host and perhaps a port (RFC 3986 section 3.2).

use std::net::Ipv6Addr;

use crate::proxy::h1::bytes::{decimal, is_host};

/// An authority in its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// The host as it came, brackets included.
    host: &'a [u8],
    /// The port, if there is one.
    port: Option<u16>,
}

// === impl Authority ===

impl<'a> Authority<'a> {
    /// Its parts; `None` when `text` is not a valid, not empty host with an optional port (no user information, no empty port).
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let end = match text.first()? {
            b'[' => ipv6_end(text)?,
            _ => name_end(text)?,
        };
        let (host, rest) = text.split_at(end);
        let port = match rest {
            [] => None,
            [b':', digits @ ..] if digits.len() <= 5 => Some(u16::try_from(decimal(digits)?).ok()?),
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Whether both mean the same place, `default` being the port of the scheme.
    pub(super) fn same(&self, other: &Self, default: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host) && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// Where the IPv6 address in brackets at the front of `text` ends.
fn ipv6_end(text: &[u8]) -> Option<usize> {
    let close = memchr::memchr(b']', text)?;
    let address = str::from_utf8(&text[1..close]).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(close + 1)
}

/// Where the registered name or IPv4 address at the front of `text` ends: at a colon or at the end.
fn name_end(text: &[u8]) -> Option<usize> {
    // Escapes are rare enough to look at every byte once more.
    let mut at = text.iter().position(|byte| !is_host(*byte)).unwrap_or(text.len());
    while let Some(byte) = text.get(at) {
        match byte {
            b':' => break,
            b'%' if matches!(text.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) =>
            {
                at += 3;
            }
            byte if is_host(*byte) => at += 1,
            _ => return None,
        }
    }
    (at > 0).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_authorities() {
        for (text, host, port) in [
            ("example.com", "example.com", None),
            ("Example.COM.:8080", "Example.COM.", Some(8080)),
            ("a_b-c:0", "a_b-c", Some(0)),
            ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:00443", "[2001:db8::1]", Some(443)),
            ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]", Some(1)),
            ("caf%C3%A9.example", "caf%C3%A9.example", None),
        ] {
            let parsed = Authority::parse(text.as_bytes());
            assert_eq!(parsed, Some(Authority { host: host.as_bytes(), port }), "{text}");
        }
    }

    #[test]
    fn invalid_authorities() {
        for text in [
            "",
            ":",
            ":80",
            "a:",
            "a:65536",
            "a:000080",
            "a:+1",
            "a:8 0",
            "a:80:80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a\\b",
            "[]",
            "[::1",
            "[::1]a",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "::1",
            "a%",
            "a%4",
            "a%zz",
            "a\u{e9}",
            "<a>",
            "\"a\"",
            "a,b:1,c",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_same_place() {
        let same = |a: &str, b: &str, port| {
            Authority::parse(a.as_bytes()).unwrap().same(&Authority::parse(b.as_bytes()).unwrap(), port)
        };
        assert!(same("a.b", "A.B:80", 80) && same("a:443", "a", 443) && same("a:080", "a:80", 80));
        assert!(!same("a", "a:80", 443) && !same("a", "a.", 80) && !same("a", "b", 80));
    }
}
