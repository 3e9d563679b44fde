//! Metrics, access log, log.

pub mod access;
pub mod catalog;
pub mod log;
pub mod metrics;
pub mod process;
pub mod sink;
pub mod termination;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}
