//! Tests of the store: crashes, foreign files, full disks, two processes.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use proptest::prelude::*;
use redb::StorageBackend;

use super::*;

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-store-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Entries<'a> = redb::Table<'a, u64, &'static [u8]>;

fn text(version: u16, text: &str) -> Record {
    Record { version, bytes: text.as_bytes().to_vec() }
}

fn draft(verb: &str) -> Draft {
    Draft { verb: verb.to_owned(), actor: "test".to_owned(), ..Draft::default() }
}

fn put(key: &str, contents: &str, verbs: &[&str]) -> Change {
    Change {
        put: vec![(Table::Services, key.to_owned(), text(1, contents))],
        audit: verbs.iter().map(|verb| draft(verb)).collect(),
        ..Change::default()
    }
}

fn entries(store: &Store, after: u64) -> Vec<Entry> {
    let read = |(seq, bytes): (u64, Vec<u8>)| {
        let entry: Entry = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(entry.seq, seq);
        entry
    };
    store.audit(after, 10).unwrap().into_iter().map(read).collect()
}

#[test]
fn ranges_of_records_are_cut_after_the_rest() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    let keys = ["a/1", "a/2", "a/3", "a-b/1", "a0/1"];
    let put = keys.map(|key| (Table::Rollouts, key.to_owned(), text(1, key))).to_vec();
    store.commit(&Change { put: put.clone(), ..Change::default() }).unwrap();
    let left = || store.all(Table::Rollouts).unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let cut = |from: &str, to: &str| vec![(Table::Rollouts, from.to_owned()..to.to_owned())];
    store.commit(&Change { cut: cut("a/", "a/3"), ..Change::default() }).unwrap();
    assert_eq!(left(), ["a-b/1", "a/3", "a0/1"]);
    store.commit(&Change { put, cut: cut("a/", "a0"), ..Change::default() }).unwrap();
    assert_eq!(left(), ["a-b/1", "a0/1"]);
}

#[test]
fn a_page_of_the_audit_is_bounded_in_bytes_and_never_empty_before_the_end() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    let large = |bytes: usize| Draft { reason: Some("x".repeat(bytes)), ..draft("start") };
    let audit = vec![
        large(AUDIT_PAGE_BYTES_MAX + 1),
        large(10),
        large(AUDIT_PAGE_BYTES_MAX / 2),
        large(AUDIT_PAGE_BYTES_MAX / 2),
    ];
    store.commit(&Change { audit, ..Change::default() }).unwrap();
    let page = |after| store.audit(after, 10).unwrap().into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
    assert_eq!((page(0), page(1), page(3), page(4)), (vec![1], vec![2, 3], vec![4], vec![]));
    assert_eq!(store.audit(1, 1).unwrap().len(), 1);
}

#[test]
fn only_a_store_that_is_there_is_opened_to_look_at_it() {
    let dir = Dir::new();
    let refused = Store::open_existing(&dir.0).unwrap_err();
    assert!(matches!(&refused, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound), "{refused}");
    assert!(!dir.0.exists(), "nothing was made");
    drop(Store::open(&dir.0).unwrap());
    Store::open_existing(&dir.0).unwrap();
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let dir = Dir::new();
    {
        let store = Store::open(&dir.0).unwrap();
        assert!(store.is_fresh());
        assert_eq!(store.get(Table::Services, "web").unwrap(), None);
        assert_eq!(store.commit(&put("web", "v1", &["start", "promote"])).unwrap(), 2);
    }
    let store = Store::open(&dir.0).unwrap();
    assert!(!store.is_fresh());
    assert_eq!(store.get(Table::Services, "web").unwrap(), Some(text(1, "v1")));
    assert_eq!(store.all(Table::Services).unwrap(), [("web".to_owned(), text(1, "v1"))]);
    assert_eq!(store.all(Table::Rollouts).unwrap(), []);
    let verbs: Vec<_> = entries(&store, 1).into_iter().map(|e| (e.seq, e.what.verb)).collect();
    assert_eq!(verbs, [(2, "promote".to_owned())]);
    let gone = Change { remove: vec![(Table::Services, "web".to_owned())], ..Change::default() };
    store.commit(&gone).unwrap();
    assert_eq!(store.get(Table::Services, "web").unwrap(), None);
    let mode = fs::metadata(dir.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir.0).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_second_process_is_refused_and_told_by_whom() {
    let dir = Dir::new();
    let first = Store::open(&dir.0).unwrap();
    let refused = Store::open(&dir.0).unwrap_err();
    assert!(matches!(&refused, StoreError::Locked { by, .. } if *by == Some(std::process::id())), "{refused}");
    assert!(refused.to_string().contains("stop it, or give this one a directory of its own"));
    drop(first);
    Store::open(&dir.0).unwrap();
}

#[test]
fn a_child_that_inherited_the_lock_does_not_keep_it() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let held = lock(&dir.0).unwrap();
    let inherited = held.0.try_clone().unwrap();
    drop(held);
    Store::open(&dir.0).unwrap();
    drop(inherited);
}

