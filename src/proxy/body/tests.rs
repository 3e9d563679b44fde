//! The pump between two scripted halves: nothing is lost, doubled or left waiting, whatever each side does.

use std::collections::VecDeque;
use std::task::Waker;

use super::*;
use proptest::prelude::*;

/// What a source does when it is asked.
#[derive(Clone, Debug)]
enum Give {
    Data(Vec<u8>),
    Pending,
    Fault,
}

/// What a sink does when it is given something.
#[derive(Clone, Copy, Debug)]
enum Take {
    /// Up to so many bytes.
    Up(usize),
    Pending,
    Fault,
}

/// A source that follows a script, then ends.
#[derive(Default)]
struct Script {
    gives: VecDeque<Give>,
    chunk: Vec<u8>,
    ended: usize,
    trailers: Trailers,
}

/// A sink that follows a script, then takes everything.
#[derive(Default)]
struct Record {
    takes: VecDeque<Take>,
    got: Vec<u8>,
    flushes: usize,
    flush: Option<Take>,
    ends: usize,
    end: Option<Take>,
}

impl Source for Script {
    fn poll_fill(&mut self, _: &mut Context<'_>) -> Poll<Result<Fill, Fault>> {
        assert!(self.chunk.is_empty(), "asked for more before the chunk was used");
        match self.gives.pop_front() {
            Some(Give::Data(data)) => {
                self.chunk = data;
                Poll::Ready(Ok(Fill::Data))
            }
            Some(Give::Pending) => Poll::Pending,
            Some(Give::Fault) => Poll::Ready(Err(Fault::Malformed("scripted"))),
            None => {
                self.ended += 1;
                Poll::Ready(Ok(Fill::End))
            }
        }
    }

    fn chunk(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, n: usize) {
        self.chunk.drain(..n);
    }

    fn trailers(&self) -> Option<&Trailers> {
        Some(&self.trailers)
    }
}

fn answer(take: Option<Take>) -> Poll<Result<(), Fault>> {
    match take {
        Some(Take::Pending) => Poll::Pending,
        Some(Take::Fault) => Poll::Ready(Err(Fault::Closed)),
        Some(Take::Up(_)) | None => Poll::Ready(Ok(())),
    }
}

