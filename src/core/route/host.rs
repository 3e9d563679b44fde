//! Hosts: the form they are matched in.

use std::fmt::{self, Write};
use std::net::Ipv6Addr;

use super::HostMatch;

/// Longest host, in bytes (RFC 1035 section 2.3.4).
pub const HOST_LEN_MAX: usize = 255;
/// Longest port, in digits.
const PORT_LEN_MAX: usize = 5;

/// A host in the form it is matched in: lower case, without port and closing dot; an IPv6 address in brackets, in the form of RFC 5952.
/// Lives on the stack. Empty when the request names no host (HTTP/1.0).
#[derive(Clone, Copy)]
pub struct HostName {
    bytes: [u8; HOST_LEN_MAX],
    len: u8,
}

/// Why an authority or a host pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHost {
    /// Longer than [`HOST_LEN_MAX`].
    Long,
    /// Not a name, an IPv4 address or an IPv6 address in brackets, or with an empty label.
    Form,
    /// Something other than up to five digits after the colon.
    Port,
}

// === impl HostName ===

impl HostName {
    /// Reads the value of `Host`, an authority: a host, and a port that is left out. Does not allocate.
    ///
    /// # Errors
    /// Not a host (RFC 3986 section 3.2.2); answered with 400.
    pub fn new(authority: &[u8]) -> Result<Self, BadHost> {
        let (host, port) = split_port(authority)?;
        if port.len() > PORT_LEN_MAX || !port.iter().all(u8::is_ascii_digit) {
            return Err(BadHost::Port);
        }
        let mut name = Self { bytes: [0; HOST_LEN_MAX], len: 0 };
        if let [b'[', address @ .., b']'] = host {
            let address = std::str::from_utf8(address).ok().and_then(|a| a.parse::<Ipv6Addr>().ok());
            // Formatting is slow, but the only way to one spelling, and such hosts are rare.
            write!(name, "[{}]", address.ok_or(BadHost::Form)?).map_err(|_| BadHost::Long)?;
            return Ok(name);
        }
        let host = host.strip_suffix(b".").unwrap_or(host);
        if host.is_empty() {
            return if authority.is_empty() { Ok(name) } else { Err(BadHost::Form) };
        }
        name.push(host).ok_or(BadHost::Long)?;
        let bytes = &mut name.bytes[..host.len()];
        bytes.make_ascii_lowercase();
        let mut before = b'.';
        for &byte in &*bytes {
            let empty = byte == b'.' && before == b'.';
            if empty || !IN_HOST[usize::from(byte)] {
                return Err(BadHost::Form);
            }
            before = byte;
        }
        if before == b'.' { Err(BadHost::Form) } else { Ok(name) }
    }

    /// The host.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let at = usize::from(self.len);
        let end = at + bytes.len();
        self.bytes.get_mut(at..end)?.copy_from_slice(bytes);
        self.len = u8::try_from(end).ok()?;
        Some(())
    }
}

impl Write for HostName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes()).ok_or(fmt::Error)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostName({})", String::from_utf8_lossy(self.as_bytes()))
    }
}

// === impl HostMatch ===

impl HostMatch {
    /// Reads a host of the configuration: a name, an address or `*.example.com`. The port is not part of it.
    ///
    /// # Errors
    /// Not a host; displays what is allowed.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let (suffix, wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        let (_, port) = split_port(suffix.as_bytes())?;
        if suffix.is_empty() || !port.is_empty() || suffix.ends_with(':') {
            return Err(if port.is_empty() { BadHost::Form } else { BadHost::Port });
        }
        let name = HostName::new(suffix.as_bytes())?;
        // A `*` further inside would never be expanded.
        let host = std::str::from_utf8(name.as_bytes()).ok().filter(|h| !h.contains('*')).ok_or(BadHost::Form)?;
        match (wildcard, host.starts_with('[')) {
            (false, _) => Ok(Self::Exact(host.to_owned())),
            (true, false) => Ok(Self::Wildcard(format!(".{host}"))),
            (true, true) => Err(BadHost::Form),
        }
    }

    /// Whether it takes `host`, given in the form it is matched in.
    #[must_use]
    pub fn takes(&self, host: &[u8]) -> bool {
        match self {
            Self::Exact(name) => host == name.as_bytes(),
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_bytes()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

// === impl BadHost ===

impl BadHost {
    /// What is allowed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Long => "a host has at most 255 bytes",
            Self::Form => {
                "a host is a name such as \"shop.example.com\", an IPv4 address, or an IPv6 address in brackets"
            }
            Self::Port => "the port of a host is at most five digits, and a host to be matched has none",
        }
    }
}

