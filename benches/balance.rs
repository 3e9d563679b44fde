//! What a balance makes of one slow endpoint: the tail of the latencies through each of them, one endpoint of four being ten times slower.
//! Fails when the less busy of two does not keep it well below that of one after the other.
//!
//! `cargo bench --bench balance`

use std::process::ExitCode;

#[path = "../tests/it/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the integration tests' harness, of which this needs a part")]
mod harness;

use harness::straggler::{latencies, p99};

/// Requests through each balance; at 160 a second.
const REQUESTS: u32 = 1_600;
/// Most the tail may be through the less busy of two, as a part of that of one after the other.
const TAIL_MAX: f64 = 0.3;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("{:<14} {:>10} {:>10} {:>10} {:>10}", "balance", "p50", "p90", "p99", "slowest");
        let mut tails = Vec::new();
        for balance in ["round_robin", "random", "least_request", "peak_ewma"] {
            let all = latencies(balance, REQUESTS).await;
            let ms = |at: usize| format!("{:.1} ms", all[at].as_secs_f64() * 1e3);
            let (last, tail) = (all.len() - 1, p99(&all));
            println!(
                "{balance:<14} {:>10} {:>10} {:>10} {:>10}",
                ms(last / 2),
                ms(last * 9 / 10),
                ms(last * 99 / 100),
                ms(last)
            );
            tails.push((balance, tail.as_secs_f64()));
        }
        let tail_of =
            |name: &str| tails.iter().find(|(balance, _)| *balance == name).map_or(f64::NAN, |(_, tail)| *tail);
        let part = tail_of("least_request") / tail_of("round_robin");
        println!("p99 of least_request: {part:.3} of that of round_robin (at most {TAIL_MAX})");
        if part <= TAIL_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    })
}
