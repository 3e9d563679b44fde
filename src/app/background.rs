//! What runs beside the workers and control, each on a thread of its own: the admin API, names, probes, files.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::bind::{AdminListener, bind, bind_probes};
use crate::admin::serve::serve;
use crate::admin::{self, AdminState};
use crate::config::settings::{Admin, Dns, ListenAddress};
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

/// The admin API once it is served.
pub(super) struct Served {
    /// Where.
    pub(super) admin: String,
    /// Where probes are answered.
    pub(super) probes: Option<String>,
    pub(super) thread: JoinHandle<()>,
}

/// Serves the admin API, and what probes may ask.
pub(super) fn serve_admin(
    admin: Admin,
    state: AdminState,
    stopped: watch::Receiver<bool>,
) -> Result<Served, StartError> {
    let (told, answer) = std::sync::mpsc::sync_channel::<std::io::Result<(String, Option<String>)>>(1);
    let thread = thread("admin", move |runtime| {
        runtime.block_on(async move {
            let (listener, probes) = match bind_both(&admin).await {
                Ok(bound) => bound,
                Err(error) => return drop(told.send(Err(error))),
            };
            let admin_at = bound(&listener, &admin.listen);
            let probes_at =
                probes.as_ref().zip(admin.probe_listen.as_ref()).map(|(probes, asked)| bound(probes, asked));
            if told.send(Ok((admin_at, probes_at))).is_err() {
                return;
            }
            let (bounds, routes) = (state.bounds, admin::router(state.clone()));
            let api = serve(listener, routes, bounds, until(stopped.clone()));
            match probes {
                Some(probes) => {
                    let probes = serve(probes, admin::probes::router(state), bounds, until(stopped));
                    tokio::join!(api, probes);
                }
                None => api.await,
            }
        });
    })?;
    match answer.recv() {
        Ok(Ok((admin, probes))) => Ok(Served { admin, probes, thread }),
        Ok(Err(error)) => Err(StartError::System(error.to_string())),
        Err(_) => Err(StartError::System("the admin API ended before it began; see the log".to_owned())),
    }
}

async fn bind_both(admin: &Admin) -> std::io::Result<(AdminListener, Option<AdminListener>)> {
    let listener = bind(admin).await?;
    if admin.listen.is_remote() {
        tracing::warn!(
            listen = %admin.listen,
            "the admin API can be reached from other machines, in plain text: whoever listens in on the network learns the tokens"
        );
    }
    let probes = match &admin.probe_listen {
        Some(address) => Some(bind_probes(address).await?),
        None => None,
    };
    Ok((listener, probes))
}

fn bound(listener: &AdminListener, asked: &ListenAddress) -> String {
    match listener.tcp_address() {
        Ok(Some(address)) => address.to_string(),
        _ => asked.to_string(),
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the handle is gone: then nobody needs the API any more.
    let _ = stopped.wait_for(|stop| *stop).await;
}

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
