//! Watches files by what is in them: whoever changes them and however (in place, renamed over, a link swapped), a change is told once the
//! writer has paused. A thread of its own; it blocks nobody, and no file can stop it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::clock;

use self::places::Places;

mod places;

/// Bytes of a file that count, 64 MiB: far more than any file that is watched, far less than would hurt to read every half minute.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a change waits for room in the queue it is told through before it is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// How often watches are set again at once because links moved while they were set; the poll comes anyway.
const ARM_MAX: usize = 3;

/// How fast changes are told.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long nothing may happen before files are looked at.
    pub quiet: Duration,
    /// When they are looked at although something happens all the time.
    pub quiet_max: Duration,
    /// How often they are looked at although nothing seems to happen: file systems without events, watches that cannot be had.
    pub poll: Duration,
}

/// A file to watch.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Relative to the working directory if not absolute.
    pub path: PathBuf,
    /// What was read from it last, so that nothing that happens between reading and watching is missed. `None`: what is in it when it is
    /// given.
    pub read: Option<Digest>,
}

/// A file's contents, for comparing (SHA-256).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Files have other contents than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which, as they were given; sorted, never empty.
    pub paths: Vec<PathBuf>,
}

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct FileWatch {
    shared: Arc<Shared>,
}

/// What the thread, its owner and the source of events share.
#[derive(Debug)]
struct Shared {
    /// Full is as good as sent: the thread is awake anyway.
    wake: SyncSender<()>,
    stop: AtomicBool,
    /// An event came that may mean a change.
    touched: AtomicBool,
    /// The next set of files; only the newest counts.
    wanted: Mutex<Option<Vec<Wanted>>>,
    /// Which events may mean a change.
    places: Mutex<Places>,
}

/// A file of the next set.
#[derive(Debug)]
struct Wanted {
    path: PathBuf,
    /// As it was given.
    read: Option<Digest>,
    /// What was in it then, for one that was not watched before.
    found: Option<Digest>,
}

/// A source of events that are about files.
type Backend = Box<dyn FnMut(Arc<Shared>) -> notify::Result<Box<dyn Watcher + Send>> + Send>;

/// The thread.
struct Watching {
    shared: Arc<Shared>,
    timing: Timing,
    on_change: Sender<Changed>,
    files: Vec<Known>,
    events: Events,
    debounce: Debounce,
    /// Found, not told yet.
    pending: BTreeSet<PathBuf>,
}

/// One file.
struct Known {
    path: PathBuf,
    /// What was told or read last; `None`: nothing yet.
    digest: Option<Digest>,
    /// Cannot be read, and that was said.
    unreadable: bool,
}

/// The watches on directories.
struct Events {
    open: Backend,
    watcher: Option<Box<dyn Watcher + Send>>,
    /// By path, with the device and inode they were at.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Not all of it works, and that was said.
    degraded: bool,
}

/// Trailing edge with an end: due when nothing happened for `quiet`, and at the latest `quiet_max` after the first.
#[derive(Debug, Default)]
struct Debounce {
    /// When the first and the last thing happened since it was due.
    happened: Option<(Instant, Instant)>,
}

// === impl Timing ===

impl Default for Timing {
    fn default() -> Self {
        Self { quiet: Duration::from_millis(200), quiet_max: Duration::from_secs(2), poll: Duration::from_secs(30) }
    }
}

// === impl Watched ===

impl From<PathBuf> for Watched {
    fn from(path: PathBuf) -> Self {
        Self { path, read: None }
    }
}

// === impl Digest ===

impl Digest {
    /// Of a whole file.
    #[must_use]
    pub fn of(contents: &[u8]) -> Self {
        let end = usize::try_from(FILE_BYTES_MAX).map_or(contents.len(), |max| max.min(contents.len()));
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &contents[..end]).as_ref());
        Self(digest)
    }

    /// Of what is in the file at `path`, at most [`FILE_BYTES_MAX`] of it.
    ///
    /// # Errors
    /// It cannot be read, or is not a regular file.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        // Opening a pipe would wait for somebody to write.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut contents = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut contents)?;
        Ok(Self::of(&contents))
    }
}

// === impl FileWatch ===

