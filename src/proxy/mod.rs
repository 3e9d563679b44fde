//! The data plane: workers, listeners, the policy of one request and the loop that forwards it.

pub mod body;
pub mod dial;
pub mod edits;
pub mod exchange;
pub mod facts;
#[cfg(test)]
pub(crate) mod fixture;
pub mod forward;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod idle;
pub mod io;
pub mod listener;
pub mod observe;
pub mod respond;
pub mod rooms;
pub mod routing;
pub mod sticky;
pub mod timer;
pub mod upgrade;
pub mod worker;
pub mod workers;
pub mod ws;
