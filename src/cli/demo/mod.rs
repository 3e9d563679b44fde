//! `tidegate demo`: two sample upstreams, a load, the proxy and its admin API in one process; a rollout goes its way, something may go wrong
//! with the candidate, and the gate takes it back.

mod display;
mod fault;
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
use self::play::{Script, Stage, play};
use self::upstream::Upstreams;
use super::client::Admin;
use super::failure::Failure;
use super::terminal::Terminal;
use super::{FAILED, args, launch, runtime};

pub(super) use self::fault::Fault;

/// Plays the demo.
pub(super) fn perform(asked: &args::Demo, terminal: Terminal) -> Result<ExitCode, Failure> {
    let failed = |what: &str, error: &std::io::Error| Failure::new(what).detail(error.to_string());
    let script = Script::new(asked.fault, Duration::from_secs(asked.seconds));
    let upstreams = Upstreams::start().map_err(|e| failed("the sample upstreams cannot be started", &e))?;
    let place =
        Place::create(&upstreams.addresses, script.hold).map_err(|e| failed("the demo's folder cannot be made", &e))?;
    let started = launch::start(place.config())?;
    let played = stage(&started.admin, &started.proxy).and_then(|stage| {
        let spoil = || upstreams.suffer(script.fault);
        runtime()?.block_on(play(&stage, &script, &spoil, terminal))
    });
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
