//! One connection over a pair of sockets: what leaves in one write, how much waits, what is refused.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::proxy::fixture::head_limits;
use crate::proxy::io::BUFFER_LARGE;
use proptest::prelude::*;
use std::future::poll_fn;
use std::task::Waker;

fn wire() -> (Wire, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair");
    (Wire::new(Stream::Unix(near), head_limits()), far)
}

/// A wire whose next message out has the head `head` and a body of this length.
fn announced(body: BodyLength) -> (Wire, UnixStream) {
    let (mut wire, far) = wire();
    wire.out.extend_from_slice(b"HEAD ");
    wire.announce(body);
    (wire, far)
}

fn expecting(body: BodyLength, max: Option<u64>) -> (Wire, UnixStream) {
    let (mut wire, far) = wire();
    wire.expect(body, head_limits(), max);
    (wire, far)
}

/// Whatever has been written so far.
fn arrived(far: &UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = far.try_read(&mut some) {
        all.extend_from_slice(&some[..n]);
    }
    all
}

async fn send(wire: &mut Wire, mut payload: &[u8]) {
    while !payload.is_empty() {
        let n = poll_fn(|cx| wire.poll_send(cx, payload)).await.expect("taken");
        payload = &payload[n..];
    }
}

async fn end(wire: &mut Wire) {
    poll_fn(|cx| wire.poll_end(cx, None)).await.expect("ended");
}

/// Reads the message to its end: its payload, or what is wrong.
async fn receive(wire: &mut Wire) -> Result<Vec<u8>, Fault> {
    let mut all = Vec::new();
    while poll_fn(|cx| wire.poll_fill(cx)).await? == Fill::Data {
        all.extend_from_slice(wire.chunk());
        wire.consume(wire.chunk().len());
    }
    Ok(all)
}

// === the way out ===

#[tokio::test]
async fn head_and_small_payload_leave_in_one_write() {
    for (body, framed) in [(BodyLength::Exact(5), "HEAD hello"), (BodyLength::Chunked, "HEAD 5\r\nhello\r\n0\r\n\r\n")]
    {
        let (mut wire, mut far) = announced(body);
        send(&mut wire, b"hello").await;
        assert_eq!(wire.sent, 0, "nothing leaves before it has to");
        assert!(!wire.is_written());
        end(&mut wire).await;
        assert_eq!(wire.sent, framed.len() as u64);
        assert!(wire.is_written() && wire.out.is_empty());
        let mut got = vec![0; framed.len()];
        far.read_exact(&mut got).await.expect("all of it");
        assert_eq!(got, framed.as_bytes());
    }
}

#[tokio::test]
async fn large_payload_leaves_from_where_it_lies_together_with_the_head() {
    let payload = vec![b'x'; COPY_MAX + 1];
    let exact = BodyLength::Exact(payload.len() as u64);
    for (body, before, after) in [(exact, "HEAD ", ""), (BodyLength::Chunked, "HEAD 1001\r\n", "\r\n")] {
        let (mut wire, far) = announced(body);
        let n = poll_fn(|cx| wire.poll_send(cx, &payload)).await.expect("taken");
        let whole = [before.as_bytes(), &payload, after.as_bytes()].concat();
        assert_eq!((n, wire.sent, wire.out.is_empty()), (payload.len(), whole.len() as u64, true));
        far.readable().await.expect("readable");
        assert_eq!(arrived(&far), whole);
    }
}

#[tokio::test]
async fn chunks_are_framed_canonically_and_a_flush_completes_them() {
    let (mut wire, far) = announced(BodyLength::Chunked);
    send(&mut wire, b"ab").await;
    send(&mut wire, &[b'c'; 16]).await;
    poll_fn(|cx| wire.poll_flush(cx)).await.expect("flushed");
    poll_fn(|cx| wire.poll_flush(cx)).await.expect("flushed twice");
    send(&mut wire, b"d").await;
    end(&mut wire).await;
    far.readable().await.expect("readable");
    let expected = "HEAD 2\r\nab\r\n10\r\ncccccccccccccccc\r\n1\r\nd\r\n0\r\n\r\n";
    assert_eq!(String::from_utf8(arrived(&far)).expect("text"), expected);
}

