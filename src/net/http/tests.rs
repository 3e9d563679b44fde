//! The client against raw sockets.

use std::fs;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;

/// Bounds a test that should not wait at all.
const LONG: Duration = Duration::from_secs(10);

/// Accepts one connection, reads until `until` was seen, writes `reply`, closes; gives back what it read.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, until: &str, reply: &[u8]) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(until) {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
    }
    // A client that has seen enough may be gone already.
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
    String::from_utf8(seen).unwrap()
}

async fn tcp() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    (listener, target)
}

/// One GET against a server that writes `reply` and closes.
async fn get(reply: &[u8]) -> Result<Response, HttpError> {
    let (listener, target) = tcp().await;
    let server = async { answer(listener.accept().await.unwrap().0, "\r\n\r\n", reply).await };
    tokio::join!(request(&target, Request::get("/"), LONG), server).0
}

#[tokio::test]
async fn a_request_and_its_response() {
    let (listener, target) = tcp().await;
    let server = async {
        let reply = b"HTTP/1.1 201 Created\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello";
        answer(listener.accept().await.unwrap().0, "{\"weight\":\"5%\"}", reply).await
    };
    let post = Request::post_json("/v1/services/web/weight?x=1", "{\"weight\":\"5%\"}");
    let (response, seen) = tokio::join!(request(&target, post, LONG), server);
    let response = response.unwrap();
    assert_eq!((response.status, &response.body[..]), (201, &b"hello"[..]));
    assert_eq!(response.headers["x-a"], "1");
    let seen = seen.to_lowercase();
    assert!(seen.starts_with("post /v1/services/web/weight?x=1 http/1.1\r\n"), "{seen}");
    let host = format!("\r\nhost: {}\r\n", listener.local_addr().unwrap());
    for field in
        [&host, "\r\ncontent-length: 15\r\n", "\r\nconnection: close\r\n", "\r\ncontent-type: application/json\r\n"]
    {
        assert!(seen.contains(field), "{field:?} is missing in {seen}");
    }
}

