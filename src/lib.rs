//! Tidegate: a Layer-7 proxy that shifts traffic between two releases of a service.
//!
//! Every service has a stable and, if one is on trial, a candidate pool. All of them stand behind one immutable, weighted routing
//! snapshot that is swapped atomically: a request takes it once and keeps it. A file says what its author wants, commands say how far
//! the candidate may go, and taking the traffic back is one swap that nothing can delay.
//!
//! # Layout
//!
//! Imports only go down, siblings never import each other (`tests/it/tidy.rs` holds both to it):
//!
//! - [`cli`] (and `main.rs`): the command line; verbs over the admin API, and the demo
//! - [`app`]: wiring only; a file becomes a running proxy with a handle to it
//! - [`proxy`]: the data plane
//!   - [`proxy::workers`], [`proxy::worker`], [`proxy::listener`]: threads, accepting, TLS, draining
//!   - [`proxy::exchange`]: THE policy of one request, without I/O
//!   - [`proxy::forward`]: THE forwarding loop, over a downstream and an upstream codec
//!   - [`proxy::h1`]: HTTP/1.1, both sides; [`proxy::h2`]: HTTP/2 on the h2 crate; [`proxy::upgrade`], [`proxy::ws`]: WebSocket streams
//!   - [`proxy::edits`], [`proxy::grpc`]: which fields go on to an upstream; what calls say of themselves
//!   - [`proxy::rooms`]: requests that wait for a connection where a pool has as many as it may have
//!   - [`proxy::dial`], [`proxy::idle`], [`proxy::timer`], [`proxy::io`]: connections and what they wait for
//! - [`health`]: asks every endpoint how it is; only ready ones get requests
//! - [`admin`]: the HTTP API: tokens and roles, events, its own description; [`watch`]: files, by their contents
//! - [`discovery`]: names of endpoints, resolved beside the request path
//! - [`control`]: the single writer; file, people, time and signals are events into one queue
//!   - [`control::desk`]: what is decided, as values; [`control::ledger`]: what is written down, on a thread of its own;
//!     [`control::past`]: what is kept of rollouts that are over
//!   - [`control::gates`]: every 50 ms counts become verdicts, and one that says harmful takes the traffic back
//! - [`config`]: TOML in, everything resolved or all errors at once, out
//! - [`state`]: what threads share: the published snapshot, live endpoint state, counters; [`state::sensors`]: what the gate is told
//! - [`store`]: records and the audit in one redb file
//! - [`net`], [`telemetry`], [`clock`]: sockets and certificates; metrics and logs; the one place that reads the clock
//! - [`core`]: the decisions as pure functions: routes, weights, assignment, balance, outliers, retries,
//!   snapshot; the roles of versions and their rollouts ([`core::roles`], [`core::rollout`]); and the gate ([`core::gate`])
//!
//! # The life of a request
//!
//! `listener` accepts on the worker's own socket. `h1::connection` reads the head into one buffer and keeps positions; `h2::down` does so for
//! every stream of a connection that begins with the preface of HTTP/2, or agreed on it by ALPN. `Exchange::begin`
//! finds route and service, assigns the variant (forced, else sticky, else by bucket), picks an endpoint and counts the exposure.
//! `forward` takes an idle connection, a stream of an HTTP/2 session, or dials, writes the head anew and moves both bodies at once, in place. The exchange judges the
//! response head and, at the end, counts what became of it. A failure on the way is a question to the exchange: again, elsewhere, later, or
//! an answer of our own.
//!
//! # The life of a change
//!
//! A file, a command, a tick becomes a decision of `core::roles` on the desk. On the way up the ledger writes it first, then it is published, then
//! answered; on the way back it is published first and owed to the store. Promotion swaps the roles of two pools: endpoints, their
//! connections and what is known of them stay as they are.
//!
//! # What is deliberately absent
//!
//! - A lock, a formatted string or a metric looked up by name on the request path; an allocation that depends on the client.
//! - A task or a channel per direction: one future moves both. Only the streams of HTTP/2, of which many share a connection, have a task each.
//! - Two sources of truth: whatever a request decides by hangs off one snapshot, except whether the candidate is still open and how busy
//!   endpoints are, which is read again before every attempt.
//! - An unbounded queue, list, wait or retry; every bound is a named constant with its unit.
//! - A clock, randomness or I/O in [`core`] and in the exchange: time and random bits are passed in.
//!
//! # Decisions
//!
//! - An HTTP/1.1 codec of our own: lenient parsers (httparse too, the oracle of our tests) cannot refuse what must be refused, and framing is never passed through but rebuilt.
//! - One thread with its own event loop per core instead of work stealing: nothing crosses threads between accept and close.
//! - pingora-core dials TLS upstreams; plain TCP is dialled directly, which is the same system calls without its bookkeeping.
//! - HTTP/2 sessions with upstreams are ours on the h2 crate: pingora's drop interim responses and cannot be closed with their endpoint.
//! - hickory asks the DNS, without its cache: whoever follows a TTL himself must not be answered from another one's memory.
//! - Counters are per worker with a single writer; `/metrics` adds them up when asked.
//! - utoipa describes the admin API from the handlers and types themselves: a route without a description does not exist.
//! - The `prometheus` crate encodes what our counters hold: a recorder would keep its own, shared by all threads.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod core;
pub mod discovery;
pub mod health;
pub mod net;
pub mod proxy;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod watch;
