//! An upgraded stream: WebSocket bytes both ways, untouched. Frames are followed only to know where a Close fits in.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::clock;
use crate::core::service::Service;
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use super::exchange::Exchange;
use super::forward::{Downstream, Raw, Upstream, Volume, within};
use super::timer::Alarm;
use super::worker::Worker;
use super::ws::{CloseFrame, FrameTracker, Sender, close_frame};

/// Status of a Close sent because an endpoint goes away (RFC 6455 section 7.4.1).
const GOING_AWAY: u16 = 1001;
/// Longest wait for the end of the frame in flight, and for the Close to be written.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// Most bytes thrown away while a Close is on its way.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Which end of a direction failed.
enum Broken {
    From,
    To,
}

/// One direction.
struct Lane {
    frames: FrameTracker,
    moved: u64,
    /// The Close to inject at the next frame boundary, and how much of it is written.
    close: Option<(CloseFrame, usize)>,
    done: bool,
}

/// Both directions.
struct Tunnel<'a> {
    worker: &'a Worker,
    exchange: &'a Exchange,
    endpoint: &'a EndpointLive,
    websocket_drain: Duration,
    idle_max: Duration,
    up: Lane,
    down: Lane,
    last_moved: Instant,
    /// When the candidate was first seen closed.
    aborted: Option<Instant>,
    /// Until when a Close may take; set once the drain time is over.
    closing: Option<Instant>,
}

/// Counts an open tunnel until dropped.
struct Open<'a>(&'a Worker);

/// Carries an upgraded stream until it ends. The response head must be buffered already.
pub async fn tunnel<D: Downstream, U: Upstream>(
    down: &mut D,
    up: &mut U,
    worker: &Worker,
    exchange: &Exchange,
    endpoint: &EndpointLive,
    service: &Service,
    volume: &mut Volume,
) -> Termination {
    let idle_max = down.facts().listener.limits.websocket_idle;
    let deadline = Some(clock::now() + down.facts().listener.limits.body_idle);
    let alarm = worker.alarm();
    if !matches!(within(&alarm, deadline, poll_fn(|cx| down.poll_flush(cx))).await, Some(Ok(()))) {
        return Termination::ClientAbort;
    }
    let (Some(mut down), Some(mut up)) = (down.raw(), up.raw()) else { return Termination::BadResponse };
    let _open = Open::new(worker);
    let mut tunnel = Tunnel {
        worker,
        exchange,
        endpoint,
        websocket_drain: service.upstream.websocket_drain,
        idle_max,
        up: Lane::new(Sender::Client),
        down: Lane::new(Sender::Server),
        last_moved: clock::now(),
        aborted: None,
        closing: None,
    };
    let ended = poll_fn(|cx| tunnel.poll(cx, &mut down, &mut up, &alarm)).await;
    if ended == Termination::TunnelDrained {
        linger(worker, &alarm, &mut up).await;
    }
    volume.up += tunnel.up.moved;
    volume.down += tunnel.down.moved;
    ended
}

/// Reads on for a while, so that no reset overtakes our Close on its way to the upstream.
async fn linger(worker: &Worker, alarm: &Alarm, up: &mut Raw<'_>) {
    let deadline = Some(clock::now() + CLOSING_MAX);
    let mut thrown_away = 0;
    up.ahead.attach(&mut worker.buffers());
    while thrown_away < LINGER_BYTES_MAX {
        up.ahead.clear();
        match within(alarm, deadline, poll_fn(|cx| up.ahead.poll_fill(up.io, cx))).await {
            Some(Ok(n)) if n > 0 => thrown_away += n,
            _ => break,
        }
    }
    up.ahead.clear();
}

// === impl Tunnel ===

