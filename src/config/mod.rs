//! The configuration file: TOML text in, everything resolved out, or all errors at once.

pub mod settings;
