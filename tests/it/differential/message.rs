//! Messages as every reader should see them, in one form that can be compared.

use std::fmt;

/// Name (lower case) and value of a field.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What a reader made of one request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub method: Vec<u8>,
    /// The target as it stood in the request line; only our own reader knows it.
    pub raw_target: Vec<u8>,
    /// Origin form, or `*`.
    pub target: Vec<u8>,
    /// `0` or `1`
    pub minor: u8,
    /// Sorted by name; the values of one name in order.
    pub fields: Vec<Pair>,
    pub body: Vec<u8>,
    /// Sorted by name; `None`: the reader does not tell.
    pub trailers: Option<Vec<Pair>>,
    /// Whether all of it arrived.
    pub complete: bool,
    /// Whether another request may follow.
    pub keep_alive: bool,
}

/// What a reader made of the answer to one request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The reason phrase; `None`: the reader does not tell.
    pub reason: Option<Vec<u8>>,
    pub minor: u8,
    /// Sorted by name.
    pub fields: Vec<Pair>,
    pub body: Vec<u8>,
    pub trailers: Option<Vec<Pair>>,
    pub complete: bool,
    /// Heads of interim responses before it; `None`: the reader does not tell.
    pub interim: Option<Vec<(u16, Vec<Pair>)>>,
}

/// Why a reader stopped.
#[derive(Clone)]
pub enum End {
    /// The connection was closed between two messages.
    Closed,
    /// The connection was closed within a message.
    Cut,
    /// The last message said that no other follows.
    Last,
    /// What came is not taken; the status it is answered with (0: none), and why.
    Refused(u16, String),
}

/// All messages of a connection; of the last one perhaps only a part.
#[derive(Clone, PartialEq, Eq)]
pub struct Requests {
    pub messages: Vec<Request>,
    pub end: End,
}

impl PartialEq for End {
    /// Of several faults the first one seen is named, which may be another for another split: the cause does not count.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(status, _), Self::Refused(other, _)) => status == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl Eq for End {}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Cut => f.write_str("cut"),
            Self::Last => f.write_str("last"),
            Self::Refused(status, cause) => write!(f, "refused {status} {cause}"),
        }
    }
}

/// Sorts fields by name and brings names to lower case.
pub fn canonical<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Vec<Pair> {
    let pair = |(name, value): (N, V)| (name.as_ref().to_ascii_lowercase(), value.as_ref().to_vec());
    let mut fields: Vec<Pair> = fields.into_iter().map(pair).collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

/// `bytes` as they could stand in a test.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn list(f: &mut fmt::Formatter<'_>, fields: &[Pair]) -> fmt::Result {
    fields.iter().try_for_each(|(name, value)| writeln!(f, "    {}: {:?}", shown(name), shown(value)))
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, minor, complete, keep_alive, .. } = self;
        let (method, target) = (shown(method), shown(target));
        writeln!(f, "\n  {method} {target} HTTP/1.{minor} complete: {complete} keep_alive: {keep_alive}")?;
        list(f, &self.fields)?;
        writeln!(f, "    body {:?}", shown(&self.body))?;
        list(f, self.trailers.as_deref().unwrap_or_default())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, minor, complete, .. } = self;
        let reason = shown(self.reason.as_deref().unwrap_or(b"?"));
        writeln!(f, "\n  HTTP/1.{minor} {status} {reason} complete: {complete} interim: {:?}", self.interim)?;
        list(f, &self.fields)?;
        writeln!(f, "    body {:?}", shown(&self.body))?;
        list(f, self.trailers.as_deref().unwrap_or_default())
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}\n  end: {:?}", self.messages, self.end)
    }
}
