//! What outlives the process: one redb file in the state directory, and a lock beside it.
//!
//! A change of records and the audit entries about it are one transaction: both are there after a crash, or neither. Every record
//! carries a version, the file a format; what a newer version wrote is refused, what is no store is never overwritten. Calls block
//! for as long as the disk does: they belong on a thread of their own.

pub mod audit;
mod error;
pub mod keep;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, TableError,
};

use self::audit::{Broken, Draft, Entry, NOTHING_BEFORE, Verified};
pub use self::error::StoreError;

/// The format this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// Most audit entries kept; the oldest go first.
pub const AUDIT_MAX: u64 = 100_000;
/// Most audit entries given out at once...
pub const AUDIT_PAGE_MAX: usize = 1_000;
/// ...unless they are larger than this together, in bytes; one of them is given out all the same.
pub const AUDIT_PAGE_BYTES_MAX: usize = 512 * 1_024;
/// Memory for pages of the file, in bytes: a record per service, and the end of the audit.
const CACHE_BYTES: usize = 1 << 20;

const FILE: &str = "tidegate.redb";
const NEW: &str = "tidegate.redb.new";
const LOCK: &str = "lock";

type Records = TableDefinition<'static, &'static str, &'static [u8]>;
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
const AUDIT: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("audit");
const FORMAT_KEY: &str = "format";

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// What runs, by service.
    Services,
    /// Rollouts, by id.
    Rollouts,
    /// The evidence for and against the rollout that runs, by service.
    Evidence,
    /// Answers already given, by idempotency key.
    Idempotency,
    /// Notifications still to be sent.
    Outbox,
    /// What belongs to the process as a whole: digests of the file, keys.
    Process,
    /// What is remembered of services that left the file, by service.
    Memories,
}

/// A record: its bytes, and the version of what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Chosen by whoever wrote it; a reader refuses what it does not know.
    pub version: u16,
    /// The contents.
    pub bytes: Vec<u8>,
}

/// What one transaction does.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Records to write.
    pub put: Vec<(Table, String, Record)>,
    /// Records to remove; those that are not there are no error.
    pub remove: Vec<(Table, String)>,
    /// Ranges of keys to remove, after everything else.
    pub cut: Vec<(Table, Range<String>)>,
    /// What the audit says about it, in order.
    pub audit: Vec<Draft>,
}

/// Opens the file; tests put a failing disk in here.
type Opener = Box<dyn Fn(&Path, How) -> Result<Database, DatabaseError> + Send + Sync>;

/// How the file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Makes an empty store of an empty file.
    Begin,
    /// There is a store. If not, somebody took it away: an empty one in its place would be a store that has forgotten everything.
    Existing,
}

/// The store. Locked against other processes until it is dropped.
pub struct Store {
    path: PathBuf,
    /// `None` after a failure of the disk, until it can be opened again.
    database: RwLock<Option<Database>>,
    open: Opener,
    fresh: bool,
    _lock: Lock,
}

/// The lock of a directory, let go when dropped.
struct Lock(File);

// === impl Store ===

