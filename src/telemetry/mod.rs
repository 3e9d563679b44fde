//! Metrics, access log, log.

pub mod termination;
