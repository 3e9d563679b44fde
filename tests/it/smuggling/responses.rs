//! Responses that would be read as another one by somebody: refused, cut, or delivered as the one that was asked for. Whatever the upstream
//! left on its connection is never read as an answer to the next client.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::client::Client;
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Act, Behaviour, Upstream, read_body};
use crate::harness::wait::within;
use crate::harness::wire::find;

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Requests of other clients after each response.
const AFTER: usize = 2;

/// What the client gets of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// This status and body, whole.
    Whole(u16, &'static str),
    /// A head, and an end that nobody can take for the end of the message.
    Cut,
}

/// 502: nothing of it is believed.
const NOTHING: Gets = Gets::Whole(502, "the upstream's response was invalid\n");

struct Played {
    upstream: Upstream,
    proxy: Proxy,
}

// === impl Played ===

impl Played {
    /// One worker, so that the next request would find the connection of the last one.
    async fn start() -> Self {
        let upstream = Upstream::start(Behaviour::version("clean")).await;
        let proxy = Proxy::start(|c| {
            let quick = "response_timeout = \"2s\"\nbody_idle = \"2s\"";
            c.web(&[&upstream.address()], &[]).set("runtime", "workers = 1").set("services.web.upstream", quick)
        })
        .await;
        Self { upstream, proxy }
    }

    /// Has `raw` answer a request of `method`, and says whether the connection it came on was used again.
    async fn play(&self, method: &str, raw: &[u8], close: bool, gets: Gets) -> bool {
        let what = format!("{method}: {}", raw[..raw.len().min(300)].escape_ascii());
        let end = close.then_some(Act::Close);
        self.upstream.next([Behaviour::script([read_body(), Act::Write(raw.to_vec())].into_iter().chain(end))]);
        let mut client = self.proxy.client().await;
        client.send(format!("{method} /asked HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = within("an answer or its end", client.try_response(method)).await;
        match (gets, response) {
            (Gets::Whole(502, _), Ok(response)) => assert_eq!(response.status, 502, "{what}"),
            (Gets::Whole(status, body), Ok(response)) => {
                assert_eq!((response.status, response.text()), (status, body), "{what}");
                if response.keeps() {
                    client.send(GET).await;
                    self.expect_clean(&mut client, &what).await;
                }
            }
            (Gets::Cut, Err(_)) => {}
            (gets, response) => panic!("{response:?} instead of {gets:?}: {what}"),
        }
        for _ in 0..AFTER {
            let mut other = self.proxy.client().await;
            other.send(GET).await;
            self.expect_clean(&mut other, &what).await;
        }
        let requests = self.upstream.requests();
        let poisoned = requests[0].connection;
        assert_eq!(requests[0].head.line, format!("{method} /asked HTTP/1.1"), "{what}");
        requests[1..].iter().any(|request| request.connection == poisoned)
    }

    async fn expect_clean(&self, client: &mut Client, what: &str) {
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "clean"), "the request after {what}");
    }

    /// None of these may be used again.
    async fn all(&self, method: &str, gets: Gets, answers: &[impl AsRef<[u8]>]) {
        for raw in answers {
            for close in [false, true] {
                let used_again = self.play(method, raw.as_ref(), close, gets).await;
                assert!(!used_again, "the connection was used again: {}", raw.as_ref().escape_ascii());
            }
        }
    }
}

