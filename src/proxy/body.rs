//! The two halves of a message body on its way through: where payload comes from, where it goes, and the pump between them.

use std::io;
use std::task::{Context, Poll, ready};

use super::headers::Trailers;

/// What went wrong on one side.
#[derive(Debug)]
pub enum Fault {
    /// Closed or reset before the message was complete.
    Closed,
    /// The framing is malformed; says how.
    Malformed(&'static str),
    /// More payload than the listener allows.
    TooLarge,
    /// Trailers that are larger than allowed, or more of them.
    TrailersTooLarge,
    /// The connection was ended here, over a limit that whatever was on it had reached.
    Limit,
    /// The socket failed.
    Io(io::Error),
}

/// What a source has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// [`Source::chunk`] is not empty.
    Data,
    /// The message is complete.
    End,
}

/// Where payload comes from.
pub trait Source {
    /// Makes payload available in place.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, Fault>>;
    /// The payload at hand.
    fn chunk(&self) -> &[u8];
    /// Marks payload as passed on.
    fn consume(&mut self, n: usize);
    /// Trailer fields that may be passed on; complete once the source ended.
    fn trailers(&self) -> Option<&Trailers>;
}

/// Where payload goes.
pub trait Sink {
    /// Takes payload, possibly into a buffer; says how much. A head written before leaves with it.
    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>>;
    /// Writes out everything buffered.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;
    /// Ends the message and writes out everything buffered.
    fn poll_end(&mut self, cx: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>>;
}

/// How far a pump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pump {
    /// Payload flows.
    Flowing,
    /// The source ended; the end is being written.
    Ending,
    /// Everything was written.
    Done,
}

/// Which side of a pump failed.
#[derive(Debug)]
pub enum Broken {
    /// Reading failed.
    Source(Fault),
    /// Writing failed.
    Sink(Fault),
}

/// What a pump that cannot go on waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The source has nothing.
    Source,
    /// The sink takes nothing.
    Sink,
}

/// One turn of a pump.
#[derive(Debug)]
pub struct Turn {
    /// Payload bytes that were passed on.
    pub moved: u64,
    /// What it waits for; `None` when it is done.
    pub waits: Option<WaitsFor>,
}

impl Pump {
    /// Moves payload until one side has to wait. `tap` sees every byte taken from the source.
    ///
    /// # Errors
    /// The side that failed.
    pub fn turn(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
        tap: &mut impl FnMut(&[u8]),
    ) -> Result<Turn, Broken> {
        let mut moved = 0;
        let waits = loop {
            match self.step(cx, source, sink, tap, &mut moved) {
                Poll::Ready(Ok(())) if *self == Self::Done => break None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(broken)) => return Err(broken),
                Poll::Pending if source.chunk().is_empty() && *self == Self::Flowing => {
                    // What is buffered must not wait for more (server-sent events, interim heads).
                    break match sink.poll_flush(cx) {
                        Poll::Ready(Ok(())) => Some(WaitsFor::Source),
                        Poll::Ready(Err(fault)) => return Err(Broken::Sink(fault)),
                        Poll::Pending => Some(WaitsFor::Sink),
                    };
                }
                Poll::Pending => break Some(WaitsFor::Sink),
            }
        };
        Ok(Turn { moved, waits })
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut impl Sink,
        tap: &mut impl FnMut(&[u8]),
        moved: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        match self {
            Self::Flowing => {
                if source.chunk().is_empty() && ready!(source.poll_fill(cx)).map_err(Broken::Source)? == Fill::End {
                    *self = Self::Ending;
                    return Poll::Ready(Ok(()));
                }
                let n = ready!(sink.poll_send(cx, source.chunk())).map_err(Broken::Sink)?;
                tap(&source.chunk()[..n]);
                source.consume(n);
                *moved += n as u64;
            }
            Self::Ending => {
                ready!(sink.poll_end(cx, source.trailers())).map_err(Broken::Sink)?;
                *self = Self::Done;
            }
            Self::Done => {}
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
