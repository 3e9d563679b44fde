//! How an attempt gets its connection or stream: one that is idle, a new one, or after a wait where the pool has as many as it may have.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use rustix::io::Errno;

use crate::clock;
use crate::core::circuit::Limit;
use crate::core::service::Service;
use crate::proxy::exchange::{Attempt, Failure};
use crate::proxy::h1::upstream::H1Upstream;
use crate::proxy::h2::up::H2Upstream;
use crate::proxy::h2::up::sessions::{Limited, Wanted, lease};
use crate::proxy::idle::Link;
use crate::proxy::rooms::{Grant, Rooms};
use crate::state::live::EndpointLive;
use crate::telemetry::termination::Termination;

use super::{Downstream, Outcome, Serving, within};

impl Serving<'_> {
    /// An idle connection, or a new one within the connect timeout.
    pub(super) async fn connect<D: Downstream>(
        &mut self,
        down: &mut D,
        attempt: &Attempt,
    ) -> Result<H1Upstream, Outcome> {
        let endpoint = attempt.in_flight.endpoint();
        let now = self.worker.now();
        let Some(active) = self.exchange.service() else { return Err(Failure::Connect.into()) };
        let (service, dial_tag) = (Arc::clone(&active.service), active.dial_tag);
        if attempt.may_reuse
            && let Some(link) = self.worker.idle().take(endpoint.slot, dial_tag, now)
        {
            self.exchange.connected(true, now);
            return Ok(H1Upstream::new(link, self.worker));
        }
        let room = match Rooms::take(endpoint, &service.upstream.limits) {
            Some(room) => room,
            // Boxed: it is rare, and every connection would carry room for it.
            None => match Box::pin(self.wait(down, endpoint, &service, dial_tag)).await? {
                Grant::Room(room) => room,
                Grant::Link(link) => return self.connected(true).map(|_| H1Upstream::new(link, self.worker)),
            },
        };
        let deadline = self.connect_deadline(&service);
        let dial = self.worker.dialer().dial(&service, attempt.address());
        match within(down.alarm(), Some(deadline), Box::pin(dial)).await {
            Some(Ok(io)) => {
                let opened = self.connected(false)?;
                Ok(H1Upstream::new(Link { io, opened, room, dial_tag }, self.worker))
            }
            Some(Err(error)) => Err(connect_failure(endpoint, &error).into()),
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
        let leased = within(down.alarm(), Some(deadline), lease(self.worker, wanted)).await;
        match (leased, limited.at.get()) {
            (Some(Ok((lease, reused))), _) => {
                self.exchange.queued(limited.waited.get());
                // A stream may have taken a while to become free, and that of a replay comes after a failure.
                self.connected(reused).map(|_| H2Upstream::new(lease))
            }
            (None, Some(limit)) => {
                endpoint.pool.overflowed(limit);
                Err(Failure::Full(limit).into())
            }
            (Some(Err(_)), Some(limit)) => Err(Failure::Full(limit).into()),
            (Some(Err(error)), None) => Err(connect_failure(endpoint, &error).into()),
            (None, None) => Err(Failure::ConnectTimeout.into()),
        }
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
        let (exchange, whole) = (&*self.exchange, self.kept.whole);
        let granted = poll_fn(|cx| {
            if let Poll::Ready(grant) = place.poll(cx) {
                return Poll::Ready(Ok(grant));
            }
            if exchange.is_shut_out() {
                return Poll::Ready(Err(Failure::Withdrawn.into()));
            }
            if whole && down.poll_gone(cx).is_ready() {
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
}

fn connect_failure(endpoint: &EndpointLive, error: &std::io::Error) -> Failure {
    if is_ours(error) {
        tracing::error!(endpoint = %endpoint.key, %error, "no connection can be made");
        return Failure::OutOfResources;
    }
    tracing::debug!(endpoint = %endpoint.key, %error, "connect failed");
    if error.kind() == std::io::ErrorKind::TimedOut { Failure::ConnectTimeout } else { Failure::Connect }
}

/// Whether a dial failed for want of something this process or machine has run out of.
fn is_ours(error: &std::io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}
