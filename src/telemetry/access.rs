//! The access log: a line per request, written by one thread. A worker formats into a buffer of its own and never waits.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::core::assign::{Assignment, bucket_of};
use crate::core::endpoint::Address;
use crate::core::id::Variant;
use crate::core::weight::Weight;

use super::Format;
use super::sink::{Block, CLOSE_TIMEOUT, Output, Reporter, Sink, SinkStats, Target};
use super::termination::Termination;

mod digits;
mod format;

pub use format::TEXT_MAX;

/// A worker's buffer is handed over when it holds this many bytes, or at a tick.
pub const BLOCK_BYTES: usize = 16 * 1024;
/// Most buffers that wait for the writer, all workers together; what comes beyond is dropped.
pub const QUEUE_BLOCKS_MAX: usize = 64;
/// Most emptied buffers that wait to be used again, per worker.
const SPARE_BLOCKS_MAX: usize = 4;
/// A buffer that grew beyond this many bytes is given back to the allocator instead.
const SPARE_BYTES_MAX: usize = 64 * 1024;
/// Room for the line that fills a block.
const LINE_BYTES: usize = 1024;

/// `[log.access]`: what is logged, how and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether anything is.
    pub enabled: bool,
    /// Share of the requests that is logged.
    pub sample: Weight,
    /// How lines look.
    pub format: Format,
    /// Where they go.
    pub target: Target,
}

/// An attempt that did not bring the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed<'a> {
    /// In which pool.
    pub variant: Variant,
    /// Where.
    pub endpoint: &'a Address,
    /// How.
    pub how: How,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a word.
    Word(&'static str),
    /// By the status of its response.
    Status(u16),
}

/// One request, borrowed from whoever served it. Empty texts and `None` are shown as absent.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it ended, since 1970.
    pub time: Duration,
    /// `X-Request-Id`, the client's or ours.
    pub request_id: &'a [u8],
    /// Name of the listener.
    pub listener: &'a str,
    /// Whether the client spoke TLS.
    pub tls: bool,
    /// The client, as trusted proxies report it; `None` on unix sockets.
    pub client: Option<IpAddr>,
    /// The method as received.
    pub method: &'a [u8],
    /// The host as matched.
    pub host: &'a [u8],
    /// The path as received. A query is cut off.
    pub path: &'a [u8],
    /// `HTTP/1.1`
    pub protocol: &'a str,
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// Why it ended.
    pub termination: Termination,
    /// Label of the route.
    pub route: &'a str,
    /// Name of the service.
    pub service: &'a str,
    /// Version that answered.
    pub version: &'a str,
    /// Variant that answered.
    pub variant: Option<Variant>,
    /// How the variant was chosen.
    pub assignment: Option<Assignment>,
    /// Endpoint of the last attempt.
    pub endpoint: Option<&'a Address>,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts that repeated a failed one.
    pub retries: u32,
    /// Attempts that failed, or whose response was dropped, oldest first.
    pub failed: &'a [Failed<'a>],
    /// Whether the last attempt used a connection that was already open.
    pub reused: bool,
    /// Bytes of the request body received, without framing.
    pub request_bytes: u64,
    /// Bytes of the response body sent, without framing.
    pub response_bytes: u64,
    /// From the first byte of the request to the last byte of the response.
    pub duration: Duration,
    /// Time spent opening the connection of the last attempt.
    pub connect: Option<Duration>,
    /// From the request fully written to the response head, last attempt.
    pub upstream_head: Option<Duration>,
}

/// The access log of the process: owns the writer thread, hands out an [`AccessLog`] per worker.
pub struct AccessWriter {
    sink: Arc<Sink>,
    settings: Arc<ArcSwap<Settings>>,
    /// What the writer was told to write to last.
    opened: Mutex<Option<Target>>,
}

/// Settings whose target could be opened: committing them cannot fail.
#[derive(Debug)]
pub struct Prepared {
    settings: Settings,
    output: Option<Output>,
}

/// The access log of one worker.
pub struct AccessLog {
    sink: Arc<Sink>,
    settings: arc_swap::Cache<Arc<ArcSwap<Settings>>, Arc<Settings>>,
    buffer: Vec<u8>,
    lines: u32,
    home: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

// === impl AccessWriter ===

impl AccessWriter {
    /// Opens the target if the log is enabled, and starts the writer. `clock` is read when a write fails, nowhere else.
    ///
    /// # Errors
    /// A sentence with the key, the target and the reason.
    pub fn start(settings: Settings, clock: fn() -> Instant) -> Result<Self, String> {
        let open = |target| open(target).map_err(|why| format!("log.access.path: {why}"));
        let output = if settings.enabled { Some(open(&settings.target)?) } else { None };
        Self::with_output(settings, output, clock).map_err(|error| format!("log.access: no writer thread: {error}"))
    }

