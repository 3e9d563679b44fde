//! Sinks that block, fail, lose their file, or end.

use std::path::Path;
use std::sync::atomic::AtomicU32;

use super::*;

/// A directory that goes with the test.
pub(in crate::telemetry) struct Scratch(PathBuf);

impl Scratch {
    pub(in crate::telemetry) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tidegate-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(in crate::telemetry) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("still there");
    }
}

/// Tells when a write begins, and lets it end when told so; then keeps what was written.
pub(in crate::telemetry) struct Gated {
    entered: SyncSender<()>,
    go: Receiver<()>,
    written: Arc<Mutex<Vec<u8>>>,
}

/// The test's side of a [`Gated`] writer.
pub(in crate::telemetry) struct Gate {
    pub(in crate::telemetry) entered: Receiver<()>,
    /// Dropping it opens the gate for good.
    pub(in crate::telemetry) go: Option<SyncSender<()>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Gated {
    pub(in crate::telemetry) fn closed() -> (Output, Gate) {
        let (entered_tx, entered) = sync_channel(1_000);
        let (go, go_rx) = sync_channel(1_000);
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Self { entered: entered_tx, go: go_rx, written: Arc::clone(&written) };
        (Output::of(Target::Stdout, Box::new(writer)), Gate { entered, go: Some(go), written })
    }
}

impl Gate {
    pub(in crate::telemetry) fn written(&self) -> String {
        String::from_utf8(self.written.lock().expect("lock").clone()).expect("UTF-8")
    }
}

impl Write for Gated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _nobody_looks = self.entered.try_send(());
        let _open = self.go.recv();
        self.written.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn block(text: &str) -> Block {
    let lines = text.lines().count().try_into().expect("few");
    Block { bytes: text.as_bytes().to_vec(), lines, home: None }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("readable")
}

#[test]
fn a_full_queue_refuses_and_returns_the_block() {
    let (output, mut gate) = Gated::closed();
    let sink = Sink::start("test", 2, Some(output), None).expect("a thread");
    assert!(sink.offer(block("0\n")).is_ok());
    gate.entered.recv().expect("writing 0");
    assert!(sink.offer(block("1\n")).is_ok());
    assert!(sink.offer(block("2\n")).is_ok());
    let refused = sink.offer(block("3\n4\n")).expect_err("full");
    assert_eq!((refused.lines, &refused.bytes[..]), (2, &b"3\n4\n"[..]));
    gate.go = None;
    assert!(sink.close(CLOSE_TIMEOUT));
    assert_eq!(gate.written(), "0\n1\n2\n");
    assert_eq!(sink.offer(block("5\n")).expect_err("ended").lines, 1);
    assert!(sink.close(CLOSE_TIMEOUT), "closing twice is harmless");
}

#[test]
fn closing_does_not_wait_for_ever() {
    let (output, mut gate) = Gated::closed();
    let sink = Sink::start("test", 2, Some(output), None).expect("a thread");
    assert!(sink.offer(block("0\n")).is_ok());
    gate.entered.recv().expect("writing 0");
    assert!(!sink.close(Duration::from_millis(1)));
    gate.go = None;
    assert!(sink.close(CLOSE_TIMEOUT));
}

/// Fails after some bytes, then works.
struct Flaky {
    plan: Vec<io::Result<usize>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Flaky {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = if self.plan.is_empty() { bytes.len() } else { self.plan.remove(0)?.min(bytes.len()) };
        self.written.lock().expect("lock").extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flaky(plan: Vec<io::Result<usize>>, blocks: &[&str]) -> (String, SinkStats) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let output = Output::of(Target::Stdout, Box::new(Flaky { plan, written: Arc::clone(&written) }));
    let sink = Sink::start("test", 8, Some(output), None).expect("a thread");
    for text in blocks {
        assert!(sink.offer(block(text)).is_ok());
    }
    assert!(sink.close(CLOSE_TIMEOUT));
    let text = String::from_utf8(written.lock().expect("lock").clone()).expect("UTF-8");
    (text, sink.stats())
}

fn failure(kind: io::ErrorKind) -> io::Result<usize> {
    Err(kind.into())
}

#[test]
fn a_line_torn_by_an_error_is_ended_before_the_next() {
    let plan = vec![Ok(3), failure(io::ErrorKind::StorageFull)];
    let (text, stats) = flaky(plan, &["first\nsecond\n", "third\n"]);
    assert_eq!(text, "fir\nthird\n");
    assert_eq!(stats, SinkStats { lines_lost: 2, write_errors: 1 });
    // Stopped between lines: nothing to mend.
    let plan = vec![Ok(6), failure(io::ErrorKind::StorageFull)];
    assert_eq!(flaky(plan, &["first\nsecond\n", "third\n"]).0, "first\nthird\n");
    let plan = vec![failure(io::ErrorKind::StorageFull)];
    assert_eq!(flaky(plan, &["first\n", "second\n"]).0, "second\n");
}

#[test]
fn short_and_interrupted_writes_go_on() {
    let plan = vec![Ok(1), failure(io::ErrorKind::Interrupted), Ok(2)];
    let (text, stats) = flaky(plan, &["first\n"]);
    assert_eq!((text.as_str(), stats), ("first\n", SinkStats::default()));
    let (_, stats) = flaky(vec![Ok(0)], &["first\n"]);
    assert_eq!(stats, SinkStats { lines_lost: 1, write_errors: 1 });
}

#[test]
fn a_renamed_file_is_let_go_at_reopen_and_others_may_not_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let (path, rotated) = (scratch.path("log"), scratch.path("log.1"));
    let output = Output::open(&Target::File(path.clone())).expect("opens");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o7137, 0, "at most 0640");
    let sink = Sink::start("test", 8, Some(output), None).expect("a thread");
    // The buffer comes back once it is written.
    let (home, back) = sync_channel(1);
    let written = |text: &str| {
        assert!(sink.offer(Block { home: Some(home.clone()), ..block(text) }).is_ok());
        assert!(back.recv().expect("written").is_empty());
    };
    written("before\n");
    std::fs::rename(&path, &rotated).expect("renamed");
    written("still there\n");
    sink.reopen();
    written("after\n");
    assert!(sink.close(CLOSE_TIMEOUT));
    assert_eq!((read(&rotated), read(&path)), ("before\nstill there\n".into(), "after\n".into()));
}

