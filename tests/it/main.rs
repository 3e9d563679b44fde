//! The integration tests.

mod harness;
mod tidy;
