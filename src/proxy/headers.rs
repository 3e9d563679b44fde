//! Message heads as positions in one buffer: whatever the protocol, a head is read once and never copied field by field.

use std::ops::Range;

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
    Forwarded,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
    SecWebSocketKey,
    SecWebSocketVersion,
    SecWebSocketAccept,
    Http2Settings,
    /// A name that begins with `x-tidegate-`: ours alone.
    Tidegate,
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
    /// The path part of `target`, escapes as the client wrote them.
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
    /// Whether the connection may serve another request after this one (HTTP/1: `Connection`, version).
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

// === impl RequestHead ===

impl RequestHead {
    /// The bytes of `span`.
    #[must_use]
    pub fn get(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }
}

// === impl ResponseHead ===

impl ResponseHead {
    /// The bytes of `span`.
    #[must_use]
    pub fn get(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }
}
