//! Responses of an HTTP/2 upstream to an HTTP/1.1 client: what frames can carry and lines cannot, and the ends that contradict their heads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::SMUGGLED;
use crate::harness::client::Client;
use crate::harness::h2_raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Pair, RST_STREAM, RawH2, block};
use crate::harness::proxy::Proxy;
use crate::harness::wait::within;
use crate::harness::wire::Fault;

/// A frame of an answer: type, flags and payload.
type Frame = (u8, u8, Vec<u8>);
/// What the next requests get.
type Script = Arc<Mutex<VecDeque<Vec<Frame>>>>;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: Pair<'static> = (b":status", b"200");
/// Requests of other clients after each answer.
const AFTER: usize = 2;

/// What the client gets of an answer.
#[derive(Clone, Copy, Debug)]
enum Gets {
    Status(u16),
    /// 200 with this body.
    Whole(&'static str),
    Cut,
}

struct Played {
    script: Script,
    proxy: Proxy,
    _accepting: JoinSet<()>,
}

// === impl Played ===

impl Played {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let script = Script::default();
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&script)));
        let proxy = Proxy::start(|c| {
            let lines = "protocol = \"http2\"\nresponse_timeout = \"2s\"\nbody_idle = \"2s\"";
            c.web(&[&address], &[]).set("runtime", "workers = 1").set("services.web.upstream", lines)
        })
        .await;
        Self { script, proxy, _accepting: accepting }
    }

    async fn play(&self, gets: Gets, answers: &[(&str, Vec<Frame>)]) {
        let mut wrong = Vec::new();
        for (what, frames) in answers {
            self.script.lock().expect("no one panics with it").push_back(frames.clone());
            let mut client = self.proxy.client().await;
            client.send("GET /asked HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let response = within("an answer or its end", client.try_response("GET")).await;
            match (gets, &response) {
                (Gets::Status(status), Ok(response)) if response.status == status => {}
                (Gets::Whole(body), Ok(response)) if response.status == 200 && response.text() == body => {
                    assert!(response.body.trailers.is_empty(), "{what}: {:?}", response.body.trailers);
                    clean(&mut client, what).await;
                }
                (Gets::Cut, Err(Fault::Eof(_) | Fault::Io(_))) => {}
                _ => wrong.push(format!("{response:?} instead of {gets:?}: {what}: {}", shown(frames))),
            }
            for _ in 0..AFTER {
                clean(&mut self.proxy.client().await, what).await;
            }
        }
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
    }
}

fn shown(frames: &[Frame]) -> String {
    frames.iter().map(|(_, _, payload)| payload[..payload.len().min(80)].escape_ascii().to_string() + " | ").collect()
}

async fn clean(client: &mut Client, what: &str) {
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "clean"), "the request after {what}");
}

async fn accept(listener: TcpListener, script: Script) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a listening socket");
        connections.spawn(serve(stream, Arc::clone(&script)));
    }
}

async fn serve(stream: TcpStream, script: Script) {
    let Some(mut connection) = RawH2::accept(stream).await else { return };
    while let Some(stream) = connection.request().await {
        let scripted = script.lock().expect("no one panics with it").pop_front();
        let answer = scripted.unwrap_or_else(|| vec![head(&[OK], false), data("clean", true)]);
        for (kind, flags, payload) in answer {
            connection.frame(kind, flags, stream, &payload).await;
        }
    }
}

fn head(fields: &[Pair<'_>], end: bool) -> Frame {
    (HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, block(fields))
}

fn data(payload: &str, end: bool) -> Frame {
    (DATA, if end { END_STREAM } else { 0 }, payload.as_bytes().to_vec())
}

/// A head of these fields, and a body.
fn hello(what: &'static str, fields: &[Pair<'_>]) -> (&'static str, Vec<Frame>) {
    (what, vec![head(fields, false), data("hello", true)])
}

