//! What probing costs the process, in processor time.

use std::time::Duration;

use crate::harness::proxy::Process;
use crate::harness::soak;
use crate::harness::upstream::{Behaviour, Upstream};
use crate::harness::wait::{eventually, until};

/// Most processor time for one HTTP probe with all that goes with it: 5 % of a core for 1,000 endpoints asked every five seconds.
const EACH_MAX: Duration = Duration::from_micros(250);
/// An unoptimised build gets so many times as much.
const UNOPTIMISED: u32 = 20;
/// Longest wait for the probes of thirty seconds.
const PROBES_TAKE_MAX: Duration = Duration::from_secs(60);

/// The bound holds for an optimised build (`make soak`).
#[tokio::test]
async fn a_thousand_endpoints_cost_less_than_a_twentieth_of_a_core() {
    // One server behind many addresses of the loopback.
    let upstream = Upstream::start_at("0.0.0.0:0", Behaviour::answer(200, &[], "ok")).await;
    let port = upstream.address().rsplit(':').next().expect("a port").to_owned();
    let (count, rounds, slower) = if soak() { (1_000, 6, 1) } else { (200, 1, UNOPTIMISED) };
    let endpoints: Vec<String> = (0..count).map(|n| format!("127.0.{}.{}:{port}", 1 + n / 250, 1 + n % 250)).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let process = Process::start(|c| c.web(&endpoints, &[]).set("services.web.health", "path = \"/ready\"")).await;
    let ready = format!("{count} of {count} endpoints are ready");
    until("every endpoint to be ready", || process.log().contains(&ready)).await;
    let (arrived, cpu_before) = (upstream.arrived(), process.cpu());
    let probes = || upstream.arrived() - arrived;
    eventually(PROBES_TAKE_MAX, "the probes", || async { (probes() >= count * rounds).then_some(()) }).await;
    let (took, made) = (process.cpu().saturating_sub(cpu_before), u32::try_from(probes()).expect("few"));
    assert!(took <= EACH_MAX * made * slower, "{took:?} of processor time for {made} probes");
}
