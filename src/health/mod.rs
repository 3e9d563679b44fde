//! Active probes: asks every endpoint how it is and tells the workers and control. Never through the proxy's own path.
//!
//! One task asks all endpoints, each probe on a connection of its own. What is decided from the results is [`crate::core::health`];
//! what workers see of it is one atomic per endpoint.

mod ask;
mod grpc;
mod http2;
mod schedule;
mod share;

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::control::handle::ControlHandle;

use schedule::Prober;

/// Probes under way at the same time; more wait for their turn. Each needs a descriptor.
pub const PROBES_MAX: usize = 256;
/// Longest time from the start until the process is ready, whatever was answered until then: names and the first round of probes share it.
pub const FIRST_ROUND_MAX: Duration = Duration::from_secs(5);

/// Probes the endpoints of whatever is published, until `stopped` says so or control is gone. `first_round` is called once every endpoint
/// there is at the beginning was asked, at `until` at the latest.
pub async fn run(
    control: ControlHandle,
    until: Instant,
    first_round: impl FnOnce() + Send,
    mut stopped: watch::Receiver<bool>,
) {
    let prober = Prober::new(control, until, first_round);
    tokio::select! {
        () = prober.run() => {}
        // An error means that nobody is there any more to say it.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}
