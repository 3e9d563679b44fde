//! Trailers, and which of them go further.

use super::{Field, Known, begins};

/// The fields after a body; empty for nearly every message, and then without memory of their own.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// What the fields point into.
    pub bytes: Vec<u8>,
    /// The fields in order, all of them.
    pub fields: Vec<Field>,
}

/// Trailers that are forwarded; all others stay behind, since a recipient may merge trailers into the head (RFC 9110 section 6.5.1).
pub const TRAILERS_FORWARDED: &[&str] =
    &["server-timing", "content-digest", "repr-digest", "digest", "content-md5", "etag"];
/// Trailers that begin with one of these are forwarded too.
pub const TRAILER_PREFIXES_FORWARDED: &[&str] = &["grpc-", "x-checksum-", "x-amz-checksum-"];
/// Of gRPC, whose trailers are metadata of any name, these stay behind beside those the proxy knows: HTTP itself acts on them.
pub const METADATA_WITHHELD: &[&str] = &[
    "age",
    "authentication-info",
    "authorization",
    "content-encoding",
    "content-location",
    "content-range",
    "content-type",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "vary",
    "www-authenticate",
];

// === impl Trailers ===

impl Trailers {
    /// Name and value of those that are forwarded, in order ([`TRAILERS_FORWARDED`], [`TRAILER_PREFIXES_FORWARDED`]).
    pub fn forwarded(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.selected(|_, name| is_forwarded_trailer(name))
    }

    /// Those that are forwarded behind a gRPC message from HTTP/2 to HTTP/2, where nobody merges them into the head: metadata of any name
    /// but [`METADATA_WITHHELD`].
    pub fn metadata(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let withheld = |name: &[u8]| METADATA_WITHHELD.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
        self.selected(move |known, name| is_forwarded_trailer(name) || (known == Known::Other && !withheld(name)))
    }

    /// The value of the first field known as `known`.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.known == known).map(|field| field.value.of(&self.bytes))
    }

    fn selected(&self, choose: impl Fn(Known, &[u8]) -> bool) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|field| (field.known, field.name.of(&self.bytes), field.value.of(&self.bytes)))
            .filter(move |(known, name, _)| choose(*known, name))
            .map(|(_, name, value)| (name, value))
    }
}

fn is_forwarded_trailer(name: &[u8]) -> bool {
    TRAILERS_FORWARDED.iter().any(|allowed| name.eq_ignore_ascii_case(allowed.as_bytes()))
        || TRAILER_PREFIXES_FORWARDED.iter().any(|prefix| begins(name, prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn metadata_of_any_name_goes_on_but_what_http_acts_on() {
        let mut trailers = Trailers::default();
        let names = [
            "grpc-status",
            "custom-bin",
            "location",
            "host",
            "content-length",
            "Content-Type",
            "set-cookie",
            "etag",
            "x-tidegate-x",
            "connection",
            "x",
        ];
        for name in names {
            let start = u32::try_from(trailers.bytes.len()).unwrap();
            trailers.bytes.extend_from_slice(name.as_bytes());
            let span = Span { start, end: u32::try_from(trailers.bytes.len()).unwrap() };
            trailers.fields.push(Field { known: Known::of(name.as_bytes()), name: span, value: span });
        }
        let metadata: Vec<_> = trailers.metadata().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
        assert_eq!(metadata, ["grpc-status", "custom-bin", "etag", "x"]);
        let forwarded: Vec<_> = trailers.forwarded().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
        assert_eq!(forwarded, ["grpc-status", "etag"]);
    }
}