impl Store {
    /// Opens the store in `dir`, or begins one. The directory is made if it is missing (mode 0700).
    ///
    /// # Errors
    /// In use by another process, unreadable, newer, or the system said no. Nothing was changed then.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let open = |path: &Path, how: How| {
            let mut builder = redb::Builder::new();
            let builder = builder.set_cache_size(CACHE_BYTES);
            match how {
                How::Begin => builder.create(path),
                How::Existing => builder.open(path),
            }
        };
        Self::open_with(dir, Box::new(open))
    }

    /// Opens the store in `dir` to look at what is there; begins none.
    ///
    /// # Errors
    /// As [`Self::open`], or there is none.
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        match is_missing(&path) {
            Ok(false) => Self::open(dir),
            Ok(true) => Err(StoreError::Io { path, source: io::ErrorKind::NotFound.into() }),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    fn open_with(dir: &Path, open: Opener) -> Result<Self, StoreError> {
        let at = |source| StoreError::Io { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        let fresh = is_missing(&path).map_err(at)?;
        if fresh {
            begin(dir, &path, &open)?;
        }
        let database = open(&path, How::Existing).map_err(|error| refusal(&path, error.into()))?;
        let store = Self { path, database: RwLock::new(Some(database)), open, fresh, _lock: lock };
        store.check_format()?;
        Ok(store)
    }

    /// Whether there was none before: nothing is known of what ran.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Makes `change` durable, all of it or nothing. Returns the number of the newest audit entry.
    ///
    /// # Errors
    /// The disk failed or is full; the call can be repeated. Either the store is as it was, or, if a sync failed, as it was to be.
    pub fn commit(&self, change: &Change) -> Result<u64, StoreError> {
        self.attempt(|database| {
            let transaction = database.begin_write()?;
            for (table, key, record) in &change.put {
                let mut bytes = record.version.to_be_bytes().to_vec();
                bytes.extend_from_slice(&record.bytes);
                transaction.open_table(table.definition())?.insert(key.as_str(), bytes.as_slice())?;
            }
            for (table, key) in &change.remove {
                transaction.open_table(table.definition())?.remove(key.as_str())?;
            }
            for (table, keys) in &change.cut {
                let range = keys.start.as_str()..keys.end.as_str();
                transaction.open_table(table.definition())?.retain_in(range, |_, _| false)?;
            }
            let last = append(&mut transaction.open_table(AUDIT)?, &change.audit)?;
            transaction.commit()?;
            Ok(last)
        })
    }

    /// The record of `table` called `key`.
    ///
    /// # Errors
    /// The disk failed, or the record is damaged.
    pub fn get(&self, table: Table, key: &str) -> Result<Option<Record>, StoreError> {
        self.attempt(|database| {
            let Some(records) = existing(database.begin_read()?.open_table(table.definition()))? else {
                return Ok(None);
            };
            records.get(key)?.map(|bytes| record(bytes.value())).transpose()
        })
    }

    /// All records of `table`, in order of their keys.
    ///
    /// # Errors
    /// The disk failed, or a record is damaged.
    pub fn all(&self, table: Table) -> Result<Vec<(String, Record)>, StoreError> {
        self.attempt(|database| {
            let Some(records) = existing(database.begin_read()?.open_table(table.definition()))? else {
                return Ok(Vec::new());
            };
            let read = records.iter()?.map(|entry| {
                let (key, bytes) = entry?;
                Ok((key.value().to_owned(), record(bytes.value())?))
            });
            read.collect()
        })
    }

    /// Audit entries after `seq` as stored, oldest first: at most `count`, [`AUDIT_PAGE_MAX`] and [`AUDIT_PAGE_BYTES_MAX`]. They are copied,
    /// so that nobody who reads slowly keeps the file from giving room back.
    ///
    /// # Errors
    /// The disk failed.
    pub fn audit(&self, seq: u64, count: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.attempt(|database| {
            let Some(entries) = existing(database.begin_read()?.open_table(AUDIT))? else { return Ok(Vec::new()) };
            let (mut page, mut bytes) = (Vec::new(), 0);
            for entry in entries.range(seq.saturating_add(1)..)?.take(count.min(AUDIT_PAGE_MAX)) {
                let (seq, stored) = entry?;
                bytes += stored.value().len();
                if bytes > AUDIT_PAGE_BYTES_MAX && !page.is_empty() {
                    break;
                }
                page.push((seq.value(), stored.value().to_vec()));
            }
            Ok(page)
        })
    }

    /// Follows the chain of digests through the whole register.
    ///
    /// # Errors
    /// The disk failed; what is wrong with the chain is the inner result.
    pub fn verify_audit(&self) -> Result<Result<Verified, Broken>, StoreError> {
        self.attempt(|database| {
            let nothing = || Verified { first: 0, last: 0, head: NOTHING_BEFORE.to_owned() };
            let Some(entries) = existing(database.begin_read()?.open_table(AUDIT))? else { return Ok(Ok(nothing())) };
            let (mut first, mut last) = (0, None);
            for entry in entries.iter()? {
                let (seq, bytes) = entry?;
                let one = std::iter::once((seq.value(), bytes.value()));
                let after = last.as_ref().map(|(seq, digest): &(u64, String)| (*seq, digest.as_str()));
                last = match audit::verify(one, after) {
                    Ok(last) => last,
                    Err(broken) => return Ok(Err(broken)),
                };
                first = if first == 0 { seq.value() } else { first };
            }
            Ok(Ok(last.map_or_else(nothing, |(last, head)| Verified { first, last, head })))
        })
    }

    fn check_format(&self) -> Result<(), StoreError> {
        // A start needs no room on the disk: whatever is there already is only read.
        let found = self.attempt(|database| {
            let Some(meta) = existing(database.begin_read()?.open_table(META))? else { return Ok(None) };
            Ok(meta.get(FORMAT_KEY)?.map(|format| format.value()))
        })?;
        match found.map(|found| u32::try_from(found).unwrap_or(u32::MAX)) {
            Some(found) if found > FORMAT => Err(StoreError::Newer { path: self.path.clone(), found, known: FORMAT }),
            Some(_) => Ok(()),
            None => self.attempt(write_format),
        }
    }

    /// Runs `work`; after a failure of the disk the file is opened anew first, since redb refuses everything until then.
    fn attempt<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let attempted = match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            // What the engine takes for impossible it panics about; it is not used any more then.
            Some(database) => catch_unwind(AssertUnwindSafe(|| work(database))),
            None => Ok(Err(redb::Error::PreviousIo)),
        };
        match attempted {
            Ok(Err(redb::Error::PreviousIo | redb::Error::DatabaseClosed)) => self.reopen(work),
            Ok(other) => other.map_err(|error| refusal(&self.path, error)),
            Err(_) => Err(self.put_away()),
        }
    }

    /// Lets go of a database that panicked; it is opened anew when it is needed.
    fn put_away(&self) -> StoreError {
        let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
        // It may do so once more.
        _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        let source = io::Error::other("the engine of the store failed unexpectedly; this is a defect, see the log");
        StoreError::Io { path: self.path.clone(), source }
    }

    fn reopen<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: it holds the lock of the file.
        *database = None;
        let opened = (self.open)(&self.path, How::Existing).map_err(|error| refusal(&self.path, error.into()))?;
        work(database.insert(opened)).map_err(|error| refusal(&self.path, error))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

