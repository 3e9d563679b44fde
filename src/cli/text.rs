//! Text for people: colour, aligned columns, ages. Pure.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;

/// Space between columns, in characters.
const GAP: usize = 2;

/// Whether to paint at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(pub(super) bool);

/// What a piece of text tells beside its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing.
    Plain,
    /// A heading.
    Strong,
    /// Of little importance.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Wrong.
    Bad,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

// === impl Paint ===

impl Paint {
    /// Colour on a terminal that can show it, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn decide(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        Self(is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|t| t != "dumb"))
    }

    /// `text` in the colour of `tone`.
    pub(super) fn paint(self, tone: Tone, text: &str) -> Cow<'_, str> {
        let code = match tone {
            Tone::Plain => return Cow::Borrowed(text),
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Notable => "33",
            Tone::Bad => "31",
        };
        if self.0 && !text.is_empty() { Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")) } else { Cow::Borrowed(text) }
    }
}

// === impl Cell ===

impl Cell {
    /// A cell with a tone.
    pub(super) fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), tone }
    }

    /// A cell without one.
    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(Tone::Plain, text)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

// === functions ===

/// Rows under a heading, in columns; nothing without rows.
pub(super) fn table(paint: Paint, heading: &[(&str, Align)], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let names = heading.iter().map(|(name, _)| Cell::new(Tone::Strong, name)).collect();
    let rows: Vec<_> = std::iter::once(names).chain(rows.iter().cloned()).collect();
    columns(paint, &heading.iter().map(|(_, align)| *align).collect::<Vec<_>>(), &rows)
}

/// Rows in columns. Lines have no spaces at their end.
pub(super) fn columns(paint: Paint, aligns: &[Align], rows: &[Vec<Cell>]) -> String {
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..aligns.len()).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut owed = 0;
        for ((cell, width), align) in row.iter().zip(&widths).zip(aligns) {
            let space = width.saturating_sub(cell.width());
            let (before, after) = if *align == Align::Right { (space, 0) } else { (0, space) };
            owed += before;
            if !cell.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', owed));
                text.push_str(&paint.paint(cell.tone, &cell.text));
                owed = 0;
            }
            owed += after + GAP;
        }
        text.push('\n');
    }
    text
}

/// `text` without anything a terminal would act upon: control characters are written as escapes.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    // Bidirectional overrides and isolates can make a line read differently from what it says (CVE-2021-42574).
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// A time span by its two largest units: `45s`, `3m 12s`, `5h 1m`, `12d 3h`.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => two(minutes, 'm', seconds % 60, 's'),
        3_600..86_400 => two(hours, 'h', minutes % 60, 'm'),
        _ => two(days, 'd', hours % 24, 'h'),
    }
}

/// How long ago `at_ms` was, both in milliseconds since 1970.
pub(super) fn ago(now_ms: u64, at_ms: u64) -> String {
    match now_ms.saturating_sub(at_ms) / 1_000 {
        0 => "now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// `1 request`, `2 requests`
pub(super) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// `text` as one component of a URL's query: everything but unreserved characters is escaped (RFC 3986 section 2.3).
pub(super) fn escape_query(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => {
                // Writing into a String does not fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        let rows = vec![
            vec![Cell::plain("a"), Cell::new(Tone::Good, "5%"), Cell::plain("x")],
            vec![Cell::plain("länger"), Cell::plain("100%"), Cell::plain("")],
        ];
        let columns = [("NAME", Align::Left), ("W", Align::Right), ("", Align::Left)];
        let plain = table(Paint(false), &columns, &rows);
        assert_eq!(plain, "NAME       W\na         5%  x\nlänger  100%\n");
        let painted = table(Paint(true), &columns, &rows);
        assert_eq!(painted.replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
        assert!(painted.contains("\x1b[32m5%\x1b[0m"));
    }

    #[test]
    fn colour_only_on_a_capable_terminal_without_no_color() {
        let text = |t: &'static str| Some(OsStr::new(t));
        assert_eq!(Paint::decide(true, None, text("xterm")), Paint(true));
        assert_eq!(Paint::decide(true, text(""), text("xterm")), Paint(true));
        assert_eq!(Paint::decide(true, text("1"), text("xterm")), Paint(false));
        assert_eq!(Paint::decide(false, None, text("xterm")), Paint(false));
        assert_eq!(Paint::decide(true, None, text("dumb")), Paint(false));
        assert_eq!(Paint::decide(true, None, None), Paint(false));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [0, 59, 60, 192, 3_600, 18_061, 86_400, 1_047_600].map(span);
        assert_eq!(spans, ["0s", "59s", "1m", "3m 12s", "1h", "5h 1m", "1d", "12d 3h"]);
        assert_eq!(
            (ago(5_000, 4_001).as_str(), ago(65_000, 0).as_str(), ago(0, 9_000).as_str()),
            ("now", "1m 5s ago", "now")
        );
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\u{9b}\u{202e}"), "a\\u{1b}[31mb\\u{d}\\u{a}\\u{9b}\\u{202e}");
        assert!(matches!(clean("plain ünï"), Cow::Borrowed(_)));
    }

    #[test]
    fn queries_are_escaped_byte_by_byte() {
        assert_eq!(escape_query("a-Z_0.~ &=+%/ü"), "a-Z_0.~%20%26%3D%2B%25%2F%C3%BC");
    }

    #[test]
    fn counts_have_the_right_number() {
        assert_eq!([count(0, "error"), count(1, "error"), count(2, "error")], ["0 errors", "1 error", "2 errors"]);
    }
}
