//! Chunked bodies: the decoder beside a reference.

#![no_main]

differential::target!("h1_chunked");
