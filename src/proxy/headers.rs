//! Message heads as positions in one buffer: whatever the protocol, a head is read once and never copied field by field.

mod trailers;

use std::ops::Range;

pub use trailers::{METADATA_WITHHELD, TRAILER_PREFIXES_FORWARDED, TRAILERS_FORWARDED, Trailers};

/// A range of bytes in the buffer of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One header or trailer field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// What the proxy knows the name as.
    pub known: Known,
    /// The name as it came.
    pub name: Span,
    /// The value without white space around it.
    pub value: Span,
}

/// Fields the proxy treats in a way of its own; everything else is [`Known::Other`] and passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of that name")]
pub enum Known {
    Other,
    Host,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    TransferEncoding,
    ContentLength,
    Upgrade,
    Expect,
    Cookie,
    SetCookie,
    CacheControl,
    ContentType,
    GrpcStatus,
    GrpcTimeout,
    Forwarded,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    SecWebSocketKey,
    SecWebSocketVersion,
    SecWebSocketAccept,
    Http2Settings,
    Date,
    /// Any other name that begins with `x-forwarded-`.
    XForwardedOther,
    /// A name that begins with `x-tidegate-`: ours alone.
    Tidegate,
    /// Named by the sender in `Connection`: meant for this hop only, never forwarded (set by the parser, never by [`Known::of`]).
    Nominated,
}

/// HTTP/1 minor version, or HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the version of that name")]
pub enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

/// How long a message body is, decided from its head (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// Exactly so many bytes, at least one.
    Exact(u64),
    /// Chunked (HTTP/1.1) or by the frames of an HTTP/2 stream.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead {
    /// Everything below points into this; reused from request to request.
    pub bytes: Vec<u8>,
    /// `GET`
    pub method: Span,
    /// The target as the client wrote it: origin form (path and query), or `*`. Of an absolute-form target only the part from the path on.
    pub target: Span,
    /// The path part of `target`, escapes as the client wrote them; `*` for `OPTIONS *`.
    pub path: Span,
    /// The query part of `target`, without `?`; `None` when there is no `?`.
    pub query: Option<Span>,
    /// Host and port as the client wrote them: the `Host` field, equal to the authority of an absolute-form target. Empty only in HTTP/1.0.
    pub authority: Span,
    /// The protocol version.
    pub version: HttpVersion,
    /// The fields in order.
    pub fields: Vec<Field>,
    /// How long the body is.
    pub body: BodyLength,
    /// Whether the connection may serve another request after this one (HTTP/1: `Connection`, version); never when a WebSocket was asked for.
    pub keep_alive: bool,
    /// A complete WebSocket handshake (RFC 6455 section 4.1): the only upgrade there is.
    pub websocket: bool,
    /// Whether the client waits for `100 Continue`.
    pub expect_continue: bool,
    /// Whether the client accepts trailers (`TE: trailers`).
    pub te_trailers: bool,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Everything below points into this; reused from response to response.
    pub bytes: Vec<u8>,
    /// `100..=599`
    pub status: u16,
    /// The reason phrase; HTTP/1 only, may be empty.
    pub reason: Span,
    /// The protocol version.
    pub version: HttpVersion,
    /// The fields in order.
    pub fields: Vec<Field>,
    /// How long the body is, with the method of the request taken into account.
    pub body: BodyLength,
    /// Whether the connection may carry another request after this response.
    pub keep_alive: bool,
}

// === impl Span ===

impl Span {
    /// The range as `usize`.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// How many bytes.
    #[must_use]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes it stands for in `bytes`.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.range()]
    }
}

// === impl Known ===

