//! What several shells need of the network: an HTTP client, the DNS, sockets, TLS.

pub mod dns;
pub mod http;
pub mod socket;
pub mod tls;
pub mod tls_client;
