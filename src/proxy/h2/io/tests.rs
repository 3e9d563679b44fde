//! Nothing is lost, nothing changes places, and small writes wait for each other.

use std::future::poll_fn;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;

fn pair() -> (Io, Gathered, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (io, gathered) = gather(Stream::Unix(ours), Buf::default(), None);
    (io, gathered, theirs)
}

#[tokio::test]
async fn small_writes_leave_together() {
    let (mut io, gathered, mut peer) = pair();
    for text in ["one ", "two ", "three"] {
        io.write_all(text.as_bytes()).await.unwrap();
        io.flush().await.unwrap();
    }
    let mut seen = [0; 64];
    assert!(peer.try_read(&mut seen).is_err(), "nothing left yet");
    poll_fn(|cx| gathered.poll_write_out(cx)).await.unwrap();
    let n = peer.read(&mut seen).await.unwrap();
    assert_eq!(&seen[..n], b"one two three");
}

#[tokio::test]
async fn a_shutdown_loses_nothing() {
    let (mut io, _gathered, mut peer) = pair();
    io.write_all(b"last words").await.unwrap();
    io.shutdown().await.unwrap();
    let mut seen = Vec::new();
    peer.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"last words");
}

#[tokio::test]
async fn what_was_read_ahead_comes_first() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let (mut sent, mut ahead) = (UnixStream::pair().unwrap(), Buf::default());
    sent.0.write_all(b"ahead, ").await.unwrap();
    ahead.grow(64);
    let mut from = Stream::Unix(sent.1);
    poll_fn(|cx| ahead.poll_fill(&mut from, cx)).await.unwrap();
    let (mut io, _gathered) = gather(Stream::Unix(ours), ahead, None);
    peer.write_all(b"then the rest").await.unwrap();
    drop(peer);
    let mut seen = Vec::new();
    let mut piece = [0; 3];
    while let n @ 1.. = io.read(&mut piece).await.unwrap() {
        seen.extend_from_slice(&piece[..n]);
    }
    assert_eq!(seen, b"ahead, then the rest");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Through a socket that is full again and again, with a reader that stops at random.
    #[test]
    fn bytes_keep_their_order(sizes in proptest::collection::vec((0usize..200, 0usize..20_000), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut io, gathered, mut peer) = pair();
            let mut next = 0u8;
            let mut fill = |n| (0..n).map(|_| { next = next.wrapping_add(1); next }).collect::<Vec<u8>>();
            let frames: Vec<(Vec<u8>, Vec<u8>)> = sizes.iter().map(|(head, payload)| (fill(*head), fill(*payload))).collect();
            let all = frames.iter().flat_map(|(head, payload)| [&head[..], payload]).collect::<Vec<_>>().concat();
            let writing = async {
                for (head, payload) in &frames {
                    let (mut head, mut payload) = (&head[..], &payload[..]);
                    while head.len() + payload.len() > 0 {
                        let slices = [IoSlice::new(head), IoSlice::new(payload)];
                        let n = poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &slices)).await.unwrap();
                        let first = n.min(head.len());
                        head = &head[first..];
                        payload = &payload[n - first..];
                    }
                }
                poll_fn(|cx| gathered.poll_write_out(cx)).await.unwrap();
                io.shutdown().await.unwrap();
            };
            let reading = async {
                let mut seen = Vec::new();
                peer.read_to_end(&mut seen).await.unwrap();
                seen
            };
            let ((), seen) = tokio::join!(writing, reading);
            assert!(seen == all, "{} bytes of {}", seen.len(), all.len());
        });
    }
}
