//! Buffers against a plain vector, and streams over a pair of sockets.

use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn buf(bytes: &[u8]) -> Buf {
    Buf { data: bytes.to_vec(), start: 0, huge: None, resting: false }
}

#[test]
fn a_head_is_handed_over_and_the_rest_stays() {
    let mut buf = Buf { data: b"..GET / body".to_vec(), start: 2, huge: None, resting: false };
    let mut head = Vec::with_capacity(64);
    buf.split_head(6, &mut head);
    assert_eq!((&head[..], buf.bytes()), (&b"GET / "[..], &b"body"[..]));
    buf.consume(4);
    assert!(buf.is_empty() && buf.room() == 64);
}

#[test]
fn buffers_come_back_and_odd_ones_do_not() {
    let mut buffers = Buffers::default();
    let mut buf = Buf::default();
    buf.attach(&mut buffers);
    buf.grow(BUFFER_LARGE);
    buf.detach(&mut buffers);
    assert!(buffers.small.is_empty() && buf.room() == 0);
    buf.attach(&mut buffers);
    buf.detach(&mut buffers);
    assert_eq!(buffers.small.len(), 1);
}

#[test]
fn huge_buffers_are_lent_up_to_a_bound_and_come_back() {
    let mut buffers = Buffers::default();
    let mut lent = Vec::new();
    for at in 0..=HUGE_MAX {
        let mut buf = buf(b".rest");
        buf.consume(1);
        buf.attach(&mut buffers);
        buf.grow_for(BUFFER_HUGE as u64 - 1);
        assert_eq!(buf.data.capacity(), BUFFER_LARGE, "not for less");
        buf.grow_for(u64::MAX);
        let capacity = if at < HUGE_MAX { BUFFER_HUGE } else { BUFFER_LARGE };
        assert_eq!((buf.bytes(), buf.data.capacity()), (&b"rest"[..], capacity));
        lent.push(buf);
    }
    let mut last = lent.pop().expect("one");
    // Given back in three ways: unused, with a head taken out of it, and dropped with bytes in it.
    let mut first = lent.pop().expect("one");
    first.consume(4);
    first.detach(&mut buffers);
    assert!(first.room() == 0 && buffers.small.is_empty());
    let mut second = lent.pop().expect("one");
    let mut head = Vec::new();
    second.split_head(3, &mut head);
    assert_eq!((&head[..], second.bytes()), (&b"res"[..], &b"t"[..]));
    drop((second, lent));
    assert_eq!(buffers.huge.kept.borrow().len(), HUGE_KEPT_MAX);
    assert_eq!(buffers.huge.left.get() + HUGE_KEPT_MAX, HUGE_MAX);
    last.grow_for(u64::MAX);
    assert_eq!((last.bytes(), last.data.capacity()), (&b"rest"[..], BUFFER_HUGE));
    assert!(buffers.huge.kept.borrow().iter().all(Vec::is_empty), "nobody sees the bytes of another");
}

#[test]
fn an_empty_huge_buffer_is_lent_while_there_is_nothing_to_read() {
    let mut buffers = Buffers::default();
    let (mut a, mut b) = (buf(b""), buf(b""));
    for buf in [&mut a, &mut b] {
        buf.attach(&mut buffers);
        buf.grow_for(u64::MAX);
    }
    b.data.extend_from_slice(b"unread");
    b.rest();
    assert_eq!((b.bytes(), b.data.capacity()), (&b"unread"[..], BUFFER_HUGE), "what is not passed on stays");
    a.rest();
    assert_eq!((a.data.capacity(), buffers.huge.kept.borrow().len()), (0, 1));
    let mut c = buf(b"");
    c.attach(&mut buffers);
    c.grow_for(u64::MAX);
    assert!(buffers.huge.kept.borrow().is_empty(), "it went to the next one");
    a.resume();
    assert_eq!((a.data.capacity(), a.room()), (BUFFER_HUGE, BUFFER_HUGE));
    a.rest();
    buffers.huge.kept.take();
    buffers.huge.left.set(0);
    a.resume();
    assert_eq!(a.room(), BUFFER_LARGE, "there is none any more");
    let mut small = buf(b"");
    small.attach(&mut buffers);
    small.rest();
    small.resume();
    assert_eq!(small.data.capacity(), BUFFER);
}

#[test]
fn a_worker_keeps_so_many_buffers_and_they_are_empty() {
    let mut buffers = Buffers::default();
    for _ in 0..BUFFERS_KEPT_MAX + 10 {
        let mut used = Vec::with_capacity(BUFFER);
        used.extend_from_slice(b"somebody's password");
        buffers.give(used);
    }
    assert_eq!(buffers.small.len(), BUFFERS_KEPT_MAX);
    let taken = buffers.take();
    assert!(taken.is_empty() && taken.capacity() == BUFFER);
}

