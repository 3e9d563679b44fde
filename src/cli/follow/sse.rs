//! Server-sent events (WHATWG HTML section 9.2), as far as the admin API sends them. Pure.

/// Longest event, in bytes; evidence is a few KiB.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Its kind; empty for the usual one.
    pub(super) name: String,
    /// Where to take up after it, if it says so.
    pub(super) id: Option<String>,
    /// What it holds.
    pub(super) data: String,
}

/// What has come of a stream and is not an event yet.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// An unfinished line.
    line: Vec<u8>,
    /// An unfinished event.
    message: Message,
    /// Whether it holds anything.
    has_data: bool,
}

/// An event is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

// === impl Parser ===

impl Parser {
    /// Takes the next bytes; gives the events they complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => messages.extend(self.end_line()),
                // Lines of the admin API end with LF; a CR before it is tolerated.
                b'\r' => {}
                _ => self.line.push(byte),
            }
            if self.line.len() + self.message.data.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
        }
        Ok(messages)
    }

    fn end_line(&mut self) -> Option<Message> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            return std::mem::take(&mut self.has_data).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.message.data.push('\n');
                }
                self.has_data = true;
                self.message.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.message.name),
            "id" => self.message.id = Some(value.to_owned()),
            // A comment, or something this reader has no use for.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str =
        "retry: 1000\n\n: heartbeat\n\nid: 7-1\ndata: {\"a\":\ndata: 1}\n\nevent: end\ndata: {}\r\n\r\nid: 7-2\ndata";

    fn messages() -> Vec<Message> {
        let message = |name: &str, id: Option<&str>, data: &str| Message {
            name: name.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        vec![message("", Some("7-1"), "{\"a\":\n1}"), message("end", None, "{}")]
    }

    proptest! {
        #[test]
        fn events_are_the_same_however_they_are_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let pieces = cuts.windows(2).map(|cut| parser.take(&STREAM.as_bytes()[cut[0]..cut[1]]));
            let seen: Vec<Message> = pieces.flat_map(|piece| piece.expect("short")).collect();
            prop_assert_eq!(seen, messages());
        }
    }

    #[test]
    fn an_event_without_an_end_is_refused() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1_000));
        let refused = (0..2_000).any(|_| parser.take(line.as_bytes()) == Err(TooLong));
        assert!(refused);
    }
}
