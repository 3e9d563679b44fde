//! Fields as positions, and what the fields that concern this hop say.

use memchr::memchr;

use super::{NOMINATED_MAX, Refusal};
use crate::config::settings::Underscores;
use crate::proxy::h1::bytes::{decimal, is_token, list, name_length};
use crate::proxy::headers::{BodyLength, Field, HttpVersion, Known, Span};

/// Bounds of a section of fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldLimits {
    /// Most fields, dropped ones included.
    pub(crate) fields: usize,
    /// What happens to names with `_`.
    pub(crate) underscores: Underscores,
}

/// What the fields that concern this hop say.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) host: Option<Span>,
    pub(super) content_length: Option<Span>,
    pub(super) transfer_encoding: Option<Span>,
    /// `Connection` has `close`.
    pub(super) close: bool,
    /// `Connection` has `keep-alive`.
    pub(super) keep_alive: bool,
    /// `Connection` has `upgrade`.
    pub(super) connection_upgrade: bool,
    /// `Upgrade` has `websocket`.
    pub(super) upgrade_websocket: bool,
    /// There is an `Expect`; true: it says `100-continue` and nothing else.
    pub(super) expect: Option<bool>,
    /// `TE` has `trailers`.
    pub(super) te_trailers: bool,
    /// The names of fields `Connection` nominates.
    nominated: [Span; NOMINATED_MAX],
    nominations: usize,
}

/// Fills `fields` from the lines of `bytes[start..]`, up to and including an empty line; everything has been scanned.
///
/// # Errors
/// 400 for a line that is not a field, 431 for too many.
pub(crate) fn parse_fields(
    bytes: &[u8],
    start: usize,
    limits: FieldLimits,
    fields: &mut Vec<Field>,
) -> Result<(), Refusal> {
    let mut at = start;
    let mut count = 0;
    loop {
        let line = bytes.get(at..).unwrap_or_default();
        let (name, underscore) = name_length(line);
        if line.get(name) != Some(&b':') || name == 0 {
            return if line.starts_with(b"\r\n") { Ok(()) } else { Err(not_a_field(line, name)) };
        }
        let Some(length) = memchr(b'\r', &line[name..]) else { return Err(Refusal::bad("a field line without end")) };
        count += 1;
        if count > limits.fields {
            return Err(Refusal::new(431, "too many fields"));
        }
        let value = value_span(line, at, name + 1, name + length);
        let field = Field { known: Known::of(&line[..name]), name: span(at, at + name), value };
        at += name + length + 2;
        // Names the proxy knows have no `_`; a field called almost like one of them is what dropping is for.
        if underscore && limits.underscores != Underscores::Keep {
            if limits.underscores == Underscores::Reject {
                return Err(Refusal::bad("a field name with `_`"));
            }
            continue;
        }
        fields.push(field);
    }
}

/// The value between `from` and `to` of `line`, which begins at `at`, without spaces and tabs around it.
#[inline]
fn value_span(line: &[u8], at: usize, mut from: usize, mut to: usize) -> Span {
    // Nearly all of them: one space in front, none behind.
    if let Some([b' ', first, .., last]) = line.get(from..to)
        && *first > b' '
        && *last > b' '
    {
        return span(at + from + 1, at + to);
    }
    while from < to && matches!(line[from], b' ' | b'\t') {
        from += 1;
    }
    while from < to && matches!(line[to - 1], b' ' | b'\t') {
        to -= 1;
    }
    span(at + from, at + to)
}

/// Why a line whose first `name` bytes are a token is not a field.
#[cold]
fn not_a_field(line: &[u8], name: usize) -> Refusal {
    Refusal::bad(match (name, line.get(name)) {
        (0, Some(b' ' | b'\t')) => "a field continued on another line (obs-fold), or white space in front of a field",
        (0, Some(b':')) => "a field without name",
        (_, Some(b' ' | b'\t')) => "white space between a field name and its colon",
        (_, Some(b'\r') | None) => "a field line without colon",
        _ => "a field name with a character that may not be in one",
    })
}

/// A span of positions in a head, which scanning has bounded far below 32 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "heads and trailers are bounded far below 4 GiB")]
pub(super) fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, end: end as u32 }
}

// === impl Facts ===

