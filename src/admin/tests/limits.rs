//! What a client may take: sizes, times, connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Bounds, answer, at, bind, start, start_on, token, until};
use crate::config::settings::{Admin, ListenAddress};
use crate::control::fake;

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let api = start(Bounds { body: Duration::from_millis(50), ..Bounds::default() }).await;
    let head =
        "POST /v1/services/web/abort HTTP/1.1\nHost: localhost\nContent-Type: application/json\nConnection: close";
    let announced = api.raw(&format!("{head}\nContent-Length: 1048577"), "").await;
    announced.is_problem(413, "at most 1048576 bytes");
    let chunk = format!("100001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x10_0001));
    api.raw(&format!("{head}\nTransfer-Encoding: chunked"), &chunk).await.is_problem(413, "at most 1048576 bytes");
    api.raw(&format!("{head}\nContent-Length: 10"), "{").await.is_problem(408, "within 0.05 s");
    assert!(api.bench.is_open("web"), "nothing got through");
    let largest = format!(r#"{{"reason":"x"{}}}"#, " ".repeat(1_048_576 - 14));
    assert_eq!(largest.len(), 1_048_576);
    assert_eq!(api.post("/v1/services/web/abort", &largest).await.status, 200);
}

#[tokio::test]
async fn a_slow_head_ends_and_frees_its_place() {
    let api = start(Bounds { head: Duration::from_millis(50), connections: 1, ..Bounds::default() }).await;
    let mut slow = api.connect().await;
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nHost: loc").await.expect("writes");
    // The only place is taken: this one waits in the accept queue until the slow one is closed.
    assert_eq!(api.get("/healthz").await.status, 200);
    assert_ne!(answer(slow).await.status, 200);
    // So is one that says nothing at all, or nothing more.
    let silent = api.connect().await;
    assert_eq!(answer(silent).await.status, 0);
    let mut kept = api.connect().await;
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
    assert_eq!(answer(kept).await.status, 200);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_and_are_served_in_the_end() {
    let api = start(Bounds { connections: 2, ..Bounds::default() }).await;
    let held = [api.connect().await, api.connect().await];
    // Both are accepted once they have been answered.
    let mut served = Vec::new();
    for mut stream in held {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("answered");
        assert_eq!(&first, b"HTTP/1.1 200");
        served.push(stream);
    }
    let third = api.get("/healthz");
    tokio::pin!(third);
    // An answer on a served connection comes while the third has none.
    let mut again = served.pop().expect("two");
    tokio::select! {
        biased;
        answer = &mut third => panic!("served beyond the limit: {answer:?}"),
        () = still_answered(&mut again) => {}
    }
    drop(again);
    assert_eq!(third.await.status, 200);
}

#[tokio::test]
async fn beyond_loopback_one_address_does_not_take_all_places() {
    let mut settings = fake::web_and_api();
    settings.admin = Admin { tokens: vec![token("one")], ..at(ListenAddress::Tcp(([0, 0, 0, 0], 0).into())) };
    let listener = bind(&settings.admin).await.expect("binds");
    let api = start_on(listener, settings, Bounds { connections_per_address: 2, ..Bounds::default() }).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = api.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
        until(&mut stream, b"\"ok\"").await;
        held.push(stream);
    }
    assert_eq!(api.get("/healthz").await.status, 0, "closed without an answer");
    still_answered(&mut held[0]).await;
    held.pop();
    let next = async { while api.get("/healthz").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("its place is free");
}

/// Asks on a connection that is open and waits for the answer.
async fn still_answered(stream: &mut TcpStream) {
    stream.write_all(b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
    until(stream, b"urn:tidegate:problem").await;
}

#[tokio::test]
async fn old_connections_and_clients_that_do_not_read_free_their_place() {
    let api = start(Bounds { age: Duration::from_millis(50), connections: 1, ..Bounds::default() }).await;
    let mut old = api.connect().await;
    old.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("writes");
    assert_eq!(answer(old).await.status, 200, "and then it is closed");
    let deaf = api.connect().await;
    let requests = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100_000);
    let (unread, mut deaf) = deaf.into_split();
    // Fails once the connection is cut.
    assert!(deaf.write_all(&requests).await.is_err());
    assert_eq!(api.get("/healthz").await.status, 200);
    drop(unread);
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_fields() {
    let api = start(Bounds::default()).await;
    let head = "GET /healthz HTTP/1.1\nHost: localhost\nConnection: close";
    let long = format!("{head}\nX-Long: {}\n\n", "x".repeat(128 * 1024)).replace('\n', "\r\n");
    let mut stream = api.connect().await;
    // It may be closed before all of it was written, and then the answer may be lost.
    let _ = stream.write_all(long.as_bytes()).await;
    assert!(matches!(answer(stream).await.status, 0 | 431));
    let field = |n: usize| format!("\nX-{n}: 1");
    let many = format!("{head}{}", (0..64).map(field).collect::<String>());
    assert_eq!(api.raw(&many, "").await.status, 431);
    let allowed = format!("{head}{}", (0..62).map(field).collect::<String>());
    assert_eq!(api.raw(&allowed, "").await.status, 200);
}