/// A recipient that hands a chunk on only once it has its end must not wait for the next event.
#[tokio::test]
async fn a_flush_completes_a_chunk_that_was_written_from_where_it_lay() {
    let (mut wire, far) = announced(BodyLength::Chunked);
    send(&mut wire, &[b'x'; COPY_MAX + 1]).await;
    poll_fn(|cx| wire.poll_flush(cx)).await.expect("flushed");
    far.readable().await.expect("readable");
    assert!(arrived(&far).ends_with(b"x\r\n"));
    end(&mut wire).await;
    far.readable().await.expect("readable");
    assert_eq!(arrived(&far), b"0\r\n\r\n");
}

#[tokio::test]
async fn no_more_and_no_less_than_announced_is_sent() {
    let (mut wire, _far) = announced(BodyLength::Exact(3));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(wire.poll_send(&mut cx, b"four"), Poll::Ready(Err(Fault::Malformed(_)))));
    let (mut wire, _far) = announced(BodyLength::Exact(3));
    send(&mut wire, b"ab").await;
    assert!(matches!(wire.poll_end(&mut cx, None), Poll::Ready(Err(Fault::Malformed(_)))));
    assert!(!wire.is_written());
}

/// Sends pieces of `payload` until the connection takes no more. How much it took, and what is left of the piece begun last.
fn fill_up(wire: &mut Wire, payload: &[u8], cx: &mut Context<'_>) -> (usize, usize) {
    let (mut left, mut taken) = (payload.len(), 0);
    while let Poll::Ready(n) = wire.poll_send(cx, &payload[payload.len() - left..]) {
        let n = n.expect("open");
        taken += n;
        left = if n == left { payload.len() } else { left - n };
        assert!(wire.out.len() <= OUT_MAX + COPY_MAX + 32, "{} bytes wait", wire.out.len());
        assert!(taken < 16 << 20, "pieces of {} are never held back", payload.len());
    }
    (taken, left)
}

/// The recipient reads nothing: the buffer stays below its bound and what cannot go waits.
#[tokio::test]
async fn a_recipient_that_does_not_read_holds_the_sender_back() {
    for size in [1, 100, COPY_MAX, COPY_MAX + 1, 40_000] {
        let (mut wire, mut far) = announced(BodyLength::Chunked);
        let payload = vec![b'x'; size];
        let filling = poll_fn(|cx| Poll::Ready(fill_up(&mut wire, &payload, cx)));
        let (taken, left) = tokio::task::unconstrained(filling).await;
        // Once it is read, everything comes, each piece framed once.
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.expect("read");
            all
        });
        send(&mut wire, &payload[size - left..]).await;
        end(&mut wire).await;
        drop(wire);
        let all = reading.await.expect("read");
        let (mut back, mut write) = expecting(BodyLength::Chunked, None);
        let writing = tokio::spawn(async move { write.write_all(&all[b"HEAD ".len()..]).await });
        assert_eq!(receive(&mut back).await.expect("well framed").len(), taken + left);
        writing.await.expect("wrote").expect("all");
    }
}

#[tokio::test]
async fn a_closed_connection_is_a_fault() {
    let (mut wire, far) = announced(BodyLength::Exact(1));
    drop(far);
    send(&mut wire, b"x").await;
    let fault = poll_fn(|cx| wire.poll_end(cx, None)).await.expect_err("closed");
    assert!(matches!(fault, Fault::Io(_) | Fault::Closed), "{fault:?}");
    assert!(!wire.is_written());
}

// === the way in ===

#[tokio::test]
async fn payload_is_found_in_place_whatever_the_framing() {
    for (body, bytes, payload, rest) in [
        (BodyLength::None, "GET /next", "", "GET /next"),
        (BodyLength::Exact(5), "helloGET /", "hello", "GET /"),
        (BodyLength::Chunked, "5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nGET /", "hello!", "GET /"),
    ] {
        let (mut wire, mut far) = expecting(body, None);
        far.write_all(bytes.as_bytes()).await.expect("written");
        if body == BodyLength::None {
            poll_fn(|cx| wire.poll_read(cx)).await.expect("read");
        }
        assert_eq!(receive(&mut wire).await.expect("whole"), payload.as_bytes());
        assert_eq!(wire.input.bytes(), rest.as_bytes(), "what follows stays");
        assert!(wire.is_received() && !wire.is_drained());
        wire.input.clear();
        assert!(wire.is_drained());
    }
}

