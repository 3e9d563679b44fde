//! The one place where the command line starts the proxy itself.

use std::path::Path;
use std::process::ExitCode;

use crate::app;

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
    app::run(&app::Options { config: config.to_owned() }).map_err(|error| failed(&error))
}

/// Starts the proxy beside whatever this process does, and returns once it is ready; signals are left alone.
pub(super) fn start(config: &Path) -> Result<Started, Failure> {
    let handle = app::start(&app::Options { config: config.to_owned() }).map_err(|error| failed(&error))?;
    handle.wait_ready();
    let proxy = handle.addresses.listeners.first().map(|(_, address)| address.clone()).unwrap_or_default();
    let admin = handle.addresses.admin.clone();
    let stop = Box::new(move || {
        handle.shutdown();
        handle.join();
    });
    Ok(Started { admin, proxy, stop })
}

fn failed(error: &app::StartError) -> Failure {
    Failure::new("the proxy cannot be started").detail(error.to_string())
}