impl FileWatch {
    /// Watches `files` (`PathBuf` or [`Watched`]) and tells changes through `on_change` until it is dropped or nobody receives. While the
    /// queue is full changes gather and are told together later. A file that vanishes or cannot be read is no change, only a warning in the
    /// log: it is compared again when it is back.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start<F: Into<Watched>>(files: Vec<F>, timing: Timing, on_change: Sender<Changed>) -> io::Result<Self> {
        Self::start_with(Box::new(native), files, timing, on_change)
    }

    /// Watches `files` instead of those before. Of one that stays nothing is forgotten. Reads those that come without a digest.
    pub fn watch<F: Into<Watched>>(&self, files: Vec<F>) {
        let found = |file: &Watched| if file.read.is_none() { Digest::of_file(&file.path).ok() } else { None };
        let files = files.into_iter().map(Into::into);
        let files = files.map(|file| Wanted { found: found(&file), path: file.path, read: file.read }).collect();
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
        self.shared.wake();
    }

    fn start_with<F: Into<Watched>>(
        open: Backend,
        files: Vec<F>,
        timing: Timing,
        on_change: Sender<Changed>,
    ) -> io::Result<Self> {
        let (wake, wakes) = sync_channel(1);
        let shared = Arc::new(Shared {
            wake,
            stop: AtomicBool::new(false),
            touched: AtomicBool::new(false),
            wanted: Mutex::new(None),
            places: Mutex::default(),
        });
        let watching = Watching {
            shared: Arc::clone(&shared),
            timing,
            on_change,
            files: Vec::new(),
            events: Events { open, watcher: None, watched: BTreeMap::new(), degraded: false },
            debounce: Debounce::default(),
            pending: BTreeSet::new(),
        };
        let watch = Self { shared };
        watch.watch(files);
        std::thread::Builder::new().name("file-watch".to_owned()).spawn(move || watching.run(&wakes))?;
        Ok(watch)
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        // Not joined: it may be reading from a file system that does not answer.
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
    }
}

/// The source of events of this system.
fn native(shared: Arc<Shared>) -> notify::Result<Box<dyn Watcher + Send>> {
    let handler = move |event: notify::Result<notify::Event>| shared.event(event);
    Ok(Box::new(notify::recommended_watcher(handler)?))
}

// === impl Shared ===

impl Shared {
    fn wake(&self) {
        let _ = self.wake.try_send(());
    }

    /// Runs on the thread of the source of events.
    fn event(&self, event: notify::Result<notify::Event>) {
        let relevant = match event {
            // Reading is no change, and the watch reads itself.
            Ok(event) if is_reading(event.kind) => false,
            Ok(event) => {
                event.paths.is_empty() || event.need_rescan() || {
                    let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
                    event.paths.iter().any(|path| places.entries.contains(path))
                }
            }
            Err(error) => {
                tracing::debug!(%error, "events about files may be missing");
                true
            }
        };
        if relevant {
            self.touched.store(true, Ordering::Release);
            self.wake();
        }
    }
}

fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

// === impl Watching ===

impl Watching {
    fn run(mut self, wakes: &Receiver<()>) {
        let mut next_poll = clock::now() + self.timing.poll;
        loop {
            let due = self.debounce.due(&self.timing).map_or(next_poll, |due| due.min(next_poll));
            match wakes.recv_timeout(due.saturating_duration_since(clock::now())) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return;
            }
            let wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(wanted) = wanted {
                self.take_over(wanted);
            }
            let now = clock::now();
            if self.shared.touched.swap(false, Ordering::AcqRel) {
                self.debounce.touch(now);
            }
            if now >= next_poll {
                next_poll = now + self.timing.poll;
                self.arm();
                // Seen now, told when the writer has paused, as with an event.
                if self.files.iter_mut().any(|file| file.look().is_some()) {
                    self.debounce.touch(now);
                }
            }
            if self.debounce.take_due(now, &self.timing) && self.tell(now).is_err() {
                return;
            }
        }
    }

    /// Goes over to another set of files.
    fn take_over(&mut self, wanted: Vec<Wanted>) {
        let before: BTreeMap<_, _> =
            self.files.drain(..).map(|file| (file.path, (file.digest, file.unreadable))).collect();
        for Wanted { path, read, found } in wanted {
            let (known, unreadable) = before.get(&path).copied().unwrap_or((found, false));
            self.files.push(Known { path, digest: read.or(known), unreadable });
        }
        self.pending.retain(|path| self.files.iter().any(|file| file.path == *path));
        // What happened since a file was read is found by looking once.
        self.debounce.touch(clock::now());
        self.arm();
    }

    /// Looks at all files and tells what is new. An error: nobody receives any more.
    fn tell(&mut self, now: Instant) -> Result<(), ()> {
        // First the watches, then the files: what changes after they were read is an event again.
        self.arm();
        for file in &mut self.files {
            if let Some(digest) = file.look() {
                file.digest = Some(digest);
                self.pending.insert(file.path.clone());
            }
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.on_change.try_send(Changed { paths: self.pending.iter().cloned().collect() }) {
            Ok(()) => self.pending.clear(),
            Err(TrySendError::Full(_)) => self.debounce.touch(now + RETRY),
            Err(TrySendError::Closed(_)) => return Err(()),
        }
        Ok(())
    }

    /// Watches where the files can change from, and once more if that moved meanwhile.
    fn arm(&mut self) {
        for _ in 0..ARM_MAX {
            let places = Places::of(self.files.iter().map(|file| file.path.as_path()));
            let directories = places.directories.clone();
            let same = {
                let mut before = self.shared.places.lock().unwrap_or_else(PoisonError::into_inner);
                let same = *before == places;
                *before = places;
                same
            };
            self.events.watch(&directories, &self.shared);
            if same {
                return;
            }
        }
    }
}

