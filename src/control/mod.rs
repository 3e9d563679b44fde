//! The single writer: file, people and the data plane are events into one queue; every one is decide, publish, answer.
//!
//! Nothing slow happens in the writer: files are read, sockets bound and workers awaited beside it, so that an abort, which has a
//! queue of its own, is always the next thing it does.

pub mod answer;
mod decide;
pub mod discovery;
pub mod endpoint;
pub mod gate;
pub mod handle;
pub mod health;
pub mod journal;
pub mod plane;
pub mod reload;
pub mod status;
mod tick;
mod watching;
pub mod writer;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
