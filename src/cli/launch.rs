//! The one place where the command line starts the proxy itself.

use std::path::Path;
use std::process::ExitCode;

use super::failure::Failure;

/// A proxy running inside this process.
pub(super) struct Started {
    /// The admin API: `127.0.0.1:40123`
    pub(super) admin: String,
    /// The first listener: `127.0.0.1:40124`
    pub(super) proxy: String,
    /// Drains and waits for the end.
    pub(super) stop: Box<dyn FnOnce() + Send>,
}

/// Runs the proxy until a signal ends it.
pub(super) fn run(config: &Path) -> Result<ExitCode, Failure> {
    // The one call into the wiring for `run`: Ok(crate::app::run(crate::app::Options { config })).
    Err(not_wired(config))
}

/// Starts the proxy beside whatever this process does; signals are left alone.
pub(super) fn start(config: &Path) -> Result<Started, Failure> {
    // The one call into the wiring for `demo`: crate::app::start, then `addresses`, `shutdown` and `join` of its handle.
    Err(not_wired(config))
}

fn not_wired(config: &Path) -> Failure {
    Failure::new("the proxy cannot be started").detail(format!("{}: this build has no data plane", config.display()))
}
