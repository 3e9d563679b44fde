//! How an attempt gets its connection or stream: one that is idle, a new one, or after a wait where the pool has as many as it may have.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::clock;
use crate::core::circuit::Limit;
use crate::core::service::Service;
use crate::proxy::exchange::{Attempt, Failure};
use crate::proxy::h2::up::H2Upstream;
use crate::proxy::h2::up::sessions::{Limited, Wanted, lease};
use crate::proxy::idle::Link;
use crate::proxy::rooms::{Grant, Rooms};
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use super::{Downstream, Outcome, Serving};

/// Shortest time between two lines about the same shortage.
const COMPLAINT_EVERY: Duration = Duration::from_secs(1);

/// How often a worker has said in the log what goes wrong with every request there is.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Cell<Option<Instant>>,
    held_back: Cell<u64>,
}

impl Serving<'_> {
    /// An idle connection, if there is one that may be used.
    #[inline]
    pub(super) fn idle(&mut self, attempt: &Attempt) -> Option<Link> {
        if !attempt.may_reuse {
            return None;
        }
        let (now, dial_tag) = (self.worker.now(), self.exchange.service()?.dial_tag);
        let link = self.worker.idle().take(attempt.in_flight.endpoint().slot, dial_tag, now)?;
        self.exchange.connected(true, now);
        Some(link)
    }

    /// A new connection within the connect timeout, or one that becomes idle where there are as many as there may be.
    pub(super) async fn connect<D: Downstream>(&mut self, down: &mut D, attempt: &Attempt) -> Result<Link, Outcome> {
        let endpoint = attempt.in_flight.endpoint();
        let Some(active) = self.exchange.service() else { return Err(Failure::Connect.into()) };
        let (service, dial_tag) = (Arc::clone(&active.service), active.dial_tag);
        let room = match Rooms::take(endpoint, &service.upstream.limits) {
            Some(room) => room,
            // Boxed: it is rare, and every connection would carry room for it.
            None => match Box::pin(self.wait(down, endpoint, &service, dial_tag)).await? {
                Grant::Room(room) => room,
                Grant::Link(link) => return self.connected(true).map(|_| link),
            },
        };
        let deadline = self.connect_deadline(&service);
        let dial = self.worker.dialer().dial(&service, attempt.address());
        let dialled = self.unless_gone(down, deadline, Box::pin(dial)).await;
        match dialled.inspect_err(|_| self.left_dialling())? {
            Some(Ok(io)) => {
                let opened = self.connected(false)?;
                Ok(Link { io, opened, room, dial_tag })
            }
            Some(Err(error)) => Err(self.connect_failure(endpoint, &error).into()),
            None => Err(Failure::ConnectTimeout.into()),
        }
    }

    /// A stream of a session there is, or of a new one within the connect timeout.
    pub(super) async fn lease<D: Downstream>(
        &mut self,
        down: &mut D,
        attempt: &Attempt,
    ) -> Result<H2Upstream, Outcome> {
        let endpoint = attempt.in_flight.endpoint();
        let Some(active) = self.exchange.service() else { return Err(Failure::Connect.into()) };
        let (service, dial_tag) = (Arc::clone(&active.service), active.dial_tag);
        let deadline = self.connect_deadline(&service);
        let limited = Limited::default();
        let wanted = Wanted { service: &service, endpoint, dial_tag, limited: &limited };
        let leased = self.unless_gone(down, deadline, lease(self.worker, wanted)).await;
        let dialling = limited.at.get().is_none();
        let leased = leased.inspect_err(|_| {
            if dialling {
                self.left_dialling();
            }
        })?;
        match (leased, limited.at.get()) {
            (Some(Ok((lease, reused))), _) => {
                self.exchange.queued(limited.waited.get());
                // A stream may have taken a while to become free, and that of a replay comes after a failure.
                self.connected(reused)?;
                if !lease.is_proven() {
                    self.exchange.unproven();
                }
                Ok(H2Upstream::new(lease))
            }
            (None, Some(limit)) => {
                endpoint.pool.overflowed(limit);
                Err(Failure::Full(limit).into())
            }
            (Some(Err(_)), Some(limit)) => Err(Failure::Full(limit).into()),
            (Some(Err(error)), None) => Err(self.connect_failure(endpoint, &error).into()),
            (None, None) => Err(Failure::ConnectTimeout.into()),
        }
    }

    /// The future's output, or `None` when `deadline` passes first.
    ///
    /// # Errors
    /// The client left.
    async fn unless_gone<D: Downstream, T>(
        &self,
        down: &mut D,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>, Outcome> {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(Some(output)));
            }
            if self.kept.poll_gone(cx, down).is_ready() {
                return Poll::Ready(Err(Outcome::Cut(Termination::ClientAbort)));
            }
            down.alarm().poll_until(cx, Some(deadline), clock::now()).map(|()| Ok(None))
        })
        .await
    }

    /// The client left while a connection was made.
    fn left_dialling(&mut self) {
        let now = self.worker.tick();
        self.exchange.left_dialling(now);
    }

    fn connect_deadline(&self, service: &Service) -> Instant {
        let deadline = clock::now() + service.upstream.connect_timeout;
        self.exchange.deadline().map_or(deadline, |budget| budget.min(deadline))
    }

    /// There is a connection, unless it must not be used any more. When that was.
    fn connected(&mut self, reused: bool) -> Result<Instant, Outcome> {
        let now = self.worker.tick();
        self.exchange.connected(reused, now);
        if self.exchange.is_withdrawn() { Err(Failure::Withdrawn.into()) } else { Ok(now) }
    }

    /// Where there are as many connections as there may be: closes one that is idle on another endpoint, or waits for one.
    async fn wait<D: Downstream>(
        &mut self,
        down: &mut D,
        endpoint: &EndpointLive,
        service: &Service,
        dial_tag: u64,
    ) -> Result<Grant, Outcome> {
        let limits = &service.upstream.limits;
        self.worker.idle().make_room(&endpoint.pool);
        if let Some(room) = Rooms::take(endpoint, limits) {
            return Ok(Grant::Room(room));
        }
        let (began, deadline) = (clock::now(), self.connect_deadline(service));
        let place = self.worker.rooms().queue(self.worker.index(), endpoint, limits, Some(dial_tag));
        let place = place.ok_or(Failure::Full(Limit::Pending))?;
        let (exchange, kept) = (&*self.exchange, &*self.kept);
        let granted = poll_fn(|cx| {
            if let Poll::Ready(grant) = place.poll(cx) {
                return Poll::Ready(Ok(grant));
            }
            if exchange.is_shut_out() {
                return Poll::Ready(Err(Failure::Withdrawn.into()));
            }
            if kept.poll_gone(cx, down).is_ready() {
                return Poll::Ready(Err(Outcome::Cut(Termination::ClientAbort)));
            }
            std::task::ready!(down.alarm().poll_until(cx, Some(deadline), clock::now()));
            endpoint.pool.overflowed(Limit::Connections);
            Poll::Ready(Err(Failure::Full(Limit::Connections).into()))
        });
        let granted = granted.await;
        self.exchange.queued(clock::now().saturating_duration_since(began));
        granted
    }

    fn connect_failure(&self, endpoint: &EndpointLive, error: &std::io::Error) -> Failure {
        if is_ours(error) {
            if let Some(more) = self.worker.complaints().due(clock::now()) {
                tracing::error!(endpoint = %endpoint.key, %error, more, "no connection can be made");
            }
            return Failure::OutOfResources;
        }
        tracing::debug!(endpoint = %endpoint.key, %error, "connect failed");
        if error.kind() == std::io::ErrorKind::TimedOut { Failure::ConnectTimeout } else { Failure::Connect }
    }
}

// === impl Complaints ===

impl Complaints {
    /// Whether it is time for a line, and then how many were held back since the one before.
    fn due(&self, now: Instant) -> Option<u64> {
        if self.last.get().is_some_and(|last| now.saturating_duration_since(last) < COMPLAINT_EVERY) {
            self.held_back.set(self.held_back.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.held_back.replace(0))
    }
}

/// Whether a dial failed for want of something this process or machine has run out of.
fn is_ours(error: &std::io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_once_a_second_with_what_was_held_back() {
        let (complaints, began) = (Complaints::default(), clock::now());
        let at = |ms: u64| complaints.due(began + Duration::from_millis(ms));
        assert_eq!([at(0), at(1), at(2), at(999)], [Some(0), None, None, None]);
        assert_eq!([at(1_000), at(1_001), at(5_000)], [Some(3), None, Some(1)]);
    }
}
