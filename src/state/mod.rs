//! What threads share: the published snapshot, live per-endpoint state, counters.

pub mod conduct;
pub mod counters;
pub mod current;
#[cfg(test)]
pub(crate) mod fixture;
pub mod health;
pub mod layout;
pub mod lifecycle;
pub mod live;
pub mod names;
pub mod pool;
pub mod sensors;