/// What the other tests look for is there to be seen: a connection in order is used again.
#[tokio::test]
async fn a_connection_in_order_is_used_again() {
    let played = Played::start().await;
    assert!(played.play("GET", HELLO.as_bytes(), false, Gets::Whole(200, "hello")).await);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert!(played.play("HEAD", head, false, Gets::Whole(200, "")).await);
    assert!(played.play("GET", b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", false, Gets::Whole(304, "")).await);
    assert!(played.play("GET", b"HTTP/1.1 204 None\r\n\r\n", false, Gets::Whole(204, "")).await);
}

#[tokio::test]
async fn lengths_that_contradict_each_other() {
    let played = Played::start().await;
    let mut answers = Vec::new();
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 50",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5, 50",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5;",
        "Content-Length:",
        "Content-Length: five",
        "Content-Length: 18446744073709551621",
        "Content-Length : 5",
        "Content-Length: 5\u{b}",
        "Connection: content-length\r\nContent-Length: 5",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: \u{b}chunked",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
    ] {
        answers.push(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"));
    }
    answers.push(format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"));
    played.all("GET", NOTHING, &answers).await;
}

#[tokio::test]
async fn heads_that_are_none() {
    let played = Played::start().await;
    let mut answers = Vec::new();
    for raw in [
        // Splitting: what came as a value and brought its own line ends.
        "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: y\rContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: y\0\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: y\n\nhello",
        "HTTP/1.1 200 OK\n\nhello",
        "HTTP/1.1 200 OK\r\nX: y\r\n\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 O\nK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 O\0K\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX y: z\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX\u{e9}: z\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\nhello",
        // Status lines.
        "HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        " HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1\t200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 +20 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/2 200\r\nContent-Length: 5\r\n\r\nhello",
        "ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "<html>\r\n\r\n</html>",
        // Interim responses.
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    ] {
        answers.push(format!("{raw}{POISON}"));
    }
    answers.push(format!("{}{POISON}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(9)));
    answers.push(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 5\r\n\r\nhello{POISON}", "X: y\r\n".repeat(257)));
    answers.push(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 5\r\n\r\nhello", "x".repeat(66 * 1024)));
    played.all("GET", NOTHING, &answers).await;
}

/// Delivered as the one response that was asked for; the rest is thrown away with the connection.
#[tokio::test]
async fn bytes_behind_a_response() {
    let played = Played::start().await;
    let with = |lines: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}{POISON}");
    let hello = [
        format!("{HELLO}{POISON}"),
        format!("{HELLO}\r\n"),
        format!("{HELLO}\n{POISON}"),
        format!("{HELLO}\0"),
        with("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        with("Transfer-Encoding: Chunked\r\n", "05;a=b\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
        with("Connection: close\r\nContent-Length: 5\r\n", "hello"),
        with("Content_Length: 500\r\nContent-Length: 005\r\n", "hello"),
        format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello{POISON}"),
        format!("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n{HELLO}{POISON}"),
        format!("{}{HELLO}{POISON}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(8)),
    ];
    played.all("GET", Gets::Whole(200, "hello"), &hello).await;
    let empty = [with("Content-Length: 0\r\n", ""), with("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")];
    played.all("GET", Gets::Whole(200, ""), &empty).await;

    // No body, whatever is said and whatever comes.
    for status in [204, 304] {
        let answers = ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 0\r\n"]
            .map(|lines| format!("HTTP/1.1 {status} X\r\n{lines}\r\n5\r\nhello\r\n0\r\n\r\n{POISON}"));
        played.all("GET", Gets::Whole(status, ""), &answers).await;
    }
    let announced =
        ["HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n"];
    played.all("GET", Gets::Whole(204, ""), &announced).await;
    let head = [HELLO.to_owned(), format!("{HELLO}{POISON}"), with("Content-Length: 0\r\n", "x"), with("", "")];
    played.all("HEAD", Gets::Whole(200, ""), &head).await;
}

/// Responses that end exactly where a read may end, so that what follows them is still in the socket.
#[tokio::test]
async fn bytes_behind_a_response_that_fills_a_buffer() {
    let played = Played::start().await;
    for size in [4, 8, 16, 32, 64, 128, 256].map(|kib| kib * 1024) {
        for off in [-1_i32, 0, 1] {
            let head = |body: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {body:06}\r\n\r\n");
            let body = (i32::try_from(size - head(0).len()).expect("a small size") + off).unsigned_abs() as usize;
            let raw = [head(body), "x".repeat(body), POISON.to_owned()].concat();
            played.upstream.next([Behaviour::raw(raw)]);
            let response = played.proxy.ask(GET).await;
            assert_eq!((response.status, response.body.length), (200, body as u64), "{size}{off:+}");
            for _ in 0..AFTER {
                let mut other = played.proxy.client().await;
                other.send(GET).await;
                played.expect_clean(&mut other, &format!("{size}{off:+}")).await;
            }
            let requests = played.upstream.requests();
            assert!(requests[1..].iter().all(|r| r.connection != requests[0].connection), "{size}{off:+}");
        }
    }
}

#[tokio::test]
async fn bodies_that_break_off() {
    let played = Played::start().await;
    let mut answers = Vec::new();
    for body in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "x\r\n",
        "\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
        "5\r\nhello\r\n0\r\n folded\r\n\r\n",
        "5\r\nhello\r\n0\r\n",
    ] {
        answers.push(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}{POISON}"));
    }
    played.all("GET", Gets::Cut, &answers).await;
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    ] {
        assert!(!played.play("GET", raw.as_bytes(), true, Gets::Cut).await, "{raw:?}");
    }
}

/// Reads up to the end of a request head.
async fn read_request(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while find(&seen, b"\r\n\r\n").is_none() {
        assert!(stream.read_buf(&mut seen).await.expect("an open connection") > 0, "closed within a request");
    }
}

/// The next connection on which anything comes; probes only connect.
async fn next_used(listener: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = listener.accept().await.expect("a listening socket");
        if stream.peek(&mut [0]).await.is_ok_and(|n| n > 0) {
            return stream;
        }
    }
}

/// A response nobody asked for, written while the connection is idle: it is seen before the next request is sent there.
#[tokio::test]
async fn a_response_on_an_idle_connection_is_an_answer_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket").to_string();
    let proxy = Proxy::start(|c| c.web(&[&address], &[]).set("runtime", "workers = 1")).await;
    let mut client = proxy.client().await;
    for turn in 0..20 {
        client.send(GET).await;
        let mut stream = within("a new connection", next_used(&listener)).await;
        within("a request", read_request(&mut stream)).await;
        stream.write_all(HELLO.as_bytes()).await.expect("an open connection");
        assert_eq!(client.response().await.text(), "hello", "turn {turn}");
        // In the socket of the proxy before the next request is in the other one.
        stream.write_all(POISON.as_bytes()).await.expect("an open connection");
    }
}
