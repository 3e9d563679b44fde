//! Both sides of an attempt, scripted.

use std::collections::VecDeque;

use super::*;
use crate::proxy::body::Fault;
use crate::proxy::fixture::response;
use crate::proxy::headers::Trailers;

/// What a side gives when it is asked for payload; without more it has nothing for now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Give {
    Data(&'static [u8]),
    End,
    Malformed,
    TooLarge,
    TrailersTooLarge,
    Closed,
}

/// What a side does with payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Takes,
    Stuck,
    Broken,
}

/// One side's payload, both ways.
pub(super) struct Half {
    pub(super) gives: VecDeque<Give>,
    pub(super) chunk: &'static [u8],
    pub(super) got: Vec<u8>,
    pub(super) mood: Mood,
    pub(super) ended: bool,
}

pub(super) struct Client {
    pub(super) half: Half,
    pub(super) head: RequestHead,
    pub(super) facts: Rc<ConnFacts>,
    pub(super) alarm: Alarm,
    pub(super) gone: bool,
    pub(super) interims: Vec<u16>,
    /// Status, cookie, `last`.
    pub(super) answer: Option<(u16, bool, bool)>,
}

pub(super) struct Server {
    pub(super) half: Half,
    pub(super) heads: VecDeque<Result<ResponseHead, HeadFault>>,
    pub(super) head: ResponseHead,
    pub(super) accepted: bool,
}

impl Half {
    pub(super) fn new(gives: &[Give]) -> Self {
        let gives = gives.iter().copied().collect();
        Self { gives, chunk: b"", got: Vec::new(), mood: Mood::Takes, ended: false }
    }

    fn poll_fill(&mut self) -> Poll<Result<Fill, Fault>> {
        match self.gives.front() {
            None => return Poll::Pending,
            Some(Give::End) => return Poll::Ready(Ok(Fill::End)),
            Some(Give::Malformed) => return Poll::Ready(Err(Fault::Malformed("scripted"))),
            Some(Give::TooLarge) => return Poll::Ready(Err(Fault::TooLarge)),
            Some(Give::TrailersTooLarge) => return Poll::Ready(Err(Fault::TrailersTooLarge)),
            Some(Give::Closed) => return Poll::Ready(Err(Fault::Closed)),
            Some(Give::Data(data)) => self.chunk = data,
        }
        self.gives.pop_front();
        Poll::Ready(Ok(Fill::Data))
    }

    fn poll(&self) -> Poll<Result<(), Fault>> {
        match self.mood {
            Mood::Takes => Poll::Ready(Ok(())),
            Mood::Stuck => Poll::Pending,
            Mood::Broken => Poll::Ready(Err(Fault::Closed)),
        }
    }
}

macro_rules! halves {
    ($($side:ty),*) => {$(
        impl Source for $side {
            fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
                self.half.poll_fill()
            }

            fn chunk(&self) -> &[u8] {
                self.half.chunk
            }

            fn consume(&mut self, n: usize) {
                self.half.chunk = &self.half.chunk[n..];
            }

            fn trailers(&self) -> Option<&Trailers> {
                None
            }
        }

        impl Sink for $side {
            fn poll_send(&mut self, _: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
                self.half.poll().map_ok(|()| {
                    self.half.got.extend_from_slice(chunk);
                    chunk.len()
                })
            }

            fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
                self.half.poll()
            }

            fn poll_end(&mut self, _: &mut Context<'_>, _: Option<&Trailers>) -> Poll<Result<(), Fault>> {
                self.half.ended |= self.half.mood == Mood::Takes;
                self.half.poll()
            }
        }
    )*};
}

halves!(Client, Server);

impl Downstream for Client {
    fn head(&self) -> &RequestHead {
        &self.head
    }

    fn facts(&self) -> &Rc<ConnFacts> {
        &self.facts
    }

    fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.gone { Poll::Ready(()) } else { Poll::Pending }
    }

    fn interim(&mut self, head: &ResponseHead) {
        self.interims.push(head.status);
    }

    fn respond(&mut self, head: &ResponseHead, set_cookie: Option<&[u8]>, last: bool) -> bool {
        assert!(self.answer.is_none(), "one answer");
        self.answer = Some((head.status, set_cookie.is_some(), last));
        last
    }

    fn arrived(&self) -> Instant {
        clock::now()
    }

    fn reply(&mut self, _: &Reply, _: bool) -> bool {
        unreachable!("an attempt answers nothing itself");
    }

    fn cut(&mut self, _: Termination) {
        unreachable!("an attempt cuts nothing itself");
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        None
    }
}

impl Server {
    /// A server that answers with these statuses, one after the other.
    pub(super) fn answering(statuses: &[u16], gives: &[Give]) -> Self {
        let heads = statuses.iter().map(|status| Ok(response(*status, ""))).collect();
        Self { half: Half::new(gives), heads, head: ResponseHead::default(), accepted: true }
    }

    /// A server whose answer fails so.
    pub(super) fn failing(fault: HeadFault, accepted: bool) -> Self {
        Self { heads: [Err(fault)].into(), accepted, ..Self::answering(&[], &[]) }
    }
}

impl Upstream for Server {
    const MAY_REFUSE: bool = false;

    fn begin(&mut self, _: &RequestHead, _: &RequestEdits<'_>) {}

    fn poll_head(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HeadFault>> {
        match self.heads.pop_front() {
            None => Poll::Pending,
            Some(head) => Poll::Ready(head.map(|head| self.head = head)),
        }
    }

    fn head(&self) -> &ResponseHead {
        &self.head
    }

    fn accepted(&self) -> bool {
        self.accepted
    }

    fn raw(&mut self) -> Option<Raw<'_>> {
        None
    }

    fn finish(self, _: &Worker, _: &EndpointLive, _: Duration, _: bool) {}
}