#[test]
fn a_reopen_that_fails_keeps_the_old_file() {
    let scratch = Scratch::new();
    let path = scratch.path("log");
    let output = Output::open(&Target::File(path.clone())).expect("opens");
    let rotated = scratch.path("log.1");
    std::fs::rename(&path, &rotated).expect("renamed");
    std::fs::create_dir(&path).expect("in its way");
    let sink = Sink::start("test", 8, Some(output), None).expect("a thread");
    sink.reopen();
    assert!(sink.offer(block("kept\n")).is_ok());
    assert!(sink.close(CLOSE_TIMEOUT));
    assert_eq!(read(&rotated), "kept\n");
    assert_eq!(sink.stats(), SinkStats { lines_lost: 0, write_errors: 1 });
}

#[test]
fn a_fifo_without_a_reader_opens_at_once() {
    let scratch = Scratch::new();
    let path = scratch.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo of coreutils");
    assert!(made.success());
    let output = Output::open(&Target::File(path.clone())).expect("opens");
    let sink = Sink::start("test", 8, Some(output), None).expect("a thread");
    assert!(sink.offer(block("line\n")).is_ok());
    let mut first = [0; 5];
    io::Read::read_exact(&mut File::open(&path).expect("opens"), &mut first).expect("a line");
    assert_eq!(&first, b"line\n");
    assert!(sink.close(CLOSE_TIMEOUT));
}

static FAKE_SECONDS: AtomicU64 = AtomicU64::new(0);
static FAKE_START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

fn fake_clock() -> Instant {
    *FAKE_START.get_or_init(crate::clock::now) + Duration::from_secs(FAKE_SECONDS.load(Ordering::Relaxed))
}

#[test]
fn failures_are_reported_once_a_minute_with_their_number() {
    let (_queue_tx, queue) = sync_channel(1);
    let reporter = Reporter { what: "access log", clock: fake_clock };
    let mut writer = Writer {
        queue,
        queue_max: 1,
        shared: Arc::default(),
        output: Some(Output::of(Target::File("/logs/a".into()), Box::new(io::sink()))),
        torn: false,
        reporter: Some(reporter),
        reported: None,
        unreported: 0,
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let tee = Arc::clone(&seen);
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Tee(Arc::clone(&tee))).finish();
    tracing::subscriber::with_default(subscriber, || {
        for second in [0, 1, 59, 60, 119, 120] {
            FAKE_SECONDS.store(second, Ordering::Relaxed);
            writer.failed(&io::ErrorKind::StorageFull.into());
        }
    });
    let log = String::from_utf8(seen.lock().expect("lock").clone()).expect("UTF-8");
    let failures: Vec<_> = log.lines().filter_map(|line| line.split("failures=").nth(1)).collect();
    assert_eq!(failures, ["1", "3", "2"], "{log}");
    assert!(log.contains("cannot write the access log") && log.contains("target=/logs/a"), "{log}");
    assert_eq!(writer.shared.write_errors.load(Ordering::Relaxed), 6);
}

/// Appends to shared bytes.
struct Tee(Arc<Mutex<Vec<u8>>>);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
