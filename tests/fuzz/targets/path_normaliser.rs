//! Paths: normalised once, never out of themselves.

#![no_main]

differential::target!("path_normaliser");
