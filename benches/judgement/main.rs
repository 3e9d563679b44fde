//! Tidegate's gate beside fixed thresholds as Flagger and Argo Rollouts poll them and beside rank tests as Kayenta's, on the same simulated
//! traffic. Writes the table into the README and the plot beside this file; [`study`] says how it is done.
//!
//! `cargo bench --bench judgement -- [--seed N] [--runs N] [--print-only]`; the second is the number of healthy rollouts per cell.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulated counts are small and not negative"
)]

#[path = "../page.rs"]
mod page;
#[path = "../../tests/it/gate/poisson.rs"]
mod poisson;
mod study;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use study::{Plan, plot, report};

/// The seed of the figures in the README.
const SEED: u64 = 20_261_121;
/// Healthy rollouts per shape and rate, and rollouts per fault and rate.
const HEALTHY: usize = 200;
const FAULTY: usize = 100;
/// How long a rollout is watched, in seconds.
const SECONDS: u64 = 3_600;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut plan = Plan { seed: SEED, healthy: HEALTHY, faulty: FAULTY, seconds: SECONDS };
    let (mut command, mut print_only) = (String::from("cargo bench --bench judgement"), false);
    let mut arguments = std::env::args().skip(1);
    let mut given = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            value.parse::<u64>().map_err(|_| format!("{argument} takes a whole number, not {value:?}"))
        };
        match argument.as_str() {
            // Cargo says so to every benchmark.
            "--bench" => {}
            "--print-only" => print_only = true,
            "--seed" => {
                plan.seed = number()?;
                given.push(format!("--seed {}", plan.seed));
            }
            "--runs" => {
                plan.healthy = number()?.max(1) as usize;
                plan.faulty = plan.healthy.div_ceil(2);
                given.push(format!("--runs {}", plan.healthy));
            }
            other => return Err(format!("{other} is none of --seed, --runs and --print-only")),
        }
    }
    if !given.is_empty() {
        command = format!("{command} -- {}", given.join(" "));
    }
    println!("judgement: seed {}", plan.seed);
    let cells = plan.run();
    let section = report::markdown(&plan, &cells, &command);
    println!("{section}");
    if print_only {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(&root.join("benches/judgement/results.svg"), &plot::svg(&cells))?;
    let readme = root.join("README.md");
    let text = fs::read_to_string(&readme).map_err(|error| format!("{}: {error}", readme.display()))?;
    write(&readme, &page::replace(&text, "judgement", &section)?)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
