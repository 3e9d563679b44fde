//! What runs beside the workers and control, each on a thread of its own: names, probes, files.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use crate::config::settings::Dns;
use crate::control::handle::ControlHandle;
use crate::core::resolve::Bounds;
use crate::net::dns::Resolver;
use crate::state::lifecycle::{Lifecycle, Phase};
use crate::watch::{Changed, FileWatch, Timing};
use crate::{clock, discovery, health};

use super::follow::Follow;
use super::{StartError, thread};

/// Changes waiting for control.
const CHANGES_MAX: usize = 4;

/// Follows the names of endpoints; `asked` is told once all were asked for.
pub(super) fn follow_names(
    control: ControlHandle,
    dns: &Dns,
    asked: oneshot::Sender<()>,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let resolver = Resolver::new(dns.servers.clone(), dns.timeout);
    let bounds = Bounds { min: dns.min_ttl, max: dns.max_ttl };
    thread("names", move |runtime| {
        let first_round = move || {
            // Nobody waits any more: then nobody needs to be told.
            let _ = asked.send(());
        };
        runtime.block_on(discovery::run(control, resolver, bounds, first_round, stopped));
    })
}

/// Probes endpoints on a thread of its own, so that no command waits for a handshake. Begins once names were asked for; ready once all
/// endpoints were asked.
pub(super) fn probe(
    control: ControlHandle,
    names_asked: oneshot::Receiver<()>,
    lifecycle: Lifecycle,
    asked: std::sync::mpsc::SyncSender<()>,
    stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    // From here on, so that names and probes together take no longer than is promised.
    let until = clock::now() + health::FIRST_ROUND_MAX;
    thread("health", move |runtime| {
        let ready = move || {
            lifecycle.advance(Phase::Ready);
            drop(asked);
            tracing::info!("ready");
        };
        runtime.block_on(async move {
            // Endpoints of names belong to the first round, too. An error: nobody follows names any more.
            let _ = names_asked.await;
            health::run(control, until, ready, stopped).await;
        });
    })
}

/// Watches the file and everything it refers to; a change is a reload.
pub(super) fn watch_files(follow: &Follow, control: &ControlHandle) -> Result<Arc<FileWatch>, StartError> {
    let (sender, mut changes) = mpsc::channel::<Changed>(CHANGES_MAX);
    let watch = FileWatch::start(follow.files(), Timing::default(), sender)
        .map_err(|error| StartError::System(format!("cannot watch files: {error}")))?;
    let watch = Arc::new(watch);
    follow.attach(&watch);
    let control = control.clone();
    thread("watch", move |runtime| {
        runtime.block_on(async move {
            while let Some(changed) = changes.recv().await {
                tracing::info!(files = ?changed.paths, "files changed");
                // Refusals are in the journal, the log and the metrics.
                let _ = control.reload("file").await;
            }
        });
    })?;
    Ok(watch)
}