#[tokio::test]
async fn over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("tidegate-http-{}.sock", std::process::id()));
    let target = Target::parse(&format!("unix:{}", path.display())).unwrap();
    assert_eq!(request(&target, Request::get("/"), LONG).await.unwrap_err(), HttpError::Refused, "no such file");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        answer(listener.accept().await.unwrap().0, "\r\n\r\n", reply).await
    };
    let (response, seen) = tokio::join!(request(&target, Request::get("/v1/status"), LONG), server);
    assert_eq!(&response.unwrap().body[..], b"hi");
    assert!(seen.to_lowercase().contains("\r\nhost: localhost\r\n"), "{seen}");
    drop(listener);
    assert_eq!(request(&target, Request::get("/"), LONG).await.unwrap_err(), HttpError::Refused, "a stale file");
    fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn refused() {
    let (listener, target) = tcp().await;
    drop(listener);
    assert_eq!(request(&target, Request::get("/"), LONG).await.unwrap_err(), HttpError::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_a_timeout() {
    let (listener, target) = tcp().await;
    let silent = async {
        let _stream = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = request(&target, Request::get("/"), LONG) => assert_eq!(answer.unwrap_err(), HttpError::Timeout),
        () = silent => unreachable!(),
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    let exact = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; BODY_BYTES_MAX]].concat();
    assert_eq!(get(&exact).await.unwrap().body.len(), BODY_BYTES_MAX);
    let over = [&exact[..], b"x"].concat();
    assert_eq!(get(&over).await.unwrap_err(), HttpError::TooLarge);
    let declared = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n";
    assert!(matches!(get(declared).await.unwrap_err(), HttpError::TooLarge | HttpError::Broken(_)));
}

#[tokio::test]
async fn what_is_not_a_whole_response_is_broken() {
    let head = [&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; 2 * HEAD_BYTES_MAX], b"\r\n\r\n"].concat();
    let cases: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        &head,
    ];
    for reply in cases {
        let error = get(reply).await.unwrap_err();
        assert!(matches!(&error, HttpError::Broken(reason) if !reason.is_empty()), "{reply:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_ends_or_breaks() {
    let (listener, target) = tcp().await;
    let server = async {
        let mut stream = listener.accept().await.unwrap().0;
        let mut seen = [0; 1_024];
        assert!(stream.read(&mut seen).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await.unwrap();
        stream
    };
    let (stream, mut server) = tokio::join!(open(&target, Request::get("/v1/events"), LONG), server);
    let mut stream = stream.unwrap();
    assert_eq!((stream.status, stream.next().await), (200, Ok(Some(Bytes::from_static(b"hi")))));
    server.write_all(b"5\r\nthere\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(stream.next().await, Ok(Some(Bytes::from_static(b"there"))));
    assert_eq!(stream.next().await, Ok(None));

    let server = async {
        let reply = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
        answer(listener.accept().await.unwrap().0, "\r\n\r\n", reply).await
    };
    let (refused, _) = tokio::join!(open(&target, Request::get("/"), LONG), server);
    let whole = refused.unwrap().whole().await.unwrap();
    assert_eq!((whole.status, &whole.body[..]), (503, &b"busy"[..]));

    let server = async {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort";
        answer(listener.accept().await.unwrap().0, "\r\n\r\n", reply).await
    };
    let (cut, _) = tokio::join!(open(&target, Request::get("/"), LONG), server);
    let mut cut = cut.unwrap();
    assert_eq!(cut.next().await, Ok(Some(Bytes::from_static(b"short"))));
    assert!(matches!(cut.next().await, Err(HttpError::Broken(_))));
    drop(listener);
    assert_eq!(open(&target, Request::get("/"), LONG).await.err(), Some(HttpError::Refused));
}

#[tokio::test]
async fn a_target_that_is_not_a_path_is_not_sent() {
    for path in ["", "v1", "*", "http://elsewhere/", "/a b", "/a\r\nx: y"] {
        let (_listener, target) = tcp().await;
        let error = request(&target, Request::get(path), LONG).await.unwrap_err();
        assert!(matches!(&error, HttpError::Broken(reason) if reason.contains("path")), "{path:?}: {error:?}");
    }
}

#[test]
fn targets() {
    let good = [
        ("http://127.0.0.1:9900", "127.0.0.1:9900", "127.0.0.1:9900"),
        ("http://localhost:9900/", "localhost:9900", "localhost:9900"),
        ("http://example.com", "example.com:80", "example.com"),
        ("http://[::1]:9900", "[::1]:9900", "[::1]:9900"),
    ];
    for (text, shown, host) in good {
        let target = Target::parse(text).unwrap();
        assert_eq!(target.to_string(), shown);
        assert!(matches!(&target, Target::Tcp { authority, .. } if authority == host), "{target:?}");
    }
    assert!(matches!(Target::parse("http://[::1]:1").unwrap(), Target::Tcp { host, .. } if host == "::1"));
    assert_eq!(Target::parse("unix:/run/x.sock").unwrap().to_string(), "unix:/run/x.sock");
    let bad = [
        "",
        "127.0.0.1:9900",
        "localhost",
        "https://a:1",
        "ftp://a:1",
        "http://",
        "http://:80",
        "http://a:0",
        "http://a:65536",
        "http://a:",
        "http://a:1/x",
        "http://a:1?x",
        "http://a:1/#x",
        "http://[::1:80",
        "unix:",
        "unix:x.sock",
    ];
    for text in bad {
        let error = Target::parse(text).unwrap_err();
        assert!(error.contains("unix:/") && error.contains(text), "{text}: {error}");
    }
    let error = Target::parse("http://user:secret@a:1").unwrap_err();
    assert!(error.contains("password") && !error.contains("secret"), "{error}");
}
