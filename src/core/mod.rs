//! The decisions, as pure functions over plain data: no I/O, no clock, no randomness, no async, no logging.

pub mod assign;
pub mod balance;
pub mod circuit;
pub mod endpoint;
pub mod fields;
pub mod gate;
pub mod health;
pub mod id;
pub mod membership;
pub mod outlier;
pub mod resolve;
pub mod retry;
pub mod roles;
pub mod rollout;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod weight;
