//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::load::Kind;
use crate::peer::Peer;

/// Tidegate side by side with other proxies: CPU per request, latency, memory and system calls.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Rounds per load; each gives a pair of every peer and Tidegate. An interval of 95 % needs six.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pairs: u32,
    /// Seconds that are measured in every run.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub seconds: f64,
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// Only these peers; Tidegate always takes part.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Connections held idle for the memory of one.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub idle: u32,
    /// Leave the count of system calls out.
    #[arg(long)]
    pub no_strace: bool,
    /// Print the results and write nothing.
    #[arg(long)]
    pub print_only: bool,
    /// The Tidegate to measure.
    #[arg(long, default_value = "target/release/tidegate")]
    pub tidegate: PathBuf,
    /// Where `envoy` and `bin/oha` are; else they are looked for in PATH.
    #[arg(long, default_value = "target/tools")]
    pub tools: PathBuf,
    /// The processor of the proxy under load; default: the first we may use.
    #[arg(long)]
    pub proxy_core: Option<usize>,
    /// The processor of load and origin; default: the second we may use.
    #[arg(long)]
    pub load_core: Option<usize>,
    /// How this run was started, for the page; default: this command line.
    #[arg(long)]
    pub command: Option<String>,
    /// The page with the markers between which the results go.
    #[arg(long, default_value = "README.md")]
    pub readme: PathBuf,
    /// Where results.json and results.svg go.
    #[arg(long, default_value = "benches/peers")]
    pub out: PathBuf,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("0.2 to 600".into()),
    }
}

// === impl Args ===

impl Args {
    /// The peers to run, Tidegate first.
    #[must_use]
    pub fn field(&self) -> Vec<Peer> {
        Peer::ALL
            .into_iter()
            .filter(|p| *p == Peer::Tidegate || self.peers.is_empty() || self.peers.contains(p))
            .collect()
    }

    /// The loads to run, in the order of the report.
    #[must_use]
    pub fn loads(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.only.is_empty() || self.only.contains(kind)).collect()
    }
}