#[test]
fn foreign_and_damaged_files_are_refused_and_left_as_they_are() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    for contents in [&b"# notes\n"[..], &[0; 8192], &[0xff; 100]] {
        fs::write(dir.file(), contents).unwrap();
        let refused = Store::open(&dir.0).unwrap_err();
        assert!(matches!(refused, StoreError::Unreadable { .. }), "{refused:?}");
        assert!(refused.to_string().contains(&dir.file().display().to_string()));
        assert_eq!(fs::read(dir.file()).unwrap(), contents);
    }
}

#[test]
fn a_crash_while_it_was_begun_leaves_nothing_in_the_way() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    fs::write(dir.0.join(NEW), b"half").unwrap();
    assert!(Store::open(&dir.0).unwrap().is_fresh());
    assert!(!dir.0.join(NEW).exists());
}

#[test]
fn a_newer_store_is_refused() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    store
        .attempt(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(META)?.insert(FORMAT_KEY, u64::from(FORMAT) + 1)?;
            Ok(transaction.commit()?)
        })
        .unwrap();
    drop(store);
    let refused = Store::open(&dir.0).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 2, known: 1, .. }), "{refused}");
}

/// A disk that takes so many more writes, the last one by half, and none after that.
#[derive(Debug)]
struct Disk {
    file: File,
    left: Arc<AtomicU64>,
}

const HEALTHY: u64 = u64::MAX;

impl Disk {
    /// Whether the next write is the last one; fails when that is over.
    fn spend(&self) -> io::Result<bool> {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        before.map(|left| left == 1).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.spend()? {
            self.file.write_all_at(&data[..data.len() / 2], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(data, offset)
    }
}

fn on_disk(dir: &Dir, left: &Arc<AtomicU64>) -> Store {
    let left = Arc::clone(left);
    let open = move |path: &Path, _| {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let disk = Disk { file: opened.map_err(|e| DatabaseError::Storage(e.into()))?, left: Arc::clone(&left) };
        redb::Builder::new().create_with_backend(disk)
    };
    Store::open_with(&dir.0, Box::new(open)).unwrap()
}

/// A disk without room: of the file only the header, which is there for sure, can be written again.
#[derive(Debug)]
struct Full {
    disk: Disk,
    full: Arc<AtomicBool>,
}

const HEADER: u64 = 4_096;

impl Full {
    fn room(&self, needed: bool) -> io::Result<()> {
        if needed && self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Full {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room(len > self.disk.len()?)?;
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room(offset + data.len() as u64 > HEADER)?;
        self.disk.write(offset, data)
    }
}

/// The directory has a store already, and the disk takes nothing more.
#[test]
fn a_start_needs_no_room_on_the_disk() {
    let dir = Dir::new();
    Store::open(&dir.0).unwrap().commit(&put("web", "v1", &["start"])).unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let on = Arc::clone(&full);
    let open = move |path: &Path, _| {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|error| DatabaseError::Storage(error.into()))?;
        let disk = Disk { file, left: Arc::new(AtomicU64::new(HEALTHY)) };
        redb::Builder::new().create_with_backend(Full { disk, full: Arc::clone(&on) })
    };
    let store = Store::open_with(&dir.0, Box::new(open)).unwrap();
    assert_eq!(store.get(Table::Services, "web").unwrap(), Some(text(1, "v1")));
    assert!(store.commit(&put("web", "v2", &["promote"])).unwrap_err().is_full());
    full.store(false, Ordering::Relaxed);
    assert_eq!(store.commit(&put("web", "v2", &["promote"])).unwrap(), 2);
}

/// As a lock on a full disk: it is held, although nobody can be told by whom.
#[test]
fn a_lock_without_a_number_is_a_lock() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    File::create(dir.0.join(LOCK)).unwrap();
    let refused = Store::open(&dir.0).unwrap_err();
    assert!(matches!(&refused, StoreError::Locked { by: None, .. }), "{refused}");
    drop(store);
}

/// Somebody moves the file away while the process runs, and the disk fails: nothing is begun in its place.
#[test]
fn a_store_that_was_taken_away_is_missed_and_taken_up_again_when_it_is_back() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    store.commit(&put("web", "v1", &["start"])).unwrap();
    let elsewhere = dir.0.join("elsewhere");
    fs::rename(dir.file(), &elsewhere).unwrap();
    *store.database.write().unwrap() = None;
    for _ in 0..2 {
        let refused = store.commit(&put("web", "v2", &["promote"])).unwrap_err();
        assert!(matches!(&refused, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound));
        assert!(!dir.file().exists(), "an empty one would have forgotten everything");
    }
    fs::rename(&elsewhere, dir.file()).unwrap();
    assert_eq!(store.commit(&put("web", "v2", &["promote"])).unwrap(), 2);
}

#[test]
fn a_panic_of_the_engine_is_an_error_and_the_next_call_works() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    store.commit(&put("web", "v1", &["start"])).unwrap();
    let failed = store.attempt(|database| -> Result<(), redb::Error> {
        let _transaction = database.begin_write()?;
        panic!("an assertion does not hold");
    });
    assert!(failed.unwrap_err().to_string().contains("this is a defect"));
    assert_eq!(store.commit(&put("web", "v2", &["promote"])).unwrap(), 2);
}

