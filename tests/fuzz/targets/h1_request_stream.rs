//! Requests on one connection: read by our codec, by hyper and by pingora, and written to an origin.

#![no_main]

differential::target!("h1_request_stream");
