//! The single writer: file, people, time and the data plane are events into one queue; every one is decide, persist, publish, answer.
//! What takes traffic back is published first.
//!
//! Nothing slow happens in the writer: files are read, changes written down, sockets bound and workers awaited beside it, so that an
//! abort, which has a queue of its own, is always the next thing it does. What is decided is a value ([`desk`]), and so is what waits to
//! be written ([`ledger`]).

pub mod answer;
pub mod desk;
pub mod discovery;
pub mod endpoint;
mod filing;
pub mod gate;
pub mod gates;
pub mod handle;
pub mod health;
pub mod journal;
pub mod landing;
pub mod ledger;
pub mod opening;
pub mod past;
pub mod plane;
mod publishing;
mod recall;
pub mod reload;
pub mod rollouts;
pub mod status;
pub mod tally;
mod tick;
pub mod writer;
mod writing;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