// === impl Known ===

impl Known {
    /// What is in the file if it is not what is known. One that cannot be read has not changed.
    fn look(&mut self) -> Option<Digest> {
        match Digest::of_file(&self.path) {
            Ok(digest) => {
                self.unreadable = false;
                (self.digest != Some(digest)).then_some(digest)
            }
            Err(error) => {
                if !self.unreadable {
                    tracing::warn!(path = %self.path.display(), %error, "a watched file cannot be read; what was read before stays");
                }
                self.unreadable = true;
                None
            }
        }
    }
}

// === impl Events ===

impl Events {
    /// Watches exactly `directories`, as far as that is possible.
    fn watch(&mut self, directories: &BTreeMap<PathBuf, bool>, shared: &Arc<Shared>) {
        if self.watcher.is_none() {
            match (self.open)(Arc::clone(shared)) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => return self.degrade(&error, None),
            }
        }
        let gone: Vec<_> = self.watched.keys().filter(|path| !directories.contains_key(*path)).cloned().collect();
        for path in gone {
            self.unwatch(&path);
        }
        let mut failed = false;
        for (path, needed) in directories {
            if let Err(error) = self.watch_one(path) {
                self.unwatch(path);
                // One that is gone by now has an event about that, and is looked for again.
                if *needed && !matches!(error.kind, notify::ErrorKind::PathNotFound) {
                    failed = true;
                    self.degrade(&error, Some(path));
                }
            }
        }
        if self.degraded && !failed {
            self.degraded = false;
            tracing::info!("files are watched by events again");
        }
    }

    /// Watches a directory, also if it is watched already: it may be another one by the same name, or the same that came back.
    fn watch_one(&mut self, path: &Path) -> notify::Result<()> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => notify::Error::path_not_found(),
            _ => notify::Error::io(error),
        })?;
        let identity = (metadata.dev(), metadata.ino());
        if self.watched.get(path).is_some_and(|watched| *watched != identity) {
            self.unwatch(path);
        }
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        watcher.watch(path, RecursiveMode::NonRecursive)?;
        self.watched.insert(path.to_owned(), identity);
        Ok(())
    }

    fn unwatch(&mut self, path: &Path) {
        if self.watched.remove(path).is_some()
            && let Some(watcher) = &mut self.watcher
        {
            // It fails for a directory that is gone, whose watch went with it.
            let _ = watcher.unwatch(path);
        }
    }

    fn degrade(&mut self, error: &notify::Error, path: Option<&Path>) {
        if !self.degraded {
            let path = path.map(|path| path.display().to_string());
            tracing::warn!(%error, path, "files cannot be watched by events; they are looked at now and then");
        }
        self.degraded = true;
    }
}

// === impl Debounce ===

impl Debounce {
    fn touch(&mut self, now: Instant) {
        let (first, last) = self.happened.unwrap_or((now, now));
        self.happened = Some((first, last.max(now)));
    }

    fn due(&self, timing: &Timing) -> Option<Instant> {
        self.happened.map(|(first, last)| (last + timing.quiet).min(first + timing.quiet_max))
    }

    /// Whether it is due; then it begins anew.
    fn take_due(&mut self, now: Instant, timing: &Timing) -> bool {
        let due = self.due(timing).is_some_and(|due| now >= due);
        if due {
            self.happened = None;
        }
        due
    }
}

#[cfg(test)]
mod tests;