#[tokio::test]
async fn heads_that_are_none() {
    let played = Played::start().await;
    let split = format!("y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{SMUGGLED}");
    let mut answers = vec![
        hello("no status", &[(b"x", b"y")]),
        hello("nothing", &[]),
        hello("two statuses", &[OK, OK]),
        hello("two different statuses", &[OK, (b":status", b"404")]),
        hello("a status behind a field", &[(b"x", b"y"), OK]),
        hello("an unknown pseudo-header field", &[OK, (b":foo", b"x")]),
        hello("an upgrade", &[(b":status", b"101")]),
        hello("a split value", &[OK, (b"x", split.as_bytes())]),
        hello("a split name", &[OK, (b"x: y\r\nz", b"y")]),
        hello("two lengths", &[OK, (b"content-length", b"5"), (b"content-length", b"5")]),
        hello("two different lengths", &[OK, (b"content-length", b"5"), (b"content-length", b"6")]),
    ];
    for status in
        [&b""[..], b"20", b"2000", b"abc", b"099", b"600", b"999", b"+20", b"200 OK", b"2\r\n", b" 200", b"0200"]
    {
        answers.push(hello("a status that is none", &[(b":status", status)]));
    }
    for name in [&b""[..], b"X", b"x y", b"x ", b"x:", b"x\r", b"x\n", b"x\0", b"\"x\"", b"x(", b"\xc3\xa9", b":x"] {
        answers.push(hello("a name that is none", &[OK, (name, b"y")]));
    }
    for value in [&b"\r"[..], b"\n", b"y\r\nz: x", b"y\nz", b"y\rz", b"y\0", b"\x01", b"\x7f"] {
        answers.push(hello("a value that is none", &[OK, (b"x", value)]));
        answers.push(hello("a cookie that is none", &[OK, (b"set-cookie", value)]));
        answers.push(hello("a place that is none", &[(b":status", b"302"), (b"location", value)]));
    }
    for name in [&b"connection"[..], b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"te"] {
        for value in [&b"close"[..], b"chunked", b"websocket", b""] {
            answers.push(hello("a field of a connection", &[OK, (name, value)]));
        }
    }
    for length in [&b""[..], b"-5", b"+5", b"0x5", b"5,5", b"5, 5", b"five", b"18446744073709551621", b"5 5"] {
        answers.push(hello("a length that is none", &[OK, (b"content-length", length)]));
    }
    let flood: Vec<_> = (0..9).map(|_| head(&[(b":status", b"103")], false)).collect();
    answers.push(("nine interim heads", [flood, vec![head(&[OK], true)]].concat()));
    answers.push(("an interim head that ends the stream", vec![head(&[(b":status", b"103")], true)]));
    answers.push(("a body before its head", vec![data("hello", true)]));
    played.play(Gets::Status(502), &answers).await;
}

#[tokio::test]
async fn bodies_that_do_not_fit() {
    let played = Played::start().await;
    let five: [Pair<'_>; 2] = [OK, (b"content-length", b"5")];
    let reset = |code: u8| (RST_STREAM, 0, vec![0, 0, 0, code]);
    let large = block(&[(b"grpc-status", b"0"), (b"grpc-x", &vec![b'x'; 65_536])]);
    let mut large: Vec<Frame> = large.chunks(16_384).map(|part| (CONTINUATION, 0, part.to_vec())).collect();
    (large[0].0, large[0].1) = (HEADERS, END_STREAM);
    large.last_mut().expect("frames").1 |= END_HEADERS;
    let answers = [
        ("less than announced", vec![head(&five, false), data("hell", true)]),
        (
            "less than announced, then trailers",
            vec![head(&five, false), data("hell", false), head(&[(b"x", b"y")], true)],
        ),
        ("a reset instead of a body", vec![head(&five, false), reset(2)]),
        ("a reset within a body", vec![head(&five, false), data("hel", false), reset(8)]),
        ("a reset of no known length", vec![head(&[OK], false), data("hel", false), reset(2)]),
        ("a split trailer", vec![head(&[OK], false), data("hello", false), head(&[(b"grpc-x", b"y\r\nz: x")], true)]),
        ("a split trailer name", vec![head(&[OK], false), data("hello", false), head(&[(b"grpc-\r\nx", b"y")], true)]),
        ("trailers that are too large", [vec![head(&[OK], false), data("hello", false)], large].concat()),
        ("a trailer that is none", vec![head(&[OK], false), data("hello", false), head(&[(b"grpc-\"x", b"y")], true)]),
    ];
    played.play(Gets::Cut, &answers).await;
}

#[tokio::test]
async fn answers_that_pass_mean_one_thing() {
    let played = Played::start().await;
    let hidden: [Pair<'_>; 3] = [(b"content-length", b"9"), (b"host", b"b"), (b"set-cookie", b"a=b")];
    let pseudo: [Pair<'_>; 1] = [(b":status", b"500")];
    let answers = [
        hello("no length", &[OK]),
        // The frame's reader leaves these out.
        hello("a path", &[OK, (b":path", b"/smuggled")]),
        hello("a length", &[OK, (b"content-length", b"5")]),
        ("frames", vec![head(&[OK], false), data("", false), data("he", false), data("llo", false), data("", true)]),
        ("trailers that stay behind", vec![head(&[OK], false), data("hello", false), head(&hidden, true)]),
        ("pseudo-header fields as trailers", vec![head(&[OK], false), data("hello", false), head(&pseudo, true)]),
        ("interim heads", vec![head(&[(b":status", b"103")], false), head(&[OK], false), data("hello", true)]),
    ];
    played.play(Gets::Whole("hello"), &answers).await;
    let empty = [("a head that ends the stream", vec![head(&[OK], true)])];
    played.play(Gets::Whole(""), &empty).await;
    let many = "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    played.play(Gets::Whole(many), &[("framing as payload", vec![head(&[OK], false), data(many, true)])]).await;
}
