//! The integration tests.

mod admin;
mod bodies;
mod forwarding;
mod gate;
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