impl Tunnel<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, down: &mut Raw<'_>, up: &mut Raw<'_>, alarm: &Alarm) -> Poll<Termination> {
        loop {
            let now = clock::now();
            let before = self.up.moved + self.down.moved;
            let sent = self.up.poll(cx, down, up, self.worker);
            let received = self.down.poll(cx, up, down, self.worker);
            if self.up.moved + self.down.moved > before {
                self.last_moved = now;
            }
            if let Some(ended) = self.ended(&sent, &received) {
                return Poll::Ready(ended);
            }
            let (deadline, why) = self.deadline(now);
            ready!(alarm.poll_until(cx, Some(deadline), now));
            if why != Termination::TunnelDrained || self.closing.is_some() {
                return Poll::Ready(why);
            }
            self.closing = Some(now + CLOSING_MAX);
            let mask = self.worker.random_u32().to_be_bytes();
            self.up.close = Some((close_frame(GOING_AWAY, "", Some(mask)), 0));
            self.down.close = Some((close_frame(GOING_AWAY, "", None), 0));
        }
    }

    fn ended(&self, sent: &Poll<Result<(), Broken>>, received: &Poll<Result<(), Broken>>) -> Option<Termination> {
        match (sent, received) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) if self.closing.is_some() => Some(Termination::TunnelDrained),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Some(Termination::Complete),
            (Poll::Ready(Err(Broken::From)), _) | (_, Poll::Ready(Err(Broken::To))) => Some(Termination::ClientAbort),
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                Some(Termination::UpstreamTruncated)
            }
            _ => None,
        }
    }

    /// The next deadline and what it means.
    fn deadline(&mut self, now: Instant) -> (Instant, Termination) {
        if let Some(closing) = self.closing {
            return (closing, Termination::TunnelDrained);
        }
        if self.aborted.is_none() && self.exchange.is_shut_out() {
            self.aborted = Some(now);
        }
        let gone = [self.worker.leaving_at(self.endpoint), self.aborted];
        let leaving = gone.into_iter().flatten().map(|at| at + self.websocket_drain);
        let stopping = self.worker.draining().map(|draining| draining.idle_until);
        let idle = self.last_moved + self.idle_max;
        match leaving.chain(stopping).min() {
            Some(drained) if drained < idle => (drained, Termination::TunnelDrained),
            _ => (idle, Termination::TunnelIdle),
        }
    }
}

// === impl Lane ===

impl Lane {
    fn new(sender: Sender) -> Self {
        Self { frames: FrameTracker::new(sender), moved: 0, close: None, done: false }
    }

    /// Moves bytes until one side has to wait; ready when this direction is closed. Holds no buffer while nothing comes.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Raw<'_>,
        to: &mut Raw<'_>,
        worker: &Worker,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.done {
                return to.io.poll_shutdown(cx).map_err(|_| Broken::To);
            }
            if let Some(at_boundary) = self.close_due() {
                if at_boundary {
                    ready!(self.poll_close(cx, to)).map_err(|_| Broken::To)?;
                }
                self.done = true;
                continue;
            }
            if !from.ahead.is_empty() {
                ready!(self.poll_pass(cx, from, to)).map_err(|_| Broken::To)?;
                continue;
            }
            ready!(to.io.poll_flush(cx)).map_err(|_| Broken::To)?;
            from.ahead.attach(&mut worker.buffers());
            let read = from.ahead.poll_fill(from.io, cx);
            if read.is_pending() {
                from.ahead.detach(&mut worker.buffers());
            }
            self.done = ready!(read).map_err(|_| Broken::From)? == 0;
        }
    }

    /// Writes what was read; while a Close waits, only up to the next boundary.
    fn poll_pass(&mut self, cx: &mut Context<'_>, from: &mut Raw<'_>, to: &mut Raw<'_>) -> Poll<io::Result<()>> {
        let ready = from.ahead.bytes();
        let limit = if self.close.is_some() { self.frames.split_at_boundary(ready) } else { ready.len() };
        let n = ready!(to.io.poll_write(cx, &[IoSlice::new(&ready[..limit])]))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.frames.advance(&ready[..n]);
        from.ahead.consume(n);
        self.moved += n as u64;
        Poll::Ready(Ok(()))
    }

    /// When a Close waits: whether it may be written now (`false`: nobody knows where frames begin, so it never may).
    fn close_due(&self) -> Option<bool> {
        self.close.as_ref()?;
        if self.frames.is_broken() { Some(false) } else { self.frames.at_boundary().then_some(true) }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, to: &mut Raw<'_>) -> Poll<io::Result<()>> {
        // After its own Close a side expects nothing more.
        if self.frames.close_seen() {
            return Poll::Ready(Ok(()));
        }
        while let Some((frame, written)) = &mut self.close
            && *written < frame.as_bytes().len()
        {
            let n = ready!(to.io.poll_write(cx, &[IoSlice::new(&frame.as_bytes()[*written..])]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
        }
        to.io.poll_flush(cx)
    }
}

// === impl Open ===

impl<'a> Open<'a> {
    fn new(worker: &'a Worker) -> Self {
        worker.shard().tunnels.add(1);
        Self(worker)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.shard().tunnels.sub(1);
    }
}
