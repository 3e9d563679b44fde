//! Real files, changed in every way they are changed in practice.

use std::os::unix::fs::{FileExt, symlink};
use std::sync::atomic::AtomicU32;

use notify::event::{AccessKind, CreateKind, DataChange, Flag, ModifyKind};
use notify::{Event, WatcherKind};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::*;

/// Bounds what should take milliseconds.
const LONG: Duration = Duration::from_secs(20);
/// Never, as far as a test is concerned.
const NEVER: Duration = Duration::from_secs(3_600);
/// Looks soon after an event and never without one.
const BY_EVENTS: Timing = Timing { quiet: Duration::from_millis(20), quiet_max: LONG, poll: NEVER };

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tidegate-watch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A file in it.
    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A watch, what it tells, and a file beside those under test: when its change is told, everything before it has been looked at.
struct Tested {
    watch: FileWatch,
    changes: Receiver<Changed>,
    marker: PathBuf,
    marked: u32,
    _folder: Folder,
}

impl Tested {
    async fn start(files: &[&Path], timing: Timing) -> Self {
        Self::start_with(Box::new(native), files, timing).await
    }

    async fn start_with(open: Backend, files: &[&Path], timing: Timing) -> Self {
        let folder = Folder::new();
        let marker = folder.file("marker", "0");
        let (sender, changes) = channel(16);
        let files: Vec<_> = files.iter().copied().chain([marker.as_path()]).map(Path::to_path_buf).collect();
        let watch = FileWatch::start_with(open, files, timing, sender).unwrap();
        let mut tested = Self { watch, changes, marker, marked: 0, _folder: folder };
        // The first look is without an event; what comes after it is not.
        tested.nothing_more().await;
        tested
    }

    async fn next(&mut self) -> Changed {
        timeout(LONG, self.changes.recv()).await.expect("no change was told").expect("the watch ended")
    }

    async fn told(&mut self, paths: &[&Path]) {
        assert_eq!(self.next().await.paths, paths);
    }

    /// What happened so far has been told.
    async fn nothing_more(&mut self) {
        self.marked += 1;
        write(&self.marker, &self.marked.to_string());
        let marker = self.marker.clone();
        self.told(&[&marker]).await;
    }
}

/// In place, and never empty or half written in between: a test knows how many changes there are to tell.
fn write(path: &Path, contents: &str) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(contents.as_bytes(), 0).unwrap();
    file.set_len(contents.len() as u64).unwrap();
}

fn rename_over(path: &Path, contents: &str) {
    let new = path.with_extension("new");
    fs::write(&new, contents).unwrap();
    fs::rename(new, path).unwrap();
}

fn link_over(path: &Path, target: &Path) {
    let mut new = path.as_os_str().to_owned();
    new.push("_tmp");
    symlink(target, &new).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_write_in_place_is_seen() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "1");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    for contents in ["2", "3", ""] {
        write(&path, contents);
        tested.told(&[&path]).await;
    }
    tested.nothing_more().await;
}

#[tokio::test]
async fn an_editors_rename_is_seen_every_time() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "1");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    for contents in ["2", "3", "4"] {
        rename_over(&path, contents);
        tested.told(&[&path]).await;
    }
    // The other way: the old one is moved away first.
    fs::rename(&path, folder.0.join("tidegate.toml~")).unwrap();
    fs::write(folder.0.join("tidegate.toml.new"), "5").unwrap();
    fs::rename(folder.0.join("tidegate.toml.new"), &path).unwrap();
    tested.told(&[&path]).await;
    tested.nothing_more().await;
}

#[tokio::test]
async fn envoy_3928_traefik_1188_a_config_map_is_swapped() {
    let folder = Folder::new();
    let version = |n: u32| {
        let versioned = folder.0.join(format!("..{n}"));
        fs::create_dir(&versioned).unwrap();
        fs::write(versioned.join("tidegate.toml"), n.to_string()).unwrap();
        PathBuf::from(format!("..{n}"))
    };
    let data = folder.0.join("..data");
    symlink(version(1), &data).unwrap();
    let path = folder.0.join("tidegate.toml");
    symlink("..data/tidegate.toml", &path).unwrap();
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    for n in 2..5 {
        link_over(&data, &version(n));
        fs::remove_dir_all(folder.0.join(format!("..{}", n - 1))).unwrap();
        tested.told(&[&path]).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), n.to_string());
    }
    tested.nothing_more().await;
}

#[tokio::test]
async fn a_link_far_away_on_the_path_is_swapped() {
    let (folder, releases) = (Folder::new(), Folder::new());
    for n in ["1", "2"] {
        fs::create_dir(releases.0.join(n)).unwrap();
        fs::write(releases.0.join(n).join("tidegate.toml"), n).unwrap();
    }
    let current = releases.0.join("current");
    symlink("1", &current).unwrap();
    let path = folder.0.join("tidegate.toml");
    symlink(current.join("../current/tidegate.toml"), &path).unwrap();
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    link_over(&current, Path::new("2"));
    tested.told(&[&path]).await;
    // Behind the new link, and no longer behind the old one.
    write(&releases.0.join("1/tidegate.toml"), "4");
    write(&releases.0.join("2/tidegate.toml"), "3");
    tested.told(&[&path]).await;
    tested.nothing_more().await;
}