impl fmt::Display for BadHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for BadHost {}

fn split_port(authority: &[u8]) -> Result<(&[u8], &[u8]), BadHost> {
    let end = match authority {
        [b'[', ..] => authority.iter().position(|&b| b == b']').ok_or(BadHost::Form)? + 1,
        _ => authority.iter().position(|&b| b == b':').unwrap_or(authority.len()),
    };
    match authority.split_at(end) {
        (host, []) => Ok((host, b"")),
        (host, [b':', port @ ..]) => Ok((host, port)),
        _ => Err(BadHost::Form),
    }
}

/// What a host consists of: its labels, and the dots between them.
static IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = byte == b'.' || is_reg_name(byte);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

/// `reg-name` of RFC 3986: unreserved characters, sub-delimiters and escapes.
const fn is_reg_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',')
        || matches!(byte, b';' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(authority: &str) -> Result<String, BadHost> {
        HostName::new(authority.as_bytes()).map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned())
    }

    #[test]
    fn hosts_are_matched_without_case_port_and_closing_dot() {
        for (authority, host) in [
            ("", ""),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:", "example.com"),
            ("example.com.:8080", "example.com"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("a_b~c", "a_b~c"),
        ] {
            assert_eq!(name(authority).as_deref(), Ok(host), "{authority}");
        }
        let longest = vec!["a".repeat(63); 4].join(".");
        assert_eq!(name(&longest), Ok(longest.clone()));
    }

    #[test]
    fn refusals() {
        let long = "a".repeat(256);
        for (authority, why) in [
            (long.as_str(), BadHost::Long),
            (".", BadHost::Form),
            (":80", BadHost::Form),
            (".a", BadHost::Form),
            ("a..b", BadHost::Form),
            ("a..", BadHost::Form),
            ("a b", BadHost::Form),
            ("user@a", BadHost::Form),
            ("a/b", BadHost::Form),
            ("é", BadHost::Form),
            ("[::1", BadHost::Form),
            ("[::1]80", BadHost::Form),
            ("[a]", BadHost::Form),
            ("[::1%25eth0]", BadHost::Form),
            ("::1", BadHost::Port),
            ("a:8o", BadHost::Port),
            ("a:123456", BadHost::Port),
            ("a:80:80", BadHost::Port),
        ] {
            assert_eq!(name(authority), Err(why), "{authority}");
        }
    }

    #[test]
    fn patterns_and_what_they_take() {
        let parse = |text| HostMatch::parse(text);
        assert_eq!(parse("Shop.Example.com."), Ok(HostMatch::Exact("shop.example.com".into())));
        assert_eq!(parse("*.Example.com"), Ok(HostMatch::Wildcard(".example.com".into())));
        assert_eq!(parse("[::0]"), Ok(HostMatch::Exact("[::]".into())));
        for bad in ["", "*", "*.", "*.*.a", "a.*", "*.[::1]", "a:80", "a:", "*a.b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let below = HostMatch::Wildcard(".example.com".into());
        let takes = |host: &str| below.takes(host.as_bytes());
        assert!(takes("a.example.com") && takes("a.b.example.com"));
        assert!(!takes("example.com") && !takes(".example.com") && !takes("aexample.com"));
        assert_eq!(below.to_string(), "*.example.com");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(authority in "[a-zA-Z.:0-9\\[\\]*%-]{0,12}") {
            if let Ok(once) = name(&authority) {
                prop_assert_eq!(name(&once), Ok(once));
            }
        }

        #[test]
        fn any_bytes_are_survived(authority: Vec<u8>) {
            let _ = HostName::new(&authority);
        }
    }
}
