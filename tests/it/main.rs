//! The integration tests.

mod admin;
mod bodies;
mod differential;
mod forwarding;
mod harness;
mod peers;
mod refusals;
mod reload;
mod shift;
mod shutdown;
mod tidy;
mod tls;
mod upstream_faults;
mod websocket;
