//! The benchmark beside other proxies. `bin/peers.rs` runs it; the other binaries are what it measures against.
//!
//! # Layout
//! - [`args`]: the command line
//! - [`origin`]: where all requests end, and the count of them that everything is divided by
//! - [`process`]: child processes on their processor, which never outlive us; what the kernel says about them
//! - [`peer`]: the proxies: configurations, commands, what each can do
//! - [`load`]: the loads; [`tool`]: wrk, h2load and oha
//! - [`check`]: that every proxy does the same work; [`probe`]: the requests for it, by hand
//! - [`measure`]: the rounds; [`idle`]: ten thousand idle connections; [`strace`]: system calls; [`stats`]: medians and intervals
//! - [`results`]: the figures as data; [`report`]: as tables; [`plot`]: as a picture
//!
//! # Method
//! Each proxy runs on one processor, load and origin on another. A round runs every proxy once under the same load, in an order that turns
//! with the round; a pair is this proxy and a peer within one round, and figures are compared by the ratios of pairs, so that what drifts on
//! the machine meets both. CPU per request is the time the scheduler gave to the threads of the proxy in a window inside the run, divided by
//! what the origin answered in that window: no start, no handshakes, no end.

pub mod args;
pub mod check;
pub mod failure;
pub mod idle;
pub mod load;
pub mod measure;
pub mod origin;
#[path = "../../page.rs"]
mod page;
pub mod peer;
pub mod plot;
pub mod probe;
pub mod process;
pub mod report;
pub mod results;
pub mod stats;
pub mod strace;
pub mod tool;