impl Known {
    /// What the proxy knows `name` as, in any letter case: length and first letter choose at most one name to compare with.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        let (text, known): (&[u8], Self) = match (name.len(), first | 0x20) {
            (2, b't') => (b"te", Self::Te),
            (4, b'h') => (b"host", Self::Host),
            (4, b'd') => (b"date", Self::Date),
            (6, b'c') => (b"cookie", Self::Cookie),
            (6, b'e') => (b"expect", Self::Expect),
            (7, b't') => (b"trailer", Self::Trailer),
            (7, b'u') => (b"upgrade", Self::Upgrade),
            (9, b'f') => (b"forwarded", Self::Forwarded),
            (10, b'c') => (b"connection", Self::Connection),
            (10, b'k') => (b"keep-alive", Self::KeepAlive),
            (10, b's') => (b"set-cookie", Self::SetCookie),
            (11, b'g') => (b"grpc-status", Self::GrpcStatus),
            (12, b'c') => (b"content-type", Self::ContentType),
            (12, b'g') => (b"grpc-timeout", Self::GrpcTimeout),
            (13, b'c') => (b"cache-control", Self::CacheControl),
            (14, b'c') => (b"content-length", Self::ContentLength),
            (14, b'h') => (b"http2-settings", Self::Http2Settings),
            (16, b'p') => (b"proxy-connection", Self::ProxyConnection),
            (17, b't') => (b"transfer-encoding", Self::TransferEncoding),
            (17, b's') => (b"sec-websocket-key", Self::SecWebSocketKey),
            (18, b'p') => (b"proxy-authenticate", Self::ProxyAuthenticate),
            (19, b'p') => (b"proxy-authorization", Self::ProxyAuthorization),
            (20, b's') => (b"sec-websocket-accept", Self::SecWebSocketAccept),
            (21, b's') => (b"sec-websocket-version", Self::SecWebSocketVersion),
            (11.., b'x') => return Self::of_x(name),
            _ => return Self::Other,
        };
        if is_same(name, text) { known } else { Self::Other }
    }

    /// The names with `x-` in front.
    fn of_x(name: &[u8]) -> Self {
        if begins(name, b"x-forwarded-") {
            let rest = &name[b"x-forwarded-".len()..];
            if rest.eq_ignore_ascii_case(b"for") {
                Self::XForwardedFor
            } else if rest.eq_ignore_ascii_case(b"host") {
                Self::XForwardedHost
            } else if rest.eq_ignore_ascii_case(b"proto") {
                Self::XForwardedProto
            } else {
                Self::XForwardedOther
            }
        } else if name.eq_ignore_ascii_case(b"x-request-id") {
            Self::XRequestId
        } else if begins(name, b"x-tidegate-") {
            Self::Tidegate
        } else {
            Self::Other
        }
    }
}

// === impl HttpVersion ===

impl HttpVersion {
    /// As the access log has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

// === impl RequestHead ===

impl Default for RequestHead {
    /// An empty head to parse into; allocates nothing.
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            method: Span::default(),
            target: Span::default(),
            path: Span::default(),
            query: None,
            authority: Span::default(),
            version: HttpVersion::Http11,
            fields: Vec::new(),
            body: BodyLength::None,
            keep_alive: false,
            websocket: false,
            expect_continue: false,
            te_trailers: false,
        }
    }
}

impl RequestHead {
    /// Forgets who asked for what: what is refused from here on is not taken for the request before it.
    pub fn forget(&mut self) {
        (self.method, self.target, self.path) = (Span::default(), Span::default(), Span::default());
        (self.query, self.authority) = (None, Span::default());
    }

    /// The bytes of `span`.
    #[must_use]
    pub fn get(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    /// The value of the first field called `name`, in any letter case.
    #[must_use]
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields_named(name).next()
    }

    /// The values of all fields called `name`, in any letter case, in order.
    pub fn fields_named<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        named(&self.bytes, &self.fields, name)
    }

    /// The value of the first field known as `known`.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.all_known(known).next()
    }

    /// The values of all fields known as `known`, in order.
    pub fn all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.known == known).map(|field| field.value.of(&self.bytes))
    }

    /// The pairs of all `Cookie` fields, in order (RFC 6265 section 4.2.1).
    pub fn cookies(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all_known(Known::Cookie).flat_map(cookie_pairs).map(|(name, value, _)| (name, value))
    }

    /// The value of the first cookie called `name`; cookie names differ by letter case.
    #[must_use]
    pub fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        self.cookies().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

// === impl ResponseHead ===

impl Default for ResponseHead {
    /// An empty head to parse into; allocates nothing.
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            status: 0,
            reason: Span::default(),
            version: HttpVersion::Http11,
            fields: Vec::new(),
            body: BodyLength::None,
            keep_alive: false,
        }
    }
}

impl ResponseHead {
    /// Whether it is one of gRPC, which exists over HTTP/2 only.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.version == HttpVersion::Http2
            && self.field(b"content-type").is_some_and(|kind| begins(kind, b"application/grpc"))
    }

    /// The bytes of `span`.
    #[must_use]
    pub fn get(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    /// The value of the first field called `name`, in any letter case.
    #[must_use]
    pub fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.fields_named(name).next()
    }

    /// The values of all fields called `name`, in any letter case, in order.
    pub fn fields_named<'a>(&'a self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        named(&self.bytes, &self.fields, name)
    }

    /// The value of the first field known as `known`.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.all_known(known).next()
    }

    /// The values of all fields known as `known`, in order.
    pub fn all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.known == known).map(|field| field.value.of(&self.bytes))
    }
}

