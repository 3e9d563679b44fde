//! The single writer: file, people and the data plane are events into one queue; every one is decide, publish, answer.

pub mod plane;
