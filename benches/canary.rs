//! How long the gate takes through the real proxy: 1,000 requests per second, 5 % of them to a candidate that goes wrong. Fails when a median
//! is above its bound.
//!
//! `cargo bench --bench canary [-- RUNS [NAME]]`

use std::process::ExitCode;
use std::time::Duration;

#[path = "../tests/it/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the integration tests' harness, of which this needs a part")]
mod harness;

use harness::canary::{AT_FIVE, Canary, Caught, good, half, slow, status};
use harness::upstream::Behaviour;

/// Requests per second.
const RATE: u32 = 1_000;
/// Answers before the candidate goes wrong: two seconds, in which the gate learns what stable does.
const BEFORE: u64 = 2_000;
/// Runs of each, if nothing else is asked for.
const RUNS: usize = 10;
/// What both releases take where it matters.
const USUAL: Duration = Duration::from_millis(20);
/// Longest wait for the gate.
const WAIT: Duration = Duration::from_secs(90);

/// Something that goes wrong.
struct Fault {
    name: &'static str,
    behaviour: fn() -> Behaviour,
    /// What both releases do before.
    usual: fn(&str) -> Behaviour,
    rate: u32,
    /// Most the median may be.
    within: Duration,
    /// Most requests that may fail, in the median.
    failed: u64,
    /// It takes long: fewer runs.
    long: bool,
    /// A request without an answer has failed.
    hangs: bool,
}

fn faults() -> [Fault; 6] {
    let fault = |name, behaviour, within, failed| Fault {
        name,
        behaviour,
        usual: good,
        rate: RATE,
        within: Duration::from_millis(within),
        failed,
        long: false,
        hangs: false,
    };
    let usual: fn(&str) -> Behaviour = |version| slow(version, USUAL);
    [
        fault("every request fails", || status(500), 300, 20),
        fault("half of them fail", || half(status(500), good("v2")), 600, 40),
        fault("401 to everyone", || status(401), 2_000, 150),
        // Ten times the threshold while the candidate is warming up, and that is a little above what stable takes.
        Fault { hangs: true, ..fault("every request hangs", Behaviour::hang, 2_000, 150) },
        Fault { usual, long: true, ..fault("twice the latency", || slow("v2", USUAL * 2), 60_000, 0) },
        Fault { rate: 5, long: true, ..fault("5 requests/s, all fail", || status(500), 40_000, 20) },
    ]
}

async fn run(fault: &Fault) -> Caught {
    let canary = Canary::start(1, fault.rate, AT_FIVE, |config| config).await;
    canary.stable.behave((fault.usual)("v1"));
    canary.candidate_does(&(fault.usual)("v2"));
    canary.load.answers(BEFORE.min(u64::from(fault.rate) * 2)).await;
    let since = canary.candidate_does(&(fault.behaviour)());
    canary.caught(since, WAIT).await
}

fn median<T: Copy + Ord>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let runs = args.next().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let only = args.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("{:<24} {:>5} {:>10} {:>10} {:>8} {:>8}  by", "fault", "runs", "median", "longest", "failed", "most");
    let mut all_good = true;
    for fault in faults().iter().filter(|fault| fault.name.contains(&only)) {
        let runs = if fault.long { runs.min(3) } else { runs };
        let caught: Vec<Caught> = (0..runs).map(|_| runtime.block_on(run(fault))).collect();
        let mut after: Vec<Duration> = caught.iter().map(|caught| caught.after).collect();
        let mut failed: Vec<u64> = caught
            .iter()
            .map(|caught| caught.came.failed() + if fault.hangs { caught.came.waiting } else { 0 })
            .collect();
        let (middle, failures) = (median(&mut after), median(&mut failed));
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let last = runs - 1;
        println!(
            "{:<24} {runs:>5} {:>10} {:>10} {failures:>8} {:>8}  {}",
            fault.name,
            seconds(middle),
            seconds(after[last]),
            failed[last],
            caught[last].actor
        );
        println!("    {}", caught[last].why);
        all_good &= middle <= fault.within && failures <= fault.failed;
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
