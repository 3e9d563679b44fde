//! What threads share: the published snapshot, live per-endpoint state, counters.

pub mod counters;
pub mod current;
pub mod live;
