//! Tidegate: a Layer-7 traffic-shifting reverse proxy.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod core;
pub mod net;
pub mod proxy;
pub mod state;
pub mod telemetry;
pub mod watch;