#[tokio::test]
async fn an_end_of_stream_ends_only_a_body_that_runs_until_then() {
    for (body, bytes, whole) in [
        (BodyLength::UntilClose, "hello", true),
        (BodyLength::UntilClose, "", true),
        (BodyLength::Exact(6), "hello", false),
        (BodyLength::Exact(6), "", false),
        (BodyLength::Chunked, "5\r\nhello", false),
        (BodyLength::Chunked, "5\r\nhello\r\n", false),
        (BodyLength::Chunked, "5\r\nhello\r\n0\r\n", false),
        (BodyLength::Chunked, "", false),
    ] {
        let (mut wire, mut far) = expecting(body, None);
        far.write_all(bytes.as_bytes()).await.expect("written");
        drop(far);
        let got = receive(&mut wire).await;
        assert_eq!(matches!(got, Err(Fault::Closed)), !whole, "{body:?} {bytes:?}: {got:?}");
        if whole {
            assert_eq!(got.expect("whole"), bytes.as_bytes());
        }
        assert_eq!(wire.is_received(), whole, "{body:?} {bytes:?}");
    }
}

#[tokio::test]
async fn a_body_above_its_bound_is_refused() {
    for (max, fits) in [(10, true), (9, false)] {
        let (mut wire, mut far) = expecting(BodyLength::Chunked, Some(max));
        far.write_all(b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n").await.expect("written");
        let got = receive(&mut wire).await;
        assert_eq!(matches!(got, Err(Fault::TooLarge)), !fits, "{got:?}");
    }
    let (mut wire, mut far) = expecting(BodyLength::Chunked, Some(9));
    far.write_all(b"ffffffff\r\nhello").await.expect("written");
    assert_eq!(poll_fn(|cx| wire.poll_fill(cx)).await.expect("below it so far"), Fill::Data);
}

#[tokio::test]
async fn malformed_framing_says_what_is_wrong() {
    let (mut wire, mut far) = expecting(BodyLength::Chunked, None);
    far.write_all(b"5\r\nhelloworld").await.expect("written");
    let fault = receive(&mut wire).await.expect_err("no CR LF behind the chunk");
    assert!(matches!(fault, Fault::Malformed(cause) if !cause.is_empty()));
}

#[tokio::test]
async fn what_is_not_taken_is_not_read_ahead_without_bound() {
    let (mut wire, mut far) = expecting(BodyLength::Exact(10 << 20), None);
    let writing = tokio::spawn(async move { far.write_all(&vec![b'x'; 10 << 20]).await });
    let mut seen = 0;
    while poll_fn(|cx| wire.poll_fill(cx)).await.expect("payload") == Fill::Data {
        assert!(wire.input.len() <= BUFFER_LARGE, "{} bytes read ahead", wire.input.len());
        let n = wire.chunk().len().div_ceil(2);
        seen += n;
        wire.consume(n);
    }
    assert_eq!(seen, 10 << 20);
    writing.await.expect("wrote").expect("all");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Payload cut anywhere, sent chunked by one wire and read by another.
    #[test]
    fn what_one_wire_frames_another_reads(pieces in proptest::collection::vec((1..9_000_usize, any::<bool>()), 0..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sent: Vec<u8> = (0..=250).cycle().take(pieces.iter().map(|p| p.0).sum()).collect();
        let got = runtime.block_on(async {
            let (near, far) = UnixStream::pair().expect("a pair");
            let (mut out, mut back) = (Wire::new(Stream::Unix(near), head_limits()), Wire::new(Stream::Unix(far), head_limits()));
            out.announce(BodyLength::Chunked);
            back.expect(BodyLength::Chunked, head_limits(), None);
            let sending = async {
                let mut at = 0;
                for (size, flush) in &pieces {
                    send(&mut out, &sent[at..at + size]).await;
                    at += size;
                    if *flush {
                        poll_fn(|cx| out.poll_flush(cx)).await.expect("flushed");
                    }
                }
                end(&mut out).await;
            };
            let ((), got) = tokio::join!(sending, receive(&mut back));
            (got.expect("well framed"), back.is_drained())
        });
        prop_assert_eq!(got, (sent, true));
    }
}
