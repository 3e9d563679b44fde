//! Our readers and writers beside those of others, on inputs that are made up: whatever we accept, everybody has to understand as we do.
//!
//! One table of targets serves the seeded runs of `make test` (below) and the fuzzers of `make fuzz` (`tests/fuzz`), which use these same
//! files as their library. An input that failed once is kept in `tests/fuzz/regressions/<target>/` and is tried at every run.

#![allow(unreachable_pub, reason = "public in the library of the fuzzers, private in the integration tests")]

pub mod chunked;
pub mod codec;
pub mod cookies;
pub mod frames;
pub mod generate;
pub mod message;
pub mod oracle;
pub mod origin;
pub mod paths;
pub mod pipe;
pub mod random;
pub mod requests;
pub mod responses;
pub mod settings;
pub mod tokens;
pub mod tolerated;

#[cfg(not(test))]
pub mod fuzzing;
#[cfg(test)]
mod seeded;

use fastrand::Rng;
use tidegate::config::settings::Underscores;

/// Names with `_` stay.
const KEEP: Underscores = Underscores::Keep;

/// Something that is checked on any input.
pub struct Target {
    /// Its name: that of the fuzzer, of its corpus and of its regressions.
    pub name: &'static str,
    /// Panics when the input shows a fault.
    pub check: fn(&[u8]),
    /// How many inputs `make test` tries for one of the slowest target.
    pub share: u64,
    /// Makes an input up.
    pub generate: fn(&mut Rng) -> Vec<u8>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "h1_request_stream", check: requests::check, share: 1, generate: generate::requests },
    Target { name: "h1_response_stream", check: responses::check, share: 1, generate: generate::responses },
    Target { name: "h1_chunked", check: chunked::check, share: 10, generate: generate::chunked },
    Target { name: "head_edit", check: origin::check_edits, share: 1, generate: generate::requests },
    Target { name: "ws_frames", check: frames::check, share: 2, generate: generate::frames },
    Target { name: "path_normaliser", check: paths::check, share: 10, generate: generate::path },
    Target { name: "cookie", check: cookies::check, share: 1, generate: generate::cookies },
    Target { name: "config", check: settings::check, share: 1, generate: generate::settings },
];

/// The target of this name.
///
/// # Panics
/// There is none.
#[cfg(not(test))]
#[must_use]
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
}

/// What to try instead of `input`: another one, or this one damaged our way; `None` leaves it to the fuzzer.
#[cfg(not(test))]
#[must_use]
pub fn damage(target: &str, input: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut random = Rng::with_seed(u64::from(seed));
    match random.u8(..64) {
        0 => Some((self::target(target).generate)(&mut random)),
        1..24 => Some(generate::mutate(input.to_vec(), &mut random)),
        _ => None,
    }
}
