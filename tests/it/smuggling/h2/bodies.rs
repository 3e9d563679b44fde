//! Bodies: frames say where one ends, `Content-Length` has to agree, and nothing in one is ever framing.

use super::{COMPRESSION_ERROR, Case, GET, POST, PROTOCOL_ERROR, SMUGGLED, run};
use crate::harness::h2_raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, End, HEADERS, Pair, RawH2, block};
use crate::harness::proxy::Proxy;
use crate::harness::upstream::{Behaviour, Upstream};

/// A frame: type, flags, stream and payload.
type Frame<'a> = (u8, u8, u32, &'a [u8]);

const HEAD: &str = "POST / HTTP/1.1\nhost: a";

fn post(fields: &[Pair<'_>]) -> Vec<Pair<'static>> {
    let leaked = fields.iter().map(|(name, value)| -> Pair<'static> { (name.to_vec().leak(), value.to_vec().leak()) });
    POST.into_iter().chain(leaked).collect()
}

/// A POST that claims this length.
fn claims(length: &str) -> Vec<Pair<'static>> {
    post(&[(b"content-length", length.as_bytes())])
}

#[tokio::test]
async fn lengths_that_do_not_fit() {
    let longer = format!("hello{SMUGGLED}");
    let (five, none) = (format!("{HEAD}\ncontent-length: 5"), format!("{HEAD}\ncontent-length: 0"));
    let late = |fields: &[Pair<'_>], pieces: &[&str]| Case::refused(fields).body(pieces).late();
    let mut cases = vec![
        late(&claims("5"), &["hell"]),
        late(&claims("5"), &["hello!"]).overrun(&five, "hello"),
        late(&claims("5"), &["hello", "!"]).overrun(&five, "hello"),
        late(&claims("5"), &[&longer]).overrun(&five, "hello"),
        late(&claims("5"), &["hello", SMUGGLED]).overrun(&five, "hello"),
        late(&claims("5"), &[""]),
        late(&claims("0"), &["x"]).overrun(&none, ""),
        late(&claims("0"), &[SMUGGLED]).overrun(&none, ""),
        late(&claims("00"), &["", SMUGGLED]).overrun(&none, ""),
        late(&claims("18446744073709551615"), &["hello"]),
        late(&claims("4294967301"), &["hello"]),
        // The head ends the stream.
        Case::refused(&claims("5")),
        Case::refused(&claims("18446744073709551615")),
        Case::refused(&[&GET[..], &[(b"content-length", b"5")]].concat()),
        // Trailers instead of the rest.
        late(&claims("5"), &["hell"]).trailers(&[(b"grpc-status", b"0")]),
        late(&claims("5"), &[]).trailers(&[(b"grpc-status", b"0")]),
    ];
    for length in
        ["+5", "-5", "0x5", "5 ", " 5", "5,5", "5, 5", "5;", "", "five", "5e0", "5\r\n", "5\0", "18446744073709551621"]
    {
        cases.push(Case::refused(&claims(length)).body(&["hello"]));
    }
    for (one, other) in [("5", "5"), ("5", "6"), ("6", "5"), ("0", "5"), ("5", "0"), ("5", "")] {
        let twice = post(&[(b"content-length", one.as_bytes()), (b"content-length", other.as_bytes())]);
        cases.push(Case::refused(&twice).body(&["hello"]).late());
    }
    run(&cases).await;
}

#[tokio::test]
async fn bodies_that_pass() {
    let (chunked, inside) = (format!("{HEAD}\ntransfer-encoding: chunked"), format!("0\r\n\r\n{SMUGGLED}"));
    let with_length = |length: usize| format!("{HEAD}\ncontent-length: {length}");
    let none = with_length(0);
    run(&[
        Case::passes(&POST, &none, ""),
        Case::passes(&claims("0"), &none, ""),
        Case::passes(&claims("0"), &none, "").body(&[""]),
        Case::passes(&POST, &chunked, "hello").body(&["hello"]),
        Case::passes(&POST, &chunked, "hello").body(&["he", "", "llo", ""]),
        Case::passes(&POST, &chunked, "").body(&[""]),
        Case::passes(&POST, &chunked, &inside).body(&[&inside]),
        Case::passes(&claims("5"), &with_length(5), "hello").body(&["hel", "lo"]),
        Case::passes(&claims("005"), &with_length(5), "hello").body(&["hello", ""]),
        Case::passes(&claims(&SMUGGLED.len().to_string()), &with_length(SMUGGLED.len()), SMUGGLED).body(&[SMUGGLED]),
        // A body where there usually is none.
        Case::passes(&GET, "GET / HTTP/1.1\nhost: a\ntransfer-encoding: chunked", SMUGGLED).body(&[SMUGGLED]),
        Case::passes(&POST, &chunked, "hello\ngrpc-status: 0").body(&["hello"]).trailers(&[(b"grpc-status", b"0")]),
        // Trailers that would be framing or routing in a head stay behind.
        Case::passes(&POST, &chunked, "hello").body(&["hello"]).trailers(&[
            (b"content-length", b"9"),
            (b"host", b"b"),
            (b"x-forwarded-for", b"1.2.3.4"),
            (b"x", b"y"),
        ]),
        // The frame's reader leaves these out.
        Case::passes(&POST, &chunked, "hello")
            .body(&["hello"])
            .trailers(&[(b":path", b"/smuggled"), (b":status", b"200")]),
    ])
    .await;
}

#[tokio::test]
async fn trailers_that_are_refused() {
    let late = |fields: &[Pair<'_>]| Case::refused(&POST).body(&["hello"]).trailers(fields).late();
    let many: Vec<Pair<'_>> = (0..200).map(|_| -> Pair<'_> { (b"x", b"y") }).collect();
    run(&[
        late(&[(b":foo", b"x")]),
        late(&[(b"grpc-\"x\"", b"y")]),
        late(&[(b"\"x\"", b"y")]),
        late(&[(b"X", b"y")]),
        late(&[(b"grpc-status", b"0\r\nx: y")]),
        late(&[(b"grpc-status", b"0\n")]),
        late(&[(b"grpc-status", b"0\0")]),
        late(&[(b"grpc-x\r\ny", b"0")]),
        late(&[(b"grpc x", b"0")]),
        late(&[(b"connection", b"close")]),
        late(&[(b"transfer-encoding", b"chunked")]),
        late(&many),
        // What the frame's reader would leave out is not left out silently.
        late(&[(b"grpc-x", &vec![b'x'; 65_536])]),
        late(&[(b"grpc-status", b"0"), (b"grpc-x", &vec![b'x'; 200_000])]),
    ])
    .await;
}

/// Frames that come where none may: the connection ends, and no request comes of them.
#[tokio::test]
async fn frames_out_of_place() {
    let upstream = Upstream::start(Behaviour::version("v1")).await;
    let proxy = Proxy::start(|c| c.web(&[&upstream.address()], &[])).await;
    let head = block(&GET);
    let whole = END_HEADERS | END_STREAM;
    let (first, second) = head.split_at(10);
    let sequences: [&[Frame<'_>]; 9] = [
        &[(DATA, END_STREAM, 1, SMUGGLED.as_bytes())],
        &[(CONTINUATION, END_HEADERS, 1, &head)],
        &[(HEADERS, whole, 0, &head)],
        &[(HEADERS, whole, 2, &head)],
        // A head broken off by another frame.
        &[(HEADERS, END_STREAM, 1, first), (DATA, 0, 1, b"x"), (CONTINUATION, END_HEADERS, 1, second)],
        &[(HEADERS, END_STREAM, 1, first), (CONTINUATION, END_HEADERS, 3, second)],
        &[(HEADERS, END_STREAM, 1, first), (HEADERS, whole, 3, &head)],
        // Bytes that are no header block, and a block that ends too early.
        &[(HEADERS, whole, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")],
        &[(HEADERS, whole, 1, first)],
    ];
    for (number, sequence) in sequences.into_iter().enumerate() {
        let mut client = RawH2::connect(&proxy.address()).await;
        for (kind, flags, stream, payload) in sequence {
            client.frame(*kind, *flags, *stream, payload).await;
        }
        let end = client.end(1).await;
        assert!(matches!(end, End::Gone(PROTOCOL_ERROR | COMPRESSION_ERROR)), "sequence {number} ended with {end:?}");
    }
    assert_eq!(upstream.arrived(), 0);
    // Streams end once: a request on one that did is none.
    let mut client = RawH2::connect(&proxy.address()).await;
    client.frame(HEADERS, whole, 5, &head).await;
    assert_eq!(client.end(5).await, End::Response(200, b"v1".to_vec()));
    client.frame(HEADERS, whole, 3, &head).await;
    assert!(matches!(client.end(3).await, End::Gone(_) | End::Reset(_) | End::Closed));
    assert_eq!(upstream.arrived(), 1);
}