impl Sink for Record {
    fn poll_send(&mut self, _: &mut Context<'_>, chunk: &[u8]) -> Poll<Result<usize, Fault>> {
        assert!(!chunk.is_empty(), "an empty piece would end a chunked message");
        let n = match self.takes.pop_front() {
            Some(Take::Up(n)) => n.min(chunk.len()),
            Some(Take::Pending) => return Poll::Pending,
            Some(Take::Fault) => return Poll::Ready(Err(Fault::Closed)),
            None => chunk.len(),
        };
        self.got.extend_from_slice(&chunk[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.flushes += 1;
        answer(self.flush.take())
    }

    fn poll_end(&mut self, _: &mut Context<'_>, trailers: Option<&Trailers>) -> Poll<Result<(), Fault>> {
        assert!(trailers.is_some(), "trailers are known when the source has ended");
        self.ends += 1;
        answer(self.end.take())
    }
}

fn script(gives: &[Give]) -> Script {
    Script { gives: gives.iter().cloned().collect(), ..Script::default() }
}

fn turn(pump: &mut Pump, source: &mut Script, sink: &mut Record) -> Result<Turn, Broken> {
    pump.turn(&mut Context::from_waker(Waker::noop()), source, sink, &mut |_| ())
}

fn data(text: &str) -> Give {
    Give::Data(text.as_bytes().to_vec())
}

#[test]
fn everything_is_passed_on_and_then_ended_once() {
    let (mut source, mut sink) = (script(&[data("ab"), data("cde")]), Record::default());
    let mut pump = Pump::Flowing;
    let done = turn(&mut pump, &mut source, &mut sink).expect("whole");
    assert_eq!((done.moved, done.waits, pump), (5, None, Pump::Done));
    assert_eq!((&sink.got[..], sink.ends, source.ended), (&b"abcde"[..], 1, 1));
    let again = turn(&mut pump, &mut source, &mut sink).expect("still whole");
    assert_eq!((again.moved, again.waits, sink.ends, source.ended), (0, None, 1, 1));
}

#[test]
fn what_is_buffered_is_flushed_while_the_source_has_nothing() {
    let (mut source, mut sink) = (script(&[data("ab"), Give::Pending, data("c")]), Record::default());
    let mut pump = Pump::Flowing;
    let first = turn(&mut pump, &mut source, &mut sink).expect("so far");
    assert_eq!((first.moved, first.waits, sink.flushes), (2, Some(WaitsFor::Source), 1));
    assert_eq!((&sink.got[..], sink.ends), (&b"ab"[..], 0));
    let second = turn(&mut pump, &mut source, &mut sink).expect("whole");
    assert_eq!((second.moved, second.waits, &sink.got[..]), (1, None, &b"abc"[..]));
}

#[test]
fn a_sink_that_cannot_flush_is_what_is_waited_for() {
    let (mut source, mut sink) = (script(&[data("ab"), Give::Pending]), Record::default());
    sink.flush = Some(Take::Pending);
    let turn_of = turn(&mut Pump::Flowing, &mut source, &mut sink).expect("so far");
    assert_eq!((turn_of.moved, turn_of.waits), (2, Some(WaitsFor::Sink)));
}

#[test]
fn a_full_sink_holds_the_source_back() {
    let (mut source, mut sink) = (script(&[data("abc"), data("d")]), Record::default());
    sink.takes = [Take::Up(1), Take::Pending].into();
    let mut pump = Pump::Flowing;
    let first = turn(&mut pump, &mut source, &mut sink).expect("so far");
    assert_eq!((first.moved, first.waits), (1, Some(WaitsFor::Sink)));
    assert_eq!((source.gives.len(), source.chunk(), sink.flushes), (1, &b"bc"[..], 0), "nothing more is read");
    let second = turn(&mut pump, &mut source, &mut sink).expect("whole");
    assert_eq!((second.moved, &sink.got[..]), (3, &b"abcd"[..]));
}

#[test]
fn an_end_that_cannot_be_written_is_waited_for() {
    let (mut source, mut sink) = (script(&[]), Record { end: Some(Take::Pending), ..Record::default() });
    let mut pump = Pump::Flowing;
    let first = turn(&mut pump, &mut source, &mut sink).expect("so far");
    assert_eq!((first.waits, pump), (Some(WaitsFor::Sink), Pump::Ending));
    let second = turn(&mut pump, &mut source, &mut sink).expect("whole");
    assert_eq!((second.waits, pump, source.ended), (None, Pump::Done, 1));
}

#[test]
fn the_side_that_fails_is_named() {
    for (gives, sink, of_source) in [
        (vec![data("ab"), Give::Fault], Record::default(), true),
        (vec![data("ab")], Record { takes: [Take::Up(1), Take::Fault].into(), ..Record::default() }, false),
        (vec![Give::Pending], Record { flush: Some(Take::Fault), ..Record::default() }, false),
        (vec![], Record { end: Some(Take::Fault), ..Record::default() }, false),
    ] {
        let mut sink = sink;
        let broken = turn(&mut Pump::Flowing, &mut script(&gives), &mut sink).expect_err("broken");
        assert_eq!(matches!(broken, Broken::Source(Fault::Malformed("scripted"))), of_source, "{gives:?}");
        assert_eq!(matches!(broken, Broken::Sink(Fault::Closed)), !of_source, "{gives:?}");
    }
}

fn give() -> impl Strategy<Value = Give> {
    prop_oneof![3 => proptest::collection::vec(any::<u8>(), 1..40).prop_map(Give::Data), 1 => Just(Give::Pending)]
}

fn take() -> impl Strategy<Value = Take> {
    prop_oneof![3 => (1..20_usize).prop_map(Take::Up), 1 => Just(Take::Pending)]
}

proptest! {
    #[test]
    fn every_byte_arrives_once_and_in_order(
        gives in proptest::collection::vec(give(), 0..12),
        takes in proptest::collection::vec(take(), 0..40),
    ) {
        let all: Vec<u8> = gives.iter().flat_map(|give| match give {
            Give::Data(data) => data.clone(),
            _ => Vec::new(),
        }).collect();
        let (mut source, mut sink) = (script(&gives), Record { takes: takes.into(), ..Record::default() });
        let (mut pump, mut tapped, mut moved) = (Pump::Flowing, Vec::new(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let turn = pump.turn(&mut cx, &mut source, &mut sink, &mut |bytes| tapped.extend_from_slice(bytes));
            let turn = turn.expect("nobody fails");
            moved += turn.moved;
            prop_assert_eq!(turn.waits.is_none(), pump == Pump::Done);
            if turn.waits == Some(WaitsFor::Source) {
                prop_assert!(source.chunk().is_empty());
            }
        }
        prop_assert_eq!(pump, Pump::Done);
        prop_assert_eq!((&sink.got, &tapped, moved), (&all, &all, all.len() as u64));
        prop_assert_eq!((sink.ends, source.ended), (1, 1));
    }
}
