//! The answer to one request: read by our codec, by hyper and by pingora, and written to a client.

#![no_main]

differential::target!("h1_response_stream");