    fn with_output(settings: Settings, output: Option<Output>, clock: fn() -> Instant) -> io::Result<Self> {
        let opened = output.is_some().then(|| settings.target.clone());
        let reporter = Reporter { what: "access log", clock };
        let sink = Sink::start("access-log", QUEUE_BLOCKS_MAX, output, Some(reporter))?;
        Ok(Self {
            sink: Arc::new(sink),
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            opened: Mutex::new(opened),
        })
    }

    /// A log for one worker.
    #[must_use]
    pub fn worker(&self) -> AccessLog {
        let (home, spare) = sync_channel(SPARE_BLOCKS_MAX);
        AccessLog {
            sink: Arc::clone(&self.sink),
            settings: arc_swap::Cache::new(Arc::clone(&self.settings)),
            buffer: Vec::new(),
            lines: 0,
            home,
            spare,
        }
    }

    /// First half of a reload: opens the target of `settings` if it is another one. Nothing changes yet.
    ///
    /// # Errors
    /// A sentence with the target and the reason.
    pub fn prepare(&self, settings: Settings) -> Result<Prepared, String> {
        let same = self.opened.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&settings.target);
        let output = if settings.enabled && !same { Some(open(&settings.target)?) } else { None };
        Ok(Prepared { settings, output })
    }

    /// Second half of a reload. Lines queued at that moment go to the new target. A log that is switched off keeps its target open.
    pub fn commit(&self, prepared: Prepared) {
        if let Some(output) = prepared.output {
            *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(prepared.settings.target.clone());
            self.sink.switch(output);
        }
        self.settings.store(Arc::new(prepared.settings));
    }

    /// Lets a renamed file go and opens its name anew (SIGHUP, logrotate). If that fails, the old file stays and an error is counted.
    pub fn reopen(&self) {
        self.sink.reopen();
    }

    /// Writes what is queued and ends the writer; to be called after the workers have ended. Whether all was written within 2 s.
    pub fn close(&self) -> bool {
        self.sink.close(CLOSE_TIMEOUT)
    }

    /// What the writer lost: lines dropped by a full queue are not in here but returned to the worker.
    #[must_use]
    pub fn stats(&self) -> SinkStats {
        self.sink.stats()
    }
}

/// Time since 1970 as `2026-01-02T03:04:05.678Z` (RFC 3339), as the access log has it.
#[must_use]
pub fn timestamp(unix: Duration) -> String {
    let mut text = Vec::with_capacity(24);
    digits::timestamp(&mut text, unix);
    String::from_utf8_lossy(&text).into_owned()
}

fn open(target: &Target) -> Result<Output, String> {
    Output::open(target).map_err(|error| {
        format!("cannot append to {target}: {error}; allowed is \"-\" or a file this process may write")
    })
}

// === impl AccessLog ===

impl AccessLog {
    /// Whether a request is logged, by 64 uniform bits. A disabled log costs this call and its branch.
    pub fn wants(&mut self, random: u64) -> bool {
        let settings = self.settings.load();
        settings.enabled && settings.sample.holds(bucket_of(random))
    }

    /// Logs `record`, which [`Self::wants`] wanted. Returns the number of lines that had to be dropped, usually 0.
    pub fn write(&mut self, record: &Record<'_>) -> u64 {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(BLOCK_BYTES + LINE_BYTES);
        }
        match self.settings.load().format {
            Format::Json => format::json(&mut self.buffer, record),
            Format::Text => format::text(&mut self.buffer, record),
        }
        self.lines += 1;
        if self.buffer.len() >= BLOCK_BYTES { self.flush() } else { 0 }
    }

    /// Hands over what is buffered; called at every tick of the worker. Returns the number of lines that had to be dropped.
    pub fn flush(&mut self) -> u64 {
        if self.lines == 0 {
            return 0;
        }
        let spare = self.spare.try_recv().ok().filter(|spare| spare.capacity() <= SPARE_BYTES_MAX);
        let block = Block {
            bytes: std::mem::replace(&mut self.buffer, spare.unwrap_or_default()),
            lines: std::mem::take(&mut self.lines),
            home: Some(self.home.clone()),
        };
        let Err(mut refused) = self.sink.offer(block) else { return 0 };
        refused.bytes.clear();
        let _full = self.home.try_send(refused.bytes);
        u64::from(refused.lines)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let dropped = self.flush();
        self.sink.lost(dropped);
    }
}

// === Debug ===

impl std::fmt::Debug for AccessWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessWriter").field("settings", &self.settings.load()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("lines", &self.lines).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
