//! What several shells need of the network: an HTTP client, sockets, TLS towards clients.

pub mod http;
pub mod socket;
pub mod tls;
pub mod tls_client;
