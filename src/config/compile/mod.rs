//! From the written file to [`Settings`]: defaults filled in, names resolved, contradictions found.
//!
//! Every function here notes mistakes in the file and goes on with a stand-in, so that one run finds them all. The result is
//! only used when there were none.

mod admin;
mod endpoints;
mod gate;
mod health;
mod listeners;
mod outlier;
mod pem;
mod policy;
mod predicates;
mod process;
mod retry;
mod rollout;
mod routes;
mod services;
mod syntax;

use std::collections::HashSet;

pub(super) use endpoints::place;
pub(super) use rollout::planned;

use super::file::Table;
use super::settings::{ListenAddress, Settings};

/// Resolves the whole document.
pub(super) fn settings(root: &Table<'_>) -> Settings {
    let admin = admin::admin(root);
    let listeners = listeners::listeners(root, &admin);
    let services = services::services(root);
    Settings {
        admin,
        state: process::state(root),
        runtime: process::runtime(root),
        log: process::log(root),
        listeners,
        routes: routes::routes(root),
        services,
    }
}

/// Longest path of a unix socket, in bytes (`sun_path` of Linux without its final zero).
const UNIX_PATH_LEN_MAX: usize = 107;

/// What an address to listen on looks like.
const LISTEN_FORM: &str =
    "an address to listen on is IP:port, such as \"0.0.0.0:8080\" or \"[::]:8080\", or \"unix:/run/tidegate/web.sock\"";

/// An address to listen on.
fn listen_address(table: &Table<'_>, key: &str) -> Option<ListenAddress> {
    let parse = |text: &str| {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(ListenAddress::Tcp).map_err(|_| LISTEN_FORM.to_owned());
        };
        if path.is_empty() || path.contains('\0') {
            return Err(LISTEN_FORM.to_owned());
        }
        let path = table.context().resolve(path);
        let len = path.as_os_str().len();
        if len > UNIX_PATH_LEN_MAX {
            return Err(format!("the path of a unix socket has at most {UNIX_PATH_LEN_MAX} bytes, this one has {len}"));
        }
        Ok(ListenAddress::Unix(path))
    };
    table.value(key)?.read(LISTEN_FORM, parse)
}

/// Whether `address` stands for another free port each time.
fn is_any_port(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.port() == 0)
}

/// Notes each of `tables` whose `key` has the same value as one before it.
fn refuse_repeated<'a, 'd: 'a, T: std::hash::Hash + Eq>(
    items: impl Iterator<Item = (T, &'a Table<'d>)>,
    key: &str,
    message: &str,
) {
    let mut seen = HashSet::new();
    for (value, table) in items {
        if !seen.insert(value) {
            match table.value(key) {
                Some(written) => written.refuse(message),
                None => table.wrong(format_args!("{key} is missing, and its default is taken: {message}")),
            }
        }
    }
}
