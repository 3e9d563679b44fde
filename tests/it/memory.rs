//! What idle client connections cost: nothing but the task that waits for the next request.

use tidegate::net::socket::raise_open_files;

use crate::harness::client::Client;
use crate::harness::proxy::{Process, Site};
use crate::harness::soak;
use crate::harness::upstream::{Behaviour, Upstream};

/// Connections that are there before the measuring begins, and measured.
const BEFORE: usize = 100;
const MEASURED: usize = 2_000;
/// Most bytes of resident memory per idle connection; not optimised, a task is twice as large.
const EACH_MAX: u64 = 8 * 1024;
/// The same of the long version: optimised, and more of them.
const MEASURED_SOAK: usize = 10_000;
const EACH_MAX_SOAK: u64 = 4 * 1024;

/// A connection that has carried a request and waits for another.
async fn idle(site: &Site) -> Client {
    let mut client = site.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client
}

#[tokio::test]
async fn idle_connections_hold_no_buffers() {
    let (_, _) = raise_open_files();
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let process = Process::start(|config| config.web(&[&upstream.address()], &[])).await;
    let mut clients = Vec::new();
    for _ in 0..BEFORE {
        clients.push(idle(&process).await);
    }
    let (measured, most) = if soak() { (MEASURED_SOAK, EACH_MAX_SOAK) } else { (MEASURED, EACH_MAX) };
    let before = process.rss();
    for _ in 0..measured {
        clients.push(idle(&process).await);
    }
    let each = process.rss().saturating_sub(before) / measured as u64;
    assert!(each <= most, "{each} bytes per idle connection");
    for client in clients.iter_mut().step_by(100) {
        client.send("GET /again HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200, "they are served all the same");
    }
}
