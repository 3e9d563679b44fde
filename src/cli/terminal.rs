//! Standard output and standard error: who reads there, and how to write to them without panicking.

use std::io::{self, IsTerminal, Write};

use super::failure::Failure;
use super::text::{Paint, Tone};

/// How answers are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    /// For a program.
    pub(super) json: bool,
    /// Whether a person watches standard output.
    pub(super) interactive: bool,
    /// Whether standard output is painted.
    pub(super) paint: Paint,
}

// === impl Terminal ===

impl Terminal {
    /// What standard output is now.
    pub(super) fn detect(json: bool) -> Self {
        let interactive = io::stdout().is_terminal();
        Self { json, interactive, paint: paint(interactive && !json) }
    }

    /// Whether lines may be written over.
    pub(super) const fn redraws(self) -> bool {
        self.interactive && !self.json
    }
}

/// Writes an answer to standard output, at once.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new("cannot write to standard output").detail(error.to_string()))
}

/// Tells why a verb failed, on standard error.
pub(super) fn report(failure: &Failure, json: bool) {
    let text = if json {
        failure.to_json().to_string()
    } else {
        let paint = paint(io::stderr().is_terminal());
        format!("{} {failure}", paint.paint(Tone::Bad, "tidegate:"))
    };
    complain(&text);
}

/// Writes a line to standard error. There is nowhere left to tell if that fails.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn paint(is_terminal: bool) -> Paint {
    Paint::decide(is_terminal, std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref())
}
