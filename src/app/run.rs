//! The process: signals in, exit code out.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::{Options, StartError, start};

/// Runs a proxy until SIGTERM or SIGINT; a second one stops at once. SIGHUP reloads the configuration and reopens the logs.
///
/// # Errors
/// As [`start`].
pub fn run(options: &Options) -> Result<ExitCode, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::System(format!("cannot start an event loop: {error}")))?;
    runtime.block_on(async {
        let catch = |kind| signal(kind).map_err(|error| StartError::System(format!("cannot catch signals: {error}")));
        // Caught before anything is started, so that none of them can end a half-started process the hard way.
        let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        let mut hangup = catch(SignalKind::hangup())?;
        let handle = Arc::new(start(options)?);
        let addresses = &handle.addresses;
        tracing::info!(admin = addresses.admin, probes = addresses.probes, listeners = ?addresses.listeners, "listening");
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    handle.reopen_logs();
                    let control = handle.control().clone();
                    // Refusals are in the journal, the log and the metrics.
                    tokio::spawn(async move { drop(control.reload("SIGHUP").await) });
                }
            }
        }
        tokio::select! {
            () = handle.drain() => {}
            _ = terminate.recv() => handle.kill(),
            _ = interrupt.recv() => handle.kill(),
        }
        handle.join();
        Ok(ExitCode::SUCCESS)
    })
}
