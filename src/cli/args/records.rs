//! What can be asked of what was written down.

use std::path::PathBuf;

use clap::Args;

use super::AdminAddress;
use crate::core::id::Name;
use crate::core::roles::HISTORY_MAX;

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowRollout {
    /// The service
    #[arg(value_parser = Name::new)]
    pub(in crate::cli) service: Name,
    /// The number of the rollout [default: the latest]
    pub(in crate::cli) id: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct History {
    /// The service [default: all of them]
    #[arg(value_parser = Name::new)]
    pub(in crate::cli) service: Option<Name>,
    /// Most rollouts; of each service the last 50 are kept
    #[arg(long, value_name = "COUNT", default_value_t = HISTORY_MAX as u64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) limit: u64,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Audit {
    /// Only entries after this one
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(in crate::cli) after: u64,
    /// Only entries about this service
    #[arg(long, value_parser = Name::new, conflicts_with = "verify")]
    pub(in crate::cli) service: Option<Name>,
    /// Show no entries, but check that each fits the one before: none was changed, none is missing between them
    #[arg(long)]
    pub(in crate::cli) verify: bool,
    /// Read the store in this directory ([state] dir) instead of asking; no tidegate may run on it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["admin", "token_file"])]
    pub(in crate::cli) state_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminAddress,
}