#[tokio::test]
async fn a_file_comes_back_after_it_was_deleted() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "1");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    fs::remove_file(&path).unwrap();
    tested.nothing_more().await;
    rename_over(&path, "1");
    tested.nothing_more().await;
    fs::remove_file(&path).unwrap();
    tested.nothing_more().await;
    rename_over(&path, "2");
    tested.told(&[&path]).await;
}

#[tokio::test]
async fn a_folder_comes_back_after_it_was_deleted() {
    let folder = Folder::new();
    let inner = folder.0.join("conf.d");
    let path = inner.join("tidegate.toml");
    fs::create_dir(&inner).unwrap();
    fs::write(&path, "1").unwrap();
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    for contents in ["2", "3"] {
        fs::remove_dir_all(&inner).unwrap();
        tested.nothing_more().await;
        fs::create_dir(&inner).unwrap();
        tested.nothing_more().await;
        rename_over(&path, contents);
        tested.told(&[&path]).await;
    }
}

#[tokio::test]
async fn a_folder_is_swapped_for_another() {
    let folder = Folder::new();
    let (inner, path) = (folder.0.join("conf"), folder.0.join("conf/tidegate.toml"));
    let make = |at: &Path, contents: &str| {
        fs::create_dir(at).unwrap();
        fs::write(at.join("tidegate.toml"), contents).unwrap();
    };
    make(&inner, "1");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    make(&folder.0.join("conf.new"), "2");
    fs::rename(&inner, folder.0.join("conf.old")).unwrap();
    fs::rename(folder.0.join("conf.new"), &inner).unwrap();
    tested.told(&[&path]).await;
    write(&folder.0.join("conf.old/tidegate.toml"), "old");
    write(&path, "3");
    tested.told(&[&path]).await;
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_awaited() {
    let folder = Folder::new();
    let path = folder.0.join("not/yet/tidegate.toml");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    tested.nothing_more().await;
    rename_over(&path, "1");
    tested.told(&[&path]).await;
}

#[tokio::test]
async fn the_same_contents_are_no_change() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "1");
    let mut tested = Tested::start(&[&path], BY_EVENTS).await;
    write(&path, "1");
    rename_over(&path, "1");
    File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    tested.nothing_more().await;
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_file_stops_nothing() {
    let folder = Folder::new();
    let (path, other) = (folder.file("tidegate.toml", "1"), folder.file("other", "1"));
    let mut tested = Tested::start(&[&path, &other], BY_EVENTS).await;
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    tested.nothing_more().await;
    fs::remove_dir(&path).unwrap();
    symlink("tidegate.toml", &path).unwrap();
    write(&other, "2");
    tested.told(&[&other]).await;
    rename_over(&path, "2");
    tested.told(&[&path]).await;
}

#[tokio::test]
async fn a_burst_is_told_once() {
    let folder = Folder::new();
    let (path, other) = (folder.file("tidegate.toml", "0"), folder.file("other", "0"));
    let timing = Timing { quiet: Duration::from_millis(700), ..BY_EVENTS };
    let mut tested = Tested::start(&[&path, &other], timing).await;
    for n in 1..50 {
        write(&path, &n.to_string());
        rename_over(&other, &n.to_string());
    }
    tested.told(&[&other, &path]).await;
    tested.nothing_more().await;
}

#[tokio::test]
async fn writes_without_end_are_told_nevertheless() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "0");
    // It is the bound that ends the wait: this pause never comes.
    let timing = Timing { quiet: NEVER, quiet_max: Duration::from_millis(100), poll: NEVER };
    let mut tested = Tested::start(&[&path], timing).await;
    let deadline = clock::now() + LONG;
    for n in 1_u64.. {
        fs::write(&path, n.to_string()).unwrap();
        match tested.changes.try_recv() {
            Ok(changed) => return assert_eq!(changed.paths, [path]),
            Err(_) => assert!(clock::now() < deadline),
        }
    }
}

#[tokio::test]
async fn without_events_files_are_polled() {
    let timing = Timing { quiet: Duration::from_millis(1), quiet_max: LONG, poll: Duration::from_millis(10) };
    let backends: [Backend; 2] = [
        Box::new(|_| Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))),
        Box::new(|_| Ok(Box::new(Limited) as Box<dyn Watcher + Send>)),
    ];
    for open in backends {
        let folder = Folder::new();
        let path = folder.file("tidegate.toml", "1");
        let mut tested = Tested::start_with(open, &[&path], timing).await;
        for contents in ["2", "3"] {
            rename_over(&path, contents);
            tested.told(&[&path]).await;
        }
    }
}

/// All inotify watches of the user are taken.
#[derive(Debug)]
struct Limited;

impl Watcher for Limited {
    fn new<F: notify::EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        Ok(Self)
    }

    fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
        Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch))
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        Err(notify::Error::watch_not_found())
    }

    fn kind() -> WatcherKind {
        WatcherKind::NullWatcher
    }
}

