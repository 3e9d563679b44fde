//! One thread that writes what others hand it over a bounded queue. Nobody waits for it: what does not fit is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long closing waits for what is queued to be written.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two reports of write errors.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Mode of files made here: readable by owner and group.
const FILE_MODE: u32 = 0o640;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// A target that was opened.
pub(super) struct Output {
    target: Target,
    write: Box<dyn Write + Send>,
}

/// Whole lines, written together.
pub(super) struct Block {
    /// The lines, each with its line feed.
    pub(super) bytes: Vec<u8>,
    /// How many they are.
    pub(super) lines: u32,
    /// Where the emptied buffer goes back to.
    pub(super) home: Option<SyncSender<Vec<u8>>>,
}

/// What went wrong since the sink began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Lines lost: refused by a full queue where the caller does not count them, or not written.
    pub lines_lost: u64,
    /// Failed attempts to write or to reopen.
    pub write_errors: u64,
}

/// The sending side; shared by all who write.
pub(super) struct Sink {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Closed by the thread when it has ended.
    done: Mutex<Receiver<()>>,
}

/// Tells a person, at most once per [`REPORT_INTERVAL`], that writing fails.
pub(super) struct Reporter {
    /// What is written, for the message.
    pub(super) what: &'static str,
    /// Reads the monotonic clock.
    pub(super) clock: fn() -> Instant,
}

enum Message {
    Block(Block),
    /// Look at the flags.
    Wake,
}

#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    reopen: AtomicBool,
    next: Mutex<Option<Output>>,
    lines_lost: AtomicU64,
    write_errors: AtomicU64,
}

struct Writer {
    queue: Receiver<Message>,
    queue_max: usize,
    shared: Arc<Shared>,
    output: Option<Output>,
    /// The last write stopped within a line.
    torn: bool,
    reporter: Option<Reporter>,
    reported: Option<Instant>,
    unreported: u64,
}

// === impl Output ===

impl Output {
    /// Opens `target`; a file is made if there is none.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn open(target: &Target) -> io::Result<Self> {
        // The descriptors are duplicated, so that nothing is buffered twice and dropping the output never closes the original.
        let file = match target {
            Target::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            Target::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            Target::File(path) => {
                // Opening a FIFO for writing alone waits for its reader, for both (Linux) it does not.
                let fifo = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo());
                OpenOptions::new().append(true).read(fifo).create(true).mode(FILE_MODE).open(path)?
            }
        };
        Ok(Self { target: target.clone(), write: Box::new(file) })
    }

    /// `write` in place of `target`.
    #[cfg(test)]
    pub(super) fn of(target: Target, write: Box<dyn Write + Send>) -> Self {
        Self { target, write }
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("target", &self.target).finish_non_exhaustive()
    }
}

// === impl Sink ===

impl Sink {
    /// Starts the thread `name`. At most `queue_max` blocks wait for it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start(
        name: &str,
        queue_max: usize,
        output: Option<Output>,
        reporter: Option<Reporter>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, queue) = sync_channel(queue_max);
        let (ended, done) = sync_channel::<()>(1);
        let mut writer = Writer {
            queue,
            queue_max,
            shared: Arc::clone(&shared),
            output,
            torn: false,
            reporter,
            reported: None,
            unreported: 0,
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            writer.run();
            // In this order: once closing has returned, nothing is taken into a queue that nobody reads.
            drop(writer);
            drop(ended);
        })?;
        Ok(Self { queue: sender, shared, done: Mutex::new(done) })
    }

    /// Hands over `block` without waiting.
    ///
    /// # Errors
    /// The block, if the queue is full or the thread has ended.
    pub(super) fn offer(&self, block: Block) -> Result<(), Block> {
        self.queue.try_send(Message::Block(block)).map_err(|refused| match refused {
            TrySendError::Full(Message::Block(block)) | TrySendError::Disconnected(Message::Block(block)) => block,
            TrySendError::Full(Message::Wake) | TrySendError::Disconnected(Message::Wake) => {
                Block { bytes: Vec::new(), lines: 0, home: None }
            }
        })
    }

    /// Counts lines that a caller could not hand over and does not count itself.
    pub(super) fn lost(&self, lines: u64) {
        self.shared.lines_lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// Writes to `output` from the next block on.
    pub(super) fn switch(&self, output: Output) {
        *self.shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(output);
        self.wake();
    }

    /// Opens the target anew before the next block, so that a renamed file is let go. If that fails the old one stays.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends the thread after it has written what is queued. Whether it has, within `timeout`.
    pub(super) fn close(&self, timeout: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        self.wake();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(done.recv_timeout(timeout), Err(std::sync::mpsc::RecvTimeoutError::Disconnected))
    }

    /// What went wrong so far.
    pub(super) fn stats(&self) -> SinkStats {
        SinkStats {
            lines_lost: self.shared.lines_lost.load(Ordering::Relaxed),
            write_errors: self.shared.write_errors.load(Ordering::Relaxed),
        }
    }

    /// A full queue needs no waking: the flags are looked at before every block.
    fn wake(&self) {
        let _full_or_ended = self.queue.try_send(Message::Wake);
    }
}

// === impl Writer ===

impl Writer {
    fn run(&mut self) {
        while let Ok(message) = self.queue.recv() {
            self.take(message);
            if self.shared.closing.load(Ordering::Acquire) {
                break;
            }
        }
        // What was queued when closing began, and no more, so that a busy sender cannot keep it from ending.
        for _ in 0..self.queue_max {
            let Ok(message) = self.queue.try_recv() else { break };
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        self.obey();
        let Message::Block(mut block) = message else { return };
        if let Err(error) = self.write(&block.bytes) {
            self.shared.lines_lost.fetch_add(u64::from(block.lines), Ordering::Relaxed);
            self.failed(&error);
        }
        if let Some(home) = block.home.take() {
            block.bytes.clear();
            let _full_or_gone = home.try_send(block.bytes);
        }
    }

    /// Does what the flags ask for.
    fn obey(&mut self) {
        if let Some(next) = self.shared.next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.output = Some(next);
            self.torn = false;
        }
        if !self.shared.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(output) = &mut self.output else { return };
        match Output::open(&output.target) {
            Ok(fresh) => {
                *output = fresh;
                self.torn = false;
            }
            Err(error) => self.failed(&error),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Err(io::Error::other("no output is open")) };
        if self.torn {
            output.write.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match output.write.write(rest) {
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            let sent = &bytes[..bytes.len() - rest.len()];
            rest = &rest[written.inspect_err(|_| self.torn = sent.last().is_some_and(|&last| last != b'\n'))?..];
        }
        output.write.flush()
    }

    fn failed(&mut self, error: &io::Error) {
        self.shared.write_errors.fetch_add(1, Ordering::Relaxed);
        self.unreported += 1;
        let Some(reporter) = &self.reporter else { return };
        let now = (reporter.clock)();
        if self.reported.is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL) {
            return;
        }
        let target = self.output.as_ref().map_or_else(String::new, |output| output.target.to_string());
        tracing::warn!(target: "tidegate::telemetry", %target, %error, failures = self.unreported, "cannot write the {}", reporter.what);
        self.reported = Some(now);
        self.unreported = 0;
    }
}

// === impl Target ===

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Stderr => f.write_str("standard error"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests;