impl Facts {
    /// Reads them from `fields`.
    ///
    /// # Errors
    /// 400 for duplicate framing or Host fields and for what `Connection` may not say.
    pub(super) fn read(bytes: &[u8], fields: &[Field]) -> Result<Self, Refusal> {
        let mut facts = Self::default();
        for field in fields {
            let value = field.value.of(bytes);
            match field.known {
                Known::Host => once(&mut facts.host, field, "more than one Host")?,
                Known::ContentLength => once(&mut facts.content_length, field, "more than one Content-Length")?,
                Known::TransferEncoding => {
                    once(&mut facts.transfer_encoding, field, "more than one Transfer-Encoding")?;
                }
                Known::Connection => facts.connection(bytes, field.value)?,
                Known::Upgrade => {
                    facts.upgrade_websocket |= list(value).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
                }
                Known::Expect => {
                    let continues = value.eq_ignore_ascii_case(b"100-continue");
                    facts.expect = Some(continues && facts.expect != Some(false));
                }
                Known::Te => facts.te_trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Takes in one `Connection` value.
    fn connection(&mut self, bytes: &[u8], value: Span) -> Result<(), Refusal> {
        let base = value.of(bytes);
        let mut at = 0;
        for element in base.split(|byte| *byte == b',') {
            let begin = at;
            at += element.len() + 1;
            let option = value_span(element, value.start as usize + begin, 0, element.len());
            if option.is_empty() {
                continue;
            }
            let name = option.of(bytes);
            if !is_token(name) {
                return Err(Refusal::bad("Connection has an element that is not a name"));
            }
            if name.eq_ignore_ascii_case(b"close") {
                self.close = true;
                continue;
            }
            match Known::of(name) {
                Known::KeepAlive => self.keep_alive = true,
                Known::Upgrade => self.connection_upgrade = true,
                Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Forwarded
                | Known::XForwardedFor
                | Known::XForwardedHost
                | Known::XForwardedProto
                | Known::XForwardedOther => {
                    return Err(Refusal::bad("Connection nominates a field that is not for one hop only"));
                }
                known if is_hop_by_hop(known) => {}
                _ if self.nominations == NOMINATED_MAX => {
                    return Err(Refusal::bad("Connection nominates too many fields"));
                }
                _ => {
                    self.nominated[self.nominations] = option;
                    self.nominations += 1;
                }
            }
        }
        Ok(())
    }

    /// Marks the fields `Connection` nominates, so that they go no further.
    pub(super) fn mark_nominated(&self, bytes: &[u8], fields: &mut [Field]) {
        if self.nominations == 0 {
            return;
        }
        let nominated = &self.nominated[..self.nominations];
        for field in fields.iter_mut().filter(|field| !is_hop_by_hop(field.known)) {
            let name = field.name.of(bytes);
            if nominated.iter().any(|other| other.of(bytes).eq_ignore_ascii_case(name)) {
                field.known = Known::Nominated;
            }
        }
    }

    /// The length of the body the framing fields announce (RFC 9112 section 6.3, without its leniency); `None`: they are absent.
    ///
    /// # Errors
    /// 400 when they contradict each other or themselves.
    pub(super) fn length(&self, bytes: &[u8], version: HttpVersion) -> Result<Option<BodyLength>, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Refusal::bad("Content-Length beside Transfer-Encoding")),
            (Some(_), None) if version == HttpVersion::Http10 => Err(Refusal::bad("Transfer-Encoding in HTTP/1.0")),
            (Some(coding), None) if coding.of(bytes).eq_ignore_ascii_case(b"chunked") => Ok(Some(BodyLength::Chunked)),
            (Some(_), None) => Err(Refusal::bad("a Transfer-Encoding other than exactly `chunked`")),
            (None, Some(length)) => match decimal(length.of(bytes)) {
                Some(0) => Ok(Some(BodyLength::None)),
                Some(length) => Ok(Some(BodyLength::Exact(length))),
                None => Err(Refusal::bad("a Content-Length that is not one number of at most 64 bits")),
            },
        }
    }

    /// Whether the connection outlives this message, as far as `Connection` and the version say (RFC 9112 section 9.3).
    pub(super) fn persistent(&self, version: HttpVersion) -> bool {
        !self.close && (version == HttpVersion::Http11 || self.keep_alive)
    }
}

/// Fields of this hop whether `Connection` says so or not: the proxy takes them in and writes its own.
fn is_hop_by_hop(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Expect
            | Known::Trailer
            | Known::Tidegate
    )
}

fn once(slot: &mut Option<Span>, field: &Field, cause: &'static str) -> Result<(), Refusal> {
    match slot.replace(field.value) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(cause)),
    }
}