#[tokio::test]
async fn the_set_of_files_is_replaced() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.file(name, "1"));
    let mut tested = Tested::start(&[&a, &b], BY_EVENTS).await;
    tested.watch.watch(vec![b.clone(), c.clone(), tested.marker.clone()]);
    // It goes over before it looks for the second time at the latest.
    tested.nothing_more().await;
    tested.nothing_more().await;
    for path in [&a, &b, &c] {
        write(path, "2");
    }
    let (mut told, expected) = (BTreeSet::new(), BTreeSet::from([b, c]));
    while told != expected {
        told.extend(tested.next().await.paths);
    }
    tested.nothing_more().await;
}

#[tokio::test]
async fn what_happened_between_reading_and_watching_is_told() {
    let folder = Folder::new();
    let path = folder.file("tidegate.toml", "2");
    let same = folder.file("same", "1");
    let (sender, mut changes) = channel(1);
    let read = |path: &Path| Watched { path: path.to_owned(), read: Some(Digest::of(b"1")) };
    let watch = FileWatch::start(vec![read(&path), read(&same)], BY_EVENTS, sender).unwrap();
    assert_eq!(timeout(LONG, changes.recv()).await.unwrap().unwrap().paths, [path]);
    watch.watch(vec![Watched { path: same.clone(), read: Some(Digest::of(b"0")) }]);
    assert_eq!(timeout(LONG, changes.recv()).await.unwrap().unwrap().paths, [same]);
}

#[tokio::test]
async fn changes_gather_while_the_queue_is_full() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.file(name, "1"));
    let (sender, mut changes) = channel(1);
    let timing = Timing { quiet: Duration::ZERO, ..BY_EVENTS };
    let _watch = FileWatch::start(vec![a.clone(), b.clone(), c.clone()], timing, sender.clone()).unwrap();
    write(&a, "2");
    // Taken out only once it is known to be in.
    while sender.capacity() > 0 {
        tokio::task::yield_now().await;
    }
    write(&b, "2");
    write(&c, "2");
    assert_eq!(timeout(LONG, changes.recv()).await.unwrap().unwrap().paths, [a]);
    let (mut told, expected) = (BTreeSet::new(), BTreeSet::from([b, c]));
    while told != expected {
        told.extend(timeout(LONG, changes.recv()).await.unwrap().unwrap().paths);
    }
}

#[tokio::test]
async fn dropping_the_watch_ends_it() {
    let (sender, mut changes) = channel(1);
    let watch = FileWatch::start(Vec::<PathBuf>::new(), BY_EVENTS, sender).unwrap();
    drop(watch);
    assert!(timeout(LONG, changes.recv()).await.unwrap().is_none());
}

/// Whether an event makes the watch look.
fn touches(event: notify::Result<Event>) -> bool {
    let (wake, _wakes) = sync_channel(1);
    let places = Places { entries: [PathBuf::from("/etc/tidegate.toml")].into(), directories: BTreeMap::new() };
    let (stop, touched) = (AtomicBool::new(false), AtomicBool::new(false));
    let shared = Shared { wake, stop, touched, wanted: Mutex::new(None), places: Mutex::new(places) };
    shared.event(event);
    shared.touched.into_inner()
}

#[test]
fn only_events_that_may_mean_a_change_count() {
    let about = |kind, path: &str| Ok(Event::new(kind).add_path(path.into()));
    let modified = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    assert!(touches(about(modified, "/etc/tidegate.toml")));
    assert!(touches(about(EventKind::Create(CreateKind::File), "/etc/tidegate.toml")));
    assert!(touches(about(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/etc/tidegate.toml")));
    assert!(touches(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan))), "the queue of events ran over");
    assert!(touches(Err(notify::Error::generic("something"))));
    assert!(!touches(about(modified, "/etc/passwd")));
    // The watch reads the file: it must not wake itself.
    assert!(!touches(about(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/etc/tidegate.toml")));
    assert!(!touches(about(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/tidegate.toml")));
}

#[test]
fn the_pause_is_awaited_and_the_wait_is_bounded() {
    let timing = Timing::default();
    let (start, ms) = (clock::now(), Duration::from_millis);
    let mut debounce = Debounce::default();
    assert_eq!(debounce.due(&timing), None);
    debounce.touch(start);
    debounce.touch(start + ms(150));
    assert!(!debounce.take_due(start + ms(349), &timing));
    assert!(debounce.take_due(start + ms(350), &timing));
    assert!(!debounce.take_due(start + ms(10_000), &timing), "once");
    for n in 0..20 {
        debounce.touch(start + ms(100 * n));
        assert!(!debounce.take_due(start + ms(100 * n), &timing));
    }
    assert!(debounce.take_due(start + ms(2_000), &timing));
}

#[test]
fn a_digest_is_of_the_contents() {
    let folder = Folder::new();
    let path = folder.file("a", "contents");
    assert_eq!(Digest::of_file(&path).unwrap(), Digest::of(b"contents"));
    assert_ne!(Digest::of(b"a"), Digest::of(b"b"));
    assert!(Digest::of_file(&folder.0).is_err() && Digest::of_file(Path::new("/dev/zero")).is_err());
}
