//! Idle connections: the last one first, never an old, used or closed one, never more than bounded.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::clock;
use crate::core::circuit::PoolLimits;
use crate::core::snapshot::Running;
use crate::state::fixture::{service, snapshot};
use crate::state::live::Registry;

const LONG: Duration = Duration::from_secs(30);

/// A registry with so many endpoints of one service.
fn endpoints(count: u16) -> (Registry, Vec<Arc<EndpointLive>>) {
    let registry = Registry::new(1, clock::now());
    let snapshot = snapshot(vec![(service("web", count, None), Running::idle(0))]);
    let live = registry.resolve(&snapshot, &HashMap::new());
    (registry, live[0].stable.clone())
}

/// Dialled without TLS.
const PLAIN: u64 = 0;

fn link(io: Stream) -> Link {
    let bells: crate::state::pool::Bells = [tokio::sync::Notify::new()].into();
    link_of(&Arc::new(PoolLive::new(&bells)), io)
}

fn link_of(pool: &Arc<PoolLive>, io: Stream) -> Link {
    let room = pool.connect(&PoolLimits::default()).expect("below the limit");
    Link { io, opened: clock::now(), room, dial_tag: PLAIN }
}

fn pair() -> (Stream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair");
    (Stream::Unix(near), far)
}

/// Waits until what the peer did has arrived.
async fn noticed(io: &mut Stream) {
    let Stream::Unix(socket) = io else { unreachable!("the tests use unix sockets") };
    socket.readable().await.expect("readable");
}

/// Whether `far` is the peer of what was taken: it gets a byte, where the peer of one still kept or closed gets an end.
async fn is_peer(mut taken: Link, mut idle: Idle, far: &mut UnixStream) -> bool {
    let slices = [std::io::IoSlice::new(b"?")];
    std::future::poll_fn(|cx| taken.io.poll_write(cx, &slices)).await.expect("written");
    idle.clear();
    far.read(&mut [0; 1]).await.expect("read") == 1
}

#[tokio::test]
async fn the_connection_used_last_is_taken_first() {
    let (_registry, endpoints) = endpoints(2);
    let (mut idle, now) = (Idle::default(), clock::now());
    let ((one, _far_one), (two, mut far_two)) = (pair(), pair());
    idle.keep(&endpoints[0], link(one), LONG, now);
    idle.keep(&endpoints[0], link(two), LONG, now);
    assert!(idle.take(endpoints[1].slot, PLAIN, now).is_none(), "never another endpoint's");
    let taken = idle.take(endpoints[0].slot, PLAIN, now).expect("one");
    assert_eq!(idle.len(), 1);
    assert!(idle.take(endpoints[0].slot, PLAIN, now).is_some());
    assert!(idle.take(endpoints[0].slot, PLAIN, now).is_none() && idle.is_empty());
    assert!(is_peer(taken, idle, &mut far_two).await);
}

#[tokio::test]
async fn a_connection_past_its_age_is_closed_not_taken() {
    let (_registry, endpoints) = endpoints(1);
    let (mut idle, now) = (Idle::default(), clock::now());
    let (io, far) = pair();
    idle.keep(&endpoints[0], link(io), LONG, now);
    assert!(idle.take(endpoints[0].slot, PLAIN, now + LONG).is_none() && idle.is_empty());
    let mut end = [0; 1];
    far.readable().await.expect("closed");
    assert_eq!(far.try_read(&mut end).expect("the end"), 0);
    let (io, _far) = pair();
    idle.keep(&endpoints[0], link(io), LONG, now);
    assert!(idle.take(endpoints[0].slot, PLAIN, now + LONG / 10 * 9).is_some());
}

