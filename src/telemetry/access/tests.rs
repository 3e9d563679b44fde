//! Drops, sampling, reloads and rotation of the access log.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;

use super::*;
use crate::telemetry::access::format::tests::record;
use crate::telemetry::sink::tests::{Gate, Gated, Scratch};

fn settings(format: Format, target: Target) -> Settings {
    Settings { enabled: true, sample: Weight::FULL, format, target }
}

fn gated() -> (AccessWriter, Gate) {
    let (output, gate) = Gated::closed();
    let settings = settings(Format::Json, Target::Stdout);
    (AccessWriter::with_output(settings, Some(output), crate::clock::now).expect("a thread"), gate)
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Writes a record and waits until it is in the file.
fn written(log: &mut AccessLog, status: u16) {
    assert_eq!(log.write(&Record { status, ..record() }), 0);
    assert_eq!(log.flush(), 0);
    let buffer = log.spare.recv().expect("the buffer comes back once it is written");
    assert!(log.home.try_send(buffer).is_ok());
}

#[test]
fn lines_are_dropped_and_counted_while_the_writer_is_blocked() {
    let (writer, mut gate) = gated();
    let mut log = writer.worker();
    log.write(&record());
    assert_eq!(log.flush(), 0);
    gate.entered.recv().expect("the writer is in its first write");
    for _ in 0..QUEUE_BLOCKS_MAX {
        log.write(&record());
        log.write(&record());
        assert_eq!(log.flush(), 0);
    }
    for lines in 1..=3 {
        for _ in 0..lines {
            assert_eq!(log.write(&record()), 0);
        }
        assert_eq!(log.flush(), lines, "lines, not buffers");
    }
    assert_eq!(log.flush(), 0, "nothing is left to drop");
    gate.go = None;
    assert!(writer.close());
    assert_eq!(gate.written().lines().count(), 1 + 2 * QUEUE_BLOCKS_MAX);
    log.write(&record());
    drop(log);
    assert_eq!(writer.stats(), SinkStats { lines_lost: 1, write_errors: 0 }, "a worker that ends late counts too");
}

#[test]
fn a_full_buffer_is_handed_over_without_a_tick() {
    let (writer, mut gate) = gated();
    gate.go = None;
    let mut log = writer.worker();
    let mut count = 0;
    while count == 0 || log.lines > 0 {
        assert_eq!(log.write(&record()), 0);
        count += 1;
        assert!(log.buffer.len() < BLOCK_BYTES && count < 1_000);
    }
    assert!(writer.close());
    let text = gate.written();
    assert_eq!(text.lines().count(), count);
    assert!((BLOCK_BYTES..BLOCK_BYTES + LINE_BYTES).contains(&text.len()));
}

#[test]
fn buffers_come_back_and_are_used_again() {
    let (writer, mut gate) = gated();
    gate.go = None;
    let mut log = writer.worker();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        log.write(&record());
        seen.insert(log.buffer.as_ptr());
        assert_eq!(log.flush(), 0);
        let buffer = log.spare.recv().expect("back");
        assert!(buffer.is_empty() && log.home.try_send(buffer).is_ok());
    }
    assert_eq!(seen.len(), 2, "one is filled while the other is written");
    log.write(&record());
    let (ptr, capacity) = (log.buffer.as_ptr(), log.buffer.capacity());
    for _ in 0..10 {
        log.write(&record());
    }
    assert_eq!((log.buffer.as_ptr(), log.buffer.capacity()), (ptr, capacity), "formatting fits the room there is");
}

#[test]
fn a_refused_buffer_is_kept_and_an_oversized_one_is_not() {
    let (writer, gate) = gated();
    assert!(writer.close(), "nothing was queued");
    drop(gate);
    let mut log = writer.worker();
    log.write(&record());
    let ptr = log.buffer.as_ptr();
    assert_eq!(log.flush(), 1);
    assert!(log.spare.try_recv().is_ok_and(|back| back.is_empty() && back.as_ptr() == ptr));
    let (writer, mut gate) = gated();
    gate.go = None;
    let mut log = writer.worker();
    assert!(log.home.try_send(Vec::with_capacity(SPARE_BYTES_MAX + 1)).is_ok());
    log.write(&record());
    assert_eq!(log.flush(), 0);
    assert!(log.buffer.capacity() <= SPARE_BYTES_MAX);
}

