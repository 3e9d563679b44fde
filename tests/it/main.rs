//! The integration tests.

mod admin;
mod bodies;
mod forwarding;
mod harness;
mod memory;
mod peers;
mod refusals;
mod reload;
mod shift;
mod shutdown;
mod tidy;
mod tls;
mod upstream_faults;
mod websocket;
