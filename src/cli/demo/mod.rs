//! `tidegate demo`: two sample upstreams, a load, the proxy and its admin API in one process; watch the weight move traffic.

mod display;
mod histogram;
mod load;
mod place;
mod play;
mod stats;
mod upstream;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use self::place::Place;
use self::play::{Stage, play};
use self::upstream::Upstreams;
use super::client::Admin;
use super::failure::Failure;
use super::terminal::Terminal;
use super::{FAILED, launch, runtime};

/// Plays the demo: about `seconds` long.
pub(super) fn perform(seconds: u64, terminal: Terminal) -> Result<ExitCode, Failure> {
    let failed = |what: &str, error: &std::io::Error| Failure::new(what).detail(error.to_string());
    let upstreams = Upstreams::start().map_err(|e| failed("the sample upstreams cannot be started", &e))?;
    let place = Place::create(&upstreams.addresses).map_err(|e| failed("the demo's folder cannot be made", &e))?;
    let started = launch::start(place.config())?;
    let played = stage(&started.admin, &started.proxy)
        .and_then(|stage| runtime()?.block_on(play(&stage, Duration::from_secs(seconds), terminal)));
    // In this order: the proxy drains while its upstreams still answer.
    (started.stop)();
    drop((upstreams, place));
    Ok(if played?.is_proven() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn stage(admin: &str, proxy: &str) -> Result<Stage, Failure> {
    let proxy: SocketAddr = proxy
        .parse()
        .map_err(|_| Failure::new("the demo's proxy has no address").detail(format!("\"{proxy}\" is not IP:port")))?;
    Ok(Stage { admin: Admin::at(&format!("http://{admin}"))?, proxy })
}
