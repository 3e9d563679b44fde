//! Bodies between two ends of one connection.

use std::future::{Future, poll_fn};

use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::task::LocalSet;

use super::*;

const BOUNDS: Bounds = Bounds { payload: None, fields: 4, size: 1_000, underscores: Underscores::Drop };

/// A request without an end, and its ends on both sides.
struct Ends {
    out: SendStream<Bytes>,
    inbound: RecvStream,
    respond: SendResponse<Bytes>,
    _requests: SendRequest<Bytes>,
}

/// Runs `test` on a connection whose streams begin with a window of `window` bytes.
fn on_a_stream<F: Future<Output = ()> + 'static>(window: u32, test: impl FnOnce(Ends) -> F + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(window);
        let (client, server) = tokio::join!(h2::client::handshake(ours), builder.handshake::<_, Bytes>(theirs));
        let ((requests, connection), mut server) = (client.unwrap(), server.unwrap());
        tokio::task::spawn_local(connection);
        let mut requests = requests.ready().await.unwrap();
        let (_, out) = requests.send_request(Request::post("http://a/").body(()).unwrap(), false).unwrap();
        let (request, respond) = server.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        test(Ends { out, inbound: request.into_body(), respond, _requests: requests }).await;
    });
}

async fn fill(inbound: &mut Inbound) -> Result<Fill, Fault> {
    poll_fn(|cx| inbound.poll_fill(cx)).await
}

/// Lets everything else run for a while.
async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Sends what it can at this moment.
async fn send(outbound: &mut Outbound, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
    settle().await;
    poll_fn(|cx| Poll::Ready(outbound.poll_send(cx, chunk))).await
}

#[test]
fn the_window_opens_only_for_what_was_passed_on() {
    on_a_stream(1_000, |ends| async move {
        let mut out = Outbound::new(ends.out, BodyLength::Chunked, false);
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Chunked, BOUNDS);
        // The server's settings have to reach the client first.
        settle().await;
        let payload = [7; 4_000];
        assert!(matches!(send(&mut out, &payload).await, Poll::Ready(Ok(1_000))));
        assert!(send(&mut out, &payload).await.is_pending());
        assert_eq!(fill(&mut inbound).await.unwrap(), Fill::Data);
        assert!(send(&mut out, &payload).await.is_pending(), "reading alone opens nothing");
        inbound.consume(inbound.chunk().len());
        assert!(matches!(send(&mut out, &payload).await, Poll::Ready(Ok(1_000))));
    });
}

#[test]
fn trailers_come_whole_and_go_by_the_list() {
    on_a_stream(65_535, |ends| async move {
        let mut bytes = Vec::new();
        let mut field = |name: &[u8], value: &[u8]| Field {
            known: Known::of(name),
            name: push(&mut bytes, name),
            value: push(&mut bytes, value),
        };
        let fields = vec![field(b"grpc-status", b"0"), field(b"x-own", b"1")];
        let trailers = Trailers { bytes, fields };
        let mut out = Outbound::new(ends.out, BodyLength::Chunked, false);
        poll_fn(|cx| out.poll_end(cx, Some(&trailers))).await.unwrap();
        assert!(out.is_ended());
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Chunked, BOUNDS);
        assert_eq!(fill(&mut inbound).await.unwrap(), Fill::End);
        let seen = inbound.trailers().unwrap();
        let seen: Vec<_> = seen.fields.iter().map(|f| (f.name.of(&seen.bytes), f.value.of(&seen.bytes))).collect();
        assert_eq!(seen, [(&b"grpc-status"[..], &b"0"[..])]);
        assert!(inbound.is_received());
    });
}

#[test]
fn lengths_are_kept() {
    on_a_stream(65_535, |ends| async move {
        let mut out = Outbound::new(ends.out, BodyLength::Exact(4), true);
        assert!(matches!(send(&mut out, b"fives").await, Poll::Ready(Err(Fault::Malformed(_)))));
        assert!(matches!(send(&mut out, b"thr").await, Poll::Ready(Ok(3))));
        let early = poll_fn(|cx| Poll::Ready(out.poll_end(cx, None))).await;
        assert!(matches!(early, Poll::Ready(Err(Fault::Malformed(_)))));
        assert!(matches!(send(&mut out, b"e").await, Poll::Ready(Ok(1))));
        assert!(!out.is_ended(), "trailers may follow");
        poll_fn(|cx| out.poll_end(cx, None)).await.unwrap();
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Exact(5), BOUNDS);
        let mut seen = 0;
        let end = loop {
            match fill(&mut inbound).await {
                Ok(Fill::Data) => {
                    seen += inbound.chunk().len();
                    inbound.consume(inbound.chunk().len());
                }
                end => break end,
            }
        };
        assert!(seen == 4 && matches!(end, Err(Fault::Malformed(_))), "{seen} {end:?}");
    });
}

#[test]
fn the_last_announced_byte_ends_the_stream() {
    on_a_stream(65_535, |ends| async move {
        let mut out = Outbound::new(ends.out, BodyLength::Exact(2), false);
        assert!(matches!(send(&mut out, b"ab").await, Poll::Ready(Ok(2))));
        assert!(out.is_ended());
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Exact(2), BOUNDS);
        assert_eq!(fill(&mut inbound).await.unwrap(), Fill::Data);
        inbound.consume(2);
        assert_eq!(fill(&mut inbound).await.unwrap(), Fill::End);
    });
}

#[test]
fn resets_are_closed_streams() {
    on_a_stream(65_535, |mut ends| async move {
        let mut out = Outbound::new(ends.out, BodyLength::Chunked, false);
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Chunked, BOUNDS);
        let back = ends.respond.send_response(Response::new(()), false).unwrap();
        let mut back = Outbound::new(back, BodyLength::Chunked, false);
        out.reset(Reason::CANCEL);
        assert!(matches!(fill(&mut inbound).await, Err(Fault::Closed)));
        poll_fn(|cx| back.poll_reset(cx)).await;
        assert!(matches!(send(&mut back, b"x").await, Poll::Ready(Err(Fault::Closed))));
        assert!(poll_fn(|cx| back.poll_end(cx, None)).await.is_err());
    });
}

#[test]
fn payload_is_bounded() {
    on_a_stream(65_535, |ends| async move {
        let mut out = Outbound::new(ends.out, BodyLength::Chunked, false);
        let mut inbound = Inbound::new(ends.inbound, BodyLength::Chunked, Bounds { payload: Some(3), ..BOUNDS });
        assert!(matches!(send(&mut out, b"four").await, Poll::Ready(Ok(4))));
        assert!(matches!(fill(&mut inbound).await, Err(Fault::TooLarge)));
    });
}
