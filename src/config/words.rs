//! The words of the file that name one of a few choices, for reading and for writing.

use super::settings::{LogFormat, LogLevel, Role, Underscores};
use crate::core::balance::Balance;
use crate::core::gate::Unit;
use crate::core::gate::rules::Compared;
use crate::core::rollout::wanted::{Mode, OnEmptyStore, Start, Strategy};
use crate::core::rollout::{OnLowTraffic, Otherwise};
use crate::core::service::{OnIncrease, Protocol, SaltMode, SameSite};

/// A choice of words.
pub(super) struct Words<T: 'static> {
    known: &'static [(&'static str, T)],
}

/// What readiness is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    Http,
    Tcp,
    Grpc,
}

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RetriedOn {
    Connect,
    Stale,
    ServerError,
    Reset,
    Timeout,
}

pub(super) static LEVEL: Words<LogLevel> = words(&[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
]);
pub(super) static ROLE: Words<Role> = words(&[
    (Role::Viewer.as_str(), Role::Viewer),
    (Role::Operator.as_str(), Role::Operator),
    (Role::Admin.as_str(), Role::Admin),
]);
pub(super) static FORMAT: Words<LogFormat> = words(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
pub(super) static UNDERSCORES: Words<Underscores> =
    words(&[("drop", Underscores::Drop), ("keep", Underscores::Keep), ("reject", Underscores::Reject)]);
pub(super) static PROTOCOL: Words<Protocol> = words(&[("http1", Protocol::Http1), ("http2", Protocol::Http2)]);
pub(super) static BALANCE: Words<Balance> = words(&[
    ("least_request", Balance::LeastRequest),
    ("round_robin", Balance::RoundRobin),
    ("random", Balance::Random),
    ("ring_hash", Balance::RingHash),
    ("peak_ewma", Balance::PeakEwma),
]);
pub(super) static RETRY_ON: Words<RetriedOn> = words(&[
    ("connect", RetriedOn::Connect),
    ("stale", RetriedOn::Stale),
    ("5xx", RetriedOn::ServerError),
    ("reset", RetriedOn::Reset),
    ("timeout", RetriedOn::Timeout),
]);
pub(super) static PROBE_KIND: Words<ProbeKind> =
    words(&[("http", ProbeKind::Http), ("tcp", ProbeKind::Tcp), ("grpc", ProbeKind::Grpc)]);
pub(super) static SAME_SITE: Words<SameSite> =
    words(&[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)]);
pub(super) static SALT: Words<SaltMode> = words(&[("rollout", SaltMode::Rollout), ("static", SaltMode::Static)]);
pub(super) static ON_INCREASE: Words<OnIncrease> =
    words(&[("move", OnIncrease::Move), ("new_sessions", OnIncrease::NewSessions)]);
pub(super) static STRATEGY: Words<Strategy> =
    words(&[("canary", Strategy::Canary), ("blue_green", Strategy::BlueGreen)]);
pub(super) static START: Words<Start> = words(&[("auto", Start::Auto), ("manual", Start::Manual)]);
pub(super) static OTHERWISE: Words<Otherwise> = words(&[("pause", Otherwise::Pause), ("abort", Otherwise::Abort)]);
/// Whether a rollout goes on by itself.
pub(super) static ON_RESTART: Words<bool> = words(&[("resume", true), ("pause", false)]);
pub(super) static ON_EMPTY_STORE: Words<OnEmptyStore> =
    words(&[("pause", OnEmptyStore::Pause), ("start", OnEmptyStore::Start)]);
pub(super) static GATE_MODE: Words<Mode> = words(&[("enforce", Mode::Enforce), ("observe", Mode::Observe)]);
pub(super) static UNIT: Words<Unit> = words(&[("session", Unit::Session), ("request", Unit::Request)]);
pub(super) static ON_LOW_TRAFFIC: Words<OnLowTraffic> = words(&[
    ("advance_if_clean", OnLowTraffic::AdvanceIfClean),
    ("pause", OnLowTraffic::Pause),
    ("advance", OnLowTraffic::Advance),
]);
/// Whether the rollout pauses.
pub(super) static ON_STABLE_DEGRADED: Words<bool> = words(&[("pause", true), ("ignore", false)]);
pub(super) static ON_SAMPLE_RATIO: Words<bool> = words(&[("pause", true), ("event", false)]);
/// Whether it is a threshold.
pub(super) static GATE_METHOD: Words<bool> = words(&[("sequential", false), ("threshold", true)]);
pub(super) static BASELINE: Words<Compared> = words(&[("stable", Compared::Stable), ("before", Compared::Before)]);

const fn words<T>(known: &'static [(&'static str, T)]) -> Words<T> {
    Words { known }
}

// === impl Words ===

impl<T: Copy + PartialEq> Words<T> {
    /// What `word` means.
    pub(super) fn get(&self, word: &str) -> Result<T, String> {
        match self.known.iter().find(|(known, _)| *known == word) {
            Some((_, value)) => Ok(*value),
            None => Err(self.form()),
        }
    }

    /// Which words are allowed.
    pub(super) fn form(&self) -> String {
        let quoted: Vec<String> = self.known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("one of {}", quoted.join(", "))
    }

    /// The word for `value`.
    pub(super) fn word(&self, value: T) -> &'static str {
        self.known.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
    }
}