/// Killed at each write of a commit, and in the midst of it: what is found is the old or the new, with its audit, and nothing acknowledged is
/// lost.
#[test]
fn a_crash_at_any_write_of_a_commit_leaves_the_old_or_the_new() {
    let mut found = [0; 2];
    for left in 1..1_000 {
        let (dir, disk) = (Dir::new(), Arc::new(AtomicU64::new(HEALTHY)));
        let store = on_disk(&dir, &disk);
        store.commit(&put("web", "v1", &["start"])).unwrap();
        disk.store(left, Ordering::Relaxed);
        let acknowledged = store.commit(&put("web", "v2", &["promote"])).is_ok();
        disk.store(0, Ordering::Relaxed);
        drop(store);
        let store = Store::open(&dir.0).unwrap();
        let record = store.get(Table::Services, "web").unwrap();
        let new = record == Some(text(1, "v2"));
        assert!(new || record == Some(text(1, "v1")) && !acknowledged, "after {left} writes: {record:?}");
        assert_eq!(store.audit(0, 9).unwrap().len(), 1 + usize::from(new), "after {left} writes");
        assert!(store.verify_audit().unwrap().is_ok());
        found[usize::from(new)] += 1;
        if acknowledged {
            break;
        }
    }
    assert!(found[0] > 1 && found[1] > 0, "{found:?}");
}

#[test]
fn a_full_disk_refuses_the_change_and_takes_it_once_there_is_room() {
    let dir = Dir::new();
    let left = Arc::new(AtomicU64::new(HEALTHY));
    let store = on_disk(&dir, &left);
    store.commit(&put("web", "v1", &["start"])).unwrap();
    left.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        let refused = store.commit(&put("web", "v2", &["promote"])).unwrap_err();
        assert!(refused.is_full() || matches!(refused, StoreError::Io { .. }), "{refused:?}");
    }
    left.store(HEALTHY, Ordering::Relaxed);
    assert_eq!(store.get(Table::Services, "web").unwrap(), Some(text(1, "v1")));
    assert_eq!(store.commit(&put("web", "v2", &["promote"])).unwrap(), 2);
    drop(store);
    let store = Store::open(&dir.0).unwrap();
    assert_eq!(store.get(Table::Services, "web").unwrap(), Some(text(1, "v2")));
    assert!(store.verify_audit().unwrap().is_ok());
}

#[test]
fn the_chain_shows_what_was_changed_removed_or_put_in() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    assert_eq!(store.verify_audit().unwrap().unwrap().last, 0);
    store.commit(&put("web", "v1", &["a", "b", "c", "d"])).unwrap();
    let whole = store.verify_audit().unwrap().unwrap();
    assert_eq!((whole.first, whole.last, whole.head.len()), (1, 4, 64));
    let tamper = |work: &dyn Fn(&mut Entries<'_>)| {
        let copy = Dir::new();
        fs::create_dir_all(&copy.0).unwrap();
        fs::copy(dir.file(), copy.file()).unwrap();
        let store = Store::open(&copy.0).unwrap();
        store
            .attempt(|database| {
                let transaction = database.begin_write()?;
                work(&mut transaction.open_table(AUDIT)?);
                Ok(transaction.commit()?)
            })
            .unwrap();
        store.verify_audit().unwrap()
    };
    let changed = tamper(&|entries| {
        let bytes = entries.get(2).unwrap().unwrap().value().to_vec();
        let text = String::from_utf8(bytes).unwrap().replace("\"verb\":\"b\"", "\"verb\":\"x\"");
        entries.insert(2, text.as_bytes()).unwrap();
    });
    assert_eq!(changed.unwrap_err().seq, 3);
    let removed = tamper(&|entries| drop(entries.remove(3).unwrap()));
    assert_eq!(removed.unwrap_err().seq, 4);
    let oldest_let_go = tamper(&|entries| drop(entries.remove(1).unwrap()));
    assert_eq!(oldest_let_go.unwrap().first, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever is committed in whatever order, a restart finds the last of it, and the register in one piece.
    #[test]
    fn a_restart_finds_the_last_commit(steps in prop::collection::vec((0_u8..4, any::<u16>(), 0_usize..3, any::<bool>()), 1..12)) {
        let dir = Dir::new();
        let mut expected = std::collections::BTreeMap::new();
        let mut entries = 0;
        let mut store = Store::open(&dir.0).unwrap();
        for (key, value, audits, restart) in steps {
            let (key, value) = (key.to_string(), value.to_string());
            entries += audits as u64;
            prop_assert_eq!(store.commit(&put(&key, &value, &vec!["x"; audits])).unwrap(), entries);
            expected.insert(key, text(1, &value));
            if restart {
                drop(store);
                store = Store::open(&dir.0).unwrap();
            }
        }
        let found: std::collections::BTreeMap<_, _> = store.all(Table::Services).unwrap().into_iter().collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(store.verify_audit().unwrap().unwrap().last, entries);
    }
}