#[tokio::test]
async fn a_connection_its_peer_closed_or_wrote_to_is_passed_over() {
    let (_registry, endpoints) = endpoints(1);
    let (mut idle, now) = (Idle::default(), clock::now());
    let (good, mut far_good) = pair();
    let (mut closed, far_closed) = pair();
    let (mut talkative, mut far_talkative) = pair();
    drop(far_closed);
    far_talkative.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("written");
    noticed(&mut closed).await;
    noticed(&mut talkative).await;
    for io in [good, closed, talkative] {
        idle.keep(&endpoints[0], link(io), LONG, now);
    }
    let taken = idle.take(endpoints[0].slot, PLAIN, now).expect("the good one");
    assert!(idle.is_empty());
    assert!(is_peer(taken, idle, &mut far_good).await);
}

#[tokio::test]
async fn a_sweep_closes_what_is_old_dead_or_unwanted() {
    let (_registry, endpoints) = endpoints(3);
    let (mut idle, now) = (Idle::default(), clock::now());
    let mut fars = Vec::new();
    for (endpoint, age) in [(0, LONG), (0, LONG / 10), (1, LONG), (2, LONG / 10)] {
        let (io, far) = pair();
        idle.keep(&endpoints[endpoint], link(io), age, now);
        fars.push(far);
    }
    let (mut dead, far) = pair();
    drop(far);
    noticed(&mut dead).await;
    idle.keep(&endpoints[0], link(dead), LONG, now);
    assert_eq!(idle.len(), 5);
    idle.sweep(now + LONG / 2, |slot| slot != endpoints[1].slot);
    assert_eq!(idle.len(), 1);
    assert!(!idle.by_slot.contains_key(&endpoints[1].slot), "nothing stays of an endpoint that is not wanted");
    assert!(idle.by_slot.values().all(|stack| stack.capacity() <= ROOM), "memory for {ROOM} connections at most stays");
    assert!(idle.take(endpoints[0].slot, PLAIN, now + LONG / 2).is_some());
    idle.keep(&endpoints[0], link(pair().0), LONG, now);
    idle.clear();
    assert!(idle.is_empty() && idle.take(endpoints[0].slot, PLAIN, now).is_none());
}

#[tokio::test]
async fn nothing_is_kept_for_an_endpoint_that_left() {
    let (registry, endpoints) = endpoints(1);
    let (mut idle, now) = (Idle::default(), clock::now());
    registry.sweep(&[], now);
    assert!(endpoints[0].is_removed());
    let (io, far) = pair();
    idle.keep(&endpoints[0], link(io), LONG, now);
    assert!(idle.is_empty());
    far.readable().await.expect("closed");
    assert_eq!(far.try_read(&mut [0; 1]).expect("the end"), 0);
}

#[tokio::test]
async fn an_endpoint_has_a_bound() {
    let (_registry, endpoints) = endpoints(1);
    let (mut idle, now) = (Idle::default(), clock::now());
    let mut fars = Vec::new();
    for _ in 0..IDLE_PER_ENDPOINT_MAX + 3 {
        let (io, far) = pair();
        idle.keep(&endpoints[0], link(io), LONG, now);
        fars.push(far);
    }
    assert_eq!(idle.len(), IDLE_PER_ENDPOINT_MAX);
}

#[tokio::test]
async fn a_worker_has_a_bound() {
    let (_registry, endpoints) = endpoints(1);
    let mut idle = Idle { count: IDLE_MAX, ..Idle::default() };
    idle.keep(&endpoints[0], link(pair().0), LONG, clock::now());
    assert!(idle.by_slot.is_empty() && idle.len() == IDLE_MAX);
}

/// Other TLS settings and old age end a connection even if it is used all the time.
#[tokio::test]
async fn a_connection_dialled_otherwise_or_long_ago_is_closed_not_taken() {
    let (_registry, endpoints) = endpoints(1);
    let (mut idle, now) = (Idle::default(), clock::now());
    let (io, _far) = pair();
    idle.keep(&endpoints[0], link(io), LONG, now);
    assert!(idle.take(endpoints[0].slot, PLAIN + 1, now).is_none() && idle.is_empty());
    let (io, _far) = pair();
    let later = now + AGE_MAX;
    idle.keep(&endpoints[0], link(io), LONG, later);
    assert!(idle.take(endpoints[0].slot, PLAIN, later + LONG / 2).is_none() && idle.is_empty());
}