// === impl Lock ===

impl Drop for Lock {
    // Closing alone does not end it while a child that was just forked still has the descriptor.
    fn drop(&mut self) {
        _ = self.0.unlock();
    }
}

// === impl Table ===

impl Table {
    fn definition(self) -> Records {
        TableDefinition::new(match self {
            Self::Services => "services",
            Self::Rollouts => "rollouts",
            Self::Evidence => "evidence",
            Self::Idempotency => "idempotency",
            Self::Outbox => "outbox",
            Self::Process => "process",
            Self::Memories => "memories",
        })
    }
}

/// Takes the lock of `dir` and leaves our process number in it.
fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = dir.join(LOCK);
    let at = |source| StoreError::Io { path: path.clone(), source };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(at)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let by = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(StoreError::Locked { dir: dir.to_owned(), by });
        }
        Err(TryLockError::Error(source)) => return Err(at(source)),
    }
    // Only for people: a full disk has no room for it, and the lock holds without.
    _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock(file))
}

/// Makes an empty store. It gets its name when it is whole, so that a crash leaves none rather than half of one.
fn begin(dir: &Path, path: &Path, open: &Opener) -> Result<(), StoreError> {
    let new = dir.join(NEW);
    let at = |source| StoreError::Io { path: new.clone(), source };
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(at)?;
    let database = open(&new, How::Begin).map_err(|error| refusal(&new, error.into()))?;
    write_format(&database).map_err(|error| refusal(&new, error))?;
    database.close().map_err(|error| refusal(&new, error.into()))?;
    fs::rename(&new, path).and_then(|()| File::open(dir)?.sync_all()).map_err(at)
}

fn write_format(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(FORMAT_KEY, u64::from(FORMAT))?;
    Ok(transaction.commit()?)
}

/// Whether nothing, or nothing yet, was written there.
fn is_missing(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Appends what `drafts` say behind the last entry, and lets the oldest go; the number of the newest.
fn append(entries: &mut redb::Table<'_, u64, &'static [u8]>, drafts: &[Draft]) -> Result<u64, redb::Error> {
    let newest = entries.last()?.map(|(seq, bytes)| (seq.value(), audit::digest_of(bytes.value())));
    let (mut seq, mut previous) = newest.unwrap_or_else(|| (0, NOTHING_BEFORE.to_owned()));
    for draft in drafts {
        seq += 1;
        let entry = Entry { seq, previous, what: draft.clone() };
        let bytes = serde_json::to_vec(&entry).map_err(|error| damaged(&error))?;
        previous = audit::digest_of(&bytes);
        entries.insert(seq, bytes.as_slice())?;
    }
    while entries.len()? > AUDIT_MAX {
        entries.pop_first()?;
    }
    Ok(seq)
}

/// A table that may not have been written to yet.
fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn record(stored: &[u8]) -> Result<Record, redb::Error> {
    match stored.split_first_chunk() {
        Some((version, bytes)) => Ok(Record { version: u16::from_be_bytes(*version), bytes: bytes.to_vec() }),
        None => Err(redb::Error::Corrupted("a record without a version".to_owned())),
    }
}

fn damaged(error: &serde_json::Error) -> redb::Error {
    redb::Error::Corrupted(format!("an audit entry that cannot be read: {error}"))
}

fn refusal(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            StoreError::Unreadable { path, why: source.to_string() }
        }
        redb::Error::Io(source) => StoreError::Io { path, source },
        redb::Error::PreviousIo => StoreError::Io { path, source: io::Error::other("the disk failed before") },
        redb::Error::DatabaseAlreadyOpen => {
            StoreError::Locked { dir: path.parent().map(Path::to_owned).unwrap_or_default(), by: None }
        }
        other => StoreError::Unreadable { path, why: other.to_string() },
    }
}

#[cfg(test)]
mod tests;
