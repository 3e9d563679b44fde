//! What the demo lets go wrong with the candidate. Pure.

use std::time::Duration;

use clap::ValueEnum;

/// How much later a slow candidate answers.
pub(in crate::cli) const SLOWER_BY: Duration = Duration::from_millis(600);

/// What befalls the candidate in the middle of its rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Fault {
    /// Nothing: it is promoted, and no request fails
    None,
    /// Every other request is answered with 500
    Errors,
    /// Every answer comes 0.6 s later
    Latency,
    /// No request is answered any more
    Hang,
    /// Nothing listens there any more
    Crash,
}

// === impl Fault ===

impl Fault {
    /// The word of the command line.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Hang => "hang",
            Self::Crash => "crash",
        }
    }

    /// What happens to the candidate, as the end of a sentence about it.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::None => "stays healthy",
            Self::Errors => "answers every other request with 500",
            Self::Latency => "answers 0.6 s later",
            Self::Hang => "answers no request any more",
            Self::Crash => "crashes: nothing listens there any more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_command_line() {
        for fault in Fault::value_variants() {
            let value = fault.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), fault.as_str());
        }
        assert!(Fault::Latency.words().contains(&format!("{} s", SLOWER_BY.as_secs_f64())));
    }
}
