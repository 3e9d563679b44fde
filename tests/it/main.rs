//! The integration tests.

mod admin;
mod bodies;
mod breakers;
mod differential;
mod discovery;
mod forwarding;
mod gate;
mod grpc;
mod h2;
mod h2_upstream;
mod harness;
mod health;
mod memory;
mod pairs;
mod peers;
mod refusals;
mod reload;
mod retries;
mod shift;
mod shutdown;
mod smuggling;
mod tidy;
mod tls;
mod upstream_faults;
mod websocket;