#[test]
fn a_buffer_with_unused_bytes_is_not_given_back() {
    let (mut buffers, mut buf) = (Buffers::default(), buf(b"GET /next"));
    buf.detach(&mut buffers);
    assert_eq!((buf.bytes(), buffers.small.len()), (&b"GET /next"[..], 0));
    buf.attach(&mut buffers);
    assert_eq!(buf.bytes(), b"GET /next", "attaching keeps what is there");
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>),
    Consume(usize),
    Compact,
    Grow(usize),
    Clear,
    Split(usize),
    Detach,
    Attach,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..50).prop_map(Step::Put),
        4 => (0..60_usize).prop_map(Step::Consume),
        2 => Just(Step::Compact),
        1 => (0..200_usize).prop_map(Step::Grow),
        1 => Just(Step::Clear),
        2 => (0..60_usize).prop_map(Step::Split),
        1 => Just(Step::Detach),
        1 => Just(Step::Attach),
    ]
}

proptest! {
    #[test]
    fn a_buffer_holds_what_a_vector_would(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut buf, mut model, mut buffers) = (Buf::default(), Vec::new(), Buffers::default());
        for step in steps {
            match step {
                Step::Put(bytes) => {
                    buf.data.extend_from_slice(&bytes);
                    model.extend_from_slice(&bytes);
                }
                Step::Consume(n) => {
                    buf.consume(n);
                    model.drain(..n.min(model.len()));
                }
                Step::Compact => {
                    let whole = buf.data.capacity();
                    buf.compact();
                    prop_assert_eq!((buf.room(), buf.data.capacity()), (whole - model.len(), whole));
                }
                Step::Grow(size) => {
                    buf.compact();
                    buf.grow(size);
                    prop_assert!(buf.len() + buf.room() >= size);
                }
                Step::Clear => {
                    buf.clear();
                    model.clear();
                }
                Step::Split(n) => {
                    let (n, mut head) = (n.min(model.len()), b"an older head".to_vec());
                    buf.split_head(n, &mut head);
                    prop_assert_eq!(head, model.drain(..n).collect::<Vec<u8>>());
                }
                Step::Detach => buf.detach(&mut buffers),
                Step::Attach => buf.attach(&mut buffers),
            }
            prop_assert_eq!(buf.bytes(), &model[..]);
            prop_assert_eq!((buf.len(), buf.is_empty()), (model.len(), model.is_empty()));
        }
    }
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("connected"), far.expect("accepted").0)
}

#[tokio::test]
async fn an_idle_connection_is_quiet_until_something_arrives_or_it_closes() {
    let (near, mut far) = tcp().await;
    let mut near = Stream::Tcp(near);
    assert!(near.is_quiet() && near.is_quiet());
    far.write_all(b"!").await.expect("written");
    readable(&near).await;
    assert!(!near.is_quiet(), "a byte nobody asked for");
    for abort in [false, true] {
        let (near, far) = UnixStream::pair().expect("a pair");
        let mut near = Stream::Unix(near);
        assert!(near.is_quiet());
        let mut far = far;
        if !abort {
            far.shutdown().await.expect("closed");
        }
        drop(far);
        readable(&near).await;
        assert!(!near.is_quiet());
    }
}

#[tokio::test]
async fn slices_leave_in_order_and_a_reset_is_one() {
    let (near, mut far) = tcp().await;
    let mut near = Stream::Tcp(near);
    let slices = [IoSlice::new(b"head "), IoSlice::new(b"body")];
    let n = std::future::poll_fn(|cx| near.poll_write(cx, &slices)).await.expect("written");
    assert_eq!(n, 9, "in one call");
    let mut got = [0; 9];
    far.read_exact(&mut got).await.expect("read");
    assert_eq!(&got, b"head body");
    near.reset_on_close();
    drop(near);
    let error = far.read(&mut got).await.expect_err("no clean end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

async fn readable(io: &Stream) {
    let ready = match io {
        Stream::Tcp(socket) => socket.readable().await,
        Stream::Unix(socket) => socket.readable().await,
        _ => unreachable!("the tests use plain sockets"),
    };
    ready.expect("readable");
}

/// A task that has used up its budget still notices that a peer closed.
#[tokio::test]
async fn a_closed_peer_is_noticed_without_budget() {
    let (near, far) = UnixStream::pair().expect("a pair");
    drop(far);
    near.readable().await.expect("readable");
    let mut near = Stream::Unix(near);
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::coop::consume_budget().await;
    }
    assert!(!near.is_quiet());
}