/// Whether `name` is `text`, which is in lower case, in any letter case. Without a way out in between the compiler compares many bytes at
/// once.
#[inline]
fn is_same(name: &[u8], text: &[u8]) -> bool {
    let differs = name.iter().zip(text).fold(0, |differs, (byte, lower)| differs | (byte.to_ascii_lowercase() ^ lower));
    name.len() == text.len() && differs == 0
}

/// Whether `name` begins with `prefix`, in any letter case.
fn begins(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The values of the fields called `name` that are meant for more than this hop.
fn named<'a>(bytes: &'a [u8], fields: &'a [Field], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |field| field.known != Known::Nominated && field.name.of(bytes).eq_ignore_ascii_case(name))
        .map(move |field| field.value.of(bytes))
}

/// The pairs of one `Cookie` value as (name, value, whole pair), without white space around them; a pair without `=` has an empty name.
pub(crate) fn cookie_pairs(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).map(|pair| {
        match memchr::memchr(b'=', pair) {
            Some(at) => (pair[..at].trim_ascii_end(), pair[at + 1..].trim_ascii_start(), pair),
            None => (&pair[..0], pair, pair),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, Known)] = &[
        ("te", Known::Te),
        ("host", Known::Host),
        ("date", Known::Date),
        ("cookie", Known::Cookie),
        ("expect", Known::Expect),
        ("trailer", Known::Trailer),
        ("upgrade", Known::Upgrade),
        ("forwarded", Known::Forwarded),
        ("connection", Known::Connection),
        ("keep-alive", Known::KeepAlive),
        ("set-cookie", Known::SetCookie),
        ("cache-control", Known::CacheControl),
        ("content-type", Known::ContentType),
        ("grpc-status", Known::GrpcStatus),
        ("grpc-timeout", Known::GrpcTimeout),
        ("content-length", Known::ContentLength),
        ("http2-settings", Known::Http2Settings),
        ("proxy-connection", Known::ProxyConnection),
        ("transfer-encoding", Known::TransferEncoding),
        ("sec-websocket-key", Known::SecWebSocketKey),
        ("proxy-authenticate", Known::ProxyAuthenticate),
        ("proxy-authorization", Known::ProxyAuthorization),
        ("sec-websocket-accept", Known::SecWebSocketAccept),
        ("sec-websocket-version", Known::SecWebSocketVersion),
        ("x-forwarded-for", Known::XForwardedFor),
        ("x-forwarded-host", Known::XForwardedHost),
        ("x-forwarded-proto", Known::XForwardedProto),
        ("x-forwarded-port", Known::XForwardedOther),
        ("x-request-id", Known::XRequestId),
        ("x-tidegate-variant", Known::Tidegate),
        ("x-tidegate-", Known::Tidegate),
    ];

    #[test]
    fn names_are_known_in_any_case_and_nothing_near_them_is() {
        for (name, known) in NAMES {
            assert_eq!(Known::of(name.as_bytes()), *known, "{name}");
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), *known, "{name}");
            let mut near = name.as_bytes().to_vec();
            near[1] = b'_';
            assert_eq!(Known::of(&near), Known::Other, "{name}");
        }
        for name in
            ["", "x", "hosts", "content-lengti", "x-forwarded", "x-tidegate", "transfer-encodinG ", "xx-tidegate-a"]
        {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
    }

    #[test]
    fn cookies_come_as_pairs_from_every_cookie_field() {
        let mut head = RequestHead::default();
        for value in ["a=1; b=2;;  c = 3 ", "novalue; A=x=y"] {
            let start = u32::try_from(head.bytes.len()).unwrap();
            head.bytes.extend_from_slice(value.as_bytes());
            let end = u32::try_from(head.bytes.len()).unwrap();
            head.fields.push(Field { known: Known::Cookie, name: Span::default(), value: Span { start, end } });
        }
        let found: Vec<_> =
            head.cookies().map(|(n, v)| (str::from_utf8(n).unwrap(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(found, [("a", "1"), ("b", "2"), ("c", "3"), ("", "novalue"), ("A", "x=y")]);
        assert_eq!(head.cookie(b"A"), Some(&b"x=y"[..]));
        assert_eq!(head.cookie(b"d"), None);
    }
}