#[test]
fn the_sample_is_a_share_in_grains() {
    let (writer, _gate) = gated();
    let mut log = writer.worker();
    // Evenly spaced bits: exactly ten per bucket.
    let step = u64::MAX / 100_000;
    for (sample, wanted) in [("0%", 0), ("0.01%", 10), ("5%", 5_000), ("33.33%", 33_330), ("100%", 100_000)] {
        let sample = Weight::parse(sample).expect("a weight");
        let next = Settings { sample, ..settings(Format::Json, Target::Stdout) };
        writer.commit(writer.prepare(next).expect("the same target"));
        let hits = (0..100_000).filter(|i| log.wants(i * step + step / 2)).count();
        assert_eq!(hits, wanted, "{sample}");
    }
    let off = Settings { enabled: false, ..settings(Format::Json, Target::Stdout) };
    writer.commit(writer.prepare(off).expect("nothing to open"));
    assert!(!log.wants(0) && !log.wants(u64::MAX));
}

#[test]
fn a_renamed_file_is_let_go_at_reopen() {
    let scratch = Scratch::new();
    let (path, rotated) = (scratch.path("access.log"), scratch.path("access.log.1"));
    let settings = settings(Format::Json, Target::File(path.clone()));
    let writer = AccessWriter::start(settings, crate::clock::now).expect("opens");
    let mut log = writer.worker();
    written(&mut log, 200);
    std::fs::rename(&path, &rotated).expect("renamed");
    writer.reopen();
    written(&mut log, 404);
    assert!(writer.close());
    let status = |path| lines(path).iter().map(|l| l["status"].clone()).collect::<Vec<_>>();
    assert_eq!((status(&rotated), status(&path)), (vec![200.into()], vec![404.into()]));
}

#[test]
fn a_reload_changes_target_and_format_or_nothing() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.path("first"), scratch.path("second"));
    let off = Settings { enabled: false, ..settings(Format::Json, Target::File(first.clone())) };
    let writer = AccessWriter::start(off, crate::clock::now).expect("nothing to open");
    let mut log = writer.worker();
    assert!(!log.wants(0) && !first.exists(), "a log that is off makes no file");
    let on = |format, path: &Path| writer.prepare(settings(format, Target::File(path.to_owned())));
    writer.commit(on(Format::Json, &first).expect("opens"));
    assert!(log.wants(0));
    written(&mut log, 200);
    let error = on(Format::Text, &scratch.path("none/access.log")).expect_err("no such directory");
    assert!(error.starts_with("cannot append to ") && error.contains("none/access.log"), "{error}");
    assert!(error.contains("No such file") && error.contains("allowed is \"-\""), "{error}");
    written(&mut log, 201);
    writer.commit(on(Format::Text, &second).expect("opens"));
    written(&mut log, 202);
    assert!(writer.close());
    assert_eq!(lines(&first).len(), 2);
    let text = std::fs::read_to_string(&second).expect("readable");
    assert!(text.lines().count() == 1 && text.contains(" 202 -- "), "{text}");
}

#[test]
fn a_failing_device_is_counted_and_kills_nothing() {
    let settings = settings(Format::Text, Target::File("/dev/full".into()));
    let writer = AccessWriter::start(settings, crate::clock::now).expect("opens");
    let mut log = writer.worker();
    for _ in 0..3 {
        written(&mut log, 200);
    }
    assert_eq!(log.spare.recv_timeout(Duration::ZERO).map(|_| ()), Ok::<(), RecvTimeoutError>(()));
    assert_eq!(writer.stats(), SinkStats { lines_lost: 3, write_errors: 3 });
    assert!(writer.close());
}
